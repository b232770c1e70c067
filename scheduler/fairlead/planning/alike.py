"""What gangs were refused that differ only in how long they run: asked once, and said to all of them.

How long a gang runs decides which holes it may enter, and nothing else of whether it has a place now. Where no place
was found with nothing kept out of sight, there is none whatever it may enter. What was said holds until something is
taken or promised.
"""

from __future__ import annotations

from fairlead.model.reasons import Refusal
from fairlead.planning.promising import Promises
from fairlead.world.lines import Request, likeness_of
from fairlead.world.snapshot import Waiting, World


class Alike:
    """Refusals inside one cycle. Idle where more looks at how long gangs run: pools, reservations, deadlines."""

    def __init__(self, world: World, promises: Promises, *, idle: bool) -> None:
        """Know nothing."""
        self._settled = world.takings.settled
        self._promises = promises
        self._idle = idle or bool(promises.reserving)
        self._known: dict[Request, Refusal] = {}

    def told(self, waiting: Waiting) -> Refusal | None:
        """Return what a gang like this one was told, None where nobody was, or what was said may not hold for it."""
        return (
            self._known.get(likeness_of(waiting.gang, displaced=waiting.displaced)) if self._counts(waiting) else None
        )

    def tell(self, waiting: Waiting, refusal: Refusal) -> None:
        """Remember that a gang finds no place though nothing was kept out of its sight, and nobody makes room."""
        if self._counts(waiting):
            self._known[likeness_of(waiting.gang, displaced=waiting.displaced)] = refusal

    def forget(self) -> None:
        """Something was taken or promised."""
        self._known.clear()

    def _counts(self, waiting: Waiting) -> bool:
        gang = waiting.gang
        own = gang.id in self._settled or self._promises.has(gang.id) or gang.deadline_ms is not None
        return not self._idle and not own
