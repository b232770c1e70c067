"""Periods: open, closing, closed, archived; and the statement that a close freezes.

A period is a stretch of time. Which statement an entry belongs to follows from two things it always had: the time it
speaks of and its number.

    in the period      its time lies there, and it was written before the period was closed
    a correction       its time lies in a period that was closed before it was written; the next close takes it

So every entry is in exactly one statement (or, cut at the edges, each part of it is), nothing is moved and nothing is
changed, and the sum of all statements is the sum of the books. Steps are only ever added, each with a hash over itself
and the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import msgspec

from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.chain import GENESIS, Sealed, link
from fairlead.ledger.entry import Entry, EntryKind, Posting
from fairlead.model.calendars import Span


class PeriodState(StrEnum):
    """Where a period stands. One that was never named is open."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    ARCHIVED = "archived"


NEXT = {
    PeriodState.OPEN: (PeriodState.CLOSING,),
    PeriodState.CLOSING: (PeriodState.CLOSED,),
    PeriodState.CLOSED: (PeriodState.ARCHIVED,),
    PeriodState.ARCHIVED: (),
}
"""What a period may become. There is no way back: what is wrong in a closed one is corrected in the next."""


BOOKED_AS = {EntryKind.REVERSAL: EntryKind.SEGMENT, EntryKind.UNSPLIT: EntryKind.SPLIT, EntryKind.UNPOD: EntryKind.POD}
"""As what an entry that takes something back counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A period that became something.

    `entries_to` and `entries_hash` are the end of the ledger's chain that a close saw; of an archive, the last entry in
    the file, and `latest_ms` the latest moment that its entries speak of. `lines` and `sha256` are of the statement, or
    of the archive's uncompressed content. `at_ms` is the newest moment the books knew of.
    """

    number: int
    period: str
    state: PeriodState
    from_ms: int
    to_ms: int
    zone: str
    month_starts_on: int
    at_ms: int
    actor: str
    entries_to: int = 0
    entries_hash: str = ""
    latest_ms: int = 0
    lines: int = 0
    sha256: str = ""
    hash: str = ""

    @property
    def span(self) -> Span:
        """The stretch of time it is about."""
        return Span(self.from_ms, self.to_ms, self.period)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Line:
    """One line of a statement: what was booked to an account, of a unit, for one job.

    `of` names the period that the time lies in; where it is not the statement's own, the line is a correction. `kind`
    is that of the entries, one that takes something back counted as what it takes back. The job's fields are "" where
    nobody held anything; `actor` and `reason` are the entries'. Amounts are ticks or nano-units of a currency.
    """

    of: str
    kind: str
    account: str
    unit: str
    pool: str
    namespace: str
    name: str
    gang: str
    actor: str
    reason: str
    amount: int


_ENCODER = msgspec.json.Encoder(order="sorted")


def line_text(line: Line) -> str:
    """Return the canonical text of a line; equal lines give equal texts everywhere."""
    return _ENCODER.encode(line).decode()


