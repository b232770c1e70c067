"""A Kueue preemption case in words of ours: cohorts are parent queues, nominal quota is guaranteed, a flavor is a node.

Kueue's quota is all that there is in such a case, so a flavor becomes one node that has the quota of everybody in the
target's cohorts. What is contended stands for GPUs, in units that divide every amount; other resources are the node's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from peer_cases.verdicts import MOST_GPUS, Case, amounts, payable

INCOMING = "incoming"
WEIGHT = 1_000
"""Our weights are whole: Kueue's times this, and at least 1."""


class Workload:
    """A workload. `asked` is (flavor, pods, what each asks for) by pod set."""

    def __init__(self, raw: Mapping[str, Any], queue: str, default_flavor: str, flavors: Mapping[str, str]) -> None:
        self.name: str = raw["name"]
        self.queue = queue
        self.priority: int = raw["priority"] or 0
        self.evicted = any(one["type"] == "Evicted" and one["status"] == "True" for one in raw["conditions"])
        assigned = {one["name"]: one.get("flavors") or {} for one in raw.get("assign") or ()}
        self.asked: list[tuple[str, int, Counter[str]]] = []
        for pod_set in raw["podSets"]:
            each = Counter[str]()
            for container in pod_set["requests"]:
                each.update(amounts(container))
            own = assigned.get(pod_set["name"]) or {}
            named = [own[name] for name in sorted(each) if each[name] and name in own]
            flavor = named[0] if named else flavors.get(pod_set["name"], default_flavor)
            if int(pod_set["count"]) > 0:
                self.asked.append((flavor, int(pod_set["count"]), +each))

    def total(self, resource: str) -> int:
        """All pods together."""
        return sum(count * each.get(resource, 0) for _, count, each in self.asked)


class Quotas:
    """A case, read: the target's tree of cohorts, what each queue has, who holds what."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.target: str = case["targetCQ"]
        self.specs: dict[str, Mapping[str, Any]] = {one["name"]: one["spec"] for one in case["clusterQueues"]}
        self.cohorts: dict[str, Mapping[str, Any]] = {one["name"]: one["spec"] for one in case.get("cohorts") or ()}
        root = self.root(self.specs[self.target])
        self.queues = [
            name for name, spec in self.specs.items() if name == self.target or (root and self.root(spec) == root)
        ]
        self.flavors = sorted({flavor for spec in self._all_specs() for flavor in _quota(spec)})
        self._sets = ((case.get("assignment") or {}).get("PodSets")) or []
        named = {
            one["Name"]: next(iter(flavors))
            for one in self._sets
            if (flavors := sorted({choice["Name"] for choice in one["Flavors"].values()}))
        }
        default = self.flavors[0] if self.flavors else ""
        self.incoming = Workload({**case["incoming"], "assign": None}, self.target, default, named)
        self.admitted = [
            Workload(raw, raw["clusterQueue"], default, {})
            for raw in case["admitted"]
            if raw["clusterQueue"] in self.queues
        ]
        self.resource = self._contended()
        self.unit = self._unit()

    @property
    def workloads(self) -> list[Workload]:
        """Everybody."""
        return [*self.admitted, self.incoming]

    def parent(self, spec: Mapping[str, Any]) -> str:
        """The cohort above a queue or cohort."""
        return spec.get("cohortName") or spec.get("parentName") or ""

    def root(self, spec: Mapping[str, Any]) -> str:
        """The highest cohort above a queue or cohort, "" where it has none."""
        found, above = "", self.parent(spec)
        while above and above != found:
            found, above = above, self.parent(self.cohorts.get(above, {}))
        return found

    def inside(self) -> list[str]:
        """Cohorts above the queues, those that have no object included."""
        found: dict[str, None] = {}
        for name in self.queues:
            above = self.parent(self.specs[name])
            while above and above not in found:
                found[above] = None
                above = self.parent(self.cohorts.get(above, {}))
        root = self.root(self.specs[self.target])
        for name, spec in self.cohorts.items():
            if root and (name == root or self.root(spec) == root):
                found[name] = None
        return list(found)

    def _all_specs(self) -> list[Mapping[str, Any]]:
        return [*(self.specs[name] for name in self.queues), *(self.cohorts.get(name, {}) for name in self.inside())]

    def nominal(self, spec: Mapping[str, Any], resource: str, flavor: str = "") -> int:
        """Nominal quota of one queue or cohort, of one flavor or of all."""
        return sum(
            amounts({resource: quota["nominalQuota"]})[resource]
            for name, quotas in _quota(spec).items()
            if flavor in ("", name) and (quota := quotas.get(resource))
        )

    def extra(self, spec: Mapping[str, Any], word: str) -> int | None:
        """``borrowingLimit`` or ``lendingLimit`` over all flavors, None where one has none."""
        found: list[int] = []
        for quotas in _quota(spec).values():
            if self.resource in quotas:
                value = quotas[self.resource].get(word)
                if value is None:
                    return None
                found.append(amounts({self.resource: value})[self.resource])
        return sum(found) if found else None

    def held(self, queue: str) -> int:
        """What a queue holds of what is contended."""
        return sum(one.total(self.resource) for one in self.admitted if one.queue == queue)

    def capacity(self, resource: str, flavor: str = "") -> int:
        """All quota of the tree."""
        return sum(self.nominal(spec, resource, flavor) for spec in self._all_specs())

    def _contended(self) -> str:
        """The first resource that the incoming workload asks for and that has too little free quota for it."""
        names = [name for name in sorted({n for _, _, each in self.incoming.asked for n in each})]
        for name in names:
            for flavor in {flavor for flavor, _, each in self.incoming.asked if each.get(name)}:
                free = self.capacity(name, flavor) - sum(
                    count * each.get(name, 0)
                    for one in self.admitted
                    for own, count, each in one.asked
                    if own == flavor
                )
                if free < sum(count * each.get(name, 0) for own, count, each in self.incoming.asked if own == flavor):
                    return name
        return names[0] if names else "cpu"

    def _unit(self) -> int:
        listed = [self.nominal(spec, self.resource, flavor) for spec in self._all_specs() for flavor in self.flavors]
        for spec in self._all_specs():
            listed += [self.extra(spec, word) or 0 for word in ("borrowingLimit", "lendingLimit")]
        listed += [each.get(self.resource, 0) for one in self.workloads for _, _, each in one.asked]
        return math.gcd(*listed)


def _quota(spec: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return flavor -> resource -> its quota."""
    return {
        flavor["name"]: {one["name"]: one for one in flavor.get("resources") or ()}
        for group in spec.get("resourceGroups") or ()
        for flavor in group["flavors"]
    }


