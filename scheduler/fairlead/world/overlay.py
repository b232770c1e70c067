"""What-if on columns: take, checkpoint, roll back. A gang is all or nothing because its overlay is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np

from fairlead.model.gang import Gang, Placement, PodShape, Share
from fairlead.topology.mig_table import CLOSED
from fairlead.world.fleet import MIXED, WHOLE, Columns, IntColumn, Inventory, Part
from fairlead.world.snapshot import HostPorts, Running, World
from fairlead.world.use import Use, use_of

Mark = int
_RECENT = 64  # changes up to which collecting their rows is faster than looking at the stamps of all rows
V = TypeVar("V")


class Taking(msgspec.Struct, frozen=True):
    """What `pods` equal pods take of one row: whole devices as bits, or a part of the device `bit`; CPUs, NICs.

    A part is a share or a MIG instance, with its group.
    """

    row: int
    mask: int
    pod: PodShape
    pods: int = 1
    share: Share | None = None
    bit: int = -1
    group: str = ""
    cpus: int = 0
    nics: int = 0
    part: Part | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What equal pods with nothing but whole devices take of many rows, each row once. Shape (rows,) each."""

    rows: IntColumn
    masks: IntColumn
    counts: IntColumn
    pod: PodShape


@dataclass(frozen=True, slots=True, eq=False)
class Lot:
    """What many pods without shares and host ports give back or take, summed up: each row once. Shape (rows,) each.

    masks   devices that become free, or are taken; amounts by the name of a resource, as `Resources` and `extended` say
    cpus, nics (row, bits) of the CPUs and NICs likewise
    """

    rows: IntColumn
    masks: IntColumn
    amounts: Mapping[str, IntColumn]
    cpus: tuple[tuple[int, int], ...] = ()
    nics: tuple[tuple[int, int], ...] = ()


