"""A gang onto nodes and exact devices: the tightest domain that holds it, then nodes, then devices; all or nothing.

Ties end at the lower row, so an answer never depends on dict or thread order. The search is greedy inside a domain
and looks at no more than `DOMAINS_TRIED` domains of a level; for gangs of one role a domain that has the slots always
works out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, Member, Placement, Role
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.placement.feasible import MANY, Feasibility, Fit, scarcest, slots
from fairlead.world.fleet import BoolColumn, Columns, IntColumn, Inventory, Level
from fairlead.world.overlay import Overlay
from fairlead.world.span import span_of

DOMAINS_TRIED = 16


@dataclass(frozen=True, slots=True)
class _Seat:
    """One pod's place: role position in the spec, row, device bits, pace of its slowest link."""

    role: int
    row: int
    mask: int
    pace: int


def place(gang: Gang, overlay: Overlay, feasibility: Feasibility) -> Placement | None:
    """Choose nodes and devices for every member, or return None and leave the overlay as it was.

    On success the overlay has everything taken. Tightest level first; a required level is never left.
    """
    inventory = overlay.inventory
    fits = [feasibility.fit(role, gang.service_class) for role in gang.roles]
    rooms = [slots(role, fit, overlay.columns, overlay.ports) for role, fit in zip(gang.roles, fits, strict=True)]
    for level in levels_to_try(gang, inventory):
        inside = feasibility.inside(level, gang)
        for domain in _fitting_domains(gang, level, inside, rooms, fits, overlay):
            rows = level.domain_of == domain
            seats = _seat(gang, fits, rows, overlay, rooms)
            if seats is not None:
                return _placement(gang, seats, level, domain, inventory)
    return None


def place_in(gang: Gang, overlay: Overlay, feasibility: Feasibility, level: Level, domain: int) -> Placement | None:
    """Like `place`, but inside one domain and nowhere else."""
    fits = [feasibility.fit(role, gang.service_class) for role in gang.roles]
    seats = _seat(gang, fits, level.domain_of == domain, overlay)
    return None if seats is None else _placement(gang, seats, level, domain, overlay.inventory)


def levels_to_try(gang: Gang, inventory: Inventory) -> list[Level]:
    """Return the levels a gang may be placed in, tightest first; none where it requires one that nobody has."""
    found: list[Level] = []
    for level in inventory.levels.values():
        found.append(level)
        if gang.topology is not None and gang.topology.required and level.name == gang.topology.within:
            return found
    return [] if gang.topology is not None and gang.topology.required else found


def domain_sums(column: IntColumn, level: Level) -> IntColumn:
    """Sum a column over the domains of a level. Shape (domains,)."""
    inside = level.domain_of >= 0
    sums = np.zeros(len(level.names), dtype=np.int64)
    np.add.at(sums, level.domain_of[inside], column[inside])
    return sums


