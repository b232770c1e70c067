"""The part of the second opinion that looks at gangs that grow: who may, where, when, and at whose cost: nobody's.

Written from the rules in docs/explanation/takings.md, without a look at how growths are found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from fairlead.model.effects import Grow, Phase, Place, Shrink
from fairlead.model.gang import Gang, GangId, Member, Placement, Role
from fairlead.model.hardware import Node
from fairlead.planning.verify_caps import check_caps
from fairlead.planning.verify_places import Places, check_member, check_wishes, takes
from fairlead.planning.verify_pools import PoolTally, check_pools
from fairlead.planning.verify_quotas import Quotas
from fairlead.world.snapshot import Running, World


def check_grow(
    effect: Grow, world: World, quotas: Quotas, places: Places, pools: PoolTally, placed: Collection[GangId]
) -> Iterator[str]:
    """Yield what is wrong with a growth; what it takes is counted. `placed` are gangs that wait no more."""
    attempt = world.running.get(effect.gang, effect.attempt)
    spec = attempt.spec if attempt is not None else None
    if attempt is None or spec is None or attempt.phase is not Phase.RUNNING or attempt.notice is not None:
        yield f"{effect.gang}: grows although it does not run, or is to stop"
        return
    name, known = spec.full_name, attempt.placement.members
    if not spec.resizable or attempt.leaving or attempt.joining:
        yield f"{name}: grows although it may not be resized, or is being resized"
    if attempt.grow_ms is None or attempt.grow_ms > world.now_ms:
        yield f"{name}: grows too soon after it changed its size"
    new = effect.placement.members[len(known) :]
    if effect.placement.members[: len(known)] != known or not new or len(new) != effect.joining:
        yield f"{name}: those who are there are not as they were, or nobody joins them"
        return
    if [member.rank for member in new] != list(range(len(known), len(known) + len(new))):
        yield f"{name}: who joins has not the next ranks"
    queue = world.queues.get(spec.queue)
    if queue is None or spec.namespace not in queue.namespaces:
        yield f"{name}: may not use queue {spec.queue}"
        return
    yield from _check_shape(spec, attempt, new, world)
    joined = replace(effect.placement, members=new)
    yield from quotas.place(spec, joined)
    yield from check_caps(spec, joined.gpu_milli, world, quotas.above, quotas.caps, grows=True)
    if any(pool.keeps_free for pool in world.pools.values()):
        part = Place(gang=spec.id, attempt=1, placement=joined, tier=effect.tier, deadline_ms=effect.deadline_ms)
        yield from check_pools(part, spec, False, world, pools)
    for member in new:
        role = next((role for role in spec.roles if role.name == member.role), None)
        if role is None or member.node not in world.inventory.row:
            yield f"{name}: member {member.rank} on {member.node}: no such node or role"
            continue
        yield from check_member(spec, role, member, world, places)
        if world.now_ms < world.freed_ms.get(member.node, 0) + world.rules.grow_after_ms:
            yield f"{name}: grows on {member.node}, where something has just come free"
    yield from _check_others(spec, new, world, placed)


def _check_shape(spec: Gang, attempt: Running, new: tuple[Member, ...], world: World) -> Iterator[str]:
    """No role has more members than it asked for, each has its devices, and required levels hold for all of them."""
    there = [attempt.placement.members[rank] for rank in sorted(attempt.holding)]
    for role in spec.roles:
        own = [member for member in (*there, *new) if member.role == role.name]
        if len(own) > role.replicas:
            yield f"{spec.full_name}: {len(own)} members of {role.name}, which asked for {role.replicas}"
        used = [member.index for member in attempt.placement.members if member.role == role.name]
        joining = [member for member in new if member.role == role.name]
        numbers = [member.index for member in joining]
        if len({*used, *numbers}) < len(used) + len(numbers):
            yield f"{spec.full_name}: two members of {role.name} have one number"
        if any(len(m.devices) != takes(role) for m in joining):
            yield f"{spec.full_name}: who joins {role.name} has not the devices that it asked for"
    yield from check_wishes(spec, Placement(members=(*there, *new)), world)


def _check_others(spec: Gang, new: tuple[Member, ...], world: World, placed: Collection[GangId]) -> Iterator[str]:
    """Nobody who waits could plainly use what is taken."""
    rows = [world.inventory.row[member.node] for member in new if member.node in world.inventory.row]
    nodes = {world.inventory.nodes[row].name: world.inventory.nodes[row] for row in rows}
    for waiting in world.waiting:
        other = waiting.gang
        if other.id in placed or sum(r.replicas * r.gpu_milli for r in other.roles) > world.capacity_milli:
            continue
        for node in nodes.values():
            if other.roles and all(_could_use(other, role, node, world) for role in other.roles):
                yield f"{spec.full_name}: grows on {node.name}, which {other.full_name} waits for"
                return


def _could_use(gang: Gang, role: Role, node: Node, world: World) -> bool:
    """Whether a node is plainly open to a role that wants whole GPUs: nothing else has to be looked at."""
    pool, pod = world.pools.get(node.pool), role.pod
    if not role.gpus or pool is None or pod.affinity is not None or pod.volume_affinity or pod.host_ports:
        return False
    if role.gpu_model or pod.node_selector or pod.requests.extended or node.taints or gang.topology is not None:
        return False
    if pool.service_classes is not None and gang.service_class not in pool.service_classes:
        return False
    wide = sum(gpu.healthy and gpu.whole and gpu.memory_bytes >= role.gpu_memory_bytes for gpu in node.machine.gpus)
    queue = world.queues.get(gang.queue)
    within = queue is not None and gang.namespace in queue.namespaces and queue.limit_gpus is None and not queue.parent
    return within and role.topology is None and not role.nics_per_gpu and wide >= role.gpus


def check_turned_back(effect: Shrink, attempt: Running) -> Iterator[str]:
    """Who goes for nobody's sake was to join, and has not."""
    if not set(effect.ranks) <= {rank for rank, _ in attempt.joining}:
        yield f"{effect.gang}: members go for nobody that belong to it"
