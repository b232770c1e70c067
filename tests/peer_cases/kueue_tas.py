"""Kueue's topology-aware cases: one workload of pod sets on an otherwise idle tree.

Law: fits or not, the required domain, slices whole inside their domains, and no more domains than Kueue uses, the
widest level first. With the gate for balanced placement also an even split. Which of equal domains is taste. Pods of an
elastic workload that are assigned already run where they are, and the others wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peer_cases.kueue_world import WORKLOAD, Tree, asked, convert, groups, largest, role_name, slices_of
from peer_cases.verdicts import Case, Comparison, Verdict, decide, fits

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


def evicts(case: Case) -> bool:
    """No case of this suite is about who is stopped."""
    return False


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case."""
    name = case["name"]
    tree = Tree(case)
    rule = _not_modelled(case, tree)
    if rule:
        return Verdict(name, "not_modelled", rule)
    rule = _taste(case, tree)
    if rule:
        return Verdict(name, "taste", rule, stable=decide(convert(case, tree)).stable)
    outcome = decide(convert(case, tree))
    comparison = Comparison()
    expected = [pod_set["wantAssignment"] for pod_set in case["podSets"]]
    placed = next((one.placement for one in outcome.placed if one.gang == WORKLOAD), None)
    comparison.law(not outcome.victims, "something was stopped")
    if placed is None or not all(expected):
        left = outcome.waiting[0].refusal if outcome.waiting else None
        comparison.law(not all(expected), f"not placed: {left.message if left else 'no reason'}")
        comparison.law(placed is None, f"placed, though Kueue says: {case['podSets'][0]['wantReason']}")
        return comparison.verdict(name, outcome)
    for group in groups(case):
        roles = {role_name(case, at) for at in group}
        ours = Counter(tree.leaf_of[m.node] for m in placed.members if m.role in roles)
        for at in group:
            ours.update(tree.before[at])
        theirs = Counter[tuple[str, ...]]()
        for at in group:
            theirs.update({tree.leaf(d["Values"]): d["Count"] for d in expected[at]["Domains"]})
        _compare(case, tree, group, ours, theirs, comparison)
        for at in group:
            own = Counter(tree.leaf_of[m.node] for m in placed.members if m.role == role_name(case, at))
            own.update(tree.before[at])
            _slices_hold(case["podSets"][at], tree, own, comparison)
            if at == largest(case, group) and tree.used(ours) == tree.used(theirs):
                other = Counter({tree.leaf(d["Values"]): d["Count"] for d in expected[at]["Domains"]})
                _is_even(case, own, other, comparison)
    return comparison.verdict(name, outcome)


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
    if any(slices_of(pod_set, tree) for pod_set in case["podSets"]):
        return "elastic workload in slices"
    return ""


def _adds_up(pod_set: Mapping[str, Any], tree: Tree) -> bool:
    """Without a hostname level Kueue counts a domain as one large node; we place pods on nodes."""
    pod = asked(pod_set)
    by_leaf: dict[tuple[str, ...], list[Counter[str]]] = {}
    for node, free in tree.offers.items():
        by_leaf.setdefault(tree.leaf_of[node], []).append(free)
    for offers in by_leaf.values():
        total = Counter[str]()
        for free in offers:
            total.update(free)
        if fits(pod, total) > sum(fits(pod, free) for free in offers):
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
        room[tree.leaf_of[node]] += fits(asked(pod_set), free)
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
    wish = case["podSets"][largest(case, group)]["topologyRequest"] or {}
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
    for level, size in slices_of(pod_set, tree):
        torn = [domain for domain, count in tree.inside(counts, level).items() if count % size]
        comparison.law(not torn, f"slices of {size} are torn: {sorted(torn)} of {level}")
