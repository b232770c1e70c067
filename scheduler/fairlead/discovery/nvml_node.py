"""One node's GPUs and the paths between them, as NVML tells them through `fairlead.discovery.nvml`.

What a GPU does not say stays unknown. A GPU that is lost while it is read is left out, with a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairlead.discovery.nvml import Fabric, GpuLost, Handle, Library
from fairlead.discovery.pci import normal_pci
from fairlead.model.hardware import Gpu, Link, Machine, Wire
from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile, without_prefix
from fairlead.topology.paths import NVLINK_BYTES_PER_S, theoretical_pace

_ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_LINKS_MOST = 36
_NVLINK_PEER_GPU, _NVLINK_PEER_SWITCH = 0, 2
_FIELD_LINK_COUNT, _FIELD_LINK_MBPS = 91, 90
_P2P_NVLINK = 2
_P2P_READ = 0  # NVML_P2P_CAPS_INDEX_READ is a tuple in the binding
_P2P_WORDS = {1: "chipset", 2: "gpu", 3: "topology", 4: "disabled", 5: "unsupported"}
_FABRIC_JOINED = 3
_PROFILE_KINDS = 18
_NUMA_WORDS = 16  # 1,024 NUMA nodes
_MEBI = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """What NVML says of one GPU beyond `Gpu`: the most its PCIe link can do here, its MIG state, its fabric."""

    pcie_generation: int = 0
    pcie_width: int = 0
    mig: MigGeometry | None = None
    fabric: Fabric | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """A node as NVML sees it. `facts` are by GPU id; `no_p2p` has the pairs that cannot read each other."""

    machine: Machine
    facts: Mapping[str, GpuFacts]
    no_p2p: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Device:
    """A GPU while its node is being read."""

    gpu: Gpu
    handle: Handle
    facts: GpuFacts
    peers: Counter[str] = field(default_factory=Counter[str])  # PCI address of the peer, "" for switches -> links
    lane_bytes_per_s: int = NVLINK_BYTES_PER_S


def handles(library: Library) -> tuple[tuple[int, Handle, str], ...]:
    """Return (index, handle, UUID) of every GPU that answers, in the driver's order."""
    found: list[tuple[int, Handle, str]] = []
    for index in range(min(library.number("nvml", "DeviceGetCount") or 0, 64)):
        try:
            handle = library.ask(f"GPU{index}", "DeviceGetHandleByIndex", index)
            uuid = library.text(f"GPU{index}", "DeviceGetUUID", handle) if handle is not None else ""
        except GpuLost as error:
            library.warn(f"GPU{index}", f"left out: {error}")
            continue
        if uuid:
            found.append((index, handle, uuid))
        elif handle is not None:
            library.warn(f"GPU{index}", "left out: it has no UUID")
    return tuple(found)


def read_node(library: Library) -> NodeReading:
    """Read everything about the node's GPUs and their links.

    Raises
    ------
    Unreachable
        The library is gone; there is nothing to read.
    """
    devices: list[_Device] = []
    for index, handle, uuid in handles(library):
        try:
            devices.append(_device(library, index, handle, uuid))
        except GpuLost as error:
            library.warn(f"GPU{index}", f"left out: {error}")
    links, apart = _links(library, devices)
    cliques = sorted({_clique(d.facts.fabric) for d in devices} - {""})
    if len(cliques) > 1:
        library.warn("fabric", f"GPUs are in different cliques ({', '.join(cliques)}); none is taken")
    machine = Machine(
        source="nvml",
        gpus=tuple(d.gpu for d in devices),
        links=tuple(links),
        wires=tuple(_wires(devices)),
        clique=cliques[0] if len(cliques) == 1 else "",
        driver_version=library.text("nvml", "SystemGetDriverVersion"),
    )
    return NodeReading(
        machine=machine,
        facts={d.gpu.id: d.facts for d in devices},
        no_p2p=tuple(apart),
    )


def _clique(fabric: Fabric | None) -> str:
    """Return the NVLink domain of a GPU that has really joined it."""
    return fabric.clique if fabric is not None and fabric.state == _FABRIC_JOINED and fabric.status == 0 else ""


