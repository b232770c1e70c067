"""Counts of tokens as who serves them hands them in: CSV or JSON lines, a row for a gang, a time and a class of tokens.

They are somebody's word. Nothing here is booked, and nobody is billed by it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from sys import intern
from typing import BinaryIO, NamedTuple

from fairlead.errors import UnreadableInput
from fairlead.ledger.adjusting import said
from fairlead.units import moment_ms

ROWS_MAX = 500_000
"""So many rows of a file are kept in memory, 280 bytes each."""
LINE_MAX = 65_536
NAME_MAX = 253
_CLASS = (("class", ("prompt", "completion")), ("cached", ("yes", "no")), ("context", ("short", "long")))
_NEEDED = ("from", "to", "class", "cached", "context", "tokens", "tokens_within_slo")
FIELDS = ("gang", "namespace", "name", *_NEEDED, "busy_ms")
_COUNT, _MS = re.compile(r"[0-9]{1,18}"), re.compile(r"[0-9]{1,15}")


class TokenClass(NamedTuple):
    """What tokens cost alike: prompt or completion; cached, yes or no; context, short or long."""

    kind: str
    cached: str
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One row: tokens of a class, within their SLO and beyond, that a gang served from `from_ms` to before `to_ms`.

    Times are UTC ms. The gang is named by its uid or by its namespace and name. `busy_ms` is the device time
    that went into them, None where that was not told. `line` is where the row stands in its file.
    """

    line: int
    gang: str = ""
    namespace: str = ""
    name: str = ""
    from_ms: int
    to_ms: int
    of: TokenClass
    within: int
    beyond: int
    busy_ms: int | None = None


def read(file: BinaryIO, name: str) -> Iterator[Count]:
    """Yield the rows of a file, a line in memory at a time. JSON lines begin with ``{``, all else is CSV with a head.

    Raises
    ------
    UnreadableInput
        A row cannot be right, or there are none or too many; the text has the file's `name`, line and field.
    """
    lines, found = _Lines(file), 0
    try:
        for row in _rows(lines):
            found += 1
            if found > ROWS_MAX:
                raise UnreadableInput(f"there are more than {ROWS_MAX} rows; give longer spans, or files of less time")
            yield _count(lines.number, row)
    except UnreadableInput as problem:
        raise UnreadableInput(f"{name} line {lines.number}: {problem}") from None
    if not found:
        raise UnreadableInput(f"{name}: has no rows; the fields of one are {', '.join(FIELDS)}")


class _Lines:
    """The lines of a file as text, none longer than `LINE_MAX` bytes; `number` is that of the last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        """Go on from where it was left."""
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_MAX + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LINE_MAX:
            raise UnreadableInput(f"is longer than {LINE_MAX} bytes; write a row on each line")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UnreadableInput("is no UTF-8; save the file as UTF-8") from None


def _rows(lines: _Lines) -> Iterator[dict[str, str]]:
    """Yield rows as field -> text; "", or no such field, is not given."""
    first = next(lines, "")
    every = chain([first], lines)
    if first.lstrip().startswith("{"):
        yield from (_of_json(line) for line in every if line.strip())
    elif first:
        yield from _of_csv(every)


def _of_csv(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    table = csv.reader(lines, strict=True)
    try:
        head = next(table)
        _check_fields(head)
        missing = next((field for field in _NEEDED if field not in head), None)
        if missing:
            raise UnreadableInput(f"{missing}: is missing; the first line names the fields: {', '.join(FIELDS)}")
        for cells in table:
            if cells and len(cells) != len(head):
                raise UnreadableInput(f"has {len(cells)} cells where the head has {len(head)}")
            if cells:
                yield dict(zip(head, cells, strict=True))
    except csv.Error as problem:
        raise UnreadableInput(f"is no CSV: {problem}; quote cells as RFC 4180 does") from None


class _Object(list[tuple[str, object]]):
    """A JSON object as it was written, with names that are there twice."""


def _of_json(text: str) -> dict[str, str]:
    try:
        row: object = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, _Object):
        raise UnreadableInput("is no JSON object; write one on each line")
    _check_fields([field for field, _ in row])
    return {field: _text(field, value) for field, value in row if value is not None}


def _check_fields(fields: Sequence[str]) -> None:
    """Refuse fields that there are not, or that are there twice."""
    for at, field in enumerate(fields):
        if field not in FIELDS:
            raise UnreadableInput(f"{field[:80]!r}: there is no such field; the fields are {', '.join(FIELDS)}")
        if field in fields[:at]:
            raise UnreadableInput(f"{field}: is there twice; remove one")


def _text(field: str, value: object) -> str:
    if isinstance(value, bool) and field == "cached":
        return "yes" if value else "no"
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise UnreadableInput(f"{field}: {str(value)[:80]} is neither text nor a whole number")


def _count(line: int, row: Mapping[str, str]) -> Count:
    gang, namespace, name = _named(row)
    from_ms, to_ms = (_moment(row, field) for field in ("from", "to"))
    if from_ms >= to_ms:
        raise UnreadableInput("to: must be after from")
    tokens, within = _number(row, "tokens"), _number(row, "tokens_within_slo")
    if within > tokens:
        raise UnreadableInput(f"tokens_within_slo: is {within} of {tokens} tokens; they are some of them, at most all")
    return Count(
        line=line, gang=gang, namespace=namespace, name=name, from_ms=from_ms, to_ms=to_ms,
        of=_class(*(_choice(row, field, words) for field, words in _CLASS)), within=within, beyond=tokens - within,
        busy_ms=_number(row, "busy_ms") if row.get("busy_ms") else None,
    )  # fmt: skip


def _named(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the uid, or namespace and name; what is not given is ""."""
    gang, namespace, name = (
        intern(said(row[field], NAME_MAX, field=field)) if row.get(field) else ""
        for field in ("gang", "namespace", "name")
    )
    twice = "namespace" if namespace else "name"
    if gang and (namespace or name):
        raise UnreadableInput(f"{twice}: is given beside gang; give gang, or namespace and name")
    if not gang and not (namespace and name):
        missing = "name" if namespace else "namespace" if name else "gang"
        raise UnreadableInput(f"{missing}: is missing; give gang, or namespace and name")
    return gang, namespace, name


@cache
def _class(kind: str, cached: str, context: str) -> TokenClass:
    """Return the one object of a class, for rows are many."""
    return TokenClass(kind, cached, context)


def _moment(row: Mapping[str, str], field: str) -> int:
    text = row.get(field, "")
    return int(text) if _MS.fullmatch(text) else moment_ms(text[:80], field=field)


def _choice(row: Mapping[str, str], field: str, words: tuple[str, ...]) -> str:
    text = row.get(field, "")
    if text not in words:
        raise UnreadableInput(f"{field}: {text[:80]!r} is none of {', '.join(words)}")
    return text


def _number(row: Mapping[str, str], field: str) -> int:
    text = row.get(field, "")
    if not _COUNT.fullmatch(text):
        raise UnreadableInput(f"{field}: {text[:80]!r} is no count; write a whole number of at most 18 digits")
    return int(text)
