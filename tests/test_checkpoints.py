"""Checkpoints: which claims count, what they are worth, and what a gang that lies about them gets from it."""

from __future__ import annotations

import builders
import pytest
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.gang import Checkpoint, GangId

MINUTE = 60_000


def running_gang(pause_ms: int = 0) -> Stage:
    """A gang of two members that has run for ten minutes and declares checkpoints."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    stage.submit("a", "2x1")
    stage.change("a", checkpoint=Checkpoint(pause_ms=pause_ms))
    stage.settle()
    stage.run("a")
    stage.now_ms += 10 * MINUTE
    return stage


def claim(stage: Stage, ago_ms: int, attempt: int = 1) -> ev.CheckpointCommitted:
    began_ms = stage.now_ms - ago_ms
    fact = ev.CheckpointCommitted(gang=GangId("a"), attempt=attempt, at_ms=stage.now_ms, began_ms=began_ms)
    stage.take(fact)
    return fact


def saved(stage: Stage) -> int | None:
    attempt = stage.engine.world(stage.now_ms).running.everyone.get(GangId("a"))
    assert attempt is not None
    return attempt.saved_ms


def test_a_committed_checkpoint_says_what_is_safe_and_the_same_claim_twice_is_one() -> None:
    stage = running_gang(pause_ms=MINUTE)
    assert saved(stage) is None
    fact = claim(stage, 2 * MINUTE)
    stage.take(fact)
    assert saved(stage) == fact.began_ms
    assert stage.state.gangs[GangId("a")].false_claims == 0


@pytest.mark.parametrize(
    ("ago_ms", "attempt", "says"),
    [
        (-6_000, 1, "in the future"),
        (11 * MINUTE, 1, "before all members of the attempt ran"),
        (6 * MINUTE, 1, "before the last one"),
        (4 * MINUTE + 30_000, 1, "spec.checkpoint.pause is 1m"),
        (2 * MINUTE, 2, ""),
    ],
    ids=["from the future", "before the attempt ran", "backwards", "too soon after the last", "of another attempt"],
)
def test_a_claim_that_cannot_be_true_counts_for_nothing(ago_ms: int, attempt: int, says: str) -> None:
    stage = running_gang(pause_ms=MINUTE)
    last = claim(stage, 5 * MINUTE).began_ms
    claim(stage, ago_ms, attempt)
    assert saved(stage) == last
    record = stage.state.gangs[GangId("a")]
    assert says in record.false_claim
    assert (record.false_claims == 1) == bool(says)


def test_a_clock_that_is_a_little_ahead_saves_up_to_now_and_no_further() -> None:
    stage = running_gang()
    claim(stage, -3_000)
    assert saved(stage) == stage.now_ms


def test_what_is_in_a_checkpoint_is_not_lost_when_the_attempt_is_stopped() -> None:
    stage = running_gang()
    claim(stage, 2 * MINUTE)
    stage.change("a", suspended=True)
    stage.settle()
    stage.release("a")
    assert stage.view("a").lost_gpu_ms == 2 * 2 * MINUTE
    assert stage.view("a").gpu_ms == 2 * 10 * MINUTE


def test_a_new_attempt_has_saved_nothing_yet() -> None:
    stage = running_gang()
    claim(stage, 2 * MINUTE)
    stage.end("a", 0, succeeded=False)
    stage.settle()
    stage.release("a")
    stage.now_ms += MINUTE
    stage.settle()
    stage.run("a")
    assert saved(stage) is None
