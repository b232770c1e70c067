"""The API's schemas hold the house rules, and the chart and the reference page say exactly what crds/ says."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from fairlead.model.gang import Gang, Isolation, Role, ShareMode
from fairlead.model.gang_rules import why_not_offered
from fairlead.model.tenancy import MIG_MODES, SHARING_BY_DEFAULT, SHARING_MODES

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "fairlead"
FILES = sorted((ROOT / "crds").glob("*.yaml"))
SHORT_NAMES = {
    "gangjobs": ["gj"],
    "queues": ["fq"],
    "pools": None,
    "pricebooks": ["pb"],
    "fairnesspolicies": ["fp"],
    "nodetopologies": ["nt"],
    "queueviews": ["qv"],
    "quotaexceptions": ["qx"],
    "reservations": ["rsv"],
    "switchboards": None,
}
NAMESPACED = {"gangjobs", "queueviews"}


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api_docs = load_tool("api_docs")
sync_chart_crds = load_tool("sync_chart_crds")
CRDS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
KINDS = sorted(CRDS)


def all_fields(crd):
    """Every (path, schema) of a CRD below its root, without metadata."""
    return [(path, field) for path, field, _ in api_docs.fields(api_docs.schema_of(crd))]


def test_there_is_one_file_per_kind():
    assert sorted(SHORT_NAMES) == KINDS


@pytest.mark.parametrize("plural", KINDS)
def test_names_scope_and_version(plural):
    crd = CRDS[plural]
    names = crd["spec"]["names"]
    assert crd["metadata"]["name"] == f"{plural}.fairlead.dev"
    assert names["plural"] == plural
    assert names.get("shortNames") == SHORT_NAMES[plural]
    assert names["categories"] == ["fairlead"]
    assert crd["spec"]["scope"] == ("Namespaced" if plural in NAMESPACED else "Cluster")
    (version,) = crd["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize("plural", KINDS)
def test_every_field_says_what_it_means(plural):
    assert [path for path, field in all_fields(CRDS[plural]) if len(field.get("description", "")) < 8] == []


@pytest.mark.parametrize("plural", KINDS)
def test_everything_that_can_grow_has_a_bound(plural):
    """A rule's cost is judged by the largest input that the schema allows, so nothing is left open."""
    open_ended = []
    for path, field in all_fields(CRDS[plural]):
        bounded_text = "enum" in field or "maxLength" in field or field.get("format") == "date-time"
        if field["type"] == "string" and not bounded_text:
            open_ended.append(path)
        if field["type"] == "array" and "maxItems" not in field:
            open_ended.append(path)
        if "additionalProperties" in field and "maxProperties" not in field:
            open_ended.append(path)
    assert open_ended == []


@pytest.mark.parametrize("plural", KINDS)
def test_every_field_is_structural(plural):
    """Objects list their fields, or say that they hold something else; map-like lists require their keys."""
    for path, field in all_fields(CRDS[plural]):
        if field["type"] == "object":
            holds = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & field.keys()
            assert len(holds) == 1, path
        for key in field.get("x-kubernetes-list-map-keys", []):
            assert key in field["items"]["required"], path


@pytest.mark.parametrize("plural", KINDS)
def test_every_rule_names_its_field_and_the_mend(plural):
    messages = list(api_docs.rules(api_docs.schema_of(CRDS[plural])))
    for message in messages:
        assert re.match(r"(spec|metadata)\.[a-zA-Z]", message), message
        assert re.search(r"[:;,] ", message), message
        assert len(message) <= 200, message
    assert len(messages) == len(set(messages))


@pytest.mark.parametrize("plural", KINDS)
def test_what_is_not_supported_is_refused(plural):
    """A field whose description says so has a rule that refuses it by name, or lies inside a field that has one."""
    messages = " ".join(api_docs.rules(api_docs.schema_of(CRDS[plural])))
    for path, field in all_fields(CRDS[plural]):
        if "Not supported yet" in field["description"]:
            refused = re.sub(r"\.share\..*", ".share", path)
            assert f"{refused} is not supported yet" in messages, path


def test_the_columns_are_the_promised_ones():
    shown = {}
    for plural, crd in CRDS.items():
        (version,) = crd["spec"]["versions"]
        shown[plural] = [column["name"] for column in version["additionalPrinterColumns"]]
    assert shown["gangjobs"] == ["Queue", "Phase", "GPUs", "Reason", "Position", "Age", "Priority", "Message"]
    assert shown["queues"] == ["Parent", "Guaranteed", "Limit", "Used", "Borrowed", "Pending", "Age"]
    assert {"Nodes", "GPUs", "Free", "Unmanaged", "Down"} <= set(shown["pools"])
    assert shown["queueviews"][:5] == ["Guaranteed", "Limit", "Used", "Borrowed", "Pending"]


