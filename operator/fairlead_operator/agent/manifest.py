"""The NodeTopology as it is written: spec from what was found, conditions from comparing it with the slices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fairlead.discovery.findings import Verdict
from fairlead.discovery.health import GpuHealth
from fairlead.discovery.inventory import SliceDevice, join
from fairlead.discovery.pci_tree import pcie_link
from fairlead.model.hardware import Gpu, Machine, PcieLink
from fairlead.model.partitions import MigGeometry
from fairlead_operator.agent.ward import HealthEvent, Ward

EVENTS_SHOWN = 32
_GPUS_MOST, _LINKS_MOST, _MESSAGE_MOST, _FUNCTIONS_MOST, _WIRES_MOST = 64, 2_048, 1_024, 512, 256


def spec_of(ward: Ward, *, boot_id: str) -> dict[str, Any]:
    """Return the spec without `observedAtMs`; every top-level field is there, None where it is absent."""
    machine = ward.current()
    return {
        "source": machine.source or "nvml",
        "bootID": boot_id or None,
        "driverVersion": machine.driver_version or None,
        "clique": machine.clique or None,
        "gpus": [_gpu(gpu, ward) for gpu in machine.gpus[:_GPUS_MOST] if gpu.pci and gpu.model],
        "migProfiles": _profiles(machine, ward) or None,
        "nics": [
            _present(
                id=nic.id,
                pci=nic.pci,
                numa=nic.numa,
                pcieRoot=nic.pcie_root,
                pcieSwitch=nic.pcie_switch,
                pcieParent=nic.pcie_parent,
                pcie=_pcie(nic.pcie),
                bytesPerSecond=nic.bytes_per_s,
                rail=nic.rail,
            )
            for nic in machine.nics[:_GPUS_MOST]
        ],
        "numaNodes": [
            _present(id=n.id, cpus=n.cpus, memoryBytes=n.memory_bytes, distances=list(n.distances))
            for n in machine.numa_nodes[:64]
        ],
        "links": [
            _present(
                **{"class": x.path}, a=x.a, b=x.b, bytesPerSecond=x.bytes_per_s, p2p="" if x.p2p == "yes" else x.p2p
            )
            for x in machine.links[:_LINKS_MOST]
        ],
        "pcie": _chains(machine) or None,
        "wires": [
            _present(a=x.a, b=x.b, kind=x.kind, count=x.count, bytesPerSecond=x.bytes_per_s)
            for x in machine.wires[:_WIRES_MOST]
        ]
        or None,
    }


def _chains(machine: Machine) -> list[dict[str, Any]]:
    """Return the PCIe roots, ports and switches above the GPUs and NICs, and no other."""
    known = {function.id: function for function in machine.pcie}
    above: set[str] = set()
    gpus, nics = machine.gpus[:_GPUS_MOST], machine.nics[:_GPUS_MOST]
    for at in (*(gpu.pcie_parent for gpu in gpus), *(nic.pcie_parent for nic in nics)):
        while at in known and at not in above:
            above.add(at)
            at = known[at].parent
    return [_present(id=f.id, parent=f.parent, kind=f.kind, pcie=_pcie(f.link)) for f in machine.pcie if f.id in above][
        :_FUNCTIONS_MOST
    ]


def _pcie(link: PcieLink) -> dict[str, Any] | None:
    """Return a link as it is when it is busy: an idle GPU lowers the generation, and that is no news."""
    busy = pcie_link(link.max_generation or link.generation, link.lanes or link.max_lanes)
    found: dict[str, Any] = {
        "generation": busy.generation,
        "lanes": busy.lanes,
        "maxLanes": link.max_lanes if link.max_lanes != busy.lanes else 0,
        "bytesPerSecond": busy.bytes_per_s or link.bytes_per_s,
        "p2p": link.p2p,
    }
    return {name: value for name, value in found.items() if value} or None


def _gpu(gpu: Gpu, ward: Ward) -> dict[str, Any]:
    health = ward.health.get(gpu.uuid, GpuHealth())
    facts = ward.facts.get(gpu.id)
    return _present(
        id=gpu.id,
        index=gpu.index,
        device=gpu.device,
        uuid=gpu.uuid,
        pci=gpu.pci,
        model=gpu.model[:128],
        memoryBytes=gpu.memory_bytes,
        numa=gpu.numa,
        pcieRoot=gpu.pcie_root,
        pcieSwitch=gpu.pcie_switch,
        pcieParent=gpu.pcie_parent,
        pcie=_pcie(gpu.pcie),
        serial=gpu.serial[:64],
        computeCapability=gpu.compute,
        healthy=gpu.healthy,
        verdict=health.verdict.value,
        healthReason=gpu.health_reason,
        healthReasons=list(health.tokens),
        healthSinceMs=health.since_ms,
        mig=_mig(facts.mig) if facts is not None and facts.mig is not None else None,
    )


def _mig(geometry: MigGeometry) -> dict[str, Any]:
    return {
        "enabled": geometry.enabled,
        "pending": geometry.pending,
        "units": geometry.units,
        "instances": [{"id": i.id, "profile": i.profile, "start": i.start, "size": i.size} for i in geometry.instances],
    }


def _profiles(machine: Machine, ward: Ward) -> list[dict[str, Any]]:
    """Return how GPUs can be cut, once per model."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for gpu in machine.gpus:
        facts = ward.facts.get(gpu.id)
        for p in facts.mig.profiles if facts is not None and facts.mig is not None else ():
            found[gpu.model, p.id] = {
                "model": gpu.model[:128],
                "id": p.id,
                "name": p.name[:32],
                "size": p.size,
                "starts": list(p.starts),
                "most": p.most,
                "memoryBytes": p.memory_bytes,
                "multiprocessors": p.multiprocessors,
                "computeSlices": p.compute,
                "copyEngines": p.copy_engines,
                "decoders": p.decoders,
                "encoders": p.encoders,
                "jpegs": p.jpegs,
                "ofas": p.ofas,
            }
    return list(found.values())[:128]


