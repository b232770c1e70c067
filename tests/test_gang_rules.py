"""A gang's own contradictions: named with field and mend, in the same words by both readers and by the planner."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, GangId, PodShape, Role, Share, ShareMode, Slices, TopologyRequest
from fairlead.model.gang_rules import why_invalid, why_not_offered
from fairlead.model.hardware import Resources
from fairlead.model.reasons import Reason, Refusal
from fairlead.simulation import gangjob_yaml
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.decode import decode_gang, spec_refusal


def role(name: str = "w", replicas: int = 4, **more: Any) -> Role:
    return Role(name=name, replicas=replicas, **more)


def gang(*roles: Role, **more: Any) -> Gang:
    return Gang(id=GangId("g"), namespace="ns", name="j", queue="q", roles=roles or (role(gpus=1),), **more)


def within(level: str, *slices: tuple[str, int], required: bool = True) -> TopologyRequest:
    return TopologyRequest(
        within=level, required=required, slices=tuple(Slices(within=name, size=size) for name, size in slices)
    )


def field_of(refusal: Refusal | None) -> str:
    assert refusal is not None
    details = dict(refusal.details)
    assert refusal.reason is Reason.INVALID_SPEC
    assert details["problem"]
    assert details["mend"]
    return str(details["field"])


SOUND = [
    gang(),
    gang(role(gpus=8, min_replicas=1, nics_per_gpu=1, gpu_model="A100|H100", gpu_memory_bytes=1)),
    gang(role(mig="1g.10gb", gpu_model="A100"), role("s", share=Share(milli=999))),
    gang(role(share=Share(milli=1, memory_bytes=5, mode=ShareMode.MPS))),
    gang(role(replicas=48, gpus=4), topology=within("cluster", ("zone", 48), ("rack", 16))),
    gang(role(replicas=96, min_replicas=48, gpus=4), topology=within("block", ("zone", 48), ("rack", 16), ("node", 2))),
    gang(role(replicas=6, topology=within("rack", ("node", 2), required=False)), role("x", replicas=1)),
    gang(role(spread="rack"), topology=within("block")),
    gang(role(spread="node"), topology=within("island")),  # an island may join nodes
    gang(role(spread="rack"), topology=within("node", required=False)),
    gang(role(), role("helper", min_replicas=0)),
    gang(role(spread="rack"), topology=within("cluster", ("node", 2))),
    gang(role(spread="hall"), topology=within("row")),  # levels of others are in no order that we know
    gang(role(replicas=4096)),
]


@pytest.mark.parametrize("found", SOUND)
def test_what_makes_sense_is_left_alone(found: Gang) -> None:
    assert why_invalid(found) is None
    assert why_not_offered(found) is None


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (replace(gang(), roles=()), "spec.roles"),
        (gang(role(), role()), "spec.roles"),
        (gang(role(replicas=0)), "spec.roles[w].replicas"),
        (gang(role(replicas=-1)), "spec.roles[w].replicas"),
        (gang(role(replicas=4096), role("b", 1)), "spec.roles[].replicas"),
        (gang(role(min_replicas=5)), "spec.roles[w].minReplicas"),
        (gang(role(min_replicas=0)), "spec.roles[w].minReplicas"),
        (gang(role(min_replicas=0), role("b", min_replicas=0)), "spec.roles[w].minReplicas"),
        (gang(role(min_replicas=-1)), "spec.roles[w].minReplicas"),
        (gang(role(gpus=-1)), "spec.roles[w].devices.count"),
        (gang(role(gpus=1, share=Share(milli=5))), "spec.roles[w].devices.share"),
        (gang(role(gpus=1, mig="1g.5gb")), "spec.roles[w].devices.mig"),
        (gang(role(mig="1g.5gb", share=Share(milli=5))), "spec.roles[w].devices.share"),
        (gang(role(share=Share(milli=0))), "spec.roles[w].devices.share.compute"),
        (gang(role(share=Share(milli=1000))), "spec.roles[w].devices.share.compute"),
        (gang(role(share=Share(milli=5, memory_bytes=-1))), "spec.roles[w].devices.share.memory"),
        (gang(role(gpu_model="H100")), "spec.roles[w].devices"),
        (gang(role(gpu_memory_bytes=1)), "spec.roles[w].devices"),
        (gang(role(gpus=1, gpu_memory_bytes=-1)), "spec.roles[w].devices.memory"),
        (gang(role(gpus=1, gpu_model="A100||H100")), "spec.roles[w].devices.model"),
        (gang(role(nics_per_gpu=1)), "spec.roles[w].nicPerGpu"),
        (gang(role(gpus=1, nics_per_gpu=-1)), "spec.roles[w].nicPerGpu"),
        (gang(role(pod=PodShape(requests=Resources(cpu_milli=-1)))), "spec.roles[w].template requests of cpu"),
        (
            gang(role(pod=PodShape(requests=Resources(extended=(("x.y/z", -1),))))),
            "spec.roles[w].template requests of x.y/z",
        ),
        (gang(role(replicas=6), topology=within("rack", ("node", 4))), "spec.topology.slices[0].size"),
        (gang(topology=within("rack", ("node", 0))), "spec.topology.slices[0].size"),
        (gang(topology=within("rack", ("node", -2))), "spec.topology.slices[0].size"),
        (gang(topology=within("rack", ("cluster", 2))), "spec.topology.slices[0].within"),
        (
            gang(role(replicas=48), topology=within("cluster", ("zone", 48), ("rack", 18))),
            "spec.topology.slices[1].size",
        ),
        (
            gang(role(replicas=48), topology=within("cluster", ("rack", 16), ("zone", 48))),
            "spec.topology.slices[1].size",
        ),
        (
            gang(role(replicas=48), topology=within("cluster", ("rack", 16), ("block", 8))),
            "spec.topology.slices[1].within",
        ),
        (
            gang(role(replicas=48), topology=within("cluster", ("rack", 16), ("rack", 8))),
            "spec.topology.slices[1].within",
        ),
        (gang(role(replicas=6, topology=within("rack", ("node", 4)))), "spec.roles[w].topology.slices[0].size"),
        (
            gang(role(replicas=8, min_replicas=6, topology=within("rack", ("node", 4)))),
            "spec.roles[w].topology.slices[0].size",
        ),
        (gang(role(replicas=8, min_replicas=6), topology=within("rack", ("node", 4))), "spec.topology.slices[0].size"),
        (gang(role(spread="cluster")), "spec.roles[w].spread"),
        (gang(role(spread="rack"), topology=within("rack")), "spec.roles[w].spread"),
        (gang(role(spread="rack"), topology=within("node")), "spec.roles[w].spread"),
        (gang(role(spread="rack", topology=within("island"))), "spec.roles[w].spread"),
        (gang(role(spread="hall", topology=within("hall"))), "spec.roles[w].spread"),
        (gang(success_roles=("boss",)), "spec.successPolicy.roles"),
        (gang(duration_ms=0), "spec.duration"),
        (gang(start_deadline_ms=-1), "spec.startDeadline"),
        (gang(max_restarts=-1), "spec.failurePolicy.maxRestarts"),
    ],
)
def test_a_contradiction_is_named_with_its_field_and_mend(found: Gang, field: str) -> None:
    assert field_of(why_invalid(found)) == field


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (role(gpus=33), "spec.roles[w].devices.count"),
        (role(mig="large"), "spec.roles[w].devices.mig"),
        (role(share=Share(milli=5, memory_bytes=5)), "spec.roles[w].devices.share.memory"),
    ],
)
def test_what_nothing_would_enforce_is_sound_but_not_offered(found: Role, field: str) -> None:
    assert why_invalid(gang(found)) is None
    assert field_of(why_not_offered(gang(found))) == field


@given(st.integers(1, 512), st.lists(st.integers(1, 64), max_size=4))
def test_slices_are_sound_exactly_when_each_size_divides_what_is_around_it(replicas: int, sizes: list[int]) -> None:
    levels = [f"level-{number}" for number in range(len(sizes))]
    found = gang(role(replicas=replicas), topology=within("cluster", *zip(levels, sizes, strict=True)))
    nested = all(outer % inner == 0 for outer, inner in zip([replicas, *sizes], sizes, strict=False))
    assert (why_invalid(found) is None) is nested


# --- one voice -------------------------------------------------------------------------------------------------------


def one_role(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "w", "replicas": 4, "template": {}, **more}]


BAD: list[dict[str, Any]] = [
    {"roles": []},
    {"roles": [*one_role(), *one_role()]},
    {"roles": one_role(replicas=0)},
    {"roles": one_role(replicas=5000)},
    {"roles": one_role(minReplicas=5)},
    {"roles": one_role(minReplicas=-1)},
    {"roles": one_role(devices={"count": -1})},
    {"roles": one_role(devices={"count": 33})},
    {"roles": one_role(devices={"count": 1, "mig": "1g.10gb"})},
    {"roles": one_role(devices={"mig": "big"})},
    {"roles": one_role(devices={"model": "H100"})},
    {"roles": one_role(devices={"count": 1, "model": "H100|"})},
    {"roles": one_role(nicPerGpu=True)},
    {"roles": one_role(spread="rack", topology={"within": "rack"})},
    {"roles": one_role(spread="cluster")},
    {"roles": one_role(topology={"slices": [{"within": "rack", "size": 3}]})},
    {"roles": one_role(), "topology": {"within": "rack", "slices": [{"within": "node", "size": 3}]}},
    {"roles": one_role(), "topology": {"slices": [{"within": "rack", "size": 4}, {"within": "node", "size": 3}]}},
    {"roles": one_role(), "topology": {"within": "rack", "spread": "rack"}},
    {"roles": one_role(), "successPolicy": {"roles": ["boss"]}},
]


def of_the_operator(spec: dict[str, Any]) -> Gang | Refusal:
    meta = {"name": "j", "namespace": "ns", "uid": "g", "creationTimestamp": "2026-03-01T12:00:00Z"}
    job = msgspec.json.decode(json.dumps({"metadata": meta, "spec": {"queue": "q", **spec}}), type=GangJob)
    assert spec_refusal(job) is None or isinstance(decode_gang(job, {}), Refusal)
    return decode_gang(job, {one.name: PodShape() for one in job.spec.roles})


def of_the_embedded_shell(spec: dict[str, Any]) -> Gang:
    document = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "GangJob",
        "metadata": {"name": "j", "namespace": "ns"},
        "spec": {"queue": "q", **spec},
    }
    read = gangjob_yaml.read(json.dumps(document), now_ms=1_772_366_400_000, new_id=lambda namespace, name: GangId("g"))
    return read.gangs[0]


@pytest.mark.parametrize("spec", BAD)
def test_both_readers_refuse_in_the_same_words(spec: dict[str, Any]) -> None:
    refusal = of_the_operator(spec)
    assert isinstance(refusal, Refusal)
    with pytest.raises(UnreadableInput) as problem:
        of_the_embedded_shell(spec)
    assert str(problem.value) == refusal.message


@pytest.mark.parametrize(
    "spec",
    [
        {
            "roles": one_role(
                devices={"count": 8, "model": "A100|H100", "memory": "80Gi"}, nicPerGpu=True, minReplicas=2
            )
        },
        {"roles": one_role(devices={"mig": "3g.40gb"}, minReplicas=0, maxReplicas=4)},
        {
            "roles": one_role(
                topology={"within": "rack", "mode": "preferred", "slices": [{"within": "node", "size": 2}]}
            ),
            "topology": {"within": "block", "slices": [{"within": "rack", "size": 2}], "spread": "node"},
            "isolation": "strict",
            "mixedModels": True,
        },
        {"roles": [*one_role(spread="block"), {**one_role()[0], "name": "v"}], "topology": {"spread": "rack"}},
        {"roles": one_role(needs={"example.com/rack-watts": "1200", "example.com/uplink": "25G"})},
    ],
)
def test_both_readers_make_the_same_gang(spec: dict[str, Any]) -> None:
    decoded, read = of_the_operator(spec), of_the_embedded_shell(spec)
    pods = {one.name: one.pod.requests.extended for one in read.roles}
    assert isinstance(decoded, Gang)
    assert decoded == read
    assert pods["w"] == (
        (("example.com/rack-watts", 1_200), ("example.com/uplink", 25 * 10**9)) if "needs" in spec["roles"][0] else ()
    )
