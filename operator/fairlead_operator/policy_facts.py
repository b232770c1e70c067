"""Facts about QuotaExceptions, Reservations and the Switchboard, told as their watches see them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fairlead.errors import UnreadableInput
from fairlead.model.events import Event, ExceptionGone, ExceptionSeen, SwitchesSet
from fairlead.model.quota_exception import QuotaException
from fairlead.model.reservation import Reservation, ReservationGone, ReservationSeen
from fairlead.model.switches import ALL_ON, Switches
from fairlead_operator.policy_objects import (
    SWITCHBOARD,
    QuotaExceptionObject,
    SwitchboardObject,
    decode_exception,
    decode_switches,
)
from fairlead_operator.reservation_objects import ReservationObject, decode_reservation
from fairlead_operator.watch import Change

log = logging.getLogger(__name__)


class PolicyFacts:
    """The `on_…` methods are callbacks of `Reflector`s.

    `problems` gets a sentence for each object, by (kind, name), that cannot be honoured as written; its last good state
    goes on. Nothing is told twice.
    """

    def __init__(
        self, put: Callable[[Event], None], now_ms: Callable[[], int], problems: dict[tuple[str, str], str]
    ) -> None:
        """Start with nothing known, and everything on."""
        self._put = put
        self._now_ms = now_ms
        self._problems = problems
        self._exceptions: dict[str, QuotaException] = {}
        self._switches: Switches = ALL_ON
        self._reservations: dict[str, Reservation] = {}

    def on_exception(self, change: Change, old: QuotaExceptionObject | None, new: QuotaExceptionObject | None) -> None:
        """A QuotaException changed."""
        seen = new or old
        assert seen is not None
        name = seen.metadata.name
        if change is Change.DELETED:
            self._problems.pop(("QuotaException", name), None)
            if self._exceptions.pop(name, None) is not None:
                self._put(ExceptionGone(name=name, at_ms=self._now_ms()))
            return
        try:
            exception = decode_exception(seen)
        except UnreadableInput as error:
            self._problem("QuotaException", name, error)
            return
        self._problems.pop(("QuotaException", name), None)
        if self._exceptions.get(name) != exception:
            self._exceptions[name] = exception
            self._put(ExceptionSeen(exception=exception, at_ms=self._now_ms()))

    def on_reservation(self, change: Change, old: ReservationObject | None, new: ReservationObject | None) -> None:
        """A Reservation changed."""
        seen = new or old
        assert seen is not None
        name = seen.metadata.name
        if change is Change.DELETED:
            self._problems.pop(("Reservation", name), None)
            if self._reservations.pop(name, None) is not None:
                self._put(ReservationGone(name=name, at_ms=self._now_ms()))
            return
        try:
            reservation = decode_reservation(seen)
        except UnreadableInput as error:
            self._problem("Reservation", name, error)
            return
        self._problems.pop(("Reservation", name), None)
        if self._reservations.get(name) != reservation:
            self._reservations[name] = reservation
            self._put(ReservationSeen(reservation=reservation, at_ms=self._now_ms()))

    def on_switchboard(self, change: Change, old: SwitchboardObject | None, new: SwitchboardObject | None) -> None:
        """The Switchboard changed. Without one, everything is on; one of another name counts for nothing."""
        seen = new or old
        assert seen is not None
        name = seen.metadata.name
        if name != SWITCHBOARD:
            return
        try:
            switches = ALL_ON if change is Change.DELETED else decode_switches(seen)
        except UnreadableInput as error:
            self._problem("Switchboard", name, error)
            return
        self._problems.pop(("Switchboard", name), None)
        if self._switches != switches:
            log.warning("event=switches placement=%s preemption=%s reclaim=%s stops_per_cycle=%s owner=%r reason=%r",
                        switches.placement_on, switches.preemption_on, switches.reclaim_on, switches.stops_per_cycle,
                        switches.owner, switches.reason)  # fmt: skip
            self._switches = switches
            self._put(SwitchesSet(switches=switches, at_ms=self._now_ms()))

    def _problem(self, kind: str, name: str, error: UnreadableInput) -> None:
        if self._problems.get((kind, name)) != str(error):
            log.warning("%s %s is not taken over: %s", kind, name, error)
        self._problems[(kind, name)] = str(error)
