"""Effects against an API server in memory that refuses, forgets to answer and changes under us."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from fairlead.clock import now_ms
from fairlead.errors import Unreachable
from fairlead.model.effects import Nominate, Place, Stop
from fairlead.model.events import Bound, GangRefused, MemberReleased, NominationEnded, PlaceFailed
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import Node
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool
from fairlead.service.metrics import Metrics
from fairlead_operator import kube_cluster, teardown
from fairlead_operator.claim_index import ClaimIndex
from fairlead_operator.device_objects import Claim
from fairlead_operator.kube_cluster import KubeCluster
from fairlead_operator.objects import Pod
from fairlead_operator.placing import Placer
from fairlead_operator.pods import JobSheet
from fairlead_operator.status_writer import StatusWriter

from .fake_kube import FakeKube, api_error

UID = GangId("gang-uid-1")
DONE = "fairlead.dev/booked"


class World:
    """A cluster port over a fake server; the claim watch is fed by the server's own changes."""

    def __init__(self, monkeypatch) -> None:
        monkeypatch.setattr(teardown, "_LINGER_S", 0.05)
        monkeypatch.setattr(kube_cluster, "_RETRY_S", 0.02)
        monkeypatch.setattr(kube_cluster, "_SWEEP_S", 0.1)
        self.api = FakeKube()
        self.claims = ClaimIndex()
        self.watching = True
        self.api.hooks.append(self._watch)
        self.history: list[tuple[str, str, dict]] = []
        self.template = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
        self.nodes = {f"n{i}": Node(name=f"n{i}", pool="main", device_pool=f"pool-n{i}") for i in range(4)}
        self.api._store(
            ("gangjobs", "team", "train"),
            {
                "metadata": {"name": "train", "namespace": "team", "uid": str(UID)},
                "spec": {"queue": "research", "roles": []},
                "status": {},
            },
        )
        self.reported: list = []
        self.refusal = None
        writer = StatusWriter(self.api, lambda gang: None, now_ms, Metrics())

        async def check(sheet):
            return self.refusal

        self.cluster = KubeCluster(
            self.api,
            self,
            Placer(self.api, self, self.claims),
            writer,
            check=check,
            now_ms=now_ms,
            rng=random.Random(1),
            rules=Rules(),
            metrics=Metrics(),
        )
        self.cluster.report = lambda *facts: self.reported.extend(facts)

    def _watch(self, plural, name, new, gone):
        self.history.append((plural, name, new))
        if plural == "resourceclaims" and self.watching:
            claim = msgspec.convert(new, Claim)
            self.claims.change(None if not gone else claim, claim, deleted=gone)

    def sheet(self, gang):
        if ("gangjobs", "team", "train") not in self.api.objects:
            return None
        return JobSheet(
            uid=str(UID), namespace="team", name="train", queue="research", templates={"worker": self.template}
        )

    def node(self, name):
        return self.nodes.get(name)

    def pool(self, name):
        return Pool(name="main", node_selector=(("gpu", "yes"),), device_class="gpu.example")

    def free(self) -> bool:
        """Whether no claim of ours holds anything and no pod of ours is bound and stays."""
        return all(not (c.get("status") or {}).get("allocation") for c in self.api.of("resourceclaims").values())

    def bound(self) -> list[str]:
        return [n for n, p in self.api.of("pods").items() if p["spec"].get("nodeName")]


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def members(count=3, gpus=2):
    return tuple(
        Member(role="worker", index=i, rank=i, node=f"n{i}", devices=tuple(f"gpu-{d}" for d in range(gpus)))
        for i in range(count)
    )


def place(number=1, seconds=30, **more):
    placement = Placement(members=members(**more), level="rack", domain="r1")
    return Place(
        gang=UID, attempt=number, placement=placement, tier=Tier.IN_QUOTA, deadline_ms=now_ms() + seconds * 1000
    )


def perform(world, *effects, then=None):
    async def go():
        results = [await world.cluster.perform(effect) for effect in effects]
        if then is not None:
            await then()
        await world.cluster.close()
        return results

    return asyncio.run(go())


def one(world, effect, then=None):
    facts = perform(world, effect, then=then)[0]
    assert len(facts) == 1, facts
    return facts[0]


def fail_on(method, part, error, *, times=1):
    left = [times]

    def fault(verb, path, body):
        if verb == method and part in path and left[0] > 0:
            left[0] -= 1
            return error
        return None

    return fault


