"""The part of the second opinion that looks at places: devices and hosts that are free, and wishes that were required.

Like `verify` it is written from what was promised, without a look at the placement code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.model.gang import Gang, Isolation, Member, Placement, Role, TopologyRequest
from fairlead.model.hardware import Gpu, Node, NodeName
from fairlead.planning.verify_mig import Instances, check_instance
from fairlead.world.snapshot import World


@dataclass(slots=True)
class SharedDevice:
    """What a plan lays on one device in parts: thousandths, bytes of memory, and whose parts they are."""

    milli: int = 0
    memory_bytes: int = 0
    owners: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])


@dataclass(slots=True)
class Places:
    """What a plan has taken of nodes so far, counted anew."""

    devices: dict[NodeName, int] = field(default_factory=dict[NodeName, int])
    shared: dict[tuple[NodeName, int], SharedDevice] = field(default_factory=dict[tuple[NodeName, int], SharedDevice])
    pods: dict[NodeName, tuple[int, int, int, int]] = field(default_factory=dict[NodeName, tuple[int, int, int, int]])
    extended: dict[tuple[NodeName, str], int] = field(default_factory=dict[tuple[NodeName, str], int])
    above: dict[tuple[str, int, str], int] = field(default_factory=dict[tuple[str, int, str], int])
    ports: dict[NodeName, list[tuple[str, str, int]]] = field(
        default_factory=dict[NodeName, list[tuple[str, str, int]]]
    )
    instances: Instances = field(default_factory=Instances)


def check_member(gang: Gang, role: Role, member: Member, world: World, places: Places) -> Iterator[str]:
    """One member on its node: all that it needs is there and nobody else's."""
    row = world.inventory.row[member.node]
    node = world.inventory.nodes[row]
    if not node.ready or node.unschedulable or not node.pool:
        yield f"{gang.full_name}: {node.name} takes no pods now"
    yield from _check_host(gang, role, node, row, world, places)
    mode = "mig" if role.mig else "" if role.share is None else role.share.mode.value
    pool = world.pools.get(node.pool)
    if mode and (pool is None or mode not in pool.sharing):
        yield f"{gang.full_name}: {node.name} is in a pool that does not allow {mode}"
    bits, gpus = world.inventory.device_bits[row], node.machine.gpus
    free, taken = int(world.free.free_mask[row]), places.devices.get(node.name, 0)
    for name in member.devices:
        bit = bits.get(name)
        if bit is None:
            yield f"{gang.full_name}: {node.name} has no device {name}"
            continue
        if not _suits(gpus[bit], role):
            yield from _check_kind(gang, role, node, gpus[bit])
        if role.share is not None:
            yield from _check_share(gang, role, node, row, bit, world, places)
            continue
        if role.mig:
            if taken >> bit & 1 or (node.name, bit) in places.shared:
                yield f"{gang.full_name}: {node.name}/{name} is given whole or in shares in this plan"
            yield from check_instance(gang, role, member, node, gpus[bit], world, places.instances)
            continue
        if places.instances.on and places.instances.on.get((node.name, name)):
            yield f"{gang.full_name}: {node.name}/{name} is given in instances"
        if not free >> bit & 1 or taken >> bit & 1 or (places.shared and (node.name, bit) in places.shared):
            yield f"{gang.full_name}: {node.name}/{name} is not free"
        taken = places.devices[node.name] = taken | 1 << bit
    yield from _check_amounts(gang, role, node, row, world, places)


def takes(role: Role) -> int:
    """Return how many devices a pod of the role lies on."""
    return role.gpus if role.share is None and not role.mig else 1


def _suits(gpu: Gpu, role: Role) -> bool:
    """Whether a device is well, and plainly of the kind that was asked for: one of any model that is large enough."""
    return gpu.healthy and not role.gpu_model and gpu.memory_bytes >= role.gpu_memory_bytes


def _check_kind(gang: Gang, role: Role, node: Node, gpu: Gpu) -> Iterator[str]:
    if not gpu.healthy:
        yield f"{gang.full_name}: {node.name}/{gpu.device} is not healthy"
    named = [part for part in role.gpu_model.casefold().split("|") if part.strip()]
    if named and not any(part.strip() in gpu.model.casefold() for part in named):
        yield f"{gang.full_name}: {node.name}/{gpu.device} is not of the kind that was asked for"
    if gpu.memory_bytes < role.gpu_memory_bytes:
        yield f"{gang.full_name}: {node.name}/{gpu.device} is not of the kind that was asked for: too little memory"


def _check_share(gang: Gang, role: Role, node: Node, row: int, bit: int, world: World, places: Places) -> Iterator[str]:
    """A device is shared up to its capacity, by pods of one namespace in one way, and strict ones of one queue."""
    assert role.share is not None, role
    device = places.shared.setdefault((node.name, bit), SharedDevice())
    device.milli += role.share.milli
    device.memory_bytes += role.share.memory_bytes
    strict = (gang.queue,) if gang.isolation is Isolation.STRICT else ()
    device.owners.add((gang.namespace, role.share.mode.value, *strict))
    free = world.free
    idle = int(free.free_mask[row]) >> bit & 1
    if places.devices.get(node.name, 0) >> bit & 1 or (not idle and int(free.group[row, bit]) <= 0):
        yield f"{gang.full_name}: {node.name}/{bit} is held whole"
    if device.milli > int(free.milli[row, bit]) or device.memory_bytes > int(free.vram[row, bit]):
        yield f"{gang.full_name}: {node.name}/{bit} has too little left for its shares"
    if len(device.owners) > 1:
        yield f"{gang.full_name}: {node.name}/{bit} is shared by those who may not share"


