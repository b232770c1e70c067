"""What each queue is entitled to: hierarchical weighted max-min over thousandths of GPUs, in integers.

Every node of the queue tree first gets min(guarantee, demand); what is left is shared among siblings with unmet
demand by weight, never above a demand or a limit, and goes down the tree in the same way. Depends on guarantees,
limits, weights and present demand only, never on past usage or age (design section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter

from fairlead.model.tenancy import Queue, ancestors


@dataclass(frozen=True, slots=True)
class Claim:
    """One sibling's side of a division: amounts in one unit, and a weight."""

    guaranteed: int
    demand: int
    weight: int


def divide(amount: int, claims: list[Claim]) -> list[int]:
    """Share `amount` among siblings: guarantees first, the rest by weighted max-min.

    Returns
    -------
    shape (claims,), in the unit of `amount`
        Sums to min(amount, total demand). Guarantees that together exceed the amount are scaled by weighted max-min
        too. Remainders go to the largest fractions, ties to the earlier claim.
    """
    first = [min(claim.guaranteed, claim.demand) for claim in claims]
    if sum(first) >= amount:
        return _fill(amount, first, [claim.weight for claim in claims], [0] * len(claims))
    demands = [claim.demand for claim in claims]
    return _fill(amount, demands, [claim.weight for claim in claims], first)


def _fill(amount: int, caps: list[int], weights: list[int], floor: list[int]) -> list[int]:
    """Raise all shares above `floor` in proportion to weight until caps or the amount are reached."""
    share = list(floor)
    left = amount - sum(share)
    active = [i for i in range(len(caps)) if share[i] < caps[i]]
    while left > 0 and active:
        total = sum(weights[i] for i in active)
        if not total:  # who weighs nothing comes last, and then equally
            weights = [1] * len(caps)
            continue
        full = [i for i in active if (caps[i] - share[i]) * total <= left * weights[i]]
        if full:
            for i in full:
                left -= caps[i] - share[i]
                share[i] = caps[i]
            active = [i for i in active if i not in full]
            continue
        parts = [(left * weights[i] // total, -(left * weights[i] % total), i) for i in active]
        for whole, _, i in parts:
            share[i] += whole
        rest = left - sum(whole for whole, _, _ in parts)
        for _, _, i in sorted(parts, key=itemgetter(1, 2))[:rest]:
            share[i] += 1
        left = 0
    return share


WHOLE = 1000
"""Thousandths of one GPU."""


class QueueTree:
    """The queue tree as entitlements need it: made once, asked as often as demand changes."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        """Order the queues from the roots down. A queue in a cycle, or without its parent, is a root."""
        self.queues = dict(queues)
        self.names = sorted(queues)
        self.chains = {name: ancestors(name, self.queues) for name in self.names}
        children: dict[str, list[str]] = {}
        for name in self.names:
            parent = self.queues[name].parent
            rooted = len(self.chains[name]) == 1 or parent not in self.queues
            children.setdefault("" if rooted else parent, []).append(name)
        self._children = children

    def entitlements(self, capacity_milli: int, demand_milli: Mapping[str, int]) -> dict[str, int]:
        """Return what each queue's own jobs are entitled to, in thousandths of a GPU.

        Parameters
        ----------
        capacity_milli : what pools offer now.
        demand_milli : per queue, what its own jobs hold or ask for (children not included).

        Notes
        -----
        While nobody wants part of a GPU, GPUs are divided whole, so that no queue is entitled to what it can't use.
        """
        grain = WHOLE if all(milli % WHOLE == 0 for milli in demand_milli.values()) else 1
        division = _Division(self, {name: milli // grain for name, milli in demand_milli.items()}, WHOLE // grain)
        return {name: share * grain for name, share in division.of(capacity_milli // grain).items()}

    def below(self, name: str) -> list[str]:
        """Return the children of a queue, of none the roots."""
        return self._children.get(name, [])


class _Division:
    """One walk down the tree. Amounts are in grains; a whole GPU has `per_gpu` of them."""

    def __init__(self, tree: QueueTree, demand: Mapping[str, int], per_gpu: int) -> None:
        self._tree, self._demand, self._per_gpu = tree, demand, per_gpu
        self._total: dict[str, int] = {}
        self._promised: dict[str, int] = {}  # a child's guarantee counts for its parent too
        self._entitled: dict[str, int] = {}

    def of(self, capacity: int) -> dict[str, int]:
        for root in self._tree.below(""):
            self._subtree_demand(root)
        self._share_out(capacity, self._tree.below(""), None)
        return {name: self._entitled.get(name, 0) for name in self._tree.names}

    def _subtree_demand(self, name: str) -> int:
        queue, children = self._tree.queues[name], self._tree.below(name)
        below = sum(self._subtree_demand(child) for child in children)
        own = queue.guaranteed_gpus * self._per_gpu
        self._promised[name] = max(own, sum(self._promised[child] for child in children))
        wanted = self._demand.get(name, 0) + below
        limit = queue.limit_gpus
        self._total[name] = wanted if limit is None else min(limit * self._per_gpu, wanted)
        return self._total[name]

    def _share_out(self, amount: int, siblings: list[str], own: str | None) -> None:
        queues = self._tree.queues
        claims = [Claim(self._promised[name], self._total[name], queues[name].weight) for name in siblings]
        if own is not None and self._demand.get(own, 0):
            promised = sum(self._promised[name] for name in siblings)
            kept = queues[own].guaranteed_gpus * self._per_gpu - promised
            claims.append(Claim(max(0, kept), self._demand.get(own, 0), queues[own].weight))
        parts = divide(amount, claims)
        if own is not None:
            self._entitled[own] = parts[len(siblings)] if len(parts) > len(siblings) else 0
        for name, part in zip(siblings, parts, strict=False):
            self._share_out(part, self._tree.below(name), name)


def entitlements(capacity_milli: int, queues: Mapping[str, Queue], demand_milli: Mapping[str, int]) -> dict[str, int]:
    """Return what each queue's own jobs are entitled to: `QueueTree.entitlements` of a tree that is asked once."""
    return QueueTree(queues).entitlements(capacity_milli, demand_milli)