class Overlay:
    """Writable columns over one World. Every change is undone exactly by `roll_back`.

    `tick` counts changes; `touched` has shape (nodes,): the tick at which each row changed last.
    """

    def __init__(self, world: World) -> None:
        """Start from the world's free columns."""
        self.inventory: Inventory = world.inventory
        self.columns: Columns = world.free.copy()
        self.ports: dict[int, HostPorts] = dict(world.ports)
        self.tick = 0
        self._log: list[IntColumn | int] = []
        self._log_from = 0
        self.touched: IntColumn = np.zeros(len(self.inventory.nodes), dtype=np.int64)
        self._undo: list[tuple[Taking | Batch | Lot, int, HostPorts | None]] = []
        self._seen, self._followed = world.picture, 0

    def follow(self, world: World) -> None:
        """Become what a new overlay over `world` would be; rows that differ count as changed.

        The world must be a later picture of the same state, with the same inventory and the same resources. Only rows
        are looked at that it counted anew, or that were touched here. What was taken can't be rolled back any more.
        """
        assert world.inventory is self.inventory, "an overlay follows only worlds of its own inventory"
        mine, theirs = self.columns, world.free
        rows = np.flatnonzero((world.changed_in > self._seen) | (self.touched > self._followed))
        differs = np.zeros(len(rows), dtype=np.bool_)
        for column, other in zip(mine.arrays(), theirs.arrays(), strict=True):
            unequal = column[rows] != other[rows]
            differs |= unequal if unequal.ndim == 1 else unequal.any(axis=1)
        by_row = ((mine.cpus, theirs.cpus), (mine.nics, theirs.nics), (self.ports, world.ports))
        for at, row in enumerate(rows.tolist()):
            if any(held.get(row) != wanted.get(row) for held, wanted in by_row):
                differs[at] = True
        rows = rows[differs]
        if len(rows):
            self._touch(rows)
            for column, other in zip(mine.arrays(), theirs.arrays(), strict=True):
                column[rows] = other[rows]
            listed = rows.tolist()
            _take_over(mine.cpus, theirs.cpus, listed)
            _take_over(mine.nics, theirs.nics, listed)
            _take_over(self.ports, world.ports, listed)
        mine.residents = dict(theirs.residents)  # tenants may change where columns do not: others, just as mixed
        self._seen, self._followed = world.picture, self.tick
        self._undo = []

    def changed_since(self, tick: int) -> IntColumn:
        """Return the rows that changed after a tick, lowest first."""
        recent = self._log[max(0, tick - self._log_from) :]
        if tick < self._log_from or len(recent) > _RECENT:
            return np.flatnonzero(self.touched > tick)
        if len(recent) == 1 and isinstance(recent[0], int):
            return np.array(recent, dtype=np.int64)
        rows: set[int] = set()
        for entry in recent:
            if isinstance(entry, np.ndarray):
                rows.update(entry.tolist())
            else:
                rows.add(int(entry))
        return np.array(sorted(rows), dtype=np.int64)

    def _touch(self, rows: IntColumn | int) -> None:
        """Stamp rows as changed now; the log has an entry for each tick after `_log_from`."""
        self.tick += 1
        self.touched[rows] = self.tick
        self._log.append(rows)
        if len(self._log) > 2 * _RECENT:
            self._log_from += len(self._log) - _RECENT
            del self._log[:-_RECENT]

    def patch(self, inventory: Inventory) -> None:
        """Take over an inventory in which only some rows say something else; those count as changed."""
        self.inventory = inventory
        self._touch(np.array(inventory.patched_rows, dtype=np.int64))

    def take(self, taking: Taking) -> None:
        """Pods go to a row."""
        before = self.ports.get(taking.row)
        self._apply(taking, 1)
        if taking.pod.host_ports:
            self.ports[taking.row] = (before or frozenset()) | frozenset(taking.pod.host_ports)
        self._undo.append((taking, 1, before))

    def take_batch(self, batch: Batch) -> None:
        """Pods without host ports go to many rows."""
        self._apply_batch(batch, 1)
        self._undo.append((batch, 1, None))

    def give(self, taking: Taking) -> None:
        """Pods leave a row; only its healthy devices come back, and its host ports."""
        row = taking.row
        back = taking.mask & int(self.inventory.healthy_mask[row]) & ~int(self.columns.free_mask[row])
        given = taking if back == taking.mask else msgspec.structs.replace(taking, mask=back)
        if (
            given.part is not None
            and self.columns.mig.take_out(row, given.bit, int(self.columns.mig_state[row, given.bit]), *given.part) < 0
        ):
            given = msgspec.structs.replace(given, part=None)
        before = self.ports.get(row)
        self._apply(given, -1)
        if taking.pod.host_ports and before:
            self.ports[row] = before - frozenset(taking.pod.host_ports)
        self._undo.append((given, -1, before))

    def give_lot(self, lot: Lot) -> None:
        """Many pods leave many rows; its masks must be of devices that are healthy and not free."""
        self._apply_lot(lot, -1)
        self._undo.append((lot, -1, None))

    def take_lot(self, lot: Lot) -> None:
        """Take what a lot says from many rows; its masks must be of devices that are free."""
        self._apply_lot(lot, 1)
        self._undo.append((lot, 1, None))

    def checkpoint(self) -> Mark:
        """Return a mark to roll back to."""
        return len(self._undo)

    def roll_back(self, mark: Mark) -> None:
        """Undo everything since `mark`."""
        while len(self._undo) > mark:
            change, sign, before = self._undo.pop()
            if isinstance(change, Batch):
                self._apply_batch(change, -sign)
                continue
            if isinstance(change, Lot):
                self._apply_lot(change, -sign)
                continue
            self._apply(change, -sign)
            if change.pod.host_ports:
                self.ports.pop(change.row, None)
                if before is not None:
                    self.ports[change.row] = before

    def take_placement(self, gang: Gang, placement: Placement) -> None:
        """Take everything a placement needs; members on nodes that are gone are skipped.

        What others still have of a device keeps newcomers off all of it, so that nobody moves in as they leave one by
        one; that is not rolled back.
        """
        for member in placement.members:
            row = self.inventory.row.get(member.node)
            if row is not None:
                taking = self.taking(row, use_of(gang, member))
                mask = taking.mask & int(self.columns.free_mask[row])
                part = taking.part if self.part_fits(taking) else None
                alike = mask == taking.mask and part == taking.part
                if not alike:
                    self._keep_clear(row, (taking.mask & ~mask) | (0 if part == taking.part else 1 << taking.bit))
                self.take(taking if alike else msgspec.structs.replace(taking, mask=mask, part=part))

    def _keep_clear(self, row: int, devices: int) -> None:
        """Let nobody else have a part of devices on which there are parts now."""
        for bit in range(self.columns.group.shape[1]):
            if devices >> bit & 1 and int(self.columns.group[row, bit]):
                self.columns.group[row, bit], self.columns.mig_state[row, bit] = MIXED, CLOSED

    def part_fits(self, taking: Taking) -> bool:
        """Whether a MIG instance could be taken where it is to begin now."""
        columns, row, bit = self.columns, taking.row, taking.bit
        if taking.part is None or not columns.opens(row, bit):
            return False
        return columns.mig.put(row, bit, int(columns.mig_state[row, bit]), *taking.part) >= 0

    def release(self, attempts: Iterable[Running]) -> None:
        """Give back whatever these attempts still hold."""
        for attempt in attempts:
            for row, use in uses_of(attempt, self.inventory):
                self.give(self.taking(row, use))

    def taking(self, row: int, use: Use) -> Taking:
        """Return a use in this inventory's terms; devices that are no longer there are left out."""
        return taking_of(self.inventory, row, use)

    def _apply(self, taking: Taking, sign: int) -> None:
        row, columns = taking.row, self.columns
        self._touch(row)
        if taking.mask:
            free = int(columns.free_mask[row])
            columns.free_mask[row] = free & ~taking.mask if sign > 0 else free | taking.mask
        elif taking.share is not None:
            columns.take_share(row, taking.bit, taking.share, taking.group, sign)
            self._mark_idle(row, taking.bit, idle=int(columns.milli[row, taking.bit]) >= WHOLE)
        elif taking.part is not None:
            columns.take_instance(row, taking.bit, taking.part, taking.group, sign)
            assert int(columns.mig_state[row, taking.bit]) >= 0, (taking, sign)
            self._mark_idle(row, taking.bit, idle=int(columns.mig_state[row, taking.bit]) == 0)
        columns.take(row, taking.pod.requests, sign * taking.pods)
        if taking.cpus:
            columns.cpus[row] = columns.cpus.get(row, 0) ^ taking.cpus
        if taking.nics:
            columns.nics[row] = columns.nics.get(row, 0) ^ taking.nics

    def _mark_idle(self, row: int, bit: int, *, idle: bool) -> None:
        """Make a device free whole, or no longer, after a part of it was taken or given back."""
        free = int(self.columns.free_mask[row])
        well = int(self.inventory.healthy_mask[row]) >> bit & 1
        self.columns.free_mask[row] = free | 1 << bit if idle and well else free & ~(1 << bit)

    def _apply_lot(self, lot: Lot, sign: int) -> None:
        self._touch(lot.rows)
        columns = self.columns
        columns.free_mask[lot.rows] ^= lot.masks
        for name, amounts in lot.amounts.items():
            column: IntColumn = columns.extended[name] if name in columns.extended else getattr(columns, name)
            column[lot.rows] -= sign * amounts
        for held, bits in ((columns.cpus, lot.cpus), (columns.nics, lot.nics)):
            for row, mask in bits:
                held[row] = held.get(row, 0) ^ mask

    def _apply_batch(self, batch: Batch, sign: int) -> None:
        self._touch(batch.rows)
        columns, asked = self.columns, batch.pod.requests
        columns.free_mask[batch.rows] ^= batch.masks
        counts = sign * batch.counts
        for column, amount in (
            (columns.cpu_milli, asked.cpu_milli),
            (columns.memory_bytes, asked.memory_bytes),
            (columns.ephemeral_bytes, asked.ephemeral_bytes),
            (columns.pods, asked.pods),
            *((columns.extended[name], amount) for name, amount in asked.extended if name in columns.extended),
        ):
            if amount:
                column[batch.rows] -= counts * amount


