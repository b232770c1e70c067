"""What the pages about checkpoints show works: the program's marker counts, the job and the pool are accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import yaml

from fairlead.clock import SteadyClock
from fairlead.model.gang import Gang, GangId, PodShape
from fairlead.model.saving_rules import GRACE_MAX_MS, RESTART_MAX_MS
from fairlead.simulation import gangjob_yaml
from fairlead_operator.custom_objects import GangJob, PoolObject
from fairlead_operator.decode import decode_gang
from fairlead_operator.decode_pools import decode_pool
from fairlead_operator.markers import Marker, read_marker
from fairlead_operator.saving_words import HEARTBEAT, MARKER, NOTICE

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "explanation" / "checkpoints.md").read_text(encoding="utf-8")
HOWTO = (DOCS / "how-to" / "checkpoints.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_program_answers_a_notice_with_a_marker_that_counts(tmp_path, monkeypatch):
    notice = tmp_path / "checkpoint-request"
    notice.write_text("1790000000000")
    monkeypatch.setenv("FAIRLEAD_NOTICE_FILE", str(notice))
    monkeypatch.setenv("FAIRLEAD_RESUME_STEP", "1200")
    shard = tmp_path / "shard-0"
    shard.write_bytes(b"weights")
    scope: dict = {}
    (program,) = blocks(PAGE, "python")
    exec(program, scope)
    marker = read_marker(scope["marker"](str(tmp_path), 1790000000500, [str(shard)]))
    assert isinstance(marker, Marker), marker
    assert (marker.state, marker.step, marker.answers, marker.manifest.bytes) == ("committed", "1200", 1790000000000, 7)
    notice.write_text("")
    assert scope["asked"]() == 0


def test_the_marker_of_the_page_is_whole():
    (text,) = blocks(PAGE, "json")
    assert isinstance(read_marker(json.dumps(json.loads(text))), Marker)


def test_the_job_and_the_pool_of_the_how_to_are_taken_by_both_readers():
    job, role, pool = (yaml.safe_load(text) for text in blocks(HOWTO, "yaml"))
    found = decode_gang(msgspec.json.decode(msgspec.json.encode(job), type=GangJob), {"worker": PodShape()})
    assert isinstance(found, Gang), found
    assert found.grace_ms == 300_000
    text = yaml.safe_dump_all([job, pool])
    (gang,) = gangjob_yaml.read(text, now_ms=0, new_id=lambda namespace, name: GangId(name)).gangs
    assert (gang.checkpoint, gang.retries, gang.heartbeat_ms) == (found.checkpoint, found.retries, found.heartbeat_ms)
    assert decode_pool(msgspec.convert(pool, PoolObject)).checkpoint_bytes_per_s == 20 << 30
    assert role["kind"] == "Role"


def test_the_pages_name_the_words_and_bounds_that_hold():
    for word in (NOTICE, MARKER, HEARTBEAT):
        assert word in PAGE
    assert GRACE_MAX_MS == RESTART_MAX_MS == 3_600_000
    assert "at most one hour" in PAGE


# --- the clock that every wait is kept by -----------------------------------------------------------------------------


class Machine:
    def __init__(self) -> None:
        self.wall, self.mono = 1_000_000, 0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.mono)

    def pass_ms(self, ms: int, tick: int = 100) -> int:
        """Let time pass in ticks and return how much of it the clock has seen."""
        before = self.clock()
        for _ in range(ms // tick):
            self.wall, self.mono = self.wall + tick, self.mono + tick
            now = self.clock()
            assert now >= before
        return now - before


def test_a_clock_that_steps_back_neither_lengthens_nor_cuts_a_wait_by_more_than_a_sixteenth():
    for step_ms in (-3_600_000, 3_600_000):
        machine = Machine()
        machine.wall += step_ms
        assert abs(machine.pass_ms(60_000) - 60_000) <= 60_000 // 16


def test_a_step_is_made_up_in_time_and_a_clock_that_is_right_stays_so():
    machine = Machine()
    machine.wall -= 10_000
    machine.pass_ms(200_000)
    assert abs(machine.clock() - machine.wall) <= 1
    assert abs(machine.pass_ms(60_000) - 60_000) <= 1
