"""A second opinion: check a plan against its world without trusting whoever made it.

Written from the promises of the design, one rule each, and without a look at `decide` or the placement code. The loop
drops every effect that is named here and counts it as a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.effects import Effect, EndNomination, Nominate, Phase, Place, Stop
from fairlead.model.gang import Gang, GangId, Placement, Role
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason
from fairlead.ordering.fair_share import entitlements
from fairlead.planning.plan import Plan
from fairlead.planning.verify_caps import CapTally, check_caps, most_gpus
from fairlead.planning.verify_places import Places, check_member, check_wishes
from fairlead.planning.verify_time import TimeTally, check_time
from fairlead.units import gpus_of
from fairlead.world.snapshot import Running, World

TAKING = frozenset({Reason.RECLAIMED, Reason.PREEMPTED})


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which effect (its place in the plan) and what is wrong with it."""

    effect: int
    text: str


@dataclass(slots=True)
class _Tally:
    """What the plan has taken so far, counted anew."""

    places: Places = field(default_factory=Places)
    caps: CapTally = field(default_factory=CapTally)
    charged: dict[str, int] = field(default_factory=dict[str, int])
    above: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    remaining: dict[str, int] = field(default_factory=dict[str, int])
    hoped: dict[GangId, tuple[str, int]] = field(default_factory=dict[GangId, tuple[str, int]])
    yielding: dict[GangId, frozenset[tuple[GangId, int]]] = field(
        default_factory=dict[GangId, frozenset[tuple[GangId, int]]]
    )
    entitled: dict[str, int] | None = None
    placed: set[GangId] = field(default_factory=set[GangId])
    stopped: set[GangId] = field(default_factory=set[GangId])


def violations(plan: Plan, world: World) -> list[Violation]:
    """Return every promise that the plan would break; empty means that it may be performed."""
    if plan.version != world.version:
        return [Violation(i, "the plan is based on another world") for i in range(len(plan.effects))]
    tally = _Tally(remaining=dict(world.queue_gpu_milli))
    for name in world.queues:
        tally.above[name] = _above(name, world)
    for name, gpu_milli in world.queue_gpu_milli.items():
        _charge(name, gpu_milli, tally)
    for waiting in world.waiting.nominated:
        if waiting.nomination is not None:
            tally.hoped[waiting.gang.id] = waiting.gang.queue, waiting.nomination.placement.gpu_milli
    for attempt in world.running.stopping:
        _subtract(tally.remaining, attempt)
    for effect in plan.effects:
        if isinstance(effect, Stop) and not effect.by:
            ended = world.running.get(effect.gang, effect.attempt)
            if ended is not None and ended.phase is not Phase.STOPPING:
                _subtract(tally.remaining, ended)
    found: list[Violation] = []
    times = TimeTally(world)
    for position, effect in enumerate(plan.effects):
        found += [Violation(position, text) for text in _check(effect, world, tally)]
        found += [Violation(position, text) for text in check_time(effect, times)]
    return found


def _check(effect: Effect, world: World, tally: _Tally) -> Iterator[str]:
    match effect:
        case Place():
            yield from _check_place(effect, world, tally)
        case Stop():
            yield from _check_stop(effect, world, tally)
        case Nominate():
            item = world.waiting.get(effect.gang)
            if item is None:
                yield f"{effect.gang}: room is made for a gang that does not wait"
            else:
                yield from _check_shape(item.gang, effect.placement)
                yield from check_wishes(item.gang, effect.placement, world)
                yield from _check_victims(effect, world)
                tally.hoped[effect.gang] = item.gang.queue, effect.placement.gpu_milli
                tally.yielding[effect.gang] = frozenset(effect.victims)
        case EndNomination():
            tally.hoped.pop(effect.gang, None)
        case _:
            return


