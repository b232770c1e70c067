"""Kueue's topology-aware cases: one workload of pod sets on an otherwise idle tree.

Law: fits or not, the required domain, slices whole inside their domains, and no more domains than Kueue uses, the
widest level first. With the gate for balanced placement also an even split. Which of equal domains is taste. Pods of an
elastic workload that are assigned already run where they are, and the others wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peer_cases.verdicts import (
    Case,
    Comparison,
    Verdict,
    amounts,
    decide,
    fits,
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
OTHER_GATES = (
    "ElasticJobsViaWorkloadSlices",
    "ElasticJobsViaWorkloadSlicesWithTAS",
    "SkipReassignmentForPodOwnedWorkloads",
    "TASFailedNodeReplacement",
    "TASFailedNodeReplacementFailFast",
    "TASReplaceNodeOnPodTermination",
    "TASReplaceNodeOnNodeTaints",
)
"""Gates about workloads that are admitted already; what they hold is not in the dump."""


def is_one(case: Case) -> bool:
    """Whether a line is of this schema."""
    return {"podSets", "levels", "nodeLabels", "hasPriorUsage"} <= case.keys()


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case."""
    name = case["name"]
    tree = Tree(case)
    rule = _not_modelled(case, tree)
    if rule:
        return Verdict(name, "not_modelled", rule)
    rule = _taste(case, tree)
    if rule:
        return Verdict(name, "taste", rule, stable=decide(_world(case, tree)).stable)
    outcome = decide(_world(case, tree))
    comparison = Comparison()
    expected = [pod_set["wantAssignment"] for pod_set in case["podSets"]]
    placed = next((one.placement for one in outcome.placed if one.gang == WORKLOAD), None)
    comparison.law(not outcome.victims, "something was stopped")
    if placed is None or not all(expected):
        left = outcome.waiting[0].refusal if outcome.waiting else None
        comparison.law(not all(expected), f"not placed: {left.message if left else 'no reason'}")
        comparison.law(placed is None, f"placed, though Kueue says: {case['podSets'][0]['wantReason']}")
        return comparison.verdict(name, outcome)
    for group in _groups(case):
        roles = {_role_name(case, at) for at in group}
        ours = Counter(tree.leaf_of[m.node] for m in placed.members if m.role in roles)
        for at in group:
            ours.update(tree.before[at])
        theirs = Counter[tuple[str, ...]]()
        for at in group:
            theirs.update({tree.leaf(d["Values"]): d["Count"] for d in expected[at]["Domains"]})
        _compare(case, tree, group, ours, theirs, comparison)
        for at in group:
            own = Counter(tree.leaf_of[m.node] for m in placed.members if m.role == _role_name(case, at))
            own.update(tree.before[at])
            _slices_hold(case["podSets"][at], tree, own, comparison)
            if at == _largest(case, group) and tree.used(ours) == tree.used(theirs):
                other = Counter({tree.leaf(d["Values"]): d["Count"] for d in expected[at]["Domains"]})
                _is_even(case, own, other, comparison)
    return comparison.verdict(name, outcome)


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


def _asked(pod_set: Mapping[str, Any]) -> Counter[str]:
    """A pod's requests; here cpu is in thousandths already."""
    return Counter({name: int(value) for name, value in pod_set["requests"].items()})


# --- rules over fields ------------------------------------------------------------------------------------------------


def _not_modelled(case: Case, tree: Tree) -> str:
    if case["hasPriorUsage"]:
        return "usage before the case is not in the dump"
    if case["hasWorkload"]:
        return "the workload whose node is replaced is not in the dump"
    if any(tree.before):
        return _elastic(case, tree)
    if any((case["gates"] or {}).get(gate) for gate in OTHER_GATES):
        return "gate about workloads that are admitted already"
    if not any(pod_set["count"] for pod_set in case["podSets"]):
        return "a workload without pods"
    if any(_adds_up(pod_set, tree) for pod_set in case["podSets"]):
        return "pods that fit no node, only the sum of a domain's nodes"
    return ""


