"""The engine and the fleet on virtual time: the loop of production without its waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairlead.model.events import Event
from fairlead.service.engine import Cycle, Engine
from fairlead.service.ports import Books
from fairlead.simulation.fleet import Fleet

Checker = Callable[["Driver"], Sequence[str]]
"""Looks at engine and fleet after a step and returns one sentence per broken promise."""

Listener = Callable[[int, Sequence[Event]], None]
"""Is given (now_ms, facts) in the order in which the journal gets them."""


class PromiseBroken(AssertionError):
    """A checker found something; the text names the promise, the moment and what was seen."""


class Driver:
    """Steps from one moment at which something happens to the next. `now_ms` is virtual UTC ms."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        *,
        start_ms: int,
        books: Books | None = None,
        checkers: Sequence[Checker] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Tell the engine about the fleet's nodes; nothing else happens before `run` or `step`."""
        self.engine, self.fleet, self.books = engine, fleet, books
        self.now_ms = start_ms
        self.steps = 0
        self.wake_ms: int | None = start_ms
        self.last_cycle: Cycle | None = None
        self._checkers, self._listeners = tuple(checkers), tuple(listeners)
        self.put(*fleet.initial(start_ms))

    def put(self, *facts: Event) -> None:
        """Let facts be seen now."""
        self.fleet.schedule(self.now_ms, *facts)

    def step(self) -> None:
        """Take what is due, decide until there is nothing left to decide, and begin the effects."""
        if not self.steps:
            self._record([self.engine.started(self.now_ms)])
        self.steps += 1
        facts = self.fleet.due(self.now_ms)
        if facts:
            self.engine.take(facts)
            self._record(facts)
        more = True
        while more:
            cycle = self.engine.cycle(self.now_ms)
            self.last_cycle = cycle
            if cycle.violations:
                raise PromiseBroken(f"at {self.now_ms}: verify refused a plan: {'; '.join(cycle.violations)}")
            if cycle.facts:
                self._record(cycle.facts)
            for effect in cycle.effects:
                self.fleet.perform(effect, self.now_ms)
            more, self.wake_ms = cycle.more, cycle.wake_at_ms
        for checker in self._checkers:
            broken = checker(self)
            if broken:
                raise PromiseBroken(f"at {self.now_ms}: {'; '.join(broken)}")

    def run(
        self, *, until_ms: int | None = None, max_steps: int = 1_000_000, stop: Callable[[], bool] | None = None
    ) -> None:
        """Step until nothing more will happen, `until_ms` is reached, or `stop()` is true.

        Raises
        ------
        PromiseBroken
            A checker spoke, or the world did not become quiet within `max_steps`.
        """
        for _ in range(max_steps):
            self.step()
            if stop is not None and stop():
                return
            after_ms = self._next_ms()
            if after_ms is None or (until_ms is not None and after_ms > until_ms):
                if until_ms is not None:
                    self.now_ms = max(self.now_ms, until_ms)
                return
            self.now_ms = max(self.now_ms, after_ms)
        raise PromiseBroken(f"at {self.now_ms}: not quiet after {max_steps} steps")

    def _next_ms(self) -> int | None:
        """Return the next moment of the fleet or of the engine; a wake that has passed means the next ms."""
        wake_ms = None if self.wake_ms is None else max(self.wake_ms, self.now_ms + 1)
        moments = [at_ms for at_ms in (wake_ms, self.fleet.next_ms()) if at_ms is not None]
        return min(moments) if moments else None

    def _record(self, facts: Sequence[Event]) -> None:
        if self.books is not None:
            self.books.record(facts, self.now_ms)
        for listener in self._listeners:
            listener(self.now_ms, facts)
