"""Slurm's own cases of backfill and block topology, put to the engine as they are.

A Slurm node is a node with one GPU, a job of n nodes a gang of n pods. A time limit is a `duration` that is enforced,
a licence an amount of the whole cluster, a base block a level, a segment a slice. A planned start is a promise.
"""

from __future__ import annotations

import json
from typing import Any

import builders
import pytest
from builders import Stage
from topology_files import data_file

from fairlead.model.gang import GangId
from fairlead.model.rules import Rules

NODES = 32


def scenarios() -> dict[str, Any]:
    return json.loads(data_file("slurm/scenarios.json").read_text(encoding="utf-8"))


def cluster(promises: int = 100, pool: str = "", queue: str = "") -> Stage:
    nodes = [builders.node(f"n{number:02}", "1") for number in range(NODES)]
    return Stage(nodes, [builders.queue("team", queue)], Rules(promises=promises), builders.pool(pool))


def submit_all(stage: Stage, jobs: list[str]) -> list[str]:
    names = [f"job{number}" for number in range(1, len(jobs) + 1)]
    for name, text in zip(names, jobs, strict=True):
        stage.submit(name, f"{text} fixed")
    stage.settle()
    return names


def runs(stage: Stage, name: str) -> bool:
    return stage.state.gangs[GangId(name)].current is not None


def planned(stage: Stage, name: str) -> int | None:
    """When a job starts at the latest: now if it runs, None where nothing is planned."""
    promise = stage.state.promises.standing.get(GangId(name))
    return stage.now_ms if runs(stage, name) else None if promise is None else promise.latest_start_ms


def test_a_short_job_goes_ahead_of_one_that_waits_for_all_nodes() -> None:
    case = scenarios()["backfill_on_32_nodes"][0]
    stage = cluster()
    one, two, three = submit_all(
        stage, [f"{n}x1 priority={p} duration={m}m" for p, n, m in case["jobs_priority_nodes_minutes"]]
    )
    assert (runs(stage, one), runs(stage, two), runs(stage, three)) == (True, False, True), case["expect"]


def test_no_lower_job_that_is_not_smaller_is_planned_before_a_higher_one() -> None:
    case = scenarios()["backfill_on_32_nodes"][1]
    jobs = case["jobs_priority_nodes_minutes"]
    stage = cluster()
    names = submit_all(stage, [f"{n}x1 priority={p} duration={m}m" for p, n, m in jobs])
    starts = [planned(stage, name) for name in names]
    assert all(start is not None for start in starts), starts
    for high, (high_priority, high_nodes, _) in enumerate(jobs):
        for low, (low_priority, low_nodes, _) in enumerate(jobs):
            if low_priority < high_priority and low_nodes >= high_nodes:
                assert starts[low] >= starts[high], (jobs[high], jobs[low])


def test_jobs_beyond_the_depth_have_no_planned_start() -> None:
    case = scenarios()["backfill_on_32_nodes"][2]
    assert "backfill depth limit 500" in case["jobs"]
    at_once = NODES // 6
    stage = cluster(promises=500 - at_once)
    names = submit_all(stage, ["6x1 priority=10 duration=10m"] * 1_000)
    assert sum(runs(stage, name) for name in names) == at_once
    assert planned(stage, names[499]) is not None, case["expect"]
    assert planned(stage, names[500]) is None, case["expect"]
    starts = [planned(stage, name) for name in names[:500]]
    assert starts == sorted(starts), "equal jobs start in the order in which they came"


def test_who_needs_no_licence_does_not_wait_for_one() -> None:
    case = scenarios()["backfill_on_32_nodes"][3]
    jobs = case["jobs_priority_nodes_license"]
    licences = ",".join(f"cluster/{name}:{count}" for name, count in case["licenses"].items())
    stage = cluster(pool=f"budget={licences}")
    names = submit_all(
        stage, [f"{n}x1 priority={p}" + (f" needs={licence}:1" if licence else "") for p, n, licence in jobs]
    )
    assert [runs(stage, name) for name in names] == [True, False, False, True], case["expect"]


