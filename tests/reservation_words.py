"""Reservations for tests in few words, as `builders` has nodes and gangs."""

from __future__ import annotations

from builders import words

from fairlead.model.reservation import Reservation
from fairlead.timezones import window_of
from fairlead.units import duration_ms


def reservation(name: str, text: str, now_ms: int) -> Reservation:
    """queue= (none: maintenance), nodes=a,b or level=rack domain=r1 or count=2 (with level=, model=), in=1h (from now),
    for=2h, daily=22:00-06:00 (days=mon,tue, zone=), private (not lendable), nodrain, stopall."""
    plain, named = words(text)
    begins = now_ms + duration_ms(named["in"]) if "in" in named else now_ms
    windows = ()
    if "daily" in named:
        first, _, last = named["daily"].partition("-")
        days = tuple(named["days"].split(",")) if "days" in named else None
        windows = (window_of(days, first, last, named.get("zone", "UTC"), field="spec.recurring"),)
    return Reservation(
        name=name,
        queue=named.get("queue", ""),
        nodes=tuple(n for n in named.get("nodes", "").split(",") if n),
        level=named.get("level", ""),
        domain=named.get("domain", ""),
        count=int(named.get("count", "0")),
        model=named.get("model", ""),
        start_ms=None if windows else begins,
        end_ms=None if windows else begins + duration_ms(named["for"]),
        windows=windows,
        lendable="private" not in plain,
        pre_drain="nodrain" not in plain,
        stop_all="stopall" in plain,
        created_ms=now_ms,
    )
