"""A Volcano case, read: nodes with their HyperNodes by tier, queues, pod groups, and what decides between queues."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peer_cases.verdicts import (
    GPU,
    MOST_GPUS,
    Case,
    amounts,
    fits,
    gpus_are_whole,
)

GROUP = "scheduling.k8s.io/group-name"
TASK = "volcano.sh/task-spec"


@dataclass
class Pod:
    """One pod. `kind` is equal for pods of one group that could take each other's place."""

    key: str
    node: str
    asked: Counter[str]
    labels: Mapping[str, str]
    raw: Mapping[str, Any]
    gated: bool
    kind: str = ""


class Group:
    """A pod group with its pods."""

    def __init__(self, raw: Mapping[str, Any], pods: list[Pod]) -> None:
        self.namespace: str = raw["ns"]
        self.name: str = raw["name"]
        self.phase: str = raw["phase"]
        self.spec: Mapping[str, Any] = raw["spec"]
        self.queue: str = self.spec.get("queue") or "default"
        self.pods = pods
        self.wish: Mapping[str, Any] | None = self.spec.get("networkTopology")
        self.policies: list[Mapping[str, Any]] = self.spec.get("subGroupPolicy") or []
        self.annotations: Mapping[str, str] = raw["annotations"] or {}

    def subgroups(self) -> dict[tuple[int, tuple[str, ...]], list[Pod]]:
        """Pods by (policy, values of the labels that it matches); the first policy that matches has the pod."""
        found: dict[tuple[int, tuple[str, ...]], list[Pod]] = {}
        for pod in self.pods:
            for at, policy in enumerate(self.policies):
                keys = policy.get("matchLabelKeys") or ()
                if keys and all(key in pod.labels for key in keys):
                    found.setdefault((at, tuple(pod.labels[key] for key in keys)), []).append(pod)
                    break
            else:
                found.setdefault((-1, ()), []).append(pod)
        return found

    def hard(self, world: Volcano) -> Iterator[tuple[str, list[Pod], str]]:
        """Yield (what, its pods, the level that they must share)."""
        yield f"{self.namespace}/{self.name}", self.pods, world.hard_level(self.wish)
        for (at, values), pods in self.subgroups().items():
            if at >= 0:
                level = world.hard_level(self.policies[at].get("networkTopology"))
                yield f"subgroup {'/'.join(values)} of {self.name}", pods, level