def test_a_gang_is_bound_whole_and_every_claim_was_allocated_before(world):
    assert isinstance(one(world, place()), Bound)
    assert world.bound() == ["train-worker-0-1", "train-worker-1-1", "train-worker-2-1"]
    first_binding = next(
        i for i, (kind, _, o) in enumerate(world.history) if kind == "pods" and o["spec"].get("nodeName")
    )
    allocated = [
        i
        for i, (k, _, o) in enumerate(world.history)
        if k == "resourceclaims" and (o.get("status") or {}).get("allocation")
    ]
    recorded = [i for i, (k, _, o) in enumerate(world.history) if k == "gangjobs" and o["status"].get("allocation")]
    assert len(allocated) == 3
    assert recorded[0] < min(i for i, (k, _, _o) in enumerate(world.history) if k == "resourceclaims")
    assert max(allocated) < first_binding
    for name, claim in world.api.of("resourceclaims").items():
        results = claim["status"]["allocation"]["devices"]["results"]
        assert [r["device"] for r in results] == ["gpu-0", "gpu-1"]
        pod = world.api.of("pods")[name.removesuffix("-gpus")]
        assert claim["status"]["reservedFor"][0]["uid"] == pod["metadata"]["uid"]
        assert results[0]["pool"] == f"pool-{pod['spec']['nodeName']}"
    status = world.api.of("gangjobs")["train"]["status"]
    assert status["phase"] == "Placing"
    assert status["allocation"]["members"][0] == {"node": "n0", "pods": ["worker-0=gpu-[0-1]"]}


def test_the_same_placement_twice_is_once(world):
    effect = place()
    first, second = perform(world, effect, effect)
    assert isinstance(first[0], Bound)
    assert isinstance(second[0], Bound)
    assert len(world.api.of("pods")) == 3


@pytest.mark.parametrize("where", ["pods/train-worker-1-1/binding", "namespaces/team/pods", "status", "services"])
@pytest.mark.parametrize("answer", ["lost", 500, 429])
def test_answers_that_are_lost_or_late_do_no_harm(world, where, answer):
    error = answer if answer == "lost" else api_error(answer, "Trouble")
    method = "PUT" if where == "status" else "POST"
    world.api.fault = fail_on(method, where, error)
    assert isinstance(one(world, place()), Bound)
    assert len(world.bound()) == 3


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("POST", "services"),
        ("POST", "team/pods"),
        ("POST", "resourceclaims"),
        ("PUT", "train-worker-2-1-gpus/status"),
        ("POST", "train-worker-0-1/binding"),
        ("PATCH", "gangjobs"),
    ],
)
def test_a_refused_write_undoes_all_of_it(world, method, where):
    world.api.fault = fail_on(method, where, api_error(403, "Forbidden", "no"), times=1_000)
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    held = [n for n, c in world.api.of("resourceclaims").items() if (c.get("status") or {}).get("allocation")]
    assert {name.removesuffix("-gpus") for name in held} <= set(world.bound())
    for pod in world.api.of("pods").values():
        assert pod["metadata"].get("deletionTimestamp")
    for claim in world.api.of("resourceclaims").values():
        assert claim["metadata"].get("deletionTimestamp")
    unbound = {i for i in range(3) if f"train-worker-{i}-1" not in world.bound()}
    assert set(fact.released) == unbound


def test_a_refused_binding_in_the_middle_takes_the_bound_ones_along(world):
    world.api.fault = fail_on("POST", "train-worker-1-1/binding", api_error(403, "Forbidden"), times=1_000)

    async def kubelets():
        for name in world.bound():
            world.api.kubelet_is_done(name)
        async with asyncio.timeout(5):
            while not world.free():
                await asyncio.sleep(0.02)

    fact = one(world, place(), then=kubelets)
    assert isinstance(fact, PlaceFailed)
    assert fact.released == (1,)
    later = {f.rank for f in world.reported if isinstance(f, MemberReleased)}
    assert later == {0, 2}


def test_a_refused_template_is_said_in_the_servers_words(world):
    error = api_error(403, "Forbidden", "exceeded quota: pods=3")
    world.api.fault = fail_on("POST", "team/pods", error, times=1_000)
    fact = one(world, place())
    assert fact.cause.reason is Reason.TEMPLATE_REFUSED
    assert "exceeded quota: pods=3" in fact.cause.message
    assert fact.released == (0, 1, 2)