def _fitting_domains(
    gang: Gang, level: Level, inside: BoolColumn, rooms: Sequence[IntColumn], fits: Sequence[Fit], overlay: Overlay
) -> list[int]:
    """Return domains with room for every role, best pace first, then the least room left over."""
    enough = inside.copy()
    left = np.zeros(len(level.names), dtype=np.int64)
    for role, room in zip(gang.roles, rooms, strict=True):
        sums = domain_sums(np.minimum(room, MANY // 4096), level)
        enough &= sums >= role.replicas
        left += sums * max(1, role.gpus)
    candidates = np.flatnonzero(enough)
    if not len(candidates):
        return []
    pace = np.zeros(len(level.names), dtype=np.int64)
    if level.name == "node":
        pace = _pace_by_node(gang, fits, candidates, level, overlay)
        left = domain_sums(np.bitwise_count(overlay.columns.free_mask).astype(np.int64), level)
    order = np.lexsort((candidates, left[candidates], -pace[candidates]))
    return [int(candidates[i]) for i in order[:DOMAINS_TRIED].tolist()]


def _pace_by_node(gang: Gang, fits: Sequence[Fit], candidates: IntColumn, level: Level, overlay: Overlay) -> IntColumn:
    """Return the pace the largest role would get on each candidate node; equal tables and masks are asked once."""
    pace = np.zeros(len(level.names), dtype=np.int64)
    largest = max(range(len(gang.roles)), key=lambda i: gang.roles[i].gpus)
    count = gang.roles[largest].gpus
    if count < 2:
        return pace
    inventory = overlay.inventory
    wanted = np.zeros(len(level.names), dtype=np.bool_)
    wanted[candidates] = True
    rows = np.flatnonzero(wanted[level.domain_of] & (level.domain_of >= 0))
    free = overlay.columns.free_mask[rows] & fits[largest].devices[rows]
    masks, mask_of = np.unique(free, return_inverse=True)
    kinds, first, kind_of = np.unique(
        inventory.table_of[rows] * len(masks) + mask_of, return_index=True, return_inverse=True
    )
    paces = np.zeros(len(kinds), dtype=np.int64)
    for kind, at in enumerate(first.tolist()):
        paces[kind] = inventory.tables[int(rows[at])].best(int(free[at]), count)[1]
    pace[level.domain_of[rows]] = paces[kind_of]
    return pace


def _seat(
    gang: Gang, fits: Sequence[Fit], rows: np.ndarray, overlay: Overlay, rooms: Sequence[IntColumn] = ()
) -> list[_Seat] | None:
    """Seat all roles on the rows of one domain, largest devices first; roll back unless all fit.

    `rooms` are the roles' slots in the overlay as it is, where they are known.
    """
    mark = overlay.checkpoint()
    seats: list[_Seat] = []
    by_size = sorted(range(len(gang.roles)), key=lambda i: (-gang.roles[i].gpus, i))
    for position in by_size:
        role, fit = gang.roles[position], fits[position]
        known = rooms[position] if rooms and not seats else slots(role, fit, overlay.columns, overlay.ports)
        room = np.where(rows, known, 0)
        counts = _spread_over_nodes(role, room, overlay.columns)
        if counts is None:
            overlay.roll_back(mark)
            return None
        for row, count in counts:
            for _ in range(count):
                mask, pace = _take_devices(role, fit, row, overlay)
                seats.append(_Seat(position, row, mask, pace))
    return seats


def _take_devices(role: Role, fit: Fit, row: int, overlay: Overlay) -> tuple[int, int]:
    mask, pace = 0, 0
    if role.gpus:
        free = int(overlay.columns.free_mask[row]) & int(fit.devices[row])
        mask, pace = overlay.inventory.tables[row].best(free, role.gpus)
        assert mask.bit_count() == role.gpus, (role, row, free, mask)
    overlay.take(row, mask, role.pod)
    return mask, pace


def _spread_over_nodes(role: Role, room: IntColumn, columns: Columns) -> list[tuple[int, int]] | None:
    """Use few nodes: the one that just holds the rest, else the roomiest. Returns (row, pods) or None."""
    rows = np.flatnonzero(room)
    if int(np.minimum(room[rows], role.replicas).sum()) < role.replicas:
        return None
    free = np.bitwise_count(columns.free_mask[rows]).astype(np.int64)
    order = np.lexsort((rows, free, -room[rows]))
    ranked = [(int(rows[i]), int(room[rows[i]])) for i in order.tolist()]
    taken: list[tuple[int, int]] = []
    left = role.replicas
    at = 0
    while left and ranked[at][1] < left:  # the roomiest nodes are filled whole
        taken.append(ranked[at])
        left -= ranked[at][1]
        at += 1
    if left:  # the rest goes where it leaves least: the last node in this order that still holds it
        holds = [i for i in range(at, len(ranked)) if ranked[i][1] >= left]
        tightest = min(room_i for _, room_i in (ranked[i] for i in holds))
        row = next(ranked[i][0] for i in holds if ranked[i][1] == tightest)
        taken.append((row, left))
    return taken


def _placement(gang: Gang, seats: Sequence[_Seat], level: Level, domain: int, inventory: Inventory) -> Placement:
    """Name members in rank order: roles as in the spec, and neighbours in the tree next to each other."""
    tree = [lv.domain_of for lv in reversed(list(inventory.levels.values()))]

    def neighbourhood(seat: _Seat) -> tuple[int, ...]:
        return (seat.role, *(int(column[seat.row]) for column in tree), seat.row, seat.mask)

    index_of = dict.fromkeys(range(len(gang.roles)), 0)
    members: list[Member] = []
    for rank, seat in enumerate(sorted(seats, key=neighbourhood)):
        members.append(
            Member(
                role=gang.roles[seat.role].name,
                index=index_of[seat.role],
                rank=rank,
                node=inventory.nodes[seat.row].name,
                devices=inventory.devices(seat.row, seat.mask),
            )
        )
        index_of[seat.role] += 1
    paces = [seat.pace for seat in seats if seat.mask.bit_count() > 1]
    name = "" if level.name == "cluster" else level.names[domain]
    pace, span = min(paces) if paces else 0, span_of(inventory, members)
    return Placement(members=tuple(members), level=level.name, domain=name, pace_bytes_per_s=pace, span=span)


# --- why not ----------------------------------------------------------------------------------------------------------


def why_never(gang: Gang, offered: Columns, inventory: Inventory, feasibility: Feasibility) -> Refusal | None:
    """Return why no state of this cluster could hold the gang; None where some state might."""
    level = _required_level(gang, inventory)
    if isinstance(level, Refusal):
        return level
    everything = offered.copy()
    everything.free_mask = inventory.all_mask.copy()
    best_members = np.zeros(len(level.names), dtype=np.int64)
    devices = np.zeros(len(level.names), dtype=np.int64)
    for role in gang.roles:
        fit = feasibility.fit(role, gang.service_class, ever=True)
        if not fit.allowed.any():
            detail = "; ".join(f"{count} nodes {rule}" for rule, count in fit.blocked[:4]) or "there are no nodes"
            return refuse(Reason.NO_NODE_MATCHES, role=role.name, detail=detail)
        largest = int(np.bitwise_count(fit.devices[fit.allowed]).max())
        if role.gpus > largest:
            what = " ".join(filter(None, [role.gpu_model, _memory_words(role)])) or "of any model"
            return refuse(Reason.NO_SUCH_GPU, role=role.name, gpus=role.gpus, what=what, best=largest)
        room = slots(role, fit, everything, {})
        if not room.any():
            detail = scarcest(role, fit, everything, {})
            return refuse(Reason.NO_NODE_MATCHES, role=role.name, detail=detail)
        best_members += np.minimum(domain_sums(np.minimum(room, role.replicas), level), role.replicas)
        devices += domain_sums(np.bitwise_count(inventory.all_mask & fit.devices).astype(np.int64), level)
    best = int(best_members.max()) if len(best_members) else 0
    if best < gang.members or int(devices.max()) < gang.gpus:
        return refuse(Reason.TOO_BIG, need=gang.gpus, level=level.name, best=best, members=gang.members)
    return None


def why_not_now(gang: Gang, overlay: Overlay, feasibility: Feasibility) -> Refusal:
    """Return why the gang has no room at present, with the best domain's numbers."""
    level = _required_level(gang, overlay.inventory)
    if isinstance(level, Refusal):
        return level
    best = np.zeros(len(level.names), dtype=np.int64)
    for role in gang.roles:
        fit = feasibility.fit(role, gang.service_class)
        room = np.minimum(slots(role, fit, overlay.columns, overlay.ports), role.replicas)
        if not room.any():
            detail = scarcest(role, fit, overlay.columns, overlay.ports)
            return refuse(Reason.NODES_FILTERED, role=role.name, detail=detail)
        best += np.minimum(domain_sums(room, level), role.replicas)
    # Sums over roles and nodes say too much where roles want the same room; that it does not fit is known by now.
    best = np.minimum(best, gang.members - 1)
    top = int(best.argmax())
    if level.name == "cluster":
        return refuse(Reason.NOT_ENOUGH_FREE, members=gang.members, best=int(best[top]))
    return refuse(
        Reason.NO_DOMAIN_FITS, level=level.name, members=gang.members, domain=level.names[top], best=int(best[top])
    )


def unknown_level(gang: Gang, inventory: Inventory) -> Refusal | None:
    """Return a refusal where the gang names a level, required or preferred, that no node is in."""
    if gang.topology is None or not inventory.nodes or gang.topology.within in inventory.levels:
        return None
    return refuse(Reason.UNKNOWN_LEVEL, level=gang.topology.within, known=", ".join(inventory.levels))


def _required_level(gang: Gang, inventory: Inventory) -> Level | Refusal:
    within = gang.topology.within if gang.topology is not None and gang.topology.required else "cluster"
    known = inventory.levels
    unknown = unknown_level(gang, inventory)
    if unknown is not None:
        return unknown
    if within not in known or not known[within].names:
        return refuse(Reason.NO_NODE_MATCHES, role=gang.roles[0].name, detail="there are no nodes")
    return known[within]


def _memory_words(role: Role) -> str:
    return f"with {role.gpu_memory_bytes} bytes" if role.gpu_memory_bytes else ""
