"""What a new leader makes of attempts that were asked to save, and of what is known of their checkpoints."""

from __future__ import annotations

import pytest

from fairlead.model.events import NoticeIntended, Recovered, Remembered, StopIntended
from fairlead.model.reasons import Reason
from fairlead.model.retries import Failure

from .test_recover import NOW, Cluster

NOTICE = {
    "attempt": 1, "beginsAtMs": NOW - 10_000, "untilMs": NOW + 50_000, "reason": "Reclaimed",
    "details": {"gpus": 4}, "requeue": True, "by": "uid-boss",
}  # fmt: skip


def one(recovery, kind):
    (fact,) = [fact for fact in recovery.facts if isinstance(fact, kind)]
    return fact


def asked(**more) -> Cluster:
    return Cluster().job(phase="Stopping", notice=NOTICE | more).objects()


def test_an_attempt_that_was_asked_to_save_is_asked_again_and_keeps_its_time():
    recovery = asked().recover()
    fact = one(recovery, NoticeIntended)
    assert (fact.begins_ms, fact.until_ms, fact.by) == (NOW - 10_000, NOW + 50_000, "uid-boss")
    assert fact.cause.message.startswith("4 borrowed GPUs were reclaimed")
    assert [trip.gang for trip, _ in recovery.notices] == ["uid-a"]
    assert not recovery.stop


def test_the_notice_of_a_clock_that_was_ahead_gives_no_more_time_than_was_meant():
    fact = one(asked(beginsAtMs=NOW + 3_600_000, untilMs=NOW + 3_660_000).recover(), NoticeIntended)
    assert fact.until_ms <= NOW + 300_000 + 60_000


def test_an_attempt_whose_pods_are_being_deleted_to_save_goes_on_for_the_reason_it_was_told():
    cluster = asked()
    for pod in cluster.pods:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    recovery = cluster.recover()
    stop = one(recovery, StopIntended)
    assert (stop.cause.reason, stop.requeue) == (Reason.RECLAIMED, True)
    assert not recovery.notices
    assert len(recovery.stop) == 1


@pytest.mark.parametrize("spoiled", [{"attempt": 7}, None])
def test_a_stop_without_a_notice_of_its_own_is_gone_on_with(spoiled):
    cluster = Cluster().job(phase="Stopping", notice=spoiled and NOTICE | spoiled).objects()
    recovery = cluster.recover()
    assert not recovery.notices
    assert one(recovery, StopIntended).cause.reason is Reason.PLACE_CONFLICT


@pytest.mark.parametrize("spoiled", [{"reason": "FromTheFuture"}, {"details": {}}])
def test_a_notice_that_cannot_be_read_still_ends_the_attempt(spoiled):
    assert one(asked(**spoiled).recover(), NoticeIntended).cause.reason is Reason.PLACE_CONFLICT


def test_what_was_saved_and_how_it_failed_is_remembered():
    checkpoint = {"attempt": 1, "beganAtMs": NOW - 5_000, "step": "7", "members": {"worker": 2}}
    recovery = Cluster().job(checkpoint=checkpoint, failures={"hung": 2}).objects().recover()
    assert one(recovery, Recovered).saved_ms == NOW - 5_000
    past = one(recovery, Remembered)
    assert past.failures == ((Failure.HANG, 2),)
    assert past.saved is not None
    assert (past.saved.step, past.saved.members) == ("7", (("worker", 2),))


def test_a_checkpoint_of_an_earlier_attempt_saves_nothing_of_this_one():
    checkpoint = {"attempt": 1, "beganAtMs": NOW - 5_000, "step": "7"}
    recovery = Cluster().job(attempt=2, checkpoint=checkpoint).objects(attempt=2).recover()
    assert one(recovery, Recovered).saved_ms is None


def test_since_when_all_members_run_is_read_from_their_kubelets():
    cluster = Cluster().job().objects()
    assert one(cluster.recover(), Recovered).all_running_ms is None  # nobody says
    for second, pod in enumerate(cluster.pods):
        began = {"running": {"startedAt": f"2026-01-01T00:00:0{second}Z"}}
        pod["status"]["containerStatuses"] = [{"name": "main", "state": began}]
    assert one(cluster.recover(), Recovered).all_running_ms == 1_767_225_601_999
