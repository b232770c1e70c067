"""FOCUS 1.2: an export read back sums to what its statement charges; corrections, days, and cells that run nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced_books import BEGIN, ENTRIES, EUR, HOUR, NANO, ODD, TICKS, VISION, posting, priced_books, segment
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import EntryKind
from fairlead.ledger.periods import PeriodState, Step
from fairlead.model.calendars import Calendar
from fairlead.reports import bills, charges, focus
from fairlead.reports.booked import By, booked
from fairlead.store import engine as database
from fairlead.store import entries
from fairlead.store.engine import Engine
from fairlead.timezones import zone_of

BERLIN = Calendar(zone=zone_of("Europe/Berlin", field="zone"))


def bill(**more: Any) -> focus.Bill:
    period = more.pop("period", Calendar().named("2026-09"))
    fields: dict[str, Any] = {
        "cluster": "c", "issuer": "Platform team", "currency": "EUR", "calendar": Calendar(), "earlier": (),
        "up_to": 10**6, "invoice": None,
    }  # fmt: skip
    return focus.Bill(period=period, **{**fields, **more})


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def export(engine: Engine, **more: Any) -> list[dict[str, str]]:
    given = {"calendar": Calendar(), "currency": None, "issuer": "Platform team", **more}
    return read(focus.to_csv(bills.focus_rows(engine, "2026-09", **given)))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return priced_books(tmp_path)


def test_an_export_reads_back_to_the_same_totals(engine: Engine) -> None:
    rows = export(engine)
    assert list(rows[0]) == list(focus.COLUMNS)
    told: dict[str, Decimal] = {}
    for row in rows:
        told[row["SubAccountId"]] = told.get(row["SubAccountId"], Decimal(0)) + Decimal(row["BilledCost"])
    wanted: dict[str, int] = {"speech": 0}
    found = charges.chargeback(booked(engine), By.QUEUE)
    for row in found.rows:
        queue = str(row[1])
        wanted[queue] = wanted.get(queue, 0) + int(row[-1] or 0)
    assert {queue: int(cost * NANO) for queue, cost in told.items()} == wanted
    hours = sum(Decimal(row["ConsumedQuantity"] or 0) for row in rows)
    assert hours == 8  # what was held
    assert sum(Decimal(row["PricingQuantity"] or 0) for row in rows) == hours


def test_what_each_kind_of_row_says(engine: Engine) -> None:
    credit, unpriced, borrowed, quota = export(engine)
    assert (credit["ChargeCategory"], credit["BilledCost"], credit["x_Reason"]) == ("Credit", "-2.0", "outage")
    assert (credit["PricingQuantity"], credit["SkuId"], credit["ResourceId"]) == ("", "", "")
    assert (unpriced["BilledCost"], unpriced["x_Priced"], unpriced["SkuId"]) == ("0.0", "false", "unpriced in main")
    assert unpriced["ChargeDescription"].startswith("'" + ODD)
    assert (borrowed["PricingCategory"], borrowed["ListUnitPrice"]) == ("Dynamic", "3.0")
    assert (quota["PricingCategory"], quota["ConsumedQuantity"], quota["ConsumedUnit"]) == (
        "Standard",
        "4.0",
        "GPU-Hours",
    )
    assert (quota["ResourceId"], quota["SkuId"], quota["InvoiceId"]) == ("c/n1/gpu-0", "H100", "")
    assert (quota["BillingPeriodStart"], quota["ChargePeriodStart"]) == ("2026-09-01T00:00:00Z", "2026-09-21T00:00:00Z")


def test_days_are_those_of_the_calendar_and_money_is_cut_exactly() -> None:
    long = segment((0, 20), "held:lab:vision:in-quota", 7, gang="g1", namespace="ns", name="train")
    rows = focus.rows(bill(calendar=BERLIN, period=BERLIN.named("2026-09")), seal(Head(), [long])[0])
    # It begins at 14:00 UTC, 16:00 in Berlin: eight hours to midnight, twelve after it.
    assert [(row["ChargePeriodStart"], row["ConsumedQuantity"]) for row in rows] == [
        ("2026-09-20T22:00:00Z", "8.0"), ("2026-09-21T22:00:00Z", "12.0"),
    ]  # fmt: skip
    assert sum(Decimal(row["BilledCost"]) for row in rows) == 7
    assert [row["BilledCost"] for row in rows] == ["2.8", "4.2"]


def test_what_was_written_after_a_close_is_a_correction() -> None:
    october = Calendar().named("2026-10")
    closed = Step(
        number=2, period="2026-09", state=PeriodState.CLOSED, from_ms=Calendar().named("2026-09").from_ms,
        to_ms=october.from_ms, zone="UTC", month_starts_on=1, at_ms=0, actor="ann", entries_to=len(ENTRIES),
    )  # fmt: skip
    taken_back = segment((0, 4), "held:lab:vision:in-quota", 8, gang="g1", namespace="ns", name="train")
    back = [posting(p.account, -p.amount, p.unit) for p in taken_back.postings]
    reversal = dataclasses.replace(taken_back, id="r", kind=EntryKind.REVERSAL, postings=tuple(back))
    sealed = seal(Head(), [*ENTRIES, reversal])[0]
    (row,) = focus.rows(bill(period=october, earlier=(closed,), invoice="2026-10"), sealed)
    assert (row["ChargeClass"], row["BilledCost"], row["ConsumedQuantity"]) == ("Correction", "-8.0", "-4.0")
    assert (row["BillingPeriodStart"], row["InvoiceId"]) == ("2026-10-01T00:00:00Z", "2026-10")
    assert (row["ChargePeriodStart"], row["ChargeDescription"][-21:]) == (
        "2026-09-21T00:00:00Z",
        "correction of 2026-09",
    )
    assert len(focus.rows(bill(up_to=closed.entries_to, invoice="2026-09"), sealed)) == 4


def test_of_the_books_only_what_is_in_the_bill_is_read(tmp_path: Path) -> None:
    """Hours from a month before its period to a month after; those of before count from the earlier close on."""
    october = Calendar().named("2026-10")
    hour = (october.from_ms - BEGIN) // HOUR
    starts = [hour + at for at in (-900, -400, -1, 0, 1, 743, 744, 900)] * 2
    given = [segment((at, at + 1), "held:lab:vision:in-quota", 8, **VISION) for at in starts]
    given += [segment((hour - 2, hour + 1), "held:lab:vision:in-quota", 9, **VISION)]
    given += [dataclasses.replace(ENTRIES[-1], from_ms=at, to_ms=at) for at in (october.from_ms, october.to_ms)]
    given = [dataclasses.replace(one, id=f"e{at}") for at, one in enumerate(given)]
    engine = priced_books(tmp_path, tuple(given))
    everything = seal(Head(), given)[0]
    for after, closed in ((None, ()), (9, ("2026-09",)), (3, ("2026-08", "2026-09"))):
        spans = [Calendar().named(name) for name in closed]
        earlier = tuple(
            Step(
                number=number, period=span.name, state=PeriodState.CLOSED, from_ms=span.from_ms, to_ms=span.to_ms,
                zone="UTC", month_starts_on=1, at_ms=0, actor="ann", entries_to=after,
            )
            for number, span in enumerate(spans, 1)
        )  # fmt: skip
        for up_to in (7, len(given)):
            of = bill(period=october, earlier=earlier, up_to=up_to)
            with database.reading(engine) as connection:
                found = list(entries.of_bill(connection, october, up_to, after))
            assert focus.rows(of, found) == focus.rows(of, everything)
            assert len(found) < up_to
    engine.dispose()


def test_what_is_kept_idle_is_an_unused_reservation() -> None:
    parts = [("capacity:main", -TICKS, "ticks"), ("reserved-idle:main", TICKS, "ticks")]
    parts += [("spend:lab:speech:reserved-idle", 3, EUR), ("revenue:H100", -3, EUR)]
    kept = segment((0, 1), "reserved-idle:main", actor="speech", reason="reservation/night")
    kept = dataclasses.replace(kept, postings=tuple(posting(*part) for part in parts))
    (row,) = focus.rows(bill(), seal(Head(), [kept])[0])
    assert (row["CapacityReservationId"], row["CapacityReservationStatus"]) == ("reservation/night", "Unused")
    assert (row["BilledCost"], row["SubAccountId"]) == ("0.000000003", "speech")


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**12))
def test_decimals_are_right_to_their_places(part: int, whole: int) -> None:
    text = focus._decimal(part, whole, 12)
    assert abs(Decimal(text) * whole - part) * 2 * 10**12 <= whole
    assert "." in text
    assert not text.startswith("+")


def test_what_cannot_be_billed_is_refused(engine: Engine) -> None:
    with pytest.raises(UnreadableInput, match="'2026-09-21' is no month"):
        bills.focus_rows(engine, "2026-09-21", calendar=Calendar(), currency=None, issuer="x")
    with pytest.raises(UnreadableInput, match="'GPU-credits' is no currency of ISO 4217"):
        export(engine, currency="GPU-credits")
    with pytest.raises(NotFound, match="nothing of that time"):
        bills.focus_rows(engine, "2027-01", calendar=Calendar(), currency=None, issuer="x")


def test_the_command_prints_the_same_bytes_twice(engine: Engine) -> None:
    words = ["focus", "--period", "2026-09", "--issuer", "GPUs, Inc.", "--database", str(engine.url)]
    one, two = (CliRunner().invoke(app, words).stdout for _ in range(2))
    assert one == two
    assert read(one)[0]["InvoiceIssuerName"] == "GPUs, Inc."


def test_the_window_of_the_books_is_the_month(engine: Engine) -> None:
    assert {row["ChargePeriodEnd"] for row in export(engine)} == {"2026-09-22T00:00:00Z"}
    assert Calendar().named("2026-09-21").to_ms == BEGIN + 10 * HOUR
