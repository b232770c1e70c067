"""P7: every decision in the journal comes out the same again, byte for byte, across restarts too."""

from __future__ import annotations

from dataclasses import replace as changed

import builders
import pytest
from builders import Stage
from typer.testing import CliRunner

from fairlead.cli.main import app
from fairlead.model import events as ev
from fairlead.model.codec import Again
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.replay import referenced, replay
from fairlead.simulation.simulator import run
from fairlead.store import engine as database
from fairlead.store import journal
from fairlead.store.journal import record_of


def rows_of(url):
    engine = database.connect(url)
    with database.reading(engine) as connection:
        rows = [(row.id, record_of(row)) for row in journal.read(connection)]
    engine.dispose()
    return rows


@pytest.mark.parametrize("seed", [5, 157])
def test_p7_a_world_full_of_faults_replays_byte_for_byte(seed: int, tmp_path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path / 'books.sqlite'}")
    books.open()
    run(seed, books=books)
    books.close()
    rows = rows_of(books.url)
    found = replay(rows, referenced(rows))
    assert found.differences == ()
    assert found.runs == 1
    assert found.decisions > 40
    answer = CliRunner().invoke(app, ["replay", "--database", books.url])
    assert (answer.exit_code, "0 runs differ" in answer.output) == (0, True)


def test_a_fact_that_is_missing_or_other_than_it_was_shows(tmp_path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path / 'books.sqlite'}")
    books.open()
    run(5, books=books)
    books.close()
    rows = rows_of(books.url)
    first = next(i for i, (_, record) in enumerate(rows) if isinstance(record, ev.GangSeen))
    without = [row for i, row in enumerate(rows) if i != first]
    assert replay(without, set()).differing == 1
    intended = next(i for i, (_, record) in enumerate(rows) if isinstance(record, ev.Intended))
    identity, record = rows[intended]
    forged = [*rows[:intended], (identity, changed(record, deadline_ms=record.deadline_ms + 1)), *rows[intended + 1 :]]
    (difference,) = replay(forged, set()).differences
    assert f"record {intended + 1}" in difference


def stage_on(books: Bookkeeper, at_ms: int) -> Stage:
    """A fresh engine whose start and first facts are journaled, as a loop does."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    books.record([stage.engine.started(at_ms), *stage.facts], at_ms)
    return stage


def decide_on(stage: Stage, books: Bookkeeper, *facts: ev.Event) -> None:
    stage.take(*facts)
    before = len(stage.facts)
    stage.settle()
    books.record([*facts, *stage.facts[before:]], stage.now_ms)


def test_p7_facts_that_a_restarted_process_is_told_again_are_in_its_replay_too(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'books.sqlite'}"
    seen = ev.GangSeen(gang=builders.gang("a", "1x8"), at_ms=builders.T0 + 1)
    ended = ev.MemberEnded(gang=seen.gang.id, attempt=1, rank=0, succeeded=True, at_ms=builders.T0 + 9)
    books = Bookkeeper(url)
    books.open()
    stage = stage_on(books, builders.T0)
    decide_on(stage, books, seen)
    running = [
        ev.Bound(gang=seen.gang.id, attempt=1, at_ms=builders.T0 + 2),
        ev.MemberRunning(gang=seen.gang.id, attempt=1, rank=0, at_ms=builders.T0 + 3),
    ]
    decide_on(stage, books, *running, ended)
    placement = stage.attempt("a").placement
    books.close()

    books = Bookkeeper(url)
    books.open()
    again = stage_on(books, builders.T0 + 50)
    again.now_ms += 60
    recovered = ev.Recovered(
        gang=seen.gang.id, attempt=1, placement=placement, tier=stage.attempt("a").tier, since_ms=builders.T0 + 1,
        bound=True, holding=(0,), running=(), at_ms=builders.T0 + 51,
    )  # fmt: skip
    decide_on(again, books, seen, recovered, ended, ended)
    books.close()
    rows = rows_of(url)
    # the node, the queue, the pool, the gang and its end were known; the second telling of the end in one run is none
    assert sum(isinstance(record, Again) for _, record in rows) == 5
    found = replay(rows, referenced(rows))
    assert (found.runs, found.decisions, found.differences) == (2, 3, ())


def test_p7_what_is_held_for_its_costs_and_who_lifted_it_replays(tmp_path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path / 'books.sqlite'}")
    books.open()
    stage = stage_on(books, builders.T0)
    held = ev.QueueSeen(queue=builders.queue("team", "costs=hold"), at_ms=builders.T0 + 1)
    alarm = ev.CostAlarmed(
        queue="team", day="2027-01-14", what="spend", until_ms=builders.T0 + 9_000, at_ms=builders.T0
    )
    decide_on(stage, books, held, alarm, ev.GangSeen(gang=builders.gang("a", "1x4"), at_ms=builders.T0 + 1))
    assert stage.view("a").refusal.reason.token == "CostAnomaly"
    seen = ev.QueueSeen(queue=builders.queue("team", "costs=hold well=2027-01-14"), at_ms=builders.T0 + 2)
    decide_on(stage, books, seen)
    assert stage.attempt("a").placement.members
    books.close()
    rows = rows_of(books.url)
    assert replay(rows, referenced(rows)).differences == ()
    without = [row for row in rows if row[1] != alarm]
    assert replay(without, referenced(rows)).differing == 1
