"""Elastic gangs against an API server in memory: members that leave, members that join, and what is on record first."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.clock import now_ms
from fairlead.errors import Unreachable
from fairlead.model.effects import Grow, Phase, Shrink
from fairlead.model.events import GrowFailed, MemberReleased, StopRefused
from fairlead.model.gang import Placement, Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.world.views import GangView
from fairlead_operator.statuses import conditions, gang_status

from .fake_kube import api_error
from .kube_world import UID, World, fail_on, members, perform, place, stop


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def shrink(*ranks, by="other"):
    reason = Reason.PREEMPTED if by else Reason.MEMBER_FAILED
    return Shrink(gang=UID, attempt=1, ranks=ranks, cause=refuse(reason, member="worker-3", detail=""), by=by)


def grow(count=4, joining=1, seconds=30):
    return Grow(
        gang=UID,
        attempt=1,
        placement=Placement(members=members(count), level="rack", domain="r1"),
        joining=joining,
        tier=Tier.BORROWED,
        deadline_ms=now_ms() + seconds * 1000,
    )


def allocation(world):
    return world.api.of("gangjobs")["train"]["status"]["allocation"]


def going(world, plural="pods"):
    return sorted(n for n, found in world.api.of(plural).items() if found["metadata"].get("deletionTimestamp"))


def first(world, plural, wanted):
    """At which change an object of a kind first was as wanted."""
    return next(at for at, (kind, _, new) in enumerate(world.history) if kind == plural and wanted(new))


# --- members leave --------------------------------------------------------------------------------------------------


def test_members_that_leave_are_on_record_before_their_pods_go_and_the_others_stay(world):
    _, released = perform(world, place(), shrink(1, 2))
    assert released == []
    assert going(world) == ["train-worker-1-1", "train-worker-2-1"]
    assert going(world, "resourceclaims") == ["train-worker-1-1-gpus", "train-worker-2-1-gpus"]
    assert allocation(world)["left"] == [1, 2]
    written = first(world, "gangjobs", lambda job: job["status"].get("allocation", {}).get("left") == [1, 2])
    deleted = first(world, "pods", lambda pod: pod["metadata"].get("deletionTimestamp"))
    assert written < deleted


def test_what_a_member_held_is_told_as_free_once_its_pod_has_ended(world):
    async def ended():
        world.api.kubelet_is_done("train-worker-2-1")
        async with asyncio.timeout(5):
            while not world.reported:
                await asyncio.sleep(0.01)
        assert [(type(f), f.rank) for f in world.reported] == [(MemberReleased, 2)]

    perform(world, place(), shrink(2), then=ended)
    assert going(world) in ([], ["train-worker-2-1"])


def test_the_budgets_of_those_who_leave_are_asked_and_nobody_elses(world):
    world.api.fault = lambda method, path, body: (
        api_error(429, "TooManyRequests") if path.endswith("train-worker-2-1/eviction") else None
    )
    assert perform(world, place(), shrink(1))[1] == []
    asked = [path for _, path in world.api.log if path.endswith("/eviction")]
    assert [path.split("/")[-2] for path in asked] == ["train-worker-1-1"]


def test_a_budget_that_says_no_keeps_all_of_them(world):
    world.api.fault = lambda method, path, body: (
        api_error(429, "TooManyRequests") if path.endswith("train-worker-2-1/eviction") else None
    )
    _, (fact,) = perform(world, place(), shrink(1, 2))
    assert isinstance(fact, StopRefused)
    assert fact.cause.reason is Reason.BUDGET_REFUSES
    assert going(world) == []
    assert allocation(world)["left"] == []


def test_no_budget_is_asked_of_members_that_go_for_nobody(world):
    world.api.fault = lambda method, path, body: api_error(429, "TooManyRequests") if "eviction" in path else None
    assert perform(world, place(), shrink(2, by=""))[1] == []
    assert going(world) == ["train-worker-2-1"]


def test_a_shrink_goes_on_until_the_server_has_let_us(world):
    world.api.fault = fail_on("PATCH", "gangjobs", api_error(500, "InternalError"), times=0)

    async def later():
        world.api.fault = fail_on("PATCH", "gangjobs", Unreachable("away"), times=4)
        await world.cluster.perform(shrink(2))
        assert allocation(world)["left"] == [2]
        assert going(world) == ["train-worker-2-1"]

    perform(world, place(), then=later)


def test_a_shrink_of_an_attempt_that_nobody_knows_does_nothing(world):
    assert perform(world, shrink(2)) == [()]


def test_a_new_leader_goes_on_with_a_shrink(world):
    async def later():
        trip = world.cluster._trips[UID, 1]
        trip.left = {1}
        await world.cluster.resume_shrink(trip)
        assert going(world) == ["train-worker-1-1"]
        world.api.kubelet_is_done("train-worker-1-1")
        async with asyncio.timeout(5):
            while not world.reported:
                await asyncio.sleep(0.01)
        assert [(fact.attempt, fact.rank) for fact in world.reported] == [(1, 1)]
        assert allocation(world)["left"] == [1]
        assert going(world, "resourceclaims") == ["train-worker-1-1-gpus"]

    perform(world, place(), then=later)


# --- members join ---------------------------------------------------------------------------------------------------


def environment(world, pod):
    containers = world.api.of("pods")[pod]["spec"]["containers"]
    return {entry["name"]: entry.get("value") for entry in containers[0]["env"]}


def test_members_join_bound_with_their_devices_and_the_others_are_not_touched(world):
    async def later():
        before = {name: pod["metadata"]["resourceVersion"] for name, pod in world.api.of("pods").items()}
        assert await world.cluster.perform(grow()) == ()
        after = world.api.of("pods")
        assert {name: after[name]["metadata"]["resourceVersion"] for name in before} == before
        assert world.bound() == [f"train-worker-{i}-1" for i in range(4)]
        claim = world.api.of("resourceclaims")["train-worker-3-1-gpus"]
        results = claim["status"]["allocation"]["devices"]["results"]
        assert [(r["pool"], r["device"]) for r in results] == [("pool-n3", "gpu-0"), ("pool-n3", "gpu-1")]
        env = environment(world, "train-worker-3-1")
        assert (env["RANK"], env["WORLD_SIZE"]) == ("3", "4")
        assert env["MASTER_ADDR"].startswith("train-worker-0.")

    perform(world, place(), then=later)


def test_who_joins_is_on_record_as_no_part_of_the_gang_until_it_is_bound(world):
    perform(world, place(), grow())
    assert allocation(world)["left"] == []
    assert [node["node"] for node in allocation(world)["members"]] == ["n0", "n1", "n2", "n3"]
    written = first(world, "gangjobs", lambda job: job["status"].get("allocation", {}).get("left") == [3])
    made = first(world, "pods", lambda pod: pod["metadata"]["name"] == "train-worker-3-1")
    bound = first(world, "pods", lambda pod: pod["spec"].get("nodeName") == "n3")
    lefts = [new["status"].get("allocation", {}).get("left") for kind, _, new in world.history if kind == "gangjobs"]
    cleared = max(at for at, (kind, _, _) in enumerate(world.history) if kind == "gangjobs")
    assert written < made < bound < cleared
    assert lefts[-1] == []


def test_sizes_count_who_is_there_and_not_who_has_left(world):
    perform(world, place(), shrink(2), grow())
    assert environment(world, "train-worker-3-1")["WORLD_SIZE"] == "3"
    assert allocation(world)["left"] == [2]


def test_members_that_cannot_all_be_bound_are_taken_back_and_the_gang_goes_on(world):
    world.api.fault = lambda method, path, body: (
        api_error(403, "Forbidden") if "train-worker-3-1/binding" in path else None
    )
    _, (fact,) = perform(world, place(count=2), grow(4, joining=2))
    assert isinstance(fact, GrowFailed)
    assert fact.ranks == (2, 3)
    assert fact.cause.reason is Reason.PLACE_CONFLICT
    assert 3 in fact.released
    alive = [n for n, pod in world.api.of("pods").items() if not pod["metadata"].get("deletionTimestamp")]
    assert alive == ["train-worker-0-1", "train-worker-1-1"]
    assert allocation(world)["left"] == [2, 3]


def test_a_growth_whose_turn_comes_too_late_writes_nothing(world):
    _, (fact,) = perform(world, place(), grow(seconds=-1))
    assert fact.ranks == fact.released == (3,)
    assert len(world.api.of("pods")) == 3
    assert allocation(world)["left"] == []


def test_a_growth_of_an_attempt_that_is_not_as_it_was_fails(world):
    _, (fact,) = perform(world, place(), grow(count=4, joining=2))
    assert isinstance(fact, GrowFailed)
    assert (fact.ranks, fact.released) == ((2, 3), (2, 3))
    assert len(world.api.of("pods")) == 3


def test_a_stop_turns_those_back_who_are_on_their_way(world):
    async def later():
        growing = asyncio.create_task(world.cluster.perform(grow()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await world.cluster.perform(stop())
        (fact,) = await growing
        assert isinstance(fact, GrowFailed)
        assert "its gang is to stop: Deleted" in fact.cause.message
        assert all(pod["metadata"].get("deletionTimestamp") for pod in world.api.of("pods").values())

    perform(world, place(), then=later)


def test_who_has_joined_can_leave_and_is_let_go(world):
    async def later():
        world.api.kubelet_is_done("train-worker-3-1")
        await world.cluster.booked([(UID, 1, 3)])
        async with asyncio.timeout(5):
            while "train-worker-3-1" in world.api.of("pods"):
                await asyncio.sleep(0.01)

    perform(world, place(), grow(), shrink(3), then=later)
    assert allocation(world)["left"] == [3]


# --- what is said where nobody was found who could leave --------------------------------------------------------------


def test_a_search_for_room_that_was_cut_off_is_told_as_such_and_not_as_a_no():
    """It stands in the status until something changes; the job is accepted, and waits."""
    view = GangView(
        id=UID, namespace="team", name="train", queue="research", priority=0, gpus=8, members=1,
        phase=Phase.PENDING, refusal=refuse(Reason.ROOM_SEARCH_ENDED), position=1,
    )  # fmt: skip
    made = conditions(view, {}, now_ms())
    status = gang_status(view, made, 1, now_ms())
    assert (status["phase"], status["reason"]) == ("Pending", "RoomSearchEnded")
    assert "may be room" in status["message"]
    told = {entry["type"]: entry for entry in status["conditions"]}
    assert (told["Accepted"]["status"], told["Placed"]["status"]) == ("True", "False")
    assert told["Placed"]["reason"] == "RoomSearchEnded"
