"""A Volcano case in words of ours: HyperNodes are levels by tier, pod groups are gangs, equal pods are a role.

What of a pod group runs stays as a running job. The rest waits as a gang of its own: in the domain where the running
part is if a hard tier binds them together, and with as many members as are missing to the group's minimum.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peer_cases.verdicts import GPU, amounts, offer, only_on, payable, request, required_affinity, taints
from peer_cases.volcano_case import TASK, Group, Pod, Volcano

PREEMPTABLE = "volcano.sh/preemptable"


@dataclass
class Unit:
    """Pods that become one role. `whole`: all of them or none. `level` is where they must be together, "" anywhere."""

    pods: list[Pod]
    level: str = ""
    soft: str = ""
    size: int = 0
    fewest: int = 0
    whole: bool = False
    task: str = ""
    inside: str = ""


@dataclass
class Job:
    """One waiting gang: role -> its pods in order."""

    name: str
    roles: dict[str, list[Pod]] = field(default_factory=dict)


def convert(world: Volcano) -> tuple[dict[str, object], list[Job]]:
    """Return the scenario and which pods its waiting gangs stand for."""
    running: list[dict[str, object]] = []
    waiting: list[dict[str, object]] = []
    jobs: list[Job] = []
    for group in world.groups:
        held = [pod for pod in group.pods if pod.node in world.offers]
        running += [_running(group, name, pods, world) for name, pods in held_units(group, held).items()]
        for job, document in _rest(group, held, world):
            jobs.append(job)
            waiting.append(document)
    namespaces = sorted({group.namespace for group in world.groups})
    document: dict[str, object] = {
        "fleet": {
            "levels": sorted({*world.tiers, *_levels_asked(world)}),
            "nodes": [_node(node, world) for node in world.nodes],
        },
        "queues": payable([_queue(queue, world, namespaces) for queue in world.queues.values()]),
        "running": running,
        "waiting": waiting,
    }
    return document, jobs


def _levels_asked(world: Volcano) -> Iterator[str]:
    for group in world.groups:
        for _, _, level in group.hard(world):
            if level:
                yield level


def _node(node: Mapping[str, Any], world: Volcano) -> dict[str, object]:
    name = node["name"]
    levels = {tier: world.domain(tier, name) for tier in world.tiers}
    return {
        "name": name,
        **_offer(world.offers[name], world),
        "labels": node["labels"] or {},
        "taints": taints(node["taints"]),
        "levels": {tier: domain for tier, domain in levels.items() if domain},
    }


def _offer(offered: Counter[str], world: Volcano) -> dict[str, object]:
    words = offer(offered, world.whole_gpus)
    return words if world.stand_in is None else words | {"gpus": world.in_units(offered)}


def _request(pod: Pod, world: Volcano) -> dict[str, object]:
    words = request(pod.asked, world.whole_gpus)
    return words if world.stand_in is None else words | {"gpus": world.in_units(pod.asked)}


def _queue(queue: Mapping[str, Any], world: Volcano, namespaces: list[str]) -> dict[str, object]:
    """A queue's GPUs; one that is not open lists no namespace, so it takes nothing new."""
    spec: Mapping[str, Any] = queue["spec"]
    name, unit = world.stand_in or (GPU, 1)
    kinds = [spec.get("deserved") or {}, (spec.get("guarantee") or {}).get("resource") or {}]
    guaranteed = max(amounts(kind).get(name, 0) for kind in kinds) // unit
    capability = amounts(spec.get("capability") or {})
    limit = capability[name] // unit if name in capability else None
    parent = spec.get("parent") or ""
    words: dict[str, object] = {
        "name": queue["name"],
        "parent": parent if parent in world.queues else "",
        "guaranteed": guaranteed if limit is None else min(guaranteed, limit),
        "weight": max(1, int(spec.get("weight") or 1)),
        "namespaces": namespaces if queue["state"] in ("Open", "", None) else [],
    }
    if limit is not None:
        words["limit"] = limit
    return words


def held_units(group: Group, held: Sequence[Pod]) -> dict[str, list[Pod]]:
    """Return the gangs that stand for a group's running pods: one, or one for each pod where any may go alone."""
    if len(held) > 1 and int(group.spec.get("minMember") or 0) <= 1:
        return {f"{group.namespace}.{group.name}.{pod.raw['name']}.held": [pod] for pod in held}
    return {f"{group.namespace}.{group.name}.held": list(held)} if held else {}


