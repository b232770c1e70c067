"""What the platform itself pays: for its hardware by model of GPU, and for what costs the same whatever is held."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.rates import Lasting, period_of, sum_of
from fairlead.units import moment_ms

MONTH_HOURS = 730
"""Hours of a month of hardware: a twelfth of 365 days, so that an hour costs the same in every month."""
WHOLE = 1_000_000
"""Parts of a purchase price, and PUE, are in millionths."""
_PERCENT = re.compile(r"([0-9]{1,2})(?:\.([0-9]{1,4}))?")
_PUE = re.compile(r"([1-9])(?:\.([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """GPUs that were bought together with what they stand in; `price` and `residual` in `PRICE_SCALE`.

    The price less the residual is depreciated in equal parts over `life_months` from `in_service_ms` (UTC) on; where
    that is None, for as long as the cost holds. Spare parts cost `spares_millionths` of the price a year.
    """

    price: int
    life_months: int
    gpus: int = 1
    residual: int = 0
    spares_millionths: int = 0
    in_service_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlay:
    """What is paid every `hours` (1, or `MONTH_HOURS`) for so many GPUs together, in `PRICE_SCALE`."""

    amount: int
    hours: int
    gpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What one GPU draws with its part of the node, what a kWh costs (`PRICE_SCALE`), and the building's PUE."""

    watts: int
    per_kwh: int
    pue_millionths: int = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareCost(Lasting):
    """What GPUs of a model cost. They are bought or rented or, where they are paid off, neither; None costs nothing."""

    model: str
    purchase: Purchase | None = None
    rental: Outlay | None = None
    power: Power | None = None
    networking: Outlay | None = None
    storage: Outlay | None = None
    engineering: Outlay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCost(Lasting):
    """What part of the platform costs in a month of the books' calendar, whatever is held, in `PRICE_SCALE`."""

    name: str
    per_month: int


PURCHASE_WORDS: dict[str, type] = {
    "price": str, "gpus": int, "lifeMonths": int, "inService": str, "residual": str, "sparesPercent": str,
}  # fmt: skip
OUTLAY_WORDS: dict[str, type] = {"perMonth": str, "perHour": str, "gpus": int}
POWER_WORDS: dict[str, type] = {"watts": int, "perKwh": str, "pue": str}
COST_WORDS = {
    "purchase": PURCHASE_WORDS,
    "rental": OUTLAY_WORDS,
    "power": POWER_WORDS,
    "networking": OUTLAY_WORDS,
    "storage": OUTLAY_WORDS,
    "engineering": OUTLAY_WORDS,
}
"""How objects and files write the parts of a cost, and what is text in them and what a whole number."""


def cost_of(said: Mapping[str, Any], *, field: str) -> HardwareCost:
    """Return a cost from what people write: ``model``, ``from``, ``to``, and mappings as `COST_WORDS` has them.

    Raises
    ------
    UnreadableInput
        Something is missing or is no time or amount; the message names the field below `field`.
    """
    from_ms, to_ms = period_of(said.get("from", ""), said.get("to", ""), field=field)
    parts = {name: said[name] for name in COST_WORDS if said.get(name) is not None}
    outlays = {
        name: _outlay(part, f"{field}.{name}") for name, part in parts.items() if COST_WORDS[name] is OUTLAY_WORDS
    }
    return HardwareCost(
        model=said.get("model", ""),
        from_ms=from_ms,
        to_ms=to_ms,
        purchase=_purchase(parts["purchase"], f"{field}.purchase") if "purchase" in parts else None,
        power=_power(parts["power"], f"{field}.power") if "power" in parts else None,
        **outlays,
    )


def fixed_of(said: Mapping[str, str], *, field: str) -> FixedCost:
    """Return a fixed cost from ``name``, ``perMonth``, ``from`` and ``to``. Raises as `cost_of` does."""
    from_ms, to_ms = period_of(said.get("from", ""), said.get("to", ""), field=field)
    per_month = sum_of(_required(said, "perMonth", field, "'12000'"), field=f"{field}.perMonth")
    return FixedCost(name=said.get("name", ""), per_month=per_month, from_ms=from_ms, to_ms=to_ms)


