"""The scale bench measures what it says: the world of the design, every decision once, and the same ones twice."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from fairlead.bench import scale, scale_peers, scale_world
from fairlead.bench.scale_world import KINDS, QUEUES, T0, Submitters
from fairlead.cli.main import app
from fairlead.model.rules import Rules
from fairlead.service.engine import Engine
from fairlead.topology.tables import TableCache

QUIET = Rules(preemption_on=False, reclaim_on=False)


def test_the_world_is_the_one_that_is_written_down() -> None:
    fleet = list(scale_world.nodes(1_000))
    assert sum(len(node.machine.gpus) for node in fleet) == 8_000
    cache = TableCache()
    assert len({cache.table(node.machine) for node in fleet}) == 5
    racks = Counter(dict(node.levels)["rack"] for node in fleet)
    assert set(racks.values()) == {8}
    engine = Engine()
    engine.take(scale_world.tenants())
    engine.take(scale.ev.NodeSeen(node=node, at_ms=T0) for node in fleet)
    engine.take(scale_world.already_running(fleet, Submitters(42), 42))
    world = engine.world(T0)
    busy = sum(world.queue_gpu_milli.values()) / 8_000_000
    assert 0.30 <= busy < 0.32
    assert len(world.queues) == len(QUEUES) == 20
    assert sum(percent for percent, *_ in KINDS) == 100


def test_the_mix_of_gangs_is_the_one_that_is_written_down() -> None:
    submitters = Submitters(42)
    gangs = [submitters.gang(T0 + i) for i in range(5_000)]
    kinds = Counter((gang.roles[0].replicas, gang.roles[0].gpus) for gang in gangs)
    for percent, replicas, gpus, _, _ in KINDS:
        assert abs(kinds[replicas, gpus] / 50 - percent) < 2
    assert {gang.priority for gang in gangs} == {0, 1, 2}
    assert {gang.queue for gang in gangs} == set(QUEUES)
    assert next(gang.topology for gang in gangs if gang.members == 4).required


def test_a_run_decides_about_as_many_gangs_as_it_says_and_breaks_no_promise() -> None:
    row = scale.run(80, 300, rules=QUIET, profiled=True)
    assert row.violations == 0
    assert 300 <= row.decisions < 300 + QUIET.gangs_per_slice
    assert 0 < row.placed < row.decisions, "a full fleet is part of what is measured"
    assert row.new_gangs > 0
    assert 0 < row.new_gang_ms_p50 <= row.new_gang_ms_p99
    assert {"snapshot", "order", "place", "why not", "verify", "state", "apply", "all"} <= set(row.profile)
    staged = sum(spent for name, spent in row.profile.items() if name not in ("all", "apply"))
    assert staged <= row.profile["all"] * 1.05
    again = scale.run(80, 300, rules=QUIET)
    assert (again.decisions, again.placed, again.cycles) == (row.decisions, row.placed, row.cycles)
    assert again.profile == {}


def test_a_quantile_is_one_of_the_values() -> None:
    assert scale.quantile([], 99) == 0
    assert scale.quantile([3.0, 1.0, 2.0], 50) == 2.0
    assert scale.quantile([float(i) for i in range(1, 101)], 99) == 99.0


def test_the_peers_worlds_give_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_peers, "FULL_NODES", 20)
    monkeypatch.setattr(scale_peers, "SEARCHED_NODES", 60)
    monkeypatch.setattr(scale_peers, "BLOCK_NODES", 16)
    monkeypatch.setattr(scale_peers, "SEARCHES", 2)
    monkeypatch.setattr(scale_peers, "ALLOCATIONS", 150)
    monkeypatch.setattr(scale_peers, "ALLOCATED_ON", (20, 40))
    figures = scale_peers.run()
    allocated = {"allocations_per_s", "allocations_per_s_small", "allocations_flat"}
    assert set(figures) == {"full_cycle_s", "refusal_s", "topology_search_ms", "topology_cycle_ms"} | allocated
    assert all(figure > 0 for figure in figures.values())
    assert figures["topology_search_ms"] <= figures["topology_cycle_ms"]


def test_the_verb_prints_a_row_a_size() -> None:
    done = CliRunner().invoke(app, ["bench", "scale", "--nodes", "16,24", "--gangs", "40", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert [row["nodes"] for row in answer["rows"]] == [16, 24]
    wanted = {"nodes", "gangs", "decisions_per_second", "new_gang_ms_p50", "new_gang_ms_p99", "cycle_ms_p99", "rss_mib"}
    assert all(wanted <= set(row) for row in answer["rows"])
    assert answer["flat"] > 0
    assert (answer["same_load"]["nodes"], answer["flat_same_load"] > 0) == (16, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "many"], "no list of numbers"),
        (["--nodes", "0"], "a fleet of no nodes"),
        (["--nodes", "5", "--gangs", "0"], "no backlog"),
    ],
)
def test_wrong_numbers_are_named(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", "scale", *options])
    assert done.exit_code != 0
    assert said in str(done.exception)
