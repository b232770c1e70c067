"""One entry of the ledger: what it is about, and postings that sum to zero in each unit.

The bytes that the chain hashes never change for an entry that was written once. So a field that came later is left out
of them where it is empty, and a posting in ticks is written as it was when there was no other unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

import msgspec

from fairlead.ledger import accounts
from fairlead.units import TICKS_PER_GPU_MS


class EntryKind(StrEnum):
    """What an entry does.

    SEGMENT books an interval of a device; REVERSAL takes a booked one back, because a later fact says it was otherwise.
    SPLIT says of a held interval what of it was used, idle or wasted; UNSPLIT takes that back. POD books what a pod has
    of its node beside devices; UNPOD takes that back. ADJUSTMENT moves money that somebody decided on.
    """

    SEGMENT = "segment"
    REVERSAL = "reversal"
    SPLIT = "split"
    UNSPLIT = "unsplit"
    POD = "pod"
    UNPOD = "unpod"
    ADJUSTMENT = "adjustment"


TIMELINE = (EntryKind.SEGMENT, EntryKind.REVERSAL)
"""The kinds whose net is the timeline of devices."""
OUTCOMES = (EntryKind.SPLIT, EntryKind.UNSPLIT)
"""The kinds whose net is what became of what was held."""
PODS = (EntryKind.POD, EntryKind.UNPOD)
"""The kinds whose net is what pods had beside devices."""
FORTH = (EntryKind.SEGMENT, EntryKind.SPLIT, EntryKind.POD)
"""Of all these, the kinds that book; the others take back."""

Amounts = tuple[tuple[str, int], ...]
"""(unit, amount a ms), in the order of `accounts.BESIDE`, without those of which there is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One line: an amount of a unit on an account. What an account receives is positive.

    `unit` is "ticks" or, in nano-units of a currency, "money:<currency>".
    """

    account: str
    amount: int
    unit: str = accounts.TICKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the books say about one device from `from_ms` to before `to_ms` (UTC ms), or about a pod or an account.

    `id` is made from facts, so that twice is once. `fact` is the id of the journal record that made it, `at_ms` that
    record's time. `gang` and what follows it are set on held devices only. `estimated_ms` is the width in which the
    end lies, 0 where it is exact. Of a timeline entry the first two postings are ticks from capacity to an account, and
    those after them the money that this was worth when it was booked.

    `actor` is who decided and `reason` why, where somebody did; `refers` is the id of the entry that this one splits or
    mends, "" where it is of no single one.
    """

    id: str
    kind: EntryKind
    fact: str
    at_ms: int
    node: str
    device: str
    pool: str
    from_ms: int
    to_ms: int
    gang: str = ""
    namespace: str = ""
    name: str = ""
    attempt: int = 0
    rank: int = -1
    estimated_ms: int = 0
    actor: str = ""
    reason: str = ""
    refers: str = ""
    postings: tuple[Posting, ...] = ()

    @property
    def account(self) -> str:
        """The account on the second line: of a timeline entry, what the device was in."""
        return self.postings[1].account if len(self.postings) > 1 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a device, or `ticks` of its 840 a ms, is in: the account it is booked to, and by whom it is held.

    Of a pod it is what that has `beside` devices, and `ticks` are 0. Where a device is kept free, `reason` is the rule
    and `actor` the queue that it is kept for.
    """

    account: str
    pool: str
    gang: str = ""
    namespace: str = ""
    name: str = ""
    attempt: int = 0
    rank: int = -1
    ticks: int = TICKS_PER_GPU_MS
    actor: str = ""
    reason: str = ""
    beside: Amounts = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry comes from: the cluster, the journal record's id and its time."""

    cluster: str
    fact: str
    at_ms: int


_ENCODER = msgspec.json.Encoder()


class _Said(msgspec.Struct):
    """What an entry says, sorted by name as in its bytes. Values are as they lie in a row, whatever their type."""

    actor: Any
    at_ms: Any
    attempt: Any
    device: Any
    estimated_ms: Any
    fact: Any
    from_ms: Any
    gang: Any
    id: Any
    kind: Any
    name: Any
    namespace: Any
    node: Any
    pool: Any
    postings: Any
    rank: Any
    reason: Any
    refers: Any
    to_ms: Any


assert list(_Said.__struct_fields__) == sorted(field.name for field in fields(Entry)), _Said.__struct_fields__
HASHED = tuple(name for name in _Said.__struct_fields__ if name != "postings")
"""Fields that are in the hashed bytes beside the postings, in their order."""
_POSTINGS_AT = _Said.__struct_fields__.index("postings")
_hashed = attrgetter(*HASHED)


