"""The fleet as columns: what never changes between facts is shared, what placements change is copied per cycle.

A row is a node. Device sets are bit masks in `machine.gpus` order (bit 0 is the first device), so a node has at most
63.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fairlead.model.gang import Share
from fairlead.model.hardware import Machine, Node, NodeName, Resources
from fairlead.topology.mig_table import CLOSED, MigTable
from fairlead.topology.tables import ShapeTable
from fairlead.world.use import STRICT_TENANT, TENANT, Use

T = TypeVar("T")
IntColumn = NDArray[np.int64]
BoolColumn = NDArray[np.bool_]
MAX_DEVICES = 63
KNOWN_LEVELS = ("node", "island", "rack", "block")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Level:
    """One level of the tree. `domain_of`: shape (nodes,), row in `names`, -1 where a node is in no such domain.

    The rows of domain d are ``order[starts[d]:starts[d + 1]]``: `order` leaves out rows without a domain, `starts` has
    shape (domains + 1,).
    """

    name: str
    names: tuple[str, ...]
    domain_of: IntColumn
    order: IntColumn
    starts: IntColumn


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inventory:
    """What changes only with a node's own facts; shared by every World until then.

    nodes       in row order (sorted by name)
    tables      shape table of each node, in row order; `kinds` has one object for all nodes of a kind of machine
    device_bits per node: device name -> bit
    all_mask    shape (nodes,): every device, healthy or not
    healthy_mask devices that are well and may be given whole; `mig_mask`: that are well and may be given in instances
    mig         how instances lie on devices
    levels      tightest first; ``node`` and ``cluster`` are always there
    patched     the version that this one was made from by other `patched_rows`, -1 where all was built anew
    """

    version: int
    nodes: tuple[Node, ...]
    row: Mapping[NodeName, int]
    tables: tuple[ShapeTable, ...]
    kinds: tuple[object, ...]
    table_of: IntColumn
    device_bits: tuple[Mapping[str, int], ...]
    all_mask: IntColumn
    healthy_mask: IntColumn
    mig_mask: IntColumn
    mig: MigTable
    usable: BoolColumn
    levels: Mapping[str, Level]
    patched: int = -1
    patched_rows: tuple[int, ...] = ()

    def of_kinds(self, fact_of: Callable[[Machine], T]) -> list[T]:
        """Return a fact of each row's machine that is the same for all machines of its kind; asked once a kind."""
        known: dict[int, T] = {}
        for node, kind in zip(self.nodes, self.kinds, strict=True):
            if id(kind) not in known:
                known[id(kind)] = fact_of(node.machine)
        return [known[id(kind)] for kind in self.kinds]

    def mask(self, row: int, devices: Sequence[str]) -> int:
        """Return the bits of `devices` on the node in `row`; a device that is no longer there has none."""
        bits, mask = self.device_bits[row], 0
        for name in devices:
            if name in bits:
                mask |= 1 << bits[name]
        return mask

    def nic_mask(self, row: int, names: Sequence[str]) -> int:
        """Return the bits of NICs, in the order of the machine's; one that is no longer there has none."""
        return sum(1 << bit for bit, nic in enumerate(self.nodes[row].machine.nics) if nic.id in names) if names else 0

    def devices(self, row: int, mask: int) -> tuple[str, ...]:
        """Return the names of the bits in `mask`, in device order."""
        return tuple(gpu.device for bit, gpu in enumerate(self.nodes[row].machine.gpus) if mask >> bit & 1)


WHOLE = 1_000
"""Thousandths of a device."""
Part = tuple[str, int]
"""(profile, start) of a MIG instance."""
_SHARED, _STRICT = 1, 2
MIXED = -3
"""The group of a device with instances of several queues, none of them strict."""


