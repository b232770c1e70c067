"""From numbers of pods on rows to exact devices, cores and NICs, and from those to a placement in rank order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, Member, Placement, Role
from fairlead.placement.columns import PodClass
from fairlead.placement.feasible import shares_on
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.locality import LocalTable, cpu_text, nic_ids, penalties
from fairlead.placement.rank_order import rank_order
from fairlead.placement.score import Score
from fairlead.world.fleet import Inventory, Level
from fairlead.world.overlay import Batch, Overlay, Taking
from fairlead.world.span import span_of
from fairlead.world.use import share_group

CORE = 1_000
"""Thousandths of a CPU: pods that ask for whole ones get CPUs chosen."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One pod's place: role position in the spec, row, and the bits of its devices, CPUs and NICs.

    `far_cores` are CPUs that are not on the NUMA nodes of its GPUs, `nic_path` the class of its farthest NIC.
    """

    role: int
    row: int
    mask: int
    cpus: int = 0
    nics: int = 0
    far_cores: int = 0
    nic_path: str = ""


def take_seats(
    position: int,
    gang: Gang,
    kind: PodClass,
    spots: Sequence[tuple[int, int]],
    overlay: Overlay,
    score: Score,
    paces: GangPaces,
) -> list[Seat] | None:
    """Take devices for the pods that `spots` (row, pods) says; None where a share or NIC finds none any more.

    The caller rolls back. Pods that only take whole devices are taken all at once.
    """
    if kind.role.share is not None:
        return _take_shares(position, gang, kind, spots, overlay, score)
    role = kind.role
    cores = role.pod.requests.cpu_milli // CORE if role.gpus and role.pod.requests.cpu_milli % CORE == 0 else 0
    seats: list[Seat] = []
    masks: list[int] = []
    rails: list[int] = []
    chosen = False
    for row, count in spots:
        free = int(overlay.columns.free_mask[row]) & int(kind.fit.devices[row])
        table = paces.table(row) if role.gpus else None
        taken = 0
        for number in range(count):
            mask = 0
            if table is not None:
                wanted = rails[number] if number < len(rails) and free.bit_count() > role.gpus else 0
                mask = table.aligned_best(free, role.gpus, wanted) if wanted else table.paths.best(free, role.gpus)[0]
                assert mask.bit_count() == role.gpus, (role, row, free, mask)
                if len(spots) > 1 and number == len(rails):
                    rails.append(table.rails(mask))
            free &= ~mask
            taken |= mask
            seat = Seat(position, row, mask)
            if table is not None and (role.nics_per_gpu or (cores and table.cpus)):
                near = _beside(seat, role, cores, table, overlay)
                if near is None:
                    return None
                chosen = True
                seat = near
                overlay.take(Taking(row, mask, role.pod, cpus=seat.cpus, nics=seat.nics))
            seats.append(seat)
        masks.append(taken)
    if not chosen:
        _take_whole(role, spots, masks, overlay)
        return seats
    for (row, count), taken in zip(spots, masks, strict=True):  # nodes of which nobody knows where their CPUs are
        if not paces.table(row).cpus and not role.nics_per_gpu:
            overlay.take(Taking(row, taken, role.pod, count))
    return seats


def _take_whole(role: Role, spots: Sequence[tuple[int, int]], masks: Sequence[int], overlay: Overlay) -> None:
    """Take whole devices and amounts, and nothing that is chosen pod by pod."""
    if role.pod.host_ports or len(spots) == 1:
        for (row, count), taken in zip(spots, masks, strict=True):
            overlay.take(Taking(row, taken, role.pod, count))
        return
    columns = np.array(spots, dtype=np.int64).reshape(-1, 2)
    overlay.take_batch(Batch(columns[:, 0], np.array(masks, dtype=np.int64), columns[:, 1], role.pod))


def _beside(seat: Seat, role: Role, cores: int, table: LocalTable, overlay: Overlay) -> Seat | None:
    """Choose the CPUs and NICs that go with a seat's GPUs; None where NICs are asked for and too few are free."""
    columns = overlay.columns
    cpus, far = table.cores_for(seat.mask, cores, table.cpus & ~columns.cpus.get(seat.row, 0))
    free_nics = table.nics & ~columns.nics.get(seat.row, 0)
    nics = table.nics_for(seat.mask, role.nics_per_gpu, free_nics) if role.nics_per_gpu else 0
    if nics is None:
        return None
    path = table.nic_path(seat.mask, role.nics_per_gpu, free_nics) if nics else ""
    return Seat(seat.role, seat.row, seat.mask, cpus, nics, far if cpus else 0, path)


