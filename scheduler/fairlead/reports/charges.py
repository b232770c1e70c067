"""Showback and chargeback: what device time was held, what became of it and what it cost; and what is to be paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.errors import UnreadableInput
from fairlead.ledger.accounts import Kind, currency_of
from fairlead.ledger.entry import EntryKind
from fairlead.ledger.outcomes import TOPOLOGY
from fairlead.model.gang import Tier
from fairlead.reports.booked import Booked, By, columns_of, gpu_ms, key_of
from fairlead.reports.document import Document, Value
from fairlead.reports.usage import whole_gpu_ms


@dataclass(slots=True)
class Sums:
    """What one row sums up: ticks held by tier, ticks by what became of them, nano-units by tier of price.

    `torn` is what of the wasted ticks a poor placement cost, `borne` the nano-units that the platform bears for it.
    """

    held: dict[str, int] = field(default_factory=dict[str, int])
    use: dict[str, int] = field(default_factory=dict[str, int])
    wasted: int = 0
    torn: int = 0
    borne: int = 0
    cost: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def ticks(self) -> int:
        """All that was held."""
        return sum(self.held.values())

    @property
    def of_held(self) -> int:
        """What the held time cost, whoever bears it: nano-units."""
        return sum(amount for tier, amount in self.cost.items() if tier in _TIERS) + self.borne

    def became(self, how: str, measured: bool) -> int | None:
        """Return the ticks that were used, idle or else; None where no sample ever said."""
        return self.use.get(how, 0) if measured and (self.use or self.wasted) else None


def sums_by(found: Booked, by: By, currency: str = "") -> dict[tuple[str, ...], Sums]:
    """Sum lines by tenant, queue or job; of money those in one currency."""
    rows: dict[tuple[str, ...], Sums] = {}
    for account, line in found.of(Kind.HELD, Kind.USE, Kind.WASTE, Kind.SPEND):
        row = rows.setdefault(key_of(account, line, by), Sums())
        if account.kind is Kind.HELD:
            row.held[account.tier] = row.held.get(account.tier, 0) + line.amount
        elif account.kind is Kind.USE:
            row.use[account.use] = row.use.get(account.use, 0) + line.amount
        elif account.kind is Kind.WASTE:
            row.wasted += line.amount
            row.torn += line.amount if account.cause == TOPOLOGY else 0
        elif currency_of(line.unit) == currency:
            row.cost[account.tier] = row.cost.get(account.tier, 0) + line.amount
            row.borne -= line.amount if line.kind == EntryKind.SPLIT else 0
    return rows


def currency_in(found: Booked, wanted: str | None) -> str:
    """Return the currency that something was charged in, "" where nothing was.

    Raises
    ------
    UnreadableInput
        There are several and none is named.
    """
    there = sorted({currency_of(line.unit) or "" for _, line in found.of(Kind.SPEND)})
    if wanted is not None:
        return wanted
    if len(there) > 1:
        raise UnreadableInput(f"--currency: the books have {' and '.join(there)}; name one")
    return there[0] if there else ""


def measured_in(found: Booked) -> bool:
    """Whether anything says what became of what was held."""
    return any(True for _ in found.of(Kind.USE, Kind.WASTE))


_TIERS = tuple(tier.value for tier in Tier)
_WHAT = {EntryKind.SEGMENT.value: "usage", EntryKind.SPLIT.value: "credit"}


def showback(found: Booked, by: By, currency: str | None = None) -> Document:
    """Return what everybody held by tier, what of it was used, idle and wasted, and what it cost."""
    money, measured = currency_in(found, currency), measured_in(found)
    rows: list[tuple[Value, ...]] = []
    for key, sums in sorted(sums_by(found, by, money).items()):
        cost = sum(sums.cost.values()) if sums.cost else None
        idle = sums.became("idle", measured)
        of_idle = None if cost is None or idle is None or not sums.ticks else sums.of_held * idle // sums.ticks
        held = whole_gpu_ms(sums.held)
        rows.append(
            (
                *key,
                *(held.get(tier, 0) for tier in _TIERS),
                sum(held.values()),
                *(None if ticks is None else gpu_ms(ticks) for ticks in (sums.became("used", measured), idle)),
                *(gpu_ms(ticks) if measured else None for ticks in (sums.wasted, sums.torn)),
                cost,
                of_idle,
                None if cost is None else sums.borne,
            )
        )
    tiers = tuple(f"{tier.replace('-', '_')}_gpu_ms" for tier in _TIERS)
    rest = (
        "held_gpu_ms", "used_gpu_ms", "idle_gpu_ms", "wasted_gpu_ms", "topology_gpu_ms", "cost_nanos",
        "idle_cost_nanos", "platform_cost_nanos",
    )  # fmt: skip
    return document("showback", found, (*columns_of(by), *tiers, *rest), rows, {"currency": money or None})


def chargeback(found: Booked, by: By) -> Document:
    """Return what is to be paid: by tier, what was charged, what the platform bears, and what was decided by hand.

    Of a closed month these are the frozen numbers; corrections of earlier months are rows of their own.
    """
    sums: dict[tuple[str, ...], int] = {}
    for account, line in found.of(Kind.SPEND):
        corrected = line.of if line.of != found.period else ""
        what = _WHAT.get(line.kind, "adjustment")
        why = {"usage": "", "credit": TOPOLOGY}.get(what, line.reason)
        key = (*key_of(account, line, by), account.tier, what, why, corrected, currency_of(line.unit) or "")
        sums[key] = sums.get(key, 0) + line.amount
    rows: list[tuple[Value, ...]] = [(*key, amount) for key, amount in sorted(sums.items()) if amount]
    totals: dict[str, int] = {}
    for key, amount in sums.items():
        totals[key[-1]] = totals.get(key[-1], 0) + amount
    facts: dict[str, Value] = {"period": found.period, "statement_sha256": found.sha256}
    facts |= {f"total_nanos {currency}": amount for currency, amount in sorted(totals.items())}
    columns = (*columns_of(by), "tier", "what", "reason", "corrects", "currency", "amount_nanos")
    return document("chargeback", found, columns, rows, facts)


def document(
    name: str,
    found: Booked,
    columns: tuple[str, ...],
    rows: list[tuple[Value, ...]],
    facts: Mapping[str, Value],
) -> Document:
    """Return a report over what was booked in a window."""
    return Document(
        report=name,
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        as_of_ms=found.as_of_ms,
        columns=columns,
        rows=tuple(rows),
        facts=facts,
    )
