"""Locality inside a machine, behind one door: cores, memory, NICs, rails, uplinks and rings for a set of GPUs.

Tables are made once for machines that are alike, and answers are remembered or cost a few operations on integers. GPU
and NIC masks have a bit per position in `machine.gpus` and `machine.nics`, CPU masks a bit per CPU. Nothing here
changes the machine: CPU sets are advice to the node (docs/explanation/locality.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from fairlead.discovery.cpu_list import as_list
from fairlead.model.hardware import Machine
from fairlead.placement.local_shape import LocalShape, local_shape
from fairlead.placement.nic_matching import match
from fairlead.placement.numa_shares import NumaShares
from fairlead.placement.rails import Rails
from fairlead.placement.rings import fastest_ring
from fairlead.placement.uplinks import ALONE, Uplinks
from fairlead.topology.likeness import ByKind
from fairlead.topology.paths import CLASSES
from fairlead.topology.tables import ShapeTable, TableCache

NEAR_A_NIC = ("PIX", "PXB")
"""Path classes over which a NIC reaches a GPU's memory without a host bridge, so that nothing is lost."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_ANSWERS_UP_TO = 16_384  # per kind of question and shape


@dataclass(frozen=True, slots=True)
class Reach:
    """What the GPUs of one node give a collective; bytes/s of the slowest, 0 unknown.

    `inside` is the slowest known pair, `exit` the slowest known way to a NIC and through its port, `nvlink` the slowest
    NVLink (0 where one GPU has none). `inside_known` and `exit_known` say that no pair and no way is unknown. `islands`
    counts the sets of GPUs joined at their fastest pace.
    """

    inside: int
    inside_known: bool
    exit: int
    exit_known: bool
    nvlink: int
    islands: int


