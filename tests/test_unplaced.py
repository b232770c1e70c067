"""Somebody waits although enough is idle: who, why, for how long, and how much of it would be filled (R44)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import builders
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import examples
from test_fairness_report import HOUR, books, rows
from test_loop import Rig
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.model.codec import Cut, decode, encode
from fairlead.model.events import Started
from fairlead.model.reasons import Kind, Reason
from fairlead.model.rules import Rules
from fairlead.model.standings import Standings, Unplaced
from fairlead.reports import fairness
from fairlead.reports.unplaced import unplaced
from fairlead.service.congestion import CAUSES
from fairlead.service.loop import CONGESTION_EVERY_MS


def stage_of(nodes: dict[str, str], *gangs: str, **queues: str) -> Stage:
    named = [builders.queue(name, text) for name, text in (queues or {"team": ""}).items()]
    stage = Stage([builders.node(name, text) for name, text in nodes.items()], named)
    for number, text in enumerate(gangs):
        stage.submit(f"g{number}", text)
        stage.settle()
    return stage


def told(stage: Stage) -> list[tuple[str, str, int, int]]:
    found = stage.engine.standings(stage.now_ms)
    assert decode(encode(found)) == found
    return [(one.queue, one.cause, one.gangs, one.gpu_milli) for one in found.unplaced]


HALVES = {"n1": "8", "n2": "8"}


def test_what_is_idle_in_pieces_is_told_with_who_waits_for_it() -> None:
    stage = stage_of(HALVES, "1x5", "1x5", "1x6")
    assert told(stage) == [("team", "scattered", 1, 6_000)]
    assert stage.engine.standings(stage.now_ms).idle_milli == 6_000
    stage.submit("big", "1x7")
    stage.settle()
    assert told(stage) == [("team", "scattered", 1, 6_000)], "seven are not idle anywhere"


def test_a_rule_is_told_as_what_it_is() -> None:
    stage = stage_of(HALVES, "1x4 queue=a", "1x2 queue=a", a="limit=4", b="")
    assert told(stage) == [("a", "quota", 1, 2_000)]


def test_where_no_node_takes_a_pod_it_is_told_whether_that_is_for_the_gpus() -> None:
    stage = stage_of({"n1": "8 cpu=8", "n2": "8 cpu=8"}, "1x1 cpu=7", "1x1 cpu=7", "1x4 cpu=4")
    assert told(stage) == [("team", "node-rules", 1, 4_000)]


def test_gangs_that_fit_nowhere_together_are_scattered_too() -> None:
    stage = stage_of({"n1": "8 rack=r1", "n2": "8 rack=r2"}, "2x3", "2x3 within=rack")
    assert told(stage) == []
    stage = stage_of({"n1": "8 rack=r1", "n2": "8 rack=r2"}, "1x5", "1x5", "2x3 within=rack")
    assert told(stage) == [("team", "scattered", 1, 6_000)]


def test_whom_no_waiting_helps_and_who_asks_for_more_than_is_idle_is_left_out() -> None:
    stage = stage_of(HALVES, "1x9", "2x8", "1x8")
    assert told(stage) == []


def test_no_more_is_told_than_was_idle_and_those_before_are_served_first() -> None:
    stage = stage_of(HALVES, "1x5", "1x5", "1x4 priority=5", "1x6 priority=1", "1x5")
    assert told(stage) == [("team", "scattered", 3, 4_000)], "each could have it, and one of them all at once"


@examples(40)
@given(st.lists(st.sampled_from(["1x5", "1x6", "2x3", "1x2 model=A100", "3x1 share=400", "1x4"]), max_size=8))
def test_what_is_told_is_never_more_than_is_idle(gangs: list[str]) -> None:
    stage = stage_of({"n1": "8", "n2": "6 model=A100", "n3": "7"}, *gangs)
    found = stage.engine.standings(stage.now_ms)
    assert sum(one.gpu_milli for one in found.unplaced) <= found.idle_milli
    counted = stage.engine.fragmentation()
    assert sum(one.gangs for one in found.unplaced) <= counted.pending_although_free
    assert found.idle_milli == 1_000 * counted.free_gpus + counted.shared_free_milli


def test_every_reason_to_wait_has_a_cause() -> None:
    waits = {reason for reason in Reason if reason.kind is Kind.NOT_NOW}
    others = {reason for reason in waits if reason not in CAUSES}
    assert set(CAUSES) <= waits
    assert others == {
        Reason.SUSPENDED, Reason.AWAITING_CYCLE, Reason.DEADLINE_BEHIND_DEMAND, Reason.BUDGET_NOT_RENEWED,
        Reason.QUEUE_MISPLACED, Reason.PARTITION_NOT_CUT, Reason.NODES_FILTERED,
        Reason.QUEUE_FULL, Reason.SUBMIT_RATE,
    }  # fmt: skip


def stood(at: int, *unplaced: tuple[str, str, int, int], idle: int = 8) -> Standings:
    return Standings(
        queues=(), waiting=(), resources=(), at_ms=at * HOUR, idle_milli=idle * 1_000,
        unplaced=tuple(Unplaced(queue=q, cause=c, reason="X", gangs=n, gpu_milli=g * 1_000) for q, c, n, g in unplaced),
    )  # fmt: skip


STORY = (
    Started(rules=Rules(), at_ms=0),
    stood(0, ("a", "scattered", 2, 6)),
    stood(1, ("a", "scattered", 1, 3), ("b", "reservation", 1, 5)),
    stood(3),
    Cut(at_ms=4 * HOUR),
)


def test_the_report(tmp_path: Path) -> None:
    engine = books(tmp_path, *STORY)
    found = unplaced(fairness.stood(engine))
    a, b = rows(found)
    assert a == {
        "queue": "a", "cause": "scattered", "reason": "X", "waited_gang_ms": 4 * HOUR,
        "unplaced_gpu_ms": (6 + 2 * 3) * HOUR, "idle_permille": 12 * 1_000 // 32,
    }  # fmt: skip
    assert (b["cause"], b["unplaced_gpu_ms"]) == ("reservation", 10 * HOUR)
    assert (found.facts["congested_ms"], found.facts["idle_gpu_ms"]) == (3 * HOUR, 32 * HOUR)
    assert found.facts["unplaced_gpu_ms"] == 22 * HOUR
    words = ["unplaced", "--database", str(engine.url)]
    assert json.loads(CliRunner().invoke(app, [*words, "-o", "json"]).stdout)["report"] == "unplaced"
    text = CliRunner().invoke(app, words).stdout
    assert "WAITED-GANG" in text
    assert "congested: 3.000" in text


def test_it_is_told_within_a_minute_that_it_begins_and_ends() -> None:
    rig = Rig("8", "8")

    async def story(stop: asyncio.Event) -> None:
        async def pass_by(ms: int) -> None:
            rig.now_ms += ms
            rig.loop.put()
            for _ in range(40):
                await asyncio.sleep(0.002)

        await pass_by(0)
        for name in ("a", "b"):
            rig.put(name, "1x5")
        await pass_by(1_000)
        rig.put("c", "1x6")
        await pass_by(CONGESTION_EVERY_MS)
        await pass_by(CONGESTION_EVERY_MS)
        stop.set()

    rig.play(story)
    said: list[Any] = [what for _, what in rig.log if isinstance(what, Standings)]
    assert [one.congestion for one in said] == [frozenset(), frozenset({("team", "NodesFiltered")})]
    assert said[1].at_ms - said[0].at_ms <= CONGESTION_EVERY_MS + 1_000
