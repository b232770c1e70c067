"""The attempts of all gangs as the books know them: who runs, who is stopped and why, and which holds are theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fairlead.ledger import tracks
from fairlead.ledger.outcomes import AttemptBook, Mark, marked, waste_of
from fairlead.ledger.timeline import MemberHold
from fairlead.model.events import (
    GrowIntended,
    Intended,
    MemberEnded,
    MemberRunning,
    PlaceFailed,
    Recovered,
    ShrinkIntended,
    StopIntended,
    StopRefused,
    TierChanged,
)
from fairlead.model.gang import GangId, Tier
from fairlead.model.hardware import Resources

Attempted = (
    Intended
    | GrowIntended
    | Recovered
    | TierChanged
    | MemberRunning
    | MemberEnded
    | ShrinkIntended
    | StopIntended
    | StopRefused
    | PlaceFailed
)
"""Facts about one attempt of a gang."""


@dataclass(slots=True)
class Who:
    """What a gang's facts said of it: its names, its queue, and what one pod of each role asks for."""

    namespace: str
    name: str
    queue: str
    requests: dict[str, Resources] = field(default_factory=dict[str, Resources])


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAttempt:
    """An attempt's book without its marks; see `outcomes.AttemptBook`."""

    gang: GangId
    attempt: int
    tiers: list[tuple[int, int, Tier]]
    slowed: list[tuple[int, int, int]]
    ranks: frozenset[int]
    left: set[int]
    ran_ms: dict[int, int]
    told_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAttempts:
    """All attempts as values. `marks` are those of (gang, attempt) that have any, sorted by these."""

    marks: list[tuple[GangId, int, list[Mark]]]
    books: list[SavedAttempt]
    rules: int = 0


