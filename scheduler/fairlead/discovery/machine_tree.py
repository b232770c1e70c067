"""From a PCI tree and what else is known of its devices to a `Machine`. Shared by sysfs snapshots and hwloc's XML."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from fairlead.discovery.gpu_models import described, product_of
from fairlead.discovery.numa import Host
from fairlead.discovery.pci_tree import NVIDIA, PciTree, pcie_link
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Drive, Gpu, Link, Machine, Nic, NvSwitch, PcieLink, PciFunction, Wire
from fairlead.topology.paths import theoretical_pace

MOST_DEVICES = 256
"""GPUs, NICs and drives of one machine; more are refused."""

NIC_PAIRS_UP_TO = 64
"""NICs up to which the paths between them are listed too; beyond it they would be most of the machine."""

_SUPERCHIP = re.compile(r"(?<![A-Za-z0-9])G[BH][23]00(?![0-9])")  # GPUs that share a board and memory with Grace
_PCIE4_X16_BYTES_PER_S = 16 * 1_969_230_769  # what the paces of `theoretical_pace` are for


@dataclass(slots=True)
class DeviceFacts:
    """What a source knows of one function besides its place; "" and 0 where it does not."""

    index: int = -1
    minor: int = -1
    uuid: str = ""
    model: str = ""
    serial: str = ""
    vbios: str = ""
    memory_bytes: int = 0
    netdevs: list[str] = field(default_factory=list[str])
    rdma: str = ""
    guid: str = ""
    state: str = ""
    kind: str = ""
    bytes_per_s: int = 0
    drive: str = ""


class NvLinkPair(NamedTuple):
    """NVLinks between two functions (GPUs or NVSwitches) by PCI address; bytes/s in one direction of all together."""

    a: str
    b: str
    lanes: int
    bytes_per_s: int


@dataclass(slots=True)
class Facts:
    """Everything beside the tree."""

    source: str
    devices: dict[str, DeviceFacts] = field(default_factory=dict[str, DeviceFacts])
    nvlinks: list[NvLinkPair] = field(default_factory=list[NvLinkPair])
    iommu: str = ""
    driver_version: str = ""
    product: str = ""
    warnings: list[str] = field(default_factory=list[str])

    def of(self, pci: str) -> DeviceFacts:
        """Return the facts of a function, empty ones if there are none yet; they may be filled in."""
        return self.devices.setdefault(pci, DeviceFacts())


def assemble(tree: PciTree, host: Host, facts: Facts) -> Machine:
    """Return the machine: GPUs in the driver's order where it is known, else in that of their PCI addresses.

    Virtual functions whose physical one is here are no devices of their own. Paces of PCIe paths are theoretical, and
    scaled by the slower of the two slots.

    Raises
    ------
    UnreadableInput
        More than `MOST_DEVICES` devices.
    """
    functions = [f for f in tree.functions.values() if f.physical not in tree.functions]
    of_kind = {kind: [f for f in functions if f.kind == kind] for kind in ("gpu", "nic", "storage", "nvswitch")}
    if sum(map(len, of_kind.values())) > MOST_DEVICES:
        raise UnreadableInput(f"{facts.source}: more than {MOST_DEVICES} GPUs, NICs and drives; no machine has as many")
    gpus = _gpus(tree, host, facts, of_kind["gpu"])
    nics = _nics(tree, host, facts, of_kind["nic"])
    drives = [_drive(tree, host, facts, f) for f in of_kind["storage"]]
    switches = [
        NvSwitch(
            id=f"NVSwitch{at}",
            pci=f.id,
            numa=f.numa,
            pcie_root=tree.root(f.id),
            pcie_parent=f.parent,
            pcie=f.link,
        )
        for at, f in enumerate(sorted(of_kind["nvswitch"], key=lambda f: f.id))
    ]
    _complain(tree, host, facts, (*gpus, *nics))
    paths = _Paths(tree, facts)
    links: list[Link] = []
    for at, gpu in enumerate(gpus):
        links += [paths.link(gpu, peer) for peer in gpus[at + 1 :]]
        links += [paths.link(gpu, nic) for nic in nics]
    if len(nics) <= NIC_PAIRS_UP_TO:
        links += [paths.link(a, b) for at, a in enumerate(nics) for b in nics[at + 1 :]]
    storage = [paths.link(gpu, drive) for gpu in gpus for drive in drives]
    names = {gpu.pci: gpu.id for gpu in gpus} | {switch.pci: switch.id for switch in switches}
    return Machine(
        source=facts.source,
        gpus=tuple(gpus),
        nics=tuple(nics),
        numa_nodes=host.nodes,
        links=tuple(link for link in links if link.path),
        packages=host.packages,
        memory_nodes=host.memory_nodes,
        pcie=tuple(tree.functions.values()),
        nvswitches=tuple(switches),
        wires=(*_wires(facts.nvlinks, names), *_coherent(gpus)),
        drives=tuple(drives),
        storage_links=tuple(link for link in storage if link.path),
        iommu=facts.iommu,
        driver_version=facts.driver_version,
        product=facts.product,
    )


def _gpus(tree: PciTree, host: Host, facts: Facts, functions: list[PciFunction]) -> list[Gpu]:
    told = [facts.of(f.id).index for f in functions]
    numbered = bool(told) and min(told) >= 0 and len(set(told)) == len(told)
    ordered = sorted(functions, key=lambda f: (facts.of(f.id).index if numbered else 0, pci_order(f.id)))
    memory_numa = {node.gpu: node.id for node in host.memory_nodes}
    # A minor number is the driver's own word for a GPU; who has none gets the first number that is nobody's.
    minors = [facts.of(function.id).minor for function in ordered]
    spare = (number for number in itertools.count() if number not in minors)
    gpus: list[Gpu] = []
    for at, function in enumerate(ordered):
        fact = facts.of(function.id)
        index = fact.index if numbered else at
        known = fact.minor >= 0 and minors.index(fact.minor) == at
        number = fact.minor if known else next(spare)
        gpu = Gpu(
            id=f"GPU{index}",
            index=index,
            device=f"gpu-{number}",
            uuid=fact.uuid,
            pci=function.id,
            model=fact.model or (product_of(function.product) if function.vendor == NVIDIA else ""),
            memory_bytes=fact.memory_bytes,
            numa=function.numa,
            pcie_root=tree.root(function.id),
            pcie_switch=tree.switches(function.id),
            package=host.package_of(function.numa),
            memory_numa=memory_numa.get(function.id, -1),
            pcie_parent=function.parent,
            pcie=function.link,
            minor=fact.minor,
            serial=fact.serial,
            vbios=fact.vbios,
        )
        gpus.append(described(gpu))
    return gpus


def _nics(tree: PciTree, host: Host, facts: Facts, functions: list[PciFunction]) -> list[Nic]:
    nics: list[Nic] = []
    taken: set[str] = set()
    for function in sorted(functions, key=lambda f: pci_order(f.id)):
        fact = facts.of(function.id)
        names = [name for name in (fact.rdma, *fact.netdevs, function.id) if name and name not in taken]
        taken.add(names[0])
        nics.append(
            Nic(
                id=names[0],
                pci=function.id,
                numa=function.numa,
                pcie_root=tree.root(function.id),
                pcie_switch=tree.switches(function.id),
                bytes_per_s=fact.bytes_per_s,
                kind=fact.kind
                or {0x0207: "infiniband", 0x0C06: "infiniband"}.get(function.class_code >> 8, "ethernet"),
                netdevs=tuple(fact.netdevs),
                rdma=fact.rdma,
                guid=fact.guid,
                state=fact.state,
                package=host.package_of(function.numa),
                pcie_parent=function.parent,
                pcie=function.link,
            )
        )
    return nics


def _drive(tree: PciTree, host: Host, facts: Facts, function: PciFunction) -> Drive:
    return Drive(
        id=facts.of(function.id).drive or function.id,
        pci=function.id,
        numa=function.numa,
        pcie_root=tree.root(function.id),
        pcie_switch=tree.switches(function.id),
        package=host.package_of(function.numa),
        pcie_parent=function.parent,
        pcie=function.link,
    )


def _complain(tree: PciTree, host: Host, facts: Facts, devices: tuple[Gpu | Nic, ...]) -> None:
    gpus = [device for device in devices if isinstance(device, Gpu)]
    if not gpus:
        facts.warnings.append("pci: no GPU among the functions")
    for device in devices:
        if device.numa < 0:
            facts.warnings.append(
                f"{device.pci}: {device.id}: NUMA node unknown (-1) on a machine of {len(host.nodes)}"
            )
    switches = sum(f.kind == "nvswitch" for f in tree.functions.values())
    if switches and len(gpus) > 1 and not facts.nvlinks:
        facts.warnings.append(
            f"pci: {switches} NVSwitches, and this source does not see NVLinks; paths of GPUs are those of PCIe alone"
        )


def pci_order(pci: str) -> tuple[int, ...]:
    """Return a sort key that puts PCI addresses in the order in which the driver numbers GPUs."""
    return tuple(int(part, 16) for part in pci.replace(".", ":").split(":"))


class _Paths:
    """Links between devices of one machine."""

    def __init__(self, tree: PciTree, facts: Facts) -> None:
        self._tree = tree
        self._iommu = facts.iommu
        self._direct = {tuple(sorted((a, b))): (lanes, pace) for a, b, lanes, pace in facts.nvlinks}
        is_switch = {f.id for f in tree.functions.values() if f.kind == "nvswitch"}
        self._switched: dict[str, tuple[int, int]] = {}
        group: dict[str, str] = {}
        trunks = False
        for a, b, lanes, pace in facts.nvlinks:
            if a not in is_switch and b not in is_switch:
                continue
            low, high = sorted((group.setdefault(a, a), group.setdefault(b, b)))
            group = {pci: low if at == high else at for pci, at in group.items()}
            trunks = trunks or (a in is_switch and b in is_switch)
            for gpu in {a, b} - is_switch:
                known = self._switched.get(gpu, (0, 0))
                self._switched[gpu] = (known[0] + lanes, known[1] + pace)
        self._fabric = {gpu: group[gpu] for gpu in self._switched}
        boards = set(self._fabric.values())
        if len(boards) > 1 and not trunks:
            # No source lists the links between switches of two boards, and no such machine was built without them.
            facts.warnings.append(
                f"nvlink: GPUs hang on {len(boards)} separate groups of NVSwitches and no link between switches is "
                "listed; they are taken as one fabric"
            )
            self._fabric = dict.fromkeys(self._fabric, "")

    def link(self, a: Gpu | Nic, b: Gpu | Nic | Drive) -> Link:
        """Return the best path of a pair; its `path` is "" where nothing is known."""
        if isinstance(a, Gpu) and isinstance(b, Gpu):
            count, pace = self._nvlinks(a.pci, b.pci)
            if count:
                return Link(a=a.id, b=b.id, path=f"NV{min(count, 999)}", bytes_per_s=pace)
        path = self._tree.path(a.pci, b.pci)
        if path == "NODE" and isinstance(a, Gpu) and isinstance(b, Nic) and _SUPERCHIP.search(a.model):
            path = "SYS"  # the GPU's traffic to the host takes C2C, not PCIe; nvidia-smi says SYS for all its NICs
        rates = [rate for rate in (_slot(a.pcie), _slot(b.pcie)) if rate]
        pace = theoretical_pace(path)
        p2p = self._tree.redirected(a.pci, b.pci) if path in ("PIX", "PXB") else ""
        return Link(
            a=a.id,
            b=b.id,
            path=path,
            bytes_per_s=pace * min(rates) // _PCIE4_X16_BYTES_PER_S if rates else pace,
            p2p=p2p,
            direct="" if isinstance(a, Nic) or isinstance(b, Gpu) or not path else self._dma(path, p2p),
        )

    def _nvlinks(self, a: str, b: str) -> tuple[int, int]:
        """Return (NVLinks, bytes/s) between two GPUs: direct ones, else what both have to the same switches."""
        direct = self._direct.get(tuple(sorted((a, b))))
        if direct:
            return direct
        if a in self._fabric and self._fabric[a] == self._fabric.get(b):
            return min(self._switched[a], self._switched[b])
        return (0, 0)

    def _dma(self, path: str, p2p: str) -> str:
        """Return whether a GPU and a NIC or drive reach each other directly, as far as IOMMU and bridges tell."""
        if self._iommu == "translated":
            return "absent"
        if self._iommu not in ("off", "passthrough"):
            return ""
        return "available" if path in ("PIX", "PXB") and p2p != "redirected" else "partial"


def _slot(link: PcieLink) -> int:
    """Return bytes/s of a slot when it is busy: an idle GPU lowers the generation, never the lanes; 0 unknown."""
    busy = pcie_link(link.max_generation or link.generation, link.lanes or link.max_lanes).bytes_per_s
    return busy or link.bytes_per_s


def _coherent(gpus: list[Gpu]) -> list[Wire]:
    """Return the links between CPUs and GPUs whose memory is the CPUs' too: C2C of Grace, NVLink of POWER9."""
    return [
        Wire(a=gpu.id, b=f"numa:{gpu.numa}", kind="c2c" if _SUPERCHIP.search(gpu.model) else "nvlink", count=1)
        for gpu in gpus
        if gpu.numa >= 0 and (gpu.memory_numa >= 0 or _SUPERCHIP.search(gpu.model))
    ]


def _wires(nvlinks: list[NvLinkPair], names: dict[str, str]) -> tuple[Wire, ...]:
    return tuple(
        Wire(a=names[a], b=names[b], count=lanes, bytes_per_s=pace)
        for a, b, lanes, pace in nvlinks
        if a in names and b in names
    )