def _job(group: Group, name: str, world: Volcano, pods: Sequence[Pod] | None = None) -> dict[str, object]:
    """Write what a gang has of its group; `pods` are its own, None for all."""
    values = {one["name"]: one["value"] for one in world.case["priorityClasses"] or ()}
    own = [pod.raw["priority"] for pod in group.pods if pod.raw["priority"] is not None]
    priority = values.get(group.spec.get("priorityClassName"), max(own, default=0))
    mine = group.pods if pods is None else pods
    marks = [{**(pod.raw["annotations"] or {}), **pod.labels}.get(PREEMPTABLE) for pod in mine]
    return {
        "name": name,
        "namespace": group.namespace,
        "queue": group.queue,
        "priority": priority,
        "preemptible": "false" not in marks,
    }


def _role(name: str, pods: Sequence[Pod], world: Volcano) -> dict[str, object]:
    raw = pods[0].raw
    return {
        "name": name,
        "replicas": len(pods),
        **_request(pods[0], world),
        "nodeSelector": raw["nodeSelector"] or {},
        "affinity": required_affinity((raw["affinity"] or {}).get("nodeAffinity")),
    }


def _by_kind(pods: Sequence[Pod]) -> list[list[Pod]]:
    kinds: dict[str, list[Pod]] = {}
    for pod in pods:
        kinds.setdefault(pod.kind, []).append(pod)
    return list(kinds.values())


def _running(group: Group, name: str, held: Sequence[Pod], world: Volcano) -> dict[str, object]:
    kinds = _by_kind(held)
    members = [{"role": f"r{at}", "node": pod.node} for at, pods in enumerate(kinds) for pod in pods]
    return {
        **_job(group, name, world, held),
        "roles": [_role(f"r{at}", pods, world) for at, pods in enumerate(kinds)],
        "members": members,
    }


# --- what of a group waits --------------------------------------------------------------------------------------------


def _rest(group: Group, held: Sequence[Pod], world: Volcano) -> Iterator[tuple[Job, dict[str, object]]]:
    """Yield the gangs that stand for the pods of a group that wait."""
    waiting = [pod for pod in group.pods if not pod.node and not pod.gated]
    missing = int(group.spec.get("minMember") or 0) - len(held)
    units = _units(group, held, waiting, world)
    level = world.hard_level(group.wish)
    if missing <= 1 and (held or not level) and not any(u.fewest for u in units):
        for unit in units:  # every pod, and every subgroup, may come by itself
            step = len(unit.pods) if unit.whole else unit.size or 1
            for at in range(0, len(unit.pods), step):
                pods = unit.pods[at : at + step]
                alone = Unit(pods, level=unit.level, soft=unit.soft, inside=unit.inside, fewest=len(pods))
                yield _gang(group, f"{group.name}.{pods[0].raw['name']}", [alone], held, world)
        return
    if not waiting:
        return
    _share_minimum(units, max(1, missing))
    job, document = _gang(group, group.name, units, held, world)
    if missing > len(waiting):
        document["suspend"] = True
    yield job, document


def _units(group: Group, held: Sequence[Pod], waiting: Sequence[Pod], world: Volcano) -> list[Unit]:
    """Split the waiting pods into roles with what each must have."""
    units: list[Unit] = []
    minima: Mapping[str, int] = group.spec.get("minTaskMember") or {}
    if sum(minima.values()) > int(group.spec.get("minMember") or 0):
        minima = {}  # Volcano looks at none of them then
    subgroups = group.subgroups()
    for at in dict.fromkeys(at for at, _ in subgroups):
        own = {values: pods for (policy, values), pods in subgroups.items() if policy == at}
        if at < 0:
            for pods in _by_kind([pod for pod in own[()] if pod in waiting]):
                task = pods[0].labels.get(TASK, (pods[0].raw["annotations"] or {}).get(TASK, ""))
                there = sum(pod.labels.get(TASK, "") == task for pod in held)
                units.append(Unit(pods, fewest=max(0, minima.get(task, 0) - there), task=task))
        else:
            units += _of_policy(group.policies[at], own, waiting, world)
    return units


