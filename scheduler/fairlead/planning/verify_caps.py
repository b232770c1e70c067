"""The second opinion on what binds beside places: limits with their exceptions, counts of jobs, users and groups.

Counted anew from the World's facts, without the tallies by which plans are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fairlead.model.gang import Gang
from fairlead.model.queue_caps import EVERYBODY
from fairlead.model.tenancy import Queue
from fairlead.units import gpus_of
from fairlead.world.snapshot import World


@dataclass(slots=True)
class CapTally:
    """Every gang that holds devices or was placed by the plan: queue, user, groups, thousandths of a GPU."""

    held: list[tuple[str, str, tuple[str, ...], int]] | None = None
    limits: dict[str, int | None] = field(default_factory=dict[str, int | None])


def most_gpus(name: str, world: World, tally: CapTally) -> int | None:
    """Return the limit of a queue in GPUs as it was written, and what exceptions that act now add; None: no limit."""
    if name not in tally.limits:
        limit = world.force.plain[name].limit_gpus
        if limit is not None:
            acting = [one for one in world.force.exceptions if one.queue == name]
            limit += sum(one.more_limit_gpus for one in acting if one.starts_ms <= world.now_ms < one.expires_ms)
        tally.limits[name] = limit
    return tally.limits[name]


def check_caps(
    gang: Gang, gpu_milli: int, world: World, above: Callable[[str], tuple[str, ...]], tally: CapTally
) -> Iterator[str]:
    """Yield the caps that one more gang breaks; it is counted from now on."""
    problem = world.force.problems.get(gang.queue)
    if problem is not None and problem.closed:
        yield f"{gang.full_name}: queue {gang.queue} takes nobody in: {problem.text}"
    chain = above(gang.queue)
    if not any(world.queues[name].caps.bounds_running for name in chain):
        return
    if tally.held is None:
        tally.held = [
            (a.queue, a.spec.user if a.spec else "", a.spec.groups if a.spec else (), a.gpu_milli)
            for a in world.running
        ]
    tally.held.append((gang.queue, gang.user, gang.groups, gpu_milli))
    for name in chain:
        inside = [one for one in tally.held if name in above(one[0])]
        for text in _broken(gang, world.queues[name], inside):
            yield f"{gang.full_name}: {text} in queue {name}"


def _broken(gang: Gang, queue: Queue, inside: Iterable[tuple[str, str, tuple[str, ...], int]]) -> Iterator[str]:
    inside = list(inside)
    caps = queue.caps
    if caps.max_jobs is not None and len(inside) > caps.max_jobs:
        yield f"{len(inside)} jobs of {caps.max_jobs}"
    own = [cap for cap in caps.users if cap.name == gang.user] or [c for c in caps.users if c.name == EVERYBODY]
    theirs = [(cap, [one for one in inside if one[1] == gang.user]) for cap in own[:1]]
    theirs += [(cap, [one for one in inside if cap.name in one[2]]) for cap in caps.groups if cap.name in gang.groups]
    for cap, held in theirs:
        milli = sum(one[3] for one in held)
        if cap.max_jobs is not None and len(held) > cap.max_jobs:
            yield f"{cap.name} has {len(held)} jobs of {cap.max_jobs}"
        if cap.max_gpus is not None and milli > 1000 * cap.max_gpus:
            yield f"{cap.name} has {gpus_of(milli)} GPUs of {cap.max_gpus}"
