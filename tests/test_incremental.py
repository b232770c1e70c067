"""What is kept from cycle to cycle equals what would be counted from scratch, and old pictures stay as they were."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import T0, Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import OPS, OWNERS, Life, examples, gang_texts, node_lists

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import Member, Placement, Role, Share, Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.ordering.backlog import Walk, inside_queue
from fairlead.ordering.standing import Standing
from fairlead.planning.care import care
from fairlead.service.replay import replay
from fairlead.topology.tables import TableCache
from fairlead.world.gangs import is_hopeless, is_waiting
from fairlead.world.inventory import build_inventory
from fairlead.world.layers import Layers
from fairlead.world.lifecycle import HOLDING
from fairlead.world.lines import NEWS_FOR_ALL, Line, request_of
from fairlead.world.pictures import Waiting
from fairlead.world.snapshot import Photographer, World

SLICE = Rules(gangs_per_slice=2)


def a_life(nodes, rules: Rules = SLICE) -> Life:
    life = Life(nodes)
    life.stage.state.plain_rules = life.stage.state.rules = rules
    return life


# --- pictures ---------------------------------------------------------------------------------------------------------


@given(node_lists(), OPS, st.lists(st.booleans(), min_size=40, max_size=40))
@examples(120)
def test_a_picture_equals_one_that_is_made_from_scratch(nodes, ops, cycles) -> None:
    life = a_life(nodes)
    stage = life.stage
    for op, decides in zip(ops, cycles, strict=False):
        life.do(*op)
        if decides:
            assert stage.engine.cycle(stage.now_ms).violations == ()
        world = stage.engine.world(stage.now_ms)
        same_waiting(world, stage)
        same_running(world, stage)
        same_rows(world, stage)
        same_overlay(world, stage)


def lines_of(world: World) -> dict[str, list]:
    backlog = world.waiting
    return {
        queue: [entry for side in (backlog.fresh, backlog.reopened, backlog.refused) for entry in side.get(queue, ())]
        for queue in {*backlog.fresh, *backlog.reopened, *backlog.refused}
    }


def same_waiting(world: World, stage: Stage) -> None:
    records = {r.id: r for r in stage.state.gangs.values() if is_waiting(r)}
    assert [w.gang.id for w in world.waiting] == sorted(records, key=lambda g: (records[g].gang.submitted_ms, g))
    assert len(world.waiting) == len(records)
    assert {w.gang.id for w in world.waiting.nominated} == {r.id for r in records.values() if r.nomination}
    later = [r.retry_at_ms for r in records.values() if r.nomination is None and r.retry_at_ms > stage.now_ms]
    assert world.waiting.retry_at_ms == min(later, default=None)
    ready: dict[tuple, list] = {}
    asked: dict[tuple, list[int]] = {}
    for record in records.values():
        assert world.waiting.get(record.id).gang is record.gang
        stands = record.nomination is None and record.retry_at_ms <= stage.now_ms
        if stands:
            request = request_of(record.gang, displaced=record.displaced)
            ready.setdefault(request, []).append(world.waiting.get(record.id))
        hopeless = record.line.hopeless if stands else is_hopeless(record)
        if not hopeless:
            key = (record.queue, record.namespace, record.gang.priority_class, record.gang.service_class.value)
            asked.setdefault(key, []).append(record.gang.gpu_milli)
    found = lines_of(world)
    entries = [entry for entries in found.values() for entry in entries]
    assert len(entries) == len(ready)
    for *key, line in entries:
        assert list(line.ready) == sorted(
            ready[request_of(line.ready[0].gang, displaced=line.ready[0].displaced)], key=inside_queue
        )
        assert tuple(key) == inside_queue(line.ready[0])
    for side in (world.waiting.fresh, world.waiting.reopened, world.waiting.refused):
        for queue, entries in side.items():
            assert [entry[:3] for entry in entries] == sorted(entry[:3] for entry in entries)
            assert {w.gang.queue for entry in entries for w in entry[3].ready} == {queue}
    assert {key: (ask.gangs, ask.gpu_milli) for key, ask in world.waiting.asked.items()} == {
        key: (len(amounts), sum(amounts)) for key, amounts in asked.items()
    }


def same_running(world: World, stage: Stage) -> None:
    records = {r.id: r for r in stage.state.gangs.values() if r.phase in HOLDING}
    assert {attempt.gang for attempt in world.running} == set(records)
    assert len(world.running) == len(records)
    for attempt in world.running:
        record = records[attempt.gang]
        assert (attempt.phase, attempt.attempt, attempt.spec) == (record.phase, record.current.number, record.gang)
        assert attempt.holding == record.current.holding
        assert attempt.running == record.current.running
        assert attempt.gpu_milli == 1000 * attempt.gpus
        assert world.running.get(attempt.gang, attempt.attempt) is attempt
        assert world.running.get(attempt.gang, attempt.attempt + 1) is None
    stopping = sorted(r.id for r in records.values() if r.phase is Phase.STOPPING)
    assert [attempt.gang for attempt in world.running.stopping] == stopping
    placing = [r for r in records.values() if r.phase is Phase.PLACING]
    assert world.running.pods_placing == sum(len(r.current.placement.members) for r in placing)
    everybody = sorted((a for a in world.running if a.phase is not Phase.STOPPING), key=lambda a: a.gang)
    brute = replace(world, running=replace(world.running, doubtful=tuple(everybody), next_due_ms=None))
    ends, wake = care(world)
    brute_ends, brute_wake = care(brute)
    assert ends == brute_ends
    if not ends:  # who is about to end may still ask for a wake-up
        assert wake == brute_wake


def same_rows(world: World, stage: Stage) -> None:
    fresh = Photographer(stage.state).take(stage.now_ms)
    for name in ("all_mask", "healthy_mask", "usable", "table_of"):
        assert (getattr(world.inventory, name) == getattr(fresh.inventory, name)).all(), name
    assert world.inventory.nodes == fresh.inventory.nodes
    assert world.inventory.device_bits == fresh.inventory.device_bits
    assert list(world.inventory.levels) == list(fresh.inventory.levels)
    for name, level in world.inventory.levels.items():
        assert level.names == fresh.inventory.levels[name].names
        assert (level.domain_of == fresh.inventory.levels[name].domain_of).all()
    for kind in ("free", "offered"):
        have, want = getattr(world, kind), getattr(fresh, kind)
        for name in ("free_mask", "cpu_milli", "memory_bytes", "ephemeral_bytes", "pods"):
            assert (getattr(have, name) == getattr(want, name)).all(), (kind, name)
    assert (world.part_free_milli == fresh.part_free_milli).all()
    assert world.ports == fresh.ports


def same_overlay(world: World, stage: Stage) -> None:
    """What cycles took in the overlay that they share is undone, or is what the world has by now."""
    overlay = stage.engine._memo.placer_for(world).overlay
    for mine, theirs in zip(overlay.columns.arrays(), world.free.arrays(), strict=True):
        assert (mine == theirs).all()
    for mine, theirs in ((overlay.columns.cpus, world.free.cpus), (overlay.columns.nics, world.free.nics)):
        assert {row: bits for row, bits in mine.items() if bits} == {row: bits for row, bits in theirs.items() if bits}
    assert overlay.ports == world.ports


@given(node_lists(), OPS, st.integers(0, 39))
@examples(60)
def test_an_old_picture_does_not_change(nodes, ops, when) -> None:
    life = a_life(nodes)
    kept: World | None = None
    for i, op in enumerate(ops):
        life.do(*op)
        life.stage.engine.cycle(life.stage.now_ms)
        if i == min(when, len(ops) - 1):
            kept = life.stage.engine.world(life.stage.now_ms)
            before = told(kept)
    life.stage.settle(400)
    assert kept is not None
    assert told(kept) == before


def told(world: World) -> object:
    columns = world.free
    return (
        [(w.gang.id, w.attempts, w.nomination) for w in world.waiting],
        {queue: [(e[:3], [w.gang.id for w in e[3].ready]) for e in found] for queue, found in lines_of(world).items()},
        dict(world.waiting.asked),
        sorted((a.gang, a.attempt, a.phase, sorted(a.holding)) for a in world.running),
        [a.gang for a in world.running.doubtful],
        [column.tolist() for column in (columns.free_mask, columns.cpu_milli, columns.pods, world.changed_in)],
        dict(world.queue_gpu_milli), dict(world.ports), dict(world.queues), sorted(world.lost),
    )  # fmt: skip


def test_rows_say_in_which_picture_they_were_counted() -> None:
    stage = Stage([builders.node(f"n{i}", "8") for i in range(4)], [builders.queue("team")])
    first = stage.engine.world(stage.now_ms)
    assert set(first.changed_in.tolist()) == {first.picture}
    stage.take(ev.ForeignDevices(name="n2", devices=("gpu-1",), at_ms=T0))
    second = stage.engine.world(stage.now_ms)
    assert np.flatnonzero(second.changed_in > first.picture).tolist() == [2]
    third = stage.engine.world(stage.now_ms)
    assert third.free is second.free
    assert not (third.changed_in > second.picture).any()


def test_a_change_of_one_node_patches_its_row_alone() -> None:
    stage = Stage([builders.node(f"n{i}", "8 rack=r1") for i in range(4)], [builders.queue("team")])
    first = stage.engine.world(stage.now_ms).inventory
    stage.change_node("n1", unschedulable=True)
    second = stage.engine.world(stage.now_ms).inventory
    assert (second.patched, second.patched_rows) == (first.version, (1,))
    assert second.levels is first.levels
    assert second.usable.tolist() == [True, False, True, True]
    assert first.usable.all()
    stage.change_node("n1", levels=(("rack", "r2"),))
    assert stage.engine.world(stage.now_ms).inventory.patched == -1
    stage.take(ev.NodeGone(name="n3", at_ms=T0))
    assert [n.name for n in stage.engine.world(stage.now_ms).inventory.nodes] == ["n0", "n1", "n2"]


@given(node_lists())
@examples(60)
def test_the_rows_of_a_domain_lie_together(nodes) -> None:
    inventory = build_inventory({node.name: node for node in nodes}, 1, TableCache())
    for level in inventory.levels.values():
        assert len(level.starts) == len(level.names) + 1
        for domain in range(len(level.names)):
            rows = level.order[level.starts[domain] : level.starts[domain + 1]]
            assert rows.tolist() == np.flatnonzero(level.domain_of == domain).tolist()
        assert len(level.order) == int((level.domain_of >= 0).sum())


@given(st.lists(st.tuples(st.sampled_from("pdf"), st.integers(0, 200), st.integers()), max_size=400))
@examples(60)
def test_layers_are_a_dict_whose_copies_are_cheap(ops) -> None:
    layers, plain, frozen = Layers(), {}, []
    for op, key, value in ops:
        if op == "p":
            layers.put(key, value)
            plain[key] = value
        elif op == "d":
            layers.drop(key)
            plain.pop(key, None)
        else:
            frozen.append((layers.freeze(), dict(plain)))
    for picture, wanted in [*frozen, (layers.freeze(), plain)]:
        assert sorted(picture) == sorted(wanted.values())
        assert len(picture) == len(wanted)
        assert all(picture.get(key) == wanted.get(key) for key in range(200))


# --- the walk ---------------------------------------------------------------------------------------------------------


@given(st.lists(gang_texts(), min_size=1, max_size=25), st.lists(st.booleans(), min_size=25, max_size=25))
@examples(80)
def test_a_walk_goes_in_the_order_that_is_worked_out_anew_at_every_step(texts, places) -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue(n, t) for n, t in QUEUES.items()])
    for i, text in enumerate(texts):
        stage.submit(f"g{i}", text)
    world = stage.engine.world(stage.now_ms)
    standing = Standing(8000, world.queues, {}, [(w.gang.queue, w.gang.gpu_milli) for w in world.waiting])
    walk, left = Walk(world.waiting, standing, again=0), list(world.waiting)
    for place in places:
        expected = min(left, key=lambda w: (standing.order_key(w.gang.queue), inside_queue(w)), default=None)
        found = walk.step()
        assert found is expected
        if found is None:
            return
        if place:
            standing.charge(found.gang.queue, found.gang.gpu_milli)
            left.remove(found)
            walk.go_on()
        else:
            left = [w for w in left if request_of(w.gang) != request_of(found.gang)]
            walk.line_refused()


QUEUES = dict.fromkeys(OWNERS, "ns=ns")


def test_a_walk_comes_to_its_end_although_something_changes_in_every_slice() -> None:
    """Each release opens all refusals again; who was never asked must not wait behind those who are asked again."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")], Rules(gangs_per_slice=4))
    stage.submit("holder", "1x8 fixed")
    stage.settle()
    stage.run("holder")
    for i in range(30):
        stage.submit(f"g{i:02}", f"1x{i % 8 + 1} cpu={i + 1} priority={30 - i}")
    unasked = []
    for turn in range(20):
        stage.take(ev.ForeignDevices(name="n1", devices=("gpu-0",) * (turn % 2), at_ms=stage.now_ms))
        assert stage.engine.cycle(stage.now_ms).plan.looked == 4
        unasked.append(sum(r.refusal is None for r in stage.state.gangs.values()) - 1)
        if unasked[-1] == 0:
            break
    assert unasked[-1] == 0, unasked
    assert len(unasked) <= 16, unasked


