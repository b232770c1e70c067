"""The engine as a shell drives it: intentions before effects, slices, cached refusals, what it tells, bad input."""

from __future__ import annotations

from dataclasses import replace

import builders
import pytest
from builders import T0, Stage, tell

from fairlead.model import events as ev
from fairlead.model.effects import Nominate, Phase, Place, Refuse, Stop
from fairlead.model.gang import GangId
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.placement.placer import Placer
from fairlead.planning import decide as deciding
from fairlead.planning.plan import Plan
from fairlead.service.engine import VIEWS_AT_ONCE, Engine
from fairlead.world.views import GangView


def stage_of(nodes: int = 2, text: str = "8", rules: Rules | None = None, **queues: str) -> Stage:
    named = queues or {"team": ""}
    return Stage(
        [builders.node(f"n{i:03}", text) for i in range(nodes)],
        [builders.queue(name, words) for name, words in named.items()],
        rules,
    )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of gangs for which a placement was really searched."""
    seen: list[str] = []

    search = Placer.place

    def counted(placer, gang, **more):
        seen.append(gang.name)
        return search(placer, gang, **more)

    monkeypatch.setattr(Placer, "place", counted)
    return seen


# --- facts and intentions -----------------------------------------------------------------------------------------


def test_an_intention_holds_its_devices_before_anybody_performs_it() -> None:
    stage = stage_of(1)
    stage.submit("a", "1x8")
    cycle = stage.engine.cycle(stage.now_ms)
    assert [type(effect) for effect in cycle.effects] == [Place]
    assert [fact.gang for fact in cycle.facts if isinstance(fact, ev.Intended)] == ["a"]
    stage.submit("b", "1x8")
    assert stage.settle() == []
    assert stage.state.queue_gpu_milli == {"team": 8000}


def test_facts_of_a_cycle_rebuild_the_same_state_elsewhere() -> None:
    stage = stage_of(3, team="", other="guaranteed=8 ns=team")
    for i in range(6):
        stage.submit(f"g{i}", "1x4")
    stage.settle()
    stage.run("g0", "g1", "g2")
    stage.submit("o", "1x8 queue=other ns=team")
    stage.settle()
    replayed = Engine()
    replayed.take(stage.facts)
    assert replayed.state.holds == stage.state.holds
    assert replayed.state.queue_gpu_milli == stage.state.queue_gpu_milli
    assert {n: r.phase for n, r in replayed.state.gangs.items()} == {n: r.phase for n, r in stage.state.gangs.items()}
    assert {n: r.nomination for n, r in replayed.state.gangs.items()} == {
        n: r.nomination for n, r in stage.state.gangs.items()
    }


def test_a_nomination_and_its_stops_come_in_one_cycle_the_nomination_first() -> None:
    stage = stage_of(1)
    stage.submit("low", "1x8")
    stage.settle()
    stage.run("low")
    stage.submit("high", "1x8 priority=1")
    effects = stage.settle()
    assert [type(effect) for effect in effects] == [Nominate, Stop]


def test_with_placement_switched_off_not_even_room_that_was_made_is_used() -> None:
    stage = stage_of(1)
    stage.submit("low", "1x8")
    stage.settle()
    stage.run("low")
    stage.submit("high", "1x8 priority=1")
    stage.settle()
    stage.state.rules = Rules(placement_on=False)
    stage.release("low")
    assert [tell(effect) for effect in stage.settle()] == ["end room for high"]
    assert stage.reason("high") == Reason.PLACEMENT_DISABLED.token


def test_the_next_slice_is_asked_for_when_our_own_intentions_freed_something() -> None:
    """No fact from outside will come for a gang whose whole attempt was on a lost node."""
    stage = stage_of(2)
    stage.submit("a", "1x8")
    stage.settle()
    stage.run("a")
    stage.take(ev.NodeGone(name=NodeName("n000"), at_ms=stage.now_ms))
    first = stage.engine.cycle(stage.now_ms)
    assert [type(effect) for effect in first.effects] == [Stop]
    assert first.more
    second = stage.engine.cycle(stage.now_ms)
    assert [tell(effect) for effect in second.effects] == ["place a on n001"]


def test_what_verify_refuses_is_dropped_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(1)
    stage.submit("a", "1x8")

    def bad_decide(world, memo=None) -> Plan:
        plan = deciding.decide(world, memo)
        return replace(plan, effects=tuple(replace(e, attempt=9) if isinstance(e, Place) else e for e in plan.effects))

    monkeypatch.setattr(stage.engine, "_decide", bad_decide)
    cycle = stage.engine.cycle(stage.now_ms)
    assert cycle.effects == ()
    assert not [fact for fact in cycle.facts if isinstance(fact, ev.Intended)]
    assert any("attempt 9 after 0" in text for text in cycle.violations)
    assert stage.state.holds == {}


def test_a_refused_stop_takes_its_nomination_and_its_siblings_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a preemption would stop somebody for nothing."""
    stage = stage_of(1)
    for name in ("l1", "l2"):
        stage.submit(name, "1x4")
    stage.settle()
    stage.run("l1", "l2")
    stage.submit("high", "1x8 priority=1")

    def bad_decide(world, memo=None) -> Plan:
        plan = deciding.decide(world, memo)
        spoilt = tuple(replace(e, attempt=7) if isinstance(e, Stop) and e.gang == "l2" else e for e in plan.effects)
        return replace(plan, effects=spoilt)

    monkeypatch.setattr(stage.engine, "_decide", bad_decide)
    cycle = stage.engine.cycle(stage.now_ms)
    assert cycle.effects == ()
    assert cycle.violations
    assert stage.view("high").nomination is None
    assert stage.view("l1").phase is Phase.RUNNING


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prepare", "after_ms"),
    [
        pytest.param("1x1", [], 60_000, id="a placement that nobody answers"),
        pytest.param("1x1 startdeadline=2m", ["bind"], 120_000, id="the start deadline"),
        pytest.param("1x1 duration=3m", ["run"], 180_000, id="the declared duration"),
    ],
)
def test_the_engine_says_when_time_alone_will_change_something(text: str, prepare: list[str], after_ms: int) -> None:
    stage = stage_of(1)
    stage.submit("a", text)
    stage.settle()
    for verb in prepare:
        getattr(stage, verb)("a")
    assert stage.settle() == []
    assert stage.cycles[-1].wake_at_ms == stage.now_ms + after_ms
    stage.now_ms += after_ms
    assert [type(effect) for effect in stage.settle()] == [Stop]