def test_licences_that_come_free_together_plan_their_jobs_together() -> None:
    case = scenarios()["backfill_on_32_nodes"][4]
    stage = cluster(pool="budget=" + ",".join(f"cluster/{name}:{n}" for name, n in case["licenses"].items()))
    names = submit_all(stage, ["1x1 duration=10m needs=lic2:1"] * 12)
    assert [runs(stage, name) for name in names] == [True] * 6 + [False] * 6
    assert planned(stage, "job7") is not None
    assert planned(stage, "job7") == planned(stage, "job12"), case["expect"]


# --- block topology ---------------------------------------------------------------------------------------------------

BASE = 4


def blocks(odd_and_even: bool = False) -> Stage:
    """Two blocks of four: n1-n4 and n5-n8, or the odd and the even ones."""
    nodes = []
    for number in range(1, 9):
        block = 1 + (number % 2 == 0 if odd_and_even else number > BASE)
        nodes.append(builders.node(f"n{number}", f"1 block=b{block} label=n:{number}"))
    return Stage(nodes, [builders.queue("team")])


def block_job(nodes: int, segment: int = 0, named: str = "") -> str:
    """A job of at most a base block stays inside one; each segment lies in one; `named` is a list of nodes."""
    text = f"{nodes}x1 fixed"
    if segment:
        text += f" slices=block:{segment}"
    elif nodes <= BASE:
        text += " within=block"
    return f"{text} affinity=n:{named}" if named else text


def asked(text: str) -> tuple[int, int]:
    """(nodes, segment) of a sentence such as ``6 nodes, segment=3``."""
    numbers = text.replace(",", "").replace("exclusive ", "").split()
    return int(numbers[0]), int(text.partition("segment=")[2] or 0)


def spelled(nodelist: str) -> str:
    """``node[1-3,5-7]`` as ``1|2|3|5|6|7``."""
    found: list[str] = []
    for part in nodelist.removeprefix("node[").removesuffix("]").split(","):
        first, _, last = part.partition("-")
        found += [str(number) for number in range(int(first), int(last or first) + 1)]
    return "|".join(found)


@pytest.mark.parametrize("at", range(9))
def test_block_topology(at: int) -> None:
    case = scenarios()["block_topology"]["cases"][at]
    stage = blocks()
    for number, nodes in enumerate(case.get("running", [])):
        stage.submit(f"old{number}", block_job(nodes))
        stage.settle()
        assert runs(stage, f"old{number}")
    nodes, segment = asked(case["new"])
    stage.submit("new", block_job(nodes, segment, spelled(case["nodelist"]) if "nodelist" in case else ""))
    stage.settle()
    verdict = case["expect"].split()[0]
    assert runs(stage, "new") == (verdict == "runs"), (case, stage.view("new").refusal)
    if verdict == "rejected":
        refusal = stage.view("new").refusal
        assert refusal is not None, case
        assert refusal.reason.kind.value in ("invalid", "never"), (case, refusal)


def test_tasks_of_one_block_have_neighbouring_ranks() -> None:
    case = scenarios()["block_task_order"]
    stage = blocks(odd_and_even=True)
    stage.submit("all", "8x1 near=block")
    stage.settle()
    order = [str(member.node).replace("n", "node") for member in stage.attempt("all").placement.members]
    assert order == case["expect_order_of_8_tasks_on_8_nodes"]


@pytest.mark.parametrize(("nodes", "switches", "at"), [(2, 2, 0), (1, 1, 1), (2, 1, 2)])
def test_leaf_switches(nodes: int, switches: int, at: int) -> None:
    case = scenarios()["tree_switches"]["cases"][at]
    assert case["ask"].startswith(f"{nodes} node")
    assert f"at most {switches}" in case["ask"]
    stage = Stage([builders.node(f"n{n}", f"1 rack=s0{n}") for n in (1, 2)], [builders.queue("team")])
    stage.submit("job", f"{nodes}x1" + (" within=rack" if switches == 1 else ""))
    stage.settle()
    assert runs(stage, "job") == (case["expect"] == "runs"), case