def _check_place(effect: Place, world: World, tally: _Tally) -> Iterator[str]:
    item = world.waiting.get(effect.gang)
    if item is None:
        yield f"{effect.gang}: placed without waiting"
        return
    gang = item.gang
    if effect.gang in tally.placed:
        yield f"{gang.full_name}: placed twice in one plan"
    tally.placed.add(effect.gang)
    tally.hoped.pop(effect.gang, None)
    gpu_milli = effect.placement.gpu_milli
    tally.remaining[gang.queue] = tally.remaining.get(gang.queue, 0) + gpu_milli
    if effect.attempt != item.attempts + 1:
        yield f"{gang.full_name}: attempt {effect.attempt} after {item.attempts}"
    yield from _check_shape(gang, effect.placement)
    yield from _check_rights(gang, gpu_milli, world, tally)
    yield from check_wishes(gang, effect.placement, world)
    roles = {role.name: role for role in gang.roles}
    for member in effect.placement.members:
        role = roles.get(member.role)
        if role is None or member.node not in world.inventory.row:
            yield f"{gang.full_name}: member {member.rank} on {member.node}: no such node or role"
        else:
            yield from check_member(gang, role, member, world, tally.places)


def _check_shape(gang: Gang, placement: Placement) -> Iterator[str]:
    """All or nothing: every replica of every role once, or as few as it allows, each with its devices, none twice."""
    roles = {role.name: role for role in gang.roles}
    found: dict[str, set[int]] = {role.name: set() for role in gang.roles}
    for rank, member in enumerate(placement.members):
        if member.rank != rank:
            yield f"{gang.full_name}: ranks are not 0, 1, 2 …"
        role = roles.get(member.role)
        charged = role is not None and (member.gpu_milli == role.gpu_milli or (role.mig and member.share_milli > 0))
        if role is None or len(member.devices) != _devices_of(role) or not charged:
            yield f"{gang.full_name}: {member.role}-{member.index} gets {len(member.devices)} devices"
        found.setdefault(member.role, set()).add(member.index)
    enough = all(
        role.fewest <= len(found[role.name]) <= role.replicas and found[role.name] == set(range(len(found[role.name])))
        for role in gang.roles
    )
    if not enough or sum(len(indices) for indices in found.values()) != len(placement.members):
        yield f"{gang.full_name}: {len(placement.members)} of {gang.members} members placed"
    whole = {role.name for role in gang.roles if role.gpus}
    everything = [(m.node, device) for m in placement.members if m.role in whole for device in m.devices]
    if len(everything) != len(set(everything)):
        yield f"{gang.full_name}: a device is given to two members"


def _devices_of(role: Role) -> int:
    """Return how many devices a pod of the role lies on."""
    return role.gpus if role.share is None and not role.mig else 1


def _check_rights(gang: Gang, gpu_milli: int, world: World, tally: _Tally) -> Iterator[str]:
    """The queue lists the namespace, and no limit is broken from the queue up."""
    queue = world.queues.get(gang.queue)
    if queue is None or gang.namespace not in queue.namespaces:
        yield f"{gang.full_name}: may not use queue {gang.queue}"
        return
    _charge(queue.name, gpu_milli, tally)
    for above in tally.above[queue.name]:
        limit, used = most_gpus(above, world, tally.caps), tally.charged[above]
        if limit is not None and used > 1000 * limit:
            yield f"{gang.full_name}: queue {above} would hold {gpus_of(used)} GPUs, its limit is {limit}"
    yield from check_caps(gang, gpu_milli, world, tally.above, tally.caps)


def _charge(queue: str, gpu_milli: int, tally: _Tally) -> None:
    """Count usage for a queue and all above it; a queue that is not there any more is above nobody."""
    for name in tally.above.get(queue, ()):
        tally.charged[name] = tally.charged.get(name, 0) + gpu_milli


def _above(name: str, world: World) -> tuple[str, ...]:
    """Return a queue and all above it."""
    seen: dict[str, None] = {}
    while name in world.queues and name not in seen:
        seen[name] = None
        name = world.queues[name].parent
    return tuple(seen)


def _check_victims(effect: Nominate, world: World) -> Iterator[str]:
    """Victims run, and what they hold together with what is free covers every device of the room."""
    given: set[tuple[NodeName, str]] = set()
    for victim in effect.victims:
        attempt = world.running.get(*victim)
        if attempt is None:
            yield f"{effect.gang}: {victim[0]} does not run and cannot yield"
            continue
        members = [attempt.placement.members[rank] for rank in attempt.holding]
        given |= {(member.node, device) for member in members for device in member.devices}
    for member in effect.placement.members:
        row = world.inventory.row.get(member.node)
        if row is None:
            yield f"{effect.gang}: room on {member.node}, which is not there"
            continue
        machine = world.inventory.nodes[row].machine
        healthy = {gpu.device for gpu in machine.gpus if gpu.healthy}
        free = set(world.inventory.devices(row, int(world.free.free_mask[row])))
        in_parts = {gpu.device for bit, gpu in enumerate(machine.gpus) if _in_parts(world, row, bit)}
        for device in member.devices:
            open_to_part = member.share_milli and device in in_parts
            held = device not in free and (member.node, device) not in given and not open_to_part
            if device not in healthy or held:
                yield f"{effect.gang}: no victim frees {member.node}/{device}"


