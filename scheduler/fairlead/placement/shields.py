"""What may still be taken of queues in the window that is running: so many stops, and so much lost work (R74).

A cap of a queue holds for all queues below it together. Counted from the stops that state remembers, and from what the
cycle has taken since.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import GangId
from fairlead.model.tenancy import Queue, ancestors
from fairlead.world.snapshot import World

NO_CAP = 1 << 60


@dataclass(frozen=True, slots=True)
class Left:
    """What one queue may still lose: stops and shrinks, and GPU-ms of work."""

    takings: int
    lost_gpu_ms: int


class Shields:
    """The caps of all queues in one cycle; charged by whoever takes."""

    def __init__(self, world: World) -> None:
        """Count what was taken in the window before the cycle."""
        self._queues = dict(world.queues)
        self._caps: dict[str, tuple[int, int]] = {}
        self._taken: dict[str, list[int]] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        self._admitted: list[tuple[str, GangId, int, int]] = []
        for name, queue in world.queues.items():
            caps = queue.taking_caps
            if caps.is_capped:
                takings = NO_CAP if caps.count is None else caps.count
                self._caps[name] = takings, NO_CAP if caps.lost_gpu_ms is None else caps.lost_gpu_ms
        if self._caps:
            for name, (count, lost) in world.takings.by_queue.items():
                self.charge(name, count, lost)

    @property
    def any(self) -> bool:
        """Whether any queue has a cap."""
        return bool(self._caps)

    def charge(self, queue: str, takings: int, lost_gpu_ms: int) -> None:
        """Count what is taken of a queue; negative gives back."""
        if not self._caps:
            return
        for name in self._chain(queue):
            taken = self._taken.setdefault(name, [0, 0])
            taken[0] += takings
            taken[1] += lost_gpu_ms

    def left(self, queue: str) -> Left | None:
        """Return what a queue may still lose, None where nothing caps it."""
        if not self._caps:
            return None
        capped = [name for name in self._chain(queue) if name in self._caps]
        if not capped:
            return None
        takings = min(self._caps[name][0] - self._taken.get(name, [0, 0])[0] for name in capped)
        return Left(takings, min(self._caps[name][1] - self._taken.get(name, [0, 0])[1] for name in capped))

    def admit(self, queue: str, gang: GangId, lost_gpu_ms: int) -> bool:
        """Whether this may be taken beside what was admitted so far; counts it then, one gang as one taking."""
        left = self.left(queue)
        if left is None:
            return True
        takings = 0 if any(known == gang for _, known, _, _ in self._admitted) else 1
        if takings > left.takings or lost_gpu_ms > left.lost_gpu_ms:
            return False
        self._admitted.append((queue, gang, takings, lost_gpu_ms))
        self.charge(queue, takings, lost_gpu_ms)
        return True

    def forget_admitted(self) -> None:
        """Give back what was admitted: it was only asked."""
        for queue, _, takings, lost_gpu_ms in self._admitted:
            self.charge(queue, -takings, -lost_gpu_ms)
        self._admitted = []

    def _chain(self, queue: str) -> tuple[str, ...]:
        known = self._chains.get(queue)
        if known is None:
            known = self._chains[queue] = chain_of(queue, self._queues)
        return known


def chain_of(queue: str, queues: dict[str, Queue]) -> tuple[str, ...]:
    """Return a queue and all above it; of one that is not there any more, only itself."""
    return ancestors(queue, queues) or (queue,)
