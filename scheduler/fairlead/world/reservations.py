"""Reservations as last seen, their nodes, and when one begins or ends next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.reservation import Reservation, ReservationGone, ReservationSeen
from fairlead.world.fleet import Inventory

DAY_MS = 86_400_000
LOOK_AHEAD_MS = 35 * DAY_MS
"""How far ahead two recurring reservations are compared: every window of a week, and a change of the clocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A reservation as it stands: its rows, and the time that is or comes next."""

    reservation: Reservation
    rows: tuple[int, ...]
    start_ms: int
    end_ms: int


class ReservationBook:
    """All reservations, which of them hold, and the moments that change something. `version` counts changes."""

    def __init__(self) -> None:
        """None is there."""
        self.known: dict[str, Reservation] = {}
        self.refused: dict[str, Refusal] = {}
        self.turned_ms = 0
        self.version = 0
        self._key: tuple[int, int] = (-1, -1)
        self._until_ms = -1
        self._standing: tuple[Reserved, ...] = ()

    def apply(self, fact: ReservationSeen | ReservationGone) -> bool:
        """Take a fact; returns whether it changed anything."""
        if isinstance(fact, ReservationSeen):
            changed = self.known.get(fact.reservation.name) != fact.reservation
            self.known[fact.reservation.name] = fact.reservation
        else:
            changed = self.known.pop(fact.name, None) is not None
        self.version += changed
        return changed

    def standing(self, inventory: Inventory, now_ms: int) -> tuple[Reserved, ...]:
        """Return what is reserved now or will be, by start and name. Worked out anew when something has changed."""
        if not self.known:
            self._standing, self.refused, self._until_ms = (), {}, -1
            return ()
        key = (self.version, inventory.version)
        if key != self._key or now_ms >= self._until_ms:
            if self._key == key:
                self.turned_ms = self._until_ms
            self._key = key
            self._standing, self.refused = settle(self.known, inventory, now_ms)
            moments = [m for one in self._standing for m in (one.start_ms, one.end_ms) if m > now_ms]
            self._until_ms = min(moments, default=1 << 62)
        return self._standing


def settle(
    known: Mapping[str, Reservation], inventory: Inventory, now_ms: int
) -> tuple[tuple[Reserved, ...], dict[str, Refusal]]:
    """Return the reservations that hold, by start and name, and why the others do not.

    The older one holds; of two that were created together the one whose name comes first.
    """
    taken: list[tuple[Reservation, tuple[int, ...]]] = []
    standing: list[Reserved] = []
    refused: dict[str, Refusal] = {}
    for one in sorted(known.values(), key=lambda r: (r.created_ms, r.name)):
        span = one.span(now_ms)
        if span is None:
            continue
        clashing = [(other, rows) for other, rows in taken if _meet(one, other, now_ms)]
        rows = _rows_of(one, inventory, {row for _, others in clashing for row in others})
        if isinstance(rows, Refusal):
            refused[one.name] = rows
            continue
        other = next((other for other, others in clashing if set(rows) & set(others)), None)
        if other is not None:
            refused[one.name] = refuse(Reason.RESERVATION_OVERLAPS, field=_field(one), other=other.name)
            continue
        taken.append((one, rows))
        standing.append(Reserved(reservation=one, rows=rows, start_ms=span[0], end_ms=span[1]))
    standing.sort(key=lambda s: (s.start_ms, s.reservation.name))
    return tuple(standing), refused


def _field(one: Reservation) -> str:
    return "spec.nodes" if one.nodes else "spec.count" if one.count else "spec.domain"


def _rows_of(one: Reservation, inventory: Inventory, taken: set[int]) -> tuple[int, ...] | Refusal:
    """Return the rows of a reservation, or why it can't have them."""
    if one.nodes:
        missing = [name for name in one.nodes if NodeName(name) not in inventory.row]
        if missing:
            return refuse(Reason.RESERVATION_TOO_BIG, field="spec.nodes", problem=f"there is no node {missing[0]}")
        return tuple(sorted(inventory.row[NodeName(name)] for name in one.nodes))
    level = inventory.levels.get(one.level or "cluster")
    if level is None:
        return refuse(Reason.RESERVATION_TOO_BIG, field="spec.level", problem=f"no node is in a level {one.level}")
    best: list[int] = []
    for domain, name in enumerate(level.names):
        if one.domain and name != one.domain:
            continue
        rows = sorted(int(row) for row in level.order[level.starts[domain] : level.starts[domain + 1]])
        fitting = [row for row in rows if _has_model(inventory, row, one.model)]
        free = [row for row in fitting if row not in taken]
        if not one.count and one.domain:
            return tuple(fitting)
        best = free if len(free) > len(best) else best
    if one.domain and one.domain not in level.names:
        return refuse(Reason.RESERVATION_TOO_BIG, field="spec.domain", problem=f"there is no {one.level} {one.domain}")
    if len(best) < max(1, one.count):
        problem = f"{one.count} nodes are asked for; no {level.name} has more than {len(best)} that are not reserved"
        return refuse(Reason.RESERVATION_TOO_BIG, field="spec.count", problem=problem)
    return tuple(best[: one.count])


def _has_model(inventory: Inventory, row: int, model: str) -> bool:
    gpus = inventory.nodes[row].machine.gpus
    return not model or any(model.casefold() in gpu.model.casefold() for gpu in gpus)


def _meet(one: Reservation, other: Reservation, now_ms: int) -> bool:
    """Whether two reservations have any time in common, as far ahead as is looked."""
    theirs = list(_spans(other, now_ms))
    return any(a < d and c < b for a, b in _spans(one, now_ms) for c, d in theirs)


def _spans(one: Reservation, now_ms: int) -> Iterator[tuple[int, int]]:
    moment = now_ms
    while moment < now_ms + LOOK_AHEAD_MS:
        span = one.span(moment)
        if span is None:
            return
        yield span
        moment = max(span[1], moment + 1)
