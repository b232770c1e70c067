"""Do the books verify? First the two chains, then what they say: so the first row that was changed is soon known.

The chains are read streaming, and the memory for it does not grow with the books. What follows, where they hold, keeps
a few numbers an entry and all records of the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from fairlead.ledger.audit import Audit, audit, explain
from fairlead.ledger.chain import Link, Sealed, follow
from fairlead.ledger.entry import entry_bytes
from fairlead.ledger.records import Finding, follow_rows
from fairlead.ledger.rollup import Key, cells, hours
from fairlead.reports.archives import earlier, findings
from fairlead.store import engine as database
from fairlead.store import entries, journal, periods, rollups
from fairlead.units import TICKS_PER_GPU_MS

SHOWN = 10
"""How many stray postings and wrong sums are named."""


def verify(connection: database.Connection, archives: Sequence[Path] = ()) -> Audit:
    """Verify everything that the database says, and the archives of what it says no more.

    Raises
    ------
    UnreadableInput
        Entries are in archives that are not named.
    BooksDoNotVerify
        An archive is damaged.
    """
    cluster = journal.get_meta(connection, "cluster")
    broken = _chains(connection, cluster, archives)
    if broken.findings:
        return broken
    sums: dict[tuple[int, Key], int] = {}
    gone = periods.dropped(connection)
    summed = _summed(_whole(connection, archives), sums, gone[-1].entries_to if gone else 0)
    found = audit(cluster, journal.read(connection), summed)
    unit = journal.get_meta(connection, "ticks_per_gpu_ms")
    if found.records and unit != str(TICKS_PER_GPU_MS):
        found.add(Finding(field="ticks_per_gpu_ms", message=f"is {unit!r} in these books, not {TICKS_PER_GPU_MS}"))
    if found.verified and rollups.number(connection) == found.head.number:
        for length, start, key in rollups.differences(dict(rollups.read(connection)), cells(sums))[:SHOWN]:
            said = f"the rollup of {' '.join(filter(None, key))}, {length} ms from {start} on"
            found.add(Finding(field=said, message="is not what the entries say; run `fairlead ledger rebuild-rollups`"))
    for sentence in findings(connection, archives):
        found.add(Finding(field="periods", message=sentence))
    return found


def _chains(connection: database.Connection, cluster: str, archives: Sequence[Path]) -> Audit:
    """Follow both chains; of each, the first break is found."""
    journal_head, wrong = follow_rows(journal.read(connection))
    strays: list[int] = []
    head, gap = follow(chain(map(_link, earlier(connection, archives)), entries.links(connection, strays)))
    found = Audit(records=journal_head.number, entries=head.number, journal_head=journal_head, head=head)
    if gap is not None and gap.missing is not None:
        message = f"{gap.missing} should come here: entries are missing"
        found.add(Finding(entry=gap.number, field="number", message=message))
    elif gap is not None:
        sealed = next(item for item in _whole(connection, archives, head.number) if item.number == gap.number)
        found.add(explain(cluster, sealed, head, journal.times(connection, sealed.entry.fact)))
    elif strays:
        for number in strays[:SHOWN]:
            found.add(Finding(entry=number, field="number", message="there are postings of it, but no entry"))
    if wrong is not None:
        found.add(wrong)
    return found


def _whole(connection: database.Connection, archives: Sequence[Path], after: int = 0) -> Iterator[Sealed]:
    """Yield every entry there ever was, those in archives first; of the database's, those after a number."""
    yield from earlier(connection, archives)
    yield from entries.read(connection, after=after)


def _link(sealed: Sealed) -> Link:
    return sealed.number, sealed.hash, entry_bytes(sealed.entry)


def _summed(sealed: Iterable[Sealed], sums: dict[tuple[int, Key], int], after: int) -> Iterator[Sealed]:
    """Pass entries on and add what those numbered after one say to the sums of hours."""
    for item in sealed:
        yield item
        if item.number > after:
            hours((item.entry,), sums)