def test_finalizers_stay_until_the_closing_entry_is_committed(world):
    world.api.fault = fail_on("PUT", "train-worker-2-1-gpus/status", api_error(403, "Forbidden"), times=1_000)

    async def closed():
        assert all(c["metadata"]["finalizers"] == [DONE] for c in world.api.of("resourceclaims").values())
        assert len(world.api.of("pods")) == 3
        await world.cluster.booked([(UID, 1, rank) for rank in range(3)])
        async with asyncio.timeout(5):
            while world.api.of("pods") or world.api.of("resourceclaims"):
                await asyncio.sleep(0.02)

    one(world, place(), then=closed)


def foreign(world, device="gpu-1"):
    result = {"request": "x", "driver": "gpu.nvidia.com", "pool": "pool-n1", "device": device}
    world.api._store(
        ("resourceclaims", "other", f"theirs-{device}"),
        {
            "metadata": {"name": f"theirs-{device}", "namespace": "other", "uid": f"foreign-{device}"},
            "spec": {},
            "status": {"allocation": {"devices": {"results": [result]}}},
        },
    )


def test_a_device_that_somebody_else_holds_is_never_bound_onto(world):
    foreign(world)
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert fact.cause.reason is Reason.PLACE_CONFLICT
    assert fact.released == (0, 1, 2)
    assert not world.bound()


def test_a_device_taken_while_we_allocate_is_found_before_the_first_binding(world):
    def race(plural, name, new, gone):
        if (
            plural == "resourceclaims"
            and name == "train-worker-1-1-gpus"
            and (new.get("status") or {}).get("allocation")
        ):
            world.api.hooks.remove(race)
            foreign(world)

    world.api.hooks.append(race)
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert not world.bound()
    ours = [c for n, c in world.api.of("resourceclaims").items() if n.startswith("train")]
    assert all(not c["status"].get("allocation") for c in ours)


def test_a_claim_watch_that_is_behind_stops_the_binding(world, monkeypatch):
    monkeypatch.setattr("fairlead_operator.placing._WATCH_S", 0.05)
    world.watching = False
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert "watch is behind" in fact.cause.message
    assert not world.bound()


def test_a_claim_deleted_under_us_fails_the_attempt(world):
    def vanish(plural, name, new, gone):
        if plural == "pods" and name == "train-worker-2-1" and not gone:
            world.api.hooks.remove(vanish)
            world.api.objects.pop(("resourceclaims", "team", "train-worker-0-1-gpus"))

    world.api.hooks.append(vanish)
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert not world.bound()


def test_a_pod_of_that_name_that_is_not_ours_is_left_alone(world):
    strange = {"metadata": {"name": "train-worker-1-1", "namespace": "team", "uid": "x", "labels": {}}, "spec": {}}
    world.api._store(("pods", "team", "train-worker-1-1"), strange)
    fact = one(world, place())
    assert isinstance(fact, PlaceFailed)
    assert "deletionTimestamp" not in world.api.of("pods")["train-worker-1-1"]["metadata"]


def test_a_node_that_is_gone_stops_the_attempt(world):
    del world.nodes["n1"]
    assert isinstance(one(world, place()), PlaceFailed)
    assert not world.bound()


def test_an_outage_in_mid_flight_is_undone_after_it(world):
    outage = [True]

    def fault(method, path, body):
        down = outage[0] and any(path.endswith("/binding") for _, path in world.api.log)
        return Unreachable("outage") if down else None

    world.api.fault = fault

    async def comes_back():
        await asyncio.sleep(0.1)
        outage[0] = False
        async with asyncio.timeout(8):
            while not world.free() or len({f.rank for f in world.reported}) < 3:
                await asyncio.sleep(0.02)

    fact = one(world, place(seconds=3), then=comes_back)
    assert isinstance(fact, PlaceFailed)
    assert not world.bound()
    assert {f.rank for f in world.reported if isinstance(f, MemberReleased)} | set(fact.released) == {0, 1, 2}


def stop(reason=Reason.DELETED, by="", **details):
    return Stop(gang=UID, attempt=1, cause=refuse(reason, **details), requeue=False, by=by)


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


def test_victims_go_whole_or_not_at_all_by_their_budgets(world):
    budget = [True]

    def fault(method, path, body):
        refused = budget[0] and path.endswith("train-worker-2-1/eviction")
        return api_error(429, "TooManyRequests") if refused else None

    world.api.fault = fault

    async def later():
        facts = await world.cluster.perform(stop(Reason.PREEMPTED, by="other"))
        assert facts == ()
        assert all("deletionTimestamp" not in p["metadata"] for p in world.api.of("pods").values())
        budget[0] = False
        async with asyncio.timeout(8):
            while not all(p["metadata"].get("deletionTimestamp") for p in world.api.of("pods").values()):
                await asyncio.sleep(0.02)

    perform(world, place(), then=later)


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
