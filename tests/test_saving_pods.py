"""What pods get to save by, what a status says of it, and when a finished GangJob goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import builders
import msgspec
import pytest
from builders import Stage

from fairlead.model.checkpoints import Measured, Saved
from fairlead.model.events import LifeSign
from fairlead.model.gang import Checkpoint, GangId, Member, Placement, Tier
from fairlead.service.metrics import Metrics
from fairlead.service.saving_views import least_interval_ms, recommended_ms
from fairlead.world.views import CheckpointView
from fairlead_operator import pods
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.expiry import delete_expired, expired
from fairlead_operator.saving_pods import saving_environment
from fairlead_operator.saving_status import checkpoint_status, failures_of, saved_of

from .fake_kube import FakeKube

MINUTE = 60_000
SAVED = Saved(
    attempt=1, began_ms=5, step="7", path="s3://x/7", digest="sha256:a", members=(("worker", 4),),
    format="dcp-2", code="v1.4",
)  # fmt: skip


def made(checkpoint, *, grace_ms=90_500, resume=None, **spec):
    template = {"spec": {"containers": [{"name": "main", "image": "x"}, {"name": "side", "image": "y"}], **spec}}
    sheet = pods.JobSheet(
        uid="u", namespace="team", name="a", queue="q", templates={"worker": template},
        checkpoint=checkpoint, grace_ms=grace_ms, resume=resume,
    )  # fmt: skip
    member = Member(role="worker", index=0, rank=0, node="n1")
    attempt = pods.Attempt(number=2, placement=Placement(members=(member,)), tier=Tier.IN_QUOTA, placed_at_ms=0)
    return pods.pod_manifest(sheet, member, attempt)["spec"]


def environment(spec):
    return {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}


def test_a_program_that_watches_a_file_gets_the_file_and_its_name():
    spec = made(Checkpoint(watches=True, path="s3://x"))
    (volume,) = spec["volumes"]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['fairlead.dev/checkpoint-request']"
    assert [c["volumeMounts"][0]["mountPath"] for c in spec["containers"]] == ["/etc/fairlead"] * 2
    assert environment(spec)["FAIRLEAD_NOTICE_FILE"] == "/etc/fairlead/checkpoint-request"
    assert "terminationGracePeriodSeconds" not in spec


@pytest.mark.parametrize(
    ("checkpoint", "command"),
    [
        (Checkpoint(command=("save", "now")), ["save", "now"]),
        (Checkpoint(signal="SIGUSR1"), ["/bin/sh", "-c", "kill -s USR1 1 && sleep 91"]),
        (Checkpoint(signal="SIGTERM"), None),
    ],
)
def test_a_program_that_is_told_by_the_end_of_its_pods_has_its_whole_grace_for_it(checkpoint, command):
    spec = made(checkpoint)
    assert spec["terminationGracePeriodSeconds"] == 91
    hooks = [container.get("lifecycle", {}).get("preStop") for container in spec["containers"]]
    assert hooks == [command and {"exec": {"command": command}}] * 2


def test_what_a_template_says_itself_stays():
    own = {"preStop": {"exec": {"command": ["mine"]}}}
    spec = made(
        Checkpoint(command=("save",)),
        terminationGracePeriodSeconds=600,
        containers=[{"name": "main", "image": "x", "lifecycle": own}],
    )
    assert spec["terminationGracePeriodSeconds"] == 600
    assert spec["containers"][0]["lifecycle"] == own


def test_an_attempt_is_told_where_the_last_one_left_off_and_by_how_many_that_was_written():
    found = environment(made(Checkpoint(path="s3://x"), resume=SAVED))
    assert found["FAIRLEAD_CHECKPOINT_PATH"] == "s3://x/7"
    assert (found["FAIRLEAD_RESUME_STEP"], found["FAIRLEAD_RESUME_SIZE"]) == ("7", "4")
    assert found["FAIRLEAD_RESUME_DIGEST"] == "sha256:a"
    assert (found["FAIRLEAD_RESUME_FORMAT"], found["FAIRLEAD_RESUME_CODE"]) == ("dcp-2", "v1.4")
    first = environment(made(Checkpoint(path="s3://x")))
    assert first["FAIRLEAD_CHECKPOINT_PATH"] == "s3://x"
    assert not [name for name in first if "RESUME" in name]


def test_gangs_with_the_same_interval_are_told_to_save_at_different_times():
    offsets = set()
    for name in "abcdefgh":
        found = saving_environment(Checkpoint(interval_ms=MINUTE), None, name)
        offset = int(found["FAIRLEAD_CHECKPOINT_OFFSET_MS"])
        assert 0 <= offset < MINUTE
        offsets.add(offset)
    assert len(offsets) == 8
    assert saving_environment(Checkpoint(interval_ms=MINUTE), None, "h") == found, "every attempt has the same"
    assert "FAIRLEAD_CHECKPOINT_OFFSET_MS" not in saving_environment(Checkpoint(), None, "h")


def test_a_gang_without_checkpoints_gets_none_of_it():
    spec = made(None)
    assert "volumes" not in spec
    assert not [name for name in environment(spec) if "CHECKPOINT" in name or "NOTICE" in name]


def job(ttl="1h", phase="Succeeded", ended_ms=0, **status):
    return {
        "metadata": {"name": "a", "namespace": "team", "uid": "u"},
        "spec": {"queue": "q", "roles": [], "ttl": ttl},
        "status": {"phase": phase, "finishedAtMs": ended_ms, **status},
    }


@pytest.mark.parametrize(
    ("spoiled", "goes"),
    [
        ({}, True),
        ({"ttl": ""}, False),
        ({"phase": "Running"}, False),
        ({"phase": "Failed"}, True),
        ({"ended_ms": 1}, False),
        ({"ended_ms": None}, False),
        ({"ttl": "0s", "ended_ms": 60 * MINUTE}, True),
        ({"allocation": {"attempt": 1}}, False),
    ],
)
def test_a_finished_gangjob_goes_when_its_time_is_over_and_it_holds_nothing(spoiled, goes):
    found = msgspec.convert(job(**spoiled), GangJob)
    assert bool(expired([found], 60 * MINUTE)) is goes


def test_a_gangjob_that_was_made_anew_under_the_same_name_is_not_deleted():
    api = FakeKube()
    api._store(("gangjobs", "team", "a"), job() | {"metadata": {"name": "a", "namespace": "team", "uid": "another"}})
    old = msgspec.convert(job(), GangJob)
    assert asyncio.run(delete_expired(api, [old], 60 * MINUTE, at_most=9)) == 0
    assert ("gangjobs", "team", "a") in api.objects
    same = replace_uid(old, "another")
    assert asyncio.run(delete_expired(api, [same], 60 * MINUTE, at_most=9)) == 1


def replace_uid(found, uid):
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, uid=uid))


def test_what_a_status_says_of_the_last_checkpoint_is_read_back():
    view = CheckpointView(saved=SAVED, measured=Measured(save_ms=3), false_claims=2, problem="it lies")
    written = job(checkpoint=checkpoint_status(view), failures={"hung": 2, "unheard-of": 1})
    status = msgspec.convert(written, GangJob).status
    assert saved_of(status) == SAVED
    assert [(failure.value, count) for failure, count in failures_of(status)] == [("hung", 2)]
    empty = {k: v for k, v in checkpoint_status(replace(view, saved=None)).items() if v is not None}  # a merge patch
    assert saved_of(msgspec.convert(job(checkpoint=empty), GangJob).status) is None


# --- how often to save ------------------------------------------------------------------------------------------------


def test_the_recommended_interval_is_youngs_with_dalys_correction():
    hour = 60 * MINUTE
    assert recommended_ms(MINUTE, 24 * hour) == 3_159_937  # sqrt(2 * 1 min * 1 day) - 1 min
    assert recommended_ms(MINUTE, 4 * 24 * hour) > 2 * recommended_ms(MINUTE, 24 * hour)


def test_saving_that_costs_more_than_half_the_time_between_failures_is_done_once_between_them():
    assert recommended_ms(10 * MINUTE, 15 * MINUTE) == 15 * MINUTE


def test_nothing_is_recommended_before_anything_is_known():
    assert recommended_ms(0, 60 * MINUTE) == 0


def test_storage_bounds_how_often_a_gang_may_save():
    assert least_interval_ms(MINUTE, 100 << 30, 1 << 30) == 1_000_000  # 100 s of all it takes, in a tenth of the time
    assert recommended_ms(MINUTE, 60 * MINUTE, 1_000_000) == 1_000_000
    assert least_interval_ms(MINUTE, 100 << 30, None) == MINUTE


def test_those_that_are_asked_and_those_that_lie_are_counted():
    metrics = Metrics()
    stage = Stage([builders.node("n1", "8")], [builders.queue("team")])
    stage.submit("a", "1x8 saves=file")
    stage.settle()
    stage.run("a")
    stage.now_ms += 10 * MINUTE
    stage.take(LifeSign(gang=GangId("a"), attempt=1, at_ms=stage.now_ms, problem="it cannot be read"))
    metrics.observe_gangs(stage.engine.gang_views(stage.now_ms))
    assert metrics.registry.get_sample_value("fairlead_gangs_asked_to_save") == 0
    stage.change("a", suspended=True)
    stage.settle()
    metrics.observe_gangs(stage.engine.gang_views(stage.now_ms))
    assert metrics.registry.get_sample_value("fairlead_gangs_asked_to_save") == 1
    assert metrics.registry.get_sample_value("fairlead_false_checkpoint_claims") == 1