def test_freed_room_goes_to_who_was_refused_before_although_the_walk_is_not_over() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")], Rules(gangs_per_slice=2))
    stage.submit("holder", "1x8 fixed")
    stage.settle()
    stage.run("holder")
    stage.submit("first", "1x8 priority=9")
    for i in range(6):
        stage.submit(f"g{i}", f"1x8 cpu={i + 2}")
    assert stage.engine.cycle(stage.now_ms).more
    stage.end("holder", 0)
    stage.engine.cycle(stage.now_ms)
    stage.release("holder")
    placed = [effect.gang for effect in stage.settle()]
    assert placed == ["first"]


# --- replay -----------------------------------------------------------------------------------------------------------


@given(node_lists(), OPS, st.lists(st.integers(0, 3), min_size=40, max_size=40))
@examples(60)
def test_looking_between_cycles_changes_no_decision(nodes, ops, looks) -> None:
    """Views and pictures for people are no facts, so a replay knows nothing of them and must decide alike."""
    life = a_life(nodes)
    stage = life.stage
    for op, look in zip(ops, looks, strict=False):
        life.do(*op)
        if look == 1:
            stage.engine.gang_views(stage.now_ms)
        elif look == 2:
            stage.engine.queue_views()
        elif look == 3:
            cycle = stage.engine.cycle(stage.now_ms)
            stage.facts += cycle.facts
    stage.facts += [fact for _ in range(5) for fact in stage.engine.cycle(stage.now_ms).facts]
    rows = [("", ev.Started(rules=SLICE, at_ms=T0)), *((f"f{i}", fact) for i, fact in enumerate(stage.facts))]
    result = replay(rows, set())
    assert result.differences == ()


