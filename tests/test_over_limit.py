"""The second opinion on stops for a lowered limit."""

from __future__ import annotations

import builders
import pytest
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.effects import Stop
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations


@pytest.mark.parametrize(
    ("queue", "gangs", "stopped", "said"),
    [
        ("limit=4 over=requeue", {"a": "1x4", "b": "1x4"}, ["a"], []),
        ("limit=4 over=requeue", {"a": "1x4", "b": "1x4"}, ["a", "b"], ["stopped for a limit that its queues keep"]),
        ("limit=8 over=requeue", {"a": "1x4", "b": "1x4"}, ["a"], ["stopped for a limit that its queues keep"]),
        ("limit=4", {"a": "1x4", "b": "1x4"}, ["a"], ["stopped for a limit that its queues keep"]),
        (
            "limit=4 over=requeue", {"a": "1x4 fixed", "b": "1x4"}, ["a"],
            ["stopped for a limit although it may not be preempted"],
        ),
    ],
)  # fmt: skip
def test_only_what_is_above_a_limit_is_stopped_for_it(queue, gangs, stopped, said) -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    for name, text in gangs.items():
        stage.submit(name, text)
    stage.settle()
    stage.run(*gangs)
    stage.take(ev.QueueSeen(queue=builders.queue("team", queue), at_ms=stage.now_ms))
    world = stage.engine.world(stage.now_ms)
    cause = refuse(Reason.OVER_LIMIT, queue="team", used=8, limit=4, what="GPUs")
    effects = tuple(Stop(gang=GangId(name), attempt=1, cause=cause, requeue=True) for name in stopped)
    found = violations(Plan(version=world.version, effects=effects), world)
    assert [violation.text.partition(": ")[2] for violation in found] == said
