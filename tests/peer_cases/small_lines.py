"""Small lines in the schemas of the peers' cases, for tests of the converters."""

from __future__ import annotations

from typing import Any

from peer_cases import run as peer_run
from peer_cases.verdicts import Verdict

BLOCK, RACK, HOST = "example.com/block", "example.com/rack", "kubernetes.io/hostname"


def passes(case: dict[str, Any]) -> bool:
    verdict: Verdict = peer_run.judge(case)
    assert (verdict.state, verdict.why) == ("law", ()), verdict
    return verdict.stable


def broken(case: dict[str, Any]) -> list[str]:
    """The laws that a case breaks, cut at their first colon or number of another side."""
    verdict: Verdict = peer_run.judge(case)
    assert verdict.state == "law", verdict
    return [text.split(":")[0].split(", Volcano")[0] for text in verdict.why]


def host(name: str, path: str, **offers: str) -> dict[str, Any]:
    """A node at ``block/rack`` that offers a few cores."""
    block, rack = path.split("/")
    return {
        "name": name,
        "allocatable": {"pods": "10", **offers},
        "conditions": None,
        "labels": {BLOCK: block, RACK: rack, HOST: name},
        "taints": None,
        "unschedulable": False,
    }


def pods(count: int, want: dict[str, int] | None, **wish: Any) -> dict[str, Any]:
    """A pod set of one core each; `want` is host -> pods, None where Kueue refuses."""
    domains = [{"Values": [name], "Count": number} for name, number in (want or {}).items()]
    return {
        "count": count,
        "group": None,
        "name": "",
        "nodeAffinity": None,
        "nodeSelector": None,
        "previousAssignment": None,
        "requests": {"cpu": 1000},
        "tolerations": None,
        "topologyRequest": wish or None,
        "wantAssignment": {"Levels": [HOST], "Domains": domains} if want else None,
        "wantReason": "" if want else "does not fit",
    }


def kueue(nodes: list[dict[str, Any]], *pod_sets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "gates": None,
        "hasPriorUsage": False,
        "hasWorkload": False,
        "levels": [BLOCK, RACK, HOST],
        "name": "a case",
        "nodeLabels": None,
        "nodes": nodes,
        "podSets": list(pod_sets),
        "pods": [],
        "suite": "TestOfOurs",
        **more,
    }


TWO_RACKS = [host("a", "b/r1", cpu="2"), host("b", "b/r1", cpu="2"), host("c", "b/r2", cpu="3")]