class Volcano:
    """A case, read."""

    def __init__(self, case: Case) -> None:
        self.case = case
        by_tier: Mapping[str, Mapping[str, Any]] = case["hyperNodesByTier"] or {}
        members: Mapping[str, Any] = case["hyperNodes"] or {}
        self.tiers = [f"tier-{tier}" for tier in sorted(by_tier, key=int)]
        self._domains = {
            f"tier-{tier}": {node: name for name in sorted(names) for node in members.get(name, {})}
            for tier, names in by_tier.items()
        }
        self.nodes: list[Mapping[str, Any]] = case["nodes"]
        self.offers = {node["name"]: amounts({"pods": 110, **node["allocatable"]}) for node in self.nodes}
        self.queues: dict[str, Mapping[str, Any]] = {queue["name"]: queue for queue in case["queues"]}
        self.groups = self._groups(case)
        self.free = {name: Counter(offered) for name, offered in self.offers.items()}
        for group in self.groups:
            for pod in group.pods:
                if pod.node in self.free:
                    self.free[pod.node].subtract(pod.asked + Counter({"pods": 1}))
        self.whole_gpus = gpus_are_whole([*self.offers.values(), *(pod.asked for pod in self.pods)])
        self.stand_in: tuple[str, int] | None = None
        self.decides = self._quota_decides() or self._queues_compete() or self._taken()
        if self.decides:
            self.stand_in = self._unit(self.decides)

    @property
    def pods(self) -> list[Pod]:
        """Pods of all groups."""
        return [pod for group in self.groups for pod in group.pods]

    def in_units(self, amount: Mapping[str, int]) -> int:
        """How many GPUs an amount of the resource that decides stands for."""
        assert self.stand_in is not None
        name, unit = self.stand_in
        return amount.get(name, 0) // unit

    def domain(self, level: str, node: str) -> str:
        """The HyperNode of a tier that a node is in, "" for none."""
        return self._domains.get(level, {}).get(node, "")

    def hard_level(self, wish: Mapping[str, Any] | None) -> str:
        """The level that a hard wish requires, "" for none.

        The widest tier that is allowed; above all tiers is the whole cluster, below all a level that nobody is in.
        """
        if not wish or wish.get("mode", "hard") != "hard" or not self.tiers:
            return ""
        allowed = int(wish.get("highestTierAllowed") or 0)
        numbers = [int(tier.removeprefix("tier-")) for tier in self.tiers]
        if allowed > max(numbers):
            return ""
        return f"tier-{max((number for number in numbers if number <= allowed), default=allowed)}"

    def soft_level(self, wish: Mapping[str, Any] | None) -> str:
        """The level that a soft wish prefers: the lowest tier."""
        return self.tiers[0] if wish and wish.get("mode") == "soft" and self.tiers else ""

    def chain(self, queue: str) -> list[str]:
        """A queue and all above it."""
        found: list[str] = []
        while queue in self.queues and queue not in found:
            found.append(queue)
            queue = self.queues[queue]["spec"].get("parent") or ""
        return found

    def possible(self, pod: Pod) -> list[str]:
        """Nodes that have the labels and the room for a pod before anything is placed."""
        selector: Mapping[str, str] = pod.raw["nodeSelector"] or {}
        return [
            node["name"]
            for node in self.nodes
            if all((node["labels"] or {}).get(key) == value for key, value in selector.items())
            and fits(pod.asked, self.free[node["name"]]) > 0
        ]

    def _quota_decides(self) -> str:
        """Return what, other than GPUs, a queue of a pod that waits and would fit has too little of; "" for none."""
        held = Counter[tuple[str, str]]()
        for group in self.groups:
            for pod in group.pods:
                for queue in self.chain(group.queue):
                    for name, value in {**pod.asked, "pods": 1}.items():
                        held[queue, name] += value
        for group in self.groups:
            for pod in group.pods:
                if pod.node or not self.possible(pod):
                    continue
                for queue in self.chain(group.queue):
                    for name, most in sorted(amounts(self.queues[queue]["spec"].get("capability") or {}).items()):
                        if name != GPU and {**pod.asked, "pods": 1}.get(name) and held[queue, name] > most:
                            return name
        return ""

    def _queues_compete(self) -> str:
        """Return what pods without GPUs that wait in several queues want more of than is free; "" for nothing."""
        waiting = [(group.queue, pod) for group in self.groups for pod in group.pods if not pod.node and not pod.gated]
        if len({queue for queue, _ in waiting}) < 2 or any(pod.asked.get(GPU) for _, pod in waiting):
            return ""
        if not any(self.possible(pod) for _, pod in waiting):
            return ""
        free, wanted = Counter[str](), Counter[str]()
        for offered in self.free.values():
            free.update(offered)
        for _, pod in waiting:
            wanted.update(pod.asked)
        return next((name for name in sorted(wanted) if wanted[name] > free[name]), "")

    def _taken(self) -> str:
        """Return what one queue takes of another: what a pod that waits lacks on every node; "" where nobody takes."""
        evicted = set(self.case["expectEvicted"] or ())
        queues = {group.queue for group in self.groups for pod in group.pods if pod.key in evicted}
        for group in self.groups:
            for pod in group.pods:
                if pod.node or pod.gated or self.possible(pod) or not queues - {group.queue}:
                    continue
                for name, amount in sorted(pod.asked.items()):
                    if name != GPU and amount and all(free.get(name, 0) < amount for free in self.free.values()):
                        return name
        return ""

    def _unit(self, name: str) -> tuple[str, int] | None:
        """Return what of the resource that decides can stand for one GPU; None where that cannot be.

        Our queues count GPUs. In a world without any, a core, or a gigabyte, can stand for one.
        """
        if any(offered.get(GPU) for offered in self.offers.values()) or any(pod.asked.get(GPU) for pod in self.pods):
            return None
        kinds = ("capability", "deserved")
        quotas = [amounts(queue["spec"].get(kind) or {}) for queue in self.queues.values() for kind in kinds]
        quotas += [amounts((q["spec"].get("guarantee") or {}).get("resource") or {}) for q in self.queues.values()]
        unit = math.gcd(
            *(amount.get(name, 0) for amount in (*quotas, *self.offers.values(), *(p.asked for p in self.pods)))
        )
        if not unit or max(offered.get(name, 0) for offered in self.offers.values()) // unit > MOST_GPUS:
            return None
        return (name, unit) if all(free.get(name, 0) >= 0 for free in self.free.values()) else None

    def _groups(self, case: Case) -> list[Group]:
        found = {(raw["ns"], raw["name"]): Group(raw, []) for raw in case["podGroups"]}
        for raw in case["pods"]:
            if raw["phase"] in ("Succeeded", "Failed"):
                continue
            name = (raw["annotations"] or {}).get(GROUP) or f"pod-{raw['name']}"
            alone = {"ns": raw["ns"], "name": name, "phase": "Inqueue", "spec": {"minMember": 1}, "annotations": None}
            group = found.setdefault((raw["ns"], name), Group(alone, []))
            asked = Counter[str]()
            for container in raw["requests"] or ():
                asked.update(amounts(container))
            shape = (sorted(asked.items()), raw["nodeSelector"], raw["affinity"], raw.get("tolerations"), raw["labels"])
            group.pods.append(
                Pod(
                    key=f"{raw['ns']}/{raw['name']}",
                    node=raw["node"] or "",
                    asked=asked,
                    labels=raw["labels"] or {},
                    raw=raw,
                    gated=bool(raw["gates"]),
                    kind=f"{group.namespace}/{group.name} {json.dumps(shape, sort_keys=True)}",
                )
            )
        return list(found.values())
