"""Which device of one source is which of another, and when two path classes say the same. Pure."""

from __future__ import annotations

import re

from fairlead.discovery.pci import normal_pci
from fairlead.model.hardware import Gpu, Machine, Nic
from fairlead.topology.paths import nvlinks

_WORD = re.compile(r"[a-z0-9]+")
# A source that sees no switches says PHB for all below one root (or one CPU); the classes it cannot tell apart.
_COARSE = {"resource-slices": ("PIX", "PXB", "PHB"), "nccl-xml": ("PHB", "NODE"), "fleet": ()}


def paths_agree(ours: str, our_kind: str, theirs: str, their_kind: str) -> bool:
    """Whether two classes of one pair can both be true, given what their kinds of sources can see."""
    if not ours or not theirs or ours == theirs:
        return True
    if nvlinks(ours) or nvlinks(theirs):
        return not (nvlinks(ours) and nvlinks(theirs))
    for path, kind, other in ((ours, our_kind, theirs), (theirs, their_kind, ours)):
        blurred = _COARSE.get(kind, ())
        if path in blurred and other in blurred:
            return True
    return False


def same_model(ours: str, theirs: str) -> bool:
    """Whether two product names are of one product: the words of the shorter begin or are among those of the longer."""
    short, long = sorted((_WORD.findall(ours.lower()), _WORD.findall(theirs.lower())), key=len)
    return set(short) <= set(long)


def matched_gpus(base: Machine, other: Machine, base_name: str, other_name: str) -> tuple[dict[str, str], list[str]]:
    """Return (GPU id in `other` -> id in `base`, doubts as sentences).

    PCI address or UUID decide. Where one side has neither, GPUs are matched by index if both have equally many.
    """
    if not base.gpus or not other.gpus:
        return {}, []
    keys = {key: gpu.id for gpu in base.gpus for key in _identity(gpu)}
    found: dict[str, str] = {}
    strangers: list[Gpu] = []
    doubts: list[str] = []
    for gpu in other.gpus:
        hits = {keys[key] for key in _identity(gpu) if key in keys}
        if len(hits) == 1:
            hit = hits.pop()
            if hit in found.values():
                doubts.append(f"{other_name} has {hit} twice; {gpu.id} is not joined")
            else:
                found[gpu.id] = hit
        elif hits:
            doubts.append(f"{gpu.id} of {other_name} is {' and '.join(sorted(hits))} of {base_name}; it is not joined")
        else:
            strangers.append(gpu)
    nameless = not any(_identity(gpu) for gpu in other.gpus) or not keys
    if nameless:
        if len(base.gpus) != len(other.gpus):
            doubts.append(f"{len(base.gpus)} GPUs by {base_name}, {len(other.gpus)} by {other_name}; none are joined")
            return {}, doubts
        index = {gpu.index: gpu.id for gpu in base.gpus}
        return {gpu.id: index[gpu.index] for gpu in other.gpus if gpu.index in index}, doubts
    doubts += [f"{gpu.id} ({gpu.pci or gpu.uuid}) of {other_name} is not in {base_name}" for gpu in strangers]
    missing = [gpu for gpu in base.gpus if gpu.id not in found.values()]
    doubts += [f"{gpu.id} ({gpu.pci or gpu.uuid}) of {base_name} is not in {other_name}" for gpu in missing]
    return found, doubts


def matched_nics(base: Machine, other: Machine, base_name: str, other_name: str) -> tuple[dict[str, str], list[str]]:
    """Return (NIC id in `other` -> id in `base`, doubts): by PCI address, else by any of their names."""
    if not base.nics or not other.nics:
        return {}, []
    pci = {normal_pci(nic.pci): nic.id for nic in base.nics if nic.pci}
    named = {name: nic.id for nic in base.nics for name in _names(nic)}
    found: dict[str, str] = {}
    for nic in other.nics:
        hit = pci.get(normal_pci(nic.pci)) if nic.pci else None
        hit = hit or next((named[name] for name in _names(nic) if name in named), None)
        if hit is not None and hit not in found.values():
            found[nic.id] = hit
    missing = [nic.id for nic in other.nics if nic.id not in found]
    doubts = [f"NICs {', '.join(missing)} of {other_name} are none that {base_name} has"] if missing else []
    return found, doubts


def _identity(gpu: Gpu) -> list[str]:
    return [key for key in (normal_pci(gpu.pci), gpu.uuid.lower()) if key]


def _names(nic: Nic) -> list[str]:
    own = [] if re.fullmatch(r"NIC[0-9]+", nic.id) else [nic.id]  # NIC0 is a number, which others count differently
    return [name for name in (nic.rdma, *nic.netdevs, *own) if name]