@pytest.mark.parametrize("plural", KINDS)
def test_every_column_shows_a_field_that_exists(plural):
    (version,) = CRDS[plural]["spec"]["versions"]
    known = {f".{path}" for path, _ in all_fields(CRDS[plural])} | {".metadata.creationTimestamp"}
    for column in version["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"])
        assert path in known, column["name"]


def test_the_sum_of_replicas_and_the_largest_gang_agree():
    gangjob = dict(all_fields(CRDS["gangjobs"]))
    spec, replicas = gangjob["spec"], gangjob["spec.roles[].replicas"]
    (total,) = [rule for rule in spec["x-kubernetes-validations"] if "sum() <=" in rule["rule"]]
    (one,) = [rule for rule in replicas["x-kubernetes-validations"] if "oldSelf" not in rule["rule"]]
    assert "<= 4096" in total["rule"]
    assert "<= 4096" in one["rule"]
    assert gangjob["status.allocation.members"]["maxItems"] == 4096


def test_the_schema_takes_the_words_that_the_model_has():
    gangjob, pool = dict(all_fields(CRDS["gangjobs"])), dict(all_fields(CRDS["pools"]))
    assert set(gangjob["spec.isolation"]["enum"]) == {*Isolation}
    assert set(gangjob["spec.roles[].devices.share.mode"]["enum"]) == {*ShareMode}
    assert set(pool["spec.sharing[]"]["enum"]) == {*SHARING_MODES}
    assert tuple(pool["spec.sharing"]["default"]) == SHARING_BY_DEFAULT
    assert set(pool["spec.mig"]["enum"]) == {*MIG_MODES}


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("1g.10gb", True),
        ("7g.80gb", True),
        ("1g.12gb+me", True),
        ("1g.24gb+me.all", True),
        ("4g.48gb-me", True),
        ("10gb", False),
        ("0g.10gb", False),
        ("1g.10gb x", False),
        ("1c.2g.20gb", False),
    ],
)
def test_the_schema_and_the_rules_know_the_same_mig_profiles(name, good):
    pattern = dict(all_fields(CRDS["gangjobs"]))["spec.roles[].devices.mig"]["pattern"]
    gang = Gang(id="g", namespace="n", name="g", queue="q", roles=(Role(name="w", replicas=1, mig=name),))
    assert bool(re.search(pattern, name)) is good
    assert (why_not_offered(gang) is None) is good


def test_the_chart_has_the_same_crds():
    assert sync_chart_crds.differences() == []


def test_a_changed_or_missing_chart_crd_is_found(tmp_path):
    source, chart = tmp_path / "crds", tmp_path / "chart"
    source.mkdir()
    (source / "a.yaml").write_text("a: 1\n")
    assert sync_chart_crds.differences(source, chart) == ["a.yaml is missing in the chart"]
    sync_chart_crds.sync(source, chart)
    assert sync_chart_crds.differences(source, chart) == []
    (chart / "a.yaml").write_text("a: 2\n")
    (chart / "old.yaml").write_text("b: 1\n")
    assert sync_chart_crds.differences(source, chart) == ["a.yaml differs", "old.yaml is in the chart only"]
    sync_chart_crds.sync(source, chart)
    assert sync_chart_crds.differences(source, chart) == []


def test_the_reference_page_is_written_from_the_crds():
    assert api_docs.PAGE.read_text(encoding="utf-8") == api_docs.render(api_docs.load())


@pytest.mark.parametrize("plural", KINDS)
def test_the_reference_page_lists_every_field(plural):
    kind = CRDS[plural]["spec"]["names"]["kind"]
    page = api_docs.PAGE.read_text(encoding="utf-8")
    section = page.split(f"\n## {kind}\n")[1].split("\n## ")[0]
    assert [path for path, _ in all_fields(CRDS[plural]) if f"\n| `{path}` |" not in section] == []


def unlisted(value, schema, path=""):
    """Paths in `value` that `schema` does not list, and values of the wrong JSON type."""
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        return [path]
    if "enum" in schema and value not in schema["enum"]:
        return [path]
    found = []
    if isinstance(value, dict) and "properties" in schema:
        for key, child in value.items():
            known = schema["properties"].get(key)
            found += [f"{path}.{key}"] if known is None else unlisted(child, known, f"{path}.{key}")
    return found


def described(schema, path=""):
    for key, child in schema.get("properties", {}).items():
        yield f"{path}.{key}", child
        yield from described(child, f"{path}.{key}")


def test_the_values_schema_fits_the_values():
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert unlisted(values, schema) == []
    assert unlisted({"operator": {"replica": 1}}, schema) == [".operator.replica"]
    for path, child in described(schema):
        assert "description" in child or child.get("additionalProperties") is False or path.endswith(".name"), path
        if "properties" in child and child["type"] == "object":
            assert child["additionalProperties"] is False, path
    listed = set(schema["properties"]) - {"global"}
    assert listed == set(values)


def test_the_chart_is_named_as_the_project():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["name"], chart["appVersion"]) == ("fairlead", "0.1.0")
