"""The life of a gang as a table, and what state makes of facts: complete, idempotent, and never silent about a bug."""

from __future__ import annotations

import builders
import pytest
from builders import T0, Stage

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.world.lifecycle import FINAL, HOLDING, NEXT, Step, next_phase

ALLOWED = {
    Phase.PENDING: "ACCEPTED REFUSED SUSPEND INTEND RECOVER SUCCEED FAIL",
    Phase.REFUSED: "ACCEPTED REFUSED RECOVER",
    Phase.SUSPENDED: "RESUME REFUSED RECOVER SUCCEED FAIL",
    Phase.PLACING: "BOUND STOP RECOVER",
    Phase.STARTING: "ALL_RUNNING STOP RECOVER",
    Phase.RUNNING: "STOP RECOVER",
    Phase.STOPPING: "REQUEUE PAUSE SUCCEED FAIL RECOVER CARRY_ON",
    Phase.SUCCEEDED: "RECOVER",
    Phase.FAILED: "RECOVER",
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("step", Step)
def test_every_pair_is_in_the_table_or_raises_with_the_history(phase: Phase, step: Step) -> None:
    if step.name in ALLOWED[phase].split():
        assert next_phase(phase, step, "x") in Phase
    else:
        with pytest.raises(AssertionError, match=r"ns/a .* is no step from"):
            next_phase(phase, step, "ns/a [history]")


def test_every_phase_and_every_step_is_reached() -> None:
    reached, todo = {Phase.PENDING}, [Phase.PENDING]
    while todo:
        phase = todo.pop()
        for (before, _), after in NEXT.items():
            if before is phase and after not in reached:
                reached.add(after)
                todo.append(after)
    assert reached == set(Phase)
    assert {step for _, step in NEXT} == set(Step)


def test_devices_are_held_only_in_phases_that_end_in_stopping() -> None:
    for phase in HOLDING - {Phase.STOPPING}:
        assert NEXT[phase, Step.STOP] is Phase.STOPPING
    assert not HOLDING & FINAL
    for (before, step), after in NEXT.items():
        if before in HOLDING and after not in HOLDING:
            assert before is Phase.STOPPING, f"{before} {step.name} frees devices without being stopped"


# --- what is found at start -----------------------------------------------------------------------------------------


def found(name: str, attempt: int, node: str, devices: tuple[str, ...], **more) -> ev.Recovered:
    member = Member(role="worker", index=0, rank=0, node=NodeName(node), devices=devices)
    fields = {"bound": True, "holding": (0,), "running": (0,), "since_ms": T0, "at_ms": T0 + 1} | more
    return ev.Recovered(
        gang=GangId(name), attempt=attempt, placement=Placement(members=(member,)), tier=Tier.BORROWED, **fields
    )


def two_nodes() -> Stage:
    return Stage([builders.node("n1", "8"), builders.node("n2", "8")], [builders.queue("team")])


def free(stage: Stage, name: str) -> int:
    return next(view.free for view in stage.engine.node_views() if view.name == name)


def test_an_attempt_that_is_found_goes_on_where_it_was() -> None:
    stage = two_nodes()
    stage.submit("a", "1x2")
    stage.take(found("a", 3, "n1", ("gpu-0", "gpu-1"), restarts=2))
    assert stage.settle() == []
    view = stage.view("a")
    assert (view.phase, view.attempt, view.restarts) == (Phase.RUNNING, 3, 2)
    assert free(stage, "n1") == 6
    assert stage.state.queue_gpu_milli == {"team": 2000}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_two_attempts_that_are_found_both_keep_their_devices(order: tuple[int, int]) -> None:
    """The first was left on a lost node when the second was placed; then the scheduler restarted."""
    stage = two_nodes()
    stage.submit("a", "1x8")
    facts = {
        1: found("a", 1, "n1", tuple(f"gpu-{i}" for i in range(8))),
        2: found("a", 2, "n2", tuple(f"gpu-{i}" for i in range(8))),
    }
    for number in order:
        stage.take(facts[number])
    assert stage.settle() == []
    assert (stage.view("a").phase, stage.view("a").attempt) == (Phase.RUNNING, 2)
    assert (free(stage, "n1"), free(stage, "n2")) == (0, 0)
    assert stage.state.queue_gpu_milli == {"team": 8000}
    stage.submit("b", "1x8")
    assert stage.settle() == []
    stage.take(ev.MemberReleased(gang=GangId("a"), attempt=1, rank=0, at_ms=T0 + 9))
    assert [builders.tell(effect) for effect in stage.settle()] == ["place b on n1"]


def test_an_attempt_of_nobody_is_stopped_and_its_devices_stay_taken_until_released() -> None:
    stage = two_nodes()
    stage.take(found("ghost", 1, "n1", ("gpu-0",)))
    assert [builders.tell(effect) for effect in stage.settle()] == ["stop ghost: Deleted, for good"]
    assert free(stage, "n1") == 7
    stage.take(ev.MemberReleased(gang=GangId("ghost"), attempt=1, rank=0, at_ms=T0 + 9))
    assert free(stage, "n1") == 8
    assert "ghost" not in stage.state.gangs


def test_an_attempt_whose_spec_comes_later_is_not_taken_for_an_orphan() -> None:
    """Templates are judged by a dry run, so a GangSeen may follow what was found in the claims."""
    stage = two_nodes()
    stage.take(found("a", 1, "n1", ("gpu-0",)))
    stage.submit("a", "1x1")
    assert stage.settle() == []
    stage.end("a", 0)
    assert [builders.tell(effect) for effect in stage.settle()] == ["stop a: Finished, for good"]
    stage.release("a")
    assert stage.view("a").phase is Phase.SUCCEEDED
    assert not any(stage.state.queue_gpu_milli.values())


def test_numbers_go_on_where_a_status_left_them() -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    stage.take(ev.Remembered(gang=GangId("a"), attempts=4, restarts=1, at_ms=T0))
    (effect,) = stage.settle()
    assert effect.attempt == 5


def test_an_attempt_is_found_although_its_number_was_remembered_first() -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    stage.take(ev.Remembered(gang=GangId("a"), attempts=4, restarts=1, at_ms=T0), found("a", 4, "n1", ("gpu-0",)))
    assert stage.settle() == []
    assert stage.view("a").phase is Phase.RUNNING


@pytest.mark.parametrize(("ended", "phase"), [(True, Phase.SUCCEEDED), (False, Phase.FAILED)])
def test_who_had_come_to_an_end_is_not_run_again(ended: bool, phase: Phase) -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    stage.take(ev.Remembered(gang=GangId("a"), attempts=1, restarts=0, at_ms=T0, ended=ended, finished_ms=T0))
    assert stage.settle() == []
    assert stage.view("a").phase is phase


# --- late and repeated facts ----------------------------------------------------------------------------------------


def test_a_running_fact_that_comes_before_bound_counts() -> None:
    stage = two_nodes()
    stage.submit("a", "2x1")
    stage.settle()
    for rank in (0, 1):
        stage.take(stage.member(ev.MemberRunning, "a", rank))
    assert stage.view("a").phase is Phase.PLACING
    stage.bind("a")
    assert stage.view("a").phase is Phase.RUNNING


def test_a_running_fact_that_comes_after_the_end_is_old_news() -> None:
    stage = two_nodes()
    stage.submit("a", "2x1")
    stage.settle()
    stage.bind("a")
    stage.end("a", 0)
    stage.take(stage.member(ev.MemberRunning, "a", 0))
    assert stage.attempt("a").running == set()


def test_bound_after_a_stop_does_not_bring_an_attempt_back() -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    stage.settle()
    stage.delete("a")
    stage.settle()
    stage.bind("a")
    assert stage.state.gangs[GangId("a")].phase is Phase.STOPPING


def test_the_pause_after_a_failed_placement_does_not_grow_when_the_failure_is_told_twice() -> None:
    stage = two_nodes()
    stage.submit("a", "2x1")
    stage.settle()
    stage.fail_place("a", released=(0,))
    before = stage.state.gangs[GangId("a")].retry_at_ms
    stage.fail_place("a", released=(0,))
    assert stage.state.gangs[GangId("a")].retry_at_ms == before
    assert stage.state.gangs[GangId("a")].failures_in_row == 1


@pytest.mark.parametrize("policy", ["restarts=0", "restarts=3"])
def test_members_that_go_while_a_placement_is_undone_are_no_failure_of_the_job(policy: str) -> None:
    stage = two_nodes()
    stage.submit("a", f"2x1 {policy}")
    stage.settle()
    stage.end("a", 0, succeeded=False)  # our own deletion, seen before the undo has ended
    assert stage.settle() == []
    stage.fail_place("a")
    assert (stage.reason("a"), stage.view("a").restarts) == ("PlacementConflict", 0)
    assert stage.view("a").phase is Phase.PENDING


def test_a_member_that_failed_while_others_were_being_bound_is_judged_after_that() -> None:
    stage = two_nodes()
    stage.submit("a", "2x1")
    stage.settle()
    stage.end("a", 0, succeeded=False)
    stage.bind("a")
    stage.settle()
    assert (stage.reason("a"), stage.view("a").restarts) == ("MemberFailed", 1)


def test_failed_placements_pause_longer_each_time_and_a_binding_forgets_them() -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    pauses = []
    for _ in range(3):
        stage.settle()
        stage.fail_place("a")
        pauses.append(stage.state.gangs[GangId("a")].retry_at_ms - stage.now_ms)
        stage.now_ms += pauses[-1]
    assert pauses == [1_000, 2_000, 4_000]
    stage.settle()
    stage.run("a")
    assert stage.state.gangs[GangId("a")].failures_in_row == 0


def test_a_pause_never_exceeds_its_bound() -> None:
    stage = two_nodes()
    stage.submit("a", "1x1")
    for _ in range(40):
        stage.settle()
        stage.fail_place("a")
        pause = stage.state.gangs[GangId("a")].retry_at_ms - stage.now_ms
        assert pause <= stage.state.rules.backoff_max_ms
        stage.now_ms += pause


def test_facts_about_nobody_are_taken_calmly() -> None:
    stage = two_nodes()
    gang = GangId("nobody")
    placement = Placement(members=(Member(role="worker", index=0, rank=0, node=NodeName("n1")),))
    cause = refuse(Reason.FINISHED)
    stage.take(
        ev.Bound(gang=gang, attempt=1, at_ms=T0),
        ev.MemberRunning(gang=gang, attempt=1, rank=0, at_ms=T0),
        ev.MemberEnded(gang=gang, attempt=1, rank=0, succeeded=True, at_ms=T0),
        ev.MemberReleased(gang=gang, attempt=1, rank=0, at_ms=T0),
        ev.StopIntended(gang=gang, attempt=1, cause=cause, requeue=True, at_ms=T0),
        ev.PlaceFailed(gang=gang, attempt=1, cause=cause, released=(0,), at_ms=T0),
        ev.Nominated(gang=gang, placement=placement, victims=(), at_ms=T0, until_ms=T0 + 1),
        ev.NominationEnded(gang=gang, at_ms=T0),
        ev.GangGone(gang=gang, at_ms=T0),
        ev.NodeGone(name=NodeName("n9"), at_ms=T0),
        ev.QueueGone(name="q9", at_ms=T0),
        ev.PoolGone(name="p9", at_ms=T0),
        ev.ForeignDevices(name=NodeName("n9"), devices=("gpu-0",), at_ms=T0),
    )
    assert stage.settle() == []


def test_devices_of_a_queue_that_the_job_left_are_given_back_to_that_queue() -> None:
    """spec.queue is immutable on the server; if somebody changes it all the same, the books still balance."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team"), builders.queue("other", "ns=team")])
    stage.submit("a", "1x4")
    stage.settle()
    stage.run("a")
    stage.change("a", queue="other")
    assert stage.state.queue_gpu_milli == {"team": 4000}
    stage.end("a", 0)
    stage.settle()
    stage.release("a")
    assert not any(stage.state.queue_gpu_milli.values())


def test_a_template_that_changes_while_room_is_made_gives_the_room_up() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("a", "guaranteed=8"), builders.queue("b")])
    stage.submit("victim", "1x8 queue=b")
    stage.settle()
    stage.run("victim")
    stage.submit("taker", "1x8 queue=a")
    stage.settle()
    stage.seen(builders.gang("taker", "other:1x4 queue=a", stage.now_ms))
    stage.settle()
    stage.release("victim")
    assert sorted(builders.tell(effect) for effect in stage.settle()) == ["place taker on n1"]


def test_an_unchanged_gang_job_is_no_news() -> None:
    """Our own status writes come back as watch events: they must not make us write again."""
    stage = two_nodes()
    spec = stage.submit("a", "1x16")
    stage.settle()
    stage.news()
    stage.seen(spec)
    assert stage.news() == ()
