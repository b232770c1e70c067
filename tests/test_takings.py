"""That takings end: the potential falls with each, no world flaps, and a planted bug is caught and dropped."""

from __future__ import annotations

from dataclasses import replace

import builders
import pytest
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import Life, examples, gang_texts, node_lists, takings_between_facts_from_outside

from fairlead.model.effects import Nominate, Notice, Phase, Shrink, Stop
from fairlead.model.gang import GangId
from fairlead.planning.plan import Plan


@given(node_lists(), st.lists(gang_texts(), min_size=4, max_size=14), st.lists(st.integers(1, 3), max_size=14))
@examples(60)
def test_takings_between_two_facts_from_outside_are_bounded_and_no_world_flaps(nodes, texts, fewest) -> None:
    life = Life(nodes)
    for at, text in enumerate(texts):
        elastic = f" min={fewest[at]}" if at < len(fewest) and fewest[at] <= int(text.split(":")[1][0]) else ""
        life.stage.submit(f"g{at}", text + (elastic if text.count(":") == 1 else ""))
        life.stage.settle()
    life.quiet()  # raises where it never comes to rest
    for bout in takings_between_facts_from_outside(life.stage):
        assert len(bout) == len(set(bout)), "nobody is given room twice"
        assert len(bout) <= len(life.stage.state.gangs)


def full_stage() -> Stage:
    """A gang that was just given room, and one of higher priority that came before that was decided."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("a", "guaranteed=8"), builders.queue("b")])
    stage.submit("low", "1x8 queue=b")
    stage.settle()
    stage.run("low")
    stage.submit("taker", "1x8 queue=a")
    stage.settle()
    stage.release("low")
    stage.settle()
    stage.run("taker")
    return stage


def test_who_was_given_room_is_settled_until_something_happens_outside() -> None:
    stage = full_stage()
    assert stage.engine.world(stage.now_ms).takings.settled == {"taker"}
    stage.submit("other", "1x8 queue=b")
    assert stage.engine.world(stage.now_ms).takings.settled == set()


def test_a_planted_bug_that_takes_from_the_settled_is_dropped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opinion alone stands between a search that forgets who is settled and a world that flaps."""
    stage = full_stage()
    stage.submit("high", "1x8 queue=a priority=2")
    stage.state.takings.settle(GangId("taker"))
    assert not any(isinstance(effect, Stop) for effect in stage.engine.cycle(stage.now_ms).effects)
    decide = stage.engine._decide

    def careless(world, memo=None) -> Plan:
        return decide(replace(world, takings=replace(world.takings, settled=frozenset())), None)

    stage.state.epoch += 1
    monkeypatch.setattr(stage.engine, "_decide", careless)
    cycle = stage.engine.cycle(stage.now_ms)
    assert any("the potential does not fall" in text for text in cycle.violations), cycle.violations
    assert not [e for e in cycle.effects if isinstance(e, Stop | Notice | Shrink | Nominate)]
    assert stage.state.gangs[GangId("taker")].phase is Phase.RUNNING


def test_takings_are_counted_by_the_minute_and_forgotten_after_an_hour() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team", "takings=5")])
    stage.submit("low", "1x8")
    stage.settle()
    stage.run("low")
    stage.submit("high", "1x8 priority=2")
    stage.settle()
    counted = stage.engine.world(stage.now_ms).takings.by_queue
    assert counted == {"team": (1, 8 * (60_000 + 1))}  # it had run for one ms
    stage.now_ms += 62 * 60_000
    assert stage.engine.world(stage.now_ms).takings.by_queue == {}
