"""Which ways of sharing a device are refused, where and why, and what each way does and does not keep apart. Pure.

Whole devices are the default and need nobody's leave. Everything else a pool must list. A refusal is a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.model.gang import Gang, Role, ServiceClass, ShareMode
from fairlead.model.hardware import Gpu
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.service_classes import TERMS
from fairlead.model.tenancy import MIG_MODES, Pool

WHOLE, MIG, MPS, TIME_SLICE = "whole", "mig", ShareMode.MPS.value, ShareMode.TIME_SLICE.value
_MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class IsolationStatement:
    """What a sharing mode keeps apart between pods on one device; containers alone keep nothing of it apart."""

    summary: str
    compute: str
    memory: str
    bandwidth: str
    interconnect: str
    faults: str
    dedicated: bool


STATEMENTS: Mapping[str, IsolationStatement] = {
    WHOLE: IsolationStatement(
        summary="The pod has the device alone.",
        compute="all of it",
        memory="all of it; what a pod leaves in it the driver clears",
        bandwidth="all of it",
        interconnect="NVLink and PCIe are the device's own up to the first switch; beyond, paths are shared",
        faults="none from others, but a fault of the NVLink fabric reaches every device on it",
        dedicated=True,
    ),
    MIG: IsolationStatement(
        summary="The pod has an instance that the hardware keeps apart from the others.",
        compute="its own multiprocessors and engines",
        memory="its own, enforced by the hardware",
        bandwidth="its own part of the L2 cache and of memory bandwidth",
        interconnect="PCIe is shared and unmetered; there is no NVLink and no path to other instances",
        faults="of one instance stay in it; a reset of the GPU takes all of them",
        dedicated=True,
    ),
    MPS: IsolationStatement(
        summary="Processes run at the same time in one server that limits each.",
        compute="a ceiling on the threads of each client, no guarantee below it",
        memory="a limit for each client, enforced when it allocates; address spaces are separate",
        bandwidth="shared and unmetered: one client can use all of it; caches are shared",
        interconnect="shared and unmetered",
        faults="a fatal fault of one client can end all clients of the device",
        dedicated=False,
    ),
    TIME_SLICE: IsolationStatement(
        summary="Processes take turns on the whole device.",
        compute="turns of equal length; the part asked for is bookkeeping and is not enforced",
        memory="shared and not limited: one pod can take all of it and the others then fail",
        bandwidth="all of it during a turn; caches are shared, and cold after each change of turn",
        interconnect="shared and unmetered",
        faults="a fault that resets the device ends everybody on it",
        dedicated=False,
    ),
}
"""Mode -> what it keeps apart: shown in status and in docs/explanation/sharing.md."""


def mode_of(role: Role) -> str:
    """Return how a role uses devices: ``whole``, ``mig``, ``mps`` or ``time-slice``; "" for one without devices."""
    if role.mig:
        return MIG
    if role.share is not None:
        return role.share.mode.value
    return WHOLE if role.gpus else ""


def sharing_refusal(gang: Gang, pools: Iterable[Pool]) -> Refusal | None:
    """Return why a gang's shares or instances are refused whatever is free, None where they are not.

    `pools` are all there are; the gang may use those that serve its class. What must change in the spec goes first.
    """
    serving = [p for p in pools if p.service_classes is None or gang.service_class in p.service_classes]
    for role in gang.roles:
        found = _malformed(gang, role)
        if found is not None:
            return found
    for role in gang.roles:
        found = _not_allowed(gang, role, serving)
        if found is not None:
            return found
    return None


def pool_allows(pool: Pool, service: ServiceClass, role: Role) -> bool:
    """Whether a role of a service class may run in a pool as far as its way of sharing goes; whole devices always."""
    mode = mode_of(role)
    if mode in ("", WHOLE):
        return True
    needs_latency = mode == TIME_SLICE and TERMS[service].dedicated
    return mode in pool.sharing and not (needs_latency and not pool.serving_on_time_slices)


def pool_problem(pool: Pool) -> str:
    """Return what is wrong with a pool's sharing, with field and mend; "" where nothing is."""
    known = (MIG, MPS, TIME_SLICE)
    wrong = sorted(set(pool.sharing) - set(known))
    if wrong:
        return f"spec.sharing: {', '.join(wrong)} is no way of sharing; use {', '.join(known)}"
    if pool.mig_mode not in MIG_MODES:
        return f"spec.mig: {pool.mig_mode!r} is none; use {' or '.join(MIG_MODES)}"
    if pool.mig_mode == "dynamic" and MPS in pool.sharing:
        return "spec.mig: the driver has either dynamic MIG or MPS; use static, or remove mps from spec.sharing"
    if pool.serving_on_time_slices and TIME_SLICE not in pool.sharing:
        return "spec.servingOnTimeSlices: has no meaning unless spec.sharing lists time-slice; add it there"
    return ""


