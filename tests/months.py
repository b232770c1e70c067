"""Books of two months and a bit, for what is closed, archived and reported."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

from ledger_facts import NAMED, node, placement

from fairlead.ledger.periods import Step
from fairlead.model.calendars import Calendar
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.reports import archives, statements
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import periods
from fairlead.timezones import zone_of

HOUR = 3_600_000
BERLIN = Calendar(zone=zone_of("Europe/Berlin", field="zone"))
HELD = "held:lab:vision:in-quota"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


BEGIN = ms("2026-09-30T20:00Z")  # September in Berlin ends at 22:00
END = ms("2026-10-31T23:00Z")  # and October, which has an hour more, at 23:00 of the last


class Months:
    """Books of four GPUs; a gang holds two of them from an hour before the month ends in Berlin to an hour after it."""

    def __init__(self, where: Path | str) -> None:
        """In a folder, or in the database of a URL."""
        self.url = where if isinstance(where, str) else f"sqlite:///{where}/b.sqlite"
        self.books = Bookkeeper(self.url)
        self.engine = database.connect(self.url)
        self.at(BEGIN, *[dataclasses.replace(fact, at_ms=BEGIN) for fact in NAMED], NodeSeen(node=node(), at_ms=BEGIN))
        self.tell_first()
        self.at(BEGIN + HOUR, hold(BEGIN + HOUR))
        self.at(BEGIN + 3 * HOUR, MemberReleased(gang="g1", attempt=1, rank=0, at_ms=BEGIN + 3 * HOUR))

    def tell_first(self) -> None:
        """For who tells the same story with more in it."""

    def steps(self) -> list[Step]:
        with database.reading(self.engine) as connection:
            return periods.steps(connection)

    def at(self, now_ms: int, *facts: Any) -> Months:
        self.books.record(facts, now_ms)
        assert self.books.trouble == ""
        return self

    def pass_to(self, text: str) -> Months:
        at_ms = ms(text)
        return self.at(at_ms, NodeSeen(node=node(), at_ms=at_ms)).at(at_ms + HOUR)

    def close(self, name: str, **more: Any) -> list[Step]:
        return statements.close(self.engine, name, actor="ann", **{"calendar": BERLIN, **more})

    def gpu_hours(self, name: str) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for line in statements.statement(self.engine, name).lines:
            if line.unit == "ticks":
                key = (line.of, line.account)
                found[key] = found.get(key, 0) + line.amount
        return {key: ticks // 840 // HOUR for key, ticks in found.items()}

    def findings(self) -> list[str]:
        with database.reading(self.engine) as connection:
            return list(archives.findings(connection))


def hold(at_ms: int, uid: str = "g1") -> Intended:
    on = placement(("n1", (0, 1)))
    return Intended(gang=uid, attempt=1, placement=on, tier=Tier.IN_QUOTA, at_ms=at_ms, deadline_ms=at_ms + 1)
