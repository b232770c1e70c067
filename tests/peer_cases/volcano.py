"""Volcano's cases: pod groups in queues, some running, some waiting; what was bound and what was evicted.

Law: which pods are bound (equal pods of a job are interchangeable), nothing evicted where nothing was, hard tiers of
jobs and subgroups, how many pods lie in each HyperNode where the case says it, and the node where only one would do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fairlead.simulation.scenario_run import Outcome
from peer_cases.verdicts import GPU, Case, Comparison, Verdict, compare_victims, decide, stopped_for_others
from peer_cases.volcano_case import Pod, Volcano
from peer_cases.volcano_world import Job, convert, held_units

SCORERS = frozenset({"binpack", "network-topology-aware", "nodegroup", "nodeorder", "sla", "usage", "tdm", "pdb"})
"""Plugins whose own suites call their score and filter functions and bind nothing."""
PLUGINS = SCORERS | {
    "capacity", "conformance", "drf", "gang", "hdrf", "numaaware", "overcommit", "predicates", "priority",
    "proportion", "rescheduling", "resource-strategy-fit", "resourcequota", "task-topology", "deviceshare",
}  # fmt: skip


def is_one(case: Case) -> bool:
    """Whether a line is of this schema."""
    return {"podGroups", "tiers", "expectBindMap", "expectEvictNum"} <= case.keys()


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case."""
    name = case["name"]
    world = Volcano(case)
    rule = _not_modelled(case, world)
    if rule:
        return Verdict(name, "not_modelled", rule)
    document, jobs = convert(world)
    outcome = decide(document)
    rule = _taste(case)
    if rule:
        return Verdict(name, "taste", rule, stable=outcome.stable)
    comparison = Comparison()
    _compare(case, world, jobs, outcome, comparison)
    return comparison.verdict(name, outcome)


def evicts(case: Case) -> bool:
    """Whether a case is about who is stopped."""
    return bool(case["expectEvictNum"] or case["expectEvicted"])


# --- rules over fields ------------------------------------------------------------------------------------------------


def _taste(case: Case) -> str:
    """A case of which nothing is stated but that its plugin was asked: what it checked was a score of Volcano's."""
    stated = (case["expectBindMap"], case["expectBindsNum"], case["expectStatus"], case["minimalBindCheck"])
    plugins = {plugin for tier in case["tiers"] or () for plugin in tier}
    waits = any(not pod["node"] for pod in case["pods"])
    return "a peer's score" if waits and not any(stated) and plugins <= SCORERS else ""


def _not_modelled(case: Case, world: Volcano) -> str:
    plugins = {plugin for tier in case["tiers"] or () for plugin in tier}
    policies = [policy for group in world.groups for policy in group.policies]
    wishes = [wish for wish in (*(g.wish for g in world.groups), *(p.get("networkTopology") for p in policies)) if wish]
    if case["dra"]:
        return "DRA claims are not in the dump"
    if case["resourceQuotas"]:
        return "resource quotas of namespaces are not in the dump"
    if plugins - PLUGINS:
        return "a plugin made for the test"
    if any(wish.get("highestTierName") for wish in wishes):
        return "names of tiers are not in the dump"
    if case["expectStatus"] and not case["expectBindMap"] and all(g.phase == "Pending" for g in world.groups):
        return "only the step before placement (enqueue) is looked at"
    for pod in case["pods"]:
        affinity = pod["affinity"] or {}
        if affinity.get("podAffinity") or affinity.get("podAntiAffinity"):
            return "affinity between pods"
    if world.whole_gpus and any(free.get(GPU, 0) < 0 for free in world.free.values()):
        return "more runs on a node than it has"
    if _taste(case):
        return ""
    if world.decides and len({q["spec"].get("priority") or 0 for q in case["queues"]}) > 1:
        return "a queue's own priority decides"
    if world.decides and world.stand_in is None:
        return "a queue's share of what is no GPU decides"
    return ""


# --- the comparison ---------------------------------------------------------------------------------------------------


