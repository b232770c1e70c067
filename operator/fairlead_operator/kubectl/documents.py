"""Objects of an API server as the documents that the tables print (`fairlead.service.view_json`). Pure functions.

Objects are plain JSON mappings. Whatever a status does not say yet is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Placement
from fairlead.service.saving_json import SavingDoc
from fairlead.service.view_json import (
    AllocationDoc,
    GangDoc,
    NodeDoc,
    PoolDoc,
    QueueDoc,
    ResourceDoc,
    StartDoc,
    UsageDoc,
    allocation_doc,
)
from fairlead_operator.allocations import read_members

Object = Mapping[str, Any]
GANG_LABEL = "fairlead.dev/gang"
LEVELS = {
    "rack": ("fairlead.dev/rack", "topology.kubernetes.io/rack"),
    "block": ("fairlead.dev/block", "topology.kubernetes.io/block"),
}


def gang(item: Object, priorities: Mapping[str, int]) -> GangDoc:
    """Return a GangJob's document; `priorities` are the values of PriorityClasses as far as they may be read."""
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    roles = spec.get("roles") or []
    members = sum(int(role.get("replicas") or 0) for role in roles)
    asked = sum(int(r.get("replicas") or 0) * int((r.get("devices") or {}).get("count") or 0) for r in roles)
    phase = str(status.get("phase") or "Pending")
    waits = phase == "Pending"
    allocation = _allocation(status.get("allocation"))
    return GangDoc(
        namespace=str(meta.get("namespace") or ""),
        name=str(meta["name"]),
        queue=str(spec.get("queue") or ""),
        priority=priorities.get(str(spec.get("priorityClassName") or "")),
        gpus=int(status.get("gpus", asked)),
        members=members,
        phase=phase,
        attempt=int(status.get("attempt") or 0),
        restarts=int(status.get("restarts") or 0),
        position=status.get("position"),
        reason=status.get("reason") or ("NotSeenYet" if not status else None),
        message=status.get("message") or ("the operator has not written a status yet" if not status else None),
        start=_start(status.get("startEstimate") or {}) if waits else None,
        pace_bytes_per_s=None if allocation is None else allocation["pace_bytes_per_s"],
        span=None if allocation is None else allocation["span"],
        allocation=allocation,
        tier=None,
        victims=[str(victim) for victim in (status.get("nomination") or {}).get("victims") or []],
        submitted_ms=time_ms(meta.get("creationTimestamp")),
        started_ms=status.get("startedAtMs"),
        finished_ms=status.get("finishedAtMs"),
        gpu_ms=int((status.get("usage") or {}).get("gpuMs") or 0),
        lost_gpu_ms=int(status.get("lostGpuMs") or 0),
        checkpoint=_saving(status),
        idle_since_ms=status.get("idleSinceMs") if phase == "Running" else None,
    )


def _saving(status: Mapping[str, Any]) -> SavingDoc | None:
    """Read status.checkpoint; a gang that neither declares nor has any has none."""
    found, notice = status.get("checkpoint"), status.get("notice") or {}
    if not isinstance(found, Mapping):
        return None
    asked = status.get("phase") == "Stopping" and notice.get("attempt") == status.get("attempt")
    return SavingDoc(
        step=found.get("step"),
        attempt=found.get("attempt"),
        began_ms=found.get("beganAtMs"),
        path=found.get("path"),
        save_ms=found.get("saveMs") or None,
        interval_ms=found.get("intervalMs") or None,
        recommended_interval_ms=found.get("recommendedIntervalMs") or None,
        restart_ms=found.get("restartMs") or None,
        false_claims=int(found.get("falseClaims") or 0),
        problem=found.get("problem"),
        stops_by_ms=notice.get("untilMs") if asked else None,
    )


def with_positions(gangs: Iterable[GangDoc], views: Iterable[Object]) -> None:
    """Take places in the queue from QueueViews: they are newer than those in the GangJobs' own status."""
    places: dict[tuple[str, str], int] = {}
    for view in views:
        namespace = str(view["metadata"].get("namespace") or "")
        for entry in (view.get("status") or {}).get("positions") or []:
            places[namespace, str(entry["gangJob"])] = int(entry["position"])
    for doc in gangs:
        if doc["phase"] == "Pending":
            doc["position"] = places.get((doc["namespace"], doc["name"]), doc["position"])


