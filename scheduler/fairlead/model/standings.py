"""How everybody stood at a moment, for the books: what later tells whether the fleet was shared fairly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStood:
    """A queue without queues below it: what it was entitled to, held, and held and asked for together.

    In thousandths of a GPU.
    """

    queue: str
    entitled_milli: int
    demanded_milli: int
    held_milli: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWaited:
    """What waited of a service class: gangs, and thousandths of a GPU."""

    service_class: str
    gangs: int
    gpu_milli: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStood:
    """What usable nodes have of a resource, and what of it was taken: thousandths of GPUs or cores, bytes, or pods."""

    resource: str
    capacity: int
    taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Gangs of a queue that waited, for the reason with this token, although as much as they ask for was idle.

    `cause` is in a word what was in the way: ``scattered``, ``quota`` and so on. `gpu_milli` is what of the idle GPUs
    they would fill, in thousandths, those before them served first; so all together is no more than was idle.
    """

    queue: str
    cause: str
    reason: str
    gangs: int
    gpu_milli: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """How it all stood. It is no fact about the world and changes no state, but what was then is in nothing else.

    It holds until the next one. Queues and classes that neither held nor wanted anything are left out. `idle_milli` are
    the thousandths of GPUs on usable nodes that nobody held.
    """

    queues: tuple[QueueStood, ...]
    waiting: tuple[ClassWaited, ...]
    resources: tuple[ResourceStood, ...]
    at_ms: int
    unplaced: tuple[Unplaced, ...] = ()
    idle_milli: int = 0

    @property
    def congestion(self) -> frozenset[tuple[str, str]]:
        """Who waits for what reason although enough is idle: (queue, reason)."""
        return frozenset((one.queue, one.reason) for one in self.unplaced)