def _take_shares(
    position: int, gang: Gang, kind: PodClass, spots: Sequence[tuple[int, int]], overlay: Overlay, score: Score
) -> list[Seat] | None:
    role, seats = kind.role, list[Seat]()
    assert role.share is not None, role
    group = share_group(gang, role)
    for row, count in spots:
        rows = np.array([row])
        allowed = kind.fit.devices[rows] & overlay.inventory.healthy_mask[rows]
        for _ in range(count):
            room = shares_on(role.share, kind.group, overlay.columns, rows, allowed)[0]
            if not room.any():
                return None
            bit = score.device(role, kind.fit, kind.group, overlay, row, room)
            overlay.take(Taking(row, 0, role.pod, share=role.share, bit=bit, group=group))
            seats.append(Seat(position, row, 1 << bit))
    return seats


def placement_of(
    gang: Gang, seats: Sequence[Seat], level: Level, domain: int, inventory: Inventory, paces: GangPaces
) -> Placement:
    """Name members in rank order: roles as in the spec, neighbours in the tree and on a node's ring side by side."""
    names: dict[tuple[int, int], tuple[str, ...]] = {}
    members: list[Member] = []
    for position, role in enumerate(gang.roles):
        own = [seat for seat in seats if seat.role == position]
        for index, seat in enumerate(_ranked(own, inventory, paces)):
            key = (seat.row, seat.mask)
            if key not in names:
                names[key] = _device_names(seat, inventory, paces)
            members.append(
                Member(
                    role=role.name,
                    index=index,
                    rank=len(members),
                    node=inventory.nodes[seat.row].name,
                    devices=names[key],
                    share_milli=role.share.milli if role.share is not None else 0,
                    cpus=cpu_text(seat.cpus) if seat.cpus else "",
                    nics=nic_ids(inventory.nodes[seat.row].machine, seat.nics) if seat.nics else (),
                )
            )
    whole = [(seat.row, seat.mask) for seat in seats if seat.mask and gang.roles[seat.role].share is None]
    alone = len(whole) == 1 and whole[0][1].bit_count() == 1
    return Placement(
        members=tuple(members),
        level=level.name,
        domain="" if level.name == "cluster" else level.names[domain],
        pace_bytes_per_s=paces.of(whole).bytes_per_s if whole and not alone else 0,
        span=span_of(inventory, members),
        penalties=_penalties(seats, inventory, paces),
    )


def _ranked(seats: list[Seat], inventory: Inventory, paces: GangPaces) -> Iterable[Seat]:
    if len(seats) < 2:
        return seats
    levels = [level.domain_of for level in inventory.levels.values()]
    order = rank_order([(seat.row, seat.mask) for seat in seats], levels, paces.table)
    return (seats[at] for at in order)


def _device_names(seat: Seat, inventory: Inventory, paces: GangPaces) -> tuple[str, ...]:
    """Name a pod's devices along the fastest ring over them."""
    if seat.mask.bit_count() < 3:
        return inventory.devices(seat.row, seat.mask)
    gpus = inventory.nodes[seat.row].machine.gpus
    return tuple(gpus[at].device for at in paces.table(seat.row).ring(seat.mask))


def _penalties(seats: Sequence[Seat], inventory: Inventory, paces: GangPaces) -> tuple[str, ...]:
    """Say what is worse than it could be, each sentence once, with how many members it holds for."""
    counts: dict[str, int] = {}
    for seat in seats:
        if not seat.mask:
            continue
        table = paces.table(seat.row)
        if not (seat.far_cores or seat.nic_path or table.uplink_load(seat.mask)):
            continue
        machine = inventory.nodes[seat.row].machine
        for text in penalties(machine, table, seat.mask, far_cores=seat.far_cores, nic_path=seat.nic_path):
            counts[text] = counts.get(text, 0) + 1
    return tuple(text if number == 1 else f"{text} ({number} members)" for text, number in list(counts.items())[:8])
