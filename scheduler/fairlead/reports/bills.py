"""A month's bill from the database: what it is about, and its entries."""

from __future__ import annotations

from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger.periods import PeriodState, closed, state_of
from fairlead.model.calendars import Calendar, Grain
from fairlead.reports import focus
from fairlead.reports.booked import booked
from fairlead.reports.charges import currency_in
from fairlead.reports.focus import Bill
from fairlead.store import engine as database
from fairlead.store import entries, journal, periods


def focus_rows(
    engine: database.Engine, name: str, *, calendar: Calendar, currency: str | None, issuer: str
) -> list[dict[str, str]]:
    """Return a month's charges as FOCUS rows; of a closed one those that its statement has.

    Raises
    ------
    NotFound
        Nothing was charged in it.
    UnreadableInput
        It is no month, its entries are in an archive, or the currency is not said or not one of ISO 4217.
    """
    span = calendar.named(name, field="--period")
    if calendar.at(Grain.MONTH, span.from_ms) != span:
        raise UnreadableInput(f"--period: {name!r} is no month; a bill is of one, write for example 2026-10")
    money = currency_in(booked(engine, span, jobs=False), currency)
    if not money:
        raise NotFound(f"nothing was charged in {name}")
    with database.reading(engine) as connection:
        if periods.dropped(connection):
            raise UnreadableInput("--period: entries are in archives; a bill needs them all")
        steps = periods.steps(connection)
        done = closed(steps)
        at = next((step for step in done if step.span == span), None)
        bill = Bill(
            cluster=journal.get_meta(connection, "cluster"),
            issuer=issuer,
            currency=money,
            calendar=calendar,
            period=span,
            earlier=tuple(step for step in done if step.to_ms <= span.from_ms),
            up_to=at.entries_to if at else entries.head(connection).number,
            invoice=name if state_of(steps, name) in (PeriodState.CLOSED, PeriodState.ARCHIVED) else None,
        )
        corrected_after = bill.earlier[-1].entries_to if bill.earlier else None
        return focus.rows(bill, entries.of_bill(connection, span, bill.up_to, corrected_after))
