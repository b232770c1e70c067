"""The meter, a journal and a chain in memory, for tests of the books."""

from __future__ import annotations

from typing import Any

from ledger_facts import placement

from fairlead.ledger import meter
from fairlead.ledger.audit import Audit, audit
from fairlead.ledger.chain import Head, Sealed, seal
from fairlead.model import codec
from fairlead.model.events import Intended, MemberReleased
from fairlead.model.gang import Tier
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


def hold(at_ms: int, *members: tuple[Any, ...], uid: str = "g1", tier: Tier = Tier.IN_QUOTA) -> Intended:
    return Intended(
        gang=uid, attempt=1, placement=placement(*members), tier=tier, at_ms=at_ms, deadline_ms=at_ms + 30_000
    )  # fmt: skip


def release(at_ms: int, rank: int = 0, uid: str = "g1", estimated_ms: int = 0) -> MemberReleased:
    return MemberReleased(gang=uid, attempt=1, rank=rank, at_ms=at_ms, estimated_ms=estimated_ms)