def mig_refusal(role: Role, gpus: Iterable[Gpu]) -> Refusal | None:
    """Return why no device will ever give, or gives now, an instance of a role's profile; None where one does.

    `gpus` are the acceptable devices of the pools that the role may use, free or not. A device without MIG never gets
    such a request. One that could be cut but is not, in static mode, is a "not now".
    """
    if not role.mig:
        return None
    known: set[str] = set()
    cut: set[str] = set()
    could = 0
    for gpu in gpus:
        if gpu.mig is None:
            continue
        names = {p.name for p in gpu.mig.profiles if p.starts}
        known |= names
        number = {p.id: p.name for p in gpu.mig.profiles}
        cut |= names if gpu.mig.dynamic else {number[i.profile] for i in gpu.mig.instances if i.profile in number}
        could += role.mig in names
    if role.mig in cut:
        return None
    if could:
        return refuse(Reason.PARTITION_NOT_CUT, role=role.name, profile=role.mig, gpus=could, cut=_listed(cut))
    return refuse(Reason.NO_SUCH_PARTITION, role=role.name, what=_what(role), profile=role.mig, known=_listed(known))


def share_refusal(role: Role, gpus: Iterable[Gpu]) -> Refusal | None:
    """Return why no device will ever hold a role's share, None where one could; `gpus` as in `mig_refusal`."""
    if role.share is None:
        return None
    seen = partitioned = 0
    largest = -1
    for gpu in gpus:
        seen += 1
        if not may_share(gpu):
            partitioned += 1
        else:
            largest = max(largest, gpu.memory_bytes)
    if seen and seen == partitioned:
        return refuse(Reason.SHARE_ON_PARTITIONED, role=role.name, gpus=seen, what=_what(role))
    if 0 < largest < role.share.memory_bytes:
        need, best = role.share.memory_bytes // _MEBI, largest // _MEBI
        return refuse(Reason.SHARE_TOO_BIG, role=role.name, memory_mib=need, what=_what(role), best_mib=best)
    return None


def may_share(gpu: Gpu) -> bool:
    """Whether a device may be given in shares: not while it is in MIG mode, where only instances are."""
    return not gpu.mig_enabled and (gpu.mig is None or not gpu.mig.enabled)


def _malformed(gang: Gang, role: Role) -> Refusal | None:
    if role.mig:
        beside = f"{role.gpus} GPUs" if role.gpus else "a share" if role.share is not None else ""
        if beside:
            return refuse(Reason.MIG_ONE_INSTANCE, role=role.name, beside=beside)
        asked = [t for t in (gang.topology, role.topology) if t is not None]
        if any((t.within == "island" and t.required) or any(s.within == "island" for s in t.slices) for t in asked):
            return refuse(Reason.MIG_HAS_NO_ISLAND, role=role.name)
    if role.share is not None and role.share.mode is ShareMode.TIME_SLICE and role.share.memory_bytes:
        need = -(-role.share.memory_bytes // _MEBI)
        return refuse(Reason.SHARE_MEMORY_UNENFORCED, role=role.name, memory_mib=need)
    return None


def _not_allowed(gang: Gang, role: Role, serving: list[Pool]) -> Refusal | None:
    if not serving or any(pool_allows(pool, gang.service_class, role) for pool in serving):
        return None  # where no pool serves the class at all, that is the better reason
    mode = mode_of(role)
    if any(mode in pool.sharing for pool in serving):
        return refuse(Reason.SHARE_BREAKS_LATENCY, role=role.name, service_class=gang.service_class.value)
    allowed = _listed({mode for pool in serving for mode in pool.sharing} | {WHOLE})
    return refuse(
        Reason.SHARING_NOT_ALLOWED,
        role=role.name,
        service_class=gang.service_class.value,
        mode=mode,
        allowed=allowed,
    )


def _what(role: Role) -> str:
    return f"of model {role.gpu_model}" if role.gpu_model else "here"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
