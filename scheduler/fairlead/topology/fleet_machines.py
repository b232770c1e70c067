"""The machines of the built-in fleets, written from the public layouts of the products they are named after.

Paces are theoretical (see `fairlead.topology.paths`), NICs count their line rate. What a machine has of its own (names,
UUIDs) is put in by `identified`; all copies share one tuple of links.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fairlead.discovery.mig_slices import canonical
from fairlead.discovery.mig_tables import profiles_of
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead.model.partitions import MigGeometry, MigInstance
from fairlead.topology.paths import theoretical_pace, tree_class

GIB = 1 << 30
NVLINK5_BYTES_PER_S = 50_000_000_000  # one link, one direction; 18 of them make 900 GB/s


def dgx_a100() -> Machine:
    """Two EPYC in eight NUMA nodes; GPU pairs on nodes 3, 1, 7, 5, two NICs to a pair over cascaded switches; NV12."""
    gpus: list[Gpu] = []
    nics: list[Nic] = []
    for group, numa in enumerate((3, 1, 7, 5)):
        root = f"pci0000:{(0x00, 0x40, 0x80, 0xC0)[group]:02x}"
        for side in (0, 1):
            i = 2 * group + side
            bus = (0x07, 0x0F, 0x47, 0x4E, 0x87, 0x90, 0xB7, 0xBD)[i]
            gpus.append(
                Gpu(
                    id=f"GPU{i}",
                    index=i,
                    device=f"gpu-{i}",
                    pci=f"0000:{bus:02x}:00.0",
                    model="NVIDIA A100-SXM4-80GB",
                    memory_bytes=80 * GIB,
                    numa=numa,
                    pcie_root=root,
                    pcie_switch=f"switch{group}/gpus",
                )
            )
            nics.append(_nic(i, bus=(0x0C, 0x12, 0x4B, 0x54, 0x8D, 0x94, 0xBA, 0xCC)[i], numa=numa, root=root,
                             switch=f"switch{group}/nics", bytes_per_s=25_000_000_000))  # fmt: skip
    numa_nodes = tuple(
        NumaNode(
            id=n,
            cpus=f"{16 * n}-{16 * n + 15},{128 + 16 * n}-{128 + 16 * n + 15}",
            memory_bytes=256 * GIB,
            distances=tuple(10 if n == m else 12 if n // 4 == m // 4 else 32 for m in range(8)),
        )
        for n in range(8)
    )
    return _joined("dgx-a100", gpus, nics, numa_nodes, nvlinks=12)


def hgx_h100() -> Machine:
    """Two sockets; every GPU shares a PCIe switch with its own 400 Gb/s NIC; NV18 between all GPUs."""
    gpus: list[Gpu] = []
    nics: list[Nic] = []
    for i, bus in enumerate((0x19, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB)):
        root, numa = f"pci0000:{bus - 4:02x}", i // 4
        gpus.append(
            Gpu(
                id=f"GPU{i}",
                index=i,
                device=f"gpu-{i}",
                pci=f"0000:{bus:02x}:00.0",
                model="NVIDIA H100 80GB HBM3",
                memory_bytes=81_559 << 20,
                numa=numa,
                pcie_root=root,
                pcie_switch=f"switch{i}",
            )
        )
        nics.append(_nic(i, bus=bus - 1, numa=numa, root=root, switch=f"switch{i}", bytes_per_s=50_000_000_000))
    return _joined("hgx-h100", gpus, nics, _sockets(2, 48, 1024 * GIB, threads=2), nvlinks=18, pcie_generation=5)


def a100_cut() -> Machine:
    """A DGX A100 whose last four GPUs are cut: two into seven, one into halves and quarters, one into 4g and 3g."""
    machine = dgx_a100()
    sevenths = tuple(("1g.10gb", start) for start in range(7))
    layouts = (sevenths, sevenths, (("2g.20gb", 0), ("2g.20gb", 2), ("3g.40gb", 4)), (("4g.40gb", 0), ("3g.40gb", 4)))
    cut = tuple(_cut(gpu, layout) for gpu, layout in zip(machine.gpus[4:], layouts, strict=True))
    return replace(machine, gpus=(*machine.gpus[:4], *cut))


def h100_dynamic() -> Machine:
    """An HGX H100 whose driver makes MIG instances as they are allocated, on every GPU."""
    machine = hgx_h100()
    gpus: list[Gpu] = []
    for gpu in machine.gpus:
        profiles = profiles_of(gpu.model, gpu.memory_bytes)
        geometry = MigGeometry(enabled=False, pending=False, profiles=profiles, dynamic=True)
        gpus.append(replace(gpu, mig=geometry, mig_profiles=tuple(sorted(p.name for p in profiles))))
    return replace(machine, gpus=tuple(gpus))


def gb200_tray() -> Machine:
    """A compute tray: four GPUs on two Grace, reached by C2C, so every NIC is SYS away; NVLink 5 to all 72 GPUs."""
    gpus = [
        Gpu(
            id=f"GPU{i}",
            index=i,
            device=f"gpu-{i}",
            pci=f"{(0x0008, 0x0009, 0x0018, 0x0019)[i]:04x}:01:00.0",
            model="NVIDIA GB200",
            memory_bytes=186 * 10**9,
            numa=i // 2,
            pcie_root=f"c2c{i}",
        )
        for i in range(4)
    ]
    nics = [
        _nic(
            i,
            domain=(0x0000, 0x0002, 0x0010, 0x0012)[i],
            bus=0x03,
            numa=i // 2,
            root=f"pci{(0x0000, 0x0002, 0x0010, 0x0012)[i]:04x}:00",
            switch="",
            bytes_per_s=50_000_000_000,
        )
        for i in range(4)
    ]
    numa_nodes = _sockets(2, 72, 480 * GIB, threads=1, across=40)
    return _joined("gb200-nvl72", gpus, nics, numa_nodes, nvlinks=18, pcie_generation=5,
                   nvlink_bytes_per_s=NVLINK5_BYTES_PER_S, nic_path="SYS")  # fmt: skip


def pcie_l40s() -> Machine:
    """No NVLink: eight GPUs, two and a 200 Gb/s NIC below each of four switches, two switches a socket."""
    gpus: list[Gpu] = []
    nics: list[Nic] = []
    for group, base in enumerate((0x16, 0x4A, 0x96, 0xC6)):
        root, switch, numa = f"pci0000:{base:02x}", f"switch{group}", group // 2
        for side in (0, 1):
            i = 2 * group + side
            gpus.append(
                Gpu(
                    id=f"GPU{i}",
                    index=i,
                    device=f"gpu-{i}",
                    pci=f"0000:{base + 3 + side:02x}:00.0",
                    model="NVIDIA L40S",
                    memory_bytes=46_068 << 20,
                    numa=numa,
                    pcie_root=root,
                    pcie_switch=switch,
                )
            )
        nics.append(_nic(group, bus=base + 6, numa=numa, root=root, switch=switch, bytes_per_s=25_000_000_000))
    return _joined("pcie-l40s", gpus, nics, _sockets(2, 32, 512 * GIB, threads=2), nvlinks=0)


def identified(machine: Machine, node: str) -> Machine:
    """Return `machine` as the one of `node`: every GPU has a UUID and a PCI address that follow from the node's name.

    What a GPU already has is kept. Links and everything else are shared with `machine`.
    """
    gpus: list[Gpu] = []
    for position, gpu in enumerate(machine.gpus):
        digest = hashlib.sha256(f"{node}/{gpu.id}".encode()).hexdigest()
        uuid = f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
        gpus.append(replace(gpu, uuid=gpu.uuid or uuid, pci=gpu.pci or f"0000:{0x10 + 8 * position:02x}:00.0"))
    return replace(machine, gpus=tuple(gpus))


def _cut(gpu: Gpu, layout: tuple[tuple[str, int], ...]) -> Gpu:
    """Return the GPU in MIG mode with these (profile, start), which alone can be allocated."""
    profiles = profiles_of(gpu.model, gpu.memory_bytes)
    by_name = {p.name: p for p in profiles}
    instances = tuple(
        MigInstance(
            id=at + 1,
            profile=by_name[name].id,
            start=start,
            size=by_name[name].size,
            device=canonical(gpu, by_name[name], start),
        )
        for at, (name, start) in enumerate(layout)
    )
    geometry = MigGeometry(enabled=True, pending=True, profiles=profiles, instances=instances)
    names = tuple(sorted(by_name))
    return replace(gpu, mig=geometry, mig_enabled=True, mig_profiles=names, whole=False)


def _nic(i: int, *, bus: int, numa: int, root: str, switch: str, bytes_per_s: int, domain: int = 0) -> Nic:
    return Nic(
        id=f"NIC{i}",
        pci=f"{domain:04x}:{bus:02x}:00.0",
        numa=numa,
        pcie_root=root,
        pcie_switch=switch,
        bytes_per_s=bytes_per_s,
        rail=i,
    )


def _sockets(count: int, cores: int, memory_bytes: int, *, threads: int, across: int = 21) -> tuple[NumaNode, ...]:
    """One NUMA node per socket; the second hardware threads are numbered after all first ones."""
    return tuple(
        NumaNode(
            id=n,
            cpus=",".join(
                f"{t * count * cores + n * cores}-{t * count * cores + (n + 1) * cores - 1}" for t in range(threads)
            ),
            memory_bytes=memory_bytes,
            distances=tuple(10 if n == m else across for m in range(count)),
        )
        for n in range(count)
    )


def _joined(
    source: str,
    gpus: list[Gpu],
    nics: list[Nic],
    numa_nodes: tuple[NumaNode, ...],
    *,
    nvlinks: int,
    pcie_generation: int = 4,
    nvlink_bytes_per_s: int = 25_000_000_000,
    nic_path: str = "",
) -> Machine:
    """Make the links: GPUs to each other over NVLink where there is any, everything else as the PCIe tree says."""
    links: list[Link] = []
    for at, gpu in enumerate(gpus):
        for peer in gpus[at + 1 :]:
            path = f"NV{nvlinks}" if nvlinks else tree_class(gpu, peer)
            pace = theoretical_pace(path, pcie_generation=pcie_generation, nvlink_bytes_per_s=nvlink_bytes_per_s)
            links.append(Link(a=gpu.id, b=peer.id, path=path, bytes_per_s=pace))
        for nic in nics:
            path = nic_path or tree_class(gpu, nic)
            pace = theoretical_pace(path, pcie_generation=pcie_generation)
            links.append(Link(a=gpu.id, b=nic.id, path=path, bytes_per_s=pace))
    return Machine(source=source, gpus=tuple(gpus), nics=tuple(nics), numa_nodes=numa_nodes, links=tuple(links))
