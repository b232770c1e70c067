"""The meter, a journal and a chain in memory, for tests of the books."""

from __future__ import annotations

import dataclasses
from typing import Any

from ledger_facts import placement

from fairlead.ledger import meter
from fairlead.ledger.audit import Audit, audit
from fairlead.ledger.chain import Head, Sealed, seal
from fairlead.model import codec
from fairlead.model.events import (
    GrowIntended,
    Intended,
    KeptFree,
    MemberReleased,
    Recovered,
    Started,
    StopIntended,
)
from fairlead.model.gang import Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.store import journal


class Books:
    """The meter, a journal and a chain in memory."""

    def __init__(self) -> None:
        self.meter = meter.Meter("c")
        self.rows: list[journal.Row] = []
        self.sealed: list[Sealed] = []
        self.heads = (Head(), Head())
        self.known: set[str] = set()

    def take(self, *records: Any) -> Books:
        for record in records:
            data = codec.encode(record)
            if codec.fact_id(data) in self.known:
                continue
            self.known.add(codec.fact_id(data))
            row, journal_head = journal.make_row(self.heads[0], record, data, 0)
            new, head = seal(self.heads[1], self.meter.apply(record, row.id).entries)
            self.rows.append(row)
            self.sealed += new
            self.heads = (journal_head, head)
        return self

    def audit(self) -> Audit:
        return audit("c", self.rows, self.sealed)

    def gpu_ms(self) -> dict[str, int]:
        found = self.audit()
        assert found.verified, [f.sentence for f in found.findings]
        return {name: ticks // 840 for name, ticks in found.balances.items() if ticks}


def posted(audit: Audit) -> dict[str, int]:
    """Account -> GPU-ms, without what there is as a whole."""
    return {name: ticks // 840 for name, ticks in audit.balances.items() if ticks and not name.startswith("capacity")}


def hold(at_ms: int, *members: tuple[Any, ...], uid: str = "g1", tier: Tier = Tier.IN_QUOTA) -> Intended:
    return Intended(
        gang=uid, attempt=1, placement=placement(*members), tier=tier, at_ms=at_ms, deadline_ms=at_ms + 30_000
    )  # fmt: skip


def release(at_ms: int, rank: int = 0, uid: str = "g1", estimated_ms: int = 0) -> MemberReleased:
    return MemberReleased(gang=uid, attempt=1, rank=rank, at_ms=at_ms, estimated_ms=estimated_ms)


def rule(at_ms: int, *kept: str, name: str = "promise/g9", queue: str = "lab") -> KeptFree:
    return KeptFree(keeper=name, queue=queue, devices=(("n1", kept),) if kept else (), at_ms=at_ms)


def engine(at_ms: int, **more: Any) -> Started:
    return Started(rules=Rules(), at_ms=at_ms, **more)


def stop(at_ms: int, reason: Reason = Reason.PREEMPTED, attempt: int = 1, **more: Any) -> StopIntended:
    return StopIntended(gang="g1", attempt=attempt, cause=refuse(reason), requeue=True, at_ms=at_ms, **more)


def attempt(number: int, fact: Intended) -> Intended:
    return dataclasses.replace(fact, attempt=number)


def grow(at_ms: int, *members: tuple[Any, ...], joining: int = 1, slowed: int = 0) -> GrowIntended:
    return GrowIntended(
        gang="g1", attempt=1, placement=placement(*members, slowed=slowed), tier=Tier.IN_QUOTA, joining=joining,
        at_ms=at_ms, deadline_ms=at_ms + 30_000,
    )  # fmt: skip


def found_again(at_ms: int, since_ms: int, holding: tuple[int, ...], *members: tuple[Any, ...]) -> Recovered:
    return Recovered(
        gang="g1", attempt=1, placement=placement(*members), tier=Tier.IN_QUOTA, since_ms=since_ms, bound=True,
        holding=holding, running=(), at_ms=at_ms,
    )  # fmt: skip