def _elastic(case: Case, tree: Tree) -> str:
    """Of elastic workloads only the growing ones place pods; a job of ours that has started does neither."""
    missing = [pod_set["count"] - before.total() for pod_set, before in zip(case["podSets"], tree.before, strict=True)]
    if min(missing) < 0 or not any(missing):
        return "elastic workload that places nothing"
    if not tree.host_leaf or any(leaf not in tree.leaf_of.values() for before in tree.before for leaf in before):
        return "elastic workload whose pods' nodes are not in the dump"
    if any(_slices(pod_set, tree) for pod_set in case["podSets"]):
        return "elastic workload in slices"
    return ""


def _adds_up(pod_set: Mapping[str, Any], tree: Tree) -> bool:
    """Without a hostname level Kueue counts a domain as one large node; we place pods on nodes."""
    asked = _asked(pod_set)
    by_leaf: dict[tuple[str, ...], list[Counter[str]]] = {}
    for node, free in tree.offers.items():
        by_leaf.setdefault(tree.leaf_of[node], []).append(free)
    for offers in by_leaf.values():
        total = Counter[str]()
        for free in offers:
            total.update(free)
        if fits(asked, total) > sum(fits(asked, free) for free in offers):
            return True
    return False


def _taste(case: Case, tree: Tree) -> str:
    """Balanced placement may take more domains than are needed for the sake of an even split: Kueue's own score."""
    if not (case["gates"] or {}).get("TASBalancedPlacement") or len(case["podSets"]) != 1:
        return ""
    pod_set = case["podSets"][0]
    level = (pod_set["topologyRequest"] or {}).get("preferred")
    if level not in tree.levels or not pod_set["wantAssignment"]:
        return ""
    theirs = Counter({tree.leaf(d["Values"]): d["Count"] for d in pod_set["wantAssignment"]["Domains"]})
    room = Counter[tuple[str, ...]]()
    for node, free in tree.offers.items():
        room[tree.leaf_of[node]] += fits(_asked(pod_set), free)
    depth = tree.levels.index(level)
    fewest = [
        _largest_first([count for leaf, count in room.items() if leaf[: depth + 1] == domain], pod_set["count"])
        for domain in {leaf[: depth + 1] for leaf in room}
    ]
    needed = min((count for count in fewest if count), default=0)
    spread = len({leaf[: depth + 1] for leaf in theirs})
    if needed and (spread > 1 or len(theirs) > needed):
        return "a peer's score: an even split over more domains than are needed"
    return ""


def _largest_first(rooms: Sequence[int], pods: int) -> int:
    """How many of the roomiest are needed for `pods`, 0 where all together are too small."""
    for used, room in enumerate(sorted(rooms, reverse=True), start=1):
        pods -= room
        if pods <= 0:
            return used
    return 0


# --- the world --------------------------------------------------------------------------------------------------------


def _groups(case: Case) -> list[list[int]]:
    """Positions of pod sets that are placed together."""
    groups: dict[str, list[int]] = {}
    for at, pod_set in enumerate(case["podSets"]):
        groups.setdefault(pod_set["group"] or f"alone {at}", []).append(at)
    return list(groups.values())


def _largest(case: Case, group: Sequence[int]) -> int:
    """The workers of a group."""
    return max(group, key=lambda at: case["podSets"][at]["count"])


def _role_name(case: Case, at: int) -> str:
    return f"r{at}-{case['podSets'][at]['name'] or 'pods'}"


def _world(case: Case, tree: Tree) -> dict[str, object]:
    offered = [amounts(node["allocatable"]) for node in tree.nodes]
    whole = gpus_are_whole([*offered, *(_asked(pod_set) for pod_set in case["podSets"])])
    groups = _groups(case)
    roles: list[dict[str, object]] = []
    job: dict[str, object] = {"name": WORKLOAD, "queue": "queue", "roles": roles}
    for group in groups:
        largest = _largest(case, group)
        within, slices = _request(case["podSets"][largest], tree)
        for at in group:
            role = _role(case, tree, at, whole)
            if not role["replicas"]:
                continue
            own = {} if len(groups) == 1 else dict(within)
            if slices and at == largest:
                own["slices"] = slices
            if own:
                role["topology"] = own
            roles.append(role)
        if len(groups) == 1 and within:
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
        "name": _role_name(case, at),
        "replicas": pod_set["count"] - before.total(),
        **request(_asked(pod_set), whole),
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
        {"role": _role_name(case, at), "node": node_at[leaf], "count": count}
        for at, before in enumerate(tree.before)
        for leaf, count in before.items()
    ]
    return {"name": f"{WORKLOAD}.held", "queue": "queue", "roles": roles, "members": members}


