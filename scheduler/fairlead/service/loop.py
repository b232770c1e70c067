"""The one loop: drain facts, apply, journal, decide, perform, publish. Driven by events with a short debounce, no
fixed period.

Theory of operation. `put` may be called at any time from the loop's own thread. A turn begins when facts are there,
when a deadline has come or when the last slice left work over. Facts are applied first and journaled second: the
journal is ahead of every effect, because effects are started only after `Books.record` of the facts that led to them.
Effects run concurrently (`in_flight` at most); what they return comes back as facts. On `stop` no new turn begins;
effects in flight are finished (each has a deadline of its own) and their facts are still applied and journaled.
A placement that still waits for its slot then has written nothing and is given up instead, so that the end does not
take as long as the backlog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fairlead.model.effects import Nominate, Notice, Place, Shrink, Stop
from fairlead.model.events import BooksFull, Bound, Event, PlaceFailed
from fairlead.model.reasons import Reason, refuse
from fairlead.model.standings import Standings
from fairlead.service.engine import VIEWS_AT_ONCE, Cycle, Engine
from fairlead.service.ports import Books, Cluster, Hold, Performable

log = logging.getLogger("fairlead.loop")
ESTIMATE_EVERY_MS = 30_000
"""How often starts are estimated anew, at most: it looks at everything that runs."""
STANDINGS_EVERY_MS = 300_000
"""How often the journal is told how everybody stands, at most, and at least as long as anything happens."""
CONGESTION_EVERY_MS = 60_000
"""How soon it is told all the same that somebody begins or ceases to wait although enough is idle."""


@dataclass(slots=True)
class LoopStats:
    """Counters since start, for metrics. Durations in ms."""

    cycles: int = 0
    last_cycle_ms: int = 0
    violations: int = 0
    facts: int = 0
    placed: int = 0
    place_failed: int = 0
    perform_failed: int = 0
    in_flight: int = 0
    effects: dict[str, int] = field(default_factory=dict[str, int])


class Loop:
    """Runs one engine against one cluster and one set of books."""

    def __init__(
        self,
        engine: Engine,
        cluster: Cluster,
        books: Books,
        now_ms: Callable[[], int],
        *,
        debounce_ms: int = 20,
        in_flight: int = 64,
        on_cycle: Callable[[Cycle, int], None] | None = None,
    ) -> None:
        """`now_ms` is UTC ms; `on_cycle` hears of every slice and how many ms it took."""
        self.engine = engine
        self.stats = LoopStats()
        self._cluster = cluster
        self._books = books
        self._now_ms = now_ms
        self._debounce_s = debounce_ms / 1000
        self._slots = asyncio.Semaphore(in_flight)
        self._inbox: list[Event] = []
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_cycle = on_cycle
        self._ending = False
        self._estimate_at_ms = 0
        self._standings_at_ms = 0
        self._stood: Standings | None = None
        self._full = False

    def put(self, *facts: Event) -> None:
        """Hand in facts; they are applied in this order."""
        self._inbox.extend(facts)
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in flight.

        Raises whatever the books raise when they can keep nothing more.
        """
        stopping = asyncio.create_task(stop.wait())
        wake_at_ms: int | None = None
        more = True
        await self._record([self.engine.started(self._now_ms())])
        try:
            while not stop.is_set():
                if not more:
                    await self._pause(stopping, wake_at_ms)
                if stop.is_set():
                    break
                more, wake_at_ms = await self._turn()
                await asyncio.sleep(0)
        finally:
            stopping.cancel()
            self._ending = True
            await self._drain()

    async def _pause(self, stopping: asyncio.Task[bool], wake_at_ms: int | None) -> None:
        """Sleep until there is news, a deadline has come, or it is time to stop; then let a burst gather."""
        timeout = None if wake_at_ms is None else max(0.0, (wake_at_ms - self._now_ms()) / 1000)
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait({news, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if self._inbox and not stopping.done():
            await asyncio.sleep(self._debounce_s)

    async def _turn(self) -> tuple[bool, int | None]:
        facts = self._collect()
        self.engine.take(facts)
        began = self._now_ms()
        if began >= self._estimate_at_ms:
            self._estimate_at_ms = began + ESTIMATE_EVERY_MS
            self.engine.estimate(began)
        cycle = self.engine.cycle(began)
        took = self._now_ms() - began
        self._count(cycle, took)
        await self._record([*facts, *cycle.facts])
        nominations: dict[str, asyncio.Task[None]] = {}
        for effect in cycle.effects:
            # Nobody is stopped before it is on record for whom: a restart in between must keep the hole for the asker.
            named = effect.by if isinstance(effect, Stop | Notice | Shrink) else ""
            task = self._start(effect, nominations.get(named))
            if isinstance(effect, Nominate):
                nominations[effect.gang] = task
        views = self.engine.touched(began, VIEWS_AT_ONCE)
        if views:
            await self._cluster.publish(views)
        wake_at_ms = await self._tell_standings(began, cycle.wake_at_ms)
        return cycle.more or self.engine.untold, wake_at_ms

    async def _tell_standings(self, now_ms: int, wake_at_ms: int | None) -> int | None:
        """Journal how everybody stands where that is due and has changed; return when to wake, for that too."""
        if now_ms >= self._standings_at_ms:
            self._standings_at_ms = now_ms + CONGESTION_EVERY_MS
            before, stood = self._stood, self.engine.standings(now_ms)
            if before is not None and replace(before, at_ms=now_ms) == stood:
                return wake_at_ms
            due = before is None or now_ms >= before.at_ms + STANDINGS_EVERY_MS
            if due or (before is not None and before.congestion != stood.congestion):
                self._stood = stood
                await self._record([stood])
                return wake_at_ms
        return self._standings_at_ms if wake_at_ms is None else min(wake_at_ms, self._standings_at_ms)

    def _collect(self) -> list[Event]:
        facts, self._inbox = self._inbox, []
        self._news.clear()
        self.stats.facts += len(facts)
        return facts

    async def _record(self, facts: Sequence[Event | Standings]) -> None:
        """Write facts, and tell the engine where the books have too much to write, or no more; they may just wait."""
        now_ms = self._now_ms()
        booked, full = await asyncio.to_thread(self._write, facts, now_ms)
        if full != self._full:
            self._full = full
            self.put(BooksFull(is_full=full, at_ms=now_ms))
        if booked:
            await self._cluster.booked(booked)

    def _write(self, facts: Sequence[Event | Standings], now_ms: int) -> tuple[Sequence[Hold], bool]:
        booked = self._books.record(facts, now_ms) if facts else ()
        return booked, self._books.full(now_ms)

    def _count(self, cycle: Cycle, took_ms: int) -> None:
        self.stats.cycles += 1
        self.stats.last_cycle_ms = took_ms
        self.stats.violations += len(cycle.violations)
        for text in cycle.violations:
            log.error("event=violation detail=%r", text)
        for effect in cycle.effects:
            kind = type(effect).__name__
            self.stats.effects[kind] = self.stats.effects.get(kind, 0) + 1
        if self._on_cycle is not None:
            self._on_cycle(cycle, took_ms)

    def _start(self, effect: Performable, after: asyncio.Task[None] | None) -> asyncio.Task[None]:
        task = asyncio.create_task(self._perform(effect, after))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _perform(self, effect: Performable, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        async with self._slots:
            if self._ending and isinstance(effect, Place):
                self.put(self._given_up(effect))
                return
            self.stats.in_flight += 1
            try:
                facts = await self._cluster.perform(effect)
                self.put(*facts)
                self.stats.placed += sum(isinstance(fact, Bound) for fact in facts)
                self.stats.place_failed += sum(isinstance(fact, PlaceFailed) for fact in facts)
            finally:
                self.stats.in_flight -= 1

    def _given_up(self, effect: Place) -> PlaceFailed:
        """Build the fact that a placement was not begun: all its devices are free."""
        return PlaceFailed(
            gang=effect.gang,
            attempt=effect.attempt,
            cause=refuse(Reason.PLACE_CONFLICT, detail="the scheduler ended before it began"),
            released=tuple(member.rank for member in effect.placement.members),
            at_ms=self._now_ms(),
        )

    def _done(self, task: asyncio.Task[None]) -> None:
        """A port never raises for what the outside did, so an exception here is a bug: say it loudly."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("event=perform_failed", exc_info=task.exception())
            self.stats.perform_failed += 1

    async def _drain(self) -> None:
        """Finish effects in flight, book what they brought and say it; every effect has its own deadline."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        facts = self._collect()
        self.engine.take(facts)
        await self._record(facts)
        await self._cluster.publish(self.engine.touched(self._now_ms()))
