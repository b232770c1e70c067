"""What held time cost the platform: by hand, whichever way the books answer, and always to the nano-unit."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from costed_books import FULL, H100, HOUR, T0, book_of, keep_books, of_model
from ledger_books import hold, release
from ledger_facts import NAMED, node, placement
from mig_grids import A100_80
from postgres_server import PostgresServer
from priced_books import priced_books
from test_archives import three_months
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.costs import Part, gpu_hour
from fairlead.ledger.entry import TIMELINE, EntryKind
from fairlead.ledger.prices import largest_remainder
from fairlead.model.calendars import Span
from fairlead.model.events import Intended, MemberReleased, NodeSeen, PriceBookSeen
from fairlead.model.gang import Tier
from fairlead.model.rates import per_hour_text
from fairlead.reports import archives, costs, device_models
from fairlead.reports.booked import By
from fairlead.reports.costs import DeviceTimes, ModelTime, costs_by
from fairlead.reports.document import Document
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.simulation import gangjob_yaml
from fairlead.store import devices, entries, snapshots
from fairlead.store import engine as database
from fairlead.store.devices import Place
from fairlead.units import gpu_hours_text, money_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "money.md"
NANO = 10**9
AN_HOUR = 1_332_500_000  # FULL, of an A100
PRICES = [{"model": A100_80, "perHour": {"inQuota": "3"}}]
RENTED = {"model": H100, "rental": {"perHour": "2"}}
FIXED = ({"name": "orchestration", "perMonth": "7440"}, {"name": "security", "perMonth": "744"})


def times(url: str, span: Span | None = None, *, jobs: bool = False, currency: str | None = None) -> DeviceTimes:
    engine = database.connect(url)
    try:
        return costs.device_times(engine, costs.known(engine), span, jobs=jobs, currency=currency)
    finally:
        engine.dispose()


def rows(found: Document) -> dict[Any, dict[str, Any]]:
    told = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return {row.get("name") or row.get("queue") or row["tenant"]: row for row in told}


def test_by_hand(tmp_path: Path) -> None:
    url = keep_books(tmp_path, book_of(FULL, RENTED, fixed=FIXED, prices=PRICES))
    found = costs.costs(times(url), By.QUEUE)
    vision, speech = rows(found).values()
    # Vision held 8 hours of A100s, speech 5 and 2 of an H100, at 1.3325 and 2 an hour. Ten hours of a month are 110.
    assert (vision["held_gpu_ms"], speech["held_gpu_ms"]) == (8 * HOUR, 7 * HOUR)
    assert {part: vision[f"{part}_nanos"] / NANO for part in Part} == {
        "depreciation": 6.3, "rental": 0, "power": 1.6, "cooling": 0.56, "networking": 0.8, "storage": 0.4,
        "spares": 0.84, "engineering": 0.16,
    }  # fmt: skip
    assert (vision["variable_nanos"], speech["variable_nanos"]) == (8 * AN_HOUR, 5 * AN_HOUR + 4 * NANO)
    assert (speech["rental_nanos"], speech["depreciation_nanos"]) == (4 * NANO, 3_937_500_000)
    # Of 40 hours of A100s 27 are left, of those of H100s 38.
    idle = largest_remainder(27 * AN_HOUR, [5, 8])
    assert (speech["idle_nanos"], vision["idle_nanos"]) == (idle[0] + 76 * NANO, idle[1])
    assert [speech["fixed_nanos"], vision["fixed_nanos"]] == largest_remainder(110 * NANO, [7, 8])
    assert vision["total_nanos"] == 8 * AN_HOUR + vision["idle_nanos"] + vision["fixed_nanos"]
    assert vision["per_gpu_hour_nanos"] == vision["total_nanos"] // 8
    assert (vision["charged_nanos"], speech["charged_nanos"]) == (24 * NANO, 15 * NANO)
    assert found.facts == {
        "currency": "EUR", "capacity_gpu_ms": 80 * HOUR, "idle_gpu_ms": 65 * HOUR, "unmanaged_gpu_ms": 0,
        "hardware_nanos": 40 * AN_HOUR + 80 * NANO, "unmanaged_nanos": 0, "unborne_nanos": 0,
        "fixed_nanos orchestration": 100 * NANO, "fixed_nanos security": 10 * NANO, "without_costs": "",
    }  # fmt: skip


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    document = page.split("```yaml costs\n")[1].split("```")[0]
    (book,) = gangjob_yaml.read(document, now_ms=0, new_id=lambda *_: "x").books
    url, day = f"sqlite:///{tmp_path}/b.sqlite", T0 + 24 * HOUR
    books = Bookkeeper(url)
    nodes = [NodeSeen(node=of_model(node(name, 8), H100, "main"), at_ms=T0) for name in ("n1", "n2")]
    held = [hold(T0, ("n1", tuple(range(8)))), hold(T0, ("n2", (0, 1, 2, 3)), uid="g2")]
    books.record([*NAMED, PriceBookSeen(book=book, at_ms=T0), *nodes, *held], T0)
    books.record([release(T0 + 12 * HOUR, uid="g2"), release(day)], day)
    books.close()
    found = costs.costs(times(url, Span(T0, day, "")), By.QUEUE)
    assert found.facts["hardware_nanos"] == 614_400_000_000
    names = ("variable", "idle", "fixed", "total", "charged", "per_gpu_hour")
    for queue, row in rows(found).items():
        amounts = [gpu_hours_text(row["held_gpu_ms"]), *(money_text(row[f"{name}_nanos"]) for name in names)]
        assert f"| {' | '.join([queue, *amounts])} |" in page
    for part, amount in gpu_hour(book.costs[0]).items():
        assert re.search(rf"\| {part} \|.*[ |]{re.escape(per_hour_text(amount))} \|", page), part


def test_what_has_no_cost_is_unmeasured_and_named(tmp_path: Path) -> None:
    url = keep_books(tmp_path, book_of(FULL))
    found = costs.costs(times(url), By.QUEUE)
    vision, speech = rows(found).values()
    assert found.facts["without_costs"] == H100
    assert (vision["uncosted_gpu_ms"], speech["uncosted_gpu_ms"]) == (0, 2 * HOUR)
    assert speech["variable_nanos"] == 5 * AN_HOUR
    assert (speech["total_nanos"], speech["per_gpu_hour_nanos"], speech["charged_nanos"]) == (None, None, None)
    assert vision["total_nanos"] == vision["variable_nanos"] + vision["idle_nanos"]
    assert (vision["fixed_nanos"], found.facts["hardware_nanos"]) == (None, 40 * AN_HOUR)
    by_job = rows(costs.costs(times(url, jobs=True), By.JOB))
    assert by_job["job-g2"]["total_nanos"] is None

    (tmp_path / "rented").mkdir()
    url = keep_books(tmp_path / "rented", book_of(RENTED))
    vision, speech = rows(found := costs.costs(times(url), By.QUEUE)).values()
    assert found.facts["without_costs"] == A100_80
    assert {vision[f"{part}_nanos"] for part in (*Part, "variable", "idle", "total", "per_gpu_hour")} == {None}
    assert (speech["variable_nanos"], speech["idle_nanos"]) == (4 * NANO, 76 * NANO)
    other = costs.costs(times(url, currency="USD"), By.QUEUE)
    assert other.facts["without_costs"] == f"{A100_80}, {H100}"
    assert other.facts["hardware_nanos"] is None


def test_a_model_that_nobody_held_is_borne_by_nobody(tmp_path: Path) -> None:
    url = keep_books(tmp_path, book_of(FULL, RENTED, fixed=FIXED))
    found = costs.costs(times(url, Span(T0 + 3 * HOUR, T0 + 4 * HOUR, "")), By.QUEUE)
    vision, speech = rows(found).values()
    assert found.facts["unborne_nanos"] == 4 * 2 * NANO
    assert (
        vision["variable_nanos"] + vision["idle_nanos"] + speech["variable_nanos"] + speech["idle_nanos"] == 4 * AN_HOUR
    )
    nobody = costs.costs(times(url, Span(T0 + 6 * HOUR, T0 + 7 * HOUR, "")), By.QUEUE)
    assert nobody.rows == ()
    assert nobody.facts["unborne_nanos"] == nobody.facts["hardware_nanos"] == 4 * AN_HOUR + 8 * NANO
    assert nobody.facts["fixed_nanos orchestration"] == 10 * NANO


def test_what_others_hold_is_borne_by_nobody(tmp_path: Path) -> None:
    found = costs.costs(times(keep_books(tmp_path, book_of(FULL, RENTED), pools=("main", ""))), By.QUEUE)
    assert (found.facts["unmanaged_gpu_ms"], found.facts["unmanaged_nanos"]) == (38 * HOUR, 76 * NANO)
    vision, speech = rows(found).values()
    assert vision["idle_nanos"] + speech["idle_nanos"] == 27 * AN_HOUR


def test_fixed_costs_are_over_all_that_was_held_and_charges_of_the_same_currency(tmp_path: Path) -> None:
    usd = book_of(name="usd", currency="USD", prices=PRICES)
    vision, speech = rows(costs.costs(times(keep_books(tmp_path, book_of(FULL, fixed=FIXED), usd)), By.QUEUE)).values()
    assert [speech["fixed_nanos"], vision["fixed_nanos"]] == largest_remainder(110 * NANO, [7, 8])
    assert (speech["charged_nanos"], vision["charged_nanos"]) == (None, None)


def test_jobs_of_a_queue_are_summed() -> None:
    one, two = (("lab", "vision", "ns", name, name) for name in "ab")
    time = ModelTime(model="m", parts=dict.fromkeys(Part, 0), held={one: 840, two: 1680})
    found = DeviceTimes(
        since_ms=0, until_ms=1, as_of_ms=1, currency="EUR", times=(time,), charged={one: 3, two: 4}, fixed={"x": 9}
    )
    (row,) = costs_by(found, By.QUEUE).rows.values()
    assert (row.held, row.charged, row.fixed, row.total) == (2520, 7, 9, 9)
    jobs = costs_by(found, By.JOB).rows
    assert (jobs[one].charged, jobs[one].fixed, jobs[two].fixed) == (3, 3, 6)


def test_a_device_that_was_swapped_before_is_of_one_model() -> None:
    models, place = {("n", "d"): [(0, "A"), (50, "B"), (100, "C")]}, Place("p", "n", "d")
    assert device_models._times(models, place, (50, 100)) == [(50, 100, "B")]
    assert device_models._times(models, place, (-9, 60)) == [(-9, 50, "A"), (50, 60, "B")]


def test_a_cost_that_changes_holds_from_then_on(tmp_path: Path) -> None:
    noon = "2026-01-01T01:00:00Z"
    first, then = {**RENTED, "to": noon}, {**RENTED, "from": noon, "rental": {"perHour": "5"}}
    found = costs.costs(times(keep_books(tmp_path, book_of(first, then))), By.QUEUE)
    assert rows(found)["speech"]["rental_nanos"] == 7 * NANO
    assert found.facts["hardware_nanos"] == 4 * (2 + 9 * 5) * NANO


def test_costs_in_several_currencies_need_a_name(tmp_path: Path) -> None:
    url = keep_books(tmp_path, book_of(FULL), book_of(RENTED, name="usd", currency="USD"))
    with pytest.raises(UnreadableInput, match="--currency: the price books have costs in EUR and USD; name one"):
        times(url)
    assert times(url, currency="USD").currency == "USD"


# --- any books: sums by pool and entries by model say the same as a fold over every entry ----------------------------


def busy(url: str, seed: int, now: int = T0) -> None:
    """Three nodes in two pools; nodes change pools and GPUs, gangs come and go, and some of it is told late."""
    rng = random.Random(seed)
    books = Bookkeeper(url)
    odd = {
        "model": "T4",
        "rental": {"perHour": "0.0000000007"},
        "power": {"watts": 77, "perKwh": "0.31", "pue": "1.07"},
    }
    book = book_of(FULL, odd, {**RENTED, "from": "2026-01-01T13:00:00.007Z"}, fixed=FIXED, prices=PRICES)
    books.record([*NAMED, PriceBookSeen(book=book, at_ms=now)], now)
    told: list[Any] = []
    for attempt in range(1, 30):
        now += rng.randint(1, 3 * HOUR)
        name = rng.choice(("n1", "n2", "n3"))
        seen = of_model(node(name), rng.choice((A100_80, A100_80, H100, "T4")), rng.choice(("main", "side")))
        if rng.random() < 0.2:  # one GPU of another model
            first = dataclasses.replace(seen.machine.gpus[0], model="P100")
            gpus = (first, *seen.machine.gpus[1:])
            seen = dataclasses.replace(seen, machine=dataclasses.replace(seen.machine, gpus=gpus))
        uid, on = (
            f"g{attempt % 3 + 1}",
            placement((name, (0, 1)), (rng.choice(("n1", "n2")), (2,), rng.choice((300, 142)))),
        )
        start = now - rng.choice((0, 0, 5 * HOUR // 2))
        told = [
            *([NodeSeen(node=seen, at_ms=now)] if rng.random() < 0.5 or attempt < 4 else []),
            Intended(gang=uid, attempt=attempt, placement=on, tier=Tier.IN_QUOTA, at_ms=start, deadline_ms=start + 9),
        ]
        books.record(told, now)
        now += rng.randint(1, 2 * HOUR)
        end = now - rng.randint(0, 9)
        books.record([MemberReleased(gang=uid, attempt=attempt, rank=rank, at_ms=end) for rank in (0, 1)], now)
    assert books.trouble == ""
    books.close()


def fold(url: str, since: int, until: int) -> dict[tuple[str, str, Any], Fraction]:
    """(model, what, queue) -> ticks, by going over every entry and every moment at which something changes."""
    engine = database.connect(url)
    found: dict[tuple[str, str, Any], Fraction] = {}
    with database.reading(engine) as connection:
        pricing = snapshots.current(connection).pricing
        for sealed in entries.read(connection):
            entry = sealed.entry
            begin, end = max(entry.from_ms, since), min(entry.to_ms, until)
            if entry.kind not in TIMELINE or begin >= end:
                continue
            account, sign = accounts.parse(entry.account), 1 if entry.kind is EntryKind.SEGMENT else -1
            per_ms = abs(entry.postings[1].amount) // (entry.to_ms - entry.from_ms)
            changes = [at for at, _ in pricing.models.get((entry.node, entry.device), ()) if begin < at < end]
            edges = [begin, *changes, end]
            for a, b in pairwise(edges):
                what = "held" if account.kind is Kind.HELD else "idle"
                key = (pricing.model_of(entry.node, entry.device, a), what, account.queue)
                found[key] = found.get(key, Fraction()) + sign * per_ms * (b - a)
    engine.dispose()
    return {key: ticks for key, ticks in found.items() if ticks}


@pytest.mark.parametrize("seed", range(3))
def test_any_books_say_what_a_fold_over_every_entry_says(tmp_path: Path, seed: int) -> None:
    url = f"sqlite:///{tmp_path}/b.sqlite"
    busy(url, seed)
    compare(url, seed)


def compare(url: str, seed: int) -> list[bytes]:
    rng, told = random.Random(seed), list[bytes]()
    whole = times(url)
    for _ in range(4):
        since, until = sorted(rng.sample(range(whole.since_ms, whole.until_ms), 2))
        found, by_job = times(url, Span(since, until, "")), times(url, Span(since, until, ""), jobs=True)
        sums: dict[tuple[str, str, Any], int] = {}
        for time in found.times:
            for who, ticks in time.held.items():
                key = (time.model, "held", who[1])
                sums[key] = sums.get(key, 0) + ticks
            sums[time.model, "idle", ""] = sums.get((time.model, "idle", ""), 0) + time.idle + time.unmanaged
        assert {key: ticks for key, ticks in sums.items() if ticks} == fold(url, since, until)
        exact = Fraction(0)
        for time in found.times:
            ticks = sum(time.held.values()) + time.idle + time.unmanaged
            exact += Fraction(ticks * sum((time.parts or {}).values()), 840 * HOUR * 10)
        for by, these in ((By.TENANT, found), (By.QUEUE, found), (By.JOB, by_job)):
            dealt = costs_by(these, by)
            assert dealt.hardware == exact // 1
            in_rows = sum(row.variable + row.idle for row in dealt.rows.values())
            assert in_rows + dealt.unmanaged + dealt.unborne == dealt.hardware
            assert dealt.fixed == sum(found.fixed.values())
            fixed = sum(row.fixed for row in dealt.rows.values())
            assert fixed == (dealt.fixed if any(row.held for row in dealt.rows.values()) else 0)
            told.append(json.dumps(costs.costs(these, by).to_data()).encode())
    return told


@pytest.mark.postgres
def test_both_databases_give_the_same_bytes(postgres: PostgresServer, tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/b.sqlite", postgres.schema()]
    for url in urls:
        busy(url, 3)
    one, other = (compare(url, 3) for url in urls)
    assert one == other


def test_pools_of_one_model_are_answered_from_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apart", "alone"):
        (tmp_path / name).mkdir()
    mixed = keep_books(tmp_path, book_of(FULL, RENTED))
    apart = keep_books(tmp_path / "apart", book_of(FULL, RENTED), pools=("main", "side"))
    said = costs.costs(times(mixed), By.QUEUE)
    monkeypatch.setattr(devices, "lines", None)
    assert costs.costs(times(apart), By.QUEUE).rows == said.rows
    with pytest.raises(TypeError):
        times(mixed)
    monkeypatch.setattr(devices, "places", None)  # which are not asked for where there is only one model
    alone = keep_books(tmp_path / "alone", book_of(FULL), h100=A100_80)
    assert costs.costs(times(alone), By.QUEUE).facts["hardware_nanos"] == 80 * AN_HOUR


def test_devices_that_nobody_saw_have_no_cost(tmp_path: Path) -> None:
    engine = priced_books(tmp_path)
    facts = dataclasses.replace(costs.known(engine), books=(book_of(FULL),))
    found = costs.costs(costs.device_times(engine, facts, None, jobs=False), By.QUEUE)
    assert (found.facts["without_costs"], found.facts["capacity_gpu_ms"]) == ("unknown", 10 * HOUR)
    assert {row["total_nanos"] for row in rows(found).values()} == {None}
    engine.dispose()


def test_what_is_only_in_an_archive_cannot_be_costed(tmp_path: Path) -> None:
    months = three_months(tmp_path)
    name = "2026-09"
    archives.archive(months.engine, name, tmp_path / "a.gz", actor="ann")
    archives.drop(months.engine, name, tmp_path / "a.gz", keep_months=0)
    with pytest.raises(UnreadableInput, match=r"^--since: entries before .* are in archives.*; begin there"):
        times(months.url)


def test_the_command(tmp_path: Path) -> None:
    keep_books(tmp_path, book_of(FULL, RENTED, fixed=FIXED, prices=PRICES))
    command = ["costs", "--file", str(tmp_path / "costs.sqlite")]

    def run(*more: str) -> str:
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 0, done.exception
        return done.output

    table = run()
    assert "PER-GPU-HOUR" in table
    assert "without costs: -" in table
    assert run("-o", "json") == run("-o", "json")
    said = json.loads(run("-o", "json", "--by", "job"))
    assert [row["name"] for row in said["rows"]] == ["job-g1", "job-g2"]
    hours = run("--each", "hour", "--period", "2026-01-01", "-o", "csv").splitlines()
    assert hours[0].startswith("span,tenant,queue,held_gpu_ms,uncosted_gpu_ms,depreciation_nanos")
    assert len(hours) == 1 + 2 * 4 + 1
