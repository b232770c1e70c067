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
class Standings:
    """How it all stood. It is no fact about the world and changes no state, but what was then is in nothing else.

    It holds until the next one. Queues and classes that neither held nor wanted anything are left out.
    """

    queues: tuple[QueueStood, ...]
    waiting: tuple[ClassWaited, ...]
    resources: tuple[ResourceStood, ...]
    at_ms: int
