"""A Kueue topology case in words of ours: levels are labels, a pod set is a role, what is assigned already runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peer_cases.verdicts import (
    Case,
    amounts,
    gpus_are_whole,
    offer,
    only_on,
    request,
    required_affinity,
    taints,
    tolerations,
)

HOSTNAME = "kubernetes.io/hostname"
WORKLOAD = "workload"


class Tree:
    """The nodes that are in every level of the topology, and where."""

    def __init__(self, case: Case) -> None:
        self.levels: list[str] = list(case["levels"])
        self.nodes = [n for n in case["nodes"] if all(n["labels"].get(level) for level in self.levels)]
        self.leaf_of = {n["name"]: tuple(n["labels"][level] for level in self.levels) for n in self.nodes}
        hosts = [n["labels"].get(HOSTNAME) for n in self.nodes]
        self.host_leaf = self.levels[-1] == HOSTNAME and len(set(hosts)) == len(hosts)
        self.offers = {n["name"]: amounts(n["allocatable"]) for n in self.nodes}
        for pod in case["pods"] or ():
            if pod["phase"] in ("Succeeded", "Failed") or pod["node"] not in self.offers:
                continue
            self.offers[pod["node"]].subtract(Counter({"pods": 1}) + _sum(pod["requests"]))
        self.before = [self._assigned(pod_set.get("previousAssignment")) for pod_set in case["podSets"]]

    def level(self, key: str) -> str:
        """Our name of a level."""
        return "node" if key == HOSTNAME and self.host_leaf else key

    def leaf(self, values: Sequence[str]) -> tuple[str, ...]:
        """The whole path of a domain that Kueue names by all its values, or by its hostname alone."""
        if len(values) == len(self.levels):
            return tuple(values)
        return next((path for path in self.leaf_of.values() if path[-1] == values[-1]), tuple(values))

    def _assigned(self, previous: Mapping[str, Any] | None) -> Counter[tuple[str, ...]]:
        """Pods per leaf of an assignment in Kueue's own short form: columns of values with what they have in common."""
        found = Counter[tuple[str, ...]]()
        for part in (previous or {}).get("slices") or ():
            count = int(part["domainCount"])
            columns = [_values(one, count) for one in part["valuesPerLevel"]]
            pods = part["podCounts"].get("individual") or [part["podCounts"].get("universal", 0)] * count
            for values, number in zip(zip(*columns, strict=False), pods, strict=False):
                found[self.leaf(values)] += int(number)
        return +found

    def used(self, counts: Mapping[tuple[str, ...], int]) -> tuple[int, ...]:
        """How many domains of each level hold pods, the widest level first."""
        taken = [leaf for leaf, count in counts.items() if count]
        return tuple(len({leaf[: depth + 1] for leaf in taken}) for depth in range(len(self.levels)))

    def inside(self, counts: Mapping[tuple[str, ...], int], level: str) -> Counter[tuple[str, ...]]:
        """Pods in each domain of a level."""
        depth = self.levels.index(level) if level in self.levels else len(self.levels) - 1
        found = Counter[tuple[str, ...]]()
        for leaf, count in counts.items():
            found[leaf[: depth + 1]] += count
        return found


def _values(column: Mapping[str, Any], count: int) -> list[str]:
    each = column.get("individual")
    if each is None:
        return [str(column.get("universal") or "")] * count
    return [f"{each.get('prefix') or ''}{root}{each.get('suffix') or ''}" for root in each["roots"]]


def _sum(containers: Sequence[Mapping[str, Any]]) -> Counter[str]:
    total = Counter[str]()
    for container in containers:
        total.update(amounts(container))
    return total


def asked(pod_set: Mapping[str, Any]) -> Counter[str]:
    """A pod's requests; here cpu is in thousandths already."""
    return Counter({name: int(value) for name, value in pod_set["requests"].items()})


def groups(case: Case) -> list[list[int]]:
    """Positions of pod sets that are placed together."""
    found: dict[str, list[int]] = {}
    for at, pod_set in enumerate(case["podSets"]):
        found.setdefault(pod_set["group"] or f"alone {at}", []).append(at)
    return list(found.values())


def largest(case: Case, group: Sequence[int]) -> int:
    """The workers of a group."""
    return max(group, key=lambda at: case["podSets"][at]["count"])


def role_name(case: Case, at: int) -> str:
    """The role that stands for a pod set."""
    return f"r{at}-{case['podSets'][at]['name'] or 'pods'}"