def volcano(**parts: Any) -> dict[str, Any]:
    """Two tier-1 HyperNodes of two nodes of two cores each, below one of tier 2; nothing is expected to be bound."""
    names = ["s0-a", "s0-b", "s1-a", "s1-b"]
    return {
        "dra": 0,
        "expectBindMap": None,
        "expectBindNumsInHyperNode": None,
        "expectBindsNum": 0,
        "expectEvictNum": 0,
        "expectEvicted": None,
        "expectPipelined": None,
        "expectStatus": None,
        "hyperNodes": {
            "s0": {name: {} for name in names[:2]},
            "s1": {name: {} for name in names[2:]},
            "top": {name: {} for name in names},
        },
        "hyperNodesByTier": {"1": {"s0": {}, "s1": {}}, "2": {"top": {}}},
        "minimalBindCheck": True,
        "name": "a case",
        "nodes": [
            {"name": n, "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}, "labels": None, "taints": None}
            for n in names
        ],
        "podGroups": [group("g")],
        "pods": [],
        "priorityClasses": [],
        "queues": [queue("q")],
        "resourceQuotas": 0,
        "tiers": [["gang", "predicates"]],
        **parts,
    }


def queue(name: str, state: str = "Open", **spec: Any) -> dict[str, Any]:
    return {"name": name, "annotations": None, "state": state, "spec": {"weight": 1, "guarantee": {}, **spec}}


def group(name: str, minimum: int = 1, phase: str = "Inqueue", belongs: str = "q", **spec: Any) -> dict[str, Any]:
    return {
        "annotations": None,
        "name": name,
        "ns": "ns",
        "phase": phase,
        "spec": {"minMember": minimum, "queue": belongs, **spec},
    }


def pod(name: str, belongs: str = "g", node: str = "", cpu: str = "2", **more: Any) -> dict[str, Any]:
    return {
        "affinity": None,
        "annotations": {"scheduling.k8s.io/group-name": belongs},
        "gates": None,
        "labels": {},
        "name": name,
        "node": node,
        "nodeSelector": None,
        "ns": "ns",
        "phase": "Running" if node else "Pending",
        "preemptionPolicy": None,
        "priority": None,
        "requests": [{"cpu": cpu}],
        **more,
    }


def hard(tier: int) -> dict[str, Any]:
    return {"networkTopology": {"mode": "hard", "highestTierAllowed": tier}}


def many(count: int, **more: Any) -> list[dict[str, Any]]:
    return [pod(f"p{at}", **more) for at in range(count)]


def kai(**parts: Any) -> dict[str, Any]:
    return {
        "departments": None,
        "disableDefaultDepartment": False,
        "expectedJobs": {},
        "expectedTasks": {},
        "jobs": [],
        "name": "a case",
        "nodes": {"n0": {"gpus": 2}},
        "queues": [kai_queue("q", 2)],
        "roundsAfterMatch": 0,
        "roundsUntilMatch": 1,
        "suite": "TestAllocate",
        "topologies": None,
        "usesDRA": False,
        **parts,
    }


def kai_queue(name: str, deserved: float, **more: Any) -> dict[str, Any]:
    plain = {"Priority": None, "MaxAllowedGPUs": 0, "MaxAllowedCPUs": None, "GPUOverQuotaWeight": 0, "ParentQueue": ""}
    return {"Name": name, "DeservedGPUs": deserved, **plain, **more}


def kai_job(name: str, gpus: float, *states: str, belongs: str = "q", **more: Any) -> dict[str, Any]:
    tasks = [{"state": "Pending"} if state == "-" else {"state": "Running", "node": state} for state in states]
    return {"gpusPerTask": gpus, "name": name, "priority": 50, "queue": belongs, "tasks": tasks, **more}


def runs(node: str = "") -> dict[str, Any]:
    return {"status": "Running", **({"node": node} if node else {})}


WAITS = {"status": "Pending"}


def cluster_queue(name: str, nominal: str, cohort: str = "all", **more: Any) -> dict[str, Any]:
    """A queue of Kueue with cores of one flavor, which takes its own back from anybody and stops lower priorities."""
    quota = {"name": "cpu", "nominalQuota": nominal}
    policy = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority", **more.pop("preemption", {})}
    limits = {word: more.pop(word) for word in ("borrowingLimit", "lendingLimit") if word in more}
    groups = [{"coveredResources": ["cpu"], "flavors": [{"name": "default", "resources": [{**quota, **limits}]}]}]
    spec: dict[str, Any] = {"resourceGroups": groups, "preemption": policy, **more}
    return {"name": name, "spec": spec | ({"cohortName": cohort} if cohort else {})}


def workload(name: str, belongs: str, cpu: str, priority: int | None = None) -> dict[str, Any]:
    """A workload of Kueue of one pod."""
    return {
        "clusterQueue": belongs,
        "conditions": [],
        "name": name,
        "podSets": [{"name": "main", "count": 1, "requests": [{"cpu": cpu}]}],
        "priority": priority,
    }


def kueue_quota(
    queues: list[dict[str, Any]], admitted: list[dict[str, Any]], incoming: dict[str, Any], *preempted: str
) -> dict[str, Any]:
    """A preemption case of Kueue."""
    return {
        "admitted": admitted,
        "clusterQueues": queues,
        "cohorts": [],
        "incoming": incoming,
        "name": "a case",
        "strategies": None,
        "suite": "TestPreemption",
        "targetCQ": incoming["clusterQueue"],
        "wantPreempted": [f"/{name}:InCohortReclamation" for name in preempted],
    }
