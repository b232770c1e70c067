"""`fairlead run`: scenario files are read strictly and run through the engine until nothing is left to do."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, Role
from fairlead.model.hardware import Node
from fairlead.model.tenancy import Queue
from fairlead.service.engine import Engine
from fairlead.simulation import scenario_run
from fairlead.simulation.scenario_file import Scenario, read, read_document
from fairlead.simulation.scenario_run import Outcome, as_document, run

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/reference/scenario-file.md").read_text(encoding="utf-8")
NODE = {"name": "n", "gpus": 4, "cpu": 8, "memory": "64Gi", "levels": {"rack": "r1"}}


def world(**parts: Any) -> dict[str, Any]:
    """One node of four GPUs, one queue; `parts` replace or add."""
    return {"fleet": {"nodes": [NODE]}, "queues": [{"name": "team"}], **parts}


def job(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "queue": "team", "roles": [{"replicas": 1, "gpus": 1}], **more}


def outcome_of(**parts: Any) -> Outcome:
    return run(read_document(world(**parts)))


def where(outcome: Outcome, name: str) -> list[tuple[str, tuple[str, ...]]]:
    placed = next(placed for placed in outcome.placed if placed.gang == name)
    return [(str(member.node), member.devices) for member in placed.placement.members]


def reasons(outcome: Outcome) -> dict[str, str]:
    return {left.gang: left.refusal.reason.token if left.refusal else "" for left in outcome.waiting}


def fairlead(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairlead.cli.main", *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_does_what_the_page_says() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    done = fairlead("run", "-", "--json", text=example[1])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stable"]
    assert [(one["job"], one["reason"], one["by"]) for one in found["victims"]] == [("lent", "Reclaimed", "pretrain")]
    (placed,) = found["placements"]
    gpus = [f"gpu-{at}" for at in range(4)]
    assert [(member["node"], member["devices"]) for member in placed["members"]] == [("a-1", gpus), ("a-2", gpus)]
    assert {one["job"]: one["reason"] for one in found["waiting"]} == {"giant": "NeverFits", "lent": "NotEnoughFree"}


def test_the_page_names_every_field_and_every_key() -> None:
    modules = [ROOT / f"scheduler/fairlead/simulation/scenario_{name}.py" for name in ("file", "jobs", "run")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    kinds = "text|texts|choice|integer|boolean|quantity|duration_ms|labels|inner|items"
    getters = rf"\b(?:item|inner|place|document|fleet)\.(?:{kinds})\(\s*\"(\w+)\""
    fields = set(re.findall(getters, source))
    assert len(fields) > 40
    told = set(re.findall(r"\w+", PAGE))
    assert {name for name in fields if name not in told} == set()
    keys = set(re.findall(r'^ +"(\w+)":', source, re.MULTILINE))
    assert {name for name in keys if name not in told} == set()


# --- what is read -----------------------------------------------------------------------------------------------------


EVERYTHING = {
    "fleet": {
        "pools": [{"name": "gold", "serviceClasses": ["serving"]}],
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
        },
    ],
    "waiting": [
        {
            "name": "g",
            "queue": "q",
            "namespace": "x",
            "priority": 7,
            "priorityClass": "high",
            "serviceClass": "batch",
            "preemptible": False,
            "topology": {"within": "block", "mode": "preferred", "slices": [{"within": "rack", "size": 2}]},
            "mixedModels": True,
            "isolation": "strict",
            "duration": "1h",
            "overrun": "requeue",
            "suspend": True,
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
    Gang: {"start_deadline_ms", "max_restarts", "restart_on_failure", "success_any", "success_roles"},
    Role: {"gpus", "mig"},  # beside a share
    Queue: set[str](),
    Node: {"driver", "conflicts"},
}
"""What a run can't make a difference in: nobody fails or succeeds there."""


