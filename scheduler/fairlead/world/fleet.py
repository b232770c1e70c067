"""The fleet as columns: what never changes between facts is shared, what placements change is copied per cycle.

A row is a node. Device sets are bit masks in `machine.gpus` order (bit 0 is the first device), so a node has at most
63.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairlead.model.gang import Share
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.topology.tables import ShapeTable
from fairlead.world.use import Use

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
    tables      shape table of each node, in row order
    device_bits per node: device name -> bit
    all_mask    shape (nodes,): every device, healthy or not
    levels      tightest first; ``node`` and ``cluster`` are always there
    patched     the version that this one was made from by other `patched_rows`, -1 where all was built anew
    """

    version: int
    nodes: tuple[Node, ...]
    row: Mapping[NodeName, int]
    tables: tuple[ShapeTable, ...]
    table_of: IntColumn
    device_bits: tuple[Mapping[str, int], ...]
    all_mask: IntColumn
    healthy_mask: IntColumn
    usable: BoolColumn
    levels: Mapping[str, Level]
    patched: int = -1
    patched_rows: tuple[int, ...] = ()

    def mask(self, row: int, devices: Sequence[str]) -> int:
        """Return the bits of `devices` on the node in `row`; a device that is no longer there has none."""
        bits = self.device_bits[row]
        return sum(1 << bits[name] for name in devices if name in bits)

    def nic_mask(self, row: int, names: Sequence[str]) -> int:
        """Return the bits of NICs, in the order of the machine's; one that is no longer there has none."""
        return sum(1 << bit for bit, nic in enumerate(self.nodes[row].machine.nics) if nic.id in names) if names else 0

    def devices(self, row: int, mask: int) -> tuple[str, ...]:
        """Return the names of the bits in `mask`, in device order."""
        return tuple(gpu.device for bit, gpu in enumerate(self.nodes[row].machine.gpus) if mask >> bit & 1)


WHOLE = 1_000
"""Thousandths of a device."""


@dataclass(slots=True, eq=False, kw_only=True)
class Columns:
    """What is free now. A World's columns are read-only.

    free_mask      shape (nodes,): healthy devices with nothing on them, as bits
    milli, vram    shape (nodes, devices): thousandths and bytes of memory that shares left on each device, well or not;
                   who takes a whole device changes `free_mask` alone
    group          shape (nodes, devices): whose shares lie on a device, as numbers of `groups`; 0 nobody's
    the others     shape (nodes,); extended resources by name. One that lives above the nodes (rack power, an uplink)
                   has its domain's whole amount on every node: a domain has left that less what its nodes took
    cpus, nics     row -> bits of the CPUs and NICs that members hold; rows without any are left out
    groups         name of a share group -> its number; grows and is shared by all copies
    """

    free_mask: IntColumn
    cpu_milli: IntColumn
    memory_bytes: IntColumn
    ephemeral_bytes: IntColumn
    pods: IntColumn
    milli: IntColumn
    vram: IntColumn
    group: IntColumn
    extended: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])
    cpus: dict[int, int] = field(default_factory=dict[int, int])
    nics: dict[int, int] = field(default_factory=dict[int, int])
    groups: dict[str, int] = field(default_factory=dict[str, int])

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
        """Return the number of a share group, a new one at its first mention; 0 for ""."""
        return self.groups.setdefault(name, len(self.groups) + 1) if name else 0

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

    def take_use(self, row: int, use: Use, inventory: Inventory) -> None:
        """Lay a hold on a row as state knows it; devices that are no longer there are left out."""
        mask = inventory.mask(row, use.devices)
        if use.share is not None and mask:
            self.take_share(row, mask.bit_length() - 1, use.share, use.group)
        self.free_mask[row] &= ~mask
        self.take(row, use.shape.requests)
        cpus, nics = use.cpu_bits, inventory.nic_mask(row, use.nics)
        if cpus:
            self.cpus[row] = self.cpus.get(row, 0) | cpus
        if nics:
            self.nics[row] = self.nics.get(row, 0) | nics

    def reset_row(self, row: int, full: Columns) -> None:
        """Make a row what it is in `full`, with nothing on it."""
        for mine, theirs in zip(self.arrays(), full.arrays(), strict=True):
            mine[row] = theirs[row]
        self.cpus.pop(row, None)
        self.nics.pop(row, None)


ROW_COLUMNS = ("free_mask", "cpu_milli", "memory_bytes", "ephemeral_bytes", "pods")
DEVICE_COLUMNS = ("milli", "vram", "group")
