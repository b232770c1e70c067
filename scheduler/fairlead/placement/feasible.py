"""Which nodes could take a pod of a role, and how many: boolean and count columns, one rule each with its reason.

Fairlead is the whole scheduler for its pods, so everything that Kubernetes' scheduler would filter is filtered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, PodShape, Requirement, Role, SelectorTerms, ServiceClass, Toleration
from fairlead.model.hardware import Gpu, Node, Taint
from fairlead.model.tenancy import Pool
from fairlead.world.fleet import BoolColumn, Columns, IntColumn, Inventory, Level
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import HostPorts

BLOCKING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})
MANY = 1 << 40  # "as many as you like", small enough to be summed over a fleet


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a role finds whatever is running. Shape (nodes,) each; `devices` are the bits of acceptable devices."""

    allowed: BoolColumn
    devices: IntColumn
    blocked: tuple[tuple[str, int], ...]


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


def acceptable(gpu: Gpu, role: Role) -> bool:
    """Whether one device is of the model and memory that a role asks for."""
    wanted = role.gpu_model.casefold()
    return (not wanted or wanted in gpu.model.casefold()) and gpu.memory_bytes >= role.gpu_memory_bytes


def why_not(node: Node, role: Role, service: ServiceClass, pools: Mapping[str, Pool]) -> str:
    """Return the rule that keeps a role's pods off a node whatever is running there, "" for none."""
    shape = role.pod
    pool = pools.get(node.pool)
    if pool is None:
        return "not in a pool"
    if pool.service_classes is not None and service not in pool.service_classes:
        return f"in a pool that does not serve {service}"
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


class Feasibility:
    """Fits of roles over one inventory, each computed once and shared by all gangs that ask alike."""

    def __init__(self, inventory: Inventory, pools: Mapping[str, Pool]) -> None:
        """Nothing is computed yet."""
        self._inventory = inventory
        self._pools = pools
        self._fits: dict[tuple[object, ...], Fit] = {}
        self._inside: dict[tuple[str, str], BoolColumn] = {}

    def inside(self, level: Level, gang: Gang) -> BoolColumn:
        """Return which domains of `level` lie whole in one domain of the level the gang requires. Shape (domains,).

        Levels need not nest: a rack may reach into two islands, and some nodes are in no island at all.
        """
        wish = gang.topology
        required = wish.within if wish is not None and wish.required else "cluster"
        known = self._inside.get((level.name, required))
        if known is None:
            inside = level.domain_of >= 0
            outer = self._inventory.levels[required].domain_of[inside]
            low = np.full(len(level.names), np.iinfo(np.int64).max)
            high = np.full(len(level.names), -1, dtype=np.int64)
            np.minimum.at(low, level.domain_of[inside], outer)
            np.maximum.at(high, level.domain_of[inside], outer)
            known = self._inside[level.name, required] = (low == high) & (low >= 0)
        return known

    def fit(self, role: Role, service: ServiceClass, *, ever: bool = False) -> Fit:
        """Return where a role's pods may run; `ever` ignores rules that pass by themselves (not ready, cordoned)."""
        shape = role.pod
        key = (
            role.gpu_model, role.gpu_memory_bytes, service, shape.node_selector, shape.affinity,
            shape.volume_affinity, shape.tolerations, ever,
        )  # fmt: skip
        found = self._fits.get(key)
        if found is None:
            found = self._fits[key] = self._compute(role, service, ever)
        return found

    def _compute(self, role: Role, service: ServiceClass, ever: bool) -> Fit:
        nodes = self._inventory.nodes
        blocked: dict[str, int] = {}
        allowed: list[bool] = []
        devices: list[int] = []
        for node in nodes:
            rule = why_not(node, role, service, self._pools)
            if ever and rule.startswith(PASSING):
                rule = ""
            if rule:
                blocked[rule] = blocked.get(rule, 0) + 1
            allowed.append(not rule)
            devices.append(sum(1 << bit for bit, gpu in enumerate(node.machine.gpus[:63]) if acceptable(gpu, role)))
        ranked = sorted(blocked.items(), key=lambda item: (-item[1], item[0]))
        return Fit(np.array(allowed, dtype=np.bool_), np.array(devices, dtype=np.int64), tuple(ranked))


