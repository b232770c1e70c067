"""What is said at once to gangs that differ only in how long they run is what each would have been told."""

from __future__ import annotations

from unittest import mock

import builders
from builders import Stage, tell
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import Life, examples, gang_texts, node_lists

from fairlead.model.effects import Place, Refuse
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules
from fairlead.planning.alike import Alike
from fairlead.planning.decide import decide
from fairlead.planning.promising import Promises

DURATIONS = ("", "duration=10m", "duration=1h", "duration=5h", "duration=30h", "duration=5h fixed")
SAVED: list[str] = []


def a_life(nodes, texts) -> list[str]:
    """Everything that is decided while gangs come one after the other, and some end."""
    life = Life(nodes)
    for at, (text, duration, again) in enumerate(texts):
        for copy in range(again):
            life.stage.submit(f"g{at}-{copy}", f"{text} {duration if copy % 2 else DURATIONS[at % 5]}")
        life.do("answer", at, "")
        life.stage.settle()
        life.stage.now_ms += 60_000 * (at % 3)
        life.do("fail", at, "")
        life.stage.settle()
    return [repr(effect) if not hasattr(effect, "placement") else tell(effect) for effect in life.stage.effects]


@given(
    node_lists(),
    st.lists(st.tuples(gang_texts(roles=1), st.sampled_from(DURATIONS), st.integers(1, 3)), min_size=3, max_size=9),
)
@examples(25)
def test_who_is_told_at_once_is_told_the_same(nodes, texts) -> None:
    told = Alike.told

    def noted(self: Alike, waiting):
        found = told(self, waiting)
        SAVED.extend([waiting.gang.id] if found is not None else [])
        return found

    with mock.patch.object(Alike, "told", noted):
        together = a_life(nodes, texts)
    apart = mock.patch.multiple(Alike, told=mock.Mock(return_value=None))
    with apart, mock.patch.multiple(Promises, crowd_out=mock.Mock(return_value=False)):
        alone = a_life(nodes, texts)
    assert together == alone


def test_and_that_is_put_to_the_test() -> None:
    assert len(SAVED) > 20, "the worlds above hold hardly any gangs that are told at once"


def test_who_may_enter_a_hole_is_not_told_what_another_was_who_may_not() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")], Rules(promises=1))
    stage.submit("first", "1x4 duration=2h")
    stage.settle()
    stage.run("first")
    stage.submit("wide", "1x8 duration=1h")
    stage.settle()
    stage.submit("long", "1x4 duration=9h fixed")
    stage.submit("short", "1x4 duration=1h fixed")
    effects = stage.settle()
    assert [effect.gang for effect in effects if isinstance(effect, Place)] == ["short"]
    assert stage.state.gangs[GangId("long")].refusal.reason is Reason.KEPT_FOR_PROMISE


def test_what_was_said_is_looked_at_again_once_something_was_placed() -> None:
    stage = Stage([builders.node("n1", "4"), builders.node("n2", "4")], [builders.queue("team")])
    stage.submit("first", "1x4")
    stage.settle()
    stage.run("first")
    stage.submit("a", "2x4 duration=1h")
    stage.submit("b", "1x4")
    stage.submit("c", "2x4 duration=9h")
    effects = decide(stage.engine.world(stage.now_ms)).effects
    told = {effect.gang: dict(effect.refusal.details) for effect in effects if isinstance(effect, Refuse)}
    assert told["a"] != told["c"]
