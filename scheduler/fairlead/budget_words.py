"""Budgets as people write them, in objects and in files: words become a `Budget`, with its time zone looked up."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.errors import UnreadableInput
from fairlead.model.calendars import UTC, Grain
from fairlead.model.queue_caps import Budget, OnExhausted, checked_budget
from fairlead.timezones import zone_of
from fairlead.units import nanos_of

PERIODS = {"Day": Grain.DAY, "Month": Grain.MONTH, "Quarter": Grain.QUARTER, "Year": Grain.YEAR}
ENFORCEMENTS = ("Hard", "Soft")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWords:
    """What a Queue says of its budget, as it is written."""

    gpu_hours: int = 0
    amount: str = ""
    currency: str = ""
    soft_percent: int = 80
    alert_percents: tuple[int, ...] = (50, 80, 100)
    period: str = "Month"
    time_zone: str = "UTC"
    month_starts_on: int = 1
    year_starts_in: int = 1
    enforcement: str = "Hard"
    on_exhausted: str = OnExhausted.FINISH.value


def budget_of(said: BudgetWords, *, field: str) -> Budget:
    """Return the budget.

    Raises
    ------
    UnreadableInput
        A word is not known, or a number is out of range; the message names the field below `field`.
    """
    for name, word, known in (
        ("period", said.period, tuple(PERIODS)),
        ("enforcement", said.enforcement, ENFORCEMENTS),
        ("onExhausted", said.on_exhausted, tuple(OnExhausted)),
    ):
        if word not in known:
            raise UnreadableInput(f"{field}.{name}: {word!r} is not known; use one of: {', '.join(known)}")
    return checked_budget(
        Budget(
            gpu_ms=said.gpu_hours * 3_600_000,
            nanos=nanos_of(said.amount, field=f"{field}.amount") if said.amount else 0,
            currency=said.currency,
            soft_percent=said.soft_percent,
            alerts=tuple(sorted(set(said.alert_percents))),
            period=PERIODS[said.period],
            zone=UTC if said.time_zone == UTC.name else zone_of(said.time_zone, field=f"{field}.timeZone"),
            month_starts_on=said.month_starts_on,
            year_starts_in=said.year_starts_in,
            hard=said.enforcement == "Hard",
            on_exhausted=OnExhausted(said.on_exhausted),
        ),
        field=field,
    )
