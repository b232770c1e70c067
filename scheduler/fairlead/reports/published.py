"""Do the books have what was published of them? What the chains by themselves cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.ledger.chain import GENESIS, Head
from fairlead.ledger.published import Published
from fairlead.ledger.records import Finding
from fairlead.reports.archives import archived
from fairlead.store import engine as database
from fairlead.store import entries, journal, periods


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The numbers that were published of entries, period steps and the journal's records (None: nothing was), and what
    is not as it was.

    `archive` is the period whose archive has the entry, "" where the database has it or should.
    """

    entry: int
    archive: str
    step: int | None
    record: int | None
    findings: tuple[Finding, ...]

    def to_data(self) -> dict[str, Any]:
        """Return what was compared as plain data for JSON; the findings go with the other ones."""
        return {"entry": self.entry, "archive": self.archive, "step": self.step, "record": self.record}


def compare(connection: database.Connection, published: Published, archives: Sequence[Path] = ()) -> Compared:
    """Look for the published entry, period step and record in the books, for an entry that was dropped in its archive.

    Hashes are taken as they lie there: that they are those of the chains is for `verification.verify` to say.

    Raises
    ------
    UnreadableInput
        The entry is in an archive that is not named.
    BooksDoNotVerify
        That archive is damaged.
    """
    found: list[Finding] = []
    head = published.entries
    gone = next((step for step in periods.dropped(connection) if 0 < head.number <= step.entries_to), None)
    if gone is None:
        there, end = entries.hash_of(connection, head.number), entries.head(connection).number
    else:
        with archived(connection, archives, gone) as rows:
            there = next((item.hash for item in rows if item.number == head.number), None)
        end = gone.entries_to
    for field, message in _differences(head, there, end):
        of = f" (in the archive of {gone.period})" if gone else ""
        found.append(Finding(entry=head.number, field=field, message=message + of))
    if published.steps is not None:
        last = periods.last(connection)
        there, end = periods.hash_of(connection, published.steps.number), last.number if last else 0
        for field, message in _differences(published.steps, there, end):
            step = f"period step {published.steps.number}"
            step += f" ({published.period})" if published.period else ""
            found.append(Finding(field="periods", message=f"{step}: {field}: {message}"))
    if published.journal is not None:
        there = journal.hash_of(connection, published.journal.number)
        for field, message in _differences(published.journal, there, journal.head(connection).number):
            found.append(Finding(record=published.journal.number, field=field, message=message))
    return Compared(
        entry=head.number,
        archive=gone.period if gone else "",
        step=published.steps.number if published.steps else None,
        record=published.journal.number if published.journal else None,
        findings=tuple(found),
    )


def _differences(published: Head, there: str | None, end: int) -> list[tuple[str, str]]:
    """Return (field, what is wrong); `there` is the hash that its number has now, `end` the last number there is."""
    if published.number == 0:
        there = GENESIS
    if there is None:
        older = "the books are older than what was published, or their end was cut off"
        return [("number", f"was published with the hash {published.hash}; the last one here is {end}: {older}")]
    if there != published.hash:
        anew = "it, or what comes before it, was written anew"
        return [("hash", f"is {there}; published was {published.hash}: {anew}")]
    return []