class LocalTable:
    """Answers for machines of one shape. Not shared between threads. `kits` is room for what callers choose from it."""

    __slots__ = (
        "_islands", "_nics", "_numa", "_rails", "_reach", "_rings", "_set_rings", "_uplinks", "kits", "paths", "shape",
    )  # fmt: skip

    def __init__(self, shape: LocalShape, paths: ShapeTable) -> None:
        """Build what does not depend on the question; milliseconds."""
        self.shape, self.paths = shape, paths
        self.kits: dict[tuple[object, ...], object] = {}
        self._numa = NumaShares(shape)
        self._uplinks = Uplinks(shape)
        self._rails = Rails(shape, paths, self._uplinks)
        self._islands = _fastest_islands(shape.paths.pace)
        self._nics: dict[tuple[int, int, int], tuple[int, int] | None] = {}
        self._reach: dict[int, Reach] = {}
        self._rings: dict[int, tuple[int, ...]] = {}
        self._set_rings: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def cpus(self) -> int:
        """All CPUs of the machine, 0 where nobody knows which NUMA nodes have them."""
        return self._numa.cpus

    @property
    def nics(self) -> int:
        """All NICs that are not down."""
        return self.shape.nics_up

    def cores_for(self, gpus: int, cores: int, free_cpus: int) -> tuple[int, int]:
        """Return (CPU mask, how many of them are not on the NUMA nodes of the GPUs).

        Every NUMA node gives in proportion to its GPUs, in whole cores where the machine's lists show which CPUs are
        threads of one core, the lowest numbers first. What is missing comes from the nearest other nodes. (0, 0) where
        nothing is to be chosen (no cores asked for, CPU lists or the NUMA nodes of the GPUs unknown), (0, `cores`)
        where the machine has too few free.
        """
        return self._numa.cores(gpus, cores, free_cpus)

    def memory_for(self, gpus: int, amount_bytes: int, free: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Return (bytes from each NUMA node, how many of them are not from the NUMA nodes of the GPUs).

        `free` is what each NUMA node has left, in the machine's order; shares as in `cores_for`. ((), 0) where nothing
        is to be chosen, ((), `amount_bytes`) where all nodes together have too little.
        """
        return self._numa.memory(gpus, amount_bytes, free)

    def nics_for(self, gpus: int, per_gpu: int, free_nics: int) -> int | None:
        """Return the mask of `per_gpu` NICs for each GPU, none of them twice; None where too few are free and up.

        The most pairs of GPU and NIC have the best path class that can be had, then the most of the rest the second
        best, and so on; of equals the lowest mask.
        """
        found = self._match(gpus, per_gpu, free_nics)
        return None if found is None else found[0]

    def nic_path(self, gpus: int, per_gpu: int, free_nics: int) -> str:
        """Return the path class of the farthest pair that `nics_for` makes, "" where none is made or it is unknown."""
        found = self._match(gpus, per_gpu, free_nics)
        return CLASSES[found[1]] if found is not None and found[0] and found[1] < len(CLASSES) else ""

    def rails(self, gpus: int) -> int:
        """Return the mask of rails that a set of GPUs talks over: those of the NICs nearest to them.

        A NIC that several GPUs are near to is used by as few of them as can be. Where a NIC has no rail, positions in
        `machine.nics` stand for rails.
        """
        return self._rails.of(gpus)

    def aligned_best(self, free: int, count: int, wanted_rails: int, required: int = 0, busy: int = 0) -> int:
        """Return the set of `count` GPUs out of `free` that suits the rest of the gang best, 0 where there is none.

        It has the pace and the NICs of `ShapeTable.best`. Of these it uses the fewest rails outside `wanted_rails` (0:
        no wish), then the most inside; then it spans the fewest and nearest NUMA nodes; then it has the lowest
        `uplink_load` beside the `busy` GPUs of others; then the order of `best` decides.
        """
        return self._rails.aligned(free, count, wanted_rails, required, busy)

    def uplink_load(self, gpus: int, busy: int = 0) -> int:
        """Return what the GPUs could send over the fullest PCIe uplink that they share, in thousandths of its rate.

        `busy` are GPUs of others that send too. 0 where each GPU has its uplinks for itself. Where no rate is known, an
        uplink carries as much as one GPU sends.
        """
        return self._uplinks.load(gpus, busy)

    def shared_uplinks(self, gpus: int, busy: int = 0) -> tuple[tuple[str, int, int], ...]:
        """Return (switch, GPUs of the set below it, load in thousandths) for every uplink that is overfilled."""
        found: list[tuple[str, int, int]] = []
        for at, load in self._uplinks.shared(gpus, busy):
            if load > ALONE:
                uplink = self.shape.uplinks[at]
                found.append((uplink.name, uplink.gpus & gpus, load))
        return tuple(found)

    def ring(self, gpus: int) -> tuple[int, ...]:
        """Return the GPUs of a set in the order of the ring whose slowest step is fastest, the lowest one first."""
        known = self._rings.get(gpus)
        if known is None:
            members = [gpu for gpu in range(self.paths.gpus) if gpus >> gpu & 1]
            known = _remember(self._rings, gpus, fastest_ring(self.shape.paths.pace, members))
        return known

    def ring_of_sets(self, masks: tuple[int, ...]) -> tuple[int, ...]:
        """Return disjoint sets of GPUs along the fastest ring; between two sets counts their fastest pair."""
        known = self._set_rings.get(masks)
        if known is None:
            pace = self.shape.paths.pace
            sets = [[gpu for gpu in range(self.paths.gpus) if mask >> gpu & 1] for mask in masks]
            between = [[max((pace[a][b] for a in one for b in other), default=0) for other in sets] for one in sets]
            ring = fastest_ring(between, range(len(masks)))
            known = _remember(self._set_rings, masks, tuple(masks[at] for at in ring))
        return known

    def reach(self, gpus: int) -> Reach:
        """Return what a set of GPUs gives inside the node and on the way out of it."""
        known = self._reach.get(gpus)
        if known is None:
            known = _remember(self._reach, gpus, self._measure(gpus))
        return known

    def _measure(self, gpus: int) -> Reach:
        members = [gpu for gpu in range(self.paths.gpus) if gpus >> gpu & 1]
        pace, nic_of = self.shape.paths.pace, self._rails.nic_of
        pairs = [pace[a][b] for at, a in enumerate(members) for b in members[at + 1 :]]
        ways = [self.shape.out[gpu][nic_of[gpu]] if nic_of[gpu] >= 0 else 0 for gpu in members]
        return Reach(
            inside=min((rate for rate in pairs if rate), default=0),
            inside_known=all(pairs),
            exit=min((rate for rate in ways if rate), default=0),
            exit_known=all(ways),
            nvlink=min((self.shape.nvlink[gpu] for gpu in members), default=0),
            islands=len({self._islands[gpu] for gpu in members}),
        )

    def _match(self, gpus: int, per_gpu: int, free_nics: int) -> tuple[int, int] | None:
        key = (gpus, per_gpu, free_nics & self.shape.nics_up)
        if key not in self._nics:
            _remember(self._nics, key, match(self.shape.paths.nic_rank, *key))
        return self._nics[key]


class LocalTables:
    """One `LocalTable` per distinct machine shape. Not shared between threads."""

    __slots__ = ("_by_kind", "_by_shape", "_shapes")

    def __init__(self, shapes: TableCache | None = None) -> None:
        """Start empty; `shapes` is the cache that the inventory was built with, so that its work is not done again."""
        self._shapes = shapes if shapes is not None else TableCache()
        self._by_shape: dict[LocalShape, LocalTable] = {}
        self._by_kind: ByKind[LocalTable] = ByKind()

    def table(self, machine: Machine, paths: ShapeTable | None = None) -> LocalTable:
        """Return the table of the machine's shape, made at the first call for that shape.

        `paths` is the machine's shape table where the caller has it.
        """
        return self._by_kind.get(machine, lambda first: self._of_shape(first, paths or self._shapes.table(first)))

    def _of_shape(self, machine: Machine, paths: ShapeTable) -> LocalTable:
        shape = local_shape(machine, paths.shape)
        if shape not in self._by_shape:
            self._by_shape[shape] = LocalTable(shape, paths)
        return self._by_shape[shape]

    def __len__(self) -> int:
        """Return how many distinct shapes there are."""
        return len(self._by_shape)


@lru_cache(maxsize=4096)
def cpu_text(mask: int) -> str:
    """Return a CPU mask as a list.

    >>> cpu_text(0b100000111)
    '0-2,8'
    """
    return as_list(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def nic_mask(machine: Machine, ids: Iterable[str]) -> int:
    """Return the mask of NICs by id; one that is no longer there has no bit."""
    wanted = set(ids)
    return sum(1 << at for at, nic in enumerate(machine.nics) if nic.id in wanted)


def nic_ids(machine: Machine, mask: int) -> tuple[str, ...]:
    """Return the ids of the NICs in a mask, in the machine's order."""
    return tuple(nic.id for at, nic in enumerate(machine.nics) if mask >> at & 1)


def penalties(
    machine: Machine, local: LocalTable, gpus: int, *, far_cores: int = 0, far_bytes: int = 0, nic_path: str = ""
) -> tuple[str, ...]:
    """Return what is worse than it could be about a set of GPUs and what was chosen for it, as sentences.

    `far_cores` and `far_bytes` are what `cores_for` and `memory_for` took from elsewhere, `nic_path` the word of
    `LocalTable.nic_path`.
    """
    found: list[str] = []
    if far_cores:
        found.append(f"{far_cores} CPUs are not on the NUMA nodes of the GPUs")
    if far_bytes:
        found.append(f"{far_bytes} bytes of memory are not on the NUMA nodes of the GPUs")
    if nic_path and nic_path not in NEAR_A_NIC:
        found.append(f"a NIC is reached over {nic_path}")
    for switch, below, load in local.shared_uplinks(gpus):
        names = ", ".join(gpu.id for at, gpu in enumerate(machine.gpus) if below >> at & 1)
        found.append(f"{names} share the uplink of {switch}, {load // 1000}.{load % 1000 // 100} times over")
    return tuple(found)


def _remember(answers: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    if len(answers) >= _ANSWERS_UP_TO:
        answers.clear()
    answers[key] = value
    return value


def _fastest_islands(pace: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Return (pace, lowest member) of the island of each GPU: those it is joined to by the fastest pairs it has."""
    count = len(pace)
    found: dict[int, tuple[int, int]] = {}
    group = list(range(count))
    for least in sorted({rate for row in pace for rate in row if rate}, reverse=True):
        for a in range(count):
            for b in range(count):
                if pace[a][b] >= least and group[a] != group[b]:
                    low, high = sorted((group[a], group[b]))
                    group = [low if at == high else at for at in group]
        for at in range(count):
            if group.count(group[at]) > 1:
                found.setdefault(at, (least, group[at]))
    return tuple(found.get(at, (0, at)) for at in range(count))
