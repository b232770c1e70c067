"""What-if on columns: take, checkpoint, roll back. A gang is all or nothing because its overlay is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.model.gang import Gang, Placement, PodShape
from fairlead.model.hardware import NodeName
from fairlead.world.fleet import Columns, Inventory
from fairlead.world.snapshot import HostPorts, Running, World

Mark = int
_Undo = tuple[int, int, PodShape, int, frozenset[tuple[str, str, int]] | None]


class Overlay:
    """Writable columns over one World. Every change is undone exactly by `roll_back`."""

    def __init__(self, world: World, columns: Columns | None = None) -> None:
        """Start from the world's free columns, or from a copy of `columns`."""
        self.inventory: Inventory = world.inventory
        self.columns: Columns = (columns or world.free).copy()
        self.ports: dict[int, HostPorts] = dict(world.ports) if columns is None else {}
        self._undo: list[_Undo] = []

    def take(self, row: int, mask: int, shape: PodShape) -> None:
        """One pod with the devices in `mask` goes to `row`."""
        self.columns.free_mask[row] = int(self.columns.free_mask[row]) & ~mask
        self.columns.take(row, shape.requests)
        before = self.ports.get(row)
        if shape.host_ports:
            self.ports[row] = (before or frozenset()) | frozenset(shape.host_ports)
        self._undo.append((row, mask, shape, 1, before))

    def give(self, row: int, mask: int, shape: PodShape) -> None:
        """One pod leaves `row`; only its healthy devices come back, and its host ports."""
        back = mask & int(self.inventory.healthy_mask[row]) & ~int(self.columns.free_mask[row])
        self.columns.free_mask[row] = int(self.columns.free_mask[row]) | back
        self.columns.take(row, shape.requests, -1)
        before = self.ports.get(row)
        if shape.host_ports and before:
            self.ports[row] = before - frozenset(shape.host_ports)
        self._undo.append((row, back, shape, -1, before))

    def checkpoint(self) -> Mark:
        """Return a mark to roll back to."""
        return len(self._undo)

    def roll_back(self, mark: Mark) -> None:
        """Undo everything since `mark`."""
        while len(self._undo) > mark:
            row, mask, shape, sign, before = self._undo.pop()
            free = int(self.columns.free_mask[row])
            self.columns.free_mask[row] = free | mask if sign > 0 else free & ~mask
            self.columns.take(row, shape.requests, -sign)
            if shape.host_ports:
                self.ports.pop(row, None)
                if before is not None:
                    self.ports[row] = before

    def take_placement(self, gang: Gang, placement: Placement) -> None:
        """Take everything a placement needs; members on nodes that are gone are skipped."""
        shapes = shapes_of(gang)
        for member in placement.members:
            row = self.inventory.row.get(member.node)
            if row is not None:
                mask = self.inventory.mask(row, member.devices) & int(self.columns.free_mask[row])
                self.take(row, mask, shapes[member.role])

    def release(self, attempts: Iterable[Running]) -> None:
        """Give back whatever these attempts still hold."""
        for attempt in attempts:
            shapes = shapes_of(attempt.spec) if attempt.spec is not None else {}
            for rank in sorted(attempt.holding):
                member = attempt.placement.members[rank]
                row = self.inventory.row.get(NodeName(member.node))
                if row is not None:
                    shape = shapes.get(member.role, PodShape())
                    self.give(row, self.inventory.mask(row, member.devices), shape)


def shapes_of(gang: Gang) -> Mapping[str, PodShape]:
    """Return the pod shape of each role."""
    return {role.name: role.pod for role in gang.roles}