def _levels_asked(case: Case) -> list[str]:
    """Levels of the requests, so that asking for one that no node is in is the engine's to refuse."""
    asked: list[str] = list(case["levels"])
    for pod_set in case["podSets"]:
        wish = pod_set["topologyRequest"] or {}
        asked += [wish.get(word) for word in ("required", "preferred", "podSetSliceRequiredTopology")]
        asked += [one["topology"] for one in wish.get("podsetSliceRequiredTopologyConstraints") or ()]
    return sorted({level for level in asked if level})


def _request(pod_set: Mapping[str, Any], tree: Tree) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The domain that a pod set asks for, and its slices, the widest first. A slice of one pod asks for nothing."""
    wish = pod_set["topologyRequest"] or {}
    within: dict[str, object] = {}
    if wish.get("required"):
        within = {"within": tree.level(wish["required"])}
    elif wish.get("preferred"):
        within = {"within": tree.level(wish["preferred"]), "mode": "preferred"}
    return within, [{"within": tree.level(level), "size": size} for level, size in _slices(pod_set, tree)]


def _slices(pod_set: Mapping[str, Any], tree: Tree) -> list[tuple[str, int]]:
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


# --- the comparison ---------------------------------------------------------------------------------------------------


def _compare(
    case: Case,
    tree: Tree,
    group: Sequence[int],
    ours: Counter[tuple[str, ...]],
    theirs: Counter[tuple[str, ...]],
    comparison: Comparison,
) -> None:
    """Compare where the pods of one group are."""
    wish = case["podSets"][_largest(case, group)]["topologyRequest"] or {}
    comparison.law(ours.total() == theirs.total(), f"{ours.total()} pods are placed instead of {theirs.total()}")
    required = wish.get("required")
    if required:
        found = len(tree.inside(ours, required))
        comparison.law(found == 1, f"{found} domains of {required}, which is required")
    if not required and not wish.get("preferred"):
        comparison.taste(ours == theirs, "no level is asked for: any nodes")
        return
    if _prefers_nodes(case, group):
        comparison.taste(ours == theirs, "a peer's score: node affinity that is only preferred")
        return
    ours_used, theirs_used = tree.used(ours), tree.used(theirs)
    comparison.law(
        ours_used <= theirs_used,
        f"domains per level {list(ours_used)} (widest first), Kueue {list(theirs_used)}",
    )
    if sorted(ours.values()) == sorted(theirs.values()):
        comparison.taste(ours == theirs, "another of equal domains")
    else:
        comparison.taste(False, "another split over as few domains")


def _prefers_nodes(case: Case, group: Sequence[int]) -> bool:
    """Whether Kueue looks at preferred node affinity, which may cost it domains. Ours are required or not there."""
    affinities = [case["podSets"][at]["nodeAffinity"] or {} for at in group]
    wished = any(one.get("preferredDuringSchedulingIgnoredDuringExecution") for one in affinities)
    return wished and bool((case["gates"] or {}).get("TASRespectNodeAffinityPreferred"))


def _is_even(
    case: Case, ours: Counter[tuple[str, ...]], theirs: Counter[tuple[str, ...]], comparison: Comparison
) -> None:
    """With the gate for it, pods lie as evenly as Kueue's. A leader is no part of that."""
    if (case["gates"] or {}).get("TASBalancedPlacement"):
        own, other = [max(counts.values()) - min(counts.values()) for counts in (ours, theirs)]
        comparison.law(own <= other, f"fullest and emptiest domain differ by {own} pods, Kueue's by {other}")


def _slices_hold(
    pod_set: Mapping[str, Any], tree: Tree, counts: Counter[tuple[str, ...]], comparison: Comparison
) -> None:
    for level, size in _slices(pod_set, tree):
        torn = [domain for domain, count in tree.inside(counts, level).items() if count % size]
        comparison.law(not torn, f"slices of {size} are torn: {sorted(torn)} of {level}")
