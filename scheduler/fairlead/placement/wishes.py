"""What a gang wishes for, read off its spec: levels, slices, and the GPU models it may get."""

from __future__ import annotations

from fairlead.model.gang import Gang, Role
from fairlead.placement.feasible import Feasibility
from fairlead.world.fleet import Inventory, Level


def is_single(gang: Gang) -> bool:
    """Whether the gang is one pod, so that no two pods have to fit together."""
    return len(gang.roles) == 1 and gang.roles[0].replicas == 1


def levels_to_try(gang: Gang, inventory: Inventory) -> list[Level]:
    """Return the levels a gang may be placed in, tightest first; none where it requires one that nobody has."""
    found: list[Level] = []
    for level in inventory.levels.values():
        found.append(level)
        if gang.topology is not None and gang.topology.required and level.name == gang.topology.within:
            return found
    return [] if gang.topology is not None and gang.topology.required else found


def named_levels(gang: Gang) -> frozenset[str]:
    """Return the levels that the gang's wishes name below the cluster: those its chain must have."""
    names: set[str] = set()
    for wish in (gang.topology, *(role.topology for role in gang.roles)):
        if wish is not None:
            names |= {wish.within, *(part.within for part in wish.slices)}
    names |= {role.spread for role in gang.roles}
    return frozenset(names - {"", "cluster", "node"})


def slices_of(gang: Gang, role: Role) -> dict[str, int]:
    """Return level name -> slice size for a role's pods: its own, and the gang's where it is the only role."""
    wishes = (gang.topology if len(gang.roles) == 1 else None, role.topology)
    return {part.within: part.size for wish in wishes if wish is not None for part in wish.slices}


def takes_devices(role: Role) -> bool:
    """Whether the role's pods get GPUs or parts of them."""
    return bool(role.gpus or role.share is not None or role.mig)


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
