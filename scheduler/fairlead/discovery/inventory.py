"""Join what the driver offers (devices of ResourceSlices) with what the agent found (a topology). Pure.

An allocation names slice devices, so those are the machine's GPUs: no more, no fewer. Topology adds where they hang.
Two records are one GPU when PCI address or UUID say so and neither says otherwise; in doubt a device stays without
topology and the doubt is reported.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from fairlead.discovery.mig_slices import SlicePart, cut
from fairlead.discovery.pci import normal_pci
from fairlead.model.hardware import Gpu, Machine

_NATURAL = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceDevice:
    """One device of a node's ResourceSlices; "" and 0 where the driver publishes no such attribute.

    `tainted` says that a device taint keeps new allocations away, `taint` which. `parts` are its MIG devices; `whole`
    is False where the slices name these and not the GPU itself.
    """

    name: str
    uuid: str = ""
    pci: str = ""
    model: str = ""
    memory_bytes: int = 0
    tainted: bool = False
    taint: str = ""
    parts: tuple[SlicePart, ...] = ()
    whole: bool = True


def join(
    machine_from_topology: Machine | None, slice_devices: tuple[SliceDevice, ...]
) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine with exactly the slice devices as GPUs, in natural order of name; conflicts as sentences).

    A GPU's id becomes its device name and links follow. A device without topology has NUMA node -1 and no links, so its
    pace to others is unknown. None for a node without a topology, which is no conflict.
    """
    conflicts: list[str] = []
    devices = _by_name(slice_devices, conflicts)
    if machine_from_topology is None:
        gpus = tuple(_plain(device, at, conflicts) for at, device in enumerate(devices))
        return Machine(source="resourceslices", gpus=gpus), tuple(conflicts)
    topology = machine_from_topology
    matched = _match(topology, devices, conflicts)
    known = {gpu.id: gpu for gpu in topology.gpus}
    owner = {gpu_id: name for name, gpu_id in matched.items()}
    for gpu in topology.gpus:
        if gpu.id not in owner:
            conflicts.append(
                f"{gpu.id} ({_described(gpu.pci, gpu.uuid)}) of the topology is joined with no slice device"
            )
    gpus = tuple(
        _merged(device, known[matched[device.name]], at, conflicts)
        if device.name in matched
        else _plain(device, at, conflicts)
        for at, device in enumerate(devices)
    )
    names = {gpu.device for gpu in gpus}
    nics = tuple(replace(nic, id=f"nic:{nic.id}") if nic.id in names else nic for nic in topology.nics)
    renamed = owner | {old.id: new.id for old, new in zip(topology.nics, nics, strict=True)}
    links = tuple(
        replace(link, a=renamed[link.a], b=renamed[link.b])
        for link in topology.links
        if link.a in renamed and link.b in renamed
    )
    gone = known.keys() - owner.keys()
    wires = tuple(
        replace(wire, a=renamed.get(wire.a, wire.a), b=renamed.get(wire.b, wire.b))
        for wire in topology.wires
        if wire.a not in gone and wire.b not in gone
    )
    return replace(topology, gpus=gpus, nics=nics, links=links, wires=wires), tuple(conflicts)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts ``gpu-2`` before ``gpu-10``."""
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _NATURAL.split(name) if part)


def _by_name(slice_devices: tuple[SliceDevice, ...], conflicts: list[str]) -> list[SliceDevice]:
    """Sort devices and drop later ones of a name that is there twice."""
    seen: dict[str, SliceDevice] = {}
    for device in slice_devices:
        if device.name in seen and device != seen[device.name]:
            conflicts.append(
                f"device {device.name} is twice in the node's ResourceSlices, differently; the first counts"
            )
        seen.setdefault(device.name, device)
    return sorted(seen.values(), key=lambda device: natural(device.name))


def _match(topology: Machine, devices: list[SliceDevice], conflicts: list[str]) -> dict[str, str]:
    """Return device name -> id of the topology's GPU, for those that surely are the same."""
    by_pci = _unique({gpu.id: normal_pci(gpu.pci) for gpu in topology.gpus}, "PCI address", conflicts)
    by_uuid = _unique({gpu.id: gpu.uuid.lower() for gpu in topology.gpus}, "UUID", conflicts)
    known = {gpu.id: gpu for gpu in topology.gpus}
    matched: dict[str, str] = {}
    for device in devices:
        pci, uuid = normal_pci(device.pci), device.uuid.lower()
        if device.pci and not pci:
            conflicts.append(f"device {device.name} has the PCI address {device.pci!r}, which is none")
        at_pci, at_uuid = by_pci.get(pci), by_uuid.get(uuid)
        found = at_pci or at_uuid
        if found is None:
            conflicts.append(f"device {device.name} ({_described(device.pci, device.uuid)}) is not in the topology")
            continue
        gpu = known[found]
        if at_pci and at_uuid and at_pci != at_uuid:
            conflicts.append(
                f"device {device.name} is {at_pci} by PCI address {pci} and {at_uuid} by UUID {device.uuid}"
            )
        elif uuid and gpu.uuid and gpu.uuid.lower() != uuid:
            conflicts.append(
                f"device {device.name} at {pci} has UUID {device.uuid} in the ResourceSlice, {gpu.uuid} in the topology"
            )
        elif pci and gpu.pci and normal_pci(gpu.pci) != pci:
            conflicts.append(
                f"device {device.name} ({device.uuid}) is at {pci} in the ResourceSlice, at {gpu.pci} in the topology"
            )
        else:
            matched[device.name] = found
    return _without_doubles(matched, conflicts)


