"""One entry of the ledger: a device, an interval, and postings in ticks that sum to zero."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from fairlead.ledger import accounts
from fairlead.units import TICKS_PER_GPU_MS


class EntryKind(StrEnum):
    """SEGMENT books an interval; REVERSAL takes a booked one back, because a later fact says it was otherwise."""

    SEGMENT = "segment"
    REVERSAL = "reversal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One line: an amount in ticks on an account. What an account receives is positive."""

    account: str
    ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the books say about one device from `from_ms` to before `to_ms` (UTC ms).

    `id` is made from facts, so that twice is once. `fact` is the id of the journal record that made it, `at_ms` that
    record's time. `gang` and what follows it are set on held devices only. `estimated_ms` is the width in which the
    end lies, 0 where it is exact.
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
    postings: tuple[Posting, ...] = ()

    @property
    def account(self) -> str:
        """The account beside capacity."""
        return self.postings[1].account if len(self.postings) == 2 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a device, or `ticks` of its 840 a ms, is in: the account it is booked to, and by whom it is held."""

    account: str
    pool: str
    gang: str = ""
    namespace: str = ""
    name: str = ""
    attempt: int = 0
    rank: int = -1
    ticks: int = TICKS_PER_GPU_MS


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry comes from: the cluster, the journal record's id and its time."""

    cluster: str
    fact: str
    at_ms: int


_ENCODER = msgspec.json.Encoder(order="sorted")


def make_entry(
    origin: Origin, kind: EntryKind, device: tuple[str, str], state: State, span: tuple[int, int], estimated_ms: int = 0
) -> Entry:
    """Build the entry that books (or takes back) `state` of a device over `span` = (from_ms, to_ms)."""
    from_ms, to_ms = span
    assert from_ms < to_ms, (device, state, span)
    ticks = (to_ms - from_ms) * state.ticks * (1 if kind is EntryKind.SEGMENT else -1)
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
        postings=(
            Posting(account=accounts.of_pool(accounts.Kind.CAPACITY, state.pool), ticks=-ticks),
            Posting(account=state.account, ticks=ticks),
        ),
    )


def entry_id(origin: Origin, kind: EntryKind, device: tuple[str, str], state: State, span: tuple[int, int]) -> str:
    """Return the id: SHA-256 over cluster, device, holder, edges and the fact that made it, in this order.

    Where it is of a part of the device, its ticks a ms come last.
    """
    part = () if state.ticks == TICKS_PER_GPU_MS else (state.ticks,)
    parts = (
        origin.cluster, *device, state.gang, state.attempt, state.rank, kind.value, state.account, *span, origin.fact,
        *part,
    )  # fmt: skip
    return hashlib.sha256(_ENCODER.encode(parts)).hexdigest()


def entry_bytes(entry: Entry) -> bytes:
    """Return the canonical bytes that the chain hashes."""
    return _ENCODER.encode(entry)
