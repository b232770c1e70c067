"""From Node, ResourceSlices and NodeTopology to one `fairlead.model.hardware.Node`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from fairlead.discovery.inventory import SliceDevice, join
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import (
    NO_PCIE_LINK,
    Gpu,
    Link,
    Machine,
    Nic,
    Node,
    NodeName,
    NumaNode,
    PcieLink,
    PciFunction,
    Taint,
    Wire,
)
from fairlead.model.tenancy import Pool
from fairlead.units import quantity
from fairlead_operator.decode_parts import geometry_of, text_attribute, with_parts
from fairlead_operator.device_objects import Slice, SliceDeviceSpec
from fairlead_operator.objects import Condition, NodeObject, time_ms
from fairlead_operator.pod_shape import allocatable
from fairlead_operator.topology_objects import NodeTopology, PcieSpec

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
CLIQUE_LABEL = "nvidia.com/gpu.clique"
_HEARTBEAT_OLDEST_MS = 60_000  # a node counts as unknown after 50 s without a heartbeat; an older one says little
_NO_PCIE = PcieSpec()
SILENT_MS = 300_000
"""How long after its last sign of life an agent counts as silent; it gives one every two minutes."""
_KEEPING_AWAY = frozenset({"NoSchedule", "NoExecute"})

LevelLabels = Mapping[str, Sequence[str]]
"""Topology level -> node labels that name its domain, the first that is there winning."""


def decode_topology(found: NodeTopology) -> Machine:
    """Return the machine that the agent found."""
    spec = found.spec
    return Machine(
        source=spec.source,
        gpus=tuple(
            Gpu(
                id=g.id,
                index=g.index,
                device=g.device,
                uuid=g.uuid,
                pci=g.pci,
                model=g.model,
                memory_bytes=g.memory_bytes,
                numa=g.numa,
                pcie_root=g.pcie_root,
                pcie_switch=g.pcie_switch,
                pcie_parent=g.pcie_parent,
                pcie=_pcie(g.pcie),
                healthy=g.healthy,
                health_reason=g.health_reason,
                mig=(cut := geometry_of(g, spec.mig_profiles)),
                mig_enabled=cut is not None and cut.enabled,
            )
            for g in spec.gpus
        ),
        nics=tuple(
            Nic(
                id=n.id,
                pci=n.pci,
                numa=n.numa,
                pcie_root=n.pcie_root,
                pcie_switch=n.pcie_switch,
                pcie_parent=n.pcie_parent,
                pcie=_pcie(n.pcie),
                bytes_per_s=n.bytes_per_second,
                rail=n.rail,
            )
            for n in spec.nics
        ),
        numa_nodes=tuple(
            NumaNode(id=n.id, cpus=n.cpus, memory_bytes=n.memory_bytes, distances=tuple(n.distances))
            for n in spec.numa_nodes
        ),
        links=tuple(Link(a=x.a, b=x.b, path=x.class_, bytes_per_s=x.bytes_per_second, p2p=x.p2p) for x in spec.links),
        pcie=tuple(PciFunction(id=f.id, parent=f.parent, kind=f.kind, link=_pcie(f.pcie)) for f in spec.pcie),
        wires=tuple(Wire(a=w.a, b=w.b, kind=w.kind, count=w.count, bytes_per_s=w.bytes_per_second) for w in spec.wires),
        clique=spec.clique,
    )


def _pcie(found: PcieSpec) -> PcieLink:
    if found == _NO_PCIE:
        return NO_PCIE_LINK
    return PcieLink(
        generation=found.generation,
        lanes=found.lanes,
        max_generation=found.generation,
        max_lanes=found.max_lanes or found.lanes,
        bytes_per_s=found.bytes_per_second,
        p2p=found.p2p,
    )


def slice_devices(slices: Iterable[Slice], driver: str) -> tuple[str, tuple[SliceDevice, ...], tuple[str, ...]]:
    """Return (the node's device pool, its whole GPUs, conflicts) from the slices of one node and driver.

    Only the highest generation of a pool counts. While a driver is still publishing it, devices stay known but are kept
    from new allocations, so that what is held on them is not forgotten. Parts of GPUs (MIG) are with their GPU, which
    is there too where only its parts are named.
    """
    pools: dict[str, list[Slice]] = {}
    for found in slices:
        if found.spec.driver == driver:
            pools.setdefault(found.spec.pool.name, []).append(found)
    if not pools:
        return "", (), ()
    devices_of = {name: _pool_devices(members, driver) for name, members in pools.items()}
    chosen = min(devices_of, key=lambda name: (-len(devices_of[name]), name))
    conflicts = tuple(
        f"ResourceSlices: device pool {name} of {driver} is left out, {chosen} is used; a node may have one"
        for name in sorted(devices_of)
        if name != chosen and devices_of[name]
    )
    return chosen, devices_of[chosen], conflicts


def _pool_devices(members: list[Slice], driver: str) -> tuple[SliceDevice, ...]:
    """Return the GPUs of one pool by the rules for consumers of slices."""
    newest = max(found.spec.pool.generation for found in members)
    current = sorted((s for s in members if s.spec.pool.generation == newest), key=lambda s: s.metadata.name)
    names = Counter(device.name for found in current for device in found.spec.devices)
    trouble = ""
    if any(found.spec.pool.resource_slice_count != len(current) for found in current):
        trouble = "its ResourceSlices are not complete"
        current += [s for s in members if s.spec.pool.generation < newest]
    elif any(count > 1 for count in names.values()):
        trouble = "its ResourceSlices name a device twice"
    found_devices: dict[str, SliceDevice] = {}
    parts: dict[str, SliceDeviceSpec] = {}
    for found in current:
        for spec in found.spec.devices:
            if text_attribute(spec, driver, "type") == "mig":
                parts.setdefault(spec.name, spec)
                continue
            device = _slice_device(spec, driver)
            if device is not None and device.name not in found_devices:
                found_devices[device.name] = device
    devices = with_parts(tuple(found_devices.values()), parts.values(), driver)
    return tuple(replace(device, tainted=True, taint=trouble) if trouble else device for device in devices)


def _slice_device(spec: SliceDeviceSpec, driver: str) -> SliceDevice | None:
    """Convert one device; None for what is no whole GPU."""
    kind = text_attribute(spec, driver, "type")
    if kind not in ("", "gpu"):
        return None
    memory = spec.capacity.get("memory") or spec.capacity.get(f"{driver}/memory")
    taint = next((t for t in spec.taints if t.effect in _KEEPING_AWAY), None)
    return SliceDevice(
        name=spec.name,
        uuid=text_attribute(spec, driver, "uuid"),
        pci=text_attribute(spec, driver, "pciBusID"),
        model=text_attribute(spec, driver, "productName"),
        memory_bytes=quantity(memory.value, field=f"device {spec.name} capacity.memory") if memory else 0,
        tainted=taint is not None,
        taint="" if taint is None else f"{taint.key}={taint.value}:{taint.effect}",
    )


def pools_of(labels: Mapping[str, str], pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """Return the pools that select a node with these labels, by name; there should be at most one."""
    found = (p for p in pools if all(labels.get(key) == value for key, value in p.node_selector))
    return tuple(sorted(found, key=lambda pool: pool.name))


def overlap_sentence(selecting: Sequence[Pool]) -> str:
    """Say that several pools select one node, "" where they do not."""
    names = ", ".join(pool.name for pool in selecting)
    return f"pools {names} all select this node; {selecting[0].name} has it" if len(selecting) > 1 else ""


def levels_of(labels: Mapping[str, str], level_labels: LevelLabels) -> tuple[tuple[str, str], ...]:
    """Return (level, domain) for each level that a label names."""
    levels = {level: next((labels[k] for k in keys if labels.get(k)), "") for level, keys in level_labels.items()}
    return tuple(sorted((level, domain) for level, domain in levels.items() if domain))


def not_ready_since_ms(conditions: Iterable[Condition], created_ms: int) -> int | None:
    """Return when the node was last known to be Ready (UTC ms), None while it is.

    A kubelet that went silent was Ready until its last heartbeat, which is before the moment somebody noticed.
    """
    ready = next((c for c in conditions if c.type == "Ready"), None)
    if ready is None:
        return created_ms
    if ready.status == "True":
        return None
    changed = time_ms(ready.last_transition_time) or created_ms
    heartbeat = time_ms(ready.last_heartbeat_time)
    if 0 < heartbeat < changed:
        return max(heartbeat, changed - _HEARTBEAT_OLDEST_MS)
    return changed


def is_out_of_service(found: NodeObject) -> bool:
    """Whether an administrator has declared that nothing runs on the node any more."""
    return any(taint.key == OUT_OF_SERVICE for taint in found.spec.taints)


def silent_since_ms(topology: NodeTopology | None, now_ms: int) -> int | None:
    """Return when the agent gave its last sign of life, None while it is not silent, or where no agent ever wrote."""
    if topology is None or not topology.status.heartbeat_ms:
        return None
    last_ms = max(topology.status.heartbeat_ms, topology.spec.observed_at_ms)
    return last_ms if now_ms - last_ms > SILENT_MS else None


def decode_node(
    found: NodeObject,
    *,
    topology: NodeTopology | None,
    slices: Iterable[Slice],
    pools: Iterable[Pool],
    level_labels: LevelLabels,
    now_ms: int = 0,
) -> Node:
    """Join everything that is known of one node; `slices` are those of this node.

    Of an agent that is silent at `now_ms` the last word on places and verdicts stands, and a conflict says since when.

    Raises
    ------
    UnreadableInput
        A quantity or time in one of the objects cannot be read.
    """
    meta, labels = found.metadata, found.metadata.labels
    candidates = pools_of(labels, pools)
    pool = candidates[0] if candidates else None
    conflicts: list[str] = []
    if overlap := overlap_sentence(candidates):
        conflicts.append(overlap)
    if (since_ms := silent_since_ms(topology, now_ms)) is not None:
        conflicts.append(f"the node agent has been silent since {_moment(since_ms)}; its last word on the GPUs stands")
    driver = pool.driver if pool else "gpu.nvidia.com"
    device_pool, devices, doubts = slice_devices(slices, driver)
    conflicts += doubts
    # Placement goes by classes and switches: what they are made of would only make every fact about the node larger.
    found_machine = replace(decode_topology(topology), pcie=()) if topology else None
    machine, mismatches = join(found_machine, devices)
    clique = labels.get(CLIQUE_LABEL, "")
    if clique and machine.clique and clique != machine.clique:
        conflicts.append(f"label {CLIQUE_LABEL} says {clique}, the topology {machine.clique}; the label is taken")
    if clique:
        machine = replace(machine, clique=clique)
    return Node(
        name=NodeName(meta.name),
        machine=machine,
        pool=pool.name if pool else "",
        driver=driver,
        device_pool=device_pool,
        labels=tuple(sorted(labels.items())),
        taints=tuple(Taint(key=t.key, value=t.value, effect=t.effect) for t in found.spec.taints),
        allocatable=allocatable(found.status.allocatable, meta.name),
        levels=levels_of(labels, level_labels),
        unschedulable=found.spec.unschedulable,
        not_ready_since_ms=not_ready_since_ms(found.status.conditions, time_ms(meta.creation_timestamp)),
        conflicts=(*conflicts, *mismatches),
    )


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def readable_node(found: NodeObject, why: UnreadableInput) -> Node:
    """Return a node of which something cannot be read: known, but given nothing."""
    return Node(name=NodeName(found.metadata.name), unschedulable=True, conflicts=(str(why),))
