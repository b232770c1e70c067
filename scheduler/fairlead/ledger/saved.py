"""All that a meter knows, as values that can be written down and read back.

Every state that a device was in stands once, in `SavedMeter.states`, and timelines name it by its place: a fleet has
thousands of devices in one and the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from fairlead.ledger.attempts import Attempts, SavedAttempts, Who
from fairlead.ledger.entry import Amounts, State
from fairlead.ledger.kept import Kept, SavedKept
from fairlead.ledger.outcomes import Windows
from fairlead.ledger.timeline import DeviceBook, HoldKey, MemberHold, NodePoint, NodeTrack
from fairlead.model.gang import Member
from fairlead.model.hardware import Resources
from fairlead.model.prices import PriceBook
from fairlead.model.tenancy import Queue


class SavedBook(msgspec.Struct, frozen=True, array_like=True):
    """A `DeviceBook`; `segments` are (from_ms, places of the states)."""

    posted_to_ms: int
    segments: list[tuple[int, tuple[int, ...]]]


class SavedHold(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A `MemberHold` without its attempt's book."""

    key: HoldKey
    node: str
    devices: tuple[str, ...]
    requests: Resources
    member: Member
    state: State
    begin_ms: int
    milli: int
    end_ms: int | None
    estimated_ms: int
    joined: bool
    beside: Amounts

    @classmethod
    def of(cls, hold: MemberHold) -> SavedHold:
        """Return what a hold is."""
        return cls(**{name: getattr(hold, name) for name in cls.__struct_fields__})

    def restored(self, attempts: Attempts) -> MemberHold:
        """Return the hold, with the book of its attempt."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return MemberHold(**fields, book=attempts.book(*self.key[:2]))


class SavedNode(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A `NodeTrack` without its holds."""

    name: str
    seen: list[tuple[int, int, NodePoint | None]]
    gone: list[int]
    lost: list[tuple[int, int]]
    used: list[tuple[int, int, Resources]]
    foreign: list[tuple[int, int, frozenset[str]]]
    windows: list[tuple[int, int, int, dict[str, int]]]
    books: dict[str, SavedBook]
    outcomes: dict[str, SavedBook]
    pods: list[tuple[HoldKey, SavedBook]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLate:
    """A `pricing.LatePrice`, its lists as the books that they are made of."""

    fact: str
    at_ms: int
    from_ms: int | None
    to_ms: int | None
    up_to: int
    before: tuple[PriceBook, ...]
    after: tuple[PriceBook, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPricing:
    """All that `pricing.Pricing` knows. `holds` are (gang and attempt, chain of queues, rank -> MIG profile)."""

    books: dict[str, PriceBook]
    late: list[SavedLate]
    entries: int
    posted_to_ms: int | None
    models: list[tuple[tuple[str, str], list[tuple[int, str]]]]
    queues: dict[str, Queue]
    gangs: dict[str, tuple[str, dict[str, str]]]
    holds: list[tuple[tuple[str, int], tuple[str, ...], dict[int, str]]]
    kept: list[tuple[tuple[str, str], tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMeter:
    """All that a `meter.Meter` knows; nodes and holds in the order in which it has them."""

    sequence: int
    newest_ms: int | None
    cut_ms: int | None
    meter_ms: int | None
    pricing: SavedPricing
    kept: SavedKept
    attempts: SavedAttempts
    queues: dict[str, Queue]
    gangs: dict[str, Who]
    ends: list[tuple[HoldKey, tuple[int, int]]]
    states: list[State]
    nodes: list[SavedNode]
    holds: list[SavedHold]


def keep_nodes(tracks: Iterable[NodeTrack]) -> tuple[list[State], list[SavedNode]]:
    """Return every state that is in a timeline, and the nodes."""
    places: dict[State, int] = {}

    def kept(book: DeviceBook) -> SavedBook:
        segments = [
            (at_ms, tuple(places.setdefault(state, len(places)) for state in parts)) for at_ms, parts in book.segments
        ]
        return SavedBook(book.posted_to_ms, segments)

    nodes = [
        SavedNode(
            name=track.name,
            seen=track.seen,
            gone=track.gone,
            lost=track.lost,
            used=track.used,
            foreign=track.foreign,
            windows=[(*known[:3], dict(known[3])) for known in track.windows.known],
            books={device: kept(book) for device, book in track.books.items()},
            outcomes={device: kept(book) for device, book in track.outcomes.items()},
            pods=[(key, kept(book)) for key, book in track.pods.items()],
        )
        for track in tracks
    ]
    return list(places), nodes


def restore_nodes(
    saved: SavedMeter, kept: Kept, attempts: Attempts
) -> tuple[dict[str, NodeTrack], dict[HoldKey, MemberHold]]:
    """Return nodes and holds as they were; each hold is added to its attempt."""
    nodes = {one.name: _restored(one, kept, saved.states) for one in saved.nodes}
    holds: dict[HoldKey, MemberHold] = {}
    for one in saved.holds:
        hold = holds[one.key] = one.restored(attempts)
        attempts.add(hold)
        nodes[hold.node].holds.append(hold)
    return nodes, holds


def _restored(one: SavedNode, kept: Kept, states: Sequence[State]) -> NodeTrack:
    def book(found: SavedBook) -> DeviceBook:
        segments = [(at_ms, tuple(states[place] for place in parts)) for at_ms, parts in found.segments]
        return DeviceBook(posted_to_ms=found.posted_to_ms, segments=segments)

    return NodeTrack(
        name=one.name,
        kept=kept,
        seen=one.seen,
        gone=one.gone,
        lost=one.lost,
        used=one.used,
        foreign=one.foreign,
        windows=Windows([*one.windows]),
        books={device: book(found) for device, found in one.books.items()},
        outcomes={device: book(found) for device, found in one.outcomes.items()},
        pods={key: book(found) for key, found in one.pods},
    )
