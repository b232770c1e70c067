"""What the watches see becomes facts: only real changes, each told once, and nothing that is ours by label alone."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import msgspec

from fairlead.model.events import (
    Event,
    ForeignDevices,
    MemberEnded,
    MemberReleased,
    MemberRunning,
    NodeGone,
    NodeSeen,
    NodeUsed,
    PoolSeen,
    Recovered,
)
from fairlead.model.gang import Gang, GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName, Resources
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.custom_objects import GangJob, NodeTopology, PoolObject, QueueObject
from fairlead_operator.device_objects import Claim, Slice
from fairlead_operator.facts import Intake
from fairlead_operator.objects import NodeObject, Pod
from fairlead_operator.watch import Change

NOW = 1_772_366_405_500  # 2026-03-01T12:00:05.5Z
ADDED, MODIFIED, DELETED = Change.ADDED, Change.MODIFIED, Change.DELETED


def decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(json.dumps(value), type=kind)


class Stage:
    """An intake whose facts are collected and whose flush runs when asked."""

    def __init__(self, accept: Any = None, **more: Any) -> None:
        self.facts: list[Event] = []
        self.over: list[str] = []
        self.gap = 0

        async def refuse_all(job: GangJob) -> Gang | Refusal:
            raise AssertionError(job)

        self.intake = Intake(
            self.facts.append,
            accept or refuse_all,
            level_labels={"rack": ("fairlead.dev/rack",)},
            now_ms=lambda: NOW,
            rng=random.Random(1),
            gap_ms=lambda: self.gap,
            on_over=lambda pod: self.over.append(pod.metadata.name),
            defer=lambda call: None,
            **more,
        )

    def take(self) -> list[Event]:
        self.intake.nodes.flush()
        taken, self.facts[:] = list(self.facts), []
        return taken


def node(name: str = "n1", **more: Any) -> NodeObject:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    meta = {"name": name, "uid": f"node-{name}", "labels": {"pool": "p"}, "creationTimestamp": "2026-03-01T11:00:00Z"}
    status = {"allocatable": {"cpu": "8"}, "conditions": [{**ready, **more.pop("ready", {})}]}
    found = decoded({"metadata": meta, "spec": more.pop("spec", {}), "status": status}, NodeObject)
    assert isinstance(found, NodeObject)
    return found


def slice_of(devices: int, node_name: str = "n1", pool: str = "") -> Slice:
    spec = {
        "driver": "gpu.nvidia.com",
        "nodeName": node_name,
        "pool": {"name": pool or node_name, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": f"gpu-{i}"} for i in range(devices)],
    }
    found = decoded({"metadata": {"name": f"s-{node_name}", "uid": f"s-{node_name}"}, "spec": spec}, Slice)
    assert isinstance(found, Slice)
    return found


def pod(name: str = "p", *, ours: bool = True, phase: str = "", claim: bool = True, **more: Any) -> Pod:
    labels = {"fairlead.dev/gang-uid": "g", "fairlead.dev/attempt": "1", "fairlead.dev/rank": "0"} if ours else {}
    owners = [{"kind": "GangJob", "name": "j", "uid": "g"}] if ours else []
    meta = {"name": name, "uid": f"uid-{name}", "labels": labels, "ownerReferences": owners, **more.pop("meta", {})}
    spec = {
        "nodeName": "n1",
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}, "ports": [{"hostPort": 80}]}],
        "resourceClaims": [{"name": "gpus"}] if claim else [],
        **more.pop("spec", {}),
    }
    found = decoded({"metadata": meta, "spec": spec, "status": {"phase": phase, **more.pop("status", {})}}, Pod)
    assert isinstance(found, Pod)
    return found


def claim(
    name: str = "c", *, ours: bool = True, devices: tuple[str, ...] = (), rank: int = 0, pool: str = "n1"
) -> Claim:
    labels = {"fairlead.dev/gang-uid": "g", "fairlead.dev/attempt": "1", "fairlead.dev/rank": str(rank)}
    meta = {"name": name, "uid": f"uid-{name}", "labels": labels if ours else {}}
    if ours:
        meta["ownerReferences"] = [{"kind": "GangJob", "uid": "g"}]  # type: ignore[assignment]
    results = [{"request": "r", "driver": "gpu.nvidia.com", "pool": pool, "device": device} for device in devices]
    status = {"allocation": {"devices": {"results": results}}} if devices else {}
    found = decoded({"metadata": meta, "status": status}, Claim)
    assert isinstance(found, Claim)
    return found


# --- nodes --------------------------------------------------------------------------------------------------------


def test_a_node_is_told_once_and_again_only_when_it_differs() -> None:
    stage = Stage()
    stage.intake.on_slice(ADDED, None, slice_of(2))
    stage.intake.on_node(ADDED, None, node())
    stage.intake.on_topology(ADDED, None, decoded({"metadata": {"name": "n1"}, "spec": {}}, NodeTopology))
    (seen,) = stage.take()
    assert isinstance(seen, NodeSeen)
    assert [g.device for g in seen.node.machine.gpus] == ["gpu-0", "gpu-1"]
    stage.intake.on_node(MODIFIED, node(), node(ready={"lastHeartbeatTime": "2026-03-01T12:00:04Z"}))
    assert stage.take() == []
    stage.intake.on_node(MODIFIED, node(), node(ready={"status": "Unknown"}))
    (lost,) = stage.take()
    assert isinstance(lost, NodeSeen)
    assert not lost.node.ready
    stage.intake.on_node(DELETED, node(), None)
    assert stage.take() == [NodeGone(name=NodeName("n1"), at_ms=NOW)]


def test_an_out_of_service_node_is_gone_and_comes_back_whole() -> None:
    stage = Stage()
    stage.intake.open([], [])
    stage.intake.on_node(ADDED, None, node())
    stage.intake.on_pod(ADDED, None, pod("x", ours=False))
    assert [type(fact) for fact in stage.take()] == [NodeSeen, NodeUsed]
    out = {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}
    stage.intake.on_node(MODIFIED, None, node(spec=out))
    assert [type(fact) for fact in stage.take()] == [NodeGone]
    stage.intake.on_node(MODIFIED, None, node())
    assert [type(fact) for fact in stage.take()] == [NodeSeen, NodeUsed]


def test_a_pool_puts_its_nodes_under_it() -> None:
    stage = Stage()
    stage.intake.on_node(ADDED, None, node())
    stage.take()
    found = {"metadata": {"name": "a"}, "spec": {"nodeSelector": {"pool": "p"}}}
    stage.intake.on_pool(ADDED, None, decoded(found, PoolObject))
    told, seen = stage.take()
    assert isinstance(told, PoolSeen)
    assert isinstance(seen, NodeSeen)
    assert seen.node.pool == "a"
    bad = {"metadata": {"name": "a"}, "spec": {"nodeSelector": {"pool": "p"}, "mode": "count"}}
    stage.intake.on_pool(MODIFIED, None, decoded(bad, PoolObject))
    assert stage.take() == []  # its last good state goes on
    assert "spec.mode count" in stage.intake.problems[("Pool", "a")]


def test_what_others_take_is_summed_and_given_back() -> None:
    stage = Stage()
    stage.intake.on_node(ADDED, None, node())
    stage.intake.open([pod("a", ours=False)], [])
    stage.intake.on_pod(ADDED, None, pod("b", ours=False))
    two = Resources(cpu_milli=4_000, pods=2)
    ports = (("TCP", "0.0.0.0", 80),)
    assert stage.take()[-1] == NodeUsed(name=NodeName("n1"), taken=two, at_ms=NOW, host_ports=ports)
    stage.intake.on_pod(MODIFIED, None, pod("b", ours=False, status={"message": "hello"}))
    assert stage.take() == []
    stage.intake.on_pod(MODIFIED, None, pod("b", ours=False, phase="Succeeded"))
    one = Resources(cpu_milli=2_000, pods=1)
    assert stage.take() == [NodeUsed(name=NodeName("n1"), taken=one, at_ms=NOW, host_ports=ports)]
    stage.intake.on_pod(DELETED, pod("b", ours=False), None)
    stage.intake.on_pod(DELETED, pod("a", ours=False), None)
    assert stage.take() == [NodeUsed(name=NodeName("n1"), taken=Resources(), at_ms=NOW)]
    stage.intake.on_pod(ADDED, None, pod("w", ours=False, spec={"nodeName": ""}))
    assert stage.take() == []


def test_devices_of_others_are_named_in_full() -> None:
    stage = Stage()
    stage.intake.on_slice(ADDED, None, slice_of(4, pool="pool-of-n1"))
    stage.intake.on_node(ADDED, None, node())
    stage.intake.open([], [claim("x", ours=False, devices=("gpu-3", "gpu-1"), pool="pool-of-n1")])
    assert stage.take()[-1] == ForeignDevices(name=NodeName("n1"), devices=("gpu-1", "gpu-3"), at_ms=NOW)
    stage.intake.on_claim(ADDED, None, claim("y", ours=False, devices=("gpu-1",), pool="pool-of-n1"))
    assert stage.take() == []
    stage.intake.on_claim(MODIFIED, None, claim("x", ours=False))
    assert stage.take() == [ForeignDevices(name=NodeName("n1"), devices=("gpu-1",), at_ms=NOW)]
    stage.intake.on_claim(DELETED, claim("y", ours=False, devices=("gpu-1",), pool="pool-of-n1"), None)
    assert stage.take() == [ForeignDevices(name=NodeName("n1"), devices=(), at_ms=NOW)]


def test_a_label_alone_makes_nothing_ours() -> None:
    forged = claim("x", devices=("gpu-0",))
    stranger = msgspec.structs.replace(forged, metadata=msgspec.structs.replace(forged.metadata, owner_references=[]))
    for knows, found in ((True, stranger), (False, forged)):
        stage = Stage(knows=lambda gang, attempt, knows=knows: knows)
        stage.intake.on_slice(ADDED, None, slice_of(1))
        stage.intake.on_node(ADDED, None, node())
        stage.intake.open([], [found])
        assert stage.take()[-1] == ForeignDevices(name=NodeName("n1"), devices=("gpu-0",), at_ms=NOW)


# --- members ------------------------------------------------------------------------------------------------------

G = GangId("g")


def member(kind: Any, **more: Any) -> Any:
    return kind(gang=G, attempt=1, rank=0, **{"at_ms": NOW, **more})


def opened() -> Stage:
    stage = Stage()
    stage.intake.open([], [])
    return stage


def test_the_life_of_a_member_with_devices() -> None:
    stage = opened()
    stage.intake.on_claim(ADDED, None, claim())  # not allocated yet: nothing is free for that reason
    stage.intake.on_pod(ADDED, None, pod(phase="Pending", spec={"nodeName": ""}))
    stage.intake.on_claim(MODIFIED, None, claim(devices=("gpu-0",)))
    assert stage.take() == []
    running = {"containerStatuses": [{"name": "c", "state": {"running": {"startedAt": "2026-03-01T12:00:02Z"}}}]}
    for _ in range(2):
        stage.intake.on_pod(MODIFIED, None, pod(phase="Running", status=running))
    assert stage.take() == [member(MemberRunning, at_ms=1_772_366_402_999)]  # the end of the second that it names
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-03-01T12:00:05Z"}
    status = {"containerStatuses": [{"name": "c", "state": {"terminated": ended}}]}
    for _ in range(2):
        stage.intake.on_pod(MODIFIED, None, pod(phase="Failed", status=status))
    detail = "container c exited with 137 (OOMKilled)"
    assert stage.take() == [member(MemberEnded, succeeded=False, detail=detail)]  # never later than now
    assert stage.over == ["p"]
    stage.gap = 700
    for _ in range(2):
        stage.intake.on_claim(MODIFIED, None, claim())
    assert stage.take() == [member(MemberReleased, estimated_ms=700)]
    stage.intake.on_pod(DELETED, pod(phase="Failed"), None)
    stage.intake.on_claim(DELETED, claim(), None)
    assert stage.take() == []
    assert (G, 1, 0) not in stage.intake.members


def test_success_and_release_by_the_end_of_the_claim() -> None:
    stage = opened()
    stage.intake.on_claim(ADDED, None, claim(devices=("gpu-0",)))
    stage.intake.on_pod(ADDED, None, pod(phase="Succeeded"))
    assert stage.take() == [member(MemberEnded, succeeded=True)]
    stage.intake.on_claim(DELETED, claim(devices=("gpu-0",)), None)
    assert stage.take() == [member(MemberReleased)]


def test_a_pod_that_somebody_deletes_has_not_succeeded_and_holds_until_its_claim_is_empty() -> None:
    stage = opened()
    stage.intake.on_claim(ADDED, None, claim(devices=("gpu-0",)))
    leaving = {"deletionTimestamp": "2026-03-01T12:00:30Z", "deletionGracePeriodSeconds": 30}
    stage.intake.on_pod(ADDED, None, pod(phase="Running", meta=leaving))
    assert [type(fact) for fact in stage.take()] == [MemberRunning, MemberEnded]
    assert stage.over == []  # it still runs
    gone = {**leaving, "deletionGracePeriodSeconds": 0}
    stage.intake.on_pod(MODIFIED, None, pod(phase="Running", meta=gone))
    assert stage.over == ["p"]
    stage.intake.on_pod(DELETED, pod(phase="Running"), None)
    assert stage.take() == []
    stage.intake.on_claim(MODIFIED, None, claim())
    assert stage.take() == [member(MemberReleased)]


def test_an_eviction_says_why() -> None:
    stage = opened()
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
    stage.intake.on_pod(ADDED, None, pod(phase="Failed", status={"conditions": [disrupted]}))
    (ended, *_) = stage.take()
    assert isinstance(ended, MemberEnded)
    assert ended.detail == "EvictionByEvictionAPI: drain"


def test_a_member_without_devices_is_released_with_its_pod() -> None:
    stage = opened()
    status = {"containerStatuses": [{"name": "c", "state": {"terminated": {"finishedAt": "2026-03-01T12:00:01Z"}}}]}
    stage.intake.on_pod(ADDED, None, pod(phase="Succeeded", claim=False, status=status))
    at_ms = 1_772_366_401_999
    assert stage.take() == [member(MemberEnded, succeeded=True, at_ms=at_ms), member(MemberReleased, at_ms=at_ms)]
    other = opened()
    other.intake.on_pod(ADDED, None, pod(phase="Running", claim=False))
    other.intake.on_pod(DELETED, pod(phase="Running", claim=False), None)
    assert [type(fact) for fact in other.take()] == [MemberRunning, MemberEnded, MemberReleased]


def test_nothing_of_members_is_told_before_the_rebuild_and_what_vanished_meanwhile_is_released() -> None:
    stage = Stage()
    held = claim(devices=("gpu-0",))
    stage.intake.on_claim(ADDED, None, held)
    assert stage.take() == []
    members = tuple(Member(role="w", index=i, rank=i, node=NodeName("n1"), devices=("gpu-0",)) for i in range(2))
    found = Recovered(
        gang=G,
        attempt=1,
        placement=Placement(members=members),
        tier=Tier.IN_QUOTA,
        since_ms=1,
        bound=True,
        holding=(0, 1),
        running=(),
        at_ms=2,
    )
    stage.intake.open([pod(phase="Running")], [held], [found])
    running, released = stage.take()
    assert isinstance(running, MemberRunning)
    assert released == MemberReleased(gang=G, attempt=1, rank=1, at_ms=NOW)


def test_a_queues_status_judges_no_job_again_and_its_spec_does() -> None:
    """We write queues' statuses ourselves every few seconds; ten thousand waiting jobs must not hear of each."""
    judged: list[str] = []

    async def accept(job: GangJob) -> Refusal:
        judged.append(job.metadata.name)
        return refuse(Reason.AWAITING_CYCLE)

    def queue(version: str, limit: int, used: int) -> QueueObject:
        spec = {"resources": [{"name": "gpu", "guaranteed": 8, "limit": limit}]}
        found = {"metadata": {"name": "q", "uid": "q", "resourceVersion": version}, "spec": spec}
        return decoded({**found, "status": {"used": used}}, QueueObject)

    async def story() -> None:
        stage = Stage(accept)
        role = {"name": "worker", "replicas": 1, "template": {}}
        job = {"metadata": {"name": "j", "uid": "j", "generation": 1}, "spec": {"queue": "q", "roles": [role]}}
        workers = asyncio.create_task(stage.intake.gangs.run())
        stage.intake.on_gangjob(ADDED, None, decoded(job, GangJob))
        await stage.intake.gangs.settled(5)
        assert judged == ["j"]
        stage.intake.on_queue(ADDED, None, queue("1", 16, 0))
        await stage.intake.gangs.settled(5)
        assert judged == ["j"] * 2
        stage.intake.on_queue(MODIFIED, queue("1", 16, 0), queue("2", 16, 8))
        await stage.intake.gangs.settled(5)
        assert judged == ["j"] * 2
        stage.intake.on_queue(MODIFIED, queue("2", 16, 8), queue("3", 32, 8))
        await stage.intake.gangs.settled(5)
        assert judged == ["j"] * 3
        workers.cancel()
        await asyncio.gather(workers, return_exceptions=True)

    asyncio.run(story())
