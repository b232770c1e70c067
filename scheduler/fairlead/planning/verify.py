"""A second opinion: check a plan against its world without trusting whoever made it.

Written from the promises of the design, one rule each, and without a look at `decide` or the placement code. The loop
drops every effect that is named here and counts it as a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.model.effects import (
    Effect,
    EndNomination,
    Grow,
    Nominate,
    Notice,
    Phase,
    Place,
    Retier,
    Shrink,
    Stop,
    Withdraw,
)
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason
from fairlead.planning.plan import Plan
from fairlead.planning.verify_budgets import check_not_renewed, check_retier
from fairlead.planning.verify_caps import check_caps
from fairlead.planning.verify_growth import check_grow, check_turned_back
from fairlead.planning.verify_idle import check_idle_stop
from fairlead.planning.verify_notices import check_patience, check_withdrawn
from fairlead.planning.verify_places import Places, check_member, check_wishes, takes
from fairlead.planning.verify_pools import PoolTally, check_pools, check_return
from fairlead.planning.verify_quotas import Quotas
from fairlead.planning.verify_reserved import check_reserved
from fairlead.planning.verify_switches import check_switches
from fairlead.planning.verify_takings import Tolls, check_shrink, check_toll
from fairlead.planning.verify_time import TimeTally, check_time
from fairlead.world.attempt_parts import part_of
from fairlead.world.snapshot import World

TAKING = frozenset({Reason.RECLAIMED, Reason.PREEMPTED})
Yielding = tuple[GangId, int, tuple[int, ...]]
"""(gang, attempt, ranks) of who makes room; no ranks are all of them."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which effect (its place in the plan) and what is wrong with it."""

    effect: int
    text: str


@dataclass(slots=True)
class _Tally:
    """What the plan has taken so far, counted anew."""

    quotas: Quotas
    places: Places = field(default_factory=Places)
    yielding: dict[GangId, frozenset[Yielding]] = field(default_factory=dict[GangId, frozenset[Yielding]])
    tolls: Tolls = field(default_factory=Tolls)
    placed: set[GangId] = field(default_factory=set[GangId])
    pools: PoolTally = field(default_factory=PoolTally)
    stopped: set[GangId] = field(default_factory=set[GangId])


def violations(plan: Plan, world: World) -> list[Violation]:
    """Return every promise that the plan would break; empty means that it may be performed."""
    if plan.version != world.version:
        return [Violation(i, "the plan is based on another world") for i in range(len(plan.effects))]
    stops = [effect for effect in plan.effects if isinstance(effect, Stop | Notice) and not effect.by]
    stops = [stop for stop in stops if stop.cause.reason is not Reason.OVER_LIMIT]  # those are checked one by one
    ended = [world.running.get(stop.gang, stop.attempt) for stop in stops]
    live = [attempt for attempt in ended if attempt is not None and attempt.phase is not Phase.STOPPING]
    tally = _Tally(Quotas.of(world, live))
    times = TimeTally(world)
    found = [Violation(position, text) for position, text in check_switches(plan.effects, world.rules)]
    for position, effect in enumerate(plan.effects):
        found += [Violation(position, text) for text in _check(effect, world, tally)]
        found += [Violation(position, text) for text in (*check_time(effect, times), *check_reserved(effect, world))]
    return found


def _check(effect: Effect, world: World, tally: _Tally) -> Iterator[str]:
    match effect:
        case Place():
            yield from _check_place(effect, world, tally)
        case Stop() | Notice() | Shrink():
            yield from _check_stop(effect, world, tally)
        case Withdraw():
            yield from check_withdrawn(effect, world)
        case Grow():
            yield from check_grow(effect, world, tally.quotas, tally.places, tally.pools, tally.placed)
        case Nominate():
            item = world.waiting.get(effect.gang)
            if item is None:
                yield f"{effect.gang}: room is made for a gang that does not wait"
            else:
                yield from _check_shape(item.gang, effect.placement)
                yield from check_wishes(item.gang, effect.placement, world)
                yield from _check_victims(effect, world)
                tally.quotas.hope(item.gang, effect.placement)
                whole = ((gang, attempt, ()) for gang, attempt in effect.victims)
                tally.yielding[effect.gang] = frozenset((*whole, *effect.shrunk))
        case Retier():
            attempt = world.running.get(effect.gang, effect.attempt)
            yield from check_retier(effect, attempt, world, tally.quotas.above)
        case EndNomination():
            tally.quotas.hoped.pop(effect.gang, None)
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
    if effect.attempt != item.attempts + 1:
        yield f"{gang.full_name}: attempt {effect.attempt} after {item.attempts}"
    yield from _check_shape(gang, effect.placement)
    yield from _check_rights(gang, effect.placement, world, tally)
    yield from check_wishes(gang, effect.placement, world)
    if any(pool.keeps_free for pool in world.pools.values()):
        yield from check_pools(effect, gang, item.displaced, world, tally.pools)
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
        if role is None or len(member.devices) != takes(role) or not charged:
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


