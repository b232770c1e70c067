"""Books of random entries over two and a half months: money that nothing divides, samples, waste, corrections."""

from __future__ import annotations

import random

from fairlead.ledger.accounts import BESIDE
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import PODS, Entry, EntryKind, Posting
from fairlead.model.codec import Cut, encode
from fairlead.store import engine as database
from fairlead.store import entries, journal, rollups

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BEGIN = 1_790_000_000_000 // DAY_MS * DAY_MS
END = BEGIN + 75 * DAY_MS
QUEUES = ("vision", "speech", "night shift")
EUR, USD = "money:EUR", "money:USD"


def span(rng: random.Random) -> tuple[int, int]:
    """Minutes or an hour as a rule, sometimes days; often at the edges of hours and days."""
    begin = rng.randrange(BEGIN, END) // (unit := rng.choice((1, 1, 60_000, HOUR_MS, DAY_MS))) * unit
    length = rng.choice(
        (rng.randint(1, HOUR_MS), HOUR_MS, rng.randint(1, DAY_MS - 1), DAY_MS, rng.randint(1, 9 * DAY_MS))
    )
    return begin, min(begin + length, END)


def lines(*amounts: tuple[str, int], unit: str = "ticks") -> list[Posting]:
    """Amounts with what balances them first."""
    first, *rest = amounts
    found = [Posting(account=account, amount=amount, unit=unit) for account, amount in rest]
    return [Posting(account=first[0], amount=-sum(part.amount for part in found), unit=unit), *found]


def random_entry(rng: random.Random, number: int) -> Entry:
    begin, end = span(rng)
    queue, job = rng.choice(QUEUES), rng.randrange(4)
    kind = rng.choice(
        [EntryKind.SEGMENT] * 4 + [EntryKind.REVERSAL, EntryKind.SPLIT, EntryKind.SPLIT, EntryKind.ADJUSTMENT, *PODS]
    )
    named = {"gang": f"g{job}", "namespace": "ns", "name": f"job-{job}", "attempt": 1, "rank": 0}
    sign, ticks = (-1 if kind is EntryKind.REVERSAL else 1), (end - begin) * rng.choice((840, 840, 120, 70))
    unit = rng.choice((EUR, EUR, USD))
    nanos = rng.choice((0, rng.randint(1, 10**12)))
    spend = f"spend:lab:{queue}:in-quota"
    if kind is EntryKind.ADJUSTMENT:
        if rng.random() < 0.5:
            end = begin
        named = {"actor": rng.choice(("ann", "bob")), "reason": rng.choice(("outage", "outage: again", "late-price"))}
        postings = lines((rng.choice(("credit:outage", "revenue:H100")), 0), (spend, nanos - 5 * 10**11), unit=unit)
    elif kind is EntryKind.SPLIT:
        if rng.random() < 0.3:
            kind, sign = EntryKind.UNSPLIT, -1
        to, why = rng.choice((
            (f"use:lab:{queue}:used", ("", "exact")), (f"use:lab:{queue}:idle", ("", "estimated")),
            (f"waste:preempted:lab:{queue}", (rng.choice(QUEUES), "preempted")),
            (f"waste:topology:lab:{queue}", ("platform", "estimated/in-quota")),
        ))  # fmt: skip
        named |= {"actor": why[0], "reason": why[1]}
        postings = lines((f"use:lab:{queue}:unmeasured", 0), (to, sign * ticks))
        if to.startswith("waste:topology"):
            postings += lines(("revenue:H100", 0), (spend, -sign * nanos), unit=unit)[::-1]
    elif kind in PODS:
        sign = -1 if kind is EntryKind.UNPOD else 1
        postings = lines(("capacity:main", 0), (f"held:lab:{queue}:borrowed", sign * ticks), unit=rng.choice(BESIDE))
    elif rng.random() < 0.3:
        account = rng.choice(("free:main", "reserved-idle:main", "down:main:node-lost"))
        rule = rng.choice((f"nomination/g{job}", "reservation/night"))
        named = {"actor": queue, "reason": rule} if account.startswith("reserved") else {}
        postings = lines(("capacity:main", 0), (account, sign * ticks))
    else:
        tier = rng.choice(("in-quota", "borrowed", "reserved"))
        postings = lines(("capacity:main", 0), (f"held:lab:{queue}:{tier}", sign * ticks))
        if nanos:
            postings += lines(("revenue:H100", 0), (spend, sign * nanos), unit=unit)[::-1]
    return Entry(
        id=f"e{number}", kind=kind, fact="f", at_ms=end, node="n1", device="gpu-0", pool=rng.choice(("main", "lab")),
        from_ms=begin, to_ms=end, postings=tuple(postings), **named,
    )  # fmt: skip


def random_books(url: str, seed: int, size: int = 400) -> database.Engine:
    """Write them, in batches of all sizes, with their sums; everything is booked up to `END`."""
    rng = random.Random(seed)
    engine = database.connect(url)
    database.upgrade(engine)
    cut = Cut(at_ms=END)
    row, _ = journal.make_row(Head(), cut, encode(cut), 0)
    sealed, _ = seal(Head(), [random_entry(rng, number) for number in range(size)])
    with database.writing(engine) as connection:
        journal.set_meta(connection, "cluster", "c")
        journal.append(connection, [row])
        at = 0
        while at < size:
            batch = sealed[at : at + rng.choice((1, 7, 90))]
            entries.append(connection, batch)
            rollups.add(connection, batch)
            at += len(batch)
    return engine
