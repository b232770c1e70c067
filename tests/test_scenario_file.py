"""Scenario files are read strictly: every word of a world, and every mistake by its full path."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, Role
from fairlead.model.hardware import Node
from fairlead.model.tenancy import SHARING_MODES, Pool, Queue
from fairlead.simulation.scenario_file import read, read_document

NODE = {"name": "n", "gpus": 4, "cpu": 8, "memory": "64Gi", "levels": {"rack": "r1"}}


def world(**parts: Any) -> dict[str, Any]:
    """One node of four GPUs, one queue; `parts` replace or add."""
    return {"fleet": {"nodes": [NODE]}, "queues": [{"name": "team"}], **parts}


def job(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "queue": "team", "roles": [{"replicas": 1, "gpus": 1}], **more}


EVERYTHING = {
    "fleet": {
        "pools": [
            {
                "name": "gold",
                "serviceClasses": ["serving"],
                "sharing": ["time-slice", "mig"],
                "mig": "dynamic",
                "servingOnTimeSlices": True,
                "checkpointBandwidth": "20Gi",
                "budgets": [{"level": "rack", "resource": "example.com/watts", "amount": "40k"}],
                "protected": [{"gpus": 1, "windows": [{"from": "08:00", "to": "18:00", "timeZone": "Europe/Berlin"}]}],
                "ceilingPercent": 80,
                "spares": {"warmGpus": 1},
                "classTerms": [{"serviceClass": "batch", "borrows": "never"}],
            }
        ],
        "levels": ["block"],
        "nodes": [
            {
                "name": "n",
                "count": 2,
                "pool": "gold",
                "gpus": 2,
                "model": "L4",
                "gpuMemory": "24Gi",
                "unhealthy": [1],
                "mig": True,
                "clique": "c",
                "cpu": 1.5,
                "memory": "1Gi",
                "ephemeralStorage": "2Gi",
                "pods": 7,
                "extended": {"example.com/x": 3},
                "levels": {"rack": "r"},
                "labels": {"k": "v"},
                "taints": [{"key": "t", "value": "u", "effect": "NoExecute"}],
                "cordoned": True,
                "notReadyFor": "5s",
                "used": {"cpu": "250m", "pods": 2},
                "foreign": ["gpu-0"],
            }
        ],
    },
    "queues": [
        {"name": "top", "guaranteed": 3},
        {
            "name": "q",
            "parent": "top",
            "guaranteed": 1,
            "limit": 2,
            "weight": 5,
            "namespaces": ["x"],
            "priorityClasses": ["high"],
            "serviceClasses": ["batch"],
            "tenantKind": "team",
            "maxJobs": 9,
            "resources": [{"name": "cpu", "limit": 8}],
            "fairnessPolicy": "even",
            "priorityScope": "subtree",
            "onOverLimit": "requeue",
            "nonPreemptible": "in-quota",
            "shares": "parent",
            "promise": {"jobs": 2, "notice": "30m"},
            "preemption": {"minRun": "10m", "perJob": 2, "perQueue": 20, "lostWork": "40h"},
        },
    ],
    "policies": [{"name": "even", "kind": "equal"}],
    "waiting": [
        {
            "name": "g",
            "resize": "WhileRunning",
            "queue": "q",
            "namespace": "x",
            "priority": 7,
            "priorityClass": "high",
            "promise": True,
            "template": "t",
            "serviceClass": "batch",
            "preemptible": False,
            "topology": {"within": "block", "mode": "preferred", "slices": [{"within": "rack", "size": 2}]},
            "mixedModels": True,
            "isolation": "strict",
            "checkpoint": {
                "every": "1h",
                "pause": "1m",
                "size": "1Ti",
                "notify": "file",
                "path": "s3://x",
                "reshard": True,
            },
            "duration": "1h",
            "overrun": "requeue",
            "suspend": True,
            "user": "ann",
            "groups": ["staff"],
            "deadlineIn": "2h",
            "waited": "1m",
            "roles": [
                {
                    "name": "w",
                    "replicas": 4,
                    "minReplicas": 2,
                    "share": {"milli": 250, "memory": "6Gi", "mode": "mps"},
                    "model": "L4",
                    "gpuMemory": "20Gi",
                    "nicsPerGpu": 1,
                    "cpu": "500m",
                    "memory": "1Gi",
                    "ephemeralStorage": "1Gi",
                    "extended": {"example.com/x": 1},
                    "nodeSelector": {"k": "v"},
                    "affinity": [{"all": [{"key": "k", "operator": "In", "values": ["v"]}]}],
                    "tolerations": [{"key": "t", "operator": "Exists"}],
                    "hostPorts": [80],
                    "topology": {"within": "rack"},
                    "spread": "node",
                },
                {"name": "i", "replicas": 1, "mig": "1g.5gb"},
                {"name": "d", "replicas": 1, "gpus": 1},
            ],
        }
    ],
}
"""A file in which every word is written."""
NOT_WRITTEN = {
    Gang: {
        "start_deadline_ms",
        "max_restarts",
        "restart_on_failure",
        "success_any",
        "success_roles",
        "retries",
        "heartbeat_ms",
        "ttl_ms",
    },
    Role: {"gpus", "mig"},  # beside a share
    Queue: set[str](),
    Pool: {"taint", "driver", "device_class", "mig_device_class"},
    Node: {"driver", "conflicts"},
}
"""What a run can't make a difference in: nobody fails or succeeds there."""


