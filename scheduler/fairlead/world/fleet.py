"""The fleet as columns: what never changes between facts is shared, what placements change is copied per cycle.

A row is a node. Device sets are bit masks in `machine.gpus` order (bit 0 is the first device), so a node has at most
63.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.topology.tables import ShapeTable

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

    def devices(self, row: int, mask: int) -> tuple[str, ...]:
        """Return the names of the bits in `mask`, in device order."""
        return tuple(gpu.device for bit, gpu in enumerate(self.nodes[row].machine.gpus) if mask >> bit & 1)


@dataclass(slots=True, eq=False, kw_only=True)
class Columns:
    """What is free now, shape (nodes,) each; extended resources by name. A World's columns are read-only."""

    free_mask: IntColumn
    cpu_milli: IntColumn
    memory_bytes: IntColumn
    ephemeral_bytes: IntColumn
    pods: IntColumn
    extended: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])

    def copy(self) -> Columns:
        """Return writable copies of all columns."""
        return Columns(
            free_mask=self.free_mask.copy(),
            cpu_milli=self.cpu_milli.copy(),
            memory_bytes=self.memory_bytes.copy(),
            ephemeral_bytes=self.ephemeral_bytes.copy(),
            pods=self.pods.copy(),
            extended={name: column.copy() for name, column in self.extended.items()},
        )

    def freeze(self) -> Columns:
        """Make every column read-only; an edit then raises ValueError."""
        for column in (self.free_mask, self.cpu_milli, self.memory_bytes, self.ephemeral_bytes, self.pods):
            column.flags.writeable = False
        for column in self.extended.values():
            column.flags.writeable = False
        return self

    def take(self, row: int, amount: Resources, times: int = 1) -> None:
        """Subtract times × amount on one row; a negative `times` gives back."""
        self.cpu_milli[row] -= times * amount.cpu_milli
        self.memory_bytes[row] -= times * amount.memory_bytes
        self.ephemeral_bytes[row] -= times * amount.ephemeral_bytes
        self.pods[row] -= times * amount.pods
        for name, count in amount.extended:
            if name in self.extended:
                self.extended[name][row] -= times * count