def read_line(text: str) -> Line:
    """Read what `line_text` wrote.

    Raises
    ------
    BooksDoNotVerify
        It is no line of a statement.
    """
    try:
        return msgspec.json.decode(text, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BooksDoNotVerify(f"not a line of a statement: {error}") from error


def digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 of lines, each with a line break after it: what ``sha256sum`` says of them as a file."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode() + b"\n")
    return found.hexdigest()


def seal_step(previous: Step | None, step: Step) -> Step:
    """Return a step with its hash, after the one before it."""
    body = asdict(step)
    del body["hash"]
    return replace(step, hash=link(previous.hash if previous else GENESIS, step.number, _ENCODER.encode(body)))


def clipped(amounts: Sequence[tuple[str, int]], entry: tuple[int, int], window: tuple[int, int]) -> list[int]:
    """Return the parts of an entry's (unit, amount) postings that lie in a window, of its time [from_ms, to_ms).

    The parts of windows that meet sum to the amounts exactly, whatever those are divisible by, and in each window the
    parts of a unit sum to zero: the first posting of a unit is what balances the others. An entry of one moment lies
    whole in the window that has this moment.
    """
    begin, end = entry
    first, last = max(begin, window[0]), min(end, window[1])
    if begin == end:
        return [amount if window[0] <= begin < window[1] else 0 for _, amount in amounts]
    if first >= last:
        return [0] * len(amounts)
    parts = [
        amount * (last - begin) // (end - begin) - amount * (first - begin) // (end - begin) for _, amount in amounts
    ]
    heads: dict[str, int] = {}
    for at, (unit, _) in enumerate(amounts):
        head = heads.setdefault(unit, at)
        if head == at:
            parts[head] = 0
        else:
            parts[head] -= parts[at]
    return parts


def state_of(steps: Iterable[Step], period: str) -> PeriodState:
    """Return where a period stands."""
    found = [step.state for step in steps if step.period == period]
    return found[-1] if found else PeriodState.OPEN


def closed(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that closed periods, in order of time."""
    return [step for step in steps if step.state is PeriodState.CLOSED]


def problems(steps: Sequence[Step]) -> Iterator[tuple[int, str, str]]:
    """Yield (number of the step, field, what is wrong): the chain, the order of states, and gaps between periods."""
    previous: Step | None = None
    for position, step in enumerate(steps, start=1):
        if step.number != position:
            yield step.number, "number", f"{position} should come here: steps are missing"
            return
        if seal_step(previous, step).hash != step.hash:
            yield step.number, "hash", "the chain of periods breaks here: this step or its place was changed"
            return
        before = state_of(steps[: position - 1], step.period)
        if step.state not in NEXT[before]:
            yield step.number, "state", f"period {step.period} was {before} and cannot become {step.state}"
        done = closed(steps[: position - 1])
        if step.state is PeriodState.CLOSED and done and done[-1].to_ms != step.from_ms:
            yield (
                step.number,
                "from_ms",
                f"is {step.from_ms}; period {done[-1].period} before it ends at {done[-1].to_ms}",
            )
        previous = step


def line_key(of: str, entry: Entry, posting: Posting) -> Line:
    """Return the line that a posting belongs on, its amount 0."""
    return Line(
        of=of,
        kind=BOOKED_AS.get(entry.kind, entry.kind).value,
        account=posting.account,
        unit=posting.unit,
        pool=entry.pool,
        namespace=entry.namespace,
        name=entry.name,
        gang=entry.gang,
        actor=entry.actor,
        reason=entry.reason,
        amount=0,
    )


def stated(entries: Iterable[Sealed], done: Sequence[Step]) -> dict[str, dict[Line, int]]:
    """Return what entries put into the statements of closed periods: period -> line, its amount 0 -> amount.

    What lies in a period belongs to its own statement, where it was written before the close, else to that of the next
    close after it was written.
    """
    found: dict[str, dict[Line, int]] = {step.period: {} for step in done}
    for sealed in entries:
        entry = sealed.entry
        amounts = [(part.unit, part.amount) for part in entry.postings]
        for at, step in enumerate(done):
            told = next((later.period for later in done[at:] if sealed.number <= later.entries_to), None)
            if told is None or entry.from_ms >= step.to_ms or entry.to_ms < step.from_ms:
                continue
            parts = clipped(amounts, (entry.from_ms, entry.to_ms), (step.from_ms, step.to_ms))
            for part, posting in zip(parts, entry.postings, strict=True):
                line = line_key(step.period, entry, posting)
                found[told][line] = found[told].get(line, 0) + part
    return found


def summed(entries: Iterable[Sealed], of: str) -> list[Line]:
    """Return what entries sum to by account and job, as lines of one name, sorted."""
    sums: dict[Line, int] = {}
    for entry in (sealed.entry for sealed in entries):
        for part in entry.postings:
            line = line_key(of, entry, part)
            sums[line] = sums.get(line, 0) + part.amount
    return merged((), sums)


def merged(lines: Iterable[Line], more: Mapping[Line, int]) -> list[Line]:
    """Return lines with what `stated` found for them added, sorted as in a statement."""
    sums = dict(more)
    for line in lines:
        key = replace(line, amount=0)
        sums[key] = sums.get(key, 0) + line.amount
    return sorted(replace(key, amount=amount) for key, amount in sums.items() if amount)