def _check_amounts(gang: Gang, role: Role, node: Node, row: int, world: World, places: Places) -> Iterator[str]:
    asked, free = role.pod.requests, world.free
    cpu, memory, ephemeral, pods = places.pods.get(node.name, (0, 0, 0, 0))
    sums = places.pods[node.name] = (
        cpu + asked.cpu_milli,
        memory + asked.memory_bytes,
        ephemeral + asked.ephemeral_bytes,
        pods + max(1, asked.pods),
    )
    room = [int(c[row]) for c in (free.cpu_milli, free.memory_bytes, free.ephemeral_bytes, free.pods)]
    for word, wanted, left in zip(("CPU", "memory", "ephemeral storage", "pods"), sums, room, strict=True):
        if wanted > 0 and wanted > left:
            yield f"{gang.full_name}: {node.name} has {left} {word} left, the plan puts {wanted} there"
    for name, amount in asked.extended:
        column = free.extended.get(name)
        wanted = places.extended[node.name, name] = places.extended.get((node.name, name), 0) + amount
        if amount > 0 and wanted > (0 if column is None else int(column[row])):
            yield f"{gang.full_name}: {node.name} has not enough {name} left"
        yield from _check_above(gang, name, amount, row, world, places)


def _check_above(gang: Gang, name: str, amount: int, row: int, world: World, places: Places) -> Iterator[str]:
    """What lives above the nodes is not given out twice: a domain's amount, less what all its nodes have given."""
    for pool in world.pools.values():
        for budget in pool.budgets:
            level = world.inventory.levels.get(budget.level)
            if budget.resource != name or level is None or int(level.domain_of[row]) < 0:
                continue
            domain = int(level.domain_of[row])
            key = (budget.level, domain, name)
            if key not in places.above:
                inside = level.domain_of == domain
                given = world.offered.extended[name][inside] - world.free.extended[name][inside]
                places.above[key] = budget.amount - int(given.sum())
            places.above[key] -= amount
            if places.above[key] < 0:
                yield f"{gang.full_name}: {budget.level} {level.names[domain]} has not enough {name} left"


def _check_host(gang: Gang, role: Role, node: Node, row: int, world: World, places: Places) -> Iterator[str]:
    """What else Kubernetes would hold a pod off a node for: taints, node selector, host ports."""
    for taint in node.taints:
        tolerated = any(
            t.effect in ("", taint.effect)
            and (t.key == taint.key or (not t.key and t.operator == "Exists"))
            and (t.operator == "Exists" or t.value == taint.value)
            for t in role.pod.tolerations
        )
        if taint.effect != "PreferNoSchedule" and not tolerated:
            yield f"{gang.full_name}: {node.name} has the taint {taint.key}, which {role.name} does not tolerate"
    if role.pod.node_selector and not set(role.pod.node_selector) <= set(node.labels):
        yield f"{gang.full_name}: {node.name} is not selected by {role.name}"
    if not role.pod.host_ports:
        return
    ports = places.ports.setdefault(node.name, list(world.ports.get(row, ())))
    for protocol, address, number in role.pod.host_ports:
        if any(p == protocol and n == number and (a == address or "0.0.0.0" in (a, address)) for p, a, n in ports):
            yield f"{gang.full_name}: host port {number} of {node.name} is taken"
    ports.extend(role.pod.host_ports)


# --- wishes -----------------------------------------------------------------------------------------------------------


def check_wishes(gang: Gang, placement: Placement, world: World) -> Iterator[str]:
    """Required levels hold in one domain, slices are whole, and members that must not differ have one GPU model."""
    yield from _check_one_domain(gang, gang.topology, placement.members, world)
    for role in gang.roles:
        members = [member for member in placement.members if member.role == role.name]
        yield from _check_one_domain(gang, role.topology, members, world)
        own = (gang.topology if len(gang.roles) == 1 else None, role.topology)
        for part in (part for wish in own if wish is not None for part in wish.slices):
            held: dict[int, int] = {}
            for member in members:
                domain = _domain(member, part.within, world)
                held[domain] = held.get(domain, 0) + 1
            if -1 in held or any(number % part.size for number in held.values()):
                yield f"{gang.full_name}: slices of {part.size} in one {part.within} are cut: {sorted(held.values())}"
    if not gang.mixed_models and len(placement.members) > 1:
        yield from _check_models(gang, placement, world)


def _check_one_domain(
    gang: Gang, wish: TopologyRequest | None, members: list[Member] | tuple[Member, ...], world: World
) -> Iterator[str]:
    if wish is None or not wish.required or wish.within == "cluster" or not members:
        return
    domains = {_domain(member, wish.within, world) for member in members}
    if len(domains) != 1 or -1 in domains:
        yield f"{gang.full_name}: asked for one {wish.within}, got {len(domains)}"


def _domain(member: Member, level: str, world: World) -> int:
    found, row = world.inventory.levels.get(level), world.inventory.row.get(member.node)
    return -1 if found is None or row is None else int(found.domain_of[row])


def _check_models(gang: Gang, placement: Placement, world: World) -> Iterator[str]:
    """Members of one role have GPUs of one model, because the slowest sets the pace."""
    models: dict[str, set[str]] = {}
    for member in placement.members:
        row = world.inventory.row.get(member.node)
        if row is not None:
            bits, gpus = world.inventory.device_bits[row], world.inventory.nodes[row].machine.gpus
            models.setdefault(member.role, set()).update(
                gpus[bits[device]].model for device in member.devices if device in bits
            )
    for role, found in models.items():
        if len(found) > 1 and sum(member.role == role for member in placement.members) > 1:
            yield f"{gang.full_name}: {role} has GPUs of several models: {', '.join(sorted(found))}"
