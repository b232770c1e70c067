"""Charges as FOCUS 1.2 rows: one for each job, device and day, to be loaded by whatever reads cloud bills.

Money is exact: the rows of a month sum to what its statement charges. What FOCUS has no column for stands in columns of
ours, which begin with ``x_``. A null is an empty cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import TICKS, Kind
from fairlead.ledger.chain import Sealed
from fairlead.ledger.entry import OUTCOMES, TIMELINE, Entry
from fairlead.ledger.periods import Step, clipped
from fairlead.model.calendars import Calendar, Grain, Span
from fairlead.reports.document import csv_text
from fairlead.units import NANO, TICKS_PER_GPU_MS, utc_text

VERSION = "1.2"
UNIT = "GPU-Hours"
_TICKS_PER_HOUR = TICKS_PER_GPU_MS * 3_600_000
_ISO = re.compile(r"[A-Z]{3}")
_DYNAMIC = ("borrowed", "opportunistic")

COLUMNS: tuple[str, ...] = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId", "CapacityReservationStatus",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity",
    "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName",
    "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
    "SubAccountName", "SubAccountType", "Tags", "x_ClusterUid", "x_GangUid", "x_Pool", "x_Priced", "x_QuotaTier",
    "x_Reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a bill is about: entries ]after, up to] of a period; those of its `earlier` ones are corrections.

    `invoice` is None while the period is open.
    """

    cluster: str
    issuer: str
    currency: str
    calendar: Calendar
    period: Span
    earlier: tuple[Step, ...]
    up_to: int
    invoice: str | None


@dataclass(frozen=True, slots=True, order=True)
class _Key:
    day: Span
    corrects: str
    category: str
    account: str
    sku: str
    node: str
    device: str
    pool: str
    namespace: str
    name: str
    gang: str
    reason: str
    priced: bool


def rows(bill: Bill, entries: Iterable[Sealed]) -> list[dict[str, str]]:
    """Return the bill's rows, sorted, each column -> text, "" for null. Entries that are not in it are passed over.

    Raises
    ------
    UnreadableInput
        The currency is none of ISO 4217.
    """
    if not _ISO.fullmatch(bill.currency):
        raise UnreadableInput(f"--currency: {bill.currency!r} is no currency of ISO 4217, which FOCUS {VERSION} wants")
    sums: dict[_Key, list[int]] = {}
    after = bill.earlier[-1].entries_to if bill.earlier else 0
    spans = [(bill.period, "")] + [(step.span, step.period) for step in bill.earlier]
    for sealed in entries:
        if sealed.number > bill.up_to:
            break
        for span, corrects in spans:
            entry = sealed.entry
            if (not corrects or sealed.number > after) and _meets(entry, span):
                _add(bill, entry, span, corrects, sums)
    return [_row(bill, key, nanos, ticks) for key, (nanos, ticks) in sorted(sums.items()) if nanos or ticks]


def to_csv(found: Sequence[dict[str, str]]) -> str:
    """Return rows as CSV under FOCUS's names."""
    return csv_text(COLUMNS, [[row[column] or None for column in COLUMNS] for row in found])


def _meets(entry: Entry, span: Span) -> bool:
    if entry.from_ms == entry.to_ms:
        return span.from_ms <= entry.from_ms < span.to_ms
    return entry.from_ms < span.to_ms and entry.to_ms > span.from_ms


def _add(bill: Bill, entry: Entry, span: Span, corrects: str, sums: dict[_Key, list[int]]) -> None:
    """Add an entry's part in a span to the rows of its days."""
    spends = [at for at, part in enumerate(entry.postings) if part.account.startswith(f"{Kind.SPEND}:")]
    spends = [at for at in spends if accounts.currency_of(entry.postings[at].unit) == bill.currency]
    held = entry.kind in TIMELINE and entry.account.startswith(f"{Kind.HELD}:")
    if not spends and not held:
        return
    sku = next((accounts.parse(p.account).sku for p in entry.postings if p.account.startswith(f"{Kind.REVENUE}:")), "")
    amounts = [(part.unit, part.amount) for part in entry.postings]
    begin = max(entry.from_ms, span.from_ms)
    for day in bill.calendar.spans(Grain.DAY, begin, max(min(entry.to_ms, span.to_ms), begin + 1)):
        window = Span(max(day.from_ms, span.from_ms), min(day.to_ms, span.to_ms), day.name)
        parts = clipped(amounts, (entry.from_ms, entry.to_ms), (window.from_ms, window.to_ms))
        for at in spends or [1]:
            key = _key(entry, entry.postings[at].account, window, corrects, sku, bool(spends))
            found = sums.setdefault(key, [0, 0])
            found[0] += parts[at] if spends else 0
            found[1] += parts[1] if entry.kind in TIMELINE and entry.postings[1].unit == TICKS else 0


