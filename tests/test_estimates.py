"""What a job would take and cost is said before it is submitted: own time, what goes wrong on top, prices by tier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, node
from mig_grids import A100_80
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.cli import price as price_cli
from fairlead.clock import now_ms
from fairlead.errors import FairleadError, UnreadableInput
from fairlead.model.events import NodeSeen, StopIntended
from fairlead.model.reasons import Reason, refuse
from fairlead.service.bookkeeper import Bookkeeper

HOUR = 3_600_000
NOW = now_ms() // HOUR * HOUR
EUR = 10**9
H100 = "NVIDIA H100 80GB HBM3"
JOB = """
apiVersion: fairlead.dev/v1alpha1
kind: GangJob
metadata: {{name: train, namespace: ns}}
spec:
  queue: {queue}
  {more}
  roles:
  - name: worker
    replicas: 4
    devices: {{count: 2{model}}}
    template: {{spec: {{containers: [{{name: main, image: example}}]}}}}
"""
QUEUE = "{apiVersion: fairlead.dev/v1alpha1, kind: Queue, metadata: {name: a}}"
PRICES = priced(
    price("inQuota=2.50 borrowed=1"),
    price("inQuota=4", model=H100),
    price("inQuota=2", queue="lab"),
    at_ms=NOW - 20 * HOUR,
)


def text(queue: str = "vision", more: str = "duration: 3h", model: str = "") -> str:
    return JOB.format(queue=queue, more=more, model=f", model: {model}" if model else "")


@pytest.fixture
def books(tmp_path: Path) -> Bookkeeper:
    found = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    found.record([*NAMED, NodeSeen(node=node(), at_ms=NOW - 20 * HOUR), PRICES], NOW - 20 * HOUR)
    return found


def wasted(books: Bookkeeper) -> None:
    """Vision held two GPUs for ten hours; its last two were lost to somebody's gain."""
    begin = NOW - 15 * HOUR
    books.record([hold(begin, ("n1", (0, 1)))], begin)
    end = begin + 10 * HOUR
    stop = StopIntended(
        gang="g1", attempt=1, cause=refuse(Reason.PREEMPTED), requeue=True, by="g2", safe_ms=end - 2 * HOUR, at_ms=end
    )
    books.record([stop, release(end)], end)
    books.record([], NOW)
    assert books.trouble == ""


def asked(books: Bookkeeper, tmp_path: Path, said: str, *more: str) -> Any:
    file = tmp_path / "job.yaml"
    file.write_text(said, encoding="utf-8")
    return CliRunner().invoke(price_cli.app, ["estimate", str(file), "--database", books.url, *more])