def _device(library: Library, index: int, handle: Handle, uuid: str) -> _Device:
    """Read one GPU by itself."""
    where = f"GPU{index}"
    minor = library.number(where, "DeviceGetMinorNumber", handle)
    pci = normal_pci(library.pci(where, "DeviceGetPciInfo", handle))
    if not pci:
        library.warn(where, "no PCI address; it can be joined by its UUID only")
    memory = library.ask(where, "DeviceGetMemoryInfo", handle)
    capability = library.ask(where, "DeviceGetCudaComputeCapability", handle)
    total = getattr(memory, "total", 0)
    facts = GpuFacts(
        pcie_generation=library.number(where, "DeviceGetMaxPcieLinkGeneration", handle) or 0,
        pcie_width=library.number(where, "DeviceGetMaxPcieLinkWidth", handle) or 0,
        mig=read_mig(library, where, handle),
        fabric=library.fabric(where, handle),
    )
    gpu = Gpu(
        id=where,
        index=index,
        device=f"gpu-{index if minor is None else minor}",
        uuid=uuid,
        pci=pci,
        model=library.text(where, "DeviceGetName", handle),
        memory_bytes=int(total) if isinstance(total, int) else 0,
        numa=_numa(library, where, handle),
        minor=-1 if minor is None else minor,
        compute=".".join(str(part) for part in capability) if isinstance(capability, tuple | list) else "",
        mig_enabled=facts.mig is not None and facts.mig.enabled,
        mig_profiles=tuple(profile.name for profile in facts.mig.profiles) if facts.mig else (),
        serial=library.text(where, "DeviceGetSerial", handle),
        mig=facts.mig,
    )
    device = _Device(gpu, handle, facts)
    _nvlinks(library, device)
    return device


def _numa(library: Library, where: str, handle: Handle) -> int:
    """Return the NUMA node whose memory is nearest, -1 where NVML names none or several."""
    mask = library.read(where, "DeviceGetMemoryAffinity", _mask, handle, _NUMA_WORDS, 0)
    return mask.bit_length() - 1 if mask and mask & (mask - 1) == 0 else -1


def _mask(words: Any) -> int:
    return sum(int(word) << (64 * at) for at, word in enumerate(words))


def active_links(library: Library, where: str, handle: Handle) -> tuple[int, ...] | None:
    """Return the numbers of the GPU's NVLinks that are up; None where it has no NVLink, or does not say."""
    count = library.fields(where, handle, [(_FIELD_LINK_COUNT, 0)]).get((_FIELD_LINK_COUNT, 0), _LINKS_MOST)
    up: list[int] = []
    known = False
    for link in range(min(count, _LINKS_MOST)):
        state = library.number(where, "DeviceGetNvLinkState", handle, link)
        if state is None:
            break  # NVML knows no further link
        known = True
        if state:
            up.append(link)
    return tuple(up) if known else None


def _nvlinks(library: Library, device: _Device) -> None:
    """Count the GPU's NVLinks by what is at their other end."""
    where = device.gpu.id
    for link in active_links(library, where, device.handle) or ():
        kind = library.number(where, "DeviceGetNvLinkRemoteDeviceType", device.handle, link)
        if kind == _NVLINK_PEER_SWITCH:
            device.peers[""] += 1
            continue
        peer = normal_pci(library.pci(where, "DeviceGetNvLinkRemotePciInfo", device.handle, link))
        if peer and kind in (_NVLINK_PEER_GPU, None):
            device.peers[peer] += 1
        elif kind is None:
            library.warn(where, f"NVLink {link} does not say what it leads to; it is left out")
    mbps = library.fields(where, device.handle, [(_FIELD_LINK_MBPS, 0)]).get((_FIELD_LINK_MBPS, 0), 0)
    if mbps:
        device.lane_bytes_per_s = mbps * 1_000_000


def _links(library: Library, devices: list[_Device]) -> tuple[list[Link], list[tuple[str, str]]]:
    """Return the best path of every pair that is known, and the pairs without peer access."""
    links: list[Link] = []
    apart: list[tuple[str, str]] = []
    for at, a in enumerate(devices):
        for b in devices[at + 1 :]:
            where = f"{a.gpu.id}-{b.gpu.id}"
            try:
                link = _link(library, where, a, b)
                reads = library.number(where, "DeviceGetP2PStatus", a.handle, b.handle, _P2P_READ)
            except GpuLost as error:
                library.warn(where, f"path left out: {error}")
                continue
            if reads is not None and reads != 0:
                apart.append((a.gpu.id, b.gpu.id))
                link = replace(link, p2p=_P2P_WORDS.get(reads, "unknown")) if link is not None else None
            if link is not None:
                links.append(link)
    return links, apart


