"""What each queue is entitled to: hierarchical weighted max-min over thousandths of GPUs, in integers.

Every node of the queue tree first gets min(guarantee, demand); what is left is shared among siblings with unmet
demand by weight, never above a demand or a limit, and goes down the tree in the same way. Depends on guarantees,
limits, weights and present demand only, never on past usage or age (design section 8). What a FairnessPolicy changes is
said with `Claim`; where more than GPUs is counted, `ordering.dominant` divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter

from fairlead.model.quota import GPU
from fairlead.model.tenancy import Queue
from fairlead.ordering.queue_tree import QueueTree

__all__ = ["WHOLE", "Claim", "QueueTree", "divide", "entitlements"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sibling's side of a division: amounts in one unit, and a weight.

    `first` comes after the guarantees and before the rest is shared by weight: a declared need, or what is held now.
    """

    guaranteed: int
    demand: int
    weight: int
    first: int = 0


def divide(amount: int, claims: list[Claim]) -> list[int]:
    """Share `amount` among siblings: guarantees first, the rest by weighted max-min.

    Returns
    -------
    shape (claims,), in the unit of `amount`
        Sums to min(amount, total demand). Guarantees that together exceed the amount are scaled by weighted max-min
        too. Remainders go to the largest fractions, ties to the earlier claim.
    """
    weights = [claim.weight for claim in claims]
    share = [0] * len(claims)
    caps = [min(claim.guaranteed, claim.demand) for claim in claims]
    if sum(caps) >= amount:
        return fill(amount, caps, weights, share)
    share = caps
    if any(claim.first for claim in claims):
        caps = [max(sure, min(claim.first, claim.demand)) for sure, claim in zip(share, claims, strict=True)]
        share = fill(amount, caps, weights, share)
    return fill(amount, [claim.demand for claim in claims], weights, share)


_FINE = 64  # bits: fractions of amounts over weights up to 10^6 that differ at all differ in these