def queue(item: Object) -> QueueDoc:
    """Return a Queue's document."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    quota: Object = next((entry for entry in spec.get("resources") or [] if entry.get("name") == "gpu"), {})
    conditions: list[Object] = status.get("conditions") or []
    over = any(c.get("type") == "OverLimit" and c.get("status") == "True" for c in conditions)
    bad = (("Accepted", "False"), ("CostAnomaly", "True"))
    said = [str(c.get("message")) for c in conditions if (c.get("type"), c.get("status")) in bad]
    return QueueDoc(
        name=str(item["metadata"]["name"]),
        parent=spec.get("parent"),
        tenant=None,
        guaranteed=int(quota.get("guaranteed") or 0),
        limit=quota.get("limit"),
        used=int(status.get("used") or 0),
        borrowed=int(status.get("borrowed") or 0),
        pending=int(status.get("pending") or 0),
        pending_gpus=status.get("pendingGpus"),
        running=status.get("running"),
        over_limit=over,
        kind=spec.get("tenantKind"),
        notes=[*said, *(str(text) for text in status.get("exceptions") or [])],
        resources=_resources(status),
    )


def _resources(status: Object) -> list[ResourceDoc]:
    """Return what the status of a Queue or QueueView says of each resource."""
    return [
        ResourceDoc(
            name=str(one.get("name") or ""),
            guaranteed=int(one.get("guaranteed") or 0),
            limit=one.get("limit"),
            used=int(one.get("used") or 0),
            borrowed=int(one.get("borrowed") or 0),
        )
        for one in status.get("resources") or []
    ]


def with_tenants(queues: Sequence[QueueDoc]) -> None:
    """Fill in each queue's tenant: the root of its subtree."""
    parents = {doc["name"]: doc["parent"] for doc in queues}
    for doc in queues:
        name, seen = doc["name"], {doc["name"]}
        while (parent := parents.get(name)) and parent in parents and parent not in seen:
            seen.add(parent)
            name = parent
        doc["tenant"] = name


def queue_view(item: Object) -> QueueDoc:
    """Return what a tenant may see of a queue."""
    status = item.get("status") or {}
    return QueueDoc(
        name=str((item.get("spec") or {}).get("queue") or item["metadata"]["name"]),
        parent=None,
        tenant=None,
        guaranteed=int(status.get("guaranteed") or 0),
        limit=status.get("limit"),
        used=int(status.get("used") or 0),
        borrowed=int(status.get("borrowed") or 0),
        pending=int(status.get("pending") or 0),
        pending_gpus=None,
        running=None,
        over_limit=None,
        kind=None,
        notes=[str(status["costAnomaly"])] if status.get("costAnomaly") else [],
        resources=_resources(status),
    )


def nodes(
    topologies: Iterable[Object],
    nodes: Iterable[Object],
    slices: Iterable[Object],
    claims: Iterable[Object],
    pools: Iterable[Object],
) -> list[NodeDoc]:
    """Join NodeTopologies, Nodes, ResourceSlices and ResourceClaims to one document a node that has GPUs.

    A device counts once: down before held before foreign before free.
    """
    node_of_pool, devices = _devices_by_node(slices)
    found = {str(item["metadata"]["name"]): item.get("spec") or {} for item in topologies}
    held, foreign, gangs = _taken(claims, node_of_pool)
    selectors = [(str(p["metadata"]["name"]), (p.get("spec") or {}).get("nodeSelector") or {}) for p in pools]
    docs: list[NodeDoc] = []
    for item in sorted(nodes, key=lambda item: str(item["metadata"]["name"])):
        name = str(item["metadata"]["name"])
        gpus = (found.get(name) or {}).get("gpus") or []
        every = devices.get(name) or {str(gpu.get("device") or gpu["id"]) for gpu in gpus}
        if not every:
            continue
        sick = {str(gpu.get("device")) for gpu in gpus if gpu.get("healthy") is False}
        ready = _ready(item)
        down = every if not ready else every & sick
        ours, others = (every & held.get(name, set())) - down, (every & foreign.get(name, set())) - down
        labels = item["metadata"].get("labels") or {}
        docs.append(
            NodeDoc(
                name=name,
                pool=next((p for p, s in selectors if s and all(labels.get(k) == v for k, v in s.items())), ""),
                levels=_levels(labels),
                model=", ".join(sorted({str(gpu["model"]) for gpu in gpus if gpu.get("model")})),
                gpus=len(every),
                free=len(every - down - ours - others),
                held=len(ours),
                foreign=len(others - ours),
                down=len(down),
                ready=ready,
                schedulable=not (item.get("spec") or {}).get("unschedulable", False),
                gangs=sorted(gangs.get(name, set())),
                conflicts=[] if found.get(name) else ["no NodeTopology"],
            )
        )
    return docs


def pool(item: Object) -> PoolDoc:
    """Return a Pool's document."""
    status = item.get("status") or {}
    counts = {name: int(status.get(name) or 0) for name in ("nodes", "gpus", "free", "unmanaged", "down")}
    return PoolDoc(
        name=str(item["metadata"]["name"]),
        nodes=counts["nodes"],
        gpus=counts["gpus"],
        free=counts["free"],
        held=counts["gpus"] - counts["free"] - counts["unmanaged"] - counts["down"],
        foreign=counts["unmanaged"],
        down=counts["down"],
    )