def test_every_word_of_a_world_can_be_written() -> None:
    scenario = read_document(EVERYTHING)
    for thing in (scenario.waiting[0], scenario.waiting[0].roles[0], scenario.queues[1], scenario.nodes[0]):
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
    ("queues.0.parent", "nobody", "queues: the parent 'nobody' of 'team' is not among them"),
    ("queues.0.parent", "team", "queues: 'team' is above itself"),
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
    (
        "waiting.0.topology",
        {"slices": [{"within": "rack", "size": 3}, {"within": "node", "size": 2}]},
        "waiting[0].topology.slices: slices of 2 do not fill one of 3",
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


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(json.dumps(changed("fleet.nodes.0.gpus", -1)), encoding="utf-8")
    done = fairlead("run", str(file), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "fairlead: fleet.nodes[0].gpus: -1 is outside 0..63"
    assert fairlead("run", str(tmp_path / "none.yaml")).returncode == 2
    file.write_bytes(b"\xff\xfe")
    assert fairlead("run", str(file)).returncode == 2


# --- what is run ------------------------------------------------------------------------------------------------------


def test_pods_without_gpus_are_placed_by_what_they_ask_for() -> None:
    roles = [{"replicas": 3, "cpu": 3, "memory": "8Gi"}]
    assert reasons(outcome_of(waiting=[job(roles=roles)])) == {"a": "NeverFits"}
    roles[0]["replicas"] = 2
    assert where(outcome_of(waiting=[job(roles=roles)]), "a") == [("n", ()), ("n", ())]


def test_what_others_take_is_taken() -> None:
    node = {**NODE, "used": {"cpu": 7}, "foreign": ["gpu-0", "gpu-1"]}
    outcome = outcome_of(fleet={"nodes": [node]}, waiting=[job(roles=[{"replicas": 1, "gpus": 2, "cpu": 1}])])
    assert where(outcome, "a") == [("n", ("gpu-2", "gpu-3"))]
    assert reasons(outcome_of(fleet={"nodes": [node]}, waiting=[job(roles=[{"replicas": 1, "cpu": 2}])])) == {
        "a": "NodesFiltered"
    }


def test_a_victim_is_told_and_comes_back_where_there_is_room() -> None:
    nodes = [NODE, {**NODE, "name": "m", "gpus": 1}]
    low = job("low", roles=[{"replicas": 1, "gpus": 1}], members=[{"node": "n"}])
    high = job("high", priority=5, roles=[{"replicas": 1, "gpus": 4}])
    outcome = outcome_of(fleet={"nodes": nodes}, running=[low], waiting=[high])
    assert outcome.stable
    (victim,) = outcome.victims
    assert (victim.gang, victim.attempt, victim.by, victim.cause.reason.token) == ("low", 1, "high", "Preempted")
    assert where(outcome, "high")[0][0] == "n"
    assert where(outcome, "low") == [("m", ("gpu-0",))]
    assert {placed.gang: placed.attempt for placed in outcome.placed} == {"high": 1, "low": 2}


def test_a_queue_that_is_not_there_is_the_engines_to_refuse() -> None:
    assert reasons(outcome_of(waiting=[job(queue="lost")])) == {"a": "UnknownQueue"}
    closed = [{"name": "team", "namespaces": []}]
    assert reasons(outcome_of(queues=closed, waiting=[job()])) == {"a": "NamespaceNotAllowed"}


def test_a_declared_level_that_nobody_is_in_is_the_engines_to_refuse() -> None:
    fleet = {"nodes": [NODE], "levels": ["zone"]}
    assert reasons(outcome_of(fleet=fleet, waiting=[job(topology={"within": "zone"})])) == {"a": "UnknownTopologyLevel"}


def test_jobs_stand_in_the_order_of_the_file_unless_they_have_waited() -> None:
    big = {"roles": [{"replicas": 1, "gpus": 4}]}
    assert [p.gang for p in outcome_of(waiting=[job("b", **big), job("a", **big)]).placed] == ["b"]
    assert [p.gang for p in outcome_of(waiting=[job("b", **big), job("a", waited="5s", **big)]).placed] == ["a"]


def test_what_is_deleted_goes_and_what_is_suspended_stays_away() -> None:
    gone = job("gone", members=[{"node": "n"}], deleted=True)
    outcome = outcome_of(running=[gone], waiting=[job("later", suspend=True)])
    assert [(victim.gang, victim.cause.reason.token) for victim in outcome.victims] == [("gone", "Deleted")]
    assert (outcome.placed, [left.phase.value for left in outcome.waiting]) == ((), ["Suspended"])
    assert outcome.stable


def test_rounds_are_counted_and_bounded() -> None:
    many = [job(f"j{at}") for at in range(4)]
    rules = {"gangsPerSlice": 1}
    whole = run(read_document(world(waiting=many, rules=rules)))
    assert (whole.stable, whole.rounds, len(whole.placed)) == (True, 5, 4)
    cut = run(read_document(world(waiting=many, rules=rules)), rounds=2)
    assert not cut.stable


def test_a_world_that_moves_again_is_not_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that stops in a late round what it has placed: the rounds of proof must see it."""
    calls = 0
    plain = Engine.cycle

    def cycle(self: Engine, now_ms: int) -> Any:
        nonlocal calls
        calls += 1
        found = plain(self, now_ms)
        if calls == 4:  # placed in the first round, quiet in the second
            return dataclasses.replace(found, more=True)
        return found

    monkeypatch.setattr(Engine, "cycle", cycle)
    outcome = outcome_of(waiting=[job()])
    assert (outcome.rounds, outcome.stable, calls) == (2, False, 2 + scenario_run.AFTER)


def test_a_violation_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Engine.cycle
    monkeypatch.setattr(
        Engine, "cycle", lambda self, now_ms: dataclasses.replace(plain(self, now_ms), violations=("a device twice",))
    )
    outcome = outcome_of(waiting=[job()])
    assert not outcome.stable
    assert set(outcome.violations) == {"a device twice"}


def test_the_same_file_gives_the_same_answer_in_another_process(tmp_path: Path) -> None:
    nodes = [{**NODE, "name": name, "levels": {"rack": rack}} for name, rack in (("x", "1"), ("y", "1"), ("z", "2"))]
    jobs = [job(f"j{at}", roles=[{"replicas": 1 + at % 2, "gpus": 2}]) for at in range(6)]
    document = world(fleet={"nodes": nodes}, waiting=jobs)
    file = tmp_path / "world.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    answers = [
        subprocess.run(
            [sys.executable, "-m", "fairlead.cli.main", "run", str(file), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert json.loads(answers[0]) == json.loads(answers[1])
    assert json.loads(answers[0]) == json.loads(json.dumps(as_document(run(read_document(document)))))


def test_an_empty_world_is_stable() -> None:
    outcome = run(Scenario())
    assert (outcome.stable, outcome.placed, outcome.waiting) == (True, (), ())
