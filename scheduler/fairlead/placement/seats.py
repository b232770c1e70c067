"""From numbers of pods on rows to exact devices, and from devices to a placement in rank order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, Member, Placement
from fairlead.placement.columns import PodClass
from fairlead.placement.parts import instances_on, shares_on
from fairlead.placement.score import Score
from fairlead.topology.mig_grid import grid_milli
from fairlead.world.fleet import Inventory, Level
from fairlead.world.overlay import Batch, Overlay, Taking
from fairlead.world.span import span_of
from fairlead.world.use import share_group


@dataclass(frozen=True, slots=True)
class Seat:
    """One pod's place: role position in the spec, row, device bits, pace of its slowest link in bytes/s.

    `start` is the unit where its MIG instance begins, `milli` the part of its device that it is charged for, 0 for all.
    """

    role: int
    row: int
    mask: int
    pace: int
    start: int = -1
    milli: int = 0


def take_seats(
    position: int, gang: Gang, kind: PodClass, spots: Sequence[tuple[int, int]], overlay: Overlay, score: Score
) -> list[Seat] | None:
    """Take devices for the pods that `spots` (row, pods) says; None where a share finds none any more.

    The caller rolls back. Pods that only take whole devices are taken all at once.
    """
    role = kind.role
    if role.share is not None:
        return _take_shares(position, gang, kind, spots, overlay, score)
    if role.mig:
        return _take_instances(position, gang, kind, spots, overlay, score)
    seats: list[Seat] = []
    masks: list[int] = []
    inventory, free_mask, devices = overlay.inventory, overlay.columns.free_mask, kind.fit.devices
    for row, count in spots:
        free = int(free_mask[row]) & int(devices[row])
        taken = 0
        for _ in range(count):
            mask, pace = inventory.tables[row].best(free, role.gpus) if role.gpus else (0, 0)
            assert mask.bit_count() == role.gpus, (role, row, free, mask)
            free &= ~mask
            taken |= mask
            seats.append(Seat(position, row, mask, pace))
        masks.append(taken)
    if role.pod.host_ports or len(spots) == 1:
        for (row, count), taken in zip(spots, masks, strict=True):
            overlay.take(Taking(row, taken, role.pod, count))
        return seats
    columns = np.array(spots, dtype=np.int64).reshape(-1, 2)
    overlay.take_batch(Batch(columns[:, 0], np.array(masks, dtype=np.int64), columns[:, 1], role.pod))
    return seats


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
            seats.append(Seat(position, row, 1 << bit, 0, milli=role.share.milli))
    return seats


def _take_instances(
    position: int, gang: Gang, kind: PodClass, spots: Sequence[tuple[int, int]], overlay: Overlay, score: Score
) -> list[Seat] | None:
    """Take instances one by one, each where least is lost of those places after which the others still fit."""
    role, seats, columns = kind.role, list[Seat](), overlay.columns
    group = share_group(gang, role)
    for row, count in spots:
        rows = np.array([row])
        allowed = kind.fit.devices[rows] & overlay.inventory.mig_mask[rows]
        for left in range(count, 0, -1):
            room = instances_on(role.mig, kind.group, columns, rows, allowed)[0]
            if int(room.sum()) < left:
                return None
            bit = int(score.instance_costs(role, kind.fit, kind.group, overlay, rows)[0].argmin())
            grid = columns.mig.grid(row, bit)
            assert grid is not None, (gang, row, bit)
            fewest = int(room[bit]) - int(room.sum()) + left  # that this device must hold in the end
            start = grid.best_start(int(columns.mig_state[row, bit]), role.mig, score.profiles, keep=fewest - 1)
            overlay.take(Taking(row, 0, role.pod, bit=bit, group=group, part=(role.mig, start)))
            seats.append(Seat(position, row, 1 << bit, 0, start=start, milli=grid_milli(grid, role.mig)))
    return seats


def placement_of(gang: Gang, seats: Sequence[Seat], level: Level, domain: int, inventory: Inventory) -> Placement:
    """Name members in rank order: roles as in the spec, and neighbours in the tree next to each other."""
    tree = [lv.domain_of for lv in reversed(list(inventory.levels.values()))]
    near: dict[int, tuple[int, ...]] = {}
    for seat in seats:
        if seat.row not in near:
            near[seat.row] = tuple(int(column[seat.row]) for column in tree)
    index_of = dict.fromkeys(range(len(gang.roles)), 0)
    members: list[Member] = []
    names: dict[tuple[int, int], tuple[str, ...]] = {}
    ranked = sorted(seats, key=lambda seat: (seat.role, near[seat.row], seat.row, seat.mask, seat.start))
    for rank, seat in enumerate(ranked):
        role = gang.roles[seat.role]
        key = (id(inventory.device_bits[seat.row]), seat.mask)
        devices = names.get(key)
        if devices is None:
            devices = names[key] = inventory.devices(seat.row, seat.mask)
        members.append(
            Member(
                role=role.name,
                index=index_of[seat.role],
                rank=rank,
                node=inventory.nodes[seat.row].name,
                devices=devices,
                share_milli=seat.milli,
                mig_start=seat.start,
            )
        )
        index_of[seat.role] += 1
    paces = [seat.pace for seat in seats if seat.mask.bit_count() > 1]
    name = "" if level.name == "cluster" else level.names[domain]
    return Placement(
        members=tuple(members),
        level=level.name,
        domain=name,
        pace_bytes_per_s=min(paces) if paces else 0,
        span=span_of(inventory, members),
    )