def test_every_word_of_a_world_can_be_written() -> None:
    scenario = read_document(EVERYTHING)
    for thing in (
        scenario.waiting[0],
        scenario.waiting[0].roles[0],
        scenario.queues[1],
        scenario.nodes[0],
        scenario.pools[0],
    ):
        for one in dataclasses.fields(thing):
            if one.default is dataclasses.MISSING or one.name in NOT_WRITTEN[type(thing)]:
                continue
            assert getattr(thing, one.name) != one.default, f"{type(thing).__name__}.{one.name} can't be written"
    roles = scenario.waiting[0].roles
    assert (roles[1].mig, roles[2].gpus) == ("1g.5gb", 1)
    assert [node.name for node in scenario.nodes] == ["n-1", "n-2"]
    assert scenario.used["n-2"].cpu_milli == 250
    assert scenario.foreign["n-2"] == ("gpu-0",)
    assert scenario.nodes[0].allocatable.cpu_milli == 1_500


def test_a_pool_says_how_its_gpus_are_shared_and_no_pool_at_all_allows_everything() -> None:
    assert read_document(world()).pools[0].sharing == SHARING_MODES
    named = world(fleet={"pools": [{"name": "p"}], "nodes": [NODE]})
    assert read_document(named).pools[0].sharing == ("mig",)
    for words, says in (
        ({"sharing": ["halves"]}, "fleet.pools[0].sharing: 'halves' is not one of"),
        ({"mig": "sometimes"}, "fleet.pools[0].mig"),
        ({"servingOnTimeSlices": True}, "fleet.pools[0].servingOnTimeSlices: means nothing unless"),
        (
            {"budgets": [{"level": "rack", "resource": "example.com/watts", "amount": 1}] * 2},
            "fleet.pools[0].budgets[1]",
        ),
        ({"budgets": [{"level": "rack", "resource": "example.com/watts", "amount": 1.5}]}, "fleet.pools[0].budgets[0]"),
    ):
        with pytest.raises(UnreadableInput, match=re.escape(says)):
            read_document(world(fleet={"pools": [{"name": "p", **words}], "nodes": [NODE]}))


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good world with one field set: ``fleet.nodes.0.gpus``."""
    document: dict[str, Any] = json.loads(json.dumps(world(waiting=[job()], running=[])))
    document["running"] = [job("r", members=[{"node": "n"}])]
    at: Any = document
    *parts, last = path.split(".")
    for part in parts:
        at = at[int(part)] if part.isdecimal() else at.setdefault(part, {})
    at[last] = value
    return document


EXCEPTION = {
    "name": "more",
    "queue": "team",
    "owner": "ops",
    "reason": "a launch",
    "lasts": "2h",
    "change": {"limit": 1},
}
NAN, INFINITE = float("nan"), float("inf")
BAD = [
    ("fleet.nodes.0.gpus", -1, "fleet.nodes[0].gpus: -1 is outside 0..63"),
    ("fleet.nodes.0.gpus", 4.5, "fleet.nodes[0].gpus: must be a whole number"),
    ("fleet.nodes.0.gpus", NAN, "fleet.nodes[0].gpus: must be a whole number"),
    ("fleet.nodes.0.cpu", NAN, "fleet.nodes[0].cpu: 'nan' is not a quantity"),
    ("fleet.nodes.0.cpu", INFINITE, "fleet.nodes[0].cpu: 'inf' is not a quantity"),
    ("fleet.nodes.0.cpu", -2, "fleet.nodes[0].cpu: is outside 0.."),
    ("fleet.nodes.0.cpu", "1e30", "fleet.nodes[0].cpu: is outside 0.."),
    ("fleet.nodes.0.memory", "-1Gi", "fleet.nodes[0].memory: is outside 0.."),
    ("fleet.nodes.0.gpuMemory", 0, "fleet.nodes[0].gpuMemory: 0 bytes is no memory"),
    ("fleet.nodes.0.pods", -1, "fleet.nodes[0].pods: -1 is outside"),
    ("fleet.nodes.0.extended", {"x": -1}, "fleet.nodes[0].extended.x: is outside"),
    ("fleet.nodes.0.gpuss", 4, "fleet.nodes[0].gpuss: unknown field; did you mean gpus?"),
    ("fleet.nodes.0.name", "", "fleet.nodes[0].name: '' is not a name"),
    ("fleet.nodes.0.pool", "gold", "fleet.nodes[0].pool: there is no pool 'gold'"),
    ("fleet.nodes.0.shape", "dgx-a1000", "fleet.nodes[0].shape: 'dgx-a1000' is not one of"),
    ("fleet.nodes.0.shape", "hgx-h100", "fleet.nodes[0].gpus: shape hgx-h100 says it already"),
    ("fleet.nodes.0.count", 0, "fleet.nodes[0].count: 0 is outside 1.."),
    ("fleet.nodes.0.unhealthy", [4], "fleet.nodes[0].unhealthy: 4 is not a whole number in 0..3"),
    ("fleet.nodes.0.levels", {"rack": ""}, "fleet.nodes[0].levels.rack: is empty"),
    ("fleet.nodes.0.levels", {"node": "x"}, "fleet.nodes[0].levels.node: is a level that every fleet has"),
    ("fleet.nodes.0.taints", [{"key": "k", "effect": "Never"}], "fleet.nodes[0].taints[0].effect: 'Never' is not"),
    ("fleet.nodes.0.foreign", ["gpu-9"], "fleet.nodes[0].foreign: the node has no device 'gpu-9'"),
    ("fleet.nodes.0.notReadyFor", "soon", "fleet.nodes[0].notReadyFor: 'soon' is not a duration"),
    ("fleet.nodes", [NODE, NODE], "fleet.nodes[1].name: there are two nodes 'n'"),
    ("fleet.nodes", "many", "fleet.nodes: must be a list, not text"),
    ("fleet.pools", [{"name": "a"}, {"name": "a"}], "fleet.pools[1].name: there are two pools 'a'"),
    ("queues.0.guaranteed", -1, "queues[0].guaranteed: -1 is outside"),
    ("queues.0.weight", 0, "queues[0].weight: 0 is outside 1.."),
    ("queues", [{"name": "a", "guaranteed": 2, "limit": 1}], "queues[0].limit: 1 is below guaranteed 2"),
    ("queues.0.parent", "nobody", "queues: team.parent: there is no queue 'nobody'; create it"),
    ("queues.0.parent", "team", "queues: team.parent: 'team' is above itself"),
    ("queues.0.maxJobs", -1, "queues[0].maxJobs: -1 is outside 0.."),
    ("queues.0.tenantKind", "empire", "queues[0].tenantKind: 'empire' is not one of: , customer, team"),
    ("queues.0.submitRate", {"perMinute": 0}, "queues[0].submitRate.perMinute: 0 is outside 1.."),
    ("queues.0.submitRate", {"burst": 1}, "queues[0].submitRate.perMinute: is required"),
    ("queues.0.onOverflow", "Explode", "queues[0].onOverflow: 'Explode' is not one of: Defer, Reject"),
    ("queues.0.users", [{"name": "ann"}], "queues[0].users[0].maxGpus: is missing, and maxJobs too"),
    ("queues.0.users", [{"name": ""}], "queues[0].users[0].name: is empty"),
    ("queues.0.groups", [{"name": "*", "maxJobs": 1}], "queues[0].groups[0].name: * means every user"),
    ("queues.0.maxPendingByClass", [{"serviceClass": "bulk"}], "maxPendingByClass[0].serviceClass: 'bulk' is not one"),
    (
        "queues",
        [{"name": "a", "guaranteed": 2}, {"name": "b", "parent": "a", "guaranteed": 3}],
        "queues: a.guaranteed: the queues below it are guaranteed 3 GPUs together, above its own, 2",
    ),
    ("exceptions", [{**EXCEPTION, "queue": "none"}], "exceptions: more.queue: there is no queue 'none'"),
    ("exceptions", [{**EXCEPTION, "owner": ""}], "exceptions[0].owner: is required; say who answers for it"),
    ("exceptions", [{**EXCEPTION, "lasts": None}], "exceptions[0].lasts: is required; an exception ends by itself"),
    ("exceptions", [{**EXCEPTION, "change": {}}], "exceptions[0].change: gives nothing"),
    ("exceptions", [{**EXCEPTION, "change": {"limits": 1}}], "exceptions[0].change.limits: unknown field"),
    ("queues", [{"name": "a"}, {"name": "a"}], "queues: two queues have the same name"),
    ("waiting.0.roles", [], "waiting[0].roles: has 0 roles"),
    ("waiting.0.roles.0.replicas", 0, "waiting[0].roles[0].replicas: 0 is outside 1.."),
    ("waiting.0.roles.0.minReplicas", 2, "waiting[0].roles[0].minReplicas: 2 is larger than replicas 1"),
    ("waiting.0.roles.0.gpus", -1, "waiting[0].roles[0].gpus: -1 is outside"),
    ("waiting.0.roles.0.mig", "1g.5gb", "waiting[0].roles[0].gpus: a member has whole GPUs, a share or a MIG"),
    ("waiting.0.roles.0.share", {"milli": 0}, "waiting[0].roles[0].share.milli: 0 is outside 1..1000"),
    ("waiting.0.roles.0.share", {"milli": 1001}, "waiting[0].roles[0].share.milli: 1001 is outside"),
    ("waiting.0.roles.0.spread", "rck", "waiting[0].roles[0].spread: no node is in a level 'rck'; did you mean rack?"),
    ("waiting.0.topology", {"within": "zone"}, "waiting[0].topology.within: no node is in a level 'zone'; use one of"),
    ("waiting.0.topology", {"within": "rack", "mode": "hard"}, "waiting[0].topology.mode: 'hard' is not one of"),
    (
        "waiting.0.topology",
        {"within": "rack", "slices": [{"within": "node", "size": 0}]},
        "waiting[0].topology.slices[0].size: 0 is outside 1..",
    ),
    ("waiting.0.priority", "high", "waiting[0].priority: must be a whole number, not text"),
    ("waiting.0.duration", "0s", "waiting[0].duration: is zero"),
    ("waiting.0.isolation", "some", "waiting[0].isolation: 'some' is not one of"),
    ("waiting.0.name", "r", "waiting: there are two jobs 'r'"),
    ("waiting.0.queue", None, "waiting[0].queue: is required"),
    ("running.0.members", [], "running[0].members: 0 members of role worker are placed; it has 1"),
    ("running.0.members", [{"node": "m"}], "running[0].members[0].node: there is no node 'm'"),
    ("running.0.members", [{"node": "n", "devices": ["gpu-7"]}], "running[0].members[0].devices: n has no 'gpu-7'"),
    ("running.0.members", [{"node": "n", "role": "x"}], "running[0].members[0].role: 'x' is not a role of this job"),
    ("running.0.tier", "stolen", "running[0].tier: 'stolen' is not one of"),
    ("rules.stopsPerCycle", -1, "rules.stopsPerCycle: -1 is outside"),
    ("rule", {}, "rule: unknown field; did you mean rules?"),
]


@pytest.mark.parametrize(("path", "value", "says"), BAD, ids=[f"{path}={value}" for path, value, _ in BAD])
def test_what_is_wrong_is_refused_by_its_full_path(path: str, value: Any, says: str) -> None:
    with pytest.raises(UnreadableInput, match=re.escape(says)):
        read_document(changed(path, value))


def test_a_device_is_held_once() -> None:
    first = job("x", members=[{"node": "n", "devices": ["gpu-0"]}])
    second = job("y", members=[{"node": "n", "devices": ["gpu-0"]}])
    with pytest.raises(UnreadableInput, match=re.escape("running[1].members[0].devices: gpu-0 of n is held already")):
        read_document(world(running=[first, second]))
    full = job("z", roles=[{"replicas": 1, "gpus": 4}], members=[{"node": "n"}])
    with pytest.raises(UnreadableInput, match="3 are free or named on n, the role holds 4"):
        read_document(world(running=[first, full]))
    half = {"replicas": 1, "share": {"milli": 500}}
    halves = [job(name, roles=[half], members=[{"node": "n", "devices": ["gpu-0"]}]) for name in "abc"]
    read_document(world(running=halves[:2]))
    with pytest.raises(UnreadableInput, match="held already"):
        read_document(world(running=halves))


@pytest.mark.parametrize("text", ["", "[]", "a: [", "- x", "7", "fleet: {nodes: 7}"])
def test_a_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UnreadableInput):
        read(text)


def test_reservations_are_read_and_one_that_cannot_hold_is_refused_with_its_field() -> None:
    good = {"name": "exam", "queue": "team", "nodes": ["n"], "in": "1h", "for": "2h", "lendable": False}
    (found,) = read_document(world(reservations=[good])).reservations
    assert (found.end_ms - found.start_ms, found.lendable, found.pre_drain) == (7_200_000, False, True)
    weekly = {
        "name": "night",
        "nodes": ["n"],
        "recurring": [{"from": "22:00", "to": "06:00", "timeZone": "Europe/Berlin"}],
    }
    assert read_document(world(reservations=[weekly])).reservations[0].is_maintenance
    for changes, says in (
        ({"queue": "nobody"}, "reservations[0].queue: there is no queue 'nobody'"),
        ({"nodes": ["n9"]}, "reservations: exam: spec.nodes: there is no node n9"),
        ({"count": 1}, "reservations[0].nodes: name nodes, or a domain"),
        ({"nodes": [], "domain": "r1"}, "reservations[0].level: say which level"),
        ({"nodes": [], "count": 9}, "reservations: exam: spec.count: 9 nodes are asked for"),
        ({"for": None}, "reservations[0].for: say how long"),
        ({"colour": "red"}, "reservations[0].colour: unknown field"),
    ):
        with pytest.raises(UnreadableInput, match=re.escape(says)):
            read_document(world(reservations=[{**good, **changes}]))
    with pytest.raises(UnreadableInput, match="reservation exam has some of these nodes"):
        read_document(world(reservations=[good, {**good, "name": "other"}]))
    with pytest.raises(UnreadableInput, match="two reservations 'exam'"):
        read_document(world(reservations=[good, good]))
