"""MIG devices of ResourceSlices: which GPU each is a part of, which instance it is, and whether that exists already.

A driver in static mode names the instances that exist; in dynamic mode it names every placement of every profile, and
makes the instance when it is allocated. A device with a UUID exists. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fairlead.discovery.mig_tables import completed
from fairlead.model.hardware import Gpu
from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile, device_text, parse_device, without_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePart:
    """One MIG device of a slice. `number` is the profile's and `start` its first unit, -1 where unknown.

    `parent` is the UUID of its GPU, `minor` that GPU's number, -1 unknown. `exists` is False for what would be made.
    """

    device: str
    profile: str = ""
    number: int = -1
    start: int = -1
    parent: str = ""
    minor: int = -1
    exists: bool = False


def slice_part(device: str, *, profile: str, parent: str, uuid: str, memory_slices: Sequence[int]) -> SlicePart:
    """Return what is known of a MIG device; its name says most, where it has the driver's form.

    `memory_slices` are the units that its capacity lists, which is done for instances that exist.
    """
    name = parse_device(device)
    if name is None:
        start, number, minor = min(memory_slices, default=-1), -1, -1
    else:
        start, number, minor = name.start, name.profile, name.minor
    return SlicePart(
        device=device,
        profile=without_prefix(profile),
        number=number,
        start=start,
        parent=parent,
        minor=minor,
        exists=bool(uuid) or bool(memory_slices),
    )


def cut(gpu: Gpu, parts: Iterable[SlicePart], *, whole: bool, conflicts: list[str]) -> Gpu:
    """Return the GPU with what its slices say of its partition; `gpu.mig` is what its driver said, or None.

    `whole` says that the slices name the GPU itself too. Conflicts are sentences.
    """
    listed = sorted(parts, key=lambda part: part.device)
    if not listed:
        return _uncut(gpu, conflicts)
    known = completed(gpu.mig or MigGeometry(enabled=True, pending=True), gpu)
    if not known.profiles:
        conflicts.append(
            f"device {gpu.device} is in MIG mode and nobody knows how {gpu.model or 'its model'} is cut; "
            f"its {len(listed)} MIG devices are left out until the node agent has said it"
        )
        return replace(gpu, mig=None, mig_enabled=True, whole=whole)
    if any(part.exists for part in listed):
        geometry = _existing(gpu, known, [part for part in listed if part.exists], conflicts)
    else:
        geometry = _possible(gpu, known, listed, conflicts)
    names = tuple(sorted({p.name for p in geometry.profiles if p.starts}))
    return replace(gpu, mig=geometry, mig_enabled=geometry.enabled, mig_profiles=names, whole=whole)


def _uncut(gpu: Gpu, conflicts: list[str]) -> Gpu:
    if gpu.mig is not None and gpu.mig.enabled:
        conflicts.append(
            f"device {gpu.device} is in MIG mode by its driver, and whole in the ResourceSlices; restart the DRA driver"
        )
    # How a GPU could be cut is no part of a node's facts while it is not: the tables and the agent have it.
    return replace(gpu, mig=None)


def _existing(gpu: Gpu, known: MigGeometry, parts: Sequence[SlicePart], conflicts: list[str]) -> MigGeometry:
    """Return the geometry with the instances that slices name, and no others."""
    ids = {(i.profile, i.start): i.id for i in known.instances}
    found: dict[tuple[int, int], MigInstance] = {}
    for part in parts:
        profile = _profile(known.profiles, part)
        if profile is None or part.start not in profile.starts:
            conflicts.append(_unknown(part, gpu))
            continue
        place = (profile.id, part.start)
        if place in found:
            conflicts.append(f"devices {found[place].device} and {part.device} are one instance; the first counts")
            continue
        found[place] = MigInstance(
            id=ids.get(place, -1), profile=profile.id, start=part.start, size=profile.size, device=part.device
        )
    unnamed = sorted(ids.keys() - found.keys())
    if unnamed:
        conflicts.append(
            f"device {gpu.device} has {len(unnamed)} MIG instances that no ResourceSlice names; they are not given out"
        )
    instances = tuple(sorted(found.values(), key=lambda i: (i.start, i.profile)))
    return replace(known, enabled=True, pending=True, instances=instances, dynamic=False)


def _possible(gpu: Gpu, known: MigGeometry, parts: Sequence[SlicePart], conflicts: list[str]) -> MigGeometry:
    """Return the geometry with the placements that slices name; one whose name is not as expected is left out."""
    named: dict[int, set[int]] = {}
    for part in parts:
        profile = _profile(known.profiles, part)
        if profile is None or part.start not in profile.starts or part.device != canonical(gpu, profile, part.start):
            conflicts.append(_unknown(part, gpu))
        else:
            named.setdefault(profile.id, set()).add(part.start)
    # A profile that no slice names keeps its place: what the GPU has of each engine follows from all of them.
    profiles = tuple(replace(p, starts=tuple(s for s in p.starts if s in named.get(p.id, ()))) for p in known.profiles)
    return replace(known, profiles=profiles, instances=(), dynamic=True)


def canonical(gpu: Gpu, profile: MigProfile, start: int) -> str:
    """Return the name that the driver gives to a placement on a GPU, from that GPU's own name."""
    return f"{gpu.device}-mig-{device_text(profile.name)}-{profile.id}-{start}"


def _profile(profiles: Sequence[MigProfile], part: SlicePart) -> MigProfile | None:
    """Return the profile by the number in the name; without one, by its text."""
    if part.number >= 0:
        return next((p for p in profiles if p.id == part.number), None)
    return next((p for p in profiles if part.profile and p.name == part.profile), None)


def _unknown(part: SlicePart, gpu: Gpu) -> str:
    return f"device {part.device} is no part that {gpu.device} is known to have; it is left out"