def _present(**fields: Any) -> dict[str, Any]:
    """Drop texts and lists that are empty."""
    return {name: value for name, value in fields.items() if value not in ("", None) and value != []}


def conditions(
    machine: Machine,
    devices: tuple[SliceDevice, ...] | None,
    doubts: Sequence[str],
    before: Iterable[Mapping[str, Any]],
    *,
    generation: int,
    now_ms: int,
) -> list[dict[str, Any]]:
    """Return Joined and Mismatch; `devices` are the node's in ResourceSlices, None where they could not be read."""
    if devices is None:
        joined = (
            "Unknown",
            "SlicesUnknown",
            "the node's ResourceSlices could not be read; the next interval tries again",
        )
        mismatch = joined
    elif not devices:
        joined = ("False", "NoSlices", "the node has no GPU in any ResourceSlice; is the DRA driver running on it?")
        mismatch = ("False", "NoSlices", "there is nothing to compare with")
    else:
        made, conflicts = join(machine, devices)
        conflicts = (*doubts, *conflicts)
        without = sum(1 for gpu in made.gpus if not gpu.uuid or gpu.uuid not in {g.uuid for g in machine.gpus})
        counts = f"{len(made.gpus) - without} of {len(machine.gpus)} GPUs and {len(devices)} slice devices are joined"
        whole = not without and len(made.gpus) == len(machine.gpus)
        joined = ("True", "Joined", counts) if whole else ("False", "Partly", counts)
        words = "; ".join(conflicts)
        mismatch = ("True", "Disagreement", words) if conflicts else ("False", "Agreement", "both say the same")
    old = {str(c.get("type")): c for c in before}
    return [
        _condition(kind, found, old.get(kind), generation, now_ms)
        for kind, found in (("Joined", joined), ("Mismatch", mismatch))
    ]


def _condition(
    kind: str, found: tuple[str, str, str], old: Mapping[str, Any] | None, generation: int, now_ms: int
) -> dict[str, Any]:
    status, reason, message = found
    since = moment(now_ms)
    if old is not None and old.get("status") == status:
        since = str(old.get("lastTransitionTime") or since)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_MOST],
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def events_of(events: Iterable[HealthEvent]) -> list[dict[str, Any]]:
    """Return the last health events, oldest first."""
    return [
        {"atMs": e.at_ms, "gpu": e.gpu, "what": e.what, "verdict": e.verdict.value}
        for e in list(events)[-EVENTS_SHOWN:]
    ]


def moment(at_ms: int) -> str:
    """Return UTC milliseconds as Kubernetes writes times."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counts(ward: Ward) -> dict[str, int]:
    """Return how many GPUs have each verdict."""
    return {v.value: sum(1 for h in ward.health.values() if h.verdict is v) for v in Verdict}
