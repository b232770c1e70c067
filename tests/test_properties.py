"""What no list of cases covers: safety, idempotence, rights and an end to it, through long random lives."""

from __future__ import annotations

from dataclasses import replace

import builders
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import OPS, OUTSIDE, Life, a_stage, examples, gang_texts, node_lists, sound

from fairlead.model import events as ev
from fairlead.model.effects import Nominate, Phase, Place, Stop
from fairlead.model.reasons import Kind, Reason
from fairlead.model.tenancy import ancestors
from fairlead.ordering.fair_share import entitlements
from fairlead.planning.verify import violations
from fairlead.service.engine import Engine


@given(node_lists(), OPS)
@examples(60)
def test_no_device_is_held_twice_and_no_plan_breaks_a_promise(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()  # asserts that verify had nothing to say
        sound(life.stage)


@given(node_lists(), OPS)
@examples(50)
def test_whatever_happened_the_system_settles(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        if op[1] % 2:
            life.stage.settle()
    life.stage.now_ms += 10_000_000  # past every backoff, deadline and nomination
    life.quiet()
    sound(life.stage)
    for view in life.stage.engine.gang_views(life.stage.now_ms):
        if view.phase in (Phase.PENDING, Phase.REFUSED, Phase.SUSPENDED, Phase.FAILED):
            assert view.refusal is not None, view
            assert view.refusal.reason is not Reason.AWAITING_CYCLE, view
            assert "{" not in view.refusal.message


@given(node_lists(), OPS)
@examples(40)
def test_a_fact_that_is_told_twice_changes_nothing(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()
    once, twice = Engine(), Engine()
    for fact in life.stage.facts:
        once.take([fact])
        twice.take([fact, fact])
        assert dump(once) == dump(twice), fact


def dump(engine: Engine) -> object:
    """Everything in state but counters and what is only remembered for speed."""
    state = engine.state
    gangs = {
        name: (
            record.gang, record.queue, record.phase, record.attempts, record.restarts, record.failures_in_row,
            record.refusal, record.retry_at_ms, record.nomination, record.gone, record.started_ms, record.finished_ms,
            record.past_gpu_ms, record.lost_gpu_ms, record.current and repr(record.current),
        )
        for name, record in state.gangs.items()
    }  # fmt: skip
    used = {name: (fact.taken, fact.host_ports) for name, fact in state.used.items()}
    return (
        gangs, dict(state.nodes), set(state.lost), used, dict(state.foreign), dict(state.queues), dict(state.pools),
        dict(state.holds), {q: n for q, n in state.queue_gpu_milli.items() if n},
    )  # fmt: skip


@given(node_lists(), OPS, st.randoms(use_true_random=False))
@examples(40)
def test_facts_in_any_order_do_not_bring_the_state_down(nodes, ops, shuffler) -> None:
    """The watch of one kind of object may be far behind another's; our own intentions always come first."""
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()
    late = [fact for fact in life.stage.facts if isinstance(fact, OUTSIDE)]
    shuffler.shuffle(late)
    for fact in late:
        if not isinstance(fact, ev.GangSeen) or fact.gang.id in life.stage.state.gangs:
            life.stage.take(fact)
            sound(life.stage)
    life.stage.settle()


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=12), gang_texts())
@examples(150)
def test_every_taking_is_rightful_and_improves_the_potential(nodes, texts, last) -> None:
    life = Life(nodes)
    for i, text in enumerate(texts):
        life.stage.submit(f"g{i}", text)
        life.quiet()
    stage = life.stage
    used = dict(stage.state.queue_gpu_milli)
    quotas = stage.state.queues
    hopeful = [r for r in stage.state.gangs.values() if r.phase is Phase.PENDING and r.refusal is not None]
    demand = dict(used)
    for record in hopeful:
        if record.refusal.reason.kind is Kind.NOT_NOW:
            demand[record.queue] = demand.get(record.queue, 0) + record.gang.gpu_milli
    spec = stage.submit("last", last)
    demand[spec.queue] = demand.get(spec.queue, 0) + spec.gpu_milli
    world = stage.engine.world(stage.now_ms)
    free = sum(int(m).bit_count() for m, ok in zip(world.free.free_mask, world.inventory.usable, strict=True) if ok)
    entitled = entitlements(1000 * free + sum(used.values()), quotas, demand)
    running = {record.id: record for record in stage.state.gangs.values()}
    effects = stage.settle()
    for nomination in [e for e in effects if isinstance(e, Nominate) and e.gang == "last"]:
        after = dict(used)
        foreign = False
        for victim, _ in nomination.victims:
            record = running[victim]
            assert record.gang.preemptible
            after[record.queue] -= record.gang.gpu_milli
            if record.queue == spec.queue:
                assert record.gang.priority < spec.priority
            else:
                foreign = True
        after[spec.queue] = after.get(spec.queue, 0) + spec.gpu_milli
        if foreign:
            assert excess(after, entitled) < excess(used, entitled) or is_due(after, used, spec.queue, quotas)
            assert excess(after, entitled) <= excess(used, entitled)
            assert used.get(spec.queue, 0) + spec.gpu_milli <= entitled[spec.queue]
    life.quiet()


def is_due(after: dict[str, int], used: dict[str, int], taker: str, queues) -> bool:
    """Whether a queue of the taker's is within its guarantee, and who lost was beyond theirs and is not below now."""

    def inside(amounts: dict[str, int], name: str) -> int:
        return sum(milli for below, milli in amounts.items() if name in ancestors(below, queues))

    taking = ancestors(taker, queues)
    lost = [queue for queue in used if after[queue] < used[queue] and queue != taker]
    losing = {name for queue in lost for name in ancestors(queue, queues)}
    within = [name for name in taking if inside(after, name) <= 1000 * queues[name].guaranteed_gpus]
    return bool(within) and all(
        inside(used, name) > 1000 * queues[name].guaranteed_gpus <= inside(after, name) for name in losing - set(taking)
    )


def excess(used: dict[str, int], entitled: dict[str, int]) -> int:
    return sum(max(0, gpus - entitled[name]) for name, gpus in used.items())


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=8))
@examples(80)
def test_the_same_world_gives_the_same_plan_and_verify_agrees(nodes, texts) -> None:
    plans = []
    for _ in range(2):
        stage = a_stage(nodes)
        for i, text in enumerate(texts):
            stage.submit(f"g{i}", text)
        world = stage.engine.world(stage.now_ms)
        plan = stage.engine.cycle(stage.now_ms).plan
        assert violations(plan, world) == []
        plans.append(plan)
    assert plans[0] == plans[1]


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=8), st.integers(1, 3))
@examples(60)
def test_slices_place_no_fewer_gangs_than_one_walk(nodes, texts, slice_size) -> None:
    """A cycle may be cut anywhere: nobody is forgotten, and nobody is placed twice."""
    stage = a_stage(nodes)
    stage.state.plain_rules = stage.state.rules = replace(stage.state.rules, gangs_per_slice=slice_size)
    for i, text in enumerate(texts):
        stage.submit(f"g{i}", text)
    placed = [effect.gang for effect in stage.settle() if isinstance(effect, Place)]
    assert len(placed) == len(set(placed))
    for record in stage.state.gangs.values():
        waits = record.phase is Phase.PENDING
        assert not waits or record.refusal is not None, record.id


def test_a_stop_by_somebody_belongs_to_a_nomination() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("a", "guaranteed=8"), builders.queue("b")])
    stage.submit("victim", "1x8 queue=b")
    stage.settle()
    stage.run("victim")
    stage.submit("taker", "1x8 queue=a")
    effects = stage.settle()
    stops = [effect for effect in effects if isinstance(effect, Stop)]
    named = [victim for effect in effects if isinstance(effect, Nominate) for victim in effect.victims]
    assert [(stop.gang, stop.attempt) for stop in stops] == named
    assert {stop.by for stop in stops} == {"taker"}
