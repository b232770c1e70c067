"""A report as a table of values, and its bytes as JSON and CSV: equal books give equal bytes, with their SHA-256.

A value is text, an integer, or None, which says that nobody measured it: never a zero that was not counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

Value = str | int | None
UNMEASURED = "unmeasured"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
_ENCODER = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One report. `columns` are the names of fields, each row has a value for each.

    `since_ms` and `until_ms` bound it; everything in it is as of `as_of_ms`. `facts` are single values beside the rows.
    """

    report: str
    since_ms: int
    until_ms: int
    as_of_ms: int
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    facts: Mapping[str, Value] = field(default_factory=dict[str, Value])

    def __post_init__(self) -> None:
        """Hold rows to their columns."""
        assert all(len(row) == len(self.columns) for row in self.rows), (self.report, self.columns)

    def to_data(self) -> dict[str, object]:
        """Return it as plain data for JSON; `sha256` is of the canonical JSON of all the rest."""
        body: dict[str, object] = {
            "report": self.report,
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "as_of_ms": self.as_of_ms,
            **self.facts,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        return {**body, "sha256": hashlib.sha256(_ENCODER.encode(body)).hexdigest()}

    def to_csv(self) -> str:
        """Return the rows as CSV under their names, lines ended as RFC 4180 wants."""
        return csv_text(self.columns, [[UNMEASURED if v is None else v for v in row] for row in self.rows])


def stacked(parts: Sequence[tuple[str, Document]], column: str) -> Document:
    """Return documents of one report, one below the other, each under its name in a first column; facts are left out.

    `parts` are in order of time and not empty.
    """
    first, last = parts[0][1], parts[-1][1]
    return Document(
        report=first.report,
        since_ms=first.since_ms,
        until_ms=last.until_ms,
        as_of_ms=last.as_of_ms,
        columns=(column, *first.columns),
        rows=tuple((name, *row) for name, part in parts for row in part.rows),
    )


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """Return a table as CSV; None is an empty cell.

    Text that a spreadsheet would take for a formula gets an apostrophe in front, and control characters are written as
    a question mark, so that a name is only ever read. Numbers stay numbers.
    """
    return "".join(",".join(_cell(value) for value in row) + "\r\n" for row in [columns, *rows])


def _cell(value: Value) -> str:
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    text = "".join(c if c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff" else "?" for c in value)
    if value.startswith(_DANGEROUS) and not _NUMBER.fullmatch(value):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') or text != text.strip() else text
