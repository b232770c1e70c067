"""The chain: every entry has a dense number and a hash over its bytes and the hash before it.

Whoever changes, removes or swaps an entry breaks the chain there. What a chain alone cannot show is a tail that was
rewritten whole, or cut off; for that its head is published outside the database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.ledger.entry import Entry, entry_bytes

GENESIS = "0" * 64
"""The hash before the first."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the last number (0 where it is empty) and its hash."""

    number: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry with its place in the chain."""

    number: int
    hash: str
    entry: Entry


def link(previous: str, number: int, content: bytes) -> str:
    """Return the hash of link `number` with this content after `previous` (hex)."""
    return hashlib.sha256(b"%s\n%d\n%s" % (previous.encode(), number, content)).hexdigest()


Link = tuple[int, str, bytes]
"""(number, hash, content) of a link as it lies in a table."""


@dataclass(frozen=True, slots=True)
class Break:
    """The first link that does not follow on the one before it: numbers are `missing` there, or it was changed."""

    number: int
    missing: int | None = None


def follow(links: Iterable[Link], head: Head = Head()) -> tuple[Head, Break | None]:
    """Walk links after `head` and stop at the first break; return the last link that holds."""
    for number, digest, content in links:
        due = head.number + 1
        if number != due:
            return head, Break(number if isinstance(number, int) else due, due)  # pyright: ignore[reportUnnecessaryIsInstance]
        if link(head.hash, number, content) != digest:
            return head, Break(number)
        head = Head(number, digest)
    return head, None


def seal(head: Head, entries: Iterable[Entry]) -> tuple[list[Sealed], Head]:
    """Number and link entries after `head`; return them and the new head."""
    sealed: list[Sealed] = []
    for entry in entries:
        number = head.number + 1
        head = Head(number, link(head.hash, number, entry_bytes(entry)))
        sealed.append(Sealed(number, head.hash, entry))
    return sealed, head