def estimated(books: Bookkeeper, tmp_path: Path, said: str, *more: str) -> dict[str, Any]:
    done = asked(books, tmp_path, said, *more, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    (found,) = json.loads(done.stdout)["items"]
    return found


def refused(books: Bookkeeper, tmp_path: Path, said: str, *more: str) -> str:
    problem = asked(books, tmp_path, said, *more).exception
    assert isinstance(problem, FairleadError), problem
    assert isinstance(problem, UnreadableInput)
    return str(problem)


def test_own_time_and_the_price_of_every_model_and_tier(books, tmp_path):
    found = estimated(books, tmp_path, text())
    assert (found["job"], found["queue"], found["duration_from"]) == ("ns/train", "vision", "job")
    assert (found["duration_ms"], found["gpu_ms"]) == (3 * HOUR, 24 * HOUR)
    costs = {(cost["model"], cost["tier"]): cost["nanos"] for cost in found["costs"]}
    assert costs == {
        (A100_80, "in-quota"): 48 * EUR,  # the price of the queue above comes before that of everybody
        (H100, "in-quota"): 96 * EUR,
        (A100_80, "borrowed"): 24 * EUR,
        (H100, "borrowed"): None,
        (A100_80, "opportunistic"): 24 * EUR,  # which costs what is borrowed where it has no price of its own
        (H100, "opportunistic"): None,
    }
    totals = {one["tier"]: (one["lowest_nanos"], one["highest_nanos"]) for one in found["totals"]}
    assert totals["in-quota"] == (48 * EUR, 96 * EUR)
    assert totals["borrowed"] == (24 * EUR, 24 * EUR)


def test_a_job_pays_for_the_models_that_it_accepts(books, tmp_path):
    found = estimated(books, tmp_path, text(model="H100"))
    assert {cost["model"] for cost in found["costs"]} == {H100}
    assert [(one["tier"], one["lowest_nanos"]) for one in found["totals"]] == [("in-quota", 96 * EUR)]


def test_headroom_is_what_went_wrong_in_the_queue_lately(books, tmp_path):
    wasted(books)
    found = estimated(books, tmp_path, text())
    # Of 20 GPU-hours 4 were lost: for each that was not, a quarter on top.
    assert (found["headroom_permille"], found["headroom_from"]) == (250, "measured")
    assert found["gpu_ms_with_headroom"] == 30 * HOUR
    assert found["totals"][0]["lowest_nanos_with_headroom"] == 60 * EUR
    assert estimated(books, tmp_path, text(queue="speech"))["headroom_from"] == "none"


def test_headroom_may_be_given(books, tmp_path):
    wasted(books)
    found = estimated(books, tmp_path, text(), "--headroom", "10")
    assert (found["headroom_permille"], found["headroom_from"], found["gpu_ms_with_headroom"]) == (
        100, "given", 24 * HOUR * 11 // 10,
    )  # fmt: skip


def test_a_queue_in_which_all_was_lost_has_a_bound(books, tmp_path):
    begin = NOW - 5 * HOUR
    books.record([hold(begin, ("n1", (0,)))], begin)
    cause = refuse(Reason.MEMBER_FAILED, member="a", detail="x")
    stop = StopIntended(gang="g1", attempt=1, cause=cause, requeue=True, safe_ms=begin, at_ms=NOW - HOUR)
    books.record([stop, release(NOW - HOUR)], NOW)
    assert estimated(books, tmp_path, text())["headroom_permille"] == 10_000


def test_spare_work_is_priced_as_that(books, tmp_path):
    found = estimated(books, tmp_path, text(more="duration: 1h\n  serviceClass: opportunistic"))
    assert {cost["tier"] for cost in found["costs"]} == {"opportunistic"}


def test_how_long_it_runs_must_be_known(books, tmp_path):
    assert refused(books, tmp_path, text(more="suspend: false")) == (
        "GangJob ns/train: spec.duration: is not declared; declare it, or give --duration"
    )
    found = estimated(books, tmp_path, text(more="suspend: false"), "--duration", "90m")
    assert (found["duration_ms"], found["duration_from"], found["gpu_ms"]) == (90 * 60_000, "option", 12 * HOUR)
    assert "--duration" in refused(books, tmp_path, text(), "--duration", "soon")


def test_a_price_that_changes_while_it_runs_is_taken_in_parts(books, tmp_path):
    late = priced(price("inQuota=1", queue="speech", end=now_ms() + 2 * HOUR, model=H100), name="other", at_ms=NOW)
    books.record([late], NOW)
    found = estimated(books, tmp_path, text(queue="speech", model="H100"))
    cost = next(cost for cost in found["costs"] if cost["tier"] == "in-quota")
    assert abs(cost["nanos"] - 8 * (2 * 1 + 1 * 4) * EUR) < EUR // 10  # some seconds of difference


def test_it_reads_well(books, tmp_path):
    wasted(books)
    done = asked(books, tmp_path, text())
    lines = done.stdout.splitlines()
    assert lines[0] == "ns/train in vision: 24.000 GPU-h in 3h, as it declares"
    assert lines[1] == "with headroom: 30.000 GPU-h (25.0 % went wrong in this queue in the last 30 days)"
    assert lines[2].split() == ["TIER", "ROLE", "MODEL", "COST", "WITH-HEADROOM", "CURRENCY"]
    assert any(line.split()[:3] == ["in-quota", "all", "cheapest"] for line in lines)


def test_what_has_no_price_is_said(tmp_path):
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([*NAMED, NodeSeen(node=node(), at_ms=NOW - HOUR)], NOW)
    assert "no price book prices a model that it accepts" in asked(books, tmp_path, text()).stdout


def test_only_jobs_are_estimated(books, tmp_path):
    assert "holds no GangJob" in refused(
        books, tmp_path, "{apiVersion: fairlead.dev/v1alpha1, kind: Queue, metadata: {name: a}}"
    )