def fill(amount: int, caps: list[int], weights: list[int], floor: list[int]) -> list[int]:
    """Raise all shares above `floor` in proportion to weight until caps or the amount are reached. O(n log n)."""
    share = list(floor)
    left = amount - sum(share)
    active = [i for i in range(len(caps)) if share[i] < caps[i]]
    while left > 0 and active:
        weighty = [i for i in active if weights[i]]
        if not weighty:  # who weighs nothing comes last, and then equally
            weights = [1] * len(caps)
            continue
        full = {i: ((caps[i] - share[i]) << _FINE) // weights[i] for i in weighty}
        weighty.sort(key=full.__getitem__)
        total = sum(weights[i] for i in weighty)
        done = 0
        for i in weighty:
            need = caps[i] - share[i]
            if need * total > left * weights[i]:
                break
            left, total, share[i] = left - need, total - weights[i], caps[i]
            done += 1
        rest = sorted(weighty[done:])
        if rest:
            left = _split(left, rest, weights, total, share)
        active = [i for i in active if share[i] < caps[i]]
    return share


def _split(left: int, among: list[int], weights: list[int], total: int, share: list[int]) -> int:
    """Give all that is left, by weight; remainders go to the largest fractions. Returns 0."""
    parts = [(left * weights[i] // total, -(left * weights[i] % total), i) for i in among]
    for whole, _, i in parts:
        share[i] += whole
    over = left - sum(whole for whole, _, _ in parts)
    for _, _, i in sorted(parts, key=itemgetter(1, 2))[:over]:
        share[i] += 1
    return 0


WHOLE = 1000
"""Thousandths of one GPU."""


def gpu_entitlements(
    tree: QueueTree, capacity_milli: int, demand_milli: Mapping[str, int], held_milli: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return what each queue's own jobs are entitled to, in thousandths of a GPU. Queues without demand are left out.

    Parameters
    ----------
    capacity_milli : what pools offer now.
    demand_milli : per queue, what its own jobs hold or ask for (children not included).
    held_milli : per queue, what its own jobs hold; only work-conserving policies look at it.

    Notes
    -----
    While nobody wants part of a GPU, GPUs are divided whole, so that no queue is entitled to what it can't use.
    """
    demand = {name: milli for name, milli in demand_milli.items() if milli and name in tree.queues}
    grain = WHOLE if all(milli % WHOLE == 0 for milli in demand.values()) else 1
    held = {} if held_milli is None else held_milli
    if grain != 1:
        demand = {name: milli // grain for name, milli in demand.items()}
        held = {name: milli // grain for name, milli in held.items()}
    division = _Division(tree, demand, held, grain)
    return {name: share * grain for name, share in division.of(capacity_milli // grain).items()}


class _Division:
    """One walk down the part of the tree that wants something. Amounts are in grains of `grain` thousandths."""

    def __init__(self, tree: QueueTree, demand: Mapping[str, int], held: Mapping[str, int], grain: int) -> None:
        self._tree, self._demand, self._held = tree, demand, held
        self._book = tree.book(GPU)
        self._grain = grain
        self._active = tree.active(demand)
        self._wanted: dict[str, int] = {}
        self._holding: dict[str, int] = {}

    def of(self, capacity: int) -> dict[str, int]:
        active, chains = self._active, self._tree.chains
        for name in active.upward:
            wanted = self._demand.get(name, 0) + sum(self._wanted[child] for child in active.below.get(name, ()))
            most = self._book.most.get(name)
            self._wanted[name] = wanted if most is None else min(most.amount // self._grain, wanted)
            if self._held:
                holding = self._held.get(name, 0) + sum(self._holding[child] for child in active.below.get(name, ()))
                self._holding[name] = min(holding, self._wanted[name])
        share = self._among("", active.below.get("", ()), capacity)
        entitled: dict[str, int] = {}
        for name in reversed(active.upward):
            below = active.below.get(name)
            if below is None:
                entitled[name] = share[name]
            else:
                inside = self._among(name, below, share[name])
                entitled[name] = inside.pop(name, 0)
                share |= inside
        assert len(share) <= len(chains), share
        return entitled

    def _among(self, parent: str, siblings: Iterable[str], amount: int) -> dict[str, int]:
        """Share among the children of a queue, and its own jobs, which stand beside them under its own name."""
        names, book, grain = list(siblings), self._book, self._grain
        policy = self._tree.rule(parent)
        claims = [
            Claim(
                book.promised.get(name, 0) // grain,
                self._wanted[name],
                1 if policy.same_weight else book.weight(name),
                (book.needed.get(name, 0) // grain if policy.needs_first else 0)
                or (self._holding.get(name, 0) if policy.keeps_what_is_held else 0),
            )
            for name in names
        ]
        if parent and self._demand.get(parent, 0):
            kept = (book.guaranteed.get(parent, 0) - book.promised_below.get(parent, 0)) // grain
            holding = self._held.get(parent, 0) if policy.keeps_what_is_held else 0
            weight = 1 if policy.same_weight else book.weight(parent)
            claims.append(Claim(max(0, kept), self._demand[parent], weight, holding))
            names.append(parent)
        if book.kept_below:
            unlent = book.kept_below.get(parent, 0) // grain
            unlent -= sum(min(book.kept.get(name, 0) // grain, self._wanted.get(name, 0)) for name in siblings)
            amount = max(0, amount - unlent)
        return dict(zip(names, divide(amount, claims), strict=True))


def entitlements(capacity_milli: int, queues: Mapping[str, Queue], demand_milli: Mapping[str, int]) -> dict[str, int]:
    """Return what every queue's own jobs are entitled to, in thousandths of a GPU, of a tree that is asked once."""
    found = gpu_entitlements(QueueTree(queues), capacity_milli, demand_milli)
    return {name: found.get(name, 0) for name in sorted(queues)}