def convert(case: Case, tree: Tree) -> dict[str, object]:
    """Return the scenario of a case."""
    offered = [amounts(node["allocatable"]) for node in tree.nodes]
    whole = gpus_are_whole([*offered, *(asked(pod_set) for pod_set in case["podSets"])])
    together = groups(case)
    roles: list[dict[str, object]] = []
    job: dict[str, object] = {"name": WORKLOAD, "queue": "queue", "roles": roles}
    for group in together:
        workers = largest(case, group)
        within, slices = _request(case["podSets"][workers], tree)
        for at in group:
            role = _role(case, tree, at, whole)
            if not role["replicas"]:
                continue
            own = {} if len(together) == 1 else dict(within)
            if slices and at == workers:
                own["slices"] = slices
            if own:
                role["topology"] = own
            roles.append(role)
        if len(together) == 1 and within:
            job["topology"] = within
    return {
        "fleet": {"levels": _levels_asked(case), "nodes": [_node(case, node, tree, whole) for node in tree.nodes]},
        "queues": [{"name": "queue"}],
        "running": [_assigned(case, tree, whole)] if any(tree.before) else [],
        "waiting": [job],
    }


def _role(case: Case, tree: Tree, at: int, whole: bool) -> dict[str, object]:
    """The pods of a pod set that are not assigned yet: in the required domain of those that are."""
    pod_set, before = case["podSets"][at], tree.before[at]
    affinity = required_affinity(pod_set["nodeAffinity"])
    required = (pod_set["topologyRequest"] or {}).get("required")
    if before and required in tree.levels:
        domains = tree.inside(before, required)
        depth = tree.levels.index(required)
        affinity = only_on(affinity, [node for node, leaf in tree.leaf_of.items() if leaf[: depth + 1] in domains])
    return {
        "name": role_name(case, at),
        "replicas": pod_set["count"] - before.total(),
        **request(asked(pod_set), whole),
        "nodeSelector": {**(case["nodeLabels"] or {}), **(pod_set["nodeSelector"] or {})},
        "tolerations": tolerations(pod_set["tolerations"]),
        "affinity": affinity,
    }


def _assigned(case: Case, tree: Tree, whole: bool) -> dict[str, object]:
    """What is assigned already, as a job that runs."""
    node_at = {leaf: node for node, leaf in tree.leaf_of.items()}
    roles = [
        {**_role(case, tree, at, whole), "replicas": before.total()} for at, before in enumerate(tree.before) if before
    ]
    members = [
        {"role": role_name(case, at), "node": node_at[leaf], "count": count}
        for at, before in enumerate(tree.before)
        for leaf, count in before.items()
    ]
    return {"name": f"{WORKLOAD}.held", "queue": "queue", "roles": roles, "members": members}


def _levels_asked(case: Case) -> list[str]:
    """Levels of the requests, so that asking for one that no node is in is the engine's to refuse."""
    levels: list[str] = list(case["levels"])
    for pod_set in case["podSets"]:
        wish = pod_set["topologyRequest"] or {}
        levels += [wish.get(word) for word in ("required", "preferred", "podSetSliceRequiredTopology")]
        levels += [one["topology"] for one in wish.get("podsetSliceRequiredTopologyConstraints") or ()]
    return sorted({level for level in levels if level})


def _request(pod_set: Mapping[str, Any], tree: Tree) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The domain that a pod set asks for, and its slices, the widest first. A slice of one pod asks for nothing."""
    wish = pod_set["topologyRequest"] or {}
    within: dict[str, object] = {}
    if wish.get("required"):
        within = {"within": tree.level(wish["required"])}
    elif wish.get("preferred"):
        within = {"within": tree.level(wish["preferred"]), "mode": "preferred"}
    return within, [{"within": tree.level(level), "size": size} for level, size in slices_of(pod_set, tree)]


def slices_of(pod_set: Mapping[str, Any], tree: Tree) -> list[tuple[str, int]]:
    """Return (level, size) of a pod set's slices, the widest first."""
    wish = pod_set["topologyRequest"] or {}
    layers = [(one["topology"], one["size"]) for one in wish.get("podsetSliceRequiredTopologyConstraints") or ()]
    if not layers and wish.get("podSetSliceRequiredTopology"):
        layers = [(wish["podSetSliceRequiredTopology"], wish.get("podSetSliceSize") or 1)]
    return [(level, size) for level, size in layers if size > 1 or level not in tree.levels]


def _node(case: Case, node: Mapping[str, Any], tree: Tree, whole: bool) -> dict[str, object]:
    offered = amounts(node["allocatable"])
    taken = offered - tree.offers[node["name"]]
    ready = [one["status"] for one in node["conditions"] or () if one["type"] == "Ready"]
    path = tree.leaf_of[node["name"]]
    words: dict[str, object] = {
        "name": node["name"],
        **offer(offered, whole),
        "labels": node["labels"],
        "levels": {
            level: "/".join(path[: depth + 1]) for depth, level in enumerate(tree.levels) if tree.level(level) != "node"
        },
        "taints": taints(node["taints"]),
        "cordoned": bool(node["unschedulable"]),
        "used": {**{k: v for k, v in request(taken, False).items()}, "pods": taken.get("pods", 0)},
    }
    if ready and ready[0] != "True":
        words["notReadyFor"] = "1s"
    return words
