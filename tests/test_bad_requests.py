"""Bad input: every request that makes no sense or can't be served gets a reason that names it, in bounded time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import builders
import numpy as np
import pytest
from builders import Stage

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, PodShape, Role, Share, Slices, TopologyRequest
from fairlead.model.hardware import Resources
from fairlead.simulation.scenario_file import read, read_document
from fairlead.simulation.scenario_run import Outcome, run

NODES = [
    {"name": "a", "count": 2, "gpus": 4, "cpu": 8, "memory": "64Gi", "levels": {"rack": "r1"}},
    {"name": "outside", "gpus": 4, "cpu": 8, "memory": "64Gi"},
]
ROLE = {"replicas": 1, "gpus": 1}


def world(**job: Any) -> dict[str, Any]:
    """Two nodes of four GPUs in a rack and one in none; one waiting job."""
    waiting = {"name": "asked", "queue": "team", "roles": [ROLE], **job}
    return {"fleet": {"levels": ["row"], "nodes": NODES}, "queues": [{"name": "team"}], "waiting": [waiting]}


def of_role(**words: Any) -> dict[str, Any]:
    return world(roles=[{**ROLE, **words}])


def refused(document: dict[str, Any]) -> tuple[str, str]:
    """The token and the sentence of the one job that waits for good."""
    outcome = run(read_document(document))
    assert outcome.stable
    assert not outcome.placed
    (left,) = outcome.waiting
    assert left.refusal is not None
    return left.refusal.reason.token, left.refusal.message


def nodes_of(outcome: Outcome, name: str = "asked") -> list[str]:
    return [str(member.node) for placed in outcome.placed if placed.gang == name for member in placed.placement.members]


# --- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (of_role(replicas=0), "waiting[0].roles[0].replicas: 0 is outside"),
        (of_role(replicas=-3), "waiting[0].roles[0].replicas: -3 is outside"),
        (of_role(gpus=-1), "waiting[0].roles[0].gpus: -1 is outside"),
        (of_role(cpu=-1), "waiting[0].roles[0].cpu: is outside"),
        (of_role(memory="-1Gi"), "waiting[0].roles[0].memory"),
        (of_role(extended={"example.com/x": -1}), "waiting[0].roles[0].extended.example.com/x: is outside"),
        (of_role(gpus=0, share={"milli": 0}), "waiting[0].roles[0].share.milli: 0 is outside"),
        (of_role(minReplicas=-1), "waiting[0].roles[0].minReplicas: -1 is outside"),
        (of_role(cpu="1e40"), "waiting[0].roles[0].cpu"),
        (world(topology={"within": "rack", "slices": [{"within": "node", "size": 0}]}), "topology.slices[0].size: 0"),
        (world(topology={"within": "rakc"}), "no node is in a level 'rakc'; did you mean rack?"),
        (world(roles=[{**ROLE, "spread": "rows"}]), "no node is in a level 'rows'; did you mean row?"),
    ],
)
def test_the_file_is_refused_with_the_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(UnreadableInput, match=re.escape(field)):
        read_document(document)


NUMBERS = {
    "fleet: {nodes: [{name: n, gpus: X}]}": "fleet.nodes[0].gpus",
    "fleet: {nodes: [{name: n, cpu: X}]}": "fleet.nodes[0].cpu",
    "fleet: {nodes: [{name: n, memory: X}]}": "fleet.nodes[0].memory",
    "fleet: {nodes: [{name: n, extended: {e: X}}]}": "fleet.nodes[0].extended.e",
    "fleet: {nodes: [{name: n, used: {cpu: X}}]}": "fleet.nodes[0].used.cpu",
    "queues: [{name: q, guaranteed: X}]": "queues[0].guaranteed",
    "queues: [{name: q, weight: X}]": "queues[0].weight",
    "waiting: [{name: w, queue: q, priority: X, roles: [{replicas: 1}]}]": "waiting[0].priority",
    "waiting: [{name: w, queue: q, roles: [{replicas: X}]}]": "waiting[0].roles[0].replicas",
    "waiting: [{name: w, queue: q, roles: [{replicas: 1, gpus: X}]}]": "waiting[0].roles[0].gpus",
    "waiting: [{name: w, queue: q, roles: [{replicas: 1, cpu: X}]}]": "waiting[0].roles[0].cpu",
    "waiting: [{name: w, queue: q, roles: [{replicas: 1, share: {milli: X}}]}]": "waiting[0].roles[0].share.milli",
}


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "NaN", "nan"])
@pytest.mark.parametrize("text", NUMBERS)
def test_what_is_no_number_never_gets_into_a_column(text: str, number: str) -> None:
    with pytest.raises(UnreadableInput, match=re.escape(NUMBERS[text])):
        read(text.replace("X", number))


def test_columns_cannot_hold_what_is_no_number() -> None:
    stage = Stage([builders.node("a")], [builders.queue("team")])
    world = stage.engine.world(builders.T0)
    columns = [getattr(world.free, name) for name in type(world.free).__dataclass_fields__]
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    assert len(arrays) > 4
    assert all(np.issubdtype(column.dtype, np.integer) for column in arrays)


def asked(**fields: Any) -> Gang:
    plain = builders.gang("team/bad")
    role = replace(plain.roles[0], **{name: value for name, value in fields.items() if name in Role.__slots__})
    return replace(plain, roles=(role,), topology=fields.get("within"))


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (asked(replicas=0), "replicas"),
        (asked(replicas=-4), "replicas"),
        (asked(gpus=-1), "devices.count"),
        (asked(gpus=0, share=Share(milli=0)), "share"),
        (asked(gpus=0, share=Share(milli=-5)), "share"),
        (asked(pod=PodShape(requests=Resources(cpu_milli=-1, pods=1))), "cpu"),
        (asked(pod=PodShape(requests=Resources(memory_bytes=-1, pods=1))), "memory"),
        (asked(pod=PodShape(requests=Resources(pods=-1))), "pods"),
        (asked(nics_per_gpu=-1), "nicPerGpu"),
        (asked(replicas=6, within=TopologyRequest(within="rack", slices=(Slices(within="node", size=4),))), "size"),
        (asked(replicas=6, within=TopologyRequest(within="rack", slices=(Slices(within="node", size=-2),))), "size"),
    ],
)
def test_the_engine_refuses_whatever_got_past_a_reader(found: Gang, field: str) -> None:
    stage = Stage([builders.node("a", "8 rack=r1")], [builders.queue("team")])
    stage.seen(found)
    stage.submit("team/sound", "1x1")
    stage.settle()
    refusal = stage.view("team/bad").refusal
    assert refusal is not None
    assert refusal.reason.token == "InvalidSpec"
    assert field in refusal.message
    assert stage.attempt("team/sound") is not None


# --- levels and slices ------------------------------------------------------------------------------------------------


def test_a_level_that_no_node_is_in_is_unknown() -> None:
    token, message = refused(world(topology={"within": "row"}))
    assert token == "UnknownTopologyLevel"
    assert "row" in message
    assert refused(of_role(topology={"within": "row"}))[0] == "UnknownTopologyLevel"
    assert refused(of_role(spread="row"))[0] == "UnknownTopologyLevel"
    assert (
        refused(world(topology={"within": "cluster", "slices": [{"within": "row", "size": 1}]}))[0]
        == "UnknownTopologyLevel"
    )


@pytest.mark.parametrize(
    ("replicas", "slices"),
    [(6, [("rack", 4)]), (8, [("rack", 4), ("node", 3)]), (8, [("node", 2), ("rack", 4)]), (2, [("node", 4)])],
)
def test_slices_that_do_not_divide_are_invalid(replicas: int, slices: list[tuple[str, int]]) -> None:
    listed = [{"within": level, "size": size} for level, size in slices]
    roles = [{**ROLE, "replicas": replicas}]
    token, message = refused(world(roles=roles, topology={"within": "cluster", "slices": listed}))
    assert token == "InvalidSpec"
    assert "slices" in message


def test_nodes_outside_a_level_are_used_only_by_who_does_not_require_it() -> None:
    def outcome(replicas: int, **topology: Any) -> Outcome:
        return run(read_document(world(roles=[{**ROLE, "replicas": replicas}], topology=topology)))

    assert set(nodes_of(outcome(8, within="rack"))) == {"a-1", "a-2"}
    assert refused(world(roles=[{**ROLE, "replicas": 9}], topology={"within": "rack"}))[0] == "NeverFits"
    assert set(nodes_of(outcome(12, within="rack", mode="preferred"))) == {"a-1", "a-2", "outside"}
    sliced = {"within": "cluster", "slices": [{"within": "rack", "size": 4}]}
    assert set(nodes_of(outcome(8, **sliced))) == {"a-1", "a-2"}
    assert refused(world(roles=[{**ROLE, "replicas": 12}], topology=sliced))[0] == "NeverFits"
    assert refused(of_role(replicas=9, spread="rack"))[0] == "NeverFits"


@pytest.mark.parametrize(
    ("words", "token"),
    [
        ({"gpus": 100}, "NoSuchGpu"),
        ({"model": "nothing"}, "NoSuchGpu"),
        ({"gpus": 2, "model": "H100|"}, "InvalidSpec"),
        ({"cpu": 9}, "NoNodeMatches"),
        ({"nodeSelector": {"disk": "none"}}, "NoNodeMatches"),
        ({"replicas": 13}, "NeverFits"),
        ({"minReplicas": 0}, "InvalidSpec"),
        ({"gpus": 0, "share": {"milli": 1000}}, "InvalidSpec"),
    ],
)
def test_what_can_never_be_served_is_said_at_once(words: dict[str, Any], token: str) -> None:
    assert refused(of_role(**words))[0] == token


# --- size -------------------------------------------------------------------------------------------------------------


def test_one_domain_of_five_thousand_nodes() -> None:
    nodes = [{"name": "n", "count": 5_000, "gpus": 8, "levels": {"rack": "one"}}]
    jobs = [
        {"name": "half", "topology": {"within": "rack"}, "roles": [{"replicas": 2_500, "gpus": 8}]},
        {
            "name": "small",
            "topology": {"within": "rack", "mode": "preferred"},
            "roles": [{"replicas": 4_000, "gpus": 1}],
        },
        {"name": "rest", "topology": {"within": "rack"}, "roles": [{"replicas": 2_001, "gpus": 8}]},
    ]
    waiting = [{"queue": "team", **job} for job in jobs]
    scenario = read_document({"fleet": {"nodes": nodes}, "queues": [{"name": "team"}], "waiting": waiting})
    began = time.perf_counter()
    outcome = run(scenario)
    assert time.perf_counter() - began < 30  # well below 1 s on a quiet machine
    assert outcome.stable
    assert len(set(nodes_of(outcome, "half"))) == 2_500
    assert len(set(nodes_of(outcome, "small"))) == 500
    assert {left.gang: left.refusal.reason.token for left in outcome.waiting if left.refusal} == {
        "rest": "NoDomainFits"
    }


def test_twenty_thousand_equal_gangs_wait_in_bounded_time() -> None:
    waiting = [
        {"name": f"g{at}", "queue": "team", "roles": [{"replicas": 2, "gpus": 8, "cpu": 1}]} for at in range(20_000)
    ]
    nodes = [{"name": "n", "count": 100, "gpus": 8}]
    scenario = read_document({"fleet": {"nodes": nodes}, "queues": [{"name": "team"}], "waiting": waiting})
    began = time.perf_counter()
    outcome = run(scenario)
    assert time.perf_counter() - began < 60  # about 1 s on a quiet machine; 100,000 take 5 s
    assert outcome.stable
    assert len(outcome.placed) == 50
    assert sorted(int(placed.gang[1:]) for placed in outcome.placed) == list(range(50)), "the oldest go first"
    assert len({left.refusal for left in outcome.waiting}) == 1
    assert all(left.refusal is not None for left in outcome.waiting)


def test_the_command_line_refuses_what_is_no_number() -> None:
    text = json.dumps(of_role(cpu=float("nan")))  # JSON as Python writes it
    done = subprocess.run(
        [sys.executable, "-m", "fairlead.cli.main", "run", "-", "--json"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "waiting[0].roles[0].cpu" in done.stderr