def cost_problems(cost: HardwareCost) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong and the mend) of what cannot be honoured."""
    if not cost.model.strip() or not cost.model.isprintable():
        yield "model", f"{cost.model!r} is no model; write it as the node's GPUs say it"
    if cost.is_backward:
        yield "to", "is not after from; give it a later time"
    if cost.purchase is not None and cost.rental is not None:
        yield "rental", "GPUs that are rented are not bought too; leave out rental or purchase"
    parts = {name: getattr(cost, name) for name in COST_WORDS}
    if not any(parts.values()):
        yield "purchase", f"says no cost; write one of {', '.join(COST_WORDS)}"
    for name, part in parts.items():
        if part is not None and not 1 <= getattr(part, "gpus", 1) <= 100_000:
            yield f"{name}.gpus", "must be 1 to 100000: how many GPUs that is for"
    if cost.purchase is not None:
        if not 1 <= cost.purchase.life_months <= 240:
            yield "purchase.lifeMonths", "must be 1 to 240"
        if cost.purchase.residual > cost.purchase.price:
            yield "purchase.residual", "is more than the price; write what is left of it at the end"
    if cost.power is not None and not 1 <= cost.power.watts <= 100_000:
        yield "power.watts", "must be 1 to 100000: what one GPU draws with its part of the node"


def fixed_problems(fixed: FixedCost) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong and the mend) of what cannot be honoured."""
    if not fixed.name.strip() or not fixed.name.isprintable():
        yield "name", f"{fixed.name!r} is no name; write for example observability"
    if fixed.is_backward:
        yield "to", "is not after from; give it a later time"


def _purchase(said: Mapping[str, Any], field: str) -> Purchase:
    spares = _millionths(_PERCENT, said.get("sparesPercent") or "0", f"{field}.sparesPercent", "a percentage", "'2.5'")
    begins = said.get("inService")
    return Purchase(
        in_service_ms=moment_ms(begins, field=f"{field}.inService") if begins else None,
        price=sum_of(_required(said, "price", field, "'280000'"), field=f"{field}.price"),
        life_months=_required(said, "lifeMonths", field, "60"),
        gpus=said.get("gpus", 1),
        residual=sum_of(said.get("residual") or "0", field=f"{field}.residual"),
        spares_millionths=spares // 100,
    )


def _outlay(said: Mapping[str, Any], field: str) -> Outlay:
    if bool(said.get("perMonth")) == bool(said.get("perHour")):
        raise UnreadableInput(f"{field}: is paid by the month or by the hour; write one of perMonth and perHour")
    word, hours = ("perMonth", MONTH_HOURS) if said.get("perMonth") else ("perHour", 1)
    return Outlay(amount=sum_of(said[word], field=f"{field}.{word}"), hours=hours, gpus=said.get("gpus", 1))


def _power(said: Mapping[str, Any], field: str) -> Power:
    return Power(
        watts=_required(said, "watts", field, "1100"),
        per_kwh=sum_of(_required(said, "perKwh", field, "'0.18'"), field=f"{field}.perKwh"),
        pue_millionths=_millionths(_PUE, said.get("pue") or "1", f"{field}.pue", "a PUE", "'1.35'"),
    )


def _required(said: Mapping[str, Any], name: str, field: str, example: str) -> Any:
    if not said.get(name):
        raise UnreadableInput(f"{field}.{name}: is required; write for example {example}")
    return said[name]


def _millionths(pattern: re.Pattern[str], text: str, field: str, what: str, example: str) -> int:
    match = pattern.fullmatch(text)
    if match is None:
        raise UnreadableInput(f"{field}: {text!r} is not {what}; write for example {example}")
    return int(match[1]) * WHOLE + int((match[2] or "").ljust(6, "0"))
