"""An archive of entries: canonical bytes with number and hash, a line each, under a line that says what they are.

The bytes are those that the chain hashes, so whoever has an archive and the head that was published can check it
without the database it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.chain import Head, Sealed
from fairlead.ledger.entry import Entry, entry_bytes

FORMAT = "fairlead-archive-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What an archive says of itself: entries ]after.number, head.number] of a cluster, closed with a period."""

    format: str
    cluster: str
    period: str
    after: Head
    head: Head


_ENCODER = msgspec.json.Encoder(order="sorted")


def lines(heading: Heading, entries: Iterable[Sealed]) -> Iterator[bytes]:
    """Yield an archive's lines, each with its line break."""
    yield _ENCODER.encode(heading) + b"\n"
    for item in entries:
        yield b'{"entry":%s,"hash":"%s","number":%d}\n' % (entry_bytes(item.entry), item.hash.encode(), item.number)


def read_heading(line: bytes, *, name: str) -> Heading:
    """Read an archive's first line; `name` is what messages call the file.

    Raises
    ------
    BooksDoNotVerify
        It is no archive of this format.
    """
    try:
        heading = msgspec.json.decode(line, type=Heading)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BooksDoNotVerify(f"{name} is no archive of books: {error}") from error
    if heading.format != FORMAT:
        raise BooksDoNotVerify(f"{name}: format: is {heading.format!r}; this version reads {FORMAT}")
    return heading


def read_entries(body: Iterable[bytes], *, name: str) -> Iterator[Sealed]:
    """Yield the entries of the lines that follow the heading. What they say is for the audit to judge.

    Raises
    ------
    BooksDoNotVerify
        A line is no entry; the message names the file and the line.
    """
    for position, line in enumerate(body, start=2):
        try:
            found = msgspec.json.decode(line)
            yield Sealed(int(found["number"]), str(found["hash"]), _entry(found["entry"]))
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise BooksDoNotVerify(f"{name}, line {position}: is no entry: {error}") from error


def _entry(body: dict[str, Any]) -> Entry:
    """Read what `entry_bytes` writes: a posting without a unit is of ticks."""
    postings = [
        {"account": part["account"], "amount": part["ticks"]} if "ticks" in part else part for part in body["postings"]
    ]
    return msgspec.convert({**body, "postings": postings}, Entry)
