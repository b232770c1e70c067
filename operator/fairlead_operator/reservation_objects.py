"""Reservations: the object, what becomes of it, and its status. Pure."""

# ruff: noqa: RUF012  # msgspec makes a new list of an empty default
from __future__ import annotations

from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.reservation import LONGEST_MS, Reservation
from fairlead.units import moment_ms
from fairlead.world.reservations import Reserved
from fairlead_operator.custom_objects import API
from fairlead_operator.objects import Meta, Record, Resource, time_ms
from fairlead_operator.pool_objects import WindowSpec, windows_of
from fairlead_operator.statuses import rfc3339


class ReservationSpec(Record, frozen=True, kw_only=True):
    """Which nodes, for whom and when."""

    queue: str = ""
    nodes: list[str] = []
    level: str = ""
    domain: str = ""
    count: int = 0
    model: str = ""
    start: str | None = None
    end: str | None = None
    recurring: list[WindowSpec] = []
    lendable: bool = True
    pre_drain: bool = True
    stop_all: bool = False


class ReservationObject(Record, frozen=True, kw_only=True):
    """A Reservation."""

    metadata: Meta
    spec: ReservationSpec = ReservationSpec()


RESERVATIONS = Resource("Reservation", API, "reservations", ReservationObject, namespaced=False)


def decode_reservation(found: ReservationObject) -> Reservation:
    """Return the reservation.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    name, spec = found.metadata.name, found.spec
    at = f"Reservation {name}: spec"
    if sum((bool(spec.nodes), bool(spec.domain), bool(spec.count))) != 1:
        raise UnreadableInput(f"{at}.nodes: set one of nodes, domain and count")
    if spec.domain and not spec.level:
        raise UnreadableInput(f"{at}.level: name the level that the domain is of")
    if spec.count < 0:
        raise UnreadableInput(f"{at}.count: is negative; set it to 1 or more")
    start_ms = moment_ms(spec.start, field=f"{at}.start") if spec.start else None
    end_ms = moment_ms(spec.end, field=f"{at}.end") if spec.end else None
    if not spec.recurring and (start_ms is None or end_ms is None):
        raise UnreadableInput(f"{at}.start: set start and end, or recurring")
    if start_ms is not None and end_ms is not None:
        if start_ms >= end_ms:
            raise UnreadableInput(f"{at}.end: is not after start; give it a later time")
        if not spec.recurring and end_ms - start_ms > LONGEST_MS:
            raise UnreadableInput(f"{at}.end: is more than 366 days after start; make it shorter, or recurring")
    windows = windows_of(spec.recurring, field=f"{at}.recurring")
    return Reservation(
        name=name,
        queue=spec.queue,
        nodes=tuple(sorted(spec.nodes)),
        level=spec.level,
        domain=spec.domain,
        count=spec.count,
        model=spec.model,
        start_ms=start_ms,
        end_ms=end_ms,
        windows=windows,
        lendable=spec.lendable,
        pre_drain=spec.pre_drain,
        stop_all=spec.stop_all,
        created_ms=time_ms(found.metadata.creation_timestamp),
    )


def reservation_status(
    reserved: Reserved | None, problem: str, blockers: int, generation: int, now_ms: int
) -> dict[str, Any]:
    """Return the merge patch of a Reservation's status; null takes a field away."""
    state = "Refused" if problem else "Over"
    if not problem and reserved is not None:
        state = "Active" if reserved.start_ms <= now_ms else "Pending"
    shown = reserved is not None and not problem
    return {
        "observedGeneration": generation,
        "state": state,
        "message": problem or None,
        "begins": rfc3339(reserved.start_ms) if reserved is not None and shown else None,
        "ends": rfc3339(reserved.end_ms) if reserved is not None and shown else None,
        "nodes": len(reserved.rows) if reserved is not None and shown else 0,
        "blockers": blockers,
        "asOf": rfc3339(now_ms),
    }