# --- parts of GPUs, and lines -----------------------------------------------------------------------------------------


def test_a_queue_is_charged_for_the_part_that_it_holds() -> None:
    stage = Stage([builders.node("n1", "2")], [builders.queue("team", "limit=1")])
    spec = builders.gang("half", "1x0")
    spec = stage.seen(replace(spec, roles=(replace(spec.roles[0], share=Share(milli=400)),)))
    assert spec.gpu_milli == 400
    member = Member(role="worker", index=0, rank=0, node="n1", devices=("gpu-0",), share_milli=400)
    stage.take(
        ev.Recovered(
            gang=spec.id, attempt=1, placement=Placement(members=(member,)), tier=Tier.BORROWED, since_ms=T0,
            bound=True, holding=(0,), running=(0,), at_ms=T0,
        )
    )  # fmt: skip
    world = stage.engine.world(stage.now_ms)
    assert world.queue_gpu_milli == {"team": 400}
    assert world.part_free_milli.tolist() == [600]
    assert world.capacity_milli == 2000
    (view,) = stage.engine.queue_views()
    assert (view.used_gpus, view.running_gangs) == (1, 1)
    stage.submit("whole", "1x1")
    stage.settle()
    assert "holds 0.4 of its limit of 1 GPUs; the gang needs 1" in stage.view("whole").refusal.message


