"""Caches behind the search for room: what they hold is what would be found afresh, and no bound is too low."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import OPS, Life
from typer.testing import CliRunner

from fairlead.bench import reclaim
from fairlead.cli.main import app
from fairlead.errors import UnreadableInput
from fairlead.model.rules import Rules
from fairlead.ordering.standing import Standing
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.placement.preempt import RoomMemo, look_for_room, rights_of
from fairlead.placement.release import release
from fairlead.placement.room_bounds import Bounds
from fairlead.placement.victims import Victims
from fairlead.world.attempts import AttemptLog
from fairlead.world.overlay import Overlay

NODES = {"n1": "8 rack=r1", "n2": "4 rack=r1", "n3": "8 rack=r2 unhealthy=0", "n4": "4 rack=r2"}


def nodes():
    return [builders.node(name, text) for name, text in NODES.items()]


def placer_of(world) -> Placer:
    return Placer(Overlay(world), Feasibility(world.inventory, world.pools))


def fresh(world, spared=frozenset()) -> Victims:
    victims = Victims(world.inventory)
    victims.follow(world, world.inventory, spared)
    return victims


def assert_same(kept: Victims, anew: Victims) -> None:
    assert kept.milli_of("a", None) == anew.milli_of("a", None)
    assert [{g: h.amounts for g, (_, h) in row.items()} for row in kept.on_row] == [
        {g: h.amounts for g, (_, h) in row.items()} for row in anew.on_row
    ]
    for queue in ("a", "b", "c"):
        for below in (None, 1, 2):
            mine, theirs = kept.yield_of(queue, below), anew.yield_of(queue, below)
            for column in ("mask", "parts", "amounts", "youngest", "smallest"):
                assert (getattr(mine, column) == getattr(theirs, column)).all(), (queue, below, column)


@given(OPS, st.integers(0, 3))
def test_victims_that_were_kept_are_those_that_would_be_found(ops, min_run: int) -> None:
    life = Life(nodes())
    state = life.stage.state
    state.plain_rules = state.rules = replace(state.rules, min_run_ms=min_run * 1_000)
    kept = Victims(life.stage.engine.world(life.stage.now_ms).inventory)
    for op, number, text in ops:
        life.do(op, number, text)
        life.stage.settle()
        world = life.stage.engine.world(life.stage.now_ms)
        running = sorted(attempt.gang for attempt in world.running)
        for spared in (frozenset(), frozenset(running[:1])):
            kept.follow(world, world.inventory, spared)
            assert_same(kept, fresh(world, spared))
            later = life.stage.engine.world(life.stage.now_ms)
            kept.follow(later, later.inventory, frozenset())


@given(OPS, st.sampled_from(["1x1", "1x4", "2x2", "1x8", "a:1x4 b:2x1", "1x0 cpu=2", "2x2 port=80", "1x1 share=500"]))
def test_room_found_with_a_memory_is_the_room_found_without(ops, asks: str) -> None:
    """And the overlay and what queues use are left alone, the bound holds, and rights hold."""
    life = Life(nodes())
    memo, placer = RoomMemo(), None
    for op, number, text in ops:
        life.do(op, number, text)
        life.stage.settle()
        asker = builders.gang("asker", f"{asks} queue={'abc'[number % 3]} priority={number % 4}")
        world = life.stage.engine.world(life.stage.now_ms)
        if placer is None or not placer.follow(world):
            placer = placer_of(world)
        capacity = world.capacity_milli
        wanted = [(asker.queue, asker.gpu_milli)]
        standing = Standing(capacity, world.queues, world.queue_gpu_milli, wanted)
        before, used = [column.copy() for column in placer.overlay.columns.arrays()], dict(standing.used)
        kept = look_for_room(asker, world, placer, standing, frozenset(), memo).room
        anew = look_for_room(asker, world, placer_of(world), standing, frozenset()).room
        assert (kept is None) == (anew is None)
        if kept is not None and anew is not None:
            assert kept.placement == anew.placement
            assert [v.gang for v in kept.victims] == [v.gang for v in anew.victims]
        assert standing.used == used
        assert all((a == b).all() for a, b in zip(before, placer.overlay.columns.arrays(), strict=True))
        check_bound(asker, world, placer, standing)


def check_bound(asker, world, placer, standing) -> None:
    """No row takes more pods with everybody gone than its bound says."""
    victims = fresh(world)
    rights = rights_of(asker, asker.gpu_milli, victims, standing, Rules())
    if rights is None:
        return
    yields = [victims.yield_of(*group) for group in rights.groups]
    bounds = Bounds(placer, victims)
    rooms = [bounds.of(asker, role, yields).room.copy() for role in asker.roles]
    mark = placer.overlay.checkpoint()
    everybody = {gang: v for row in victims.on_row for gang, (v, _) in row.items() if rights.cover(v)}
    release(placer.overlay, list(everybody.values()), victims.extended)
    for role, room in zip(asker.roles, rooms, strict=True):
        assert (placer.classes.of(asker, role).room <= room).all(), role
    placer.overlay.roll_back(mark)


def test_released_together_or_one_by_one_leaves_the_same_free() -> None:
    stage = Stage([builders.node(f"n{i}", "8 cpu=64") for i in range(8)], [builders.queue("team", "")])
    for i in range(20):
        stage.submit(f"g{i}", f"{1 + i % 2}x2 cpu=3")
        stage.settle()
        stage.run(f"g{i}")
    world = stage.engine.world(stage.now_ms)
    victims = fresh(world)
    everybody = list({gang: v for row in victims.on_row for gang, (v, _) in row.items()}.values())
    assert len(everybody) > 8
    together, alone = Overlay(world), Overlay(world)
    release(together, everybody, victims.extended)
    for victim in everybody:
        release(alone, [victim], victims.extended)
    for mine, theirs in zip(together.columns.arrays(), alone.columns.arrays(), strict=True):
        assert (mine == theirs).all()
    together.roll_back(0)
    assert all((a == b).all() for a, b in zip(together.columns.arrays(), world.free.arrays(), strict=True))


def test_nobody_is_taken_beyond_what_a_cycle_may_stop() -> None:
    stage = Stage([builders.node("n1", "4")], [builders.queue("team", "")])
    for i in range(4):
        stage.submit(f"g{i}", "1x1")
        stage.settle()
        stage.run(f"g{i}")
    asker = builders.gang("asker", "1x4 priority=1")
    world = stage.engine.world(stage.now_ms)
    standing = Standing(4000, world.queues, world.queue_gpu_milli, [(asker.queue, asker.gpu_milli)])
    assert look_for_room(asker, world, placer_of(world), standing, frozenset(), at_most=3).room is None
    room = look_for_room(asker, world, placer_of(world), standing, frozenset(), at_most=4).room
    assert room is not None
    assert len(room.victims) == 4


@pytest.mark.parametrize(
    ("gangs", "asks", "expected"),
    [
        pytest.param(
            {"s1": 1, "s2": 1, "s3": 1, "s4": 1, "w": 4}, "1x4 priority=1", {"s1", "s2", "s3", "s4"}, id="equal"
        ),
        pytest.param({"s1": 1, "w": 4, "s2": 3}, "1x4 priority=1", {"s1", "s2"}, id="just enough"),
    ],
)
def test_nobody_goes_who_is_not_in_the_way(gangs, asks, expected) -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team", "")])
    for name, gpus in gangs.items():
        stage.submit(name, f"1x{gpus}")
        stage.settle()
        stage.run(name)
    stage.now_ms += 60_000
    asker = builders.gang("asker", asks)
    world = stage.engine.world(stage.now_ms)
    standing = Standing(8000, world.queues, world.queue_gpu_milli, [])
    room = look_for_room(asker, world, placer_of(world), standing, frozenset()).room
    assert room is not None
    freed = sum(v.gpus for v in room.victims)
    assert freed == 4
    for victim in room.victims:
        fewer = [v for v in room.victims if v is not victim]
        overlay = Overlay(world)
        overlay.release(fewer)
        assert int(np.bitwise_count(overlay.columns.free_mask[0])) < 4


def test_a_log_tells_what_changed_or_that_it_does_not_know() -> None:
    log = AttemptLog()
    for i in range(10):
        log.note(f"g{i}", 10)
    assert log.between(8, 10) == {"g8", "g9"}
    assert log.between(10, 10) == set()
    assert log.between(-1, 10) is None
    for _ in range(10_000):
        log.note("x", 1)
    assert log.between(3, log.revision) is None
    assert log.between(log.revision - 2, log.revision) == {"x"}
    assert log.revision == 10_010


def test_lenders_are_the_queues_above_their_entitlement_as_usage_moves() -> None:
    queues = {name: builders.queue(name, text) for name, text in {"a": "guaranteed=4", "b": "", "c": ""}.items()}
    standing = Standing(8000, queues, {"a": 0, "b": 6000, "c": 2000}, [("a", 4000)])

    def above() -> tuple[str, ...]:
        return tuple(sorted(q for q in queues if standing.may_lose(q, 0, "x")))

    assert standing.lenders() == above() == ("b",)
    for change in (("b", -5000), ("c", 4000), ("a", 9000), ("a", -9000)):
        standing.charge(*change)
        assert standing.lenders() == above()
    standing.hope("b", 6000)
    assert standing.lenders() == above()
    standing.leave("c", 6000)
    assert standing.lenders() == above()
    for queue in queues:
        most = standing.most_to_lose(queue, "a")
        for milli in (0, 500, 1000, 4000, 9000):
            assert standing.may_lose(queue, milli, "a") == (milli <= most), (queue, milli, most)


def test_the_benchmark_of_reclaim_decides_what_it_says() -> None:
    row = reclaim.run(6, runs=1)
    assert (row.nodes, row.gang_pods, row.victims) == (6, 3, 24)
    answer = CliRunner().invoke(app, ["bench", "reclaim", "--nodes", "4", "--runs", "1", "--json"])
    assert answer.exit_code == 0
    assert '"blast_radius": "off"' in answer.output
    for wrong in (["--nodes", "1"], ["--nodes", "x"], ["--nodes", "8194"], ["--runs", "0"]):
        refused = CliRunner().invoke(app, ["bench", "reclaim", *wrong]).exception
        assert isinstance(refused, UnreadableInput), wrong
