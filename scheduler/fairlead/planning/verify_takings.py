"""The part of the second opinion that looks at takings: who is protected, what may leave a gang, and that it ends.

Written from the promises, like `verify`: rights are checked there, here what holds whatever the right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.model.effects import Notice, Phase, Shrink, Stop
from fairlead.model.gang import Gang, GangId, Role
from fairlead.model.tenancy import Queue, ancestors
from fairlead.world.snapshot import Running, World


@dataclass(slots=True)
class Tolls:
    """What a plan takes of whom, counted anew: all takings, and per queue how many and what they throw away."""

    number: int = 0
    of_queue: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    taken: set[GangId] = field(default_factory=set[GangId])


def check_toll(effect: Stop | Notice | Shrink, attempt: Running, world: World, tolls: Tolls) -> Iterator[str]:
    """Nobody is taken from too soon, too often, twice, or after it was given room itself; caps of queues hold."""
    name = attempt.spec.full_name if attempt.spec is not None else attempt.gang
    if effect.gang in tolls.taken:
        yield f"{name}: taken from twice in one plan"
    tolls.taken.add(effect.gang)
    tolls.number += 1
    if tolls.number > world.rules.stops_per_cycle:
        yield f"{name}: stop {tolls.number} of at most {world.rules.stops_per_cycle} in one cycle"
    if attempt.ripe_ms > world.now_ms:
        yield f"{name}: taken {attempt.ripe_ms - world.now_ms} ms before it may be"
    # The potential: gangs that may still be given room by right before something happens outside. Every taking takes
    # one away, and nothing may take it back.
    for gang, part in ((effect.gang, "taken although room was made for it"), (effect.by, "takes a second time")):
        if gang in world.takings.settled:
            yield f"{gang}: {part} since the last fact from outside, so the potential does not fall"
    yield from _check_caps(effect, attempt, world, tolls)


def _check_caps(effect: Stop | Notice | Shrink, attempt: Running, world: World, tolls: Tolls) -> Iterator[str]:
    """No queue, with all below it, loses more stops or work in an hour than it may."""
    queues: dict[str, Queue] = dict(world.queues)
    number, lost = tolls.of_queue.get(attempt.queue, (0, 0))
    tolls.of_queue[attempt.queue] = number + 1, lost + effect.lost_gpu_ms
    for above in ancestors(attempt.queue, queues):
        caps = queues[above].taking_caps
        if not caps.is_capped:
            continue
        sums = [0, 0]
        for taken in (world.takings.by_queue, tolls.of_queue):
            for queue, (count, gpu_ms) in taken.items():
                if above in (queue, *ancestors(queue, queues)):
                    sums[0] += count
                    sums[1] += gpu_ms
        if caps.count is not None and sums[0] > caps.count:
            yield f"{attempt.gang}: taking {sums[0]} of {above} in an hour, which allows {caps.count}"
        if caps.lost_gpu_ms is not None and sums[1] > caps.lost_gpu_ms:
            yield f"{attempt.gang}: {above} would lose {sums[1]} GPU-ms in an hour, which allows {caps.lost_gpu_ms}"


def check_shrink(effect: Shrink, attempt: Running, world: World) -> Iterator[str]:
    """Of an elastic gang that runs, the highest ranks of a role go, never below its fewest, and slices stay whole."""
    spec = attempt.spec
    if spec is None or not spec.resizable or attempt.phase not in (Phase.STARTING, Phase.RUNNING):
        yield f"{effect.gang}: shrunk although it is not elastic or does not run"
        return
    going, staying = set(effect.ranks), attempt.holding - attempt.leaving
    if not going or not going <= staying:
        yield f"{spec.full_name}: members {sorted(going - staying)} can't leave: they hold nothing, or are leaving"
        return
    members = attempt.placement.members
    for role in spec.roles:
        ranks = sorted(rank for rank in staying if members[rank].role == role.name)
        left = [rank for rank in ranks if rank not in going]
        if len(left) == len(ranks):
            continue
        if ranks[: len(left)] != left:
            yield f"{spec.full_name}: of role {role.name} others go than those of the highest ranks"
        if len(left) < max(1, role.fewest):
            yield f"{spec.full_name}: {len(left)} members of {role.name} would be left, its fewest are {role.fewest}"
        yield from _check_slices(spec, role, left, attempt, world)


def _check_slices(gang: Gang, role: Role, left: list[int], attempt: Running, world: World) -> Iterator[str]:
    wishes = (role.topology, gang.topology if len(gang.roles) == 1 else None)
    for part in (part for wish in wishes if wish is not None for part in wish.slices):
        level = world.inventory.levels.get(part.within)
        held: dict[int, int] = {}
        for rank in left:
            row = world.inventory.row.get(attempt.placement.members[rank].node)
            if level is not None and row is not None:
                domain = int(level.domain_of[row])
                held[domain] = held.get(domain, 0) + 1
        if any(number % part.size for number in held.values()):
            yield f"{gang.full_name}: slices of {part.size} in one {part.within} would be cut: {sorted(held.values())}"
