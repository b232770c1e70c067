"""Effects against an API server in memory that refuses, forgets to answer and changes under us."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from fairlead.errors import Unreachable
from fairlead.model.events import Bound, MemberReleased, PlaceFailed
from fairlead.model.reasons import Reason
from fairlead_operator.trips import Gate

from .fake_kube import api_error
from .kube_world import DONE, UID, World, fail_on, one, perform, place


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


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


def test_a_part_of_a_gpu_that_no_slice_names_is_given_back_whole(world):
    """The class is that of parts, and the claim is not allocated with the name of the whole GPU."""
    effect = place(gpus=1)
    parts = tuple(dataclasses.replace(m, share_milli=143, mig_start=4) for m in effect.placement.members)
    effect = dataclasses.replace(effect, placement=dataclasses.replace(effect.placement, members=parts))
    failed = one(world, effect)
    assert isinstance(failed, PlaceFailed)
    assert "name no MIG device at unit 4 of gpu-0" in failed.cause.message
    made = [o for kind, _, o in world.history if kind == "resourceclaims"]
    assert {o["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] for o in made} == {"mig.nvidia.com"}
    assert not any((o.get("status") or {}).get("allocation") for o in made)
    assert world.free()
    assert world.bound() == []


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


def test_gangs_pass_in_order_and_never_more_members_than_the_gate_is_wide():
    async def go():
        gate, inside, most, order = Gate(4), [0], [0], []

        async def gang(name, size):
            async with gate.passing(size):
                order.append(name)
                inside[0] += size
                most[0] = max(most[0], inside[0] if size <= 4 else 0)
                assert size <= 4 or inside[0] == size, "a gang wider than the gate passes alone"
                await asyncio.sleep(0)
                inside[0] -= size

        sizes = [1, 3, 2, 9, 1, 4, 2]
        await asyncio.gather(*(gang(i, size) for i, size in enumerate(sizes)))
        return order, most[0], gate

    order, most, gate = asyncio.run(go())
    assert order == list(range(7))
    assert most <= 4
    assert gate._inside == 0


def test_a_gang_that_is_cancelled_at_the_gate_holds_nobody_up():
    async def go():
        gate = Gate(1)
        async with gate.passing(1):
            waiting = asyncio.create_task(gate.passing(1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1), gate.passing(1):
            pass

    asyncio.run(go())


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_conflict_on_the_way_out_is_not_taken_for_done(world, method):
    """A finalizer, or an object, that stays because of one would stay for ever."""
    world.api.fault = fail_on("PUT", "train-worker-2-1-gpus/status", api_error(403, "Forbidden"), times=1_000)

    async def closed():
        world.api.fault = fail_on(method, "/resourceclaims/", api_error(409, "Conflict"), times=3)
        await world.cluster.booked([(UID, 1, rank) for rank in range(3)])
        async with asyncio.timeout(5):
            while world.api.of("pods") or world.api.of("resourceclaims"):
                await asyncio.sleep(0.02)

    one(world, place(), then=closed)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_conflict_while_undoing_is_tried_again(world, method):
    faults = [
        fail_on("PUT", "train-worker-2-1-gpus/status", api_error(403, "Forbidden"), times=1_000),
        fail_on(method, "/resourceclaims/", api_error(409, "Conflict"), times=3),
    ]
    world.api.fault = lambda *call: next((error for fault in faults if (error := fault(*call))), None)

    async def later():
        async with asyncio.timeout(5):
            while not all(c["metadata"].get("deletionTimestamp") for c in world.api.of("resourceclaims").values()):
                await asyncio.sleep(0.02)
        assert world.free()

    one(world, place(), then=later)
