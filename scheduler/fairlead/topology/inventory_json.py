"""The JSON document of an inventory, as `fairlead topology show --json` prints it; `docs/reference/topology.md`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fairlead.model.fabric import GROUPS, TIERS, Fabric, Inventory, NamedMachine, Warned
from fairlead.model.hardware import Gpu, Link, Machine, Measured, Nic, NumaNode, PcieLink
from fairlead.model.partitions import MigGeometry
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.topology.graph import device_graph, parent
from fairlead.topology.islands import islands
from fairlead.topology.paths import latency_class
from fairlead.topology.queries import NicChoice, nic_choices

Document = dict[str, Any]


def document(inventory: Inventory, more: tuple[Warned, ...] = ()) -> Document:
    """Return the document; `more` are further warnings, such as contradictions."""
    return {
        "source": inventory.source,
        "machines": [machine_document(found) for found in inventory.machines],
        "fabric": _fabric(inventory.fabric),
        "warnings": [{"where": found.where, "what": found.what} for found in (*inventory.warnings, *more)],
    }


def machine_document(found: NamedMachine) -> Document:
    """Return one machine's part of the document."""
    machine = found.machine
    choices = nic_choices(machine)
    return {
        "name": found.name,
        "sources": [{"kind": kind, "name": name} for kind, name in found.sources],
        "product": machine.product,
        "driver_version": machine.driver_version,
        "iommu": machine.iommu,
        "clique": machine.clique,
        "observed_at_ms": machine.observed_at_ms,
        "gpus": [_gpu(gpu, choices[gpu.id]) for gpu in machine.gpus],
        "nics": [_nic(nic) for nic in machine.nics],
        "drives": [
            _place(drive) | {"id": drive.id, "pci": drive.pci, "pcie": _pcie(drive.pcie)} for drive in machine.drives
        ],
        "nvswitches": [
            {
                "id": switch.id,
                "pci": switch.pci,
                "uuid": switch.uuid,
                "numa": _known(switch.numa),
                "pcie_root": switch.pcie_root,
                "healthy": switch.healthy,
                "pcie": _pcie(switch.pcie),
            }
            for switch in machine.nvswitches
        ],
        "packages": [
            {"id": p.id, "cpus": p.cpus, "numa_nodes": list(p.numa_nodes), "model": p.model} for p in machine.packages
        ],
        "numa_nodes": [_numa(node) for node in machine.numa_nodes],
        "memory_nodes": [_numa(node) | {"gpu": node.gpu} for node in machine.memory_nodes],
        "pcie": _tree(machine),
        "links": [_link(link) for link in machine.links],
        "wires": [
            {"a": w.a, "b": w.b, "kind": w.kind, "count": w.count, "version": w.version, "bytes_per_s": w.bytes_per_s}
            for w in machine.wires
        ],
        "islands": [
            {
                "name": island.name,
                "class": island.path,
                "bytes_per_s": island.bytes_per_s,
                "gpus": list(island.members),
                "complete": island.complete,
                "pace_bytes_per_s": island.pace,
            }
            for island in islands(machine)
        ],
        "labels": dict(found.labels),
        "facts": [{"subject": f.subject, "fact": f.fact, "source": f.source, "at_ms": f.at_ms} for f in machine.facts],
    }


def _known(number: int) -> int | None:
    return number if number >= 0 else None


def _place(device: Any) -> Document:
    return {
        "numa": _known(device.numa),
        "package": _known(device.package),
        "pcie_root": device.pcie_root,
        "pcie_switch": device.pcie_switch,
    }


def _gpu(gpu: Gpu, choices: tuple[NicChoice, ...]) -> Document:
    return {
        "id": gpu.id,
        "index": gpu.index,
        "device": gpu.device,
        "pci": gpu.pci,
        "uuid": gpu.uuid,
        **_place(gpu),
        "memory_numa": _known(gpu.memory_numa),
        "model": gpu.model,
        "memory_bytes": gpu.memory_bytes,
        "architecture": gpu.architecture,
        "compute": gpu.compute,
        "formats": list(gpu.formats),
        "partitions_max": gpu.partitions_max,
        "mig_enabled": gpu.mig_enabled,
        "mig_profiles": list(gpu.mig_profiles),
        "mig": None if gpu.mig is None else _mig(gpu.mig),
        "whole": gpu.whole,
        "serial": gpu.serial,
        "vbios": gpu.vbios,
        "minor": _known(gpu.minor),
        "healthy": gpu.healthy,
        "health_reason": gpu.health_reason,
        "pcie": _pcie(gpu.pcie),
        "nics": [
            {"nic": choice.nic, "class": choice.path, "bytes_per_s": choice.bytes_per_s, "direct": choice.direct}
            for choice in choices
        ],
    }


