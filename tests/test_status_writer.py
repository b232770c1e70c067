"""Statuses and the one part of them that recovery reads: an allocation is taken away only with the attempt it is of."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fairlead.clock import now_ms
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.service.metrics import Metrics
from fairlead.world.views import GangView
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.status_writer import StatusWriter

from .fake_kube import FakeKube, api_error

UID = GangId("gang-uid-1")
KEY = ("gangjobs", "team", "train")
MEMBERS = {"members": [{"node": "n1", "pods": ["worker-0=gpu-0"]}]}


def view(phase: Phase, attempt: int, idle_ms: int | None = None) -> GangView:
    return GangView(
        id=UID, namespace="team", name="train", queue="research", priority=0, gpus=1, members=1,
        phase=phase, attempt=attempt, idle_ms=idle_ms,
    )  # fmt: skip


class Statuses:
    """A GangJob on a server in memory; `seen` is what the watch has told of it, which may be behind."""

    def __init__(self, **status) -> None:
        self.api = FakeKube()
        meta = {"name": "train", "namespace": "team", "uid": str(UID)}
        self.api._store(KEY, {"metadata": meta, "spec": {"queue": "research", "roles": []}, "status": status})
        self.seen = msgspec.convert(self.api.objects[KEY], GangJob)
        self.writer = StatusWriter(self.api, lambda gang: self.seen, now_ms, Metrics(), writes_per_s=10_000)

    @property
    def status(self) -> dict:
        return self.api.objects[KEY]["status"]

    def say(self, *views: GangView) -> None:
        async def go():
            for one in views:
                self.writer.put([one])
                await self.writer.flush(5)

        asyncio.run(go())

    def place(self, attempt: int) -> None:
        """What placing does: tell the writer, then write status itself."""
        self.writer.placing(UID, attempt)
        self.status.update(phase="Placing", attempt=attempt, allocation={"attempt": attempt, **MEMBERS})

    def events(self, reason: str) -> list[dict]:
        found = [body for (kind, _, _), body in self.api.objects.items() if kind == "events"]
        return [body for body in found if body["reason"] == reason]

    def patches(self) -> int:
        return sum(1 for method, path in self.api.log if method == "PATCH" and path.endswith("train/status"))


def test_an_attempt_that_is_over_leaves_no_allocation_in_the_status():
    world = Statuses()
    world.place(1)
    world.say(view(Phase.PENDING, 1))
    assert "allocation" not in world.status
    assert world.status["phase"] == "Pending"


def test_the_allocation_that_an_earlier_leader_wrote_goes_with_its_attempt():
    world = Statuses(phase="Stopping", attempt=3, allocation={"attempt": 3, **MEMBERS})
    world.say(view(Phase.FAILED, 3))
    assert "allocation" not in world.status


@pytest.mark.parametrize("phase", [Phase.PLACING, Phase.STARTING, Phase.RUNNING, Phase.STOPPING])
def test_who_may_still_hold_devices_keeps_the_allocation(phase):
    world = Statuses()
    world.place(1)
    world.say(view(phase, 1))
    assert world.status["allocation"]["attempt"] == 1


def test_a_status_of_the_attempt_before_that_comes_late_takes_nothing_from_the_next():
    """The server is slow: the patch was sent before the next attempt was placed and is taken in after that."""
    world = Statuses(phase="Stopping", attempt=1, allocation={"attempt": 1, **MEMBERS})
    fresh = True

    def slow(method, path, body):
        nonlocal fresh
        if fresh and method == "PATCH":
            fresh = False
            world.place(2)

    world.api.fault = slow
    world.say(view(Phase.PENDING, 1))
    assert world.status["allocation"]["attempt"] == 2
    world.say(view(Phase.STARTING, 2))
    assert (world.status["phase"], world.status["attempt"], world.status["allocation"]["attempt"]) == ("Starting", 2, 2)


def test_an_older_view_that_is_still_to_be_written_is_forgotten_when_the_next_attempt_is_placed():
    world = Statuses(phase="Stopping", attempt=1)
    world.writer.put([view(Phase.PENDING, 1)])
    world.place(2)
    assert len(world.writer) == 0


def test_the_phase_is_not_written_before_the_allocation_is_gone():
    """Who reads a phase that holds nothing must find no allocation beside it; the write is taken up again whole."""
    world = Statuses()
    world.place(1)
    world.api.fault = lambda method, path, body: api_error(403, "Forbidden") if isinstance(body, list) else None
    world.say(view(Phase.PENDING, 1))
    assert (world.status["phase"], world.status["allocation"]["attempt"]) == ("Placing", 1)
    world.api.fault = lambda method, path, body: None
    world.say(view(Phase.PENDING, 1))
    assert world.status["phase"] == "Pending"
    assert "allocation" not in world.status


def test_it_is_taken_away_once_and_not_with_every_status_of_who_waits():
    world = Statuses()
    world.place(1)
    world.say(view(Phase.PENDING, 1), view(Phase.SUSPENDED, 1), view(Phase.PENDING, 1))
    assert world.patches() == 1 + 3


def test_the_owner_of_an_idle_job_is_told_once_and_again_when_it_works():
    world = Statuses(phase="Running", attempt=1)
    world.say(view(Phase.RUNNING, 1, 1_800_000_000_000), view(Phase.RUNNING, 1, 1_800_000_000_000))

    def idle() -> dict:
        return next(one for one in world.status["conditions"] if one["type"] == "Idle")

    assert (idle()["status"], idle()["reason"]) == ("True", "AllDevicesIdle")
    assert "all its devices are idle since 2027-01-15T08:00:00Z" in idle()["message"]
    assert [event["note"] for event in world.events("AllDevicesIdle")] == [idle()["message"]]
    world.say(view(Phase.RUNNING, 1))
    assert (idle()["status"], idle()["reason"], idle()["message"]) == ("False", "InUse", "")
    assert len(world.events("AllDevicesIdle")) == 1
    world.say(view(Phase.RUNNING, 1, 1_800_000_060_000))
    assert len(world.events("AllDevicesIdle")) == 2


def test_a_job_that_was_never_idle_has_no_such_condition():
    world = Statuses()
    world.say(view(Phase.RUNNING, 1))
    assert [one["type"] for one in world.status["conditions"]] == ["Accepted", "Placed", "Running", "Finished"]