def test_a_node_that_is_not_ready_is_waited_for_until_it_counts_as_lost() -> None:
    stage = stage_of(2)
    stage.submit("a", "1x8")
    stage.settle()
    stage.run("a")
    stage.change_node("n000", not_ready_since_ms=stage.now_ms)
    assert stage.settle() == []
    assert stage.cycles[-1].wake_at_ms == stage.now_ms + stage.state.rules.node_lost_after_ms


def test_a_quiet_world_asks_for_no_wake_up() -> None:
    stage = stage_of(1)
    stage.submit("a", "1x8")
    stage.submit("b", "1x8")
    stage.settle()
    stage.run("a")
    assert stage.settle() == []
    assert stage.cycles[-1].wake_at_ms is None
    assert not stage.cycles[-1].more


# --- work is bounded ------------------------------------------------------------------------------------------------


def test_equal_requests_are_looked_at_once(looks: list[str]) -> None:
    """10,000 waiting gangs that ask alike cost one search, in as few slices."""
    stage = stage_of(2)
    stage.submit("holder", "2x8")
    stage.settle()
    stage.engine.touched(stage.now_ms)
    del looks[:]
    specs = [builders.gang(f"g{i:05}", "1x8", T0) for i in range(10_000)]
    stage.take(*(ev.GangSeen(gang=spec, at_ms=T0) for spec in specs))
    cycle = stage.engine.cycle(stage.now_ms)
    assert len(looks) == 1
    assert [type(effect) for effect in cycle.plan.effects] == [Refuse]
    assert not cycle.more
    views: list[GangView] = []
    while stage.engine.untold:
        views += stage.engine.touched(stage.now_ms, VIEWS_AT_ONCE)
    assert sorted(view.name for view in views) == [spec.name for spec in specs]
    assert {view.refusal.reason for view in views} == {Reason.NODES_FILTERED}
    stage.submit("late", "1x8")
    (told,) = stage.news()
    assert (told.name, told.refusal.reason) == ("late", Reason.NODES_FILTERED)
    assert len(looks) == 1, "who asks for the same hears the same"


