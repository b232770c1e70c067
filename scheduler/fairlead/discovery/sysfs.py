"""A machine from its ``/sys`` and ``/proc``: the node itself, a copied directory, or a tarball of one.

What these files cannot tell is NVLink: paths between GPUs are those of PCIe, and a warning says so where the machine
has NVSwitches.
"""

from __future__ import annotations

import re
from pathlib import Path

from fairlead.discovery.machine_tree import DeviceFacts, Facts, assemble
from fairlead.discovery.numa import read_host
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.pci_tree import DEVICES, PciTree, read_pci
from fairlead.discovery.snapshot import Snapshot, read_directory, read_tarball
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Machine

_DRIVER = "proc/driver/nvidia"
_UUID = re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_RATE = re.compile(r"([0-9]{1,4}(?:\.[0-9])?)\s*Gb/sec.*")


def read(path: Path, *, name: str = "") -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings ``name: where: what``) of a directory or tarball with ``sys`` and ``proc``.

    Raises
    ------
    UnreadableInput
        Neither a directory nor a tarball, nothing of a machine in it, or more devices than a machine has.
    """
    shown = name or str(path)
    if path.is_dir():
        return describe(read_directory(path, name=shown))
    try:
        data = path.read_bytes()
    except OSError as failed:
        raise UnreadableInput(f"{shown}: {failed.strerror or failed}") from None
    return parse_tarball(data, name=shown)


def parse_tarball(data: bytes, *, name: str) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings) for the bytes of a tarball (plain, gzip, bzip2, xz).

    Raises
    ------
    UnreadableInput
        As `read`.
    """
    return describe(read_tarball(data, name=name))


def describe(files: Snapshot) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings) of an opened snapshot.

    Raises
    ------
    UnreadableInput
        More devices than a machine has, or neither CPUs nor NUMA nodes nor PCI functions.
    """
    facts = Facts(source=files.name)
    host = read_host(files)
    tree = read_pci(files, host, facts.warnings)
    if not host.cpus and not tree.functions and not files.names("sys/devices/system/node"):
        raise UnreadableInput(f"{files.name}: neither CPUs nor NUMA nodes nor PCI functions in it; is it a snapshot?")
    _driver(files, facts)
    _interfaces(files, tree, facts)
    _rdma(files, tree, facts)
    _drives(files, tree, facts)
    facts.iommu = _iommu(files, tree)
    facts.product = files.text("sys/class/dmi/id/product_name")[:128]
    machine = assemble(tree, host, facts)
    return machine, tuple(f"{files.name}: {warning}" for warning in (*host.warnings, *facts.warnings))


def _driver(files: Snapshot, facts: Facts) -> None:
    """Read what NVIDIA's driver says of its GPUs."""
    for name in files.names(f"{_DRIVER}/gpus"):
        pci = normal_pci(name)
        if not pci:
            continue
        said: dict[str, str] = {}
        for line in files.text(f"{_DRIVER}/gpus/{name}/information").splitlines():
            key, _, value = line.partition(":")
            said[key.strip()] = value.strip()[:128]
        fact = facts.of(pci)
        fact.model = said.get("Model", "")
        fact.uuid = said.get("GPU UUID", "") if _UUID.fullmatch(said.get("GPU UUID", "")) else ""
        fact.vbios = said.get("Video BIOS", "").replace("?", "").strip(".")
        minor = said.get("Device Minor", "")
        fact.minor = int(minor) if minor.isdecimal() and len(minor) < 5 else -1
    version = re.search(r"Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)", files.text(f"{_DRIVER}/version"))
    facts.driver_version = version[1] if version else files.text("sys/module/nvidia/version")[:32]


def _function_of(files: Snapshot, folder: str, tree: PciTree) -> str:
    """Return the innermost PCI function above a class device, "" for a virtual one."""
    for path in (f"{folder}/device", folder):
        for part in reversed(files.resolve(path)):
            if (pci := normal_pci(part)) in tree.functions:
                return pci
    return ""


