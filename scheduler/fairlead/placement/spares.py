"""Which members an elastic gang can do without: the highest ranks of each role above its fewest, slice by slice."""

from __future__ import annotations

from fairlead.model.gang import Gang, Role
from fairlead.world.snapshot import Running


def spare_units(attempt: Running) -> list[tuple[int, tuple[int, ...]]]:
    """Return (depth, ranks) of what may leave a running gang, each unit only after those of its role before it.

    Depth counts from 1 in each role, roles in their order. A unit is one member, or a whole slice where the role's
    members lie in slices. Empty of a gang that is not elastic, or from which members are leaving already.
    """
    spec = attempt.spec
    if spec is None or not spec.is_elastic or attempt.leaving:
        return []
    units: list[tuple[int, tuple[int, ...]]] = []
    members = attempt.placement.members
    for role in spec.roles:
        if role.fewest >= role.replicas:
            continue
        ranks = sorted(rank for rank in attempt.holding if members[rank].role == role.name)
        size = unit_of(spec, role)
        for depth in range(1, (len(ranks) - max(role.fewest, 1)) // size + 1):
            end = len(ranks) - (depth - 1) * size
            units.append((depth, tuple(ranks[end - size : end])))
    return units


def unit_of(gang: Gang, role: Role) -> int:
    """Return how many members of a role come and go together: those of its widest slice."""
    wishes = (role.topology, gang.topology if len(gang.roles) == 1 else None)
    return max((part.size for wish in wishes if wish is not None for part in wish.slices), default=1)
