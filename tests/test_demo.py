"""The demo tells its story in time, the story is true, and its books balance."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from fairlead.cli.demo import demo
from fairlead.ledger.audit import Audit, Finding
from fairlead.model.ranges import unfold
from fairlead.simulation import fleet_books

FAIRLEAD = str(Path(sys.executable).parent / "fairlead")


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    done = subprocess.run([FAIRLEAD, "demo", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_story_for_people_ends_well_and_in_time():
    began = time.monotonic()
    done = subprocess.run([FAIRLEAD, "demo"], capture_output=True, text=True, timeout=120)
    assert time.monotonic() - began < 60
    assert done.returncode == 0, done.stderr
    for part in ("GangJob", "slowest link 450.0 GB/s", "NoDomainFits", "is stopped; it ran again at", "restarts whole"):
        assert part in done.stdout
    assert "\nbooks balance: " in done.stdout
    assert "Traceback" not in done.stderr


def test_every_gang_of_the_story_comes_to_its_end(data: dict[str, Any]):
    assert set(data["phases"].values()) == {"Succeeded"}
    assert {job["kind"] for job in data["jobs"]} == {"GangJob"}
    assert len(data["jobs"]) == 8


def test_placements_name_exact_devices_inside_what_was_asked_for(data: dict[str, Any]):
    asked = {f"{job['namespace']}/{job['name']}": job for job in data["jobs"]}
    for placed in data["placements"]:
        job = asked[placed["gang"]]
        devices = [(on["node"], d) for on in placed["nodes"] for pods in on["pods"].values() for d in unfold(pods)]
        assert len(set(devices)) == len(devices) == job["gpus"]
        assert placed["pace_bytes_per_s"] > 0
        racks = {on["node"].rsplit("-", 1)[0] for on in placed["nodes"]}
        assert job["within"] != "rack" or len(racks) == 1
    assert {placed["gang"] for placed in data["placements"]} == set(asked)


def test_one_job_waits_with_its_reason_and_the_word_unknown(data: dict[str, Any]):
    waiting = data["waiting"]
    assert (waiting["phase"], waiting["reason"], waiting["position"]) == ("Pending", "NoDomainFits", 1)
    assert "no rack has room for 4 members" in waiting["message"]
    assert waiting["start"]["basis"] == "unknown"


def test_the_reclaim_takes_borrowers_only_and_they_run_again(data: dict[str, Any]):
    reclaim = data["reclaim"]
    assert reclaim["for"] == "vision/segmenter"
    assert reclaim["victims"]
    for victim in reclaim["victims"]:
        assert victim["gang"].startswith("research/")
        assert victim["tier"] == "borrowed"
        assert victim["ran_again_ms"] > reclaim["placed_ms"]
    assert reclaim["asked_ms"] < reclaim["last_released_ms"] <= reclaim["placed_ms"]
    assert 0 < reclaim["freed_gpus"] <= reclaim["gpus"]


def test_the_gang_of_the_dead_node_restarts_elsewhere_soon(data: dict[str, Any]):
    failure = data["node_failure"]
    assert failure["node"] in failure["nodes_before"]
    assert failure["node"] not in failure["nodes_after"]
    assert failure["attempt_after"] == failure["attempt_before"] + 1
    assert failure["restarted_ms"] - failure["failed_ms"] < 60_000


def test_usage_and_fleet_time_come_from_books_that_balance(data: dict[str, Any]):
    usage = {line["tenant"]: line for line in data["usage"]}
    assert set(usage) == {"research", "vision"}
    assert all(line["gpu_ms"] == line["in_quota_gpu_ms"] + line["borrowed_gpu_ms"] for line in usage.values())
    (fleet,) = data["fleet_time"]
    assert fleet["held_gpu_ms"] == sum(line["gpu_ms"] for line in usage.values())
    states = ("held_gpu_ms", "reserved_idle_gpu_ms", "free_gpu_ms", "stranded_gpu_ms", "down_gpu_ms")
    assert fleet["capacity_gpu_ms"] == sum(fleet[state] for state in states)
    assert fleet["down_gpu_ms"] == 8 * 30 * 60_000  # eight GPUs for half an hour
    assert data["books"]["balance"] is True
    assert data["books"]["findings"] == []


def test_books_that_do_not_verify_end_with_code_7(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    wrong = Audit(records=1, entries=1, devices=1)
    wrong.add(Finding(entry=17, field="ticks", message="one byte was changed"))
    monkeypatch.setattr(fleet_books, "verify", lambda *_: wrong)
    with pytest.raises(Exit) as ended:
        demo(fleet="dgx-a100", json=False)
    assert ended.value.exit_code == 7
    assert "BOOKS DO NOT BALANCE: entry 17: ticks: one byte was changed" in capsys.readouterr().out
