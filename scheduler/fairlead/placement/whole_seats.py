"""Whole devices for many pods at once, with the cores and NICs beside them: rows that are alike are chosen for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Role
from fairlead.placement.columns import PodClass
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.locality import LocalTable
from fairlead.world.overlay import Batch, Overlay, Taking

CORE = 1_000
"""Thousandths of a CPU: pods that ask for whole ones get CPUs chosen."""


KITS_KEPT = 16_384
"""Choices remembered for each kind of machine."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What one pod gets of a node, as bits: devices, CPUs, NICs.

    `far_cores` are CPUs that are not on the NUMA nodes of its GPUs, `nic_path` the class of its farthest NIC.
    """

    mask: int = 0
    cpus: int = 0
    nics: int = 0
    far_cores: int = 0
    nic_path: str = ""


@dataclass(frozen=True, slots=True)
class RowKits:
    """The kits of all pods on one row, and their bits together."""

    kits: tuple[Kit, ...]
    mask: int = 0
    cpus: int = 0
    nics: int = 0


def take_whole(
    kind: PodClass, spots: Sequence[tuple[int, int]], overlay: Overlay, paces: GangPaces
) -> list[tuple[int, Kit]] | None:
    """Take devices for the pods that `spots` (row, pods) says; (row, kit) of each, None where a NIC finds none.

    The caller rolls back. Pods on different rows talk over the same rails where that costs nothing.
    """
    role = kind.role
    cores = role.pod.requests.cpu_milli // CORE if role.gpus and role.pod.requests.cpu_milli % CORE == 0 else 0
    rails: list[int] = []
    chosen: list[tuple[int, RowKits]] = []
    columns, free_masks = overlay.columns, kind.fit.devices
    for row, count in spots:
        if not role.gpus:
            chosen.append((row, RowKits((Kit(),) * count)))
            continue
        free = int(columns.free_mask[row]) & int(free_masks[row])
        table = paces.table(row)
        free_cpus = table.cpus & ~columns.cpus.get(row, 0) if cores else 0
        free_nics = table.nics & ~columns.nics.get(row, 0) if role.nics_per_gpu else 0
        wanted = tuple(rails[:count]) if free.bit_count() > count * role.gpus else ()
        wants = (count, cores if table.cpus else 0)
        key = (role.gpus, role.nics_per_gpu, wants, free, free_cpus, free_nics, wanted)
        kits = table.kits.get(key)
        if kits is None:
            kits = _choose(role, table, free, wants, (free_cpus, free_nics), wanted)
            if kits is None:
                return None
            if len(table.kits) >= KITS_KEPT:
                table.kits.clear()
            table.kits[key] = kits
        assert isinstance(kits, RowKits), kits
        if len(spots) > 1 and len(rails) < count:
            rails += [table.rails(kit.mask) for kit in kits.kits[len(rails) :]]
        chosen.append((row, kits))
    _take(role, chosen, overlay)
    return [(row, kit) for row, kits in chosen for kit in kits.kits]


def _choose(
    role: Role,
    table: LocalTable,
    free: int,
    wants: tuple[int, int],
    beside: tuple[int, int],
    rails: tuple[int, ...],
) -> RowKits | None:
    """Choose for the (pods, cores of each) of one row; `beside` are its free CPUs and NICs."""
    (count, cores), (free_cpus, free_nics) = wants, beside
    kits: list[Kit] = []
    all_devices = all_cpus = all_nics = 0
    for number in range(count):
        mask = 0
        if number < len(rails) and rails[number]:
            mask = table.aligned_best(free, role.gpus, rails[number])
        mask = mask or table.paths.best(free, role.gpus)[0]
        assert mask.bit_count() == role.gpus, (role, free, mask)
        cpus, far = table.cores_for(mask, cores, free_cpus) if cores else (0, 0)
        nics, path = 0, ""
        if role.nics_per_gpu:
            found = table.nics_for(mask, role.nics_per_gpu, free_nics)
            if found is None:
                return None
            nics, path = found, table.nic_path(mask, role.nics_per_gpu, free_nics)
        kits.append(Kit(mask, cpus, nics, far if cpus else 0, path))
        free, free_cpus, free_nics = free & ~mask, free_cpus & ~cpus, free_nics & ~nics
        all_devices, all_cpus, all_nics = all_devices | mask, all_cpus | cpus, all_nics | nics
    return RowKits(tuple(kits), all_devices, all_cpus, all_nics)


def _take(role: Role, chosen: Sequence[tuple[int, RowKits]], overlay: Overlay) -> None:
    """Take everything: row by row where CPUs, NICs or ports are kept per row, else at once."""
    if role.pod.host_ports or len(chosen) == 1 or any(kits.cpus or kits.nics for _, kits in chosen):
        for row, kits in chosen:
            overlay.take(Taking(row, kits.mask, role.pod, len(kits.kits), cpus=kits.cpus, nics=kits.nics))
        return
    rows = np.array([row for row, _ in chosen], dtype=np.int64)
    masks = np.array([kits.mask for _, kits in chosen], dtype=np.int64)
    overlay.take_batch(Batch(rows, masks, np.array([len(kits.kits) for _, kits in chosen], dtype=np.int64), role.pod))