def test_who_was_refused_is_not_asked_again_before_something_changes(looks: list[str]) -> None:
    stage = stage_of(1)
    stage.submit("holder", "1x8")
    for i in range(50):
        stage.submit(f"g{i}", f"1x{1 + i % 8}")
    stage.settle()
    stage.run("holder")
    stage.settle()
    del looks[:]
    assert stage.engine.cycle(stage.now_ms).plan.effects == ()
    assert looks == []
    stage.end("holder", 0)
    stage.settle()
    stage.release("holder")
    assert stage.settle()
    assert looks


def test_a_slice_looks_at_no_more_gangs_than_its_budget_and_the_next_goes_on(looks: list[str]) -> None:
    stage = stage_of(10, rules=Rules(gangs_per_slice=3))
    for i in range(8):
        stage.submit(f"g{i}", f"1x{i % 4 + 1} cpu={i + 1}")
    slices = []
    for _ in range(4):
        before = len(looks)
        cycle = stage.engine.cycle(stage.now_ms)
        slices.append((len(looks) - before, cycle.more))
    assert slices == [(3, True), (3, True), (2, False), (0, False)]


def test_a_new_head_is_tried_first_in_the_next_slice() -> None:
    stage = stage_of(1, rules=Rules(gangs_per_slice=1))
    stage.submit("a", "1x2 cpu=1")
    stage.submit("b", "1x2 cpu=2")
    first = stage.engine.cycle(stage.now_ms)
    stage.submit("urgent", "1x2 cpu=3 priority=9")
    second = stage.engine.cycle(stage.now_ms)
    assert [tell(e) for e in (*first.effects, *second.effects)] == ["place a on n000", "place urgent on n000"]


def test_a_gang_of_4096_members_is_placed_and_verified() -> None:
    stage = stage_of(512)
    stage.submit("huge", "4096x1")
    (effect,) = stage.settle()
    assert isinstance(effect, Place)
    assert len(effect.placement.members) == 4096
    assert stage.state.queue_gpu_milli == {"team": 4096000}


def test_a_gang_of_4096_members_that_lacks_one_device_is_told_so() -> None:
    stage = stage_of(512)
    stage.submit("one", "1x1")
    stage.settle()
    stage.submit("huge", "4096x1")
    stage.settle()
    assert stage.reason("huge") == "NotEnoughFree"
    assert "needs room for 4096 members; there is room for 4095 now" in stage.view("huge").refusal.message


# --- what people see ------------------------------------------------------------------------------------------------


def test_views_are_given_out_once_for_what_changed() -> None:
    stage = stage_of(1)
    stage.submit("a", "1x8")
    stage.submit("b", "1x8")
    assert {view.name: view.phase for view in stage.news()} == {"a": Phase.PLACING, "b": Phase.PENDING}
    assert stage.news() == ()
    stage.bind("a")
    assert [view.name for view in stage.news()] == ["a"]


def test_positions_count_from_one_inside_a_queue_by_priority_and_age() -> None:
    stage = stage_of(1, "1", team="", other="")
    for name, text in (("x", "1x8"), ("late", "1x8"), ("first", "1x8 priority=5"), ("alone", "1x8 queue=other")):
        stage.submit(name, text)
    stage.settle()
    places = {view.name: view.position for view in stage.engine.gang_views(stage.now_ms)}
    assert places == {"first": 1, "x": 2, "late": 3, "alone": 1}


def test_a_gang_that_was_never_looked_at_says_so() -> None:
    stage = stage_of(1)
    stage.submit("a", "1x1")
    assert stage.reason("a") == Reason.AWAITING_CYCLE.token


