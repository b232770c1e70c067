"""Stops, nominations and what is left alone, against an API server in memory."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fairlead.clock import now_ms
from fairlead.errors import Unreachable
from fairlead.model.effects import Nominate
from fairlead.model.events import Bound, GangRefused, NominationEnded, PlaceFailed, StopRefused
from fairlead.model.gang import GangId, Placement
from fairlead.model.reasons import Reason, refuse
from fairlead_operator.objects import Pod
from fairlead_operator.pods import JobSheet
from fairlead_operator.statuses import nomination_status

from .fake_kube import api_error
from .kube_world import UID, World, members, one, perform, place, stop


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_stop_deletes_every_pod_with_its_own_grace_and_every_claim(world):
    _, released = perform(world, place(), stop())
    assert released == []
    for pod in world.api.of("pods").values():
        assert pod["metadata"]["deletionGracePeriodSeconds"] == 30
    assert all(c["metadata"]["deletionTimestamp"] for c in world.api.of("resourceclaims").values())
    assert not world.free()


def test_a_stop_frees_what_has_ended_and_keeps_its_logs_when_the_gang_is_finished(world):
    async def ended():
        for name in world.bound():
            pod = world.api.objects[("pods", "team", name)]
            world.api._store(("pods", "team", name), pod | {"status": {"phase": "Succeeded"}})
        facts = await world.cluster.perform(stop(Reason.FINISHED))
        assert [f.rank for f in facts] == [0, 1, 2]
        assert world.free()
        assert all("deletionTimestamp" not in p["metadata"] for p in world.api.of("pods").values())

    perform(world, place(), then=ended)


def test_a_pod_removed_without_a_terminal_phase_still_frees_its_devices(world):
    async def over():
        await world.cluster.perform(stop())
        world.api.kubelet_is_done("train-worker-1-1")
        world.cluster.pod_over(msgspec.convert(world.api.of("pods")["train-worker-1-1"], Pod))
        async with asyncio.timeout(5):
            while world.api.of("resourceclaims")["train-worker-1-1-gpus"]["status"].get("allocation"):
                await asyncio.sleep(0.01)
        assert not world.free()

    perform(world, place(), then=over)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (api_error(429, "TooManyRequests"), "1 of its 3 pods may not be evicted now"),
        (api_error(500, "InternalError", "more than one PodDisruptionBudget"), "not known of 1 of its 3 pods"),
        (Unreachable("no answer"), "not known of 1 of its 3 pods"),
    ],
)
def test_victims_go_whole_or_not_at_all_by_their_budgets(world, answer, words):
    budget = [True]

    def fault(method, path, body):
        return answer if budget[0] and path.endswith("train-worker-2-1/eviction") else None

    world.api.fault = fault

    async def later():
        (fact,) = await world.cluster.perform(stop(Reason.PREEMPTED, by="other"))
        assert isinstance(fact, StopRefused)
        assert (fact.gang, fact.attempt, fact.cause.reason) == (UID, 1, Reason.BUDGET_REFUSES)
        assert words in fact.cause.message
        assert "train" not in fact.cause.message  # the one who wanted the room may be another tenant
        budget[0] = False
        await asyncio.sleep(0.2)  # nothing goes on behind the engine's back
        assert all("deletionTimestamp" not in p["metadata"] for p in world.api.of("pods").values())
        assert await world.cluster.perform(stop(Reason.PREEMPTED, by="other")) == []
        assert all(p["metadata"].get("deletionTimestamp") for p in world.api.of("pods").values())

    perform(world, place(), then=later)


def test_nobody_asks_budgets_when_no_one_gains(world):
    world.api.fault = lambda method, path, body: api_error(429, "TooManyRequests") if "eviction" in path else None
    assert perform(world, place(), stop(Reason.NODE_LOST))[1] == []
    assert all(p["metadata"].get("deletionTimestamp") for p in world.api.of("pods").values())


def test_a_stop_during_placing_undoes_the_placing(world):
    async def both():
        placing = asyncio.create_task(world.cluster.perform(place()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await world.cluster.perform(stop())
        facts = await placing
        left = [p for p in world.api.of("pods").values() if not p["metadata"].get("deletionTimestamp")]
        assert not left, facts
        await world.cluster.close()

    asyncio.run(both())


def test_a_gangjob_that_is_gone_is_not_placed(world):
    del world.api.objects[("gangjobs", "team", "train")]
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert fact.released == (0, 1, 2)
    assert not world.api.of("pods")


def nominate():
    return Nominate(
        gang=UID,
        placement=Placement(members=members(2), level="rack", domain="r1"),
        victims=((UID, 3),),
        until_ms=now_ms() + 60_000,
    )


def test_a_nomination_is_kept_where_a_restart_finds_it(world):
    assert perform(world, nominate()) == [()]
    kept = world.api.of("gangjobs")["train"]["status"]["nomination"]
    assert kept["victims"] == ["team/train#3"]
    assert kept["members"] == [
        {"node": "n0", "pods": ["worker-0=gpu-[0-1]"]},
        {"node": "n1", "pods": ["worker-1=gpu-[0-1]"]},
    ]


def test_nobody_is_stopped_for_a_gang_whose_pods_the_server_refuses(world):
    world.refusal = refuse(Reason.TEMPLATE_REFUSED, role="worker", problem="no")
    facts = perform(world, nominate())[0]
    assert [type(fact) for fact in facts] == [NominationEnded, GangRefused]


def test_an_attempt_is_ours_only_when_we_made_or_found_it(world):
    perform(world, place())
    assert world.cluster.knows(UID, 1)
    assert not world.cluster.knows(UID, 2)
    assert not world.cluster.knows(GangId("somebody"), 1)


def test_a_service_of_somebody_else_is_not_taken(world):
    theirs = {"metadata": {"name": "train", "namespace": "team", "uid": "s", "labels": {}}, "spec": {"selector": {}}}
    world.api._store(("services", "team", "train"), theirs)
    fact = one(world, place())
    assert "Service named train" in fact.cause.message
    assert world.api.of("services")["train"]["spec"] == {"selector": {}}


def test_the_service_of_a_deleted_job_of_the_same_name_is_not_waited_for(world):
    owner = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "GangJob", "name": "train", "uid": "uid-of-before"}
    labels = {"fairlead.dev/gang-uid": "uid-of-before"}
    left = {"name": "train", "namespace": "team", "uid": "s", "labels": labels, "ownerReferences": [owner]}
    world.api._store(("services", "team", "train"), {"metadata": left, "spec": {"selector": labels}})
    assert isinstance(one(world, place()), Bound)
    assert world.api.of("services")["train"]["spec"]["selector"]["fairlead.dev/gang-uid"] == str(UID)


def test_victims_of_other_namespaces_are_not_named():
    def sheet(namespace, name):
        return JobSheet(uid=name, namespace=namespace, name=name, queue="q", templates={})

    victims = ((GangId("uid-b"), 1), (GangId("uid-c"), 2), (GangId("uid-d"), 3))
    wanted = Nominate(gang=UID, placement=Placement(members=members(1)), victims=victims, until_ms=1)
    sheets = {UID: sheet("team", "a"), victims[0][0]: sheet("team", "b"), victims[1][0]: sheet("other", "c")}
    assert nomination_status(wanted, sheets)["victims"] == ["team/b#1", "uid-c#2", "uid-d#3"]
