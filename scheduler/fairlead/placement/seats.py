"""From numbers of pods on rows to exact devices, cores and NICs, and from those to a placement in rank order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from fairlead.model.gang import Gang, Member, Placement
from fairlead.placement.columns import PodClass
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.locality import cpu_text, nic_ids, penalties
from fairlead.placement.parts import instances_on, shares_on
from fairlead.placement.rank_order import rank_order
from fairlead.placement.score import Score
from fairlead.placement.whole_seats import Kit, take_whole
from fairlead.topology.mig_grid import grid_milli
from fairlead.world.fleet import Inventory, Level
from fairlead.world.overlay import Overlay, Taking
from fairlead.world.span import span_of
from fairlead.world.use import share_group


class Seat(msgspec.Struct, frozen=True):
    """One pod's place: role position in the spec, row, the bits of its devices, and all that it gets there.

    `start` is the unit where its MIG instance begins, `milli` the part of its device that it is charged for, 0 for all.
    """

    role: int
    row: int
    mask: int
    kit: Kit
    start: int = -1
    milli: int = 0


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
    if kind.role.mig:
        return _take_instances(position, gang, kind, spots, overlay, score)
    found = take_whole(kind, spots, overlay, paces)
    return None if found is None else [Seat(position, row, kit.mask, kit) for row, kit in found]


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
            seats.append(Seat(position, row, 1 << bit, Kit(1 << bit), milli=role.share.milli))
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
            seats.append(Seat(position, row, 1 << bit, Kit(1 << bit), start, grid_milli(grid, role.mig)))
    seats.sort(key=lambda seat: (seat.row, seat.mask, seat.start))
    return seats


def placement_of(
    gang: Gang, seats: Sequence[Seat], level: Level, domain: int, inventory: Inventory, paces: GangPaces
) -> Placement:
    """Name members in rank order: roles as in the spec, neighbours in the tree and on a node's ring side by side."""
    names: dict[tuple[tuple[str, ...], int], tuple[str, ...]] = {}
    on_row: dict[int, tuple[str, ...]] = {}
    members: list[Member] = []
    for position, role in enumerate(gang.roles):
        own = [seat for seat in seats if seat.role == position]
        for index, seat in enumerate(_ranked(own, inventory, paces)):
            row, mask, kit = seat.row, seat.mask, seat.kit
            if row not in on_row:
                on_row[row] = tuple(inventory.device_bits[row])
            key = (on_row[row], mask)  # nodes whose devices have the same names share them
            if key not in names:
                names[key] = _device_names(row, mask, inventory, paces)
            members.append(
                Member(
                    role=role.name,
                    index=index,
                    rank=len(members),
                    node=inventory.nodes[row].name,
                    devices=names[key],
                    share_milli=seat.milli,
                    mig_start=seat.start,
                    cpus=cpu_text(kit.cpus) if kit.cpus else "",
                    nics=nic_ids(inventory.nodes[row].machine, kit.nics) if kit.nics else (),
                )
            )
    pace, span = _pace_and_span(seats, members, inventory, paces)
    return Placement(
        members=tuple(members),
        level=level.name,
        domain="" if level.name == "cluster" else level.names[domain],
        pace_bytes_per_s=pace,
        span=span,
        penalties=_penalties(seats, inventory, paces),
    )


def _pace_and_span(
    seats: Sequence[Seat], members: Sequence[Member], inventory: Inventory, paces: GangPaces
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Return the pace of all whole devices together, bytes/s, and how many domains of each level there are."""
    if len(seats) == 1:
        (seat,) = seats
        return 0 if seat.milli else paces.pace_alone(seat.row, seat.mask), paces.span_alone(seat.row, seat.mask)
    whole = [(seat.row, seat.mask) for seat in seats if seat.mask and not seat.milli]
    alone = len(whole) == 1 and not whole[0][1] & whole[0][1] - 1
    pace = paces.of(whole, levels=False).bytes_per_s if whole and not alone else 0
    return pace, span_of(inventory, members, lambda row: paces.table(row).shape.linked)


def _ranked(seats: list[Seat], inventory: Inventory, paces: GangPaces) -> Iterable[Seat]:
    if len(seats) < 2:
        return seats
    levels = [level.domain_of for level in inventory.levels.values()]
    order = rank_order([(seat.row, seat.mask) for seat in seats], levels, paces.table)
    return (seats[at] for at in order)


def _device_names(row: int, mask: int, inventory: Inventory, paces: GangPaces) -> tuple[str, ...]:
    """Name a pod's devices along the fastest ring over them."""
    if mask.bit_count() < 3:
        return inventory.devices(row, mask)
    gpus = inventory.nodes[row].machine.gpus
    return tuple(gpus[at].device for at in paces.table(row).ring(mask))


def _penalties(seats: Sequence[Seat], inventory: Inventory, paces: GangPaces) -> tuple[str, ...]:
    """Say what is worse than it could be, each sentence once, with how many members it holds for."""
    if len(seats) == 1 and not (seats[0].kit.far_cores or seats[0].kit.nic_path or seats[0].mask & seats[0].mask - 1):
        return ()  # a GPU alone crowds no uplink
    alike: dict[tuple[int, int], tuple[Seat, int]] = {}
    for seat in seats:
        key = (id(paces.table(seat.row)), id(seat.kit))
        first, number = alike.get(key, (seat, 0))
        alike[key] = (first, number + 1)
    counts: dict[str, int] = {}
    for seat, number in alike.values():
        kit, table = seat.kit, paces.table(seat.row)
        if not seat.mask or not (kit.far_cores or kit.nic_path or table.uplink_load(seat.mask)):
            continue
        machine = inventory.nodes[seat.row].machine
        for text in penalties(machine, table, seat.mask, far_cores=kit.far_cores, nic_path=kit.nic_path):
            counts[text] = counts.get(text, 0) + number
    return tuple(text if number == 1 else f"{text} ({number} members)" for text, number in list(counts.items())[:8])
