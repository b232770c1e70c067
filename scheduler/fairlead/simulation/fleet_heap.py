"""The heap of what will happen, and the dice, of a cluster in memory."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from fairlead.model.events import Event
from fairlead.simulation.behaviour import Span

Action = Callable[[int], Sequence[Event]]
"""What happens at a moment, and what becomes known of it."""


class Heap:
    """Actions by time, then in the order in which they were put there; a random stream for each purpose."""

    def __init__(self, seed: int) -> None:
        """Nothing will happen."""
        self._heap: list[tuple[int, int, Action]] = []
        self._sequence = 0
        self._streams = {
            name: random.Random(f"{seed}/{name}")
            for name in ("bind", "start", "grace", "release", "watch", "node", "fault")
        }

    def schedule(self, at_ms: int, *facts: Event) -> None:
        """Let facts of the world outside (a job submitted, a queue changed) be seen at `at_ms`."""
        self._at(at_ms, lambda _: facts)

    def call(self, at_ms: int, action: Callable[[int], None]) -> None:
        """Call `action(now_ms)` at `at_ms`, for scripted stories."""

        def run(now_ms: int) -> Sequence[Event]:
            action(now_ms)
            return ()

        self._at(at_ms, run)

    def next_ms(self) -> int | None:
        """Return when something happens next, None if nothing ever will by itself."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> list[Event]:
        """Carry out everything up to `now_ms` in order and return the facts that became known."""
        facts: list[Event] = []
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, _, action = heapq.heappop(self._heap)
            facts += action(at_ms)
        return facts

    def _at(self, at_ms: int, action: Action) -> None:
        heapq.heappush(self._heap, (at_ms, self._sequence, action))
        self._sequence += 1

    def _draw(self, stream: str, span: Span) -> int:
        return self._streams[stream].randint(*span)

    def _happens(self, permille: int) -> bool:
        return permille > 0 and self._streams["fault"].randrange(1_000) < permille
