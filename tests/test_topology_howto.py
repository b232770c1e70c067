"""The samples of docs/how-to/topology.md are documents that both readers take and the schemas list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from fairlead.model.gang import Gang, GangId, PodShape, Slices
from fairlead.simulation import gangjob_yaml
from fairlead_operator.custom_objects import GangJob, PoolObject
from fairlead_operator.decode import decode_gang
from fairlead_operator.decode_pools import decode_pool

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "how-to" / "topology.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
DOCUMENTS = [document for block in BLOCKS for document in yaml.safe_load_all(block)]
JOBS = {document["metadata"]["name"]: document for document in DOCUMENTS if document["kind"] == "GangJob"}
SCHEMAS = {
    kind: yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text(encoding="utf-8"))["spec"]["versions"][0]
    for kind, plural in (("GangJob", "gangjobs"), ("Pool", "pools"))
}


def read(name: str) -> Gang:
    text = yaml.safe_dump(JOBS[name])
    return gangjob_yaml.read(text, now_ms=0, new_id=lambda namespace, name: GangId("u")).gangs[0]


def unlisted(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths that a server would prune or refuse: not in the schema, or of another type."""
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if not isinstance(value, types[schema["type"]]) or value not in schema.get("enum", [value]):
        return [path]
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return [path]
    found: list[str] = []
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += unlisted(item, schema["items"], f"{path}[{number}]")
    elif isinstance(value, dict):
        for key, child in value.items():
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if known is None and path:
                found.append(f"{path}.{key}")
            elif known is not None and key != "metadata":
                found += unlisted(child, known, f"{path}.{key}")
    return found


def test_there_are_samples_of_everything() -> None:
    assert set(JOBS) == {"pretrain", "nvl72", "leader-and-workers", "chat", "notebooks", "hot"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["metadata"]["name"])
def test_the_schema_lists_what_a_sample_says(document: dict[str, Any]) -> None:
    assert unlisted(document, SCHEMAS[document["kind"]]["schema"]["openAPIV3Schema"]) == []


def test_a_field_that_no_schema_lists_is_found() -> None:
    schema = SCHEMAS["GangJob"]["schema"]["openAPIV3Schema"]
    wrong = {"spec": {"queue": "q", "roles": [{"name": "w", "replicas": "2", "slice": 4}], "isolation": "total"}}
    assert unlisted(wrong, schema) == [".spec.roles[0].replicas", ".spec.roles[0].slice", ".spec.isolation"]


@pytest.mark.parametrize("name", JOBS)
def test_both_readers_take_a_sample(name: str) -> None:
    assert read(name).name == name
    job = msgspec.json.decode(msgspec.json.encode(JOBS[name]), type=GangJob)
    decoded = decode_gang(job, {role.name: PodShape() for role in job.spec.roles})
    assert isinstance(decoded, Gang), decoded
    assert decoded.topology == read(name).topology
    for one, other in zip(decoded.roles, read(name).roles, strict=True):
        assert (one.topology, one.spread, one.fewest, one.mig) == (
            other.topology,
            other.spread,
            other.fewest,
            other.mig,
        )


def test_the_samples_mean_what_the_page_says() -> None:
    nvl72 = read("nvl72").topology
    assert nvl72 is not None
    assert (nvl72.within, nvl72.slices) == ("cluster", (Slices(within="zone", size=48), Slices(within="rack", size=16)))
    assert [role.fewest for role in read("leader-and-workers").roles] == [1, 4]
    assert read("chat").roles[0].spread == "rack"
    pool = next(document for document in DOCUMENTS if document["kind"] == "Pool")
    budgets = decode_pool(msgspec.convert(pool, PoolObject)).budgets
    needs = dict(read("hot").roles[0].pod.requests.extended)
    assert {budget.resource for budget in budgets} == set(needs)
    assert all(needs[budget.resource] <= budget.amount for budget in budgets)
