"""Books of one queue that holds a GPU for ten hours a day, as long as nobody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ledger_books import hold, release
from ledger_facts import NAMED, gang, node
from price_words import price, priced

from fairlead.model.events import GangSeen, NodeSeen
from fairlead.model.gang import Tier
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.units import moment_ms

HOUR = 3_600_000
DAY = 24 * HOUR
BEGIN = moment_ms("2026-11-01T00:00:00Z")
LISTED = (price("inQuota=3 borrowed=3"), price("inQuota=2 borrowed=3", end=BEGIN + 14 * DAY, queue="lab"))
CHANGED = price("inQuota=2.5 borrowed=3", begin=BEGIN + 14 * DAY, queue="lab")


class Days:
    """Books of four GPUs, one of which vision holds for ten hours a day, in quota."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "b.sqlite"
        self.books = Bookkeeper(f"sqlite:///{self.path}")
        self.day, self.uid = 0, 0
        self.tell(*NAMED, priced(*LISTED, CHANGED), NodeSeen(node=node(), at_ms=BEGIN))

    @property
    def now(self) -> int:
        return BEGIN + self.day * DAY

    def tell(self, *facts: Any) -> Days:
        self.books.record(facts, self.now)
        assert self.books.trouble == ""
        return self

    def holds(self, *hours: tuple[int, Tier]) -> Days:
        """A day, on which a job of each tier holds a GPU for so many hours from one o'clock on."""
        for gpu, (count, tier) in enumerate(hours):
            self.uid += 1
            uid = f"u{self.uid}"
            self.tell(
                GangSeen(gang=gang(uid), at_ms=self.now),
                hold(self.now + HOUR, ("n1", (gpu,)), uid=uid, tier=tier),
                release(self.now + (1 + count) * HOUR, uid=uid),
            )
        self.day += 1
        return self.tell()

    def usual(self, days: int) -> Days:
        for _ in range(days):
            self.holds((10, Tier.IN_QUOTA))
        return self
