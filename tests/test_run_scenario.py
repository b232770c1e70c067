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

from fairlead.service.engine import Engine
from fairlead.simulation import scenario_run
from fairlead.simulation.scenario_file import Scenario, read_document
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


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(json.dumps(world(fleet={"nodes": [{**NODE, "gpus": -1}]})), encoding="utf-8")
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
