"""The loop between engine, cluster and books: order of writes, failures, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import builders
import pytest
from builders import T0, Stage

from fairlead.errors import Unreachable
from fairlead.model import events as ev
from fairlead.model.effects import Nominate, Phase, Place, Stop
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason, refuse
from fairlead.service.loop import Loop
from fairlead.service.ports import Performable


class FakeCluster:
    """Answers as it is told; writes down what happened in `log`, together with the books."""

    def __init__(self, log: list[tuple[str, object]]) -> None:
        self.log = log
        self.answer: Callable[[Performable], Awaitable[Sequence[ev.Event]]] = self.bound
        self.at_once = 0
        self.most_at_once = 0

    async def bound(self, effect: Performable) -> Sequence[ev.Event]:
        if isinstance(effect, Place):
            return [ev.Bound(gang=effect.gang, attempt=effect.attempt, at_ms=T0)]
        if isinstance(effect, Stop):
            return [ev.MemberReleased(gang=effect.gang, attempt=effect.attempt, rank=0, at_ms=T0)]
        return []

    async def perform(self, effect: Performable) -> Sequence[ev.Event]:
        self.log.append(("perform", effect))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.answer(effect)
        finally:
            self.at_once -= 1
            self.log.append(("performed", effect))

    async def publish(self, views) -> None:
        self.log += [("publish", view) for view in views]

    async def booked(self, holds) -> None:
        self.log += [("booked", hold) for hold in holds]


class FakeBooks:
    def __init__(self, log: list[tuple[str, object]]) -> None:
        self.log = log
        self.broken: Exception | None = None
        self.is_full = False

    def full(self, now_ms: int) -> bool:
        return self.is_full

    def record(self, facts: Sequence[ev.Event], now_ms: int):
        if self.broken is not None:
            raise self.broken
        self.log += [("record", fact) for fact in facts]
        return [(f.gang, f.attempt, f.rank) for f in facts if isinstance(f, ev.MemberReleased)]


class Rig:
    """A loop with everything around it. `play` runs it until the story is over, then stops it in order."""

    def __init__(self, *nodes: str, in_flight: int = 64, **queues: str) -> None:
        self.stage = Stage(
            [builders.node(f"n{i}", text) for i, text in enumerate(nodes or ("8",))],
            [builders.queue(name, text) for name, text in (queues or {"team": ""}).items()],
        )
        self.log: list[tuple[str, object]] = []
        self.cluster, self.books = FakeCluster(self.log), FakeBooks(self.log)
        self.now_ms = T0
        self.loop = Loop(
            self.stage.engine, self.cluster, self.books, lambda: self.now_ms, debounce_ms=0, in_flight=in_flight
        )

    def put(self, name: str, text: str = "1x8") -> None:
        self.loop.put(ev.GangSeen(gang=builders.gang(name, text, T0 + len(self.log)), at_ms=T0))

    def play(self, story: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        async def main() -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(self.loop.run(stop))
            telling = asyncio.create_task(story(stop))
            await asyncio.wait({running, telling}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                telling.cancel()
                running.result()
            telling.result()
            stop.set()
            await asyncio.wait_for(running, timeout=20)

        asyncio.run(main())

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(2_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"did not come to be; {self.log[-6:]}")

    def phase(self, name: str) -> Phase | None:
        record = self.stage.state.gangs.get(GangId(name))
        return None if record is None else record.phase

    def at(self, what: str, kind: type) -> list[int]:
        return [i for i, (word, thing) in enumerate(self.log) if word == what and isinstance(thing, kind)]


def test_a_gang_goes_from_fact_to_bound() -> None:
    rig = Rig()

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: rig.phase("a") is Phase.STARTING)

    rig.play(story)
    assert rig.loop.stats.placed == 1
    assert rig.loop.stats.place_failed == 0


def test_everything_is_in_the_journal_before_anybody_performs_it() -> None:
    rig = Rig()

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: rig.phase("a") is Phase.STARTING)

    rig.play(story)
    (seen,), (intended,), (performed,) = (
        rig.at("record", ev.GangSeen),
        rig.at("record", ev.Intended),
        rig.at("perform", Place),
    )
    assert seen < intended < performed
    assert rig.at("record", ev.Bound)


def test_a_placement_that_fails_comes_back_as_a_fact_and_is_tried_again() -> None:
    rig = Rig()
    tries: list[int] = []

    async def answer(effect: Performable) -> Sequence[ev.Event]:
        assert isinstance(effect, Place)
        tries.append(effect.attempt)
        if len(tries) > 1:
            return await rig.cluster.bound(effect)
        cause = refuse(Reason.PLACE_CONFLICT, detail="409")
        return [ev.PlaceFailed(gang=effect.gang, attempt=effect.attempt, cause=cause, released=(0,), at_ms=T0)]

    rig.cluster.answer = answer

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: tries == [1] and rig.phase("a") is Phase.PENDING)
        rig.now_ms += 999
        rig.loop.put()
        await asyncio.sleep(0.05)
        assert tries == [1], "tried again before its pause was over"
        rig.now_ms += 1
        rig.loop.put()
        await rig.until(lambda: rig.phase("a") is Phase.STARTING)

    rig.play(story)
    assert tries == [1, 2]
    assert (rig.loop.stats.placed, rig.loop.stats.place_failed) == (1, 1)


def test_time_alone_wakes_the_loop() -> None:
    rig = Rig()

    async def never(effect: Performable) -> Sequence[ev.Event]:
        return []

    rig.cluster.answer = never

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: rig.phase("a") is Phase.PLACING)
        rig.now_ms += 59_990  # the loop already sleeps: it counts from when it fell asleep
        rig.loop.put()
        await asyncio.sleep(0.02)
        rig.now_ms += 10
        await rig.until(lambda: rig.phase("a") is Phase.STOPPING)

    rig.play(story)


def test_nobody_is_stopped_before_it_is_on_record_for_whom() -> None:
    rig = Rig()
    gate = asyncio.Event()

    async def answer(effect: Performable) -> Sequence[ev.Event]:
        if isinstance(effect, Nominate):
            await gate.wait()
        return await rig.cluster.bound(effect)

    rig.cluster.answer = answer

    async def story(stop: asyncio.Event) -> None:
        rig.put("low")
        await rig.until(lambda: rig.phase("low") is Phase.STARTING)
        rig.put("high", "1x8 priority=1")
        await rig.until(lambda: bool(rig.at("perform", Nominate)))
        await asyncio.sleep(0.02)
        assert not rig.at("perform", Stop), "the victim was stopped before the nomination was written"
        gate.set()
        await rig.until(lambda: rig.phase("high") is Phase.STARTING)

    rig.play(story)
    assert rig.at("performed", Nominate)[0] < rig.at("perform", Stop)[0]


def test_stop_finishes_what_is_in_flight_and_books_it() -> None:
    rig = Rig()
    gate = asyncio.Event()

    async def slow(effect: Performable) -> Sequence[ev.Event]:
        await gate.wait()
        return await rig.cluster.bound(effect)

    rig.cluster.answer = slow

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: bool(rig.at("perform", Place)))
        rig.put("late", "1x1")
        stop.set()
        await asyncio.sleep(0.02)
        gate.set()

    rig.play(story)
    assert rig.phase("a") is Phase.STARTING
    assert rig.at("record", ev.Bound), "what an effect in flight brought is in the journal"
    assert len(rig.at("perform", Place)) == 1, "nothing new begins after stop"
    assert len(rig.at("record", ev.GangSeen)) == 2, "facts that came before the end are journaled"


def test_no_more_effects_are_in_flight_than_allowed() -> None:
    rig = Rig(*["8"] * 10, in_flight=3)

    async def slow(effect: Performable) -> Sequence[ev.Event]:
        await asyncio.sleep(0.005)
        return await rig.cluster.bound(effect)

    rig.cluster.answer = slow

    async def story(stop: asyncio.Event) -> None:
        for i in range(10):
            rig.put(f"g{i}")
        await rig.until(lambda: all(rig.phase(f"g{i}") is Phase.STARTING for i in range(10)))

    rig.play(story)
    assert rig.cluster.most_at_once == 3
    assert rig.loop.stats.in_flight == 0


def test_cycles_go_on_while_a_write_hangs() -> None:
    rig = Rig("8", "8")
    gate = asyncio.Event()

    async def answer(effect: Performable) -> Sequence[ev.Event]:
        if effect.gang == "slow":
            await gate.wait()
        return await rig.cluster.bound(effect)

    rig.cluster.answer = answer

    async def story(stop: asyncio.Event) -> None:
        rig.put("slow")
        await rig.until(lambda: rig.phase("slow") is Phase.PLACING)
        rig.put("quick")
        await rig.until(lambda: rig.phase("quick") is Phase.STARTING)
        assert rig.phase("slow") is Phase.PLACING
        gate.set()

    rig.play(story)


def test_a_bug_in_a_port_is_loud_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("8", "8")

    async def answer(effect: Performable) -> Sequence[ev.Event]:
        if effect.gang == "cursed":
            raise RuntimeError("planted")
        return await rig.cluster.bound(effect)

    rig.cluster.answer = answer

    async def story(stop: asyncio.Event) -> None:
        rig.put("cursed")
        await rig.until(lambda: rig.loop.stats.perform_failed == 1)
        rig.put("blessed")
        await rig.until(lambda: rig.phase("blessed") is Phase.STARTING)

    with caplog.at_level(logging.ERROR, logger="fairlead.loop"):
        rig.play(story)
    assert any("perform_failed" in record.message and record.exc_info for record in caplog.records)


def test_books_that_can_keep_nothing_end_the_loop() -> None:
    rig = Rig()
    rig.books.broken = Unreachable("the outbox is full")

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await asyncio.sleep(5)

    with pytest.raises(Unreachable, match="the outbox is full"):
        rig.play(story)
    assert not rig.at("perform", Place), "nothing is performed that is not in the journal"


def test_holds_that_are_booked_are_let_go() -> None:
    rig = Rig()

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: rig.phase("a") is Phase.STARTING)
        rig.loop.put(ev.GangGone(gang=GangId("a"), at_ms=T0))
        await rig.until(lambda: ("booked", ("a", 1, 0)) in rig.log)

    rig.play(story)
    assert rig.phase("a") is None


def test_violations_are_counted_and_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.planning.verify import Violation
    from fairlead.service import engine as engine_module

    rig = Rig()
    monkeypatch.setattr(
        engine_module, "violations", lambda plan, world: [Violation(0, "planted")] if plan.effects else []
    )

    async def story(stop: asyncio.Event) -> None:
        rig.put("a")
        await rig.until(lambda: rig.loop.stats.violations >= 1)

    with caplog.at_level(logging.ERROR, logger="fairlead.loop"):
        rig.play(story)
    assert any("planted" in record.message for record in caplog.records)
    assert not rig.at("perform", Place)


def test_books_that_have_too_much_to_write_are_told_to_the_engine_and_so_is_their_end() -> None:
    """Once each, and also where nothing else happens: a gang that comes after an hour of silence finds it known."""
    rig = Rig()

    async def story(stop: asyncio.Event) -> None:
        rig.books.is_full = True
        rig.put("a")
        await rig.until(lambda: rig.stage.state.tenants.books_full)
        rig.put("b")
        rig.books.is_full = False
        await rig.until(lambda: not rig.stage.state.tenants.books_full)

    rig.play(story)
    told = [fact.is_full for word, fact in rig.log if word == "record" and isinstance(fact, ev.BooksFull)]
    assert told == [True, False]
