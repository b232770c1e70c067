"""One stream of facts with every disorder that facts come in, from a seed, and what the books make of it as bytes.

Among the facts: repeats, up to ten times and after a restart; orders turned upside down; facts 48 hours and more late;
a clock that steps back and forth, and node clocks 5 s apart; the same hold with other times, which is the same id with
another payload; holds that end before they begin.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ledger_facts import NAMED, node, placement

from fairlead.ledger.entry import entry_bytes
from fairlead.model.events import ForeignDevices, Intended, MemberReleased, NodeGone, NodeSeen, NodeUsed, Started
from fairlead.model.gang import Tier
from fairlead.model.hardware import Resources
from fairlead.model.rules import Rules
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, journal, rollups

HOUR_MS = 3_600_000
T0 = 490_000 * HOUR_MS


def told(seed: int) -> list[tuple[int, list[Any]]]:
    """Return (now_ms, facts) batches in the order in which they come."""
    rng = random.Random(seed)
    facts = list(_facts(rng))
    odd: list[Any] = []
    for fact in facts:
        again = [fact] * rng.choice((1, 1, 1, 2, 10))
        if isinstance(fact, Intended | MemberReleased) and rng.random() < 0.2:
            again.append(dataclasses.replace(fact, at_ms=fact.at_ms + rng.choice((-7_000, 1, 90_000))))
        odd += again
    for _ in range(len(odd) // 2):  # what comes late, by seconds, by hours or by more than two days
        at = rng.randrange(len(odd))
        odd.insert(min(len(odd), at + rng.choice((1, 3, 40, len(odd)))), odd.pop(at))
    if rng.random() < 0.2:
        rng.shuffle(odd)
    begun = Started(rules=Rules(), at_ms=T0, meter=2)
    batches: list[tuple[int, list[Any]]] = [
        (T0, [begun, *NAMED, *[NodeSeen(node=node(n), at_ms=T0) for n in ("n1", "n2")]])
    ]
    now = T0
    while odd:
        count = rng.choice((1, 2, 5, 30))
        now += rng.choice((1, 60_000, 20 * 60_000, 3 * HOUR_MS, -5_000, -HOUR_MS))
        batches.append((now, odd[:count]))
        odd = odd[count:]
    return batches


def _facts(rng: random.Random) -> Iterator[Any]:
    skew = {"n1": 0, "n2": 5_000}
    now = T0
    for number in range(12):
        now += rng.choice((0, 1, 30_000, HOUR_MS, 5 * HOUR_MS, 60 * HOUR_MS))
        name = rng.choice(("n1", "n2"))
        at = now + skew[name]
        uid, attempt = f"g{number % 3 + 1}", number // 3 + 1
        on = placement((name, (number % 4,)), ("n1", ((number + 1) % 4,), rng.choice((0, 333, 142))))
        tier = rng.choice(list(Tier))
        yield Intended(gang=uid, attempt=attempt, placement=on, tier=tier, at_ms=at, deadline_ms=at + 30_000)
        for rank in (0, 1):
            end = at + rng.choice((-4_000, 0, 1, 59_999, 2 * HOUR_MS, 50 * HOUR_MS))
            yield MemberReleased(gang=uid, attempt=attempt, rank=rank, at_ms=end, estimated_ms=rng.choice((0, 900)))
        kind = rng.randrange(5)
        if kind == 0:
            since = rng.choice((None, at - 40_000, at - 49 * HOUR_MS))
            yield NodeSeen(node=node(name, sick=(number % 4,), not_ready_since_ms=since), at_ms=at + 10)
            yield NodeSeen(node=node(name, cut=rng.choice(("-", "dynamic"))), at_ms=at + 70_000)
        elif kind == 1:
            yield NodeUsed(name=name, taken=Resources(cpu_milli=rng.choice((0, 64_000)), pods=1), at_ms=at + 5)
        elif kind == 2:
            yield ForeignDevices(name=name, devices=("gpu-3",), at_ms=at + 5)
        elif kind == 3 and rng.random() < 0.3:
            yield NodeGone(name=name, at_ms=at + 100_000)
            yield NodeSeen(node=node(name), at_ms=at + 200_000)


def keep(url: str, seed: int) -> bytes:
    """Keep books of the stream at a URL, with a restart in the middle; return their export.

    By the seed the restart begins with a snapshot of every cut, of some, or with none.
    """
    batches = told(seed)
    halves = (batches[: len(batches) // 2], batches[len(batches) // 3 :])  # the second process hears some again
    for half in halves:
        books = Bookkeeper(url, snapshot_after=(1, 25, 10**9)[seed % 3])
        for now_ms, facts in half:
            books.record(facts, now_ms)
            assert books.trouble == "", (seed, books.trouble)
        books.close()
    return export(url, seed)


def export(url: str, seed: int) -> bytes:
    """Verify books and return their journal (without the time of writing), entries and sums as bytes."""
    engine = database.connect(url)
    try:
        with database.reading(engine) as connection:
            found = verify(connection)
            assert found.verified, (seed, [finding.sentence for finding in found.findings])
            rows = [(r.number, r.id, r.kind, r.subject, r.at_ms, r.payload, r.hash) for r in journal.read(connection)]
            sealed = [(s.number, s.hash, entry_bytes(s.entry)) for s in entries.read(connection)]
            return repr((rows, sealed, list(rollups.read(connection)))).encode()
    finally:
        engine.dispose()


def replayed(url: str, into: str, seed: int) -> bytes:
    """Write the journal of books into empty ones, record by record, and return the export of these."""
    from fairlead.store.journal import record_of

    engine = database.connect(url)
    with database.reading(engine) as connection:
        rows = list(journal.read(connection))
    engine.dispose()
    books = Bookkeeper(into)
    for row in rows:
        books.record([record_of(row)], -(10**15))  # so early that no cut is due: those of the journal are enough
        assert books.trouble == "", (seed, books.trouble)
    books.close()
    return export(into, seed)


def main() -> None:
    """`make ledger-disorder`: many seeds on SQLite, some of them on PostgreSQL too."""
    from postgres_server import PostgresServer

    sqlite, postgres = (int(word) for word in sys.argv[1:3])
    server = PostgresServer()
    try:
        for seed in range(sqlite):
            with tempfile.TemporaryDirectory(prefix="fairlead-disorder-") as folder:
                url = f"sqlite:///{folder}/b.sqlite"
                found = keep(url, seed)
                assert found == replayed(url, f"sqlite:///{folder}/replay.sqlite", seed), seed
                assert seed >= postgres or found == keep(server.schema(), seed), seed
            if seed % 50 == 49:
                print(f"{seed + 1} seeds, the last {hashlib.sha256(found).hexdigest()[:16]}", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