def _of_policy(
    policy: Mapping[str, Any], own: Mapping[tuple[str, ...], list[Pod]], waiting: Sequence[Pod], world: Volcano
) -> list[Unit]:
    """Subgroups that are all alike become one role in slices; else each is a role of its own, whole or not at all."""
    wish = policy.get("networkTopology")
    level, soft = world.hard_level(wish), world.soft_level(wish)
    size, needed = int(policy.get("subGroupSize") or 1), int(policy.get("minSubGroups") or 0)
    everyone = [pod for pods in own.values() for pod in pods]
    alike = len({_shape(pod) for pod in everyone}) == 1 and all(len(pods) == size for pods in own.values())
    if alike and len(own) > 1 and level and all(pod in waiting for pod in everyone):
        return [Unit(everyone, level=level, size=size, fewest=min(needed, len(own)) * size)]
    units: list[Unit] = []
    for values, pods in own.items():
        del values
        there = [pod for pod in pods if pod.node in world.offers]
        inside = world.domain(level, there[0].node) if there and level else ""
        for kind in _by_kind([pod for pod in pods if pod in waiting]):
            fewest = len(kind) if needed > 0 and not there else 0
            units.append(Unit(kind, level=level, soft=soft, fewest=fewest, whole=True, inside=inside))
        needed -= 1
    return units


def _shape(pod: Pod) -> str:
    return json.dumps([sorted(pod.asked.items()), pod.raw["nodeSelector"], pod.raw["affinity"]], sort_keys=True)


def _share_minimum(units: Sequence[Unit], missing: int) -> None:
    """Give units as much of the group's minimum as they must bear, and the first ones what is then still missing."""
    total = sum(len(unit.pods) for unit in units)
    for unit in units:
        must = max(0, missing - (total - len(unit.pods)))
        unit.fewest = max(unit.fewest, len(unit.pods) if unit.whole and must else must)
    left = missing - sum(unit.fewest for unit in units)
    for unit in units:
        if left > 0:
            more = len(unit.pods) - unit.fewest if unit.whole else min(left, len(unit.pods) - unit.fewest)
            step = unit.size or 1
            more = -(-more // step) * step
            unit.fewest += more
            left -= more


def _gang(
    group: Group, name: str, units: Sequence[Unit], held: Sequence[Pod], world: Volcano
) -> tuple[Job, dict[str, object]]:
    job = Job(f"{group.namespace}.{name}.rest")
    level = world.hard_level(group.wish)
    inside = {world.domain(level, pod.node) for pod in held} if level and held else set[str]()
    roles: list[dict[str, object]] = []
    for at, unit in enumerate(units):
        role = _role(f"r{at}", unit.pods, world)
        if unit.fewest < len(unit.pods):
            role["minReplicas"] = unit.fewest
        size = len(unit.pods) if unit.whole and unit.fewest < len(unit.pods) else unit.size
        if size > 1:  # in slices a role is whole or in whole parts, however few there must be
            role["topology"] = {"slices": [{"within": unit.level or "cluster", "size": size}]}
        elif unit.level:
            role["topology"] = {"within": unit.level}
        elif unit.soft:
            role["topology"] = {"within": unit.soft, "mode": "preferred"}
        nodes = _nodes_inside(world, [(level, one) for one in inside] + [(unit.level, unit.inside)])
        if nodes is not None:
            role["affinity"] = only_on(role["affinity"], nodes)
        roles.append(role)
        job.roles[f"r{at}"] = list(unit.pods)
    document = {**_job(group, job.name, world), "roles": roles}
    if level:
        document["topology"] = {"within": level}
    elif world.soft_level(group.wish):
        document["topology"] = {"within": world.soft_level(group.wish), "mode": "preferred"}
    return job, document


def _nodes_inside(world: Volcano, domains: Sequence[tuple[str, str]]) -> list[str] | None:
    """Nodes that are in all these domains; None where there is no domain to be in."""
    asked = [(level, domain) for level, domain in domains if level and domain]
    if not asked:
        return None
    return [
        node["name"] for node in world.nodes if all(world.domain(level, node["name"]) == name for level, name in asked)
    ]