class Attempts:
    """Changed only by `Meter`. Methods return the nodes on which something changes, each with from when on.

    `rules` is the newest that an engine said it goes by (`versions`), 0 before any.
    """

    def __init__(self, queue_of: Callable[[str], str]) -> None:
        """Know no attempt; `queue_of` a gang is "" where nobody described it."""
        self.rules = 0
        self._queue_of = queue_of
        self._marks: dict[tuple[GangId, int], list[Mark]] = {}
        self._books: dict[tuple[GangId, int], AttemptBook] = {}
        self._members: dict[tuple[GangId, int], list[MemberHold]] = {}

    def saved(self) -> SavedAttempts:
        """Return what is known, without the holds."""
        books = [
            SavedAttempt(
                gang=gang,
                attempt=attempt,
                tiers=book.tiers,
                slowed=book.slowed,
                ranks=book.ranks,
                left=book.left,
                ran_ms=book.ran_ms,
                told_ms=book.told_ms,
            )
            for (gang, attempt), book in self._books.items()
        ]
        return SavedAttempts(
            marks=[(gang, attempt, marks) for (gang, attempt), marks in sorted(self._marks.items()) if marks],
            books=books,
            rules=self.rules,
        )

    def restore(self, saved: SavedAttempts) -> None:
        """Know what was saved; holds are added by who has them."""
        self.rules = saved.rules
        self._marks = {(gang, attempt): marks for gang, attempt, marks in saved.marks}
        for one in saved.books:
            book = self.book(one.gang, one.attempt)
            book.tiers, book.slowed, book.ranks, book.left = one.tiers, one.slowed, one.ranks, one.left
            book.ran_ms, book.told_ms = one.ran_ms, one.told_ms

    def add(self, hold: MemberHold) -> None:
        """Take up a hold."""
        self._members.setdefault(hold.key[:2], []).append(hold)

    def of(self, record: Attempted) -> AttemptBook:
        """Return what is known of the attempt that a fact is about."""
        return self.book(record.gang, record.attempt)

    def book(self, gang: GangId, attempt: int) -> AttemptBook:
        """Return what is known of an attempt; its marks are the next one's `before`, the same list."""
        key, before = (gang, attempt), (gang, attempt - 1)
        if key not in self._books:
            marks = self._marks.setdefault(key, [])
            self._books[key] = AttemptBook(before=self._marks.setdefault(before, []), marks=marks)
        return self._books[key]

    def begin(
        self, record: Intended | Recovered | GrowIntended, at_ms: int, sequence: int, floor: int | None
    ) -> dict[str, int]:
        """Learn who belongs to an attempt, how it was placed, and since when all run where that is known.

        Who joins is not waited for. What was recovered does not say how it was placed: that was told before.
        """
        attempt, members = self.of(record), record.placement.members
        ran_ms = attempt.running_ms
        first = len(members) - (record.joining if isinstance(record, GrowIntended) else 0)
        attempt.ranks = attempt.ranks or frozenset(member.rank for member in members[:first])
        if isinstance(record, Recovered) and record.all_running_ms is not None and attempt.told_ms is None:
            told_ms = min(record.all_running_ms, at_ms)
            attempt.told_ms = told_ms if floor is None else max(told_ms, floor)
        found = dict(self.ran(record, attempt, ran_ms))
        if not isinstance(record, Recovered):
            tracks.learn(attempt.slowed, (at_ms, sequence, record.placement.slowed_permille))
            for node, from_ms in self.touched(record.gang, record.attempt, at_ms):
                found[node] = min(from_ms, found.get(node, from_ms))
        return found

    def touched(self, gang: GangId, attempt: int, from_ms: int) -> list[tuple[str, int]]:
        """Return the nodes of an attempt's holds, each with when something changes there: not before it began."""
        found: dict[str, int] = {}
        for hold in self._members.get((gang, attempt), ()):
            since_ms = max(from_ms, hold.begin_ms)
            found[hold.node] = min(since_ms, found.get(hold.node, since_ms))
        return list(found.items())

    def progress(self, record: MemberRunning | MemberEnded | ShrinkIntended, at_ms: int) -> list[tuple[str, int]]:
        """Learn who runs; after a stop, what comes before that is a restart."""
        attempt = self.of(record)
        ran_ms = attempt.running_ms
        if isinstance(record, ShrinkIntended):
            attempt.left |= set(record.ranks)
        elif isinstance(record, MemberRunning) or record.succeeded:
            attempt.ran_ms[record.rank] = min(at_ms, attempt.ran_ms.get(record.rank, at_ms))
        return self.ran(record, attempt, ran_ms)

    def ran(self, record: Attempted, attempt: AttemptBook, before_ms: int | None) -> list[tuple[str, int]]:
        """Return what changes because all members run since another moment than was known."""
        now_ms = attempt.running_ms
        if now_ms == before_ms or not attempt.waits:
            return []
        return self.touched(record.gang, record.attempt, min(ms for ms in (now_ms, before_ms) if ms is not None))

    def mark(
        self, record: StopIntended | StopRefused | PlaceFailed, at_ms: int, floor: int | None
    ) -> list[tuple[str, int]]:
        """Waste what an attempt has not saved, because it is stopped; the first stop counts until it is refused."""
        marks = self.of(record).marks
        standing = marks[-1] if marks and marks[-1].waste is not None else None
        if isinstance(record, StopRefused):
            if standing is None:
                return []
            new = marked(standing.from_ms, floor, None)
        else:
            if standing is not None:
                return []
            by = record.by if isinstance(record, StopIntended) else ""
            gaining = self._queue_of(by) if by else None
            waste = waste_of(record.cause.reason, self._queue_of(record.gang), gaining, self.rules)
            if waste is None:
                return []
            safe_ms = record.safe_ms if isinstance(record, StopIntended) else None
            new = marked(None if safe_ms is None else min(safe_ms, at_ms), floor, waste)
        marks.append(new)
        return [
            *self.touched(record.gang, record.attempt, new.from_ms),
            *self.touched(record.gang, record.attempt + 1, new.floor_ms),
        ]

    def drop(self, hold: MemberHold) -> None:
        """Forget a hold, and with the last one the attempt."""
        key = hold.key[:2]
        self._members[key].remove(hold)
        if not self._members[key]:
            del self._members[key]
            if self._books.pop(key, None) is not None:
                for attempt in (key[1] - 1, key[1]):
                    self._unmark((key[0], attempt))

    def _unmark(self, key: tuple[GangId, int]) -> None:
        """Forget marks that are none, unless the book of this attempt or of the next one has the list."""
        if key not in self._books and (key[0], key[1] + 1) not in self._books and not self._marks.get(key, True):
            del self._marks[key]
