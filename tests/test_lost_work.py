"""What a stop throws away: time since the last committed checkpoint, times devices, and the restart."""

from __future__ import annotations

import builders
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.gang import GangId

MIN = 60_000


def running(text: str = "1x4") -> Stage:
    stage = Stage([builders.node("n1")], [builders.queue("team")])
    stage.submit("a", text)
    stage.settle()
    stage.run("a")
    return stage


def saved(stage: Stage, began_ms: int, at_ms: int) -> int | None:
    """Tell of a checkpoint and return from when on work is not safe."""
    stage.take(ev.CheckpointCommitted(gang=GangId("a"), attempt=1, at_ms=at_ms, began_ms=began_ms))
    (attempt,) = stage.engine.world(at_ms).running
    return attempt.saved_ms


def test_a_checkpoint_saves_what_was_done_when_it_began() -> None:
    stage = running()
    start = stage.now_ms
    assert saved(stage, start + 10 * MIN, start + 12 * MIN) == start + 10 * MIN


def test_a_checkpoint_that_is_told_late_takes_nothing_back() -> None:
    stage = running()
    start = stage.now_ms
    saved(stage, start + 10 * MIN, start + 12 * MIN)
    assert saved(stage, start + 5 * MIN, start + 13 * MIN) == start + 10 * MIN


def test_a_marker_from_the_future_saves_nothing_and_a_clock_that_is_a_little_ahead_no_more_than_has_been() -> None:
    stage = running()
    start = stage.now_ms
    assert saved(stage, start + 90 * MIN, start + 12 * MIN) is None
    assert saved(stage, start + 12 * MIN + 2_000, start + 12 * MIN) == start + 12 * MIN
