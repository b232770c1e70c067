"""What a poor placement costs: booked inside held time, given back to the queue, in every report; and recomputed."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ledger_books import Books, hold, release
from ledger_facts import NAMED, node
from mig_grids import A100_80
from price_words import PricedBooks, price, priced

from fairlead.ledger.entry import OUTCOMES, Entry
from fairlead.model.calendars import Calendar
from fairlead.model.codec import Cut, decode, encode
from fairlead.model.events import (
    DevicesCounted,
    GrowIntended,
    Intended,
    MemberRunning,
    NodeSeen,
    StopIntended,
    TierChanged,
)
from fairlead.model.gang import Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.reports import bills, charges, waste
from fairlead.reports.booked import By, booked
from fairlead.reports.document import Document
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.timezones import zone_of

FLEET = (*NAMED, NodeSeen(node=node(), at_ms=0))
HOUR = 3_600_000
NANO = 10**9
MONTHS = Calendar(zone=zone_of("UTC", field="zone"), month_starts_on=1, year_starts_in=1)


def slow(permille: int, at_ms: int = 0, *members: tuple[Any, ...], tier: Tier = Tier.IN_QUOTA) -> Intended:
    fact = hold(at_ms, *(members or (("n1", (0, 1)),)), tier=tier)
    return dataclasses.replace(fact, placement=dataclasses.replace(fact.placement, slowed_permille=permille))


def runs(at_ms: int, rank: int = 0) -> MemberRunning:
    return MemberRunning(gang="g1", attempt=1, rank=rank, at_ms=at_ms)


def lost(books: Books) -> int:
    return books.gpu_ms().get("waste:topology:lab:vision", 0)


def penalties(books: Books) -> list[Entry]:
    found = [sealed.entry for sealed in books.sealed if sealed.entry.kind in OUTCOMES]
    return [entry for entry in found if entry.account.startswith("waste:topology")]


def test_a_part_of_the_running_time_is_waste_of_the_platform() -> None:
    books = Books().take(*FLEET, slow(200), runs(1_000), release(6_000), Cut(at_ms=9_000))
    assert lost(books) == 2 * 5_000 // 5, "before it ran it lost nothing"
    assert books.gpu_ms()["held:lab:vision:in-quota"] == 12_000
    assert {(entry.actor, entry.reason) for entry in penalties(books)} == {("platform", "estimated/in-quota")}


def test_who_does_not_run_yet_and_who_is_idle_loses_nothing() -> None:
    books = Books().take(*FLEET, slow(200, 0, ("n1", (0,)), ("n1", (1,))), runs(1_000), Cut(at_ms=5_000))
    assert lost(books) == 0, "one of two members"
    books.take(runs(2_000, rank=1))
    assert lost(books) == 2 * 3_000 // 5, "told late, and still from when it ran"
    books.take(DevicesCounted(name="n1", from_ms=2_000, busy=(("gpu-0", 0), ("gpu-1", 500)), at_ms=5_000))
    found = books.gpu_ms()
    assert found["waste:topology:lab:vision"] == 3_000 // 2 // 5
    assert found["use:lab:vision:used"] == 3_000 // 2 * 4 // 5
    assert found["use:lab:vision:idle"] == 3_000 + 3_000 // 2


def test_what_is_lost_for_another_cause_is_not_lost_twice() -> None:
    stop = StopIntended(
        gang="g1", attempt=1, cause=refuse(Reason.PREEMPTED), requeue=True, at_ms=5_000, by="g2", safe_ms=3_000
    )
    books = Books().take(*FLEET, slow(500), runs(0), stop, release(6_000), Cut(at_ms=7_000))
    found = books.gpu_ms()
    assert (found["waste:topology:lab:vision"], found["waste:preempted:lab:vision"]) == (3_000, 6_000)


def test_a_gang_that_grows_loses_by_its_new_placement_from_then_on() -> None:
    wider = slow(100, 4_000, ("n1", (0, 1)), ("n1", (2,))).placement
    grown = GrowIntended(
        gang="g1", attempt=1, placement=wider, joining=1, tier=Tier.IN_QUOTA, at_ms=4_000, deadline_ms=9_000
    )
    books = Books().take(*FLEET, slow(500), runs(0), grown, Cut(at_ms=10_000))
    assert lost(books) == 2 * 4_000 // 2 + 3 * 6_000 // 10


def test_facts_from_before_there_was_a_penalty_have_none() -> None:
    old = encode(hold(0, ("n1", (0, 1)))).replace(b'"slowed_permille":0,', b"")
    assert b"slowed_permille" not in old
    assert decode(old).placement.slowed_permille == 0
    odd = Books().take(*FLEET, slow(7_000), runs(0), Cut(at_ms=1_000))
    assert lost(odd) == 2_000, "no more than all of it"


PER_HOUR = priced(price("inQuota=2 borrowed=1"))
SKU = f"revenue:{quote(A100_80, safe='/ ')}"


def test_the_queue_is_given_back_what_it_paid_for_it_in_the_tier_that_it_held_it_in() -> None:
    books = PricedBooks().take(*FLEET, PER_HOUR, slow(250), runs(0), Cut(at_ms=HOUR))
    assert books.money() == {"spend:lab:vision:in-quota": 3 * NANO, "credit:topology": NANO, SKU: -4 * NANO}
    books.take(TierChanged(gang="g1", attempt=1, tier=Tier.BORROWED, at_ms=HOUR // 2))
    assert books.money() == {
        "spend:lab:vision:in-quota": 3 * NANO // 2,
        "spend:lab:vision:borrowed": 3 * NANO // 4,
        "credit:topology": 3 * NANO // 4,
        SKU: -3 * NANO,
    }, "what a late word takes back is given back no more"


def test_a_price_that_comes_late_or_changes_is_given_back_alike() -> None:
    whole = PricedBooks().take(*FLEET, PER_HOUR, slow(250), runs(0), Cut(at_ms=HOUR)).money()
    late = PricedBooks().take(*FLEET, slow(250), runs(0), Cut(at_ms=HOUR), dataclasses.replace(PER_HOUR, at_ms=HOUR))
    assert late.money()["spend:lab:vision:in-quota"] == whole["spend:lab:vision:in-quota"]
    halved = priced(price("inQuota=2", None, HOUR // 2), price("inQuota=1", HOUR // 2))
    books = PricedBooks().take(*FLEET, halved, slow(250), runs(0), Cut(at_ms=HOUR))
    assert books.money() == {
        "spend:lab:vision:in-quota": 9 * NANO // 4,
        "credit:topology": 3 * NANO // 4,
        SKU: -3 * NANO,
    }


@pytest.fixture
def engine(tmp_path: Path) -> database.Engine:
    """Books in a database, an hour of a gang on two devices that loses a quarter."""
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([*FLEET, PER_HOUR, slow(250), runs(0)], 0)
    books.cut(HOUR)
    assert books.trouble == ""
    books.close()
    return database.connect(f"sqlite:///{tmp_path}/b.sqlite")


def row(found: Document) -> dict[str, Any]:
    (only,) = found.rows
    return dict(zip(found.columns, only, strict=True))


def test_reports_show_it_as_the_platforms(engine: database.Engine) -> None:
    shown = row(charges.showback(booked(engine), By.QUEUE))
    assert (shown["wasted_gpu_ms"], shown["topology_gpu_ms"]) == (HOUR // 2, HOUR // 2)
    assert (shown["cost_nanos"], shown["platform_cost_nanos"]) == (3 * NANO, NANO)
    lost = row(waste.waste(booked(engine), By.QUEUE))
    assert (lost["cause"], lost["caused_by"], lost["held_permille"]) == ("topology", "platform", 250)
    told = {line[3]: line for line in charges.chargeback(booked(engine), By.QUEUE).rows}
    assert told["usage"][-1] == 4 * NANO
    assert told["credit"][4:] == ("topology", "", "EUR", -NANO)


def test_a_bill_has_it_as_a_credit(engine: database.Engine) -> None:
    found = bills.focus_rows(engine, "1970-01", calendar=MONTHS, currency=None, issuer="us")
    told = {(line["ChargeCategory"], line["x_Reason"]): line["BilledCost"] for line in found if line["x_Reason"]}
    assert told == {("Credit", "topology"): "-0.5"}
    assert sum(Decimal(line["BilledCost"]) for line in found) == 3
