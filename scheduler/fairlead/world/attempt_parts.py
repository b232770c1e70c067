"""Some members of an attempt, as if they were one: what they hold and are charged for."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairlead.model.quota import Amounts
from fairlead.world.charges import charged
from fairlead.world.fleet import Inventory
from fairlead.world.pictures import Running


def part_of(attempt: Running, ranks: Iterable[int], inventory: Inventory, counted: tuple[str, ...]) -> Running:
    """Return the attempt as if only those of `ranks` held anything who do."""
    held = attempt.holding.intersection(ranks)
    members = attempt.placement.members
    milli = sum(members[rank].gpu_milli for rank in held)
    return msgspec.structs.replace(
        attempt, holding=held, gpu_milli=milli, also=also_of(attempt, held, inventory, counted)
    )


def also_of(attempt: Running, ranks: Iterable[int], inventory: Inventory, counted: tuple[str, ...]) -> Amounts:
    """Return what members are charged for beside GPUs."""
    if not counted:
        return ()
    row, nodes, members = inventory.row, inventory.nodes, attempt.placement.members
    those = [members[rank] for rank in sorted(ranks)]
    return charged(attempt.spec, those, lambda name: nodes[row[name]] if name in row else None, counted)
