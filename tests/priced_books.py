"""Books with money, samples and waste in them, written by hand: two queues, one device, ten hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import Entry, EntryKind, Posting
from fairlead.model.codec import Cut, encode
from fairlead.store import engine as database
from fairlead.store import entries, journal

HOUR = 3_600_000
BEGIN = 1_790_000_000_000 // HOUR * HOUR
TICKS = 840 * HOUR
EUR = "money:EUR"
NANO = 10**9
ODD = "=cmd|' /C calc'!A0"
"""A namespace that a spreadsheet would run."""


def posting(account: str, amount: int, unit: str = "ticks") -> Posting:
    return Posting(account=account, amount=amount, unit=unit)


def segment(hours: tuple[int, int], account: str, cost: int = 0, **more: Any) -> Entry:
    """A whole device in an account; `cost` in whole euros is charged to the queue's tier."""
    ticks = (hours[1] - hours[0]) * TICKS
    postings = [posting("capacity:main", -ticks), posting(account, ticks)]
    if cost:
        spend = account.replace("held:", "spend:")
        postings += [posting(spend, cost * NANO, EUR), posting("revenue:H100", -cost * NANO, EUR)]
    return entry(EntryKind.SEGMENT, hours, postings, **more)


def split(hours: tuple[int, int], queue: str, parts: dict[str, int], **more: Any) -> Entry:
    """What became of held hours: account -> hours, out of what nobody measured."""
    whole = posting(f"use:lab:{queue}:unmeasured", -sum(parts.values()) * TICKS)
    return entry(EntryKind.SPLIT, hours, [whole, *(posting(to, h * TICKS) for to, h in parts.items())], **more)


def entry(kind: EntryKind, hours: tuple[int, int], postings: list[Posting], **more: Any) -> Entry:
    said = f"{kind} {hours} {postings} {more}"
    return Entry(
        id=said, kind=kind, fact="f", at_ms=BEGIN + hours[1] * HOUR, node="n1", device="gpu-0", pool="main",
        from_ms=BEGIN + hours[0] * HOUR, to_ms=BEGIN + hours[1] * HOUR, postings=tuple(postings), **more,
    )  # fmt: skip


VISION = {"gang": "g1", "namespace": "ns", "name": "train", "attempt": 1, "rank": 0}
SPEECH = {"gang": "g2", "namespace": ODD, "name": 'tune,"x"\0\n', "attempt": 1, "rank": 0}

ENTRIES = (
    segment((0, 4), "held:lab:vision:in-quota", 8, **VISION),
    segment((4, 6), "held:lab:vision:borrowed", 6, **VISION),
    split((0, 4), "vision", {"use:lab:vision:used": 3, "use:lab:vision:idle": 1}, **VISION),
    split((4, 6), "vision", {"use:lab:vision:used": 1, "waste:preemption:lab:vision": 1}, **VISION),
    segment((6, 8), "held:lab:speech:in-quota", **SPEECH),
    segment((8, 9), "reserved-idle:main", actor="speech", reason="reservation/night"),
    segment((9, 10), "free:main"),
    entry(
        EntryKind.ADJUSTMENT, (5, 5),
        [posting("spend:lab:vision:in-quota", -2 * NANO, EUR), posting("credit:outage", 2 * NANO, EUR)],
        actor="ann", reason="outage",
    ),
)  # fmt: skip


def priced_books(where: Path | str, given: tuple[Entry, ...] = ENTRIES) -> database.Engine:
    """Write them into a folder or the database of a URL; everything is booked up to the tenth hour."""
    engine = database.connect(where if isinstance(where, str) else f"sqlite:///{where}/priced.sqlite")
    database.upgrade(engine)
    cut = Cut(at_ms=BEGIN + 10 * HOUR)
    row, _ = journal.make_row(Head(), cut, encode(cut), 0)
    with database.writing(engine) as connection:
        journal.set_meta(connection, "cluster", "c")
        journal.append(connection, [row])
        entries.append(connection, seal(Head(), given)[0])
    return engine