def usage(
    gangs: Iterable[GangDoc], queue_gpu_ms: Mapping[str, int], tenants: Mapping[str, str | None]
) -> list[UsageDoc]:
    """Return usage by queue. `queue_gpu_ms`, where known, also counts gangs that exist no more."""
    empty = {name: UsageDoc(tenant=tenants.get(name), queue=name, gangs=0, gpu_ms=0, lost_gpu_ms=0) for name in tenants}
    for doc in gangs:
        new = UsageDoc(tenant=None, queue=doc["queue"], gangs=0, gpu_ms=0, lost_gpu_ms=0)
        entry = empty.setdefault(doc["queue"], new)
        entry["gangs"] += 1
        entry["gpu_ms"] += doc["gpu_ms"]
        entry["lost_gpu_ms"] += doc["lost_gpu_ms"]
    for name, gpu_ms in queue_gpu_ms.items():
        if name in empty:
            empty[name]["gpu_ms"] = max(gpu_ms, empty[name]["gpu_ms"])
    return sorted(empty.values(), key=lambda entry: (entry["tenant"] or "", entry["queue"]))


def time_ms(text: object) -> int | None:
    """Return an RFC 3339 time in UTC ms, None where absent or unreadable."""
    if not isinstance(text, str):
        return None
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1_000)
    except ValueError:
        return None


def _start(estimate: Object) -> StartDoc:
    return StartDoc(
        p50_ms=time_ms(estimate.get("p50")),
        p90_ms=time_ms(estimate.get("p90")),
        basis=str(estimate.get("basis") or "unknown"),
    )


def _allocation(allocation: Object | None) -> AllocationDoc | None:
    if not allocation or not allocation.get("members"):
        return None
    groups = [(str(on.get("node")), [str(text) for text in on.get("pods") or []]) for on in allocation["members"]]
    try:
        members = read_members(groups, [str(cpus) for cpus in allocation.get("cpuSets") or []])
    except UnreadableInput:
        return None  # somebody has edited the status; the operator writes it anew with the next attempt
    left = set(allocation.get("left") or [])
    placement = Placement(
        members=tuple(member for member in members if member.rank not in left),
        level=str(allocation.get("level") or "cluster"),
        domain=str(allocation.get("domain") or ""),
        pace_bytes_per_s=int(allocation.get("pace") or 0),
        span=tuple(sorted((str(level), int(count)) for level, count in (allocation.get("span") or {}).items())),
        penalties=tuple(str(text) for text in allocation.get("penalties") or []),
    )
    return allocation_doc(placement, allocation.get("placedAtMs"))


def _devices_by_node(slices: Iterable[Object]) -> tuple[dict[tuple[str, str], str], dict[str, set[str]]]:
    """Return (driver, pool) -> node, and the device names of every node."""
    node_of_pool: dict[tuple[str, str], str] = {}
    devices: dict[str, set[str]] = {}
    for item in slices:
        spec = item.get("spec") or {}
        node = spec.get("nodeName")
        if node:
            node_of_pool[str(spec.get("driver")), str((spec.get("pool") or {}).get("name"))] = str(node)
            devices.setdefault(str(node), set()).update(str(d["name"]) for d in spec.get("devices") or [])
    return node_of_pool, devices


def _taken(
    claims: Iterable[Object], node_of_pool: Mapping[tuple[str, str], str]
) -> tuple[dict[str, set[str]], dict[str, set[str]], dict[str, set[str]]]:
    """Return node -> devices held by gangs, node -> devices held by others, node -> gangs."""
    held: dict[str, set[str]] = {}
    foreign: dict[str, set[str]] = {}
    gangs: dict[str, set[str]] = {}
    for claim in claims:
        meta = claim["metadata"]
        allocation = (claim.get("status") or {}).get("allocation") or {}
        gang_name = (meta.get("labels") or {}).get(GANG_LABEL)
        for result in (allocation.get("devices") or {}).get("results") or []:
            node = node_of_pool.get((str(result.get("driver")), str(result.get("pool"))))
            if node is None:
                continue
            (held if gang_name else foreign).setdefault(node, set()).add(str(result["device"]))
            if gang_name:
                gangs.setdefault(node, set()).add(f"{meta.get('namespace')}/{gang_name}")
    return held, foreign, gangs


def _ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _levels(labels: Object) -> dict[str, str]:
    levels: dict[str, str] = {}
    for level, keys in LEVELS.items():
        value = next((str(labels[key]) for key in keys if labels.get(key)), None)
        if value is not None:
            levels[level] = value
    return levels
