"""What rooms and victims are charged for beside GPUs, for a search that looks at limits and rights as usage falls."""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.model.gang import Gang, Placement
from fairlead.model.quota import Amounts, added
from fairlead.placement.victim import Victim
from fairlead.world.charges import charged, sure
from fairlead.world.snapshot import World


class Charges:
    """Looks charges up in one world; where nothing but GPUs is counted, there are none."""

    def __init__(self, world: World | None = None) -> None:
        """Without a world nothing is counted."""
        self._world = world
        self._counted = () if world is None else world.counted

    def of(self, gang: Gang, placement: Placement | None = None) -> Amounts:
        """Return what a gang is charged for there; without a placement, what it is charged for anywhere."""
        if not self._counted or self._world is None:
            return ()
        if placement is None:
            return sure(gang, self._counted)
        row, nodes = self._world.inventory.row, self._world.inventory.nodes
        return charged(gang, placement.members, lambda name: nodes[row[name]] if name in row else None, self._counted)


def by_queue(victims: Iterable[Victim]) -> dict[str, tuple[int, Amounts]]:
    """Return queue -> what victims are charged for together."""
    sums: dict[str, tuple[int, Amounts]] = {}
    for victim in victims:
        milli, also = sums.get(victim.queue, (0, ()))
        sums[victim.queue] = (milli + victim.gpu_milli, added(also, victim.also))
    return sums
