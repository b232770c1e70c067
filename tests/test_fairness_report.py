"""Fairness over time and the inputs of a capacity plan, by hand; time that nobody watched is said, not guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
from builders import Stage
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import NotFound
from fairlead.ledger.chain import Head
from fairlead.model.calendars import Span
from fairlead.model.codec import Cut, decode, encode
from fairlead.model.events import Started
from fairlead.model.rules import Rules
from fairlead.model.standings import ClassWaited, QueueStood, ResourceStood, Standings
from fairlead.reports import fairness
from fairlead.store import engine as database
from fairlead.store import journal

HOUR = 3_600_000


def told(
    at: int, queues: dict[str, tuple[int, int, int]], waiting: int = 0, taken: tuple[int, int] = (0, 0)
) -> Standings:
    """At an hour: queue -> GPUs entitled, demanded and held; GPUs that wait; GPUs and memory taken of eight."""
    return Standings(
        queues=tuple(
            QueueStood(queue=name, entitled_milli=e * 1000, demanded_milli=d * 1000, held_milli=h * 1000)
            for name, (e, d, h) in sorted(queues.items())
        ),
        waiting=(ClassWaited(service_class="batch", gangs=1, gpu_milli=waiting * 1000),) if waiting else (),
        resources=(
            ResourceStood(resource="gpu", capacity=8_000, taken=taken[0] * 1000),
            ResourceStood(resource="memory", capacity=8, taken=taken[1]),
        ),
        at_ms=at * HOUR,
    )


def books(folder: Path, *records: Any) -> database.Engine:
    engine = database.connect(f"sqlite:///{folder}/f.sqlite")
    database.upgrade(engine)
    head, rows = Head(), []
    for record in records:
        row, head = journal.make_row(head, record, encode(record), 0)
        rows.append(row)
    with database.writing(engine) as connection:
        journal.append(connection, rows)
    return engine


STORY = (
    Started(rules=Rules(), at_ms=0),
    told(0, {"a": (4, 8, 8), "b": (4, 0, 0)}, taken=(8, 2)),
    told(2, {"a": (4, 8, 6), "b": (4, 4, 2)}, waiting=4, taken=(8, 4)),
    Cut(at_ms=5 * HOUR),
    Started(rules=Rules(), at_ms=9 * HOUR),  # nobody knows what was from five to nine
    told(9, {"a": (4, 4, 4), "b": (4, 4, 4)}, taken=(8, 4)),
    Cut(at_ms=10 * HOUR),
)


def rows(found: Any) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_what_everybody_was_due_and_got(tmp_path: Path) -> None:
    found = fairness.fairness(fairness.stood(books(tmp_path, *STORY)))
    a, b = rows(found)
    hours = {name: value / HOUR for name, value in a.items() if name.endswith("gpu_ms")}
    assert hours == {
        "entitled_gpu_ms": 4 * 6, "demanded_gpu_ms": 8 * 5 + 4, "got_gpu_ms": 8 * 2 + 6 * 3 + 4,
        "shortfall_gpu_ms": 0, "beyond_gpu_ms": 4 * 2 + 2 * 3,
    }  # fmt: skip
    assert a["satisfied_permille"] == 1_000
    # b wanted four for three hours and got two, and then got all of it: 10 of 16.
    assert (b["shortfall_gpu_ms"], b["satisfied_permille"]) == (6 * HOUR, 625)
    assert found.facts["measured_ms"] == 6 * HOUR
    assert (found.facts["envious"], found.facts["envied"], found.facts["max_envy_permille"]) == ("b", "a", 375)
    assert found.facts["jain_millionths"] == 1_000_000 * (8 + 5) ** 2 // (2 * (8**2 + 5**2))


def test_capacity(tmp_path: Path) -> None:
    found = fairness.capacity(fairness.stood(books(tmp_path, *STORY)))
    gpu, memory, waiting = rows(found)
    assert (gpu["name"], gpu["mean"], gpu["capacity"], gpu["taken_permille"]) == ("gpu", 8_000, 8_000, 1_000)
    assert (memory["peak"], memory["taken_permille"]) == (4, (2 * 2 + 4 * 4) * 1_000 // (8 * 6))
    assert (waiting["name"], waiting["mean"], waiting["peak"]) == ("batch", 2_000, 4_000)
    assert (waiting["capacity"], waiting["taken_permille"]) == (None, None)
    assert found.facts["most_constrained"] == "gpu"


def test_windows_and_what_nobody_watched(tmp_path: Path) -> None:
    engine = books(tmp_path, *STORY)
    away = fairness.fairness(fairness.stood(engine, Span(6 * HOUR, 8 * HOUR, "")))
    assert (away.rows, away.facts["measured_ms"], away.facts["jain_millionths"]) == ((), 0, None)
    part = fairness.stood(engine, Span(HOUR, 3 * HOUR, ""))
    assert [(s.from_ms, s.to_ms) for s in part.stretches] == [(HOUR, 2 * HOUR), (2 * HOUR, 3 * HOUR)]
    assert rows(fairness.capacity(fairness.stood(engine, Span(6 * HOUR, 8 * HOUR, "")))) == []
    with pytest.raises(NotFound):
        fairness.stood(engine, Span(11 * HOUR, 12 * HOUR, ""))


def test_the_commands(tmp_path: Path) -> None:
    engine = books(tmp_path, *STORY)
    for name in ("fairness", "capacity"):
        words = [name, "--database", str(engine.url), "-o", "json", "--each", "hour"]
        data = json.loads(CliRunner().invoke(app, words).stdout)
        assert data["report"] == name
        assert {row["span"] for row in data["rows"]} >= {"1970-01-01T00:00+00:00", "1970-01-01T09:00+00:00"}
    text = CliRunner().invoke(app, ["fairness", "--database", str(engine.url)]).stdout
    assert "62.5 %" in text


def test_an_engine_says_how_everybody_stands() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("a"), builders.queue("b")])
    stage.submit("a/one", "6x1 queue=a")
    stage.settle()
    stage.submit("b/two", "4x1 queue=b")
    stage.settle()
    found = stage.engine.standings(stage.now_ms)
    assert [(q.queue, q.demanded_milli, q.held_milli) for q in found.queues] == [("a", 6_000, 6_000), ("b", 4_000, 0)]
    assert sum(q.entitled_milli for q in found.queues) == 8_000
    assert [(w.gangs, w.gpu_milli) for w in found.waiting] == [(1, 4_000)]
    gpu = next(r for r in found.resources if r.resource == "gpu")
    assert (gpu.capacity, gpu.taken) == (8_000, 6_000)
    assert decode(encode(found)) == found
