"""`fairlead report tokens`: the example of the docs number for number, what contradicts the books, and equal bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from costed_books import FULL, T0, book_of, keep_books
from months import BEGIN as MONTHS_BEGIN
from months import Months, ms
from postgres_server import PostgresServer
from priced_books import BEGIN, HOUR, NANO, ODD, TICKS, entry, posting, priced_books, segment, split
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import FairleadError, NotFound, UnreadableInput
from fairlead.ledger.entry import EntryKind
from fairlead.reports import archives
from fairlead.reports.booked import By, booked
from fairlead.reports.charges import showback, sums_by
from fairlead.reports.token_books import CHARGED, COST, Gang, TokenCosts, report
from fairlead.reports.token_counts import TokenClass
from fairlead.reports.tokens import Cell, Key, Terms
from fairlead.store import engine as database
from fairlead.store.engine import Engine
from fairlead.units import gpu_hours_text, money_text, utc_text

RENTED = {"model": "NVIDIA H100 80GB HBM3", "rental": {"perHour": "2"}}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "money.md"
SERVER = {"gang": "u-1", "namespace": "chat", "name": "answers", "attempt": 1, "rank": 0}
OTHER = {"gang": "u-2", "namespace": ODD, "name": "größe", "attempt": 1, "rank": 0}
AGAIN = {**OTHER, "gang": "u-3"}
SERVED = (
    segment((4, 9), "held:lab:vision:in-quota", 50, **SERVER),
    split((4, 6), "vision", {"use:lab:vision:used": 1}, **SERVER),
    split((4, 6), "vision", {"use:lab:vision:idle": 1}, **SERVER),
    split((6, 8), "vision", {"use:lab:vision:idle": 2}, **SERVER),
    segment((0, 2), "held:lab:speech:borrowed", 3, **OTHER),
    segment((3, 4), "held:lab:speech:borrowed", 1, **AGAIN),
    entry(
        EntryKind.SEGMENT, (9, 10),
        [posting("capacity:main", -TICKS), posting("reserved-idle:main", TICKS),
         posting("spend:lab:vision:reserved-idle", NANO, "money:EUR"), posting("revenue:H100", -NANO, "money:EUR")],
        actor="vision", reason="reservation/night",
    ),
    entry(
        EntryKind.ADJUSTMENT, (5, 5),
        [posting("spend:lab:vision:in-quota", -2 * NANO, "money:EUR"), posting("credit:outage", 2 * NANO, "money:EUR")],
        actor="ann", reason="outage",
    ),
)  # fmt: skip
HEAD = "gang,from,to,class,cached,context,tokens,tokens_within_slo"


def line(hours: tuple[float, float], of: str, tokens: int, within: int | None = None, gang: str = "u-1") -> str:
    begin, end = (utc_text(BEGIN + int(hour * HOUR)) for hour in hours)
    return f"{gang},{begin},{end},{of},no,short,{tokens},{tokens if within is None else within}"


LINES = (
    line((4, 6), "prompt", 4_000_000, 3_200_000),
    line((4, 6), "completion", 1_000_000, 800_000),
    line((6, 8), "prompt", 1_000_000),
    line((6, 8), "completion", 250_000),
)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return priced_books(tmp_path, SERVED)


def told(tmp_path: Path, *lines: str, head: str = HEAD) -> Path:
    path = tmp_path / "counts.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def ask(engine: Engine, counts: Path, *words: str, output: str = "json") -> str:
    url = engine.url.render_as_string(hide_password=False)
    done = CliRunner().invoke(app, [*words, "--counts", str(counts), "--database", url, "-o", output])
    if isinstance(done.exception, FairleadError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def rows(text: str) -> list[dict[str, Any]]:
    return json.loads(text)["rows"]


def test_the_example_of_the_docs(engine: Engine, tmp_path: Path) -> None:
    data = json.loads(ask(engine, told(tmp_path, *LINES), "tokens", "--peak", "08:00-20:00"))
    table = [
        f"| {row['class']} | {row['time']} | {'' if row['tokens'] is None else format(row['tokens'], ',')} | "
        f"{'' if row['tokens_within_slo'] is None else format(row['tokens_within_slo'], ',')} | "
        f"{gpu_hours_text(row['held_gpu_ms'])} | {money_text(row['cost_nanos'])} | "
        f"{'' if row['per_million_nanos'] is None else money_text(row['per_million_nanos'])} | "
        f"{'' if row['per_million_nanos'] is None else money_text(row['per_million_within_slo_nanos'])} |"
        for row in data["rows"]
    ]
    assert table == [
        "| completion | off-peak | 250,000 | 250,000 | 1.000 | 10.00 | 40.00 | 40.00 |",
        "| completion | peak | 1,000,000 | 800,000 | 1.000 | 10.00 | 10.00 | 12.50 |",
        "| no counts | off-peak |  |  | 1.000 | 10.00 |  |  |",
        "| prompt | off-peak | 1,000,000 | 1,000,000 | 1.000 | 10.00 | 10.00 | 10.00 |",
        "| prompt | peak | 4,000,000 | 3,200,000 | 1.000 | 10.00 | 2.50 | 3.125 |",
    ]
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"{row}\n" in page for row in table)
    assert [row["used_permille"] for row in data["rows"]] == [0, 500, None, 0, 500]
    assert [row["counts"] for row in data["rows"]] == ["self-reported"] * 2 + ["none"] + ["self-reported"] * 2
    said = {name: data[name] for name in ("counts", "currency", "peak", "gangs", "gangs_by_busy_time")}
    assert said == {
        "counts": "self-reported", "currency": "EUR", "peak": "08:00-20:00 UTC", "gangs": 1, "gangs_by_busy_time": 0,
    }  # fmt: skip
    assert data["weights"].startswith("prompt=1.00 completion=4.00 cached=0.10 ")
    assert (data["others_held_gpu_ms"], data["others_cost_nanos"]) == (3 * HOUR, 4 * NANO)


def test_what_everybody_held_is_in_the_rows_or_beside_them(engine: Engine, tmp_path: Path) -> None:
    every = told(tmp_path, *LINES, line((0, 1), "prompt", 1, gang="u-2"), line((3, 4), "prompt", 1, gang="u-3"))
    data = json.loads(ask(engine, every, "tokens"))
    assert (data["others_held_gpu_ms"], data["others_cost_nanos"]) == (0, 0)
    held, cost = (sum(row[name] for row in data["rows"]) for name in ("held_gpu_ms", "cost_nanos"))
    whole = sums_by(booked(engine), By.TENANT, "EUR")[("lab",)]
    assert (held, cost) == (whole.ticks // 840, whole.of_held + 2 * NANO)  # that was given back by hand
    assert showback(booked(engine), By.TENANT).rows[0][5] == held


def test_rows_by_job_queue_and_tenant_and_in_each_span(engine: Engine, tmp_path: Path) -> None:
    counts = told(tmp_path, *LINES, line((0, 2), "prompt", 1_000_000, gang="u-2"))
    by_job = rows(ask(engine, counts, "tokens"))
    assert {(row["namespace"], row["name"], row["gang"]) for row in by_job} == {
        ("chat", "answers", "u-1"), (ODD, "größe", "u-2"),
    }  # fmt: skip
    by_tenant = rows(ask(engine, counts, "tokens", "--by", "tenant"))
    assert [(row["class"], row["tokens"], row["cost_nanos"]) for row in by_tenant] == [
        ("completion", 1_250_000, 20 * NANO), ("no counts", None, 10 * NANO), ("prompt", 6_000_000, 23 * NANO),
    ]  # fmt: skip
    assert "queue" not in by_tenant[0]
    assert [row["queue"] for row in rows(ask(engine, counts, "tokens", "--by", "queue"))] == ["speech", *["vision"] * 3]
    for words in ((), ("--by", "queue")):
        each = rows(ask(engine, counts, "tokens", "--each", "hour", *words))
        for name in ("tokens", "cost_nanos", "held_gpu_ms"):
            assert sum(row[name] or 0 for row in each) == sum(row[name] or 0 for row in by_job)
    # A window passes over rows outside of it and takes its part of one that it cuts.
    (row,) = rows(ask(engine, counts, "tokens", "--since", str(BEGIN + HOUR), "--until", str(BEGIN + 2 * HOUR)))
    assert (row["tokens"], row["cost_nanos"], row["gang"]) == (500_000, 3 * NANO // 2, "u-2")


def test_a_gang_is_found_by_its_name_in_the_time_that_it_held(engine: Engine, tmp_path: Path) -> None:
    head = HEAD.replace("gang", "namespace,name")
    lines = [line(hours, "prompt", 5, gang=f"{ODD},größe") for hours in ((0, 2), (3, 4))]
    found = rows(ask(engine, told(tmp_path, *lines, head=head), "tokens"))
    assert [(row["gang"], row["tokens"], row["cost_nanos"]) for row in found] == [
        ("u-2", 5, 3 * NANO), ("u-3", 5, NANO),
    ]  # fmt: skip
    both = told(tmp_path, line((1, 4), "prompt", 5, gang=f"{ODD},größe"), head=head)
    with pytest.raises(UnreadableInput, match=r"counts.csv line 2: name: there are several gangs .* u-2 and u-3"):
        ask(engine, both, "tokens")


def test_a_million_is_rounded_to_the_nano_unit_and_no_tokens_cost_nothing_each(engine: Engine, tmp_path: Path) -> None:
    lines = [line((0, 2), "completion", 7, 3, gang="u-2"), line((3, 4), "completion", 0, gang="u-3")]
    seven, none = rows(ask(engine, told(tmp_path, *lines), "tokens"))
    assert seven["per_million_nanos"] == 428_571_428_571_429  # and 3 EUR over 7 are 428571.4285714286 EUR
    assert seven["per_million_within_slo_nanos"] == 10**15
    assert (none["cost_nanos"], none["per_million_nanos"], none["tokens"]) == (NANO, None, 0)


def test_what_was_taken_back_is_no_row(tmp_path: Path) -> None:
    back = segment((4, 9), "held:lab:vision:in-quota", 50, **SERVER)
    reversed_ = tuple(posting(p.account, -p.amount, p.unit) for p in back.postings)
    back = dataclasses.replace(back, id="back", kind=EntryKind.REVERSAL, postings=reversed_)
    books = priced_books(tmp_path, (SERVED[0], back, *SERVED[4:]))
    assert rows(ask(books, told(tmp_path, line((4, 6), "prompt", 0)), "tokens")) == []


def test_archived_time_has_no_hours(tmp_path: Path) -> None:
    months = Months(tmp_path).pass_to("2026-10-01T00:00Z")
    months.close("2026-09", wait=False)
    months.pass_to("2026-11-03T00:00Z").close("2026-10")
    months.pass_to("2026-11-20T00:00Z")
    archives.archive(months.engine, "2026-09", tmp_path / "a", actor="ann")
    begin = utc_text(MONTHS_BEGIN + HOUR)
    counts = told(tmp_path, f"g1,{begin},{utc_text(MONTHS_BEGIN + 2 * HOUR)},prompt,no,short,5,5")
    assert rows(ask(months.engine, counts, "tokens"))[1]["tokens"] == 5
    archives.drop(months.engine, "2026-09", tmp_path / "a", keep_months=0)
    with pytest.raises(UnreadableInput, match=r"--since: what jobs held before 2026-\S+ is in archives; begin there"):
        ask(months.engine, counts, "tokens")
    later = str(ms("2026-10-02T00:00Z"))
    assert rows(ask(months.engine, counts, "tokens", "--since", later)) == []
    early = told(tmp_path, f"g1,{begin},2026-10-03T00:00:00Z,prompt,no,short,5,5")
    with pytest.raises(UnreadableInput, match=r"counts.csv line 2: from: is 2026-09-30T21:00:00Z; the books have"):
        ask(months.engine, early, "tokens", "--since", later)


BUSY = f"{HEAD},busy_ms"
REFUSED = [
    ([line((4, 5), "prompt", 5, gang="u-9")], "line 2: gang: the books know no gang 'u-9'; mend its uid, or leave"),
    ([LINES[0], line((5, 7), "prompt", 5)], "line 3: from: overlaps line 2, of the same gang and class"),
    ([line((5, 7), "prompt", 5), LINES[1], LINES[0]], "line 4: from: overlaps line 2, of the same gang and class"),
    ([LINES[0], LINES[1], LINES[0]], "line 4: from: is of the same time as line 2, of the same gang and class"),
    ([line((8, 11), "prompt", 5)], "line 2: to: is 2026-09-22T01:00:00Z; the books have everything from 2026-09-21T14"),
    ([line((-1, 5), "prompt", 5)], "line 2: from: is 2026-09-21T13:00:00Z; the books have everything from"),
    ([line((9, 10), "prompt", 5)], "line 2: from: the gang held no device from 2026-09-21T23:00:00Z to 2026-09-22T00"),
]


@pytest.mark.parametrize(("lines", "said"), REFUSED)
def test_what_contradicts_the_books_or_another_row(engine: Engine, tmp_path: Path, lines: list[str], said: str) -> None:
    counts = told(tmp_path, *lines)
    with pytest.raises(UnreadableInput, match=f"counts.csv {said}"):
        ask(engine, counts, "tokens")
    if "held no" not in said and "from" not in said[:14]:  # it is no business of a window elsewhere
        assert ask(engine, counts, "tokens", "--until", str(BEGIN + HOUR))


def test_busy_time_is_told_by_all_rows_of_a_gang_or_by_none(engine: Engine, tmp_path: Path) -> None:
    all_of_them = told(tmp_path, f"{LINES[0]},300", f"{LINES[1]},100", head=BUSY)
    data = json.loads(ask(engine, all_of_them, "tokens"))
    assert [row["cost_nanos"] for row in data["rows"]] == [5 * NANO, 30 * NANO, 15 * NANO]
    assert data["gangs_by_busy_time"] == 1
    one = told(tmp_path, f"{LINES[0]},", f"{LINES[1]},100", head=BUSY)
    with pytest.raises(UnreadableInput, match=r"counts.csv line 2: busy_ms: is missing, and line 3 of the same gang"):
        ask(engine, one, "tokens")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--peak", "8-20"], "--peak.from: '8' is no time of a day"),
        (["--peak", "08:00"], "--peak: '08:00' is no time of a day; write for example 08:00-20:00"),
        (["--peak", "08:00-08:00"], "--peak.to: is the same as from"),
        (["--weight", "image=2"], "--weight: 'image' is none of prompt, completion, cached"),
        (["--weight", "long"], "--weight long: '' is no amount"),
        (["--weight", "long=-1"], "--weight long: '-1' is no amount"),
        (["--weight", "long=0"], "--weight: long=0: must be more than 0"),
        (["--weight", "long=2", "--weight", "long=3"], "--weight: long is said twice"),
        (["--basis", "list"], "--basis: 'list' is none of charged, cost"),
        (["--by", "node"], "--by: 'node' is none of"),
        (["--output", "yaml"], "--output: 'yaml' is none of"),
    ],
)
def test_options_that_cannot_be_read(engine: Engine, tmp_path: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(
        app, ["tokens", "--counts", str(told(tmp_path, *LINES)), "--database", str(engine.url), *words]
    )
    assert isinstance(done.exception, UnreadableInput)
    assert str(done.exception).startswith(said)


def test_options_are_heeded(engine: Engine, tmp_path: Path) -> None:
    counts = told(tmp_path, *LINES)
    even = rows(ask(engine, counts, "tokens", "--weight", "completion=1.00"))
    assert [row["cost_nanos"] for row in even] == [8 * NANO, 10 * NANO, 32 * NANO]
    # In India the clock shows half past eleven in the evening when the server begins.
    indian = json.loads(ask(engine, counts, "--time-zone", "Asia/Kolkata", "tokens", "--peak", "22:00-02:30"))
    assert indian["peak"] == "22:00-02:30 Asia/Kolkata"
    told_in = {(row["class"], row["time"]): row["tokens"] for row in indian["rows"]}
    assert told_in["prompt", "peak"] == 4_000_000 + 500_000
    unpriced = ask(engine, counts, "tokens", "--currency", "USD")
    assert {(row["cost_nanos"], row["per_million_nanos"]) for row in rows(unpriced)} == {(None, None)}
    with pytest.raises(UnreadableInput, match=r"--counts: .*nowhere.csv: No such file or directory"):
        ask(engine, tmp_path / "nowhere.csv", "tokens")
    with pytest.raises(NotFound, match="they go from"):
        ask(engine, counts, "tokens", "--until", "1")


def test_the_same_bytes_whatever_the_order_and_the_form(engine: Engine, tmp_path: Path) -> None:
    lines = [*LINES, line((0, 2), "prompt", 7, gang="u-2")]
    one = [ask(engine, told(tmp_path, *lines), "tokens", output=output) for output in ("json", "csv", "table")]
    assert one == [ask(engine, told(tmp_path, *lines[::-1]), "tokens", output=o) for o in ("json", "csv", "table")]
    again = tmp_path / "counts.jsonl"
    fields = [dict(zip(HEAD.split(","), text.split(","), strict=True)) for text in lines]
    numbers = [{name: int(value) if value.isdigit() else value for name, value in row.items()} for row in fields]
    again.write_text("".join(json.dumps(row) + "\n" for row in numbers))
    assert one[0] == ask(engine, again, "tokens")
    read = list(csv.DictReader(io.StringIO(one[1], newline="")))
    assert {row["namespace"] for row in read} == {"chat", "'" + ODD}
    assert {row["counts"] for row in read} == {"self-reported", "none"}
    assert [row["tokens"] for row in read if row["counts"] == "none"] == ["unmeasured"]
    assert "counts: self-reported" in one[2]
    assert "  self-reported     5000000            4200000  " in one[2]  # numbers end below each other


@pytest.mark.parametrize("each", [(), ("--each", "hour")])
def test_by_what_the_platform_paid(tmp_path: Path, each: tuple[str, ...]) -> None:
    fixed = ({"name": "orchestration", "perMonth": "7440"},)
    engine = database.connect(keep_books(tmp_path, book_of(FULL, RENTED, fixed=fixed)))
    begin, *ends = (utc_text(T0 + hours * HOUR) for hours in (0, 1, 4))
    lines = [f"g1,{begin},{ends[0]},prompt,no,short,3000000,2000000", f"g1,{begin},{ends[1]},completion,no,long,7,7"]
    told_of_both = told(tmp_path, *lines, f"g2,{begin},{ends[0]},prompt,no,short,5,5")
    found = rows(ask(engine, told_of_both, "tokens", "--basis", "cost", *each))
    paid = rows(cost_report(engine, *each))
    for gang in ("g1", "g2"):
        of_gang, due = [row for row in found if row["gang"] == gang], sums(paid, gang)
        assert sum(row["cost_nanos"] for row in of_gang) == due["variable_nanos"] + due["idle_nanos"]
        assert sum(row["fixed_nanos"] for row in of_gang) == due["fixed_nanos"]
        assert 0 <= due["held_gpu_ms"] - sum(row["held_gpu_ms"] for row in of_gang) < len(of_gang)  # each rounded down
    if not each:
        row = next(row for row in found if row["class"] == "prompt" and row["gang"] == "g1")
        assert row["per_million_nanos"] == round((row["cost_nanos"] + row["fixed_nanos"]) / 3)
        data = json.loads(ask(engine, told(tmp_path, lines[0]), "tokens", "--basis", "cost"))
        assert (data["basis"], data["currency"]) == ("cost", "EUR")
        assert data["others_cost_nanos"] == sums(paid, "g2")["total_nanos"]
        assert {row["cost_nanos"] for row in rows(ask(engine, told_of_both, "tokens"))} == {None}


def test_time_that_nobody_said_the_cost_of_has_none(tmp_path: Path) -> None:
    engine = database.connect(keep_books(tmp_path, book_of(FULL)))  # what an H100 costs is said nowhere
    begin, end = utc_text(T0), utc_text(T0 + HOUR)
    counts = told(tmp_path, f"g1,{begin},{end},prompt,no,short,3,2", f"g2,{begin},{end},prompt,no,short,3,2")
    found = rows(ask(engine, counts, "tokens", "--basis", "cost"))
    assert {row["gang"]: row["cost_nanos"] is None for row in found} == {"g1": False, "g2": True}
    assert {row["fixed_nanos"] for row in found} == {None}


def test_a_queue_with_such_time_has_none_either() -> None:
    of = TokenClass("prompt", "no", "short")
    key = Key("lab", "vision", of, "any")
    costed, not_costed = Cell(held=TICKS, money={"EUR": NANO}, within=5), Cell(held=TICKS, within=5)
    jobs = {(key, Gang(uid, "ns", uid, 0, 1)): cell for uid, cell in (("g1", costed), ("g2", not_costed))}
    for basis, nanos in ((COST, None), (CHARGED, NANO)):
        found = TokenCosts(
            since_ms=0, until_ms=1, as_of_ms=1, basis=basis, currency="EUR", jobs=jobs, others_held=0, others_nanos=0,
            has_fixed=False, gangs=2, by_busy=0, terms=Terms(),
        )  # fmt: skip
        (row,) = report(found, By.QUEUE).to_data()["rows"]  # type: ignore[misc]
        assert (row["cost_nanos"], row["per_million_nanos"]) == (nanos, nanos and nanos * 10**5)


def cost_report(engine: Engine, *words: str) -> str:
    done = CliRunner().invoke(app, ["costs", "--by", "job", "--database", str(engine.url), "-o", "json", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def sums(found: list[dict[str, Any]], gang: str) -> dict[str, int]:
    its = [row for row in found if row["gang"] == gang]
    return {name: sum(row[name] or 0 for row in its) for name in its[0] if name.endswith(("_ms", "_nanos"))}


@pytest.mark.postgres
def test_both_databases_say_the_same(postgres: PostgresServer, engine: Engine, tmp_path: Path) -> None:
    other = priced_books(postgres.schema(), SERVED)
    head, names = HEAD.replace("gang", "namespace,name"), line((4, 6), "prompt", 5, gang="chat,answers")
    for counts in (told(tmp_path, *LINES), told(tmp_path, names, head=head)):
        for words in (("--by", "queue"), ("--each", "hour"), ("--since", str(BEGIN + 5 * HOUR + 1))):
            assert ask(engine, counts, "tokens", *words) == ask(other, counts, "tokens", *words)
    other.dispose()