def _compare(case: Case, world: Volcano, jobs: list[Job], outcome: Outcome, comparison: Comparison) -> None:
    bound: dict[str, list[str]] = {}  # kind of pod -> nodes
    by_unit = {(job.name, role): pods for job in jobs for role, pods in job.roles.items()}
    at: dict[str, str] = {}
    for placed in outcome.placed:
        taken = Counter[str]()
        for member in placed.placement.members:
            pods = by_unit.get((placed.gang, member.role))
            if placed.round and pods:
                pod = pods[taken[member.role]]
                taken[member.role] += 1
                at[pod.key] = member.node
                bound.setdefault(pod.kind, []).append(member.node)
    _victims(case, world, outcome, comparison)
    why = sorted({left.refusal.reason.token for left in outcome.waiting if left.refusal is not None})
    if case["expectEvicted"]:  # Volcano's session ends with the victims; who takes their place is bound in the next one
        comparison.law(len(at) > case["expectBindsNum"], f"room was made and nobody is bound {why or ''}")
    else:
        comparison.law(
            len(at) == case["expectBindsNum"], f"{len(at)} pods are bound, Volcano {case['expectBindsNum']} {why or ''}"
        )
    _bound_alike(case, world, bound, comparison)
    _tiers_hold(world, at, comparison)
    numbers = case["expectBindNumsInHyperNode"]
    if numbers and world.tiers:
        lowest = world.tiers[0]
        found = Counter(world.domain(lowest, node) for node in at.values())
        comparison.law(
            sorted(found.values()) == sorted(numbers), f"pods per HyperNode {sorted(found.values())}, not {numbers}"
        )


def _victims(case: Case, world: Volcano, outcome: Outcome, comparison: Comparison) -> None:
    """Compare what is stopped: by GPUs or what stands for them, else by thousandths of a core."""
    name, _ = world.stand_in or (GPU if any(pod.asked.get(GPU) for pod in world.pods) else "cpu", 1)
    amount = {pod.key: pod.asked.get(name, 0) for pod in world.pods}
    stopped = stopped_for_others(outcome)
    ours: dict[str, int] = {}
    for group in world.groups:
        for gang, pods in held_units(group, [pod for pod in group.pods if pod.node in world.offers]).items():
            if gang in stopped:
                ours |= {pod.key: amount[pod.key] for pod in pods}
    compare_victims(ours, {key: amount.get(key, 0) for key in case["expectEvicted"] or ()}, comparison)


def _bound_alike(case: Case, world: Volcano, bound: Mapping[str, list[str]], comparison: Comparison) -> None:
    """Compare the bindings that the case lists; equal pods of one job may take each other's place."""
    listed: Mapping[str, str] = case["expectBindMap"] or {}
    pods = {pod.key: pod for group in world.groups for pod in group.pods}
    wanted: dict[str, list[tuple[Pod, str]]] = {}
    for key, node in listed.items():
        comparison.law(key in pods, f"{key} is to be bound and is not among the pods")
        if key not in pods:
            continue
        wanted.setdefault(pods[key].kind, []).append((pods[key], node))
    if listed and not case["minimalBindCheck"] and not case["expectEvicted"]:
        ours = {kind: len(nodes) for kind, nodes in bound.items()}
        theirs = {kind: len(nodes) for kind, nodes in wanted.items()}
        comparison.law(ours == theirs, f"other pods are bound: {ours}, Volcano {theirs}")
    for kind, places in wanted.items():
        nodes = Counter(bound.get(kind, ()))
        comparison.law(nodes.total() >= len(places), f"{sorted(pod.key for pod, _ in places)} are not bound")
        for pod, node in places:
            if nodes[node]:
                nodes[node] -= 1
            elif world.possible(pod) == [node]:
                comparison.law(False, f"{pod.key} is not on {node}, the only node it fits")
            else:
                comparison.taste(False, "another node")


def _tiers_hold(world: Volcano, at: Mapping[str, str], comparison: Comparison) -> None:
    for group in world.groups:
        for what, pods, level in group.hard(world):
            nodes = [pod.node or at.get(pod.key, "") for pod in pods]
            if level and any(pod.key in at for pod in pods):
                domains = {world.domain(level, node) for node in nodes if node}
                comparison.law(len(domains) == 1, f"{what} lies in {len(domains)} domains of {level}")