def _key(entry: Entry, account: str, day: Span, corrects: str, sku: str, priced: bool) -> _Key:
    timeline = entry.kind in TIMELINE
    return _Key(
        day, corrects, "Usage" if timeline else "Adjustment", account, sku, entry.node, entry.device, entry.pool,
        entry.namespace, entry.name, entry.gang, _reason(entry), priced,
    )  # fmt: skip


def _reason(entry: Entry) -> str:
    """Return why somebody is charged without holding, or given back: of what was wasted, the cause."""
    if entry.kind in OUTCOMES:
        return accounts.parse(entry.account).cause
    return "" if entry.kind in TIMELINE and entry.gang else entry.reason


def _row(bill: Bill, key: _Key, nanos: int, ticks: int) -> dict[str, str]:
    account, usage = accounts.parse(key.account), key.category == "Usage"
    cost, hours = _decimal(nanos, NANO, 9), _decimal(ticks, _TICKS_PER_HOUR, 12) if usage else ""
    price = Fraction(nanos * _TICKS_PER_HOUR, ticks * NANO) if usage and ticks else None
    each = "" if price is None else _decimal(price.numerator, price.denominator, 10)
    row = dict.fromkeys(COLUMNS, "")
    row |= {name: cost for name in ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")}
    row |= {name: account.tenant for name in ("BillingAccountId", "BillingAccountName")}
    row |= {name: account.queue for name in ("SubAccountId", "SubAccountName")}
    row |= {name: bill.issuer for name in ("InvoiceIssuerName", "ProviderName", "PublisherName")}
    row |= {name: bill.cluster for name in ("RegionId", "RegionName", "x_ClusterUid")}
    row |= {
        "BillingAccountType": "Tenant",
        "BillingCurrency": bill.currency,
        "BillingPeriodEnd": utc_text(bill.period.to_ms),
        "BillingPeriodStart": utc_text(bill.period.from_ms),
        "ChargeCategory": key.category if usage or nanos > 0 else "Credit",
        "ChargeClass": "Correction" if key.corrects else "",
        "ChargeDescription": _description(key, account.tier),
        "ChargeFrequency": "Usage-Based" if usage else "One-Time",
        "ChargePeriodEnd": utc_text(key.day.to_ms),
        "ChargePeriodStart": utc_text(key.day.from_ms),
        "InvoiceId": bill.invoice or "",
        "ServiceCategory": "Compute",
        "ServiceName": "GPU Scheduling",
        "ServiceSubcategory": "Other (Compute)",
        "SubAccountType": "Queue",
        "Tags": _tags(key),
        "x_GangUid": key.gang,
        "x_Pool": key.pool,
        "x_Priced": str(key.priced).lower(),
        "x_QuotaTier": account.tier,
        "x_Reason": key.reason,
    }
    if not usage:
        return row
    sku = key.sku or f"unpriced in {key.pool}"
    row |= {name: each for name in ("ContractedUnitPrice", "ListUnitPrice")}
    row |= {name: hours for name in ("ConsumedQuantity", "PricingQuantity")}
    row |= {name: UNIT for name in ("ConsumedUnit", "PricingUnit")}
    row |= {
        "CapacityReservationId": _reservation(key, account.tier),
        "CapacityReservationStatus": {"reserved": "Used", "reserved-idle": "Unused"}.get(account.tier, ""),
        "PricingCategory": "Dynamic" if account.tier in _DYNAMIC else "Standard",
        "ResourceId": f"{bill.cluster}/{key.node}/{key.device}",
        "ResourceName": f"{key.node}/{key.device}",
        "ResourceType": "GPU",
        "SkuId": sku,
        "SkuMeter": f"{UNIT} {account.tier}",
        "SkuPriceId": f"{sku}/{account.tier}",
    }
    return row


def _reservation(key: _Key, tier: str) -> str:
    """Return what was reserved: by its rule where it stood idle, by its queue where that held it."""
    if tier == "reserved-idle":
        return key.reason or key.account
    return accounts.parse(key.account).queue if tier == "reserved" else ""


def _description(key: _Key, tier: str) -> str:
    what = f"{key.namespace}/{key.name}" if key.gang else key.reason or "device time"
    return f"{what}, {tier}" + (f", correction of {key.corrects}" if key.corrects else "")


def _tags(key: _Key) -> str:
    said = {"namespace": key.namespace, "job": key.name} if key.gang else {}
    return json.dumps(said, sort_keys=True, ensure_ascii=True)


def _decimal(part: int, whole: int, places: int) -> str:
    """Write a fraction as a plain decimal, rounded half up away from zero; with a point, so that readers see no int."""
    scaled = (2 * abs(part) * 10**places + whole) // (2 * whole)
    digits = f"{scaled:0{places + 1}}"
    text = f"{digits[:-places]}.{digits[-places:].rstrip('0') or '0'}"
    return f"-{text}" if part < 0 and scaled else text