def _wires(devices: list[_Device]) -> list[Wire]:
    """Return the NVLinks between GPUs, each pair once, and those of each GPU to switches."""
    found: list[Wire] = []
    for at, a in enumerate(devices):
        if a.peers[""]:
            count = a.peers[""]
            found.append(Wire(a=a.gpu.id, b="nvswitch", count=count, bytes_per_s=count * a.lane_bytes_per_s))
        for b in devices[at + 1 :]:
            count = max(a.peers[b.gpu.pci], b.peers[a.gpu.pci]) if a.gpu.pci and b.gpu.pci else 0
            if count:
                pace = count * min(a.lane_bytes_per_s, b.lane_bytes_per_s)
                found.append(Wire(a=a.gpu.id, b=b.gpu.id, count=count, bytes_per_s=pace))
    return found


def _link(library: Library, where: str, a: _Device, b: _Device) -> Link | None:
    """Return the best path between two GPUs: NVLinks, else the class of their common ancestor."""
    lanes = max(a.peers[b.gpu.pci] if b.gpu.pci else 0, b.peers[a.gpu.pci] if a.gpu.pci else 0)
    if not lanes and a.peers[""] and b.peers[""]:
        lanes = min(a.peers[""], b.peers[""])
        status = library.number(where, "DeviceGetP2PStatus", a.handle, b.handle, _P2P_NVLINK)
        if status is not None and status != 0:
            library.warn(where, f"both have NVLinks to switches, but NVLink access is off (P2P status {status})")
            lanes = 0
    if lanes:
        pace = lanes * min(a.lane_bytes_per_s, b.lane_bytes_per_s)
        return Link(a=a.gpu.id, b=b.gpu.id, path=f"NV{lanes}", bytes_per_s=pace)
    level = library.number(where, "DeviceGetTopologyCommonAncestor", a.handle, b.handle)
    path = _ANCESTORS.get(-1 if level is None else level, "")
    if not path:
        library.warn(where, "the driver does not say how they are connected")
        return None
    generations = [d.facts.pcie_generation for d in (a, b) if d.facts.pcie_generation]
    pace = theoretical_pace(path, pcie_generation=min(generations, default=4))
    return Link(a=a.gpu.id, b=b.gpu.id, path=path, bytes_per_s=pace)


def read_mig(library: Library, where: str, handle: Handle) -> MigGeometry | None:
    """Return how the GPU can be and is cut; None where it cannot be."""
    modes = library.ask(where, "DeviceGetMigMode", handle)
    if not isinstance(modes, list | tuple) or len(modes) != 2:
        return None
    enabled, pending = bool(modes[0]), bool(modes[1])
    profiles: list[MigProfile] = []
    instances: list[MigInstance] = []
    for kind in range(_PROFILE_KINDS):
        bare = library.read(where, "DeviceGetGpuInstanceProfileInfo", _profile, handle, kind)
        if bare is None:
            continue
        places = library.placements(where, handle, bare.id)
        sizes = {size for _, size in places}
        if len(sizes) > 1:
            library.warn(where, f"MIG profile {bare.id} has placements of several sizes; it is left out")
            continue
        size = sizes.pop() if sizes else 0
        profiles.append(replace(bare, size=size, starts=tuple(start for start, _ in places)))
        if enabled:
            instances += [
                MigInstance(id=number, profile=bare.id, start=start, size=size)
                for number, start, size in library.instances(where, handle, bare.id)
            ]
    return MigGeometry(
        enabled=enabled,
        pending=pending,
        profiles=tuple(sorted(profiles, key=lambda p: (-p.size, p.id))),
        instances=tuple(sorted(instances, key=lambda i: (i.start, i.id))),
    )


def _profile(info: Any) -> MigProfile:
    """Convert what the driver says of a profile; where it may lie is asked separately."""
    name = getattr(info, "name", "")
    return MigProfile(
        id=int(info.id),
        name=without_prefix(name.decode(errors="replace") if isinstance(name, bytes) else str(name)),
        size=0,
        starts=(),
        most=int(info.instanceCount),
        memory_bytes=int(info.memorySizeMB) * _MEBI,
        multiprocessors=int(info.multiprocessorCount),
        compute=int(getattr(info, "sliceCount", 0)),
        copy_engines=int(getattr(info, "copyEngineCount", 0)),
        decoders=int(getattr(info, "decoderCount", 0)),
        encoders=int(getattr(info, "encoderCount", 0)),
        jpegs=int(getattr(info, "jpegCount", 0)),
        ofas=int(getattr(info, "ofaCount", 0)),
    )