def _mig(geometry: MigGeometry) -> Document:
    """Return how a GPU can be and is cut, with every field of profiles and instances."""
    return {
        "enabled": geometry.enabled,
        "pending": geometry.pending,
        "dynamic": geometry.dynamic,
        "units": geometry.units,
        "profiles": [asdict(profile) | {"starts": list(profile.starts)} for profile in geometry.profiles],
        "instances": [asdict(instance) for instance in geometry.instances],
    }


def _nic(nic: Nic) -> Document:
    return {
        "id": nic.id,
        "pci": nic.pci,
        **_place(nic),
        "bytes_per_s": nic.bytes_per_s,
        "rail": _known(nic.rail),
        "kind": nic.kind,
        "netdevs": list(nic.netdevs),
        "rdma": nic.rdma,
        "guid": nic.guid,
        "state": nic.state,
        "pcie": _pcie(nic.pcie),
    }


def _numa(node: NumaNode) -> Document:
    return {
        "id": node.id,
        "cpus": node.cpus,
        "memory_bytes": node.memory_bytes,
        "distances": list(node.distances),
        "package": _known(node.package),
    }


def _pcie(link: PcieLink) -> Document:
    return {
        "generation": link.generation,
        "lanes": link.lanes,
        "max_generation": link.max_generation,
        "max_lanes": link.max_lanes,
        "bytes_per_s": link.bytes_per_s,
        "shared": link.shared,
        "p2p": link.p2p,
    }


def _tree(machine: Machine) -> list[Document]:
    """Return the PCI tree; for sources without one, the roots and switches that they name."""
    graph = device_graph(machine)
    over = {
        str(at).rpartition("/")[2].removeprefix("switch:"): int(
            graph.edges[parent(graph, str(at)), at, "tree"]["oversubscription"]
        )
        for at in graph.nodes
        if graph.nodes[at]["kind"] == "switch"
    }
    if machine.pcie:
        return [
            {
                "id": f.id,
                "parent": f.parent,
                "kind": f.kind,
                "class_code": f"0x{f.class_code:06x}",
                "vendor": f"0x{f.vendor:04x}",
                "product": f"0x{f.product:04x}",
                "name": f.name,
                "numa": _known(f.numa),
                "buses": f.buses,
                "physical": f.physical,
                "iommu_group": _known(f.iommu_group),
                "link": _pcie(f.link),
                "oversubscription_millionths": over.get(f.id, 0),
            }
            for f in machine.pcie
        ]
    named: list[Document] = []
    for at in graph.nodes:
        if graph.nodes[at]["kind"] in ("root", "switch"):
            above = parent(graph, str(at))
            kept = above if above.startswith(("root:", "switch:")) else ""
            entry = {"id": str(at).partition(":")[2], "parent": kept.partition(":")[2], "kind": graph.nodes[at]["kind"]}
            named.append(entry | {"oversubscription_millionths": over.get(entry["id"].rpartition("/")[2], 0)})
    return named


def _measured(measured: Measured | None) -> Document | None:
    if measured is None:
        return None
    return {"bytes_per_s": measured.bytes_per_s, "latency_ns": measured.latency_ns, "at_ms": measured.at_ms}


def _link(link: Link) -> Document:
    return {
        "a": link.a,
        "b": link.b,
        "class": link.path,
        "bytes_per_s": link.bytes_per_s,
        "measured": _measured(link.measured),
        "latency": latency_class(link.path),
        "p2p": link.p2p,
        "direct": link.direct,
    }


def _fabric(fabric: Fabric) -> Document:
    paths = FabricPaths(fabric)
    parents: dict[str, list[str]] = {}
    for link in fabric.links:
        if link.kind == "network":
            parents.setdefault(link.a, []).append(link.b.partition(":")[2])
    return {
        "switches": [
            {
                "id": v.id,
                "tier": v.tier,
                "role": TIERS.get(v.tier, f"tier-{v.tier}" if v.tier else ""),
                "parents": parents.get(v.key, []),
                "nodes": len(paths.nodes_below(v.key)),
                "labels": dict(v.labels),
                "source": v.source,
            }
            for v in fabric.vertices
            if v.kind == "switch"
        ],
        "domains": [
            {"kind": v.kind, "id": v.id, "nodes": list(paths.nodes_below(v.key)), "source": v.source}
            for v in sorted(fabric.vertices, key=lambda v: GROUPS.index(v.kind) if v.kind in GROUPS else len(GROUPS))
            if v.kind != "switch"
        ],
        "links": [
            {
                "a": k.a.partition(":")[2],
                "b": k.b.partition(":")[2],
                "a_kind": k.a.partition(":")[0],
                "b_kind": k.b.partition(":")[0],
                "kind": k.kind,
                "bytes_per_s": k.bytes_per_s,
                "latency_ns": k.latency_ns,
                "rail": _known(k.rail),
                "rdma": k.rdma,
                "congestion": k.congestion,
                "lossless": k.lossless,
                "measured": _measured(k.measured),
                "source": k.source,
            }
            for k in fabric.links
        ],
    }
