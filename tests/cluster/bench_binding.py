"""Pods bound per second through the operator, beside the bare rate of the same writes on the same server.

    python tests/cluster/bench_binding.py [--nodes 500] [--pods 1000] [--runs 1] [--profile FILE]

One control plane is started for all runs. In each, a bare client makes the four writes of a pod (claim with its
finalizers, pod, the claim's status with allocation and reservation, binding) with 64 requests in flight, in the same
order of dependence, with the operator's rights and under its admission policies; then the operator places as many pods
from GangJobs that wait for it: 60 % 1×1, 15 % 1×4, 10 % 2×4 and 10 % 4×4 rack-required, by number of gangs. The
operator's clock runs from the moment its state is rebuilt to the last binding: ordering, placing, checking, status and
books are inside it. The nodes' taints are not: a pool that is in use has them. KWOK and the controller manager run
beside both; nodes send no heartbeats. Prints one JSON document a run, and the medians of several.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import ssl
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.api import path
from cluster.chart import LEASE, NAMESPACE, OPERATOR
from cluster.machines import DRIVER
from cluster.operator_process import OperatorProcess
from cluster.server import ControlPlane
from cluster.world import ClusterWorld
from fairlead.clock import now_ms
from fairlead.model.gang import Gang, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.simulation.workload import Owner, Shape, draw
from fairlead_operator.pods import Attempt, JobSheet, binding, claim_manifest, claim_status, pod_manifest

IN_FLIGHT = 64
QUEUE = "bench"
POD = "operator-0"
GPUS = 8
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
MIX = (
    Shape(percent=60, replicas=1, gpus=1),
    Shape(percent=15, replicas=1, gpus=4),
    Shape(percent=10, replicas=2, gpus=4, within="rack"),
    Shape(percent=10, replicas=4, gpus=4, within="rack"),
)


def drawn(namespace: str, pods: int) -> list[Gang]:
    """Draw gangs with exactly `pods` pods together."""
    gangs: list[Gang] = []
    left = pods
    owner = Owner(namespace=namespace, queue=QUEUE)
    for arrival in draw(42, count=pods, owners=[owner], start_ms=0, gap_ms=0, mix=MIX):
        if 0 < arrival.gang.members <= left:
            gangs.append(arrival.gang)
            left -= arrival.gang.members
    assert left == 0, left
    return gangs


class Client:
    """One asynchronous client of the API server with a bound on what is in flight."""

    def __init__(self, plane: Any, token: str) -> None:
        self._url = plane.url
        tls = ssl.create_default_context(cafile=str(plane.ca_file))
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._tls, self._headers = tls, {"Authorization": f"Bearer {token}"}
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=self._tls)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def send(self, method: str, where: str, body: Any, kind: str = "application/json") -> Any:
        """Send one request and return the answer; AssertionError where it is refused."""
        async with (
            self._slots,
            self._session.request(
                method, self._url + where, data=json.dumps(body), headers={"Content-Type": kind}
            ) as answer,
        ):
            raw = await answer.read()
            assert answer.status < 300, (method, where, raw[:500])
            return json.loads(raw)


def tries(world: ClusterWorld, gangs: list[Gang]) -> list[tuple[JobSheet, Attempt]]:
    """Give every gang devices, one node after the other; racks do not matter to the server."""
    free = [(node, device) for node in world.nodes for device in range(GPUS)]
    found: list[tuple[JobSheet, Attempt]] = []
    for gang in sorted(gangs, key=lambda gang: -gang.roles[0].gpus):  # so that no member straddles two nodes
        members: list[Member] = []
        for rank in range(gang.members):
            mine, free = free[: gang.roles[0].gpus], free[gang.roles[0].gpus :]
            assert len({node for node, _ in mine}) == 1, mine
            devices = tuple(f"gpu-{device}" for _, device in mine)
            members.append(Member(role="worker", index=rank, rank=rank, node=NodeName(mine[0][0]), devices=devices))
        job = world.api.get(path("gangjobs", world.namespace, gang.name))
        sheet = JobSheet(
            uid=job["metadata"]["uid"], namespace=world.namespace, name=gang.name, queue=QUEUE,
            templates={"worker": TEMPLATE},
        )  # fmt: skip
        placement = Placement(members=tuple(members), level="cluster", domain="", pace_bytes_per_s=0)
        found.append((sheet, Attempt(number=1, placement=placement, tier=Tier.IN_QUOTA, placed_at_ms=0)))
    return found


async def bare_pod(client: Client, sheet: JobSheet, member: Member, attempt: Attempt) -> None:
    """The four writes of one pod, one after the other."""
    space = sheet.namespace
    claim = await client.send("POST", path("resourceclaims", space), claim_manifest(sheet, member, attempt, DRIVER))
    pod = await client.send("POST", path("pods", space), pod_manifest(sheet, member, attempt))
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    claim["status"] = claim_status(member.node, member.devices, name, uid, DRIVER, str(member.node))
    await client.send("PUT", path("resourceclaims", space, claim["metadata"]["name"], "status"), claim)
    await client.send("POST", path("pods", space, name, "binding"), binding(space, name, uid, member.node))


async def bare(world: ClusterWorld, gangs: list[Gang], token: str) -> dict[str, float]:
    """Return seconds and CPU seconds of the bare client for all pods."""
    work, server = tries(world, gangs), api_server_cpu(world)
    async with Client(world.plane, token) as client:
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(bare_pod(client, s, m, a) for s, a in work for m in a.placement.members))
        seconds, mine = time.monotonic() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": mine, "server_cpu_s": api_server_cpu(world) - server}


async def submit(world: ClusterWorld, gangs: list[Gang]) -> None:
    """Create all GangJobs."""
    async with Client(world.plane, world.plane.token("admin")) as client:
        await asyncio.gather(*(client.send("POST", path("gangjobs", world.namespace), gangjob(g)) for g in gangs))


def gangjob(gang: Gang) -> dict[str, Any]:
    """Write a drawn gang as a GangJob."""
    role = gang.roles[0]
    spec: dict[str, Any] = {
        "queue": QUEUE,
        "roles": [{"name": "worker", "replicas": role.replicas, "devices": {"count": role.gpus}, "template": TEMPLATE}],
    }
    if gang.topology:
        spec["topology"] = {"within": gang.topology.within}
    metadata = {"name": gang.name, "namespace": gang.namespace}
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "GangJob", "metadata": metadata, "spec": spec}


async def sweep(world: ClusterWorld) -> None:
    """Empty the namespace, finalizers and all."""
    async with Client(world.plane, world.plane.token("admin")) as client:

        async def remove(plural: str, name: str) -> None:
            where, merge = path(plural, world.namespace, name), "application/merge-patch+json"
            with contextlib.suppress(AssertionError):  # it went by itself meanwhile
                if plural != "gangjobs":
                    await client.send("PATCH", where, {"metadata": {"finalizers": None}}, merge)
                await client.send("DELETE", where, {"gracePeriodSeconds": 0})

        # Owners last, or the garbage collector does all of it a second time.
        for plural in ("pods", "resourceclaims", "services", "gangjobs"):
            names = [found["metadata"]["name"] for found in world.api.list(path(plural, world.namespace))]
            await asyncio.gather(*(remove(plural, name) for name in names))
    world.clear()


class Bindings(threading.Thread):
    """Notes when each pod was bound, from a watch; it reads bytes and parses nothing that it does not need."""

    def __init__(self, world: ClusterWorld) -> None:
        super().__init__(daemon=True)
        self.at: dict[str, int] = {}
        self.over = threading.Event()
        self._world = world
        self._version = world.api.list_whole(path("pods", world.namespace))["metadata"]["resourceVersion"]

    def run(self) -> None:
        """Watch, a few seconds at a time, until `over` is set."""
        while not self.over.is_set():
            for event in self._world.api.watch(path("pods", self._world.namespace), self._version, seconds=3):
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["object"]["spec"].get("nodeName"):
                    self.at.setdefault(event["object"]["metadata"]["name"], now_ms())


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def api_server_cpu(world: ClusterWorld) -> float:
    """CPU time of the API server so far."""
    return cpu_seconds(world.plane.pids["kube-apiserver"])


def operated(world: ClusterWorld, pods: int, folder: Path, profile: str) -> dict[str, float]:
    """Return seconds and CPU seconds of the operator for the GangJobs that are there."""
    world.free_lease()
    watch = Bindings(world)
    watch.start()
    with OperatorProcess(world.plane, folder, POD, profile=profile) as operator:
        operator.wait_ready()
        cpu, server = cpu_seconds(operator.pid), api_server_cpu(world)
        deadline = time.monotonic() + 120
        while len(watch.at) < pods:
            assert time.monotonic() < deadline, f"{len(watch.at)} of {pods} pods are bound\n{operator.tail()}"
            time.sleep(0.02)
        cpu, server = cpu_seconds(operator.pid) - cpu, api_server_cpu(world) - server
        stamp = re.search(r"ts=(\S+)Z", operator.said("event=rebuilt")[0])
        assert stamp is not None
        rebuilt = datetime.fromisoformat(stamp[1]).replace(tzinfo=UTC).timestamp()
        violations = operator.metrics()["fairlead_violations_total"]
        failed = len(operator.said("event=place_failed"))
    watch.over.set()
    watch.join()
    assert violations == 0
    return {
        "seconds": max(watch.at.values()) / 1000 - rebuilt,
        "cpu_s": cpu,
        "server_cpu_s": server,
        "place_failed": failed,
    }


def one_run(world: ClusterWorld, pods: int, folder: Path, profile: str = "") -> dict[str, Any]:
    """Measure bare and operator once."""
    gangs = drawn(world.namespace, pods)
    token = world.plane.pod_bound_token(NAMESPACE, OPERATOR, POD)
    asyncio.run(submit(world, gangs))
    world.api.patch(LEASE, {"spec": {"holderIdentity": POD}})
    time.sleep(2)  # the policy reads the Lease through a watch
    plain = asyncio.run(bare(world, gangs, token))
    asyncio.run(sweep(world))
    asyncio.run(submit(world, gangs))
    ours = operated(world, pods, folder, profile)
    asyncio.run(sweep(world))
    return {
        "nodes": len(world.nodes),
        "pods": pods,
        "gangs": len(gangs),
        "gpus": sum(gang.gpus for gang in gangs),
        "bound_per_second": round(pods / ours["seconds"], 1),
        "bare_per_second": round(pods / plain["seconds"], 1),
        "ratio": round(plain["seconds"] / ours["seconds"], 3),
        "seconds": round(ours["seconds"], 2),
        "bare_seconds": round(plain["seconds"], 2),
        "operator_cpu_s": round(ours["cpu_s"], 2),
        "bare_cpu_s": round(plain["cpu_s"], 2),
        "api_server_cpu_s": round(ours["server_cpu_s"], 2),
        "api_server_cpu_s_bare": round(plain["server_cpu_s"], 2),
        "place_failed": ours["place_failed"],
    }


def main() -> None:
    """Run and print."""
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--nodes", type=int, default=500)
    wanted.add_argument("--pods", type=int, default=1000)
    wanted.add_argument("--runs", type=int, default=1)
    wanted.add_argument("--profile", default="", help="write the operator's cProfile to this file")
    given = wanted.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane() as plane,
        ClusterWorld(plane, "bench", nodes=given.nodes, nodes_per_rack=10, pool={"taint": False}) as world,
    ):
        world.queue(QUEUE, guaranteed=given.nodes * GPUS)
        runs = []
        for number in range(given.runs):
            runs.append(one_run(world, given.pods, Path(folder, str(number)), given.profile))
            print(json.dumps(runs[-1]), flush=True)
        if len(runs) > 1:
            medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(json.dumps({"medians_of": len(runs), **medians}))


if __name__ == "__main__":
    main()