def too_large(world: Quotas) -> bool:
    """Whether a flavor has more units than a node of ours GPUs, or more runs than there is."""
    if not world.unit:
        return True
    for flavor in world.flavors:
        capacity = world.capacity(world.resource, flavor)
        held = sum(
            count * each.get(world.resource, 0)
            for one in world.admitted
            for own, count, each in one.asked
            if own == flavor
        )
        if capacity // world.unit > MOST_GPUS or held > capacity:
            return True
    return False


def convert(world: Quotas) -> dict[str, object]:
    """Return the scenario of a case."""
    return {
        "fleet": {"nodes": [_node(flavor, world) for flavor in world.flavors]},
        "queues": payable(
            [*(_cohort(name, world) for name in world.inside()), *(_queue(name, world) for name in world.queues)]
        ),
        "running": [_job(one, world, running=True) for one in world.admitted],
        "waiting": [_job(world.incoming, world, running=False)],
    }


def _node(flavor: str, world: Quotas) -> dict[str, object]:
    """A flavor: one node with all the quota of it. What is not contended it has as amounts."""
    return {
        "name": f"flavor-{flavor}",
        "gpus": world.capacity(world.resource, flavor) // world.unit,
        "labels": {"flavor": flavor},
        "memory": world.capacity("memory", flavor) if world.resource != "memory" else "1Ti",
        "cpu": f"{world.capacity('cpu', flavor)}m" if world.resource != "cpu" else 1_000,
        "pods": 1_000,
    }


def _subtree(name: str, world: Quotas) -> int:
    """Nominal quota of a cohort and of everything below it."""
    own = world.nominal(world.cohorts.get(name, {}), world.resource)
    own += sum(
        world.nominal(world.specs[q], world.resource) for q in world.queues if world.parent(world.specs[q]) == name
    )
    below = [one for one in world.inside() if world.parent(world.cohorts.get(one, {})) == name]
    return own + sum(_subtree(one, world) for one in below)


def _weight(spec: Mapping[str, Any]) -> int:
    weight = (spec.get("fairSharing") or {}).get("weight")
    return WEIGHT if weight is None else max(1, WEIGHT * amounts({"cpu": weight})["cpu"] // 1_000)


def _cohort(name: str, world: Quotas) -> dict[str, object]:
    spec = world.cohorts.get(name, {})
    parent = world.parent(spec)
    return {
        "name": f"cohort-{name}",
        "parent": f"cohort-{parent}" if parent else "",
        "guaranteed": _subtree(name, world) // world.unit,
        "weight": _weight(spec),
        **_limit(spec, _subtree(name, world), world),
    }


def _queue(name: str, world: Quotas) -> dict[str, object]:
    spec = world.specs[name]
    parent, nominal = world.parent(spec), world.nominal(spec, world.resource)
    words: dict[str, object] = {
        "name": name,
        "parent": f"cohort-{parent}" if parent else "",
        "guaranteed": nominal // world.unit,
        "weight": _weight(spec),
        **_limit(spec, nominal, world),
    }
    if not parent:
        words["limit"] = nominal // world.unit
    return words


def _limit(spec: Mapping[str, Any], nominal: int, world: Quotas) -> dict[str, object]:
    most = world.extra(spec, "borrowingLimit")
    return {} if most is None else {"limit": (nominal + most) // world.unit}


def _priority(one: Workload, world: Quotas) -> int:
    """A queue that never stops its own work for its own is one in which all have the same priority."""
    own = (world.specs[one.queue].get("preemption") or {}).get("withinClusterQueue") or "Never"
    return world.incoming.priority if own == "Never" else one.priority


def _job(one: Workload, world: Quotas, *, running: bool) -> dict[str, object]:
    roles: list[dict[str, object]] = []
    members: list[dict[str, object]] = []
    for at, (flavor, count, each) in enumerate(one.asked):
        role: dict[str, object] = {
            "name": f"r{at}",
            "replicas": count,
            "gpus": each.get(world.resource, 0) // world.unit,
            "nodeSelector": {"flavor": flavor},
            "cpu": f"{each.get('cpu', 0)}m" if world.resource != "cpu" else 0,
            "memory": each.get("memory", 0) if world.resource != "memory" else 0,
        }
        roles.append(role)
        members.append({"role": f"r{at}", "node": f"flavor-{flavor}", "count": count})
    words: dict[str, object] = {
        "name": f"{one.name}" if running else INCOMING,
        "queue": one.queue,
        "priority": _priority(one, world),
        "roles": roles,
    }
    return words | {"members": members, "deleted": one.evicted} if running else words
