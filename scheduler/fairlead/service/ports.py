"""The outside as the loop needs it: a cluster to perform effects on, and books to write facts into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fairlead.model.effects import EndNomination, Grow, Nominate, Notice, Place, Shrink, Stop, Withdraw
from fairlead.model.events import Event
from fairlead.model.gang import GangId
from fairlead.model.standings import Standings
from fairlead.world.views import GangView

Hold = tuple[GangId, int, int]
"""(gang, attempt, rank): one member's hold on its devices."""

Performable = Place | Stop | Notice | Withdraw | Shrink | Grow | Nominate | EndNomination


class Cluster(Protocol):
    """Where effects are carried out: a Kubernetes API server, or the fleet in memory."""

    async def perform(self, effect: Performable) -> Sequence[Event]:
        """Carry out one effect and return what is known to have happened.

        `Place` returns `Bound`, or `PlaceFailed` after it has begun to undo; `Grow` nothing, or `GrowFailed`. All that
        takes longer (pods that run or end, claims that are emptied) arrives later through the inbox. Never raises for
        what the outside did.
        """
        ...

    async def publish(self, views: Sequence[GangView]) -> None:
        """Write the views of gangs whose phase, reason or nomination changed. May coalesce and delay."""
        ...

    async def booked(self, holds: Sequence[Hold]) -> None:
        """Let go of objects whose closing entry is committed (the `fairlead.dev/booked` finalizer)."""
        ...


class Books(Protocol):
    """The journal and the ledger behind one door."""

    def record(self, facts: Sequence[Event | Standings], now_ms: int) -> Sequence[Hold]:
        """Append facts in order and post what follows from them, in one transaction; twice is once.

        Returns the holds whose closing entry is committed. Keeps the facts and tries again where the database is away.
        """
        ...

    def full(self, now_ms: int) -> bool:
        """Return whether more waits for the database than it should; nothing is dropped all the same."""
        ...
