"""MIG devices of ResourceSlices and of NodeTopology objects, with the GPUs that they are parts of. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fairlead.discovery.inventory import SliceDevice
from fairlead.discovery.mig_slices import SlicePart, slice_part
from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile
from fairlead_operator.device_objects import AttributeValue, SliceDeviceSpec
from fairlead_operator.topology_objects import GpuSpec, MigProfileSpec

_STANDARD = "resource.kubernetes.io"
_MEMORY_SLICE = re.compile(r"^(?:.*/)?memorySlice(\d{1,4})$")
_KEEPING_AWAY = frozenset({"NoSchedule", "NoExecute"})


def text_attribute(spec: SliceDeviceSpec, driver: str, name: str) -> str:
    """Return a text attribute from the standard domain, the driver's, or none, which is the driver's too."""
    for key in (f"{_STANDARD}/{name}", f"{driver}/{name}", name):
        value: AttributeValue | None = spec.attributes.get(key)
        if value is not None and value.string is not None:
            return value.string
    return ""


def with_parts(
    devices: Sequence[SliceDevice], specs: Iterable[SliceDeviceSpec], driver: str
) -> tuple[SliceDevice, ...]:
    """Return the devices with their MIG parts, and one more for each GPU of which only parts are named.

    A taint on a part keeps allocations from the whole GPU: what is wrong with it is seldom wrong with one part alone.
    """
    by_uuid = {device.uuid.lower(): device.name for device in devices if device.uuid}
    found = {device.name: device for device in devices}
    for spec in sorted(specs, key=lambda spec: spec.name):
        part = _part(spec, driver)
        name = by_uuid.get(part.parent.lower(), "") if part.parent else ""
        if not name:
            name = f"gpu-{part.minor}" if part.minor >= 0 else spec.name.partition("-mig-")[0]
        gpu = found.get(name) or _parent(spec, driver, name, part.parent)
        if part.parent and gpu.uuid and part.parent.lower() != gpu.uuid.lower():
            continue  # a part of a GPU that is not here any more
        taint = next((t for t in spec.taints if t.effect in _KEEPING_AWAY), None)
        if taint is not None and not gpu.tainted:
            gpu = replace(gpu, tainted=True, taint=f"{taint.key}={taint.value}:{taint.effect} on {spec.name}")
        found[name] = replace(gpu, parts=(*gpu.parts, part))
    return tuple(found.values())


def geometry_of(gpu: GpuSpec, profiles: Iterable[MigProfileSpec]) -> MigGeometry | None:
    """Return how the agent found a GPU cut; `profiles` are those of the node, each with its model."""
    if gpu.mig is None:
        return None
    return MigGeometry(
        enabled=gpu.mig.enabled,
        pending=gpu.mig.pending,
        profiles=tuple(
            MigProfile(
                id=p.id,
                name=p.name,
                size=p.size,
                starts=tuple(p.starts),
                most=p.most,
                memory_bytes=p.memory_bytes,
                multiprocessors=p.multiprocessors,
                compute=p.compute_slices,
                copy_engines=p.copy_engines,
                decoders=p.decoders,
                encoders=p.encoders,
                jpegs=p.jpegs,
                ofas=p.ofas,
            )
            for p in profiles
            if p.model == gpu.model[:128]
        ),
        instances=tuple(MigInstance(id=i.id, profile=i.profile, start=i.start, size=i.size) for i in gpu.mig.instances),
    )


def _part(spec: SliceDeviceSpec, driver: str) -> SlicePart:
    slices = [int(found[1]) for key in spec.capacity if (found := _MEMORY_SLICE.match(key)) is not None]
    return slice_part(
        spec.name,
        profile=text_attribute(spec, driver, "profile"),
        parent=text_attribute(spec, driver, "parentUUID"),
        uuid=text_attribute(spec, driver, "uuid"),
        memory_slices=slices,
    )


def _parent(spec: SliceDeviceSpec, driver: str, name: str, uuid: str) -> SliceDevice:
    """Return the GPU of a part, which says of it where it is and what it is, but not how much memory it has."""
    return SliceDevice(
        name=name,
        uuid=uuid,
        pci=text_attribute(spec, driver, "pciBusID"),
        model=text_attribute(spec, driver, "productName"),
        whole=False,
    )
