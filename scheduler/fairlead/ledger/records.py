"""The journal's rows as an auditor reads them: each by itself and as a link of its chain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from fairlead.errors import UnreadableInput
from fairlead.ledger.chain import Head, link
from fairlead.model import codec
from fairlead.model.codec import Record


class JournalRow(Protocol):
    """A row of the journal as it lies in the database."""

    @property
    def number(self) -> int:
        """Dense, from 1."""
        ...

    @property
    def id(self) -> str:
        """SHA-256 of the payload."""
        ...

    @property
    def kind(self) -> str:
        """The record's class."""
        ...

    @property
    def subject(self) -> str:
        """Whom it is about."""
        ...

    @property
    def at_ms(self) -> int:
        """The record's time."""
        ...

    @property
    def payload(self) -> str:
        """Canonical JSON."""
        ...

    @property
    def hash(self) -> str:
        """The journal's chain."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: the entry's or the journal record's number (None where there is none), and the field."""

    entry: int | None = None
    record: int | None = None
    field: str
    message: str

    @property
    def sentence(self) -> str:
        """The finding for people."""
        where = f"entry {self.entry}" if self.entry is not None else "the ledger"
        if self.entry is None and self.record is not None:
            where = f"journal record {self.record}"
        return f"{where}: {self.field}: {self.message}"


def follow_rows(rows: Iterable[JournalRow]) -> tuple[Head, Finding | None]:
    """Walk the journal from its beginning and stop at the first row that is wrong; return the last that holds."""
    head = Head()
    for row in rows:
        _, problem = check_row(row, head)
        if problem is not None:
            return head, problem
        head = Head(row.number, row.hash)
    return head, None


def check_row(row: JournalRow, head: Head) -> tuple[Record | None, Finding | None]:
    """Read the record of a row that should follow on `head`; return it, or what is wrong with the row."""
    due = head.number + 1
    if row.number != due:
        number = row.number if isinstance(row.number, int) else due  # pyright: ignore[reportUnnecessaryIsInstance]
        return None, Finding(record=number, field="number", message=f"{due} should come here: records are missing")
    if not isinstance(row.payload, str) or codec.fact_id(row.payload.encode()) != row.id:  # pyright: ignore[reportUnnecessaryIsInstance]
        return None, Finding(record=row.number, field="payload", message="it was changed: its hash is not its id")
    if link(head.hash, row.number, row.id.encode()) != row.hash:
        return None, Finding(record=row.number, field="hash", message="the journal's chain breaks here")
    try:
        record = codec.decode(row.payload)
    except UnreadableInput as error:
        return None, Finding(record=row.number, field="payload", message=str(error))
    said = (type(record).__name__, codec.subject(record), record.at_ms)
    for name, truth, there in zip(("kind", "subject", "at_ms"), said, (row.kind, row.subject, row.at_ms), strict=True):
        if truth != there:
            return None, Finding(record=row.number, field=name, message=f"is {there!r}, its payload says {truth!r}")
    return record, None
