"""Periods: closing, frozen statements, corrections in the next one; every entry in exactly one statement."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import node
from months import BEGIN, END, HELD, HOUR, Months, ms

from fairlead.errors import BooksDoNotVerify, NotFound, UnreadableInput
from fairlead.ledger.periods import Line, PeriodState, Step, clipped, line_text, problems, read_line, seal_step
from fairlead.model.calendars import Calendar
from fairlead.model.events import NodeSeen
from fairlead.reports import statements
from fairlead.store import engine as database
from fairlead.store import entries, periods


@pytest.fixture
def months(tmp_path: Path) -> Months:
    return Months(tmp_path)


def test_a_period_closes_once_no_fact_can_change_it(months: Months) -> None:
    months.pass_to("2026-10-01T00:30Z")
    assert [step.state for step in months.close("2026-09")] == [PeriodState.CLOSING]
    assert months.close("2026-09") == []
    months.pass_to("2026-10-02T22:30Z")
    (step,) = months.close("2026-09")
    assert (step.state, step.number, step.actor, step.zone) == (PeriodState.CLOSED, 2, "ann", "Europe/Berlin")
    found = statements.statement(months.engine, "2026-09")
    assert (found.state, found.sha256, len(found.lines)) == (PeriodState.CLOSED, step.sha256, step.lines)
    # Two hours of four GPUs; the gang's first hour on two of them lies in September, the second in October.
    assert months.gpu_hours("2026-09") == {
        ("2026-09", "capacity:main"): -8,
        ("2026-09", HELD): 2,
        ("2026-09", "free:main"): 6,
    }
    months.pass_to("2026-11-02T00:00Z")
    assert months.gpu_hours("2026-10")["2026-10", HELD] == 2
    assert months.gpu_hours("2026-10")["2026-10", "capacity:main"] == -4 * (END - BEGIN - 2 * HOUR) // HOUR
    assert months.findings() == []


def test_both_steps_are_taken_at_once_where_the_time_is_over(months: Months) -> None:
    months.pass_to("2026-10-05T00:00Z")
    assert [step.state for step in months.close("2026-09")] == [PeriodState.CLOSING, PeriodState.CLOSED]


def test_what_comes_after_the_close_is_a_correction_in_the_next_statement(months: Months) -> None:
    months.pass_to("2026-10-01T00:00Z")
    months.close("2026-09", wait=False)
    frozen = statements.statement(months.engine, "2026-09")
    # The node was dead from half an hour before the month's end to half an hour after it.
    lost, back = ms("2026-09-30T21:30Z"), ms("2026-10-01T02:00Z")
    months.at(back, NodeSeen(node=node(not_ready_since_ms=lost), at_ms=back), NodeSeen(node=node(), at_ms=back + 1))
    months.pass_to("2026-11-03T00:00Z")
    assert statements.statement(months.engine, "2026-09") == frozen
    october = months.gpu_hours("2026-10")
    assert (october["2026-09", HELD], october["2026-09", "down:main:node-lost"]) == (-1, 2)
    assert ("2026-10", HELD) not in october
    assert sum(amount for (of, _), amount in october.items() if of == "2026-09") == 0
    months.close("2026-10")
    assert months.findings() == []
    # November's statement does not tell of it again.
    assert {of for of, _ in months.pass_to("2026-12-05T00:00Z").gpu_hours("2026-11")} == {"2026-11"}


def test_all_statements_together_are_the_books(months: Months) -> None:
    months.pass_to("2026-10-01T00:00Z").close("2026-09", wait=False)
    lost = ms("2026-09-30T20:10:00.007Z")
    months.at(ms("2026-10-02T00:00Z"), NodeSeen(node=node(not_ready_since_ms=lost), at_ms=ms("2026-10-02T00:00Z")))
    months.pass_to("2026-11-03T00:00Z").close("2026-10")
    months.pass_to("2026-12-02T00:00Z")
    months.books.cut(ms("2026-11-30T22:59Z"))
    told: dict[tuple[str, str], int] = {}
    for name in ("2026-09", "2026-10", "2026-11", "2026-12"):
        for line in statements.statement(months.engine, name).lines:
            told[line.unit, line.account] = told.get((line.unit, line.account), 0) + line.amount
    with database.reading(months.engine) as connection:
        balances = entries.balances(connection)
    whole = {(unit, name): amount for unit, of in balances.items() for name, amount in of.items()}
    assert told == whole


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("2026-10", {}, "2026-09 comes first; run `fairlead ledger close 2026-09`"),
        ("2026-11", {}, "2026-09 comes first"),
        ("2026-Q3", {}, "only months are closed"),
        ("2026", {}, "only months are closed"),
        ("2026-09-30", {}, "is no month"),
        ("=cmd|' /C calc'!A0", {}, "no month, quarter, year or day"),
        ("2026-09\0", {}, "no month, quarter, year or day"),
    ],
)
def test_what_cannot_be_closed_is_refused_with_what_to_do(months: Months, name: str, more: Any, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message.replace("|", r"\|")):
        months.pass_to("2026-10-05T00:00Z").close(name, **more)


def test_a_period_that_is_not_over_or_not_booked_or_closed_stays(months: Months) -> None:
    with pytest.raises(UnreadableInput, match="2026-09 comes first; run"):
        months.close("2026-10")
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    with pytest.raises(UnreadableInput, match="is closed; what is wrong in it is corrected in the next"):
        months.close("2026-09")
    with pytest.raises(UnreadableInput, match="2026-10 ends at 2026-10-31T23:00:00Z; the books are at"):
        months.close("2026-10")
    with pytest.raises(UnreadableInput, match="are of the calendar Europe/Berlin 1 1; it stays"):
        months.close("2026-10", calendar=Calendar())
    months.books.record([NodeSeen(node=node(), at_ms=END + 1)], END - 1)
    with pytest.raises(UnreadableInput, match=r"is booked up to 2026-10-.*; the scheduler books the rest"):
        months.close("2026-10")


def test_books_without_entries_have_nothing_to_close(tmp_path: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path}/empty.sqlite")
    database.upgrade(engine)
    with pytest.raises(UnreadableInput, match="no entries yet"):
        statements.close(engine, "2026-09", actor="ann")
    with pytest.raises(NotFound, match="nothing of 2026-09"):
        statements.statement(engine, "2026-09")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE statement SET payload = replace(payload, 'vision', 'speech') WHERE line = 4", "was changed"),
        ("DELETE FROM statement WHERE line = 1", "was changed"),
        ("UPDATE period SET actor = 'bob' WHERE number = 1", "step 1: hash: the chain of periods breaks"),
        ("DELETE FROM period WHERE number = 1", "1 should come here: steps are missing"),
        ("UPDATE posting SET amount = amount * 2", "the entries say something else"),
    ],
)
def test_a_statement_that_was_changed_is_found(months: Months, statement: str, message: str) -> None:
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    assert months.findings() == []
    with database.writing(months.engine) as connection:
        for table in ("period", "statement", "posting"):
            for verb in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}")
        connection.exec_driver_sql(statement)
    assert message in months.findings()[0]
    if "statement" in statement:
        with pytest.raises(BooksDoNotVerify, match="its rows were changed"):
            statements.statement(months.engine, "2026-09")


def test_two_who_close_at_once_do_not_both(months: Months) -> None:
    months.pass_to("2026-10-05T00:00Z")
    step = months.close("2026-09")[0]
    with pytest.raises(BooksDoNotVerify, match="contradicts"), database.writing(months.engine) as connection:
        periods.append(connection, [step])


amounts = st.lists(st.tuples(st.sampled_from(["ticks", "money:EUR"]), st.integers(-(10**12), 10**12)), max_size=4)


@given(amounts, st.integers(0, 50), st.integers(0, 50), st.sets(st.integers(-10, 110), max_size=5))
def test_parts_of_an_entry_sum_to_it_and_balance(parts, begin, length, edges) -> None:
    balanced = [*parts]
    for unit in {unit for unit, _ in parts}:
        balanced.insert(0, (unit, -sum(amount for u, amount in parts if u == unit)))
    windows = [-20, *sorted(edges), 120]
    found = [clipped(balanced, (begin, begin + length), (a, b)) for a, b in pairwise(windows)]
    assert [sum(column) for column in zip(*found, strict=True)] == [amount for _, amount in balanced]
    for row in found:
        for unit in ("ticks", "money:EUR"):
            assert sum(part for part, (u, _) in zip(row, balanced, strict=True) if u == unit) == 0


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = {
    name: plain for name in ("of", "kind", "account", "unit", "pool", "namespace", "name", "gang", "actor", "reason")
}


@given(st.builds(Line, **names, amount=st.integers(-(2**63), 2**80)))
def test_lines_read_back(line: Line) -> None:
    assert read_line(line_text(line)) == line
    assert "\n" not in line_text(line)


def test_a_gap_between_periods_and_a_step_back_are_found() -> None:
    first = Step(
        number=1, period="2026-09", state=PeriodState.CLOSING, from_ms=0, to_ms=10, zone="UTC", month_starts_on=1,
        at_ms=10, actor="ann",
    )  # fmt: skip

    def chain(*changes: dict[str, Any]) -> list[str]:
        sealed: list[Step] = []
        for number, change in enumerate(changes, start=1):
            step = dataclasses.replace(first, number=number, **change)
            sealed.append(seal_step(sealed[-1] if sealed else None, step))
        return [message for _, _, message in problems(sealed)]

    closed = {"state": PeriodState.CLOSED}
    assert chain({}, closed) == []
    assert "was closed and cannot become closing" in chain({}, closed, {})[0]
    assert "was open and cannot become closed" in chain(closed)[0]
    later = {"period": "2026-10", "from_ms": 11, "to_ms": 20}
    assert chain({}, closed, later, {**later, **closed}) == ["is 11; period 2026-09 before it ends at 10"]


def test_nobody_updates_or_deletes_periods(months: Months) -> None:
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    for statement in (
        "UPDATE period SET lines = 0",
        "DELETE FROM statement",
        "DELETE FROM entry",
        "DELETE FROM period",
    ):
        with pytest.raises(BooksDoNotVerify, match="is append-only"), database.writing(months.engine) as connection:
            connection.execute(sa.text(statement))