def _in_parts(world: World, row: int, bit: int) -> bool:
    """Whether somebody has a part of a device, or it is never given otherwise: there may be room for one more."""
    free = world.free
    return bool(free.group[row, bit]) or not world.inventory.nodes[row].machine.gpus[bit].whole


def _subtract(remaining: dict[str, int], attempt: Running) -> None:
    remaining[attempt.queue] = remaining.get(attempt.queue, 0) - attempt.gpu_milli


def _check_stop(effect: Stop, world: World, tally: _Tally) -> Iterator[str]:
    attempt = world.running.get(effect.gang, effect.attempt)
    if attempt is None:
        yield f"{effect.gang}: stopped without running"
        return
    if effect.gang in tally.stopped:
        yield f"{effect.gang}: stopped twice in one plan"
    tally.stopped.add(effect.gang)
    if effect.cause.reason not in TAKING and not effect.by:
        return
    taker = world.waiting.get(GangId(effect.by))
    spec = attempt.spec
    named = tally.yielding.get(GangId(effect.by), frozenset())
    if taker is None or spec is None or attempt.phase is Phase.STOPPING or (effect.gang, effect.attempt) not in named:
        yield f"{effect.gang}: taken for nobody"
        return
    if not spec.preemptible:
        yield f"{spec.full_name}: taken although it may not be"
    if taker.gang.queue == attempt.queue:
        _subtract(tally.remaining, attempt)
        if effect.cause.reason is not Reason.PREEMPTED:
            yield f"{spec.full_name}: {effect.cause.reason.token} inside one queue"
        if spec.priority >= taker.gang.priority:
            yield f"{spec.full_name}: taken by a job of no higher priority"
        return
    yield from _check_reclaim(effect, attempt, spec, taker.gang, world, tally)


def _check_reclaim(
    effect: Stop, attempt: Running, spec: Gang, taker: Gang, world: World, tally: _Tally
) -> Iterator[str]:
    """Between queues: only what is borrowed, only for a queue within its entitlement, never below a guarantee."""
    if effect.cause.reason is not Reason.RECLAIMED:
        yield f"{spec.full_name}: {effect.cause.reason.token} across queues"
    entitled = tally.entitled = _entitled(world) if tally.entitled is None else tally.entitled
    coming = sum(gpu_milli for queue, gpu_milli in tally.hoped.values() if queue == taker.queue)
    if tally.remaining.get(taker.queue, 0) + coming > entitled.get(taker.queue, 0):
        yield f"{taker.full_name}: reclaims although {taker.queue} would be above its entitlement"
    if tally.remaining.get(attempt.queue, 0) <= entitled.get(attempt.queue, 0):
        yield f"{spec.full_name}: taken although {attempt.queue} has borrowed nothing"
    _subtract(tally.remaining, attempt)
    for name in sorted(set(tally.above.get(attempt.queue, ())) - set(tally.above.get(taker.queue, ()))):
        left = sum(milli for below, milli in tally.remaining.items() if name in tally.above.get(below, ()))
        if left < 1000 * world.queues[name].guaranteed_gpus:
            yield f"{spec.full_name}: taken across queues below the guarantee of {name}"


def _entitled(world: World) -> dict[str, int]:
    """Count capacity and demand anew: what may be used or is held, and what is held or waited for by who may."""
    usable = world.inventory.usable
    free = 1000 * int(np.bitwise_count(world.free.free_mask[usable]).sum()) + int(world.part_free_milli[usable].sum())
    demand = dict(world.queue_gpu_milli)
    for (name, namespace, _, _), ask in world.waiting.asked.items():
        queue = world.queues.get(name)
        if queue is not None and namespace in queue.namespaces:
            demand[name] = demand.get(name, 0) + ask.gpu_milli
    return entitlements(free + sum(world.queue_gpu_milli.values()), world.queues, demand)