@dataclass(slots=True, eq=False, kw_only=True)
class Columns:
    """What is free now. A World's columns are read-only.

    free_mask      shape (nodes,): healthy devices with nothing on them, as bits
    milli, vram    shape (nodes, devices): thousandths and bytes of memory that shares left on each device, well or not;
                   who takes a whole device changes `free_mask` alone
    group          shape (nodes, devices): whose shares lie on a device, as numbers of `groups`; 0 nobody's. Negative
                   for MIG instances: `TENANT`s of one queue, or `MIXED`
    mig_state      shape (nodes, devices): which instances are taken, by the device's grid; `CLOSED` gives none
    the others     shape (nodes,); extended resources by name. One that lives above the nodes (rack power, an uplink)
                   has its domain's whole amount on every node: a domain has left that less what its nodes took
    cpus, nics     row -> bits of the CPUs and NICs that members hold; rows without any are left out
    groups         name of a share group -> its number; grows and is shared by all copies
    residents      (row, bit) -> the tenants of the instances on a device, with repeats; left out where there are none
    mig            what the states mean
    """

    free_mask: IntColumn
    cpu_milli: IntColumn
    memory_bytes: IntColumn
    ephemeral_bytes: IntColumn
    pods: IntColumn
    milli: IntColumn
    vram: IntColumn
    group: IntColumn
    mig_state: IntColumn
    mig: MigTable
    extended: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])
    cpus: dict[int, int] = field(default_factory=dict[int, int])
    nics: dict[int, int] = field(default_factory=dict[int, int])
    groups: dict[str, int] = field(default_factory=dict[str, int])
    residents: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict[tuple[int, int], tuple[int, ...]])

    def copy(self, alike: Columns | None = None) -> Columns:
        """Return writable copies of all columns; those over devices are `alike`'s own where its are the same."""
        devices = self if alike is None else alike
        return Columns(
            **{name: getattr(self, name).copy() for name in ROW_COLUMNS},
            **{name: getattr(devices, name) if alike else getattr(self, name).copy() for name in DEVICE_COLUMNS},
            extended={name: column.copy() for name, column in self.extended.items()},
            cpus=dict(self.cpus),
            nics=dict(self.nics),
            groups=self.groups,
            residents=dict(self.residents),
            mig=self.mig,
        )

    def arrays(self) -> list[IntColumn]:
        """Return all columns over nodes, those of extended resources in order of their names."""
        fixed: list[IntColumn] = [getattr(self, name) for name in (*ROW_COLUMNS, *DEVICE_COLUMNS)]
        return fixed + [self.extended[name] for name in sorted(self.extended)]

    def freeze(self) -> Columns:
        """Make every column read-only; an edit then raises ValueError."""
        for column in self.arrays():
            column.flags.writeable = False
        return self

    def group_number(self, name: str) -> int:
        """Return the number of a share group, a new one at its first mention; 0 for "", negative for MIG tenants."""
        if not name:
            return 0
        strict = name.startswith(STRICT_TENANT)
        if not strict and not name.startswith(TENANT):
            return self.groups.setdefault(name, len(self.groups) + 1)
        queue = TENANT + name.removeprefix(STRICT_TENANT if strict else TENANT)
        return -(4 * self.groups.setdefault(queue, len(self.groups) + 1) + (_STRICT if strict else _SHARED))

    def take(self, row: int, amount: Resources, times: int = 1) -> None:
        """Subtract times × amount on one row; a negative `times` gives back."""
        self.cpu_milli[row] -= times * amount.cpu_milli
        self.memory_bytes[row] -= times * amount.memory_bytes
        self.ephemeral_bytes[row] -= times * amount.ephemeral_bytes
        self.pods[row] -= times * amount.pods
        for name, count in amount.extended:
            if name in self.extended:
                self.extended[name][row] -= times * count

    def take_share(self, row: int, bit: int, share: Share, group: str, times: int = 1) -> None:
        """Lay a share on one device; a negative `times` takes it off again, and the last one frees the device."""
        self.milli[row, bit] -= times * share.milli
        self.vram[row, bit] -= times * share.memory_bytes
        idle = int(self.milli[row, bit]) >= WHOLE
        self.group[row, bit] = 0 if idle else self.group_number(group)

    def take_instance(self, row: int, bit: int, part: Part, group: str, times: int = 1) -> None:
        """Take a MIG instance of a device; a negative `times` gives it back.

        A device on which it cannot lie beside what is there is `CLOSED`.
        """
        state, at = int(self.mig_state[row, bit]), (row, bit)
        move = self.mig.put if times > 0 else self.mig.take_out
        self.mig_state[row, bit] = move(row, bit, state, *part)
        tenants = list(self.residents.pop(at, ()))
        number = self.group_number(group)
        if times > 0:
            tenants.append(number)
        elif number in tenants:
            tenants.remove(number)
        if tenants:
            self.residents[at] = tuple(sorted(tenants))
        self.group[row, bit] = _together(tenants)

    def take_use(self, row: int, use: Use, inventory: Inventory) -> None:
        """Lay a hold on a row as state knows it; devices that are no longer there are left out."""
        mask = inventory.mask(row, use.devices)
        if use.share is not None and mask:
            self.take_share(row, mask.bit_length() - 1, use.share, use.group)
        if use.mig and mask:
            self.take_part(row, mask.bit_length() - 1, (use.mig, use.mig_start), use.group, inventory)
        elif mask:
            self.take_whole(row, mask)
        self.free_mask[row] &= ~mask
        self.take(row, use.shape.requests)
        cpus, nics = use.cpu_bits, inventory.nic_mask(row, use.nics)
        if cpus:
            self.cpus[row] = self.cpus.get(row, 0) | cpus
        if nics:
            self.nics[row] = self.nics.get(row, 0) | nics

    def take_part(self, row: int, bit: int, part: Part, group: str, inventory: Inventory) -> None:
        """Lay an instance that somebody has on a row; the device is closed where it is held whole beside that."""
        held_whole = not int(self.mig_state[row, bit]) and not self.opens(row, bit)
        if held_whole and int(inventory.mig_mask[row]) >> bit & 1:
            self.mig_state[row, bit] = CLOSED
        self.take_instance(row, bit, part, group)
        self.free_mask[row] &= ~(1 << bit)

    def take_whole(self, row: int, mask: int) -> None:
        """Lay a hold on whole devices; one that is given in instances only, or has some taken, is closed."""
        self.free_mask[row] &= ~mask
        if self.mig.grids:
            for bit in range(self.mig_state.shape[1]):
                if mask >> bit & 1 and (int(self.mig.parts_only[row]) >> bit & 1 or int(self.mig_state[row, bit]) > 0):
                    self.mig_state[row, bit] = CLOSED

    def opens(self, row: int, bit: int) -> bool:
        """Whether a device gives instances now: some are taken, or nothing is on it."""
        state = int(self.mig_state[row, bit])
        return state > 0 or (state == 0 and (int(self.free_mask[row]) | int(self.mig.parts_only[row])) >> bit & 1 == 1)

    def reset_rows(self, rows: list[int], in_parts: list[int], full: Columns) -> None:
        """Make rows what they are in `full`, with nothing on them; only those `in_parts` have parts of devices."""
        for name in ROW_COLUMNS:
            getattr(self, name)[rows] = getattr(full, name)[rows]
        for name, column in self.extended.items():
            column[rows] = full.extended[name][rows]
        for name in DEVICE_COLUMNS if in_parts else ():
            getattr(self, name)[in_parts] = getattr(full, name)[in_parts]
        for row in rows:
            self.cpus.pop(row, None)
            self.nics.pop(row, None)
        for row in in_parts:
            for bit in range(self.group.shape[1]):
                self.residents.pop((row, bit), None)


def _together(tenants: Sequence[int]) -> int:
    """Return what a device's instances are together: of one queue (strictly so where one is strict), or mixed."""
    if not tenants:
        return 0
    queues = {-number // 4 for number in tenants}
    return MIXED if len(queues) > 1 else min(tenants)


def may_join(group: int, groups: IntColumn) -> BoolColumn:
    """Return whether an instance of tenant `group` may lie on devices whose instances are of `groups`, shaped alike.

    A strict tenant is alone with its own queue, and keeps all others away.
    """
    if not group:
        return np.ones(groups.shape, dtype=np.bool_)
    same: BoolColumn = (-groups // 4 == -group // 4) & (groups != MIXED)
    others: BoolColumn = groups == 0 if -group % 4 == _STRICT else -groups % 4 != _STRICT
    return np.logical_or(same, others)


ROW_COLUMNS = ("free_mask", "cpu_milli", "memory_bytes", "ephemeral_bytes", "pods")
DEVICE_COLUMNS = ("milli", "vram", "group", "mig_state")
