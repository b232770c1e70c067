"""What a gang wishes for, read off its spec: levels, slices, and the GPU models it may get."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.model.gang import Gang, Role
from fairlead.placement.feasible import Feasibility
from fairlead.world.fleet import Inventory, Level


def is_single(gang: Gang) -> bool:
    """Whether the gang is one pod, so that no two pods have to fit together."""
    return len(gang.roles) == 1 and gang.roles[0].replicas == 1


def levels_to_try(gang: Gang, inventory: Inventory) -> list[Level]:
    """Return the levels a gang may be placed in, tightest first; none where it requires one that nobody has.

    Pods that are spread over racks must not be packed into the tightest domain that holds them, so such a gang is tried
    where it must or would like to be, and in the cluster.
    """
    wish = gang.topology
    required = wish is not None and wish.required
    order = list(inventory.levels)
    apart = [order.index(role.spread) for role in gang.roles if role.spread in inventory.levels]
    found: list[Level] = []
    for at, level in enumerate(inventory.levels.values()):
        wished = wish is not None and level.name == wish.within
        if not apart or level.name == "cluster" or (wished and (required or at > max(apart))):
            found.append(level)
        if required and wished:
            return found
    return [] if required else found


def named_levels(gang: Gang) -> frozenset[str]:
    """Return the levels that the gang's wishes name below the cluster: those its chain must have."""
    names: set[str] = set()
    for wish in (gang.topology, *(role.topology for role in gang.roles)):
        if wish is not None:
            names |= {wish.within, *(part.within for part in wish.slices)}
    names |= {role.spread for role in gang.roles}
    return frozenset(names - {"", "cluster", "node"})


def required_levels(gang: Gang) -> frozenset[str]:
    """Return the levels that every pod of a gang of one role must be in some domain of."""
    names: set[str] = set()
    for wish in (gang.topology, gang.roles[0].topology):
        if wish is not None:
            names |= {wish.within} if wish.required else set()
            names |= {part.within for part in wish.slices}
    return frozenset(names - {"cluster", "node"})


def slices_of(gang: Gang, role: Role) -> dict[str, int]:
    """Return level name -> slice size for a role's pods: its own, and the gang's where it is the only role."""
    wishes = (gang.topology if len(gang.roles) == 1 else None, role.topology)
    return {part.within: part.size for wish in wishes if wish is not None for part in wish.slices}


def keeps_wishes(gang: Gang, role: Role, spots: Sequence[tuple[int, int]], inventory: Inventory) -> bool:
    """Whether pods of a role at these (row, pods) keep what it requires: one domain, whole slices."""
    whole = role.topology.within if role.topology is not None and role.topology.required else ""
    sizes = {**({whole: 1} if whole not in ("cluster", "") else {}), **slices_of(gang, role)}
    for name, size in sizes.items():
        held: dict[int, int] = {}
        for row, number in spots:
            domain = int(inventory.levels[name].domain_of[row])
            held[domain] = held.get(domain, 0) + number
        if -1 in held or (name == whole and len(held) > 1):
            return False
        if any(number % size for number in held.values()):
            return False
    return True


def takes_devices(role: Role) -> bool:
    """Whether the role's pods get GPUs or parts of them."""
    return bool(role.gpus or role.share is not None or role.mig)


def is_plain(role: Role) -> bool:
    """Whether whole devices and the amounts of `FIXED` are all that a role's pods need of a node's state."""
    parts = role.share is not None or role.mig or role.nics_per_gpu
    return not (parts or role.pod.requests.extended or role.pod.host_ports)


def weight_of(role: Role) -> int:
    """Return what one place of a role is worth beside those of other roles: its GPUs, or 1."""
    return max(1, role.gpus)


def alternatives(gang: Gang, feasibility: Feasibility) -> tuple[str, ...]:
    """Return the GPU models to try, each for all members that accept it; "" where it does not matter.

    The slowest member sets the pace, so a gang gets one model unless it says that mixed ones will do. Roles that name
    different models keep to their own.
    """
    roles = [role for role in gang.roles if takes_devices(role)]
    if gang.mixed_models or sum(role.replicas for role in roles) < 2:
        return ("",)
    accepted = [feasibility.models(role, gang.service_class) for role in roles]
    shared = set(accepted[0]).intersection(*accepted[1:])
    if all(len(models) == 1 for models in accepted) or not shared:
        return ("",)
    return tuple(sorted(shared))
