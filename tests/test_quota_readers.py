"""Quotas and fairness policies as a cluster, a document and a scenario file say them: read alike, refused alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from fairlead.errors import UnreadableInput
from fairlead.model.fairness import FairnessPolicy, Sharing
from fairlead.model.gang import GangId
from fairlead.model.quota import Quota, amount_text, is_resource, words_of
from fairlead.simulation import gangjob_yaml
from fairlead.simulation.scenario_file import read_document
from fairlead_operator.custom_objects import QueueObject
from fairlead_operator.decode import decode_queue
from fairlead_operator.decode_fairness import decode_policy
from fairlead_operator.fairness_objects import FairnessPolicyObject

DAY_MS = 86_400_000


def document(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


def from_cluster(kind: str, spec: dict[str, Any]) -> Any:
    data = msgspec.json.encode(document(kind, spec))
    if kind == "Queue":
        return decode_queue(msgspec.json.decode(data, type=QueueObject), {})
    return decode_policy(msgspec.json.decode(data, type=FairnessPolicyObject))


def from_yaml(kind: str, spec: dict[str, Any]) -> Any:
    text = yaml.safe_dump(document(kind, spec))
    found = gangjob_yaml.read(text, now_ms=0, new_id=lambda namespace, name: GangId(name))
    return found.queues[0] if kind == "Queue" else found.policies[0]


def from_scenario(kind: str, spec: dict[str, Any]) -> Any:
    one = {"name": "x", **spec}
    if kind == "Queue":
        found = read_document({"queues": [{"namespaces": [], **one}], "policies": [{"name": "even"}]})
        return found.queues[0]
    return read_document({"policies": [one]}).policies[0]


READERS = pytest.mark.parametrize("read", [from_cluster, from_yaml, from_scenario])


@READERS
def test_quotas_of_every_resource_are_read(read) -> None:
    spec = {
        "resources": [
            {"name": "gpu", "guaranteed": 8, "limit": 16, "weight": 3, "lendLimit": 4, "borrowLimit": 6, "need": 2},
            {"name": "gpu/H100", "guaranteed": 4},
            {"name": "cpu", "limit": 64, "weight": 2},
            {"name": "memory", "limit": 512},
            {"name": "example.com/licence", "borrowLimit": 0},
        ],
        "fairnessPolicy": "even",
        "priorityScope": "subtree",
        "onOverLimit": "requeue",
        "nonPreemptible": "in-quota",
        "shares": "parent",
    }
    queue = read("Queue", spec)
    assert (queue.guaranteed_gpus, queue.limit_gpus, queue.weight) == (8, 16, 3)
    assert queue.quotas == (
        Quota(resource="cpu", limit=64_000, weight=2),
        Quota(resource="example.com/licence", borrow_limit=0),
        Quota(resource="gpu", lend_limit=4_000, borrow_limit=6_000, need=2_000),
        Quota(resource="gpu/H100", guaranteed=4_000),
        Quota(resource="memory", limit=512 << 30),
    )
    gpu = queue.quota("gpu")
    assert (gpu.guaranteed, gpu.most, gpu.kept) == (8_000, 14_000, 4_000)
    words = (queue.fairness_policy, queue.priority_scope, queue.on_over_limit, queue.non_preemptible, queue.shares)
    assert words == ("even", "subtree", "requeue", "in-quota", "parent")


@READERS
def test_a_queue_that_says_nothing_has_no_quotas(read) -> None:
    queue = read("Queue", {"resources": []})
    assert (queue.guaranteed_gpus, queue.limit_gpus, queue.weight, queue.quotas) == (0, None, 1, ())
    words = (queue.fairness_policy, queue.priority_scope, queue.on_over_limit, queue.non_preemptible, queue.shares)
    assert words == ("", "queue", "keep", "any", "own")


@READERS
@pytest.mark.parametrize(
    ("resource", "says"),
    [
        (
            {"name": "gpu", "guaranteed": 8, "limit": 4},
            "limit: 4 is below guaranteed 8; raise limit or lower guaranteed",
        ),
        ({"name": "cpu", "guaranteed": 8, "lendLimit": 9}, "lendLimit: 9 is above guaranteed 8; lower it or remove it"),
        ({"name": "gpu/A", "limit": 4, "need": 5}, "need: 5 is above limit 4; lower need or raise limit"),
        ({"name": "gpus"}, "name: 'gpus' is no resource; use gpu, gpu/MODEL, cpu"),
        ({"name": "gpu/"}, "name: 'gpu/' is no resource"),
        ({"name": "gpu:not-preemptible"}, "is no resource"),
    ],
)
def test_quotas_that_contradict_themselves_are_refused_with_the_field(read, resource, says) -> None:
    with pytest.raises(UnreadableInput, match=re.escape(says)):
        read("Queue", {"resources": [resource]})


CRD = Path(__file__).parent.parent / "crds" / "queues.yaml"


@pytest.mark.parametrize("read", [from_yaml, from_scenario])
def test_a_file_may_say_as_much_as_a_cluster_takes_and_no_more(read) -> None:
    version = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    said = version["properties"]["spec"]["properties"]["resources"]["items"]["properties"]
    for word in ("guaranteed", "limit", "lendLimit", "borrowLimit", "need"):
        most = said[word]["maximum"]
        enough = {"name": "cpu", "guaranteed": most} if word == "lendLimit" else {"name": "cpu"}
        assert read("Queue", {"resources": [{**enough, word: most}]}).quota("cpu") is not None
        with pytest.raises(UnreadableInput, match=word):
            read("Queue", {"resources": [{**enough, word: most + 1}]})


@READERS
def test_a_resource_stands_there_once(read) -> None:
    with pytest.raises(UnreadableInput, match=r"stands there twice; remove one of them"):
        read("Queue", {"resources": [{"name": "cpu"}, {"name": "cpu"}]})


@READERS
@pytest.mark.parametrize("field", ["priorityScope", "onOverLimit", "nonPreemptible", "shares"])
def test_words_that_are_not_known_are_refused_by_name(read, field) -> None:
    with pytest.raises(UnreadableInput, match=rf"{field}.*'maybe' is not"):
        read("Queue", {"resources": [], field: "maybe"})


@READERS
def test_a_policy_is_read(read) -> None:
    spec = {
        "kind": "slurm-classic",
        "version": 7,
        "halfLife": "14d",
        "aging": "36h",
        "damping": 3,
        "resources": [{"name": "memory", "weightMilli": 250}, {"name": "cpu"}],
    }
    assert read("FairnessPolicy", spec) == FairnessPolicy(
        name="x",
        version=7,
        kind=Sharing.SLURM_CLASSIC,
        half_life_ms=14 * DAY_MS,
        aging_ms=36 * 3_600_000,
        resources=(("cpu", 1000), ("memory", 250)),
        damping=3,
    )
    assert read("FairnessPolicy", {"kind": "equal", "version": 1}) == FairnessPolicy(name="x", kind=Sharing.EQUAL)


@READERS
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"kind": "kind"}, r"kind.*'kind' is not"),
        ({"kind": "equal", "halfLife": "0d"}, "halfLife.* is zero"),
        ({"kind": "equal", "aging": "soon"}, "aging: 'soon' is not a duration"),
        ({"kind": "equal", "resources": [{"name": "nonsense"}]}, "'nonsense' is no resource"),
        ({"kind": "equal", "resources": [{"name": "cpu", "weightMilli": 0}]}, "weigh nothing at all"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_field(read, spec, says) -> None:
    with pytest.raises(UnreadableInput, match=says):
        read("FairnessPolicy", {"version": 1, **spec})


def test_a_scenario_names_only_policies_that_are_there_and_gpus_in_one_place() -> None:
    with pytest.raises(UnreadableInput, match=r"queues: q.fairnessPolicy: there is no policy 'odd'; add it"):
        read_document({"queues": [{"name": "q", "fairnessPolicy": "odd"}]})
    with pytest.raises(UnreadableInput, match=r"queues\[0\].resources: names gpu, of which the queue itself says"):
        read_document({"queues": [{"name": "q", "limit": 3, "resources": [{"name": "gpu", "limit": 3}]}]})
    with pytest.raises(UnreadableInput, match=r"policies\[1\].name: there are two policies 'p'"):
        read_document({"policies": [{"name": "p"}, {"name": "p"}]})


def test_resources_have_names_and_units_for_people() -> None:
    names = ("gpu", "gpu/NVIDIA H100", "cpu", "x.y/z", "GPU", "gpu/-", "x", "")
    assert [name for name in names if is_resource(name)] == ["gpu", "gpu/NVIDIA H100", "cpu", "x.y/z"]
    said = [words_of(name) for name in ("gpu", "gpu/H100", "memory", "x.y/z")]
    assert said == ["GPUs", "H100 GPUs", "GiB of memory", "x.y/z"]
    assert [amount_text(*pair) for pair in (("gpu", 2_500), ("memory", 3 << 30), ("x.y/z", 7))] == ["2.5", 3, 7]
