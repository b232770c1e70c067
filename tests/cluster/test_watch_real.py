"""The operator's session, reflector and election against a real API server."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead.model.gang import Toleration
from fairlead_operator.custom_objects import LEASES
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.kube_config import read_kubeconfig
from fairlead_operator.leader import Elector, Terms
from fairlead_operator.objects import NAMESPACES, PODS
from fairlead_operator.pod_shape import pod_shape, unsupported
from fairlead_operator.watch import Reflector

from .api import ApiError as Answered
from .api import path

NAMESPACE = "watch-real"


@pytest.fixture(scope="module")
def api(control_plane):
    control_plane.api.create(path("namespaces"), {"metadata": {"name": NAMESPACE}})
    yield control_plane.api
    control_plane.api.delete(path("namespaces", name=NAMESPACE))


def kube(plane, folder: Path, **options):
    file = plane.kubeconfig(folder / "kubeconfig", plane.token("admin"), NAMESPACE)
    return KubeClient(read_kubeconfig(file), rng=random.Random(1), **options)


@asynccontextmanager
async def following(client, resource, told, **options):
    def on_change(change, old, new):
        told.append((change.value, (new or old).metadata.name))

    reflector = Reflector(client, resource, on_change, rng=random.Random(2), **options)
    task = asyncio.create_task(reflector.run())
    try:
        async with asyncio.timeout(20):
            await reflector.synced.wait()
        yield reflector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(done, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.02)


def test_changes_arrive_and_our_own_answers_come_first(control_plane, api, tmp_path):
    async def scenario():
        told = []
        async with (
            kube(control_plane, tmp_path) as client,
            following(client, NAMESPACES, told, label_selector="watch=yes") as reflector,
        ):
            assert told == []
            made = await client.create(NAMESPACES, {"metadata": {"name": "wr-a", "labels": {"watch": "yes"}}})
            reflector.note_write(made)
            assert told == [("ADDED", "wr-a")]
            api.create(path("namespaces"), {"metadata": {"name": "wr-b", "labels": {"watch": "yes"}}})
            await until(lambda: reflector.store.get("wr-b") is not None)
            assert told.count(("ADDED", "wr-a")) == 1  # the event of our own write told nothing new
            assert reflector.lag().silent_ms < 5_000
            await client.patch_merge(NAMESPACES, "wr-b", {"metadata": {"labels": {"watch": "no"}}})
            await until(lambda: reflector.store.get("wr-b") is None)
            await client.delete(NAMESPACES, "wr-a", options={"preconditions": {"uid": made.metadata.uid}})
            api.delete(path("namespaces", name="wr-b"))

    asyncio.run(scenario())


def test_a_list_comes_in_pages(control_plane, api, tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead_operator.watch.PAGE", 2)

    async def scenario():
        told = []
        async with kube(control_plane, tmp_path) as client, following(client, NAMESPACES, told) as reflector:
            names = {item["metadata"]["name"] for item in api.list(path("namespaces"))}
            assert len(names) > 4
            assert (
                {name for _, name in told} == {item.metadata.name for item in reflector.store} >= {NAMESPACE, "default"}
            )

    asyncio.run(scenario())


def has_forgotten(api, version):
    """Whether the server refuses to show what there was at that version."""
    try:
        api.get(path("namespaces") + f"?resourceVersion={version}&resourceVersionMatch=Exact")
    except Answered as error:
        return error.status == 410
    except ConnectionError:  # of before the restart
        return False
    return False


def test_a_restarted_server_is_followed_on_and_what_it_has_forgotten_is_listed_anew(new_control_plane, tmp_path):
    # Without its cache the server asks etcd, which forgets everything that is older than a second or two.
    plane = new_control_plane(kwok=False, apiserver_flags=("--watch-cache=false", "--etcd-compaction-interval=1s"))

    async def scenario():
        told = []
        async with kube(plane, tmp_path) as client, following(client, NAMESPACES, told) as reflector:
            await asyncio.to_thread(plane.restart, "kube-apiserver")
            await asyncio.to_thread(plane.api.create, path("namespaces"), {"metadata": {"name": "after"}})
            await until(lambda: reflector.store.get("after") is not None, 40)
            assert told.count(("ADDED", "default")) == 1
            await until(lambda: has_forgotten(plane.api, "1"), 40)  # a watch that began before then would just go on
            late = Reflector(client, NAMESPACES, lambda *change: None, rng=random.Random(3))
            late._version = "1"
            task = asyncio.create_task(late.run())
            await until(late.synced.is_set)
            assert (late.relists, len(late.store)) == (1, len(reflector.store))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


TEMPLATE = {
    "metadata": {"generateName": "shape-"},
    "spec": {
        "initContainers": [
            {"name": "side", "image": "x", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            {"name": "init", "image": "x", "resources": {"limits": {"cpu": "3", "memory": "1Gi"}}},
        ],
        "containers": [
            {"name": "main", "image": "x", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "2"}}}
        ],
        "hostNetwork": True,
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
    },
}


def test_the_pod_that_a_dry_run_returns_is_decoded_with_the_servers_defaults(control_plane, api, tmp_path):
    async def scenario():
        async with kube(control_plane, tmp_path) as client:
            await until(lambda: api.exists(path("serviceaccounts", NAMESPACE, "default")))
            pod = await client.create(PODS, TEMPLATE, NAMESPACE, dry_run=True)
            assert unsupported(pod, with_devices=False) == []
            shape = pod_shape(pod)
            assert shape.requests.cpu_milli == 4_000  # the sidecar beside the init container; limits became requests
            assert shape.requests.memory_bytes == 1 << 30
            assert shape.host_ports == (("TCP", "0.0.0.0", 80),)  # by hostNetwork
            assert shape.node_selector == (("a", "b"),)
            assert Toleration(key="k", operator="Exists") in shape.tolerations
            assert api.list(path("pods", NAMESPACE)) == []
            bad = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "containers": []}}
            with pytest.raises(ApiError) as caught:
                await client.create(PODS, bad, NAMESPACE, dry_run=True)
            assert (caught.value.status, caught.value.reason) == (422, "Invalid")

    asyncio.run(scenario())


def test_of_two_one_leads_and_the_other_takes_over(control_plane, api, tmp_path):
    terms = Terms(lease_s=3.0, renew_every_s=0.5, retry_every_s=0.2, margin_s=1.0, settle_s=0.2)

    async def scenario():
        async with kube(control_plane, tmp_path) as client:
            electors = {
                name: Elector(
                    client, namespace=NAMESPACE, name="lead", identity=name, rng=random.Random(name), terms=terms
                )
                for name in ("one", "two")
            }
            first = asyncio.create_task(electors["one"].run())
            await until(electors["one"].leading.is_set)
            second = asyncio.create_task(electors["two"].run())
            started = time.monotonic()
            while time.monotonic() - started < 4:
                assert electors["one"].is_leader()
                assert not electors["two"].is_leader()
                await asyncio.sleep(0.05)
            first.cancel()  # it dies without a word
            await asyncio.gather(first, return_exceptions=True)
            await until(electors["two"].is_leader, 10)
            assert not electors["one"].is_leader()
            async with kube(control_plane, tmp_path, fence=electors["one"].write_until) as late:
                with pytest.raises(NotLeader):
                    await late.create(NAMESPACES, {"metadata": {"name": "never"}})
            async with kube(control_plane, tmp_path, fence=electors["two"].write_until) as leader:
                await leader.patch_merge(NAMESPACES, NAMESPACE, {"metadata": {"labels": {"by": "two"}}})
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            await electors["two"].release()
            lease = await client.get(LEASES, "lead", NAMESPACE)
            assert not lease.spec.holder_identity
            assert lease.spec.lease_transitions == 2

    asyncio.run(scenario())
