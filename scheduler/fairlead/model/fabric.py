"""What lies between machines: fabric switches, NVLink domains, racks, power; and a fleet of machines with all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.model.hardware import Machine, Measured

GROUPS = (
    "nvl-domain",
    "nvl-partition",
    "rack",
    "block",
    "power-domain",
    "cooling-zone",
    "failure-domain",
    "zone",
    "region",
)
"""Kinds of vertices that are groups of nodes, the closest ones first; every other vertex is a switch or a node."""

TIERS = {1: "leaf", 2: "spine", 3: "core"}
"""What switches of a tier are called; nodes hang on tier 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that could not be read or does not fit: where (file, line, field) and what."""

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricVertex:
    """A switch or a group of nodes; `id` is the source's own, and unique among those of its `kind`.

    `tier` of a switch counts from the nodes (1 leaf, 2 spine, 3 core); 0 for groups and where unknown.
    """

    id: str
    kind: str
    tier: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def key(self) -> str:
        """Return the name that is unique in the whole fabric, such as ``switch:leaf-1``."""
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricLink:
    """A link from a node or vertex `a` up to vertex `b`, both by key (``node:n1``, ``switch:leaf-1``).

    `kind` is ``network`` (moves data), or ``member`` (a node in a group, a group in a wider one). `bytes_per_s` is one
    direction, 0 unknown; `rail` the NIC's, -1 where all rails take it. `rdma` is ``infiniband``, ``roce`` or ``no``,
    `congestion` how congestion is handled (``credit``, ``ecn``, ``pfc+ecn``), `lossless` ``yes`` or ``no``; "" unknown.
    """

    a: str
    b: str
    kind: str = "network"
    bytes_per_s: int = 0
    latency_ns: int = 0
    rail: int = -1
    rdma: str = ""
    congestion: str = ""
    lossless: str = ""
    measured: Measured | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """Everything between machines; empty where nothing is known of it."""

    vertices: tuple[FabricVertex, ...] = ()
    links: tuple[FabricLink, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMachine:
    """A machine of an inventory. `sources` are the (kind, name) it was read from, the most trusted first."""

    name: str
    machine: Machine = field(default_factory=Machine)
    sources: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Machines by name, what lies between them, and everything that was dropped or disagrees."""

    source: str
    machines: tuple[NamedMachine, ...] = ()
    fabric: Fabric = field(default_factory=Fabric)
    warnings: tuple[Warned, ...] = ()
