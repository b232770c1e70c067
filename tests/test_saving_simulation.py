"""Stops in steps in the whole system on virtual time: programs that save, that lie about it, and that never answer."""

from __future__ import annotations

import builders
import pytest

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import Behaviour, Run, Saves
from fairlead.simulation.checkers import all_checkers
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet

T0 = builders.T0
MINUTE, HOUR = 60_000, 3_600_000
CALM = Behaviour(bind_ms=(100, 100), start_ms=(5_000, 5_000), grace_ms=(1_000, 1_000), release_ms=(500, 500))


class Story:
    """One node, one queue; `a` runs four hours, and `boss` needs its node for one from the second hour on."""

    def __init__(self, text: str, saves: Saves | None, **pool: str) -> None:
        self.facts: list[ev.Event] = []
        nodes = [builders.node("n1", "8")]
        self.driver = Driver(
            Engine(),
            Fleet(nodes, seed=1, behaviour=CALM),
            start_ms=T0,
            checkers=all_checkers(),
            listeners=[lambda now_ms, facts: self.facts.extend(facts)],
        )
        self.driver.put(ev.PoolSeen(pool=builders.pool(), at_ms=T0))
        self.driver.put(ev.QueueSeen(queue=builders.queue("team"), at_ms=T0))
        self.submit("a", f"1x8 {text}", Run(run_ms=4 * HOUR, saves=saves), T0 + 1)
        self.submit("boss", "1x8 priority=9", Run(run_ms=HOUR), T0 + 2 * HOUR)
        self.driver.run(until_ms=T0 + 40 * HOUR)

    def submit(self, name: str, text: str, run: Run, at_ms: int) -> None:
        gang = builders.gang(name, text, at_ms)
        self.driver.fleet.declare(gang.id, run)
        self.driver.fleet.schedule(at_ms, ev.GangSeen(gang=gang, at_ms=at_ms))

    def only(self, kind, name: str = "a"):
        return [fact for fact in self.facts if isinstance(fact, kind) and fact.gang == name]

    def view(self, name: str = "a"):
        view = self.driver.engine.gang_view(GangId(name), self.driver.now_ms)
        assert view is not None
        return view

    def waited_ms(self) -> int:
        """How long boss waited for its devices."""
        return self.only(ev.Intended, "boss")[0].at_ms - (T0 + 2 * HOUR)


def test_a_program_that_saves_when_told_loses_a_minute_and_its_successor_waits_as_long():
    story = Story("saves=file grace=10m pause=1m", Saves(pause_ms=MINUTE))
    (notice,) = story.only(ev.NoticeIntended)
    (saved,) = story.only(ev.CheckpointCommitted)
    stop = story.only(ev.StopIntended)[0]
    assert (saved.began_ms, stop.at_ms) == (notice.begins_ms, saved.at_ms)
    assert MINUTE <= story.waited_ms() <= MINUTE + 5_000
    assert story.view().phase is Phase.SUCCEEDED
    assert story.view().lost_gpu_ms <= 8 * (MINUTE + 10_000)
    assert story.view().finished_ms < T0 + 5 * HOUR + 3 * MINUTE  # four of its own, one of boss's, and little else


def test_without_checkpoints_the_same_stop_loses_two_hours():
    story = Story("", None)
    assert story.waited_ms() <= 5_000
    assert story.view().lost_gpu_ms > 8 * (2 * HOUR - MINUTE)
    assert story.view().finished_ms > T0 + 7 * HOUR


def test_a_program_that_saves_by_itself_loses_what_it_did_since():
    story = Story("saves=never every=30m pause=1m", Saves(every_ms=30 * MINUTE, pause_ms=MINUTE))
    assert not story.only(ev.NoticeIntended)
    assert len(story.only(ev.CheckpointCommitted)) >= 3
    assert 8 * 20 * MINUTE < story.view().lost_gpu_ms < 8 * 31 * MINUTE
    assert story.view().finished_ms < T0 + 5 * HOUR + 45 * MINUTE


def test_a_silent_program_is_stopped_when_its_grace_is_over():
    story = Story("saves=file grace=10m pause=1m", Saves(silent=True))
    (notice,) = story.only(ev.NoticeIntended)
    assert story.only(ev.StopIntended)[0].at_ms == notice.until_ms
    assert 10 * MINUTE <= story.waited_ms() <= 10 * MINUTE + 5_000
    assert story.view().lost_gpu_ms > 8 * 2 * HOUR


def test_a_lying_program_gains_no_time_and_loses_its_own_work():
    story = Story("saves=file every=30m grace=10m pause=1m", Saves(every_ms=30 * MINUTE, lies=True))
    assert story.driver.engine.state.gangs[GangId("a")].false_claims > 100
    assert story.waited_ms() <= 5_000  # it says at once that it has saved
    assert story.view().finished_ms > T0 + 7 * HOUR  # and begins anew


def test_a_program_told_by_the_deletion_of_its_pods_saves_and_ends():
    story = Story("saves=signal grace=10m pause=1m", Saves(pause_ms=MINUTE, ends=True))
    assert MINUTE <= story.waited_ms() <= MINUTE + 5_000
    assert story.view().phase is Phase.SUCCEEDED
    assert story.view().restarts == 0
    assert story.view().finished_ms < T0 + 5 * HOUR + 3 * MINUTE


@pytest.mark.parametrize("silent", [False, True])
def test_the_journal_of_a_stop_in_steps_replays(silent):
    first, again = (Story("saves=file grace=10m", Saves(silent=silent)) for _ in range(2))
    assert first.facts == again.facts


def test_what_is_measured_replaces_what_was_declared():
    story = Story("saves=never every=30m pause=1s", Saves(every_ms=30 * MINUTE, pause_ms=2 * MINUTE))
    found = story.view().checkpoint
    assert found.measured.save_ms == 2 * MINUTE
    assert 30 * MINUTE <= found.measured.interval_ms <= 33 * MINUTE
    assert found.recommended_ms > 2 * HOUR  # one node fails once in 250 days
