"""A queue's days in words, a line of the books each: what was held where and what was charged for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from price_words import price

from fairlead.ledger.anomalies import Finding, findings
from fairlead.ledger.cost_days import Costs, Part, Tariff, costs_of
from fairlead.ledger.cost_drivers import Driver
from fairlead.ledger.periods import Line
from fairlead.ledger.prices import PriceList
from fairlead.ledger.pricing import LATE_PRICE
from fairlead.model.calendars import Calendar, Grain, Span
from fairlead.model.prices import Adjusted, AdjustedLine, Price, PriceBook, PriceTier
from fairlead.units import moment_ms

HOUR = 3_600_000
DAY = 24 * HOUR
TICKS = 840 * HOUR
NANO = 10**9
BEGIN = moment_ms("2026-11-01T00:00:00Z")
MODELS = {"main": "A100", "big": "H100"}
CHAIN = ("vision", "lab")
USUAL = ("10 in-quota at 2",)
_WORDS = re.compile(r"(-?[\d.]+) ([a-z-]+)(?:/(\w+))?(?: at ([\d.]+))?")


def cost(euros: float) -> int:
    return round(euros * NANO)


def lines(words: Iterable[str], queue: str = "vision") -> list[Line]:
    """``10 in-quota/big at 2``: ten hours, on pool big, for 2 EUR each; ``3 used``; ``4 charged``, ``5 by-hand``."""
    found: list[Line] = []
    for text in words:
        match = _WORDS.fullmatch(text)
        assert match, text
        amount, what, pool, at = float(match[1]), match[2], match[3] or "main", match[4]
        ticks, money = round(amount * TICKS), cost(amount * float(at or 0))
        if what in ("used", "idle"):
            found.append(line("split", f"use:lab:{queue}:{what}", ticks, pool))
        elif what == "wasted":
            found.append(line("split", f"waste:preemption:lab:{queue}", ticks, pool))
        elif what in ("credit", "by-hand"):
            kind = "split" if what == "credit" else "adjustment"
            found.append(line(kind, f"spend:lab:{queue}:in-quota", cost(amount), pool, "money:EUR", actor="ann"))
        elif what == "charged":  # in quota, for time that was held in another tier
            found.append(line("segment", f"spend:lab:{queue}:in-quota", cost(amount), pool, "money:EUR"))
            found.append(line("segment", f"revenue:{MODELS[pool]}", -cost(amount), pool, "money:EUR"))
        elif what == "reserved-idle":
            found.append(line("segment", f"reserved-idle:{pool}", ticks, pool, actor=queue, reason="reservation"))
        else:
            found.append(line("segment", f"held:lab:{queue}:{what}", ticks, pool))
        if money:
            found.append(line("segment", f"spend:lab:{queue}:{what}", money, pool, "money:EUR"))
            found.append(line("segment", f"revenue:{MODELS[pool]}", -money, pool, "money:EUR"))
    return found


def line(kind: str, account: str, amount: int, pool: str, unit: str = "ticks", **more: str) -> Line:
    fields: dict[str, Any] = {"namespace": "", "name": "", "gang": "", "actor": "", "reason": "", **more}
    return Line(of="", kind=kind, account=account, unit=unit, pool=pool, amount=amount, **fields)


def parts(
    days: Sequence[Sequence[str]], *, calendar: Calendar | None = None, begin: int = BEGIN, hours: int | None = None
) -> list[Part]:
    """A part a day; the last one has only so many `hours`."""
    spans: list[Span] = []
    for _ in days:
        spans.append((calendar or Calendar()).at(Grain.DAY, spans[-1].to_ms if spans else begin))
    ends = [span.to_ms for span in spans]
    if hours is not None:
        ends[-1] = spans[-1].from_ms + hours * HOUR
    return [Part(span, span.from_ms, end, lines(words)) for span, end, words in zip(spans, ends, days, strict=True)]


def listed(text: str, *edges: int, model: str = "A100") -> list[Price]:
    """``inQuota=2 | inQuota=3`` and when the second begins."""
    texts = [part.strip() for part in text.split("|")]
    bounds = list(pairwise([None, *edges, None]))
    return [price(part, *bound, model=model) for part, bound in zip(texts, bounds, strict=True)]


PRICES = (
    *listed("inQuota=2 borrowed=1 reservedIdle=1.5"),
    *listed("inQuota=5 borrowed=4 reservedIdle=4", model="H100"),
)


def tariff(prices: Sequence[Price] = PRICES, *adjusted: Adjusted) -> Tariff:
    books = PriceList([PriceBook(name="eur", currency="EUR", prices=tuple(prices))])
    return Tariff(prices=books, chains={"vision": [(BEGIN, CHAIN)]}, adjusted=adjusted)


def late(nanos: int, from_ms: int, to_ms: int, **more: Any) -> Adjusted:
    """What a price that came late changes of the time between two moments."""
    said = {"sku": "A100", "currency": "EUR", **more}
    change = AdjustedLine(tenant="lab", queue="vision", tier=PriceTier.IN_QUOTA, nanos=nanos, **said)
    return Adjusted(
        actor=LATE_PRICE, reason=LATE_PRICE, lines=(change,), from_ms=from_ms, to_ms=to_ms, at_ms=BEGIN + 90 * DAY
    )


def costs(given: Sequence[Part], of: Tariff | None = None) -> Costs:
    (found,) = costs_of(given, of or tariff())
    return found


def judged(given: Sequence[Part], of: Tariff | None = None, *, days: int = 1) -> list[Finding]:
    """What is told of the last days."""
    found = list(findings(costs(given, of), given[-days].day.from_ms))
    for one in found:
        if one.divided is not None:
            assert sum(one.divided.parts.values()) == one.divided.change
    return found


def told(given: Sequence[Part], of: Tariff | None = None, *, days: int = 1) -> dict[str, dict[str, float]]:
    """Kind, with a ``!`` where it alarms -> driver -> EUR, those that drove nothing left out."""
    return {
        f"{one.kind}{'!' if one.alarm else ''}": {}
        if one.divided is None
        else {driver.value: amount / NANO for driver in Driver if (amount := one.divided.parts[driver])}
        for one in judged(given, of, days=days)
    }