def _without_doubles(matched: dict[str, str], conflicts: list[str]) -> dict[str, str]:
    times = Counter(matched.values())
    for gpu_id in sorted(i for i, n in times.items() if n > 1):
        names = ", ".join(name for name, found in matched.items() if found == gpu_id)
        conflicts.append(f"devices {names} are all {gpu_id} of the topology; none of them is joined")
    return {name: gpu_id for name, gpu_id in matched.items() if times[gpu_id] == 1}


def _unique(value_of: dict[str, str], what: str, conflicts: list[str]) -> dict[str, str]:
    """Turn id -> value around; a value that two GPUs have identifies neither."""
    times = Counter(value for value in value_of.values() if value)
    conflicts += [f"{n} GPUs of the topology have {what} {value}" for value, n in sorted(times.items()) if n > 1]
    return {value: gpu_id for gpu_id, value in value_of.items() if value and times[value] == 1}


def _described(pci: str, uuid: str) -> str:
    return ", ".join(part for part in (pci, uuid) if part) or "neither PCI address nor UUID"


def _plain(device: SliceDevice, at: int, conflicts: list[str]) -> Gpu:
    """Return a device as its slice alone describes it."""
    return cut(_bare(device, at), device.parts, whole=device.whole, conflicts=conflicts)


def _bare(device: SliceDevice, at: int) -> Gpu:
    return Gpu(
        id=device.name,
        index=at,
        device=device.name,
        uuid=device.uuid,
        pci=normal_pci(device.pci),
        model=device.model,
        memory_bytes=device.memory_bytes,
        healthy=not device.tainted,
        health_reason=(device.taint or "device taint") if device.tainted else "",
    )


def _merged(device: SliceDevice, gpu: Gpu, at: int, conflicts: list[str]) -> Gpu:
    """Return the slice device with the topology's place and health; the slice is right about model and memory."""
    if device.model and gpu.model and device.model != gpu.model:
        conflicts.append(
            f"device {device.name} is {device.model!r} in the ResourceSlice, {gpu.model!r} in the topology"
        )
    plain = _bare(device, at)
    merged = replace(
        gpu,
        id=plain.id,
        index=at,
        device=plain.device,
        uuid=plain.uuid or gpu.uuid,
        pci=plain.pci or normal_pci(gpu.pci),
        model=plain.model or gpu.model,
        memory_bytes=plain.memory_bytes or gpu.memory_bytes,
        healthy=plain.healthy and gpu.healthy,
        health_reason=plain.health_reason or gpu.health_reason,
    )
    return cut(merged, device.parts, whole=device.whole, conflicts=conflicts)
