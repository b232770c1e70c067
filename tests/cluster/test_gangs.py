"""Gangs on a real API server, from the GangJob to exact devices to the books; nodes carry real machines' topology.

The tests of this module tell one story on one fleet, in the order in which they stand here, under one recorder.
"""

import shutil
import sqlite3
from collections import Counter

import pytest

from cluster.api import path
from cluster.history import History
from cluster.machines import DATA
from cluster.mixes import MIX, check_gang, check_mix, held, submit_mix
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld, allocated, claimed, member_of
from fairlead.simulation.workload import TRACE, Owner, draw, from_trace

QUEUE = "gangs-research"


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "gangs", nodes=64, nodes_per_rack=8, data=True) as world:
        world.queue(QUEUE, guaranteed=512)
        yield world


@pytest.fixture(scope="module")
def history(world):
    with History(world.api) as history:
        yield history


@pytest.fixture(scope="module")
def operator(control_plane, world, history, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("gangs")) as operator:
        operator.wait_ready()
        yield operator


@pytest.fixture(scope="module")
def forty(world, operator):
    """40 GangJobs, all Running: name -> shape."""
    shapes = submit_mix(world, QUEUE)
    world.wait_phases(shapes, "Running")
    return shapes


@pytest.fixture(autouse=True)
def _show_the_log(request):
    """Print the operator's last words where a test fails."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before and "operator" in request.fixturenames:
        print(request.getfixturevalue("operator").tail(80))


def test_forty_gangs_run_on_exactly_the_devices_that_status_names(world, operator, forty):
    sizes = Counter((gang.roles[0].replicas, gang.roles[0].gpus) for gang in forty.values())
    assert set(sizes) == {(1, 1), (1, 8), (2, 8), (4, 8)}, "the seed must draw every shape"
    check_mix(world, forty)
    for name, gang in forty.items():
        status = world.gang(name)["status"]
        assert status["gpus"] == gang.gpus
        assert {c["type"]: c["status"] for c in status["conditions"]} == {
            "Accepted": "True", "Placed": "True", "Running": "True", "Finished": "False",
        }  # fmt: skip
        assert (status["allocation"]["pace"] > 0) is (gang.gpus > 1), status["allocation"]
    ours = [pod for pod in world.pods() if pod["status"]["phase"] == "Running"]
    assert len(ours) == sum(gang.roles[0].replicas for gang in forty.values())


def test_all_nodes_were_joined_and_tainted(world, operator, forty):
    """Real matrices and slices are one machine to the operator, and nobody else's pods come to the pool's nodes."""
    status = world.api.wait(
        path("pools", name="gangs"),
        lambda pool: pool.get("status", {}).get("free") == 512 - len(held(world)),
        what="the pool's numbers",
    )["status"]
    assert status["gpus"] == 512
    assert (status["nodes"], status["down"], status["unmanaged"]) == (64, 0, 0)
    for node in world.nodes:
        taints = world.api.get(path("nodes", name=node))["spec"].get("taints", [])
        assert {"key": "fairlead.dev/pool", "value": "gangs", "effect": "NoSchedule"} in taints
    assert operator.metrics()["fairlead_violations_total"] == 0


def test_members_find_each_other_in_the_published_order(world, operator, forty):
    name = next(name for name, gang in forty.items() if gang.roles[0].replicas == 4)
    service = world.api.get(path("services", world.namespace, name))
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    selector = service["spec"]["selector"].items()
    order = list(allocated(world.gang(name)))
    pods = {member_of(pod): pod for pod in world.pods(name)}
    for rank, member in enumerate(order):
        pod = pods[member]
        assert selector <= pod["metadata"]["labels"].items()
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (f"{name}-{member}", name)
        env = {e["name"]: e["value"] for e in pod["spec"]["containers"][0]["env"]}
        assert (env["RANK"], env["NODE_RANK"], env["WORLD_SIZE"]) == (str(rank), str(rank), "4")
        assert env["MASTER_ADDR"] == f"{name}-{order[0]}.{name}.{world.namespace}.svc"
        assert env["MASTER_PORT"].isdecimal()
        labels = {key.removeprefix("fairlead.dev/"): value for key, value in pod["metadata"]["labels"].items()}
        wanted = {"gang": name, "role": "worker", "index": member[-1], "rank": str(rank), "attempt": "1"}
        assert {**wanted, "queue": QUEUE}.items() <= labels.items()
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "GangJob"


def test_deleted_gangs_give_their_devices_to_new_ones(world, operator, forty):
    """The new ones are the first whole-GPU jobs of the public trace where it is, else drawn from the same mix."""
    before = held(world)
    gone = sorted(forty)[::2]
    kept = {device: claim for device, claim in before.items() if not claim.startswith(tuple(f"{n}-" for n in gone))}
    for name in gone:
        world.delete_gang(name)
    world.until(lambda: [p["metadata"]["name"] for n in gone for p in world.pods(n)], "pods of deleted gangs are there")
    world.until(lambda: [c["metadata"]["name"] for n in gone for c in world.claims(n)], "their claims are there")
    assert held(world) == kept
    freed = set(before) - set(kept)
    owner = Owner(namespace=world.namespace, queue=QUEUE)
    if (DATA / TRACE).is_file():
        arrivals = list(from_trace(DATA / TRACE, owners=[owner], start_ms=0, count=40))
    else:
        arrivals = list(draw(7, count=40, owners=[owner], start_ms=0, gap_ms=0, mix=MIX, largest_gpus=8))
    new = {f"trace-{number}": arrival.gang.gpus for number, arrival in enumerate(arrivals)}
    for name, gpus in new.items():
        world.submit(name, gpus=gpus, queue=QUEUE)
    world.wait_phases(new, "Running")
    # Fill the fleet to the last GPU, so that every device that was freed must be used again.
    taken = Counter(node for node, _ in held(world))
    for node in world.nodes:
        for gpus in [8] if taken[node] == 0 else [1] * (8 - taken[node]):
            name = f"fill-{len(new)}"
            new[name] = gpus
            world.submit(name, gpus=gpus, queue=QUEUE)
    world.wait_phases(new, "Running")
    for name, gpus in new.items():
        check_gang(world, name, 1, gpus)
    after = held(world)
    assert len(after) == 512
    assert freed <= set(after)
    assert kept.items() <= after.items(), "those that stayed were not touched"
    world.submit("one-too-many", queue=QUEUE)
    job = world.api.wait(
        path("gangjobs", world.namespace, "one-too-many"),
        lambda job: job.get("status", {}).get("reason") not in (None, "AwaitingDecision"),
        what="one-too-many has a reason",
    )
    assert job["status"]["phase"] == "Pending"
    assert job["status"]["reason"] == "NodesFiltered"
    assert "64 nodes without 1 free GPU" in job["status"]["message"]
    assert world.pods("one-too-many") == []


def test_all_gangs_leave_an_empty_fleet(world, operator, forty):
    world.api.delete(path("gangjobs", world.namespace))
    world.until(lambda: [c["metadata"]["name"] for c in world.claims()], "claims are left", seconds=60)
    world.until(lambda: [p["metadata"]["name"] for p in world.pods()], "pods are left")
    assert world.api.list(path("gangjobs", world.namespace)) == []
    world.api.wait(path("pools", name="gangs"), lambda pool: pool["status"]["free"] == 512, what="512 GPUs are free")


def ends_in(seconds, code=0):
    """Annotations that KWOK plays."""
    return {"fairlead.dev/test-run-seconds": str(seconds), "fairlead.dev/test-exit-code": str(code)}


def free_of(world, name):
    """Wait until no claim of the gang holds a device."""
    world.until(lambda: [claimed(c) for c in world.claims(name) if claimed(c)], f"{name} still holds devices")


def role(name, replicas, gpus=1, annotations=None):
    template = {
        "metadata": {"annotations": annotations or {}},
        "spec": {"containers": [{"name": "main", "image": "example"}]},
    }
    return {"name": name, "replicas": replicas, "devices": {"count": gpus}, "template": template}


def test_a_gang_whose_members_all_succeed_has_succeeded_and_frees_its_devices(world, operator):
    world.submit("ends-well", replicas=2, gpus=8, within="rack", annotations=ends_in(0.5), queue=QUEUE)
    status = world.wait_phase("ends-well", "Succeeded")["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]}["Finished"] == "True"
    assert (status["restarts"], status["attempt"]) == (0, 1)
    assert status["finishedAtMs"] > status["startedAtMs"]
    assert status["usage"]["gpuMs"] > 0
    assert "allocation" not in status
    free_of(world, "ends-well")
    kept = {pod["status"]["phase"] for pod in world.pods("ends-well")}
    assert kept == {"Succeeded"}, "what has ended is kept for its logs"


def test_success_policy_any_ends_the_others(world, operator):
    roles = [role("leader", 1, 0, ends_in(0.5)), role("worker", 2, 4)]
    world.submit("led", queue=QUEUE, roles=roles, successPolicy={"operator": "Any", "roles": ["leader"]})
    world.wait_phase("led", "Succeeded")
    free_of(world, "led")
    world.until(lambda: [p["metadata"]["name"] for p in world.pods("led") if "worker" in member_of(p)], "workers stay")


def test_a_failed_member_restarts_the_gang_whole_until_its_restarts_are_used_up(world, operator):
    roles = [role("steady", 1, 8), role("shaky", 1, 8, ends_in(0.5, code=3))]
    world.submit("shaky", queue=QUEUE, roles=roles, failurePolicy={"maxRestarts": 1})
    status = world.wait_phase("shaky", "Failed")["status"]
    assert status["reason"] == "RestartsExhausted"
    assert status["attempt"] == 2
    assert "shaky-0" in status["message"]
    assert status["lostGpuMs"] > 0
    free_of(world, "shaky")


def test_a_failed_member_fails_the_gang_where_it_says_so(world, operator):
    policy = {"onMemberFailure": "fail", "maxRestarts": 5}
    world.submit("strict", replicas=2, annotations=ends_in(0.3, code=1), queue=QUEUE, failurePolicy=policy)
    status = world.wait_phase("strict", "Failed")["status"]
    assert (status["reason"], status["attempt"]) == ("MemberFailed", 1)
    free_of(world, "strict")


def test_a_suspended_gang_holds_nothing(world, operator):
    world.submit("paused", replicas=2, gpus=8, queue=QUEUE, suspend=True)
    assert world.wait_phase("paused", "Suspended")["status"]["reason"] == "Suspended"
    assert world.pods("paused") == []
    world.patch_gang("paused", {"suspend": False})
    world.wait_phase("paused", "Running")
    check_gang(world, "paused", 2, 8)
    world.patch_gang("paused", {"suspend": True})
    world.wait_phase("paused", "Suspended")
    free_of(world, "paused")
    world.until(lambda: [p["metadata"]["name"] for p in world.pods("paused")], "pods of a suspended gang are there")
    assert "allocation" not in world.gang("paused")["status"]
    world.patch_gang("paused", {"suspend": False})
    assert world.wait_phase("paused", "Running")["status"]["attempt"] == 2
    world.delete_gang("paused")


def test_a_gang_that_does_not_start_in_time_goes_whole(world, operator):
    """One of two members never gets up."""
    roles = [role("quick", 1), role("slow", 1, 1, {"fairlead.dev/test-start-seconds": "600"})]
    late = {"startDeadline": "2s", "failurePolicy": {"maxRestarts": 1}}
    world.submit("sleepy", queue=QUEUE, roles=roles, **late)
    status = world.wait_phase("sleepy", "Failed", seconds=60)["status"]
    assert (status["reason"], status["attempt"]) == ("RestartsExhausted", 2)
    assert "1 of 2 members were running after 2s" in status["message"]
    free_of(world, "sleepy")


def test_a_gang_is_stopped_after_its_duration(world, operator):
    world.submit("bounded", gpus=2, queue=QUEUE, duration="1s")
    status = world.wait_phase("bounded", "Succeeded", "Failed")["status"]
    assert status["reason"] == "DurationExceeded"
    free_of(world, "bounded")


def test_a_pod_deleted_under_us_restarts_the_gang_whole(world, operator):
    world.submit("robbed", replicas=2, gpus=8, within="rack", queue=QUEUE)
    world.wait_phase("robbed", "Running")
    first = {pod["metadata"]["uid"] for pod in world.pods("robbed")}
    world.api.delete(path("pods", world.namespace, world.pods("robbed")[0]["metadata"]["name"]))
    done = world.api.wait(
        path("gangjobs", world.namespace, "robbed"),
        lambda job: job["status"]["phase"] == "Running" and job["status"]["attempt"] == 2,
        what="the second attempt of robbed runs",
    )
    assert done["status"]["restarts"] == 1
    world.until(lambda: first & {p["metadata"]["uid"] for p in world.pods("robbed")}, "pods of the first attempt stay")
    check_gang(world, "robbed", 2, 8)


def test_a_claim_deleted_under_us_stays_until_its_pod_has_gone(world, operator):
    """The API server keeps it for its finalizers; its devices go to nobody else meanwhile."""
    claim = world.claims("robbed")[0]
    devices = claimed(claim)
    world.api.delete(path("resourceclaims", world.namespace, claim["metadata"]["name"]))
    assert claimed(world.api.get(path("resourceclaims", world.namespace, claim["metadata"]["name"]))) == devices
    world.delete_gang("robbed")
    world.until(lambda: world.pods("robbed") + world.claims("robbed"), "what robbed had is there")


def test_the_whole_history_keeps_p1_and_p2(history, operator):
    """Every resourceVersion since the first gang of this module."""
    bindings = [e for e in history.events if e.kind == "pods" and e.object and e.object["spec"].get("nodeName")]
    assert len(bindings) > 100, "the recorder saw the gangs above"
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []


def test_the_books_verify_and_one_changed_byte_does_not(operator, tmp_path):
    assert operator.terminate() == 0
    assert operator.lease_holder() == ""
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the books balance" in done.stdout
    copy = operator.copy_books(tmp_path / "copy.sqlite")
    assert operator.verify_books(copy).returncode == 0, "a copy is as good"
    bent = tmp_path / "bent.sqlite"
    shutil.copy(copy, bent)
    number = change_one_byte(bent)
    done = operator.verify_books(bent)
    assert done.returncode == 7, done.stdout + done.stderr
    assert f"entry {number}" in done.stdout, done.stdout


def change_one_byte(books):
    """Change one byte of one amount in the file, behind the database's back; return the entry's number."""
    with sqlite3.connect(books) as reader:
        rows = reader.execute("SELECT number, amount FROM posting WHERE abs(amount) > 70000 ORDER BY number").fetchall()
    number, ticks = rows[len(rows) // 2]
    found = abs(ticks)
    raw = books.read_bytes()
    width = next(n for n in (3, 4, 6, 8) if found < 1 << (8 * n - 1))
    stored = ticks.to_bytes(width, "big", signed=True)
    places = [at for at in range(len(raw)) if raw.startswith(stored, at)]
    for at in places:
        changed = bytearray(raw)
        changed[at + width - 1] ^= 1
        books.write_bytes(changed)
        with sqlite3.connect(books) as reader:
            after = reader.execute("SELECT number, line, amount FROM posting ORDER BY number, line").fetchall()
        before = reader_rows(raw, books.with_suffix(".whole"))
        different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        if len(different) == 1 and different[0][0][0] == number:
            return number
    raise AssertionError(f"{ticks} of entry {number} does not stand in the file")


def reader_rows(raw, file):
    file.write_bytes(raw)
    with sqlite3.connect(file) as reader:
        return reader.execute("SELECT number, line, amount FROM posting ORDER BY number, line").fetchall()