def make_entry(
    origin: Origin, kind: EntryKind, device: tuple[str, str], state: State, span: tuple[int, int], estimated_ms: int = 0
) -> Entry:
    """Build the entry that books (or takes back) `state` of a device over `span` = (from_ms, to_ms).

    Of what became of held time it is a SPLIT or UNSPLIT instead, whose other side is what is unmeasured; of what a pod
    has beside devices a POD or UNPOD.
    """
    other = accounts.other_side(state.account)
    if other:
        kind = EntryKind.SPLIT if kind in FORTH else EntryKind.UNSPLIT
    elif state.beside:
        kind = EntryKind.POD if kind in FORTH else EntryKind.UNPOD
    from_ms, to_ms = span
    assert from_ms < to_ms, (device, state, span)
    time = (to_ms - from_ms) * (1 if kind in FORTH else -1)
    begin = other or accounts.of_pool(accounts.Kind.CAPACITY, state.pool)
    return Entry(
        id=entry_id(origin, kind, device, state, span),
        kind=kind,
        fact=origin.fact,
        at_ms=origin.at_ms,
        node=device[0],
        device=device[1],
        pool=state.pool,
        from_ms=from_ms,
        to_ms=to_ms,
        gang=state.gang,
        namespace=state.namespace,
        name=state.name,
        attempt=state.attempt,
        rank=state.rank,
        estimated_ms=estimated_ms,
        actor=state.actor,
        reason=state.reason,
        postings=_both_sides(begin, state, time),
    )


def _both_sides(begin: str, state: State, time: int) -> tuple[Posting, ...]:
    """Return postings from an account to the state's, over so many ms; negative ones take back."""
    if not state.beside:
        ticks = time * state.ticks
        return (Posting(account=begin, amount=-ticks), Posting(account=state.account, amount=ticks))
    return tuple(
        Posting(account=account, amount=sign * time * each, unit=unit)
        for unit, each in state.beside
        for account, sign in ((begin, -1), (state.account, 1))
    )


def entry_id(origin: Origin, kind: EntryKind, device: tuple[str, str], state: State, span: tuple[int, int]) -> str:
    """Return the id: SHA-256 over cluster, device, holder, edges and the fact that made it, in this order.

    Where it is of a part of the device, its ticks a ms come last; where it is of a pod, what that has beside devices.
    """
    part: tuple[object, ...] = () if state.ticks == TICKS_PER_GPU_MS else (state.ticks, *state.beside)
    parts = (
        origin.cluster,
        *device,
        state.gang,
        state.attempt,
        state.rank,
        kind,
        state.account,
        *span,
        origin.fact,
        *part,
    )
    return hashlib.sha256(_ENCODER.encode(parts)).hexdigest()


def id_of(cluster: str, entry: Entry, ticks: int, beside: Amounts = ()) -> str:
    """Return the id that an entry about so many ticks a ms of a device, or about a pod, must have."""
    state = State(
        account=entry.account,
        pool=entry.pool,
        gang=entry.gang,
        attempt=entry.attempt,
        rank=entry.rank,
        ticks=ticks,
        beside=beside,
    )
    origin, where = Origin(cluster, entry.fact, entry.at_ms), (entry.node, entry.device)
    return entry_id(origin, entry.kind, where, state, (entry.from_ms, entry.to_ms))


def unbalanced(postings: Iterable[Posting]) -> dict[str, int]:
    """Return unit -> what its amounts sum to, of those that do not sum to zero."""
    sums: dict[str, int] = {}
    for part in postings:
        sums[part.unit] = sums.get(part.unit, 0) + part.amount
    return {unit: amount for unit, amount in sums.items() if amount}


def entry_bytes(entry: Entry) -> bytes:
    """Return the canonical bytes that the chain hashes."""
    return said_bytes(_hashed(entry), [(part.account, part.amount, part.unit) for part in entry.postings])


def said_bytes(hashed: Sequence[object], postings: Iterable[tuple[object, object, object]]) -> bytes:
    """Return the same from values as they lie in a row: those of `HASHED`, and (account, amount, unit)s.

    `actor`, `reason` and `refers` are in the bytes only where they say something.
    """
    lines = [
        {"account": account, "ticks": amount}
        if unit == accounts.TICKS
        else {"account": account, "amount": amount, "unit": unit}
        for account, amount, unit in postings
    ]
    values = [*hashed[:_POSTINGS_AT], lines, *hashed[_POSTINGS_AT:]]
    said = _Said(*values)
    said.actor = said.actor or msgspec.UNSET
    said.reason = said.reason or msgspec.UNSET
    said.refers = said.refers or msgspec.UNSET
    return _ENCODER.encode(said)