def test_queue_and_pool_views_add_up() -> None:
    stage = stage_of(2, "8 unhealthy=7", team="guaranteed=4 limit=12", other="guaranteed=2 ns=team")
    stage.submit("a", "1x6")
    stage.submit("b", "1x7")
    stage.settle()
    stage.take(ev.ForeignDevices(name=NodeName("n001"), devices=("gpu-0",), at_ms=stage.now_ms))
    views = {view.name: view for view in stage.engine.queue_views()}
    assert (views["team"].used_gpus, views["team"].borrowed_gpus, views["team"].pending_gpus) == (6, 2, 7)
    assert not views["team"].over_limit
    (pool,) = stage.engine.pool_views()
    assert (pool.gpus, pool.free, pool.held, pool.foreign, pool.down) == (16, 7, 6, 1, 2)
    assert pool.free + pool.held + pool.foreign + pool.down == pool.gpus


def test_gpu_ms_count_from_the_intention_to_the_release() -> None:
    stage = stage_of(1)
    stage.submit("a", "2x2")
    stage.settle()
    begun = stage.now_ms
    stage.now_ms += 1_000
    assert stage.view("a").gpu_ms == 4 * 1_000
    stage.run("a")
    stage.end("a", 0, succeeded=False)
    stage.settle()
    stage.now_ms += 1_000
    stage.release("a", 0)
    stage.now_ms += 500
    stage.release("a", 1)
    view = stage.view("a")
    assert begun + 2_500 == stage.now_ms
    assert view.gpu_ms == view.lost_gpu_ms == 2 * 2_000 + 2 * 2_500


def test_an_engine_with_nothing_to_do_does_nothing() -> None:
    engine = Engine()
    cycle = engine.cycle(T0)
    assert (cycle.effects, cycle.facts, engine.untold, cycle.more, cycle.wake_at_ms) == ((), (), False, False, None)
    assert engine.gang_view(GangId("nobody"), T0) is None
    assert list(engine.queue_views()) == list(engine.node_views()) == list(engine.pool_views()) == []


def test_a_stop_that_a_disruption_budget_refuses_leaves_the_victim_running_and_spared() -> None:
    stage = stage_of(1)
    stage.submit("guarded", "1x8")
    stage.settle()
    stage.run("guarded")
    stage.settle()
    stage.submit("asker", "1x8 priority=5")
    assert [tell(effect) for effect in stage.settle()] == ["make room for asker: guarded", "stop guarded: Preempted"]
    cause = refuse(Reason.BUDGET_REFUSES, detail="web needs 1 pod")
    refused = ev.StopRefused(gang=GangId("guarded"), attempt=1, cause=cause, at_ms=stage.now_ms)
    stage.take(refused, refused)
    assert stage.settle() == []  # not asked again at once
    assert stage.view("guarded").phase is Phase.RUNNING
    assert stage.reason("asker") != Reason.WAITING_FOR_VICTIMS.token
    wake_at_ms = stage.cycles[-1].wake_at_ms
    assert wake_at_ms == stage.now_ms + Rules().spare_ms
    stage.now_ms = wake_at_ms
    assert [tell(effect) for effect in stage.settle()] == ["make room for asker: guarded", "stop guarded: Preempted"]


def test_a_backlog_enters_the_cluster_no_faster_than_its_pods_are_bound() -> None:
    stage = stage_of(4, rules=Rules(placing_pods=3))
    for name in "abcd":
        stage.submit(name, "2x4")
    assert sorted(effect.gang for effect in stage.settle()) == ["a", "b"]
    stage.bind("a")
    assert [effect.gang for effect in stage.settle()] == ["c"]
    stage.bind("b")
    stage.bind("c")
    assert [effect.gang for effect in stage.settle()] == ["d"]


def test_a_member_whose_devices_were_taken_from_it_counts_as_failed_unless_its_end_was_only_late() -> None:
    stage = stage_of(2)
    for name in ("robbed", "late"):
        stage.submit(name, "1x8")
    stage.settle()
    stage.run("robbed", "late")
    for name in ("robbed", "late"):
        stage.take(stage.member(ev.MemberReleased, name, 0))
    assert stage.settle() == []
    assert stage.cycles[-1].wake_at_ms == stage.now_ms + Rules().robbed_after_ms
    stage.end("late", 0)
    assert [tell(effect) for effect in stage.settle()] == ["stop late: Finished, for good"]
    stage.now_ms += Rules().robbed_after_ms
    assert next(map(tell, stage.settle())) == "stop robbed: MemberFailed"
