"""Who may have how much: queues, pools and what they say. A tenant is the root of a queue subtree."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import ServiceClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue's quota in whole GPUs. `limit_gpus` None is no limit; `weight` shares what nobody is guaranteed.

    `namespaces` are all that may submit (selectors already resolved); `priority_classes` and `service_classes`
    None means any.
    """

    name: str
    parent: str = ""
    guaranteed_gpus: int = 0
    limit_gpus: int | None = None
    weight: int = 1
    namespaces: tuple[str, ...] = ()
    priority_classes: tuple[str, ...] | None = None
    service_classes: tuple[ServiceClass, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Nodes that Fairlead alone allocates. `service_classes` None serves all; `taint` keeps other pods away.

    `sharing` are the modes that it allows beside whole devices: ``mig``, ``mps``, ``time-slice``. `mig_mode` ``static``
    gives only instances that exist, ``dynamic`` whatever the driver makes at allocation. `serving_on_time_slices` lets
    jobs of class serving use time slices, which have no stable latency.
    """

    name: str
    node_selector: tuple[tuple[str, str], ...]
    service_classes: tuple[ServiceClass, ...] | None = None
    taint: bool = True
    driver: str = "gpu.nvidia.com"
    device_class: str = "gpu.nvidia.com"
    sharing: tuple[str, ...] = ()
    mig_mode: str = "static"
    serving_on_time_slices: bool = False


def ancestors(queue: str, queues: dict[str, Queue]) -> tuple[str, ...]:
    """Return `queue` and all queues above it, nearest first; a cycle or a missing parent ends the walk."""
    seen: list[str] = []
    name = queue
    while name in queues and name not in seen:
        seen.append(name)
        name = queues[name].parent
    return tuple(seen)


def tenant_of(queue: str, queues: dict[str, Queue]) -> str:
    """Return the root of the subtree that `queue` is in: the tenant; the queue itself where it is unknown."""
    chain = ancestors(queue, queues)
    return chain[-1] if chain else queue