def slots(role: Role, fit: Fit, columns: Columns, ports: Mapping[int, HostPorts]) -> IntColumn:
    """Return how many pods of `role` each node could take on top of what is on it. Shape (nodes,)."""
    shape = role.pod
    room = np.where(fit.allowed, MANY, 0).astype(np.int64)
    if role.gpus:
        free = np.bitwise_count(columns.free_mask & fit.devices).astype(np.int64)
        room = np.minimum(room, free // role.gpus)
    for amount, column in _wanted(shape, columns):
        if amount > 0:
            room = np.minimum(room, np.maximum(column, 0) // amount)
    if shape.host_ports:
        room = np.minimum(room, 1)
        for row, taken in ports.items():
            if room[row] and ports_clash(shape.host_ports, taken):
                room[row] = 0
    return room


def ports_clash(wanted: Sequence[tuple[str, str, int]], taken: HostPorts) -> bool:
    """Whether any wanted host port is taken; 0.0.0.0 clashes with every address."""
    return any(
        protocol == p and port == n and ("0.0.0.0" in (address, a) or address == a)
        for protocol, address, port in wanted
        for p, a, n in taken
    )


def _wanted(shape: PodShape, columns: Columns) -> list[tuple[int, IntColumn]]:
    asked = shape.requests
    pairs = [
        (asked.cpu_milli, columns.cpu_milli),
        (asked.memory_bytes, columns.memory_bytes),
        (asked.ephemeral_bytes, columns.ephemeral_bytes),
        (max(1, asked.pods), columns.pods),
    ]
    if asked.extended:
        nothing = np.zeros_like(columns.pods)
        pairs += [(amount, columns.extended.get(name, nothing)) for name, amount in asked.extended]
    return pairs


def scarcest(role: Role, fit: Fit, columns: Columns, ports: Mapping[int, HostPorts]) -> str:
    """Say in words what keeps a role's pods off the nodes now, most frequent rule first."""
    counts: dict[str, int] = dict(fit.blocked)
    open_rows = fit.allowed
    named = {
        f"without {role.gpus} free GPUs of that kind": (
            np.bitwise_count(columns.free_mask & fit.devices).astype(np.int64) >= role.gpus
            if role.gpus
            else np.ones_like(open_rows)
        )
    }
    words = ["CPU", "memory", "ephemeral storage", "pod slots", *(name for name, _ in role.pod.requests.extended)]
    for word, (amount, column) in zip(words, _wanted(role.pod, columns), strict=True):
        named[f"without enough {word}"] = column >= amount
    for text, enough in named.items():
        short = int((open_rows & ~enough).sum())
        if short:
            counts[text] = counts.get(text, 0) + short
    if role.pod.host_ports:
        clashing = sum(1 for row, taken in ports.items() if open_rows[row] and ports_clash(role.pod.host_ports, taken))
        if clashing:
            counts["with a host port taken"] = clashing
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count} nodes {text}" for text, count in ranked[:4]) or "no nodes at all"


def request_key(gang: Gang) -> tuple[object, ...]:
    """Return what makes two gangs equal requests: same queue, priority, roles and wishes, whoever sent them."""
    return (
        gang.queue,
        gang.priority,
        gang.priority_class,
        gang.namespace,
        gang.service_class,
        gang.roles,
        gang.topology,
    )


def row_is_free(role: Role, row: int, mask: int, wanted: int, overlay: Overlay) -> bool:
    """Whether exactly these devices, and all else that one pod of `role` needs, are free on a row."""
    columns = overlay.columns
    if mask.bit_count() != wanted or int(columns.free_mask[row]) & mask != mask:
        return False
    if any(amount > 0 and int(column[row]) < amount for amount, column in _wanted(role.pod, columns)):
        return False
    return not ports_clash(role.pod.host_ports, overlay.ports.get(row, frozenset()))
