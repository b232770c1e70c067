"""The auditor's look at money: every entry costs what the price books said when it was posted.

What a hold is priced by and which prices there were is heard again from the journal, in its order, up to the fact that
each entry follows from. Corrections for prices that came late are decisions of their own: `audit_adjustments`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from fairlead.ledger import accounts
from fairlead.ledger.entry import FORTH, OUTCOMES, TIMELINE, Entry
from fairlead.ledger.pricing import HEARD, Pricing
from fairlead.model.codec import Record
from fairlead.model.prices import PriceBookSeen


class MoneyAudit:
    """Is told all records, then asked about all entries, both in order."""

    def __init__(self, cluster: str) -> None:
        """Start with nothing heard."""
        self._cluster = cluster
        self._pricing = Pricing()
        self._records: deque[tuple[int, str, Record]] = deque()
        self._is_priced = False

    def note(self, number: int, fact: str, record: Record) -> None:
        """Keep a record until the entries that follow from it come."""
        if isinstance(record, HEARD):
            self._records.append((number, fact, record))
            self._is_priced = self._is_priced or isinstance(record, PriceBookSeen)

    def wrong(self, entry: Entry, fact_number: int) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) with the money of an entry; `fact_number` is that of its record."""
        if not self._is_priced:
            self._records.clear()
        while self._records and self._records[0][0] <= fact_number:
            _, fact, record = self._records.popleft()
            self._pricing.hear(record, fact, self._cluster)
        if entry.kind not in (*TIMELINE, *OUTCOMES):
            return
        due: dict[tuple[str, str], int] = {}
        sign = 1 if entry.kind in FORTH else -1
        for charge in self._pricing.charges_of(entry):
            if charge.rate is None:
                continue
            spent = accounts.spend(charge.tenant, charge.queue, charge.rate.tier)
            against = accounts.credit(charge.credit) if charge.credit else accounts.revenue(charge.sku)
            for account, nanos in ((spent, charge.nanos), (against, -charge.nanos)):
                key = (account, accounts.money(charge.rate.currency))
                due[key] = due.get(key, 0) + sign * nanos
        booked: dict[tuple[str, str], int] = {}
        for part in entry.postings:
            if accounts.currency_of(part.unit) is not None:
                booked[part.account, part.unit] = booked.get((part.account, part.unit), 0) + part.amount
        if {key: nanos for key, nanos in booked.items() if nanos} != {k: nanos for k, nanos in due.items() if nanos}:
            yield "postings", f"the money is {_told(booked)}; by the prices of that time it is {_told(due)}"


def _told(amounts: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{nanos} {unit} for {account}" for (account, unit), nanos in sorted(amounts.items())) or "none"
