"""What programs say by annotations and last words: what is a checkpoint, what is none, and what floods nobody."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from fairlead.model.events import CheckpointCommitted, LifeSign
from fairlead.model.gang import GangId
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.markers import MarkerFacts, read_marker
from fairlead_operator.objects import Pod

GANG = GangId("uid-a")
DIGEST = "sha256:" + 64 * "a"


def marker(**more):
    whole = {"shards": 2, "bytes": 100, "digest": DIGEST}
    return json.dumps({"state": "committed", "step": "7", "began": 1_000, "manifest": whole} | more)


class Heard:
    """Facts of one gang; the clock stands until it is moved."""

    def __init__(self, timeout_ms=None) -> None:
        self.facts: list = []
        self.now_ms = 1_000_000
        self.markers = MarkerFacts(self.facts.append, lambda: self.now_ms, lambda gang: timeout_ms)

    def pod(self, rank=0, gone=False, words="", **notes):
        status = {"phase": "Running"}
        if words:
            status["containerStatuses"] = [{"name": "main", "state": {"terminated": {"exitCode": 0, "message": words}}}]
        names = {f"fairlead.dev/{name}": text for name, text in notes.items()}
        pod = msgspec.convert({"metadata": {"name": "a", "annotations": names}, "status": status}, Pod)
        self.markers.pod((GANG, 1, rank), pod, gone=gone)


def test_a_whole_manifest_that_is_committed_is_a_checkpoint_and_is_told_once():
    heard = Heard()
    for _ in range(2):
        heard.pod(checkpoint=marker(answers=5, path="s3://x", format="dcp-2", code="v1.4"))
    assert heard.facts == [
        CheckpointCommitted(
            gang=GANG,
            attempt=1,
            at_ms=1_000_000,
            began_ms=1_000,
            step="7",
            notice_ms=5,
            path="s3://x",
            digest=DIGEST,
            format="dcp-2",
            code="v1.4",
        )
    ]


@pytest.mark.parametrize("state", ["writing", "local"])
def test_what_is_still_being_written_or_uploaded_is_no_checkpoint_yet(state):
    heard = Heard()
    heard.pod(checkpoint=marker(state=state))
    assert heard.facts == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("x" * 5_000, "longer than 4096"),
        (marker(state="done"), "state 'done' is not one of"),
        (marker(step=""), "step is missing"),
        (marker(manifest={}), "the manifest is not whole"),
        (marker(manifest={"shards": 2, "bytes": 0, "digest": DIGEST}), "the manifest is not whole"),
        (marker(manifest={"shards": 2, "bytes": 9, "digest": "md5:1"}), "the manifest is not whole"),
        (marker(format="x" * 129), "format is longer than 128"),
        (marker(code="x" * 129), "code is longer than 128"),
        (marker(began=0), "began is missing"),
        (marker(began="yesterday"), "began is missing"),
        (marker(began=-5), "began is missing"),
        (marker(began=1 << 60), "began is missing"),
        (marker(attempt=2), "is of attempt 2"),
    ],
)
def test_a_marker_that_cannot_be_read_is_a_problem_and_no_checkpoint(text, words):
    heard = Heard()
    heard.pod(checkpoint=text)
    (fact,) = heard.facts
    assert isinstance(fact, LifeSign)
    assert words in fact.problem


def test_times_may_be_written_as_people_write_them():
    found = read_marker(marker(began="2026-01-31T12:00:00Z"))
    assert not isinstance(found, str), found


def test_only_rank_0_speaks_of_checkpoints_and_its_last_words_count_too():
    heard = Heard()
    heard.pod(rank=1, checkpoint=marker())
    assert heard.facts == []
    heard.pod(words="saving\n" + marker(step="8"))
    assert [fact.step for fact in heard.facts] == ["8"]
    heard.pod(words="Traceback: {something}")
    assert len(heard.facts) == 1


def test_markers_of_the_gangjob_are_of_the_attempt_that_it_names():
    heard = Heard()
    for attempt, said in ((1, {}), (2, {"attempt": 1}), (2, {"attempt": 2})):
        job = {
            "metadata": {"name": "a", "uid": "uid-a", "annotations": {"fairlead.dev/checkpoint": marker(**said)}},
            "spec": {"queue": "q", "roles": []},
            "status": {"attempt": attempt},
        }
        heard.markers.job(msgspec.convert(job, GangJob))
    assert [(fact.attempt, type(fact).__name__) for fact in heard.facts] == [
        (1, "CheckpointCommitted"),
        (2, "CheckpointCommitted"),
    ]


def test_a_marker_that_changes_all_the_time_is_told_once_a_second_the_newest_last(monkeypatch):
    monkeypatch.setattr("fairlead_operator.markers.GAP_S", 0.05)

    async def flood():
        heard = Heard()
        for step in range(50):
            heard.pod(checkpoint=marker(step=step))
        assert [fact.step for fact in heard.facts] == ["0"]
        await asyncio.sleep(0.1)
        assert [fact.step for fact in heard.facts] == ["0", "49"]
        heard.markers.close()

    asyncio.run(flood())


def test_a_heartbeat_is_told_when_it_moves_and_at_most_ten_times_a_timeout():
    async def beat():
        heard = Heard(timeout_ms=1_000)
        for text in ("1", "1", "2", "3"):
            heard.pod(rank=1, heartbeat=text)
            heard.now_ms += 10
        assert [fact.at_ms for fact in heard.facts] == [1_000_000]
        await asyncio.sleep(0.15)
        assert [fact.at_ms for fact in heard.facts] == [1_000_000, 1_000_030]  # when it moved last, not first
        heard.pod(rank=1, heartbeat="3")
        assert len(heard.facts) == 2

    asyncio.run(beat())


def test_nobody_listens_to_a_heart_that_was_not_asked_to_beat():
    heard = Heard()
    heard.pod(heartbeat="1")
    assert heard.facts == []


def test_nothing_is_told_of_a_pod_that_is_gone():
    async def go():
        heard = Heard(timeout_ms=1_000)
        heard.pod(heartbeat="1")
        heard.pod(heartbeat="2")
        heard.pod(heartbeat="2", gone=True)
        await asyncio.sleep(0.15)
        assert len(heard.facts) == 1

    asyncio.run(go())