def _interfaces(files: Snapshot, tree: PciTree, facts: Facts) -> None:
    """Read network interfaces; a bond over one is named with it."""
    for name in files.names("sys/class/net"):
        folder = f"sys/class/net/{name}"
        pci = _function_of(files, folder, tree)
        if pci:
            _interface(files, folder, name, facts.of(pci))
    for pci in tree.functions:
        for name in files.names(f"{DEVICES}/{pci}/net"):
            if name not in facts.of(pci).netdevs:
                _interface(files, f"{DEVICES}/{pci}/net/{name}", name, facts.of(pci))


def _interface(files: Snapshot, folder: str, name: str, fact: DeviceFacts) -> None:
    fact.netdevs.append(name)
    bond = files.target(f"{folder}/master")
    if bond and bond not in fact.netdevs:
        fact.netdevs.append(bond)
    speed = files.text(f"{folder}/speed")
    if speed.isdecimal() and len(speed) < 8:
        fact.bytes_per_s += int(speed) * 1_000_000 // 8
    state = files.text(f"{folder}/operstate")
    fact.state = state if state in ("up", "down") and fact.state != "up" else fact.state
    fact.kind = fact.kind or {"1": "ethernet", "32": "infiniband"}.get(files.text(f"{folder}/type"), "")


def _rdma(files: Snapshot, tree: PciTree, facts: Facts) -> None:
    """Read RDMA devices: their ports know rate, state and what they speak better than the interfaces do."""
    for name in files.names("sys/class/infiniband"):
        folder = f"sys/class/infiniband/{name}"
        pci = _function_of(files, folder, tree)
        if not pci:
            continue
        fact = facts.of(pci)
        fact.rdma = fact.rdma or name
        fact.guid = files.text(f"{folder}/node_guid")[:32]
        rates: list[int] = []
        for port in files.names(f"{folder}/ports"):
            rate = _RATE.fullmatch(files.text(f"{folder}/ports/{port}/rate"))
            active = files.text(f"{folder}/ports/{port}/state").endswith("ACTIVE")
            layer = files.text(f"{folder}/ports/{port}/link_layer").lower()
            fact.kind = layer if layer in ("ethernet", "infiniband") else fact.kind
            fact.state = "up" if active else fact.state or "down"
            if rate:
                rates.append(round(float(rate[1]) * 10) * 100_000_000 // 8 if active else 0)
        fact.bytes_per_s = sum(rates) or fact.bytes_per_s


def _drives(files: Snapshot, tree: PciTree, facts: Facts) -> None:
    for name in files.names("sys/class/nvme"):
        if (pci := _function_of(files, f"sys/class/nvme/{name}", tree)) != "":
            facts.of(pci).drive = facts.of(pci).drive or name
    for name in files.names("sys/class/block"):
        controller = re.match(r"nvme[0-9]{1,4}(?=n)", name)
        if controller and (pci := _function_of(files, f"sys/class/block/{name}", tree)) != "":
            facts.of(pci).drive = facts.of(pci).drive or controller[0]


def _iommu(files: Snapshot, tree: PciTree) -> str:
    """Return the DMA posture of the GPUs' groups; "" where the snapshot does not have what tells."""
    groups = sorted({f.iommu_group for f in tree.functions.values() if f.iommu_group >= 0 and f.kind == "gpu"})
    if not groups:
        for folder in ("sys/kernel/iommu_groups", "sys/class/iommu"):
            if files.exists(folder) and not files.names(folder):
                return "off"
        return ""
    types = {files.text(f"sys/kernel/iommu_groups/{group}/type") for group in groups}
    if any(kind.startswith("DMA") for kind in types):
        return "translated"
    if types == {"identity"} or "iommu=pt" in files.text("proc/cmdline").split():
        return "passthrough"
    return ""
