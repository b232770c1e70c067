"""The second opinion on what binds beside places: limits with their exceptions, counts of jobs, users and groups.

Counted anew from the World's facts, without the tallies by which plans are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fairlead.model.events import QueueSpent
from fairlead.model.gang import Gang
from fairlead.model.queue_caps import EVERYBODY, QueueCaps
from fairlead.model.tenancy import Queue, ancestors
from fairlead.planning.verify_budgets import check_covered
from fairlead.units import gpus_of
from fairlead.world.snapshot import World


@dataclass(slots=True)
class CapTally:
    """Every gang that holds devices or was placed by the plan: queue, user, groups, thousandths of a GPU."""

    held: list[tuple[str, str, tuple[str, ...], int]] | None = None
    limits: dict[tuple[str, str], int | None] = field(default_factory=dict[tuple[str, str], int | None])
    covered: dict[str, int] = field(default_factory=dict[str, int])


def limit_of(name: str, resource: str, world: World, tally: CapTally) -> int | None:
    """Return the limit of a queue as it was written, and what exceptions that act now add; None: no limit."""
    if (name, resource) not in tally.limits:
        quota = world.force.plain[name].quota(resource)
        limit = None if quota is None else quota.limit
        if limit is not None:
            acting = [one for one in world.force.exceptions if one.queue == name]
            limit += sum(one.more_limit(resource) for one in acting if one.starts_ms <= world.now_ms < one.expires_ms)
        tally.limits[name, resource] = limit
    return tally.limits[name, resource]


def starting_nothing(world: World) -> frozenset[str]:
    """Return queues in which nothing can start: held, at their most of jobs or out of budget, or below such a one."""
    if not world.force.capped:
        return frozenset()
    jobs: dict[str, int] = {}
    milli: dict[str, int] = {}
    for attempt in world.running:
        for name in ancestors(attempt.queue, dict(world.queues)):
            jobs[name] = jobs.get(name, 0) + 1
            milli[name] = milli.get(name, 0) + attempt.gpu_milli
    full = {name for name in world.queues if _is_full(name, jobs.get(name, 0), milli.get(name, 0), world)}
    return frozenset(name for name in world.queues if full & set(ancestors(name, dict(world.queues))))


def _is_full(name: str, jobs: int, milli: int, world: World) -> bool:
    caps, spent = world.queues[name].caps, world.spent.get(name)
    if caps.max_jobs is not None and jobs >= caps.max_jobs:
        return True
    if _is_unknown(caps, world) or _is_held(name, world):
        return True
    if spent is None or world.now_ms >= spent.period_end_ms:
        return False
    most = _most_gpu_ms(caps, spent)
    return most is not None and spent.gpu_ms + milli * max(0, world.now_ms - spent.at_ms) // 1000 >= most


def check_admission(gang: Gang, gpu_milli: int, world: World, above: Callable[[str], tuple[str, ...]]) -> Iterator[str]:
    """Yield what forbids that a gang starts now: its checkpoint, its deadline, a peak period, a budget used up."""
    if gang.checkpoint is not None and gang.checkpoint.unreadable:
        yield f"{gang.full_name}: started although it can't read its checkpoint"
    if gang.deadline_ms is not None and world.now_ms + (gang.duration_ms or 0) > gang.deadline_ms:
        yield f"{gang.full_name}: started although it can't be done by its deadline"
    for name in above(gang.queue):
        caps, spent = world.queues[name].caps, world.spent.get(name)
        for peak in caps.peaks:
            inside = any(any(window.spans(world.now_ms, world.now_ms + 1)) for window in peak.windows)
            if inside and gang.service_class in peak.service_classes and gang.gpu_milli >= 1000 * peak.gpus_at_least:
                yield f"{gang.full_name}: started in a peak period of queue {name}"
        if gpu_milli and _is_unknown(caps, world):
            yield f"{gang.full_name}: started although nobody knows what is left of the budget of queue {name}"
        if gpu_milli and _is_held(name, world):
            yield f"{gang.full_name}: started although the costs of queue {name} alarm"
        if gpu_milli and _is_used_up(caps, spent, world.now_ms):
            yield f"{gang.full_name}: started although the budget of queue {name} is used up"


def _is_unknown(caps: QueueCaps, world: World) -> bool:
    """Whether too much waits for the books to know what is left of a hard budget."""
    return world.books_full and caps.budget is not None and caps.budget.hard


def _is_held(name: str, world: World) -> bool:
    """Whether costs hold back what is new: told, asked for, not over, and nobody has looked at that day yet."""
    caps = world.queues[name].caps
    seen = "" if caps.acknowledged is None else caps.acknowledged.through
    told = [
        one for one in world.alarms.values() if one.queue == name and one.day > seen and one.until_ms > world.now_ms
    ]
    return bool(told) and caps.on_cost_anomaly == "hold"


def _is_used_up(caps: QueueCaps, spent: QueueSpent | None, now_ms: int) -> bool:
    """Whether a budget was told to be used up; nothing is known of a period after the one that was told of."""
    if spent is None or now_ms >= spent.period_end_ms:
        return False
    most = _most_gpu_ms(caps, spent)
    return most is not None and spent.gpu_ms >= most


def _most_gpu_ms(caps: QueueCaps, spent: QueueSpent) -> int | None:
    if caps.budget is None or not caps.budget.hard:
        return None
    return caps.budget.gpu_ms or spent.worth_gpu_ms


def check_caps(
    gang: Gang,
    gpu_milli: int,
    world: World,
    above: Callable[[str], tuple[str, ...]],
    tally: CapTally,
    *,
    grows: bool = False,
) -> Iterator[str]:
    """Yield the caps that one more gang breaks; it is counted from now on. One that `grows` is no job more."""
    problem = world.force.problems.get(gang.queue)
    if problem is not None and problem.closed:
        yield f"{gang.full_name}: queue {gang.queue} takes nobody in: {problem.text}"
    yield from check_admission(gang, gpu_milli, world, above)
    yield from check_covered(gang, gpu_milli, world, above, tally.covered)
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
        for text in _broken(gang, world.queues[name], inside, jobs=not grows):
            yield f"{gang.full_name}: {text} in queue {name}"


def _broken(
    gang: Gang, queue: Queue, inside: Iterable[tuple[str, str, tuple[str, ...], int]], *, jobs: bool
) -> Iterator[str]:
    inside = list(inside)
    caps = queue.caps
    if jobs and caps.max_jobs is not None and len(inside) > caps.max_jobs:
        yield f"{len(inside)} jobs of {caps.max_jobs}"
    own = [cap for cap in caps.users if cap.name == gang.user] or [c for c in caps.users if c.name == EVERYBODY]
    theirs = [(cap, [one for one in inside if one[1] == gang.user]) for cap in own[:1]]
    theirs += [(cap, [one for one in inside if cap.name in one[2]]) for cap in caps.groups if cap.name in gang.groups]
    for cap, held in theirs:
        milli = sum(one[3] for one in held)
        if jobs and cap.max_jobs is not None and len(held) > cap.max_jobs:
            yield f"{cap.name} has {len(held)} jobs of {cap.max_jobs}"
        if cap.max_gpus is not None and milli > 1000 * cap.max_gpus:
            yield f"{cap.name} has {gpus_of(milli)} GPUs of {cap.max_gpus}"
