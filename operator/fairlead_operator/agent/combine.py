"""One machine from what NVML and what the PCI tree say of the same node. Pure.

GPUs are NVML's: it alone knows UUIDs, models and NVLink. Where they hang is the PCI tree's, matched by address; so are
NICs, drives, NUMA nodes and the paths to them. What both say and differ in is reported, and the tree is believed.
"""

from __future__ import annotations

from dataclasses import replace

from fairlead.model.hardware import Gpu, Link, Machine
from fairlead.topology.paths import CLASSES


def combine(nvml: Machine, tree: Machine) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, disagreements as sentences)."""
    warnings: list[str] = []
    by_pci = {gpu.pci: gpu for gpu in tree.gpus if gpu.pci}
    names: dict[str, str] = {}
    gpus: list[Gpu] = []
    for gpu in nvml.gpus:
        place = by_pci.get(gpu.pci)
        if place is None:
            warnings.append(f"{gpu.id} at {gpu.pci or 'no address'} is not in the PCI tree; where it hangs is unknown")
            gpus.append(gpu)
            continue
        names[place.id] = gpu.id
        if gpu.numa >= 0 and place.numa >= 0 and gpu.numa != place.numa:
            warnings.append(f"{gpu.id}: NVML says NUMA node {gpu.numa}, the PCI tree {place.numa}; the tree is taken")
        gpus.append(_placed(gpu, place))
    for gpu in tree.gpus:
        if gpu.id not in names:
            warnings.append(f"the GPU at {gpu.pci} of the PCI tree is not seen by NVML")
    nics = {nic.id for nic in tree.nics}
    links = [*nvml.links]
    for link in tree.links:
        a, b = names.get(link.a, link.a), names.get(link.b, link.b)
        if (link.a in names and b in nics) or (link.b in names and a in nics):
            links.append(replace(link, a=a, b=b))
    wires = [replace(wire, a=names.get(wire.a, wire.a), b=names.get(wire.b, wire.b)) for wire in tree.wires]
    wired = {frozenset((wire.a, wire.b)) for wire in nvml.wires}
    warnings += _differences(nvml, tree, names)
    return (
        replace(
            tree,
            source=nvml.source,
            gpus=tuple(gpus),
            links=tuple(links),
            wires=(*nvml.wires, *(wire for wire in wires if frozenset((wire.a, wire.b)) not in wired)),
            storage_links=tuple(replace(x, a=names.get(x.a, x.a), b=names.get(x.b, x.b)) for x in tree.storage_links),
            clique=nvml.clique or tree.clique,
            driver_version=nvml.driver_version or tree.driver_version,
        ),
        tuple(warnings),
    )


def _placed(gpu: Gpu, place: Gpu) -> Gpu:
    """Return NVML's GPU at the tree's place."""
    return replace(
        gpu,
        numa=place.numa if place.numa >= 0 else gpu.numa,
        pcie_root=place.pcie_root,
        pcie_switch=place.pcie_switch,
        package=place.package,
        memory_numa=place.memory_numa,
        pcie_parent=place.pcie_parent,
        pcie=place.pcie,
        architecture=gpu.architecture or place.architecture,
        formats=gpu.formats or place.formats,
        partitions_max=gpu.partitions_max or place.partitions_max,
        vbios=gpu.vbios or place.vbios,
    )


def _differences(nvml: Machine, tree: Machine, names: dict[str, str]) -> list[str]:
    """Return where both name a PCIe class for a pair of GPUs, and not the same one."""

    def classes(links: tuple[Link, ...], rename: dict[str, str]) -> dict[frozenset[str], str]:
        return {frozenset((rename.get(x.a, x.a), rename.get(x.b, x.b))): x.path for x in links if x.path in CLASSES}

    said = classes(nvml.links, {})
    computed = classes(tuple(x for x in tree.links if x.a in names and x.b in names), names)
    return [
        f"{'-'.join(sorted(pair))}: NVML says {path}, the PCI tree {computed[pair]}; NVML is taken"
        for pair, path in said.items()
        if pair in computed and computed[pair] != path
    ]
