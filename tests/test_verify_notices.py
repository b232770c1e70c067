"""The second opinion on stops in steps: bugs planted into plans are named."""

from __future__ import annotations

from dataclasses import replace

import builders
import pytest
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.effects import Notice, Stop, Withdraw
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.decide import decide
from fairlead.planning.verify import violations

MINUTE = 60_000


def story(saves: str = "saves=file grace=2m pause=30s") -> Stage:
    """`a` has run for ten minutes; its owner has just suspended it."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    stage.submit("a", f"1x8 {saves}")
    stage.settle()
    stage.run("a")
    stage.now_ms += 10 * MINUTE
    stage.change("a", suspended=True)
    return stage


def plan_of(stage: Stage):
    world = stage.engine.world(stage.now_ms)
    return decide(world), world


def complaints(stage: Stage, plant) -> list[str]:
    plan, world = plan_of(stage)
    assert violations(plan, world) == []
    return [found.text for found in violations(replace(plan, effects=tuple(map(plant, plan.effects))), world)]


def as_stop(effect: Notice) -> Stop:
    return Stop(gang=effect.gang, attempt=effect.attempt, cause=effect.cause, requeue=effect.requeue, by=effect.by)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (as_stop, "without being asked to save first"),
        (lambda notice: replace(notice, begins_ms=notice.begins_ms - 1), "its turn to save is not within"),
        (lambda notice: replace(notice, begins_ms=notice.begins_ms + 10 * MINUTE), "its turn to save is not within"),
        (lambda notice: replace(notice, until_ms=notice.until_ms + 1), "its time to save is not what it asked for"),
        (lambda notice: replace(notice, until_ms=notice.begins_ms - 1), "its time to save is not what it asked for"),
    ],
)
def test_a_notice_that_is_not_owed_or_not_as_asked_is_named(plant, says) -> None:
    assert any(says in text for text in complaints(story(), plant))


def test_a_notice_that_goes_beyond_the_end_of_a_duration_is_named() -> None:
    """Ten minutes of twelve are over, so two minutes may be given, and not a millisecond more."""
    stage = story("saves=file grace=2m pause=30s duration=12m overrun=requeue")
    stage.now_ms += MINUTE
    late = complaints(stage, lambda notice: replace(notice, until_ms=notice.begins_ms + MINUTE + 1))
    assert late == ["a: it may save 1 ms longer than it may run"]


def test_one_that_cannot_save_is_not_asked() -> None:
    def ask(stop: Stop) -> Notice:
        now_ms = 1_800_000_600_001
        return Notice(
            gang=stop.gang, attempt=1, cause=stop.cause, requeue=True, begins_ms=now_ms, until_ms=now_ms, by=""
        )

    assert any("asked to save although it cannot" in text for text in complaints(story(""), ask))


def early_stop(stage: Stage, **more):
    """What a plan is told that stops the attempt now, in the middle of its notice."""
    plan, world = plan_of(stage)
    assert plan.effects == ()
    attempt = world.running.get(GangId("a"), 1)
    assert attempt is not None
    assert attempt.notice is not None
    fields = {"cause": attempt.notice.cause, "requeue": True} | more
    stop = Stop(gang=GangId("a"), attempt=1, **fields)
    return [found.text for found in violations(replace(plan, effects=(stop,)), world)]


def test_nobody_is_stopped_while_he_saves() -> None:
    stage = story()
    stage.settle()
    stage.now_ms += MINUTE
    assert any("stopped while it was saving" in text for text in early_stop(stage))
    stage.take(
        ev.CheckpointCommitted(gang=GangId("a"), attempt=1, at_ms=stage.now_ms, began_ms=stage.now_ms - 11 * MINUTE)
    )
    assert any("stopped while it was saving" in text for text in early_stop(stage)), "an old save is no answer"


def test_nobody_is_stopped_for_another_reason_than_he_was_told() -> None:
    stage = story()
    stage.settle()
    stage.now_ms += MINUTE
    assert any("another reason" in text for text in early_stop(stage, cause=refuse(Reason.PREEMPTED)))


def test_nobody_is_asked_twice() -> None:
    stage = story()
    stage.settle()
    plan, world = plan_of(stage)
    attempt = world.running.get(GangId("a"), 1)
    assert attempt is not None
    now_ms = stage.now_ms
    again = Notice(
        gang=GangId("a"), attempt=1, cause=attempt.notice.cause, requeue=True, begins_ms=now_ms, until_ms=now_ms
    )
    found = violations(replace(plan, effects=(again,)), world)
    assert any("asked to save" in violation.text for violation in found)


def asked_for_boss(saves: str = "saves=file grace=10m pause=30s") -> Stage:
    """`a` was asked to save for `boss`."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    stage.submit("a", f"1x8 {saves}")
    stage.settle()
    stage.run("a")
    stage.now_ms += 10 * MINUTE
    stage.submit("boss", "1x8 priority=9")
    stage.settle()
    return stage


def withdrawn(stage: Stage) -> list[str]:
    plan, world = plan_of(stage)
    return [v.text for v in violations(replace(plan, effects=(Withdraw(gang=GangId("a"), attempt=1),)), world)]


def test_a_notice_that_stands_for_somebody_is_not_withdrawn() -> None:
    assert withdrawn(asked_for_boss()) == ["a: goes on although boss waits for its devices"]


def test_a_notice_for_nobody_is_withdrawn_while_that_can_be_done() -> None:
    stage = asked_for_boss()
    stage.delete("boss")
    assert withdrawn(stage) == []
    late = asked_for_boss("saves=signal grace=10m pause=30s")
    late.delete("boss")
    assert withdrawn(late) == ["a: goes on although its pods are on their way out"]


def test_what_was_not_given_for_somebody_is_not_withdrawn() -> None:
    assert withdrawn(story()) == ["a: a notice is withdrawn that was not given for somebody"]
    stage = story()
    stage.settle()
    assert withdrawn(stage) == ["a: a notice is withdrawn that was not given for somebody"]