@pytest.mark.parametrize(
    ("profile", "milli"), [("1g.10gb", 143), ("3g.40gb", 429), ("7g.80gb", 1000), ("1g.10gb+me", 143), ("odd", 1000)]
)
def test_an_instance_is_charged_by_its_compute_slices(profile: str, milli: int) -> None:
    assert Role(name="worker", replicas=1, mig=profile).gpu_milli == milli


def test_a_gang_that_may_shrink_takes_what_its_limit_leaves() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team", "limit=5")])
    spec = builders.gang("elastic", "8x1")
    stage.seen(replace(spec, roles=(replace(spec.roles[0], min_replicas=2),)))
    (effect,) = stage.settle()
    assert len(effect.placement.members) == 5
    assert stage.state.queue_gpu_milli == {"team": 5000}


def test_other_numbers_are_news_for_a_short_line_and_another_reason_for_everybody() -> None:
    line = Line(example=builders.gang("x"), request=(), ask_key=("", "", "", ""))
    names = [f"g{i:03}" for i in range(NEWS_FOR_ALL + 1)]
    for name in names:
        line.ready.append(Waiting(gang=builders.gang(name), attempts=0, retry_at_ms=0, nomination=None, arrived=0))
    few, fewer = (refuse(Reason.NOT_ENOUGH_FREE, members=4, best=best) for best in (3, 2))
    assert line.refuse(few) == names
    line.untold["g003"] = None
    assert line.refuse(fewer) == ["g003"]
    assert line.refuse(refuse(Reason.PLACEMENT_DISABLED)) == names
    del line.ready[-1]
    assert line.refuse(few) == names[:-1]
    assert line.refuse(few) == []
