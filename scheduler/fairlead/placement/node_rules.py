"""Which nodes Kubernetes' scheduler would keep a pod off whatever runs there: pools, taints, selectors, affinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.model.gang import Requirement, Role, SelectorTerms, ServiceClass, Toleration
from fairlead.model.hardware import Node, Taint
from fairlead.model.tenancy import Pool
from fairlead.placement.sharing import mode_of, pool_allows

BLOCKING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether any toleration matches the taint, by Kubernetes' rules."""
    for t in tolerations:
        if t.effect and t.effect != taint.effect:
            continue
        if not t.key and t.operator == "Exists":
            return True
        if t.key == taint.key and (t.operator == "Exists" or t.value == taint.value):
            return True
    return False


def matches(labels: Mapping[str, str], requirement: Requirement) -> bool:
    """Whether labels satisfy one requirement; Gt and Lt compare integers and fail on anything else."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                have, bound = int(value or ""), int(requirement.values[0])
            except (ValueError, IndexError):
                return False
            return have > bound if requirement.operator == "Gt" else have < bound
        case _:
            return False


def selected(node: Node, terms: SelectorTerms) -> bool:
    """Whether a node satisfies ORed terms; an empty term matches nothing."""
    labels = {**dict(node.labels), "metadata.name": str(node.name)}
    return any(term and all(matches(labels, r) for r in term) for term in terms)


def why_not(node: Node, role: Role, service: ServiceClass, pools: Mapping[str, Pool]) -> str:
    """Return the rule that keeps a role's pods off a node whatever is running there, "" for none."""
    shape = role.pod
    pool = pools.get(node.pool)
    if pool is None:
        return "not in a pool"
    if pool.service_classes is not None and service not in pool.service_classes:
        return f"in a pool that does not serve {service}"
    if not pool_allows(pool, service, role):
        return f"in a pool that does not allow {mode_of(role)}"
    passing = ""
    for taint in node.taints:
        if taint.effect in BLOCKING_EFFECTS and not tolerates(shape.tolerations, taint):
            if not taint.key.startswith(PASSING_TAINTS):
                return f"tainted {taint.key}"
            passing = passing or f"tainted {taint.key}"
    labels = dict(node.labels)
    if any(labels.get(key) != value for key, value in shape.node_selector):
        return "not matching nodeSelector"
    if shape.affinity is not None and not selected(node, shape.affinity):
        return "not matching the required node affinity"
    if any(not selected(node, terms) for terms in shape.volume_affinity):
        return "out of reach of a volume"
    if not node.ready:
        return "not ready"
    if node.unschedulable:
        return "cordoned"
    return passing


PASSING_TAINTS = "node.kubernetes.io/"
"""What Kubernetes itself puts on nodes that are not ready, cordoned or short of something, and takes off again."""
PASSING = ("not ready", "cordoned", f"tainted {PASSING_TAINTS}")
"""Rules that a node may leave by itself; the others need a change of the job, the node's labels or its taints."""
