"""What the platform pays: read and refused by field, an hour by part, exact however it is divided."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from costed_books import BOUGHT, FULL, H100, book_of
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import strategy_for
from mig_grids import A100_80
from months import BERLIN
from price_words import book, price, priced
from test_price_objects import one, seen

from fairlead.errors import UnreadableInput
from fairlead.ledger.costs import CostList, Part, fixed_nanos, gpu_hour
from fairlead.ledger.prices import PriceList
from fairlead.model import codec
from fairlead.model.calendars import Calendar
from fairlead.model.costs import FixedCost, HardwareCost, Outlay, Power, Purchase
from fairlead.model.events import PriceBookGone, PriceBookSeen
from fairlead.model.prices import check_book
from fairlead.model.rates import PRICE_SCALE, per_hour_text
from fairlead.reports.prices import books_of
from fairlead_operator.price_objects import PriceBookObject, PriceFacts, decode_book
from fairlead_operator.watch import Change

ORCHESTRATION = {"name": "orchestration", "perMonth": "7440"}


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000


def thing(name: str = "eur", **spec: Any) -> PriceBookObject:
    body = {"metadata": {"name": name, "uid": name}, "spec": {"currency": "EUR", **spec}}
    return msgspec.json.decode(msgspec.json.encode(body), type=PriceBookObject)


def test_an_object_and_a_document_say_the_same() -> None:
    rented = {"model": H100, "from": "2026-01-01T00:00:00Z", "rental": {"perHour": "2.10"}}
    found = book_of(FULL, rented, fixed=(ORCHESTRATION,))
    assert decode_book(thing(costs=[FULL, rented], fixed=[ORCHESTRATION])) == found
    assert found.costs == (
        HardwareCost(
            model=A100_80,
            purchase=Purchase(
                price=280_000 * PRICE_SCALE, life_months=50, gpus=8, residual=50_050 * PRICE_SCALE,
                spares_millionths=26_280,
            ),
            power=Power(watts=1_000, per_kwh=PRICE_SCALE // 5, pue_millionths=1_350_000),
            networking=Outlay(amount=73 * PRICE_SCALE, hours=730),
            storage=Outlay(amount=PRICE_SCALE * 4 // 10, hours=1, gpus=8),
            engineering=Outlay(amount=1_460 * PRICE_SCALE, hours=730, gpus=100),
        ),
        HardwareCost(
            model=H100, from_ms=day("2026-01-01"), rental=Outlay(amount=PRICE_SCALE * 21 // 10, hours=1)
        ),
    )  # fmt: skip
    assert found.fixed == (FixedCost(name="orchestration", per_month=7_440 * PRICE_SCALE),)


WRONG = [
    ({"purchase": BOUGHT, "rental": {"perHour": "1"}}, r"costs\[0\].rental: GPUs that are rented are not bought too"),
    ({"power": None}, r"costs\[0\].purchase: says no cost"),
    ({"purchase": {**BOUGHT, "price": "1,5"}}, r"costs\[0\].purchase.price: '1,5' is no amount of money"),
    ({"purchase": {**BOUGHT, "price": "900000000"}}, r"costs\[0\].purchase.price: '900000000' is no amount"),
    ({"purchase": {**BOUGHT, "residual": "280000.01"}}, r"costs\[0\].purchase.residual: is more than the price"),
    ({"purchase": {"price": "1"}}, r"costs\[0\].purchase.lifeMonths: is required"),
    ({"purchase": {"lifeMonths": 1}}, r"costs\[0\].purchase.price: is required"),
    ({"purchase": {**BOUGHT, "lifeMonths": 241}}, r"costs\[0\].purchase.lifeMonths: must be 1 to 240"),
    ({"purchase": {**BOUGHT, "gpus": 0}}, r"costs\[0\].purchase.gpus: must be 1 to 100000"),
    ({"purchase": {**BOUGHT, "sparesPercent": "100"}}, r"costs\[0\].purchase.sparesPercent: '100' is not a percentage"),
    ({"rental": {"perHour": "1", "perMonth": "1"}}, r"costs\[0\].rental: is paid by the month or by the hour"),
    ({"storage": {"gpus": 4}}, r"costs\[0\].storage: is paid by the month or by the hour"),
    ({"power": {"watts": 700}}, r"costs\[0\].power.perKwh: is required"),
    ({"power": {"perKwh": "1"}}, r"costs\[0\].power.watts: is required"),
    ({"power": {"watts": -1, "perKwh": "1"}}, r"costs\[0\].power.watts: must be 1 to"),
    ({"power": {"watts": 1, "perKwh": "1", "pue": "0.9"}}, r"costs\[0\].power.pue: '0.9' is not a PUE"),
    ({"purchase": {**BOUGHT, "inService": "soon"}}, r"costs\[0\].purchase.inService: 'soon' is not a time"),
    ({"from": "today", "rental": {"perHour": "1"}}, r"costs\[0\].from: 'today' is not a time"),
    (
        {"from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "rental": {"perHour": "1"}},
        r"costs\[0\].to: is not after from",
    ),
    ({"model": " ", "rental": {"perHour": "1"}}, r"costs\[0\].model"),
]


@pytest.mark.parametrize(("said", "message"), WRONG)
def test_what_cannot_be_honoured_is_refused_by_field(said: dict[str, Any], message: str) -> None:
    cost = {"model": H100, **said}
    with pytest.raises(UnreadableInput, match=f"^spec.{message}"):
        book_of(cost)
    with pytest.raises(UnreadableInput, match=f"^PriceBook eur: spec.{message}"):
        decode_book(thing(costs=[cost]))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "x"}, r"fixed\[0\].perMonth: is required"),
        ({"perMonth": "1"}, r"fixed\[0\].name: '' is no name"),
        ({**ORCHESTRATION, "perMonth": "1e3"}, r"fixed\[0\].perMonth: '1e3' is no amount"),
        (
            {**ORCHESTRATION, "from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
            r"fixed\[0\].to: is not after from",
        ),
    ],
)
def test_fixed_costs_are_refused_by_field(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableInput, match=f"^spec.{message}"):
        book_of(fixed=(said,))
    with pytest.raises(UnreadableInput, match=f"^PriceBook eur: spec.{message}"):
        decode_book(thing(fixed=[said]))


def test_unknown_words_are_named() -> None:
    with pytest.raises(UnreadableInput, match=r"costs\[0\].power.perkWh: unknown field; did you mean perKwh"):
        book_of({"model": H100, "power": {"watts": 1, "perKwh": "1", "perkWh": "1"}})
    with pytest.raises(UnreadableInput, match=r"costs\[0\].colour: unknown field"):
        book_of({**FULL, "colour": "red"})


def test_no_two_costs_of_a_model_and_no_two_fixed_of_a_name_hold_at_once() -> None:
    new_year = "2027-01-01T00:00:00Z"
    check_book(book_of({**FULL, "to": new_year}, {**FULL, "from": new_year}), field="spec")
    with pytest.raises(
        UnreadableInput, match=f"^spec.costs: {A100_80} has a cost ever to ever and another 2027-01-01T"
    ):
        book_of(FULL, {**FULL, "from": new_year})
    with pytest.raises(UnreadableInput, match=r"^spec.fixed: orchestration has a cost ever to ever and another"):
        book_of(fixed=(ORCHESTRATION, ORCHESTRATION))
    other = book_of(FULL, fixed=(ORCHESTRATION,), name="usd", currency="USD")
    with pytest.raises(UnreadableInput, match=r"^spec.costs: .* another of book usd ever to ever"):
        check_book(book_of(FULL), [other], field="spec")
    with pytest.raises(UnreadableInput, match=r"^spec.fixed: .* another of book usd ever to ever"):
        check_book(book_of(fixed=(ORCHESTRATION,)), [other], field="spec")


# --- in the journal ---------------------------------------------------------------------------------------------------


def test_books_without_costs_have_the_bytes_that_they_had() -> None:
    fact = PriceBookSeen(book=book(price("inQuota=2.50")), at_ms=7)
    assert codec.encode(fact) == (
        b'{"fact":{"at_ms":7,"book":{"currency":"EUR","name":"eur","prices":[{"from_ms":null,"mig":"","model":"'
        + A100_80.encode()
        + b'","per_hour":[["in-quota",25000000000]],"queue":"","to_ms":null}]}},"kind":"PriceBookSeen"}'
    )
    full = PriceBookSeen(book=book_of(FULL, fixed=(ORCHESTRATION,)), at_ms=7)
    assert codec.decode(codec.encode(full)) == full


def test_an_object_tells_the_journal_and_a_book_that_is_gone_costs_nothing_from_then_on() -> None:
    told: list[Any] = []
    facts = PriceFacts(told.append, lambda: 5, {})
    facts.on_price_book(Change.ADDED, None, seen("eur", one()))
    facts.on_price_book(Change.MODIFIED, None, thing(costs=[FULL], fixed=[ORCHESTRATION]))
    assert told[-1] == PriceBookSeen(book=book_of(FULL, fixed=(ORCHESTRATION,)), at_ms=5)
    (left,) = books_of([*told, PriceBookGone(name="eur", at_ms=9)])
    assert [(cost.from_ms, cost.to_ms) for cost in (*left.costs, *left.fixed)] == [(None, 9), (None, 9)]


def test_costs_change_no_charge() -> None:
    before, after = priced(price("inQuota=2")), PriceBookSeen(book=book_of(FULL), at_ms=1)
    with_costs = PriceList([book_of(FULL, prices=[{"model": A100_80, "perHour": {"inQuota": "2"}}])])
    assert PriceList([before.book]).differs(with_costs) is None
    assert PriceList([after.book]).differs(PriceList()) is None


# --- an hour of a GPU, a month of the platform ---------------------------------------------------------------------


def test_an_hour_of_a_gpu_by_part() -> None:
    (cost,) = book_of(FULL).costs
    assert {part: per_hour_text(amount) for part, amount in gpu_hour(cost).items()} == {
        "depreciation": "0.7875",
        "rental": "0.00",
        "power": "0.20",
        "cooling": "0.07",
        "networking": "0.10",
        "storage": "0.05",
        "spares": "0.105",
        "engineering": "0.02",
    }


@given(strategy_for(HardwareCost))
def test_parts_sum_to_the_exact_cost_rounded_down(cost: HardwareCost) -> None:
    parts = gpu_hour(sane := made_sane(cost))
    exact = by_hand(sane)
    assert sum(parts.values()) == sum(exact.values()) // 1
    more = {part for part, amount in parts.items() if amount != exact[part] // 1}
    assert all(parts[part] == exact[part] // 1 + 1 for part in more)
    lost = {part: exact[part] % 1 for part in Part}
    assert min((lost[part] for part in more), default=1) >= max((lost[part] for part in {*Part} - more), default=0)


def made_sane(cost: HardwareCost) -> HardwareCost:
    """Any numbers as numbers of GPUs, months and amounts of money."""

    def outlay(found: Outlay | None) -> Outlay | None:
        return found and Outlay(amount=abs(found.amount), hours=(1, 730)[found.hours % 2], gpus=abs(found.gpus) + 1)

    bought, power = cost.purchase, cost.power
    return HardwareCost(
        model=cost.model,
        purchase=bought
        and Purchase(
            price=abs(bought.price) + abs(bought.residual),
            residual=abs(bought.residual),
            life_months=abs(bought.life_months) + 1,
            gpus=abs(bought.gpus) + 1,
            spares_millionths=abs(bought.spares_millionths),
        ),
        power=power
        and Power(watts=abs(power.watts), per_kwh=abs(power.per_kwh), pue_millionths=10**6 + abs(power.pue_millionths)),
        rental=outlay(cost.rental),
        networking=outlay(cost.networking),
        storage=outlay(cost.storage),
        engineering=outlay(cost.engineering),
    )


def by_hand(cost: HardwareCost) -> dict[Part, Fraction]:
    bought, power = cost.purchase, cost.power
    found = dict.fromkeys(Part, Fraction(0))
    if bought:
        months = Fraction(bought.price - bought.residual, bought.gpus * bought.life_months)
        found[Part.DEPRECIATION] = months * 12 / 8760
        found[Part.SPARES] = Fraction(bought.price * bought.spares_millionths, 10**6 * 8760 * bought.gpus)
    if power:
        found[Part.POWER] = Fraction(power.watts, 1000) * power.per_kwh
        found[Part.COOLING] = found[Part.POWER] * Fraction(power.pue_millionths, 10**6) - found[Part.POWER]
    for part in (Part.RENTAL, Part.NETWORKING, Part.STORAGE, Part.ENGINEERING):
        said = getattr(cost, part)
        found[part] = Fraction(said.amount, said.gpus * said.hours) if said else Fraction(0)
    return found


def test_a_list_says_what_holds_when_in_one_currency() -> None:
    first = {"model": H100, "to": "2026-02-01T00:00:00Z", "rental": {"perHour": "2"}}
    then = {"model": H100, "from": "2026-03-01T00:00:00Z", "rental": {"perHour": "3"}}
    usd = book_of({"model": A100_80, "rental": {"perHour": "1"}}, name="usd", currency="USD")
    costs = CostList([book_of(first, then), usd], "EUR")
    begin, end = day("2026-01-01"), day("2026-04-01")
    assert costs.edges(begin, end) == [begin, day("2026-02-01"), day("2026-03-01"), end]
    assert costs.edges(begin, day("2026-02-01")) == [begin, day("2026-02-01")]
    hours = [costs.at(H100, day(f"2026-0{month}-01")) for month in (1, 2, 3)]
    assert [hour and hour[Part.RENTAL] // PRICE_SCALE for hour in hours] == [2, None, 3]
    assert costs.at(A100_80, begin) is None


def test_what_was_bought_is_depreciated_once() -> None:
    begin, end = day("2026-01-01"), day("2026-01-01") + 50 * 730 * 3_600_000
    bought = {**BOUGHT, "inService": "2026-01-01T00:00:00Z"}
    found = book_of({**FULL, "purchase": bought})
    assert decode_book(thing(costs=[{**FULL, "purchase": bought}])) == found
    costs = CostList([found], "EUR")
    assert costs.edges(begin - 9, end + 9) == [begin - 9, begin, end, end + 9]
    hours = [costs.at(A100_80, at) for at in (begin - 1, begin, end - 1, end)]
    assert [hour and per_hour_text(hour[Part.DEPRECIATION]) for hour in hours] == ["0.00", "0.7875", "0.7875", "0.00"]
    assert [hour and per_hour_text(hour[Part.SPARES]) for hour in hours] == ["0.105"] * 4
    # A new price of power cuts nothing of its life.
    march = "2026-03-01T00:00:00Z"
    power = {"watts": 1000, "perKwh": "0.30"}
    two = [{**FULL, "purchase": bought, "to": march}, {**FULL, "purchase": bought, "from": march, "power": power}]
    for said in (two, two[::-1]):
        costs = CostList([book_of(*said)], "EUR")
        assert costs.edges(begin - 9, end + 9) == [begin - 9, begin, day("2026-03-01"), end, end + 9]
        hours = [costs.at(A100_80, at) for at in (day("2026-03-01") - 1, day("2026-03-01"), end)]
        assert [hour and per_hour_text(hour[Part.POWER]) for hour in hours] == ["0.20", "0.30", "0.30"]
        assert [hour and hour[Part.DEPRECIATION] > 0 for hour in hours] == [True, True, False]


def test_a_month_costs_the_same_however_long_it_is() -> None:
    fixed = book_of(fixed=(ORCHESTRATION, {"name": "audit", "perMonth": "1", "from": "2026-02-15T00:00:00Z"})).fixed
    ends = [FixedCost(name="x", per_month=31 * PRICE_SCALE, to_ms=day("2026-01-11"))]
    assert fixed_nanos(ends, Calendar(), day("2026-01-01"), day("2026-02-01")) == {"x": 10 * 10**9}
    assert fixed_nanos(ends, Calendar(), day("2026-01-11"), day("2026-02-01")) == {}
    months = [day(f"2026-0{month}-01") for month in (1, 2, 3, 4)]
    assert fixed_nanos(fixed, Calendar(), *months[:2]) == {"orchestration": 7_440 * 10**9}
    assert fixed_nanos(fixed, Calendar(), *months[1:3]) == {"audit": 5 * 10**8, "orchestration": 7_440 * 10**9}
    assert fixed_nanos(fixed, Calendar(), day("2026-01-01"), day("2026-01-02"))["orchestration"] == 240 * 10**9
    assert fixed_nanos(fixed[:1], Calendar(), *months[::3])["orchestration"] == 3 * 7_440 * 10**9
    october = BERLIN.named("2026-10")  # it has an hour more
    assert fixed_nanos(fixed[:1], BERLIN, october.from_ms, october.to_ms)["orchestration"] == 7_440 * 10**9


@given(st.integers(0, 10**18), st.lists(st.integers(0, 100 * 86_400_000), min_size=2, max_size=6, unique=True))
def test_cut_months_sum_to_the_whole(per_month: int, cuts: list[int]) -> None:
    one, cuts = [FixedCost(name="x", per_month=per_month)], sorted(cuts)
    parts = [fixed_nanos(one, Calendar(), a, b)["x"] for a, b in pairwise(cuts)]
    assert sum(parts) == fixed_nanos(one, Calendar(), cuts[0], cuts[-1])["x"]
