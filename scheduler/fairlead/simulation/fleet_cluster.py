"""The fleet in memory as the Cluster port of the loop: virtual time runs `speed` times as fast as the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fairlead.clock import monotonic_ms
from fairlead.model.effects import Place
from fairlead.model.events import Bound, Event, PlaceFailed
from fairlead.service.ports import Hold, Performable
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.fleet_pods import Key
from fairlead.world.views import GangView

LONGEST_NAP_S = 0.5


class FleetCluster:
    """Performs effects on a `Fleet` and delivers what becomes known of it. All calls come from one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        start_ms: int,
        speed: int = 1,
        clock_ms: Callable[[], int] = monotonic_ms,
        on_views: Callable[[Sequence[GangView]], None] | None = None,
    ) -> None:
        """Begin at `start_ms` (UTC); `clock_ms` only has to run forward. `on_views` hears what would be published."""
        assert speed >= 1, speed
        self.fleet = fleet
        self._start_ms, self._speed, self._clock_ms = start_ms, speed, clock_ms
        self._zero_ms = clock_ms()
        self._on_views = on_views
        self._answers: dict[Key, asyncio.Future[Event]] = {}
        self._changed = asyncio.Event()
        self._wake_ms: int | None = None

    def now_ms(self) -> int:
        """Return virtual UTC ms."""
        return self._start_ms + (self._clock_ms() - self._zero_ms) * self._speed

    async def perform(self, effect: Performable) -> Sequence[Event]:
        """Begin an effect; a placement is waited for until it is bound or has failed."""
        if not isinstance(effect, Place):
            self.fleet.perform(effect, self.now_ms())
            self._changed.set()
            return ()
        key = (effect.gang, effect.attempt)
        answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        self.fleet.perform(effect, self.now_ms())
        self._changed.set()
        try:
            # A placement that was stopped meanwhile never answers; its releases say all there is to say.
            left_s = (effect.deadline_ms - self.now_ms()) / 1_000 / self._speed
            return (await asyncio.wait_for(answer, timeout=max(0.0, left_s) + 1.0),)
        except TimeoutError:
            return ()
        finally:
            self._answers.pop(key, None)

    async def publish(self, views: Sequence[GangView]) -> None:
        """Write nothing: the HTTP API reads the engine itself."""
        if self._on_views is not None:
            self._on_views(views)

    async def booked(self, holds: Sequence[Hold]) -> None:
        """Do nothing: the fleet has no finalizers."""

    async def pump(self, deliver: Callable[..., None], stop: asyncio.Event) -> None:
        """Deliver facts as they come due until `stop` is set."""
        while not stop.is_set():
            facts = [fact for fact in self.fleet.due(self.now_ms()) if not self._answered(fact)]
            if facts or self._wake_is_due():
                deliver(*facts)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), timeout=self._nap_s())
            except TimeoutError:
                continue

    def wake_at(self, at_ms: int | None) -> None:
        """Let the loop look again at virtual `at_ms`; its own alarm clock runs on real time."""
        self._wake_ms = at_ms
        self._changed.set()

    def _wake_is_due(self) -> bool:
        if self._wake_ms is None or self._wake_ms > self.now_ms():
            return False
        self._wake_ms = None
        return True

    def _answered(self, fact: Event) -> bool:
        """Hand the result of a placement to who waits for it; False where it has to be delivered instead."""
        if not isinstance(fact, Bound | PlaceFailed):
            return False
        answer = self._answers.get((fact.gang, fact.attempt))
        if answer is None or answer.done():
            return False
        answer.set_result(fact)
        return True

    def _nap_s(self) -> float:
        moments = [at_ms for at_ms in (self.fleet.next_ms(), self._wake_ms) if at_ms is not None]
        if not moments:
            return LONGEST_NAP_S
        return min(LONGEST_NAP_S, max(0.001, (min(moments) - self.now_ms()) / 1_000 / self._speed))
