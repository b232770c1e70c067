"""What each queue is entitled to: hierarchical weighted max-min over GPUs, in integers.

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
    """One sibling's side of a division: whole GPUs and a weight."""

    guaranteed: int
    demand: int
    weight: int


def divide(amount: int, claims: list[Claim]) -> list[int]:
    """Share `amount` among siblings: guarantees first, the rest by weighted max-min.

    Returns
    -------
    shape (claims,), GPUs
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


def entitlements(capacity: int, queues: Mapping[str, Queue], demand: Mapping[str, int]) -> dict[str, int]:
    """Return the GPUs each queue's own jobs are entitled to.

    Parameters
    ----------
    capacity : GPUs that pools offer now.
    demand : per queue, GPUs its own jobs hold or ask for (children not included).
    """
    names = sorted(queues)
    known = {name: queues[name] for name in names}
    children: dict[str, list[str]] = {}
    for name in names:
        parent = known[name].parent
        rooted = len(ancestors(name, known)) == 1 or parent not in known
        children.setdefault("" if rooted else parent, []).append(name)
    total: dict[str, int] = {}
    promised: dict[str, int] = {}  # a child's guarantee counts for its parent too

    def subtree_demand(name: str) -> int:
        below = sum(subtree_demand(child) for child in children.get(name, []))
        promised[name] = max(known[name].guaranteed_gpus, sum(promised[child] for child in children.get(name, [])))
        limit = known[name].limit_gpus
        wanted = demand.get(name, 0) + below
        total[name] = wanted if limit is None else min(limit, wanted)
        return total[name]

    for root in children.get("", []):
        subtree_demand(root)
    entitled: dict[str, int] = {}

    def share_out(amount: int, siblings: list[str], own: str | None) -> None:
        claims = [Claim(promised[name], total[name], known[name].weight) for name in siblings]
        if own is not None and demand.get(own, 0):
            kept = known[own].guaranteed_gpus - sum(promised[name] for name in siblings)
            claims.append(Claim(max(0, kept), demand.get(own, 0), known[own].weight))
        parts = divide(amount, claims)
        if own is not None:
            entitled[own] = parts[len(siblings)] if len(parts) > len(siblings) else 0
        for name, part in zip(siblings, parts, strict=False):
            share_out(part, children.get(name, []), name)

    share_out(capacity, children.get("", []), None)
    return {name: entitled.get(name, 0) for name in names}


def subtree_usage(queue: str, queues: Mapping[str, Queue], used: Mapping[str, int]) -> int:
    """Return the GPUs charged to `queue` and all queues below it."""
    known = dict(queues)
    return sum(gpus for name, gpus in used.items() if queue in ancestors(name, known))