def taking_of(inventory: Inventory, row: int, use: Use) -> Taking:
    """Return a use in an inventory's terms; devices that are no longer there are left out."""
    mask = inventory.mask(row, use.devices)
    if use.mig:
        part = (use.mig, use.mig_start) if mask else None
        return Taking(row, 0, use.shape, bit=mask.bit_length() - 1, group=use.group, part=part)
    if use.share is None:
        return Taking(row, mask, use.shape, cpus=use.cpu_bits, nics=inventory.nic_mask(row, use.nics))
    bit = mask.bit_length() - 1
    return Taking(row, 0, use.shape, share=use.share if mask else None, bit=bit, group=use.group)


def uses_of(attempt: Running, inventory: Inventory) -> Iterator[tuple[int, Use]]:
    """Yield (row, use) of every member that still holds something on a node that is there."""
    for rank in sorted(attempt.holding):
        member = attempt.placement.members[rank]
        row = inventory.row.get(member.node)
        if row is not None:
            yield row, use_of(attempt.spec, member)


def _take_over(mine: dict[int, V], theirs: Mapping[int, V], rows: Sequence[int]) -> None:
    """Make some rows of a mapping what they are in another."""
    for row in rows:
        value = theirs.get(row)
        if value is None:
            mine.pop(row, None)
        else:
            mine[row] = value