def _check_rights(gang: Gang, placement: Placement, world: World, tally: _Tally) -> Iterator[str]:
    """The queue lists the namespace, and no limit of any resource is broken from the queue up."""
    queue = world.queues.get(gang.queue)
    if queue is None or gang.namespace not in queue.namespaces:
        yield f"{gang.full_name}: may not use queue {gang.queue}"
        return
    yield from tally.quotas.place(gang, placement)
    yield from check_caps(gang, placement.gpu_milli, world, tally.quotas.above, tally.quotas.caps)


def _check_victims(effect: Nominate, world: World) -> Iterator[str]:
    """Victims run, and what they hold together with what is free covers every device of the room."""
    given: set[tuple[NodeName, str]] = set()
    for gang, number, ranks in (*((gang, number, ()) for gang, number in effect.victims), *effect.shrunk):
        attempt = world.running.get(gang, number)
        if attempt is None:
            yield f"{effect.gang}: {gang} does not run and cannot yield"
            continue
        members = [attempt.placement.members[rank] for rank in ranks or attempt.holding if rank in attempt.holding]
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


def _check_stop(effect: Stop | Notice | Shrink, world: World, tally: _Tally) -> Iterator[str]:
    attempt = world.running.get(effect.gang, effect.attempt)
    if attempt is None:
        yield f"{effect.gang}: stopped without running"
        return
    if effect.gang in tally.stopped:
        yield f"{effect.gang}: stopped twice in one plan"
    tally.stopped.add(effect.gang)
    if not isinstance(effect, Shrink):
        yield from check_patience(effect, attempt, world)
        if attempt.notice is not None:  # who may have its devices was settled when it was asked to save
            return
        yield from check_not_renewed(effect, attempt, world, tally.quotas.above)
        yield from check_idle_stop(effect, attempt, world, tally.quotas.above)
        if effect.cause.reason is Reason.LENT_RETURNED:
            yield from check_return(effect, attempt, world, tally.pools)
        if effect.cause.reason is Reason.OVER_LIMIT and not effect.by:
            yield from tally.quotas.check_over_limit(attempt)
            return
        if effect.cause.reason not in TAKING and not effect.by:
            return
    elif not effect.by:
        yield from check_turned_back(effect, attempt)
        return
    taker = world.waiting.get(GangId(effect.by))
    spec = attempt.spec
    named = tally.yielding.get(GangId(effect.by), frozenset())
    ranks = effect.ranks if isinstance(effect, Shrink) else ()
    is_named = (effect.gang, effect.attempt, ranks) in named
    if taker is None or spec is None or attempt.phase is Phase.STOPPING or not is_named:
        yield f"{effect.gang}: taken for nobody"
        return
    if isinstance(effect, Shrink):
        yield from check_shrink(effect, attempt, world)
    yield from check_toll(effect, attempt, world, tally.tolls)
    if not spec.preemptible:
        yield f"{spec.full_name}: taken although it may not be"
    if effect.cause.reason is Reason.RESERVATION_BEGINS:  # whose its nodes are now: see `check_reserved`
        return
    part = part_of(attempt, ranks, world.inventory, world.counted) if ranks else attempt
    if taker.gang.queue == attempt.queue:
        tally.quotas.subtract(part)
        if effect.cause.reason is not Reason.PREEMPTED:
            yield f"{spec.full_name}: {effect.cause.reason.token} inside one queue"
        if spec.priority >= taker.gang.priority:
            yield f"{spec.full_name}: taken by a job of no higher priority"
        return
    if effect.cause.reason is Reason.PREEMPTED and tally.quotas.scope(attempt.queue):
        yield from tally.quotas.check_scope(part, taker.gang, spec)
        return
    if effect.cause.reason is not Reason.RECLAIMED:
        yield f"{spec.full_name}: {effect.cause.reason.token} across queues"
    yield from tally.quotas.check_reclaim(part, taker.gang, spec.full_name)
