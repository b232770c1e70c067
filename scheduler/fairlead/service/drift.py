"""Do a scheduler, its books and the cluster's claims agree on who holds what? Compared, told, and mended in the books.

Facts are on their way all the time, so a difference counts only if it was there a look ago too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.model.events import EndedUnseen, Event, MemberReleased
from fairlead.service.ports import Hold
from fairlead.world.gangs import Hold as Held

log = logging.getLogger(__name__)

_SHOWN = 5
_EVIDENCE = "open in the books at two looks; the scheduler does not know it, and no claim has its devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Members that one side has and another lacks. `books` is empty while the books are behind."""

    only_books: frozenset[Hold] = frozenset()
    only_scheduler: frozenset[Hold] = frozenset()
    claims_of_nobody: frozenset[Hold] = frozenset()
    holds_without_claim: frozenset[Hold] = frozenset()

    def __and__(self, other: Differences) -> Differences:
        """Return what both say."""
        return Differences(
            only_books=self.only_books & other.only_books,
            only_scheduler=self.only_scheduler & other.only_scheduler,
            claims_of_nobody=self.claims_of_nobody & other.claims_of_nobody,
            holds_without_claim=self.holds_without_claim & other.holds_without_claim,
        )

    def by_name(self) -> dict[str, frozenset[Hold]]:
        """Return each difference by its name."""
        return {
            "only_books": self.only_books,
            "only_scheduler": self.only_scheduler,
            "claims_of_nobody": self.claims_of_nobody,
            "holds_without_claim": self.holds_without_claim,
        }

    def __len__(self) -> int:
        """How many members are in any of them."""
        return len(frozenset[Hold]().union(*self.by_name().values()))


def differences(
    held: Mapping[Hold, Held], nodes: Iterable[str], booked: Iterable[Hold] | None, allocated: frozenset[Hold]
) -> Differences:
    """Compare the scheduler's holds with the books' open ones (None: they are behind) and with allocated claims.

    A node that is gone ends its holds in the books at once, in the scheduler when the objects are gone: those of nodes
    that are not there are nobody's error.
    """
    there = frozenset(nodes)
    known = frozenset(key for key, hold in held.items() if hold.node in there)
    open_now = frozenset(booked) if booked is not None else None
    return Differences(
        only_books=frozenset[Hold]() if open_now is None else open_now - held.keys(),
        only_scheduler=frozenset[Hold]() if open_now is None else known - open_now,
        claims_of_nobody=allocated - held.keys(),
        holds_without_claim=frozenset(key for key in known if held[key].devices) - allocated,
    )


class DriftWatch:
    """Remembers the last look; what is in two looks one after the other is drift."""

    def __init__(self) -> None:
        """Nothing has been looked at."""
        self._last = Differences()
        self._since_ms: dict[Hold, int] = {}
        self._looked_ms: int | None = None

    def look(self, now: Differences) -> Differences:
        """Return what has stayed, and say it in the log where it is anything."""
        stayed, self._last = now & self._last, now
        for name, members in stayed.by_name().items():
            if members:
                shown = ",".join("/".join(map(str, member)) for member in sorted(members)[:_SHOWN])
                log.error("event=drift kind=%s holds=%d such_as=%s", name, len(members), shown)
        return stayed

    def mend(self, stayed: Differences, allocated: frozenset[Hold], now_ms: int) -> list[Event]:
        """Return what ends holds that only the books still have open, after the look that found them so again.

        The scheduler does not know them and no claim has their devices, so they ended unseen: some time since the last
        look that found nothing.
        """
        before_ms = now_ms if self._looked_ms is None else self._looked_ms
        self._since_ms = {hold: self._since_ms.get(hold, before_ms) for hold in self._last.only_books}
        self._looked_ms = now_ms
        over = tuple(sorted(stayed.only_books - allocated))
        if not over:
            return []
        return list(ended({hold: self._since_ms[hold] for hold in over}, _EVIDENCE, now_ms))


def ended(since_ms: Mapping[Hold, int], evidence: str, now_ms: int) -> tuple[EndedUnseen | MemberReleased, ...]:
    """Return what ends holds in the books; `since_ms` has for each when it was last known to go on."""
    released = [
        MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=now_ms, estimated_ms=now_ms - since)
        for (gang, attempt, rank), since in since_ms.items()
    ]
    return EndedUnseen(holds=tuple(since_ms), evidence=evidence, at_ms=now_ms), *released
