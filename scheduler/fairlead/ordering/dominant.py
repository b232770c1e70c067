"""Entitlements where more than GPUs is counted: dominant resource fairness down the queue tree, in integers.

Every sibling is raised along its own demand, all at the same level of dominant share by weight: the largest part of the
cluster's capacity that what it is given so far is of any resource. A resource that is used up stops growing for
everybody; the others go on. Guarantees come first, as where only GPUs are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead.model.fairness import FairnessPolicy
from fairlead.model.quota import GPU
from fairlead.ordering.fair_share import fill
from fairlead.ordering.queue_tree import QueueTree

Vector = Sequence[int]
_LEVEL = 40  # bits: levels are fractions of 2^40
_RATE = 80  # bits of what is given per level: a claim of one piece grows even where its level is many times the cluster
_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class VectorClaim:
    """One sibling's side: per resource a guarantee, a demand, what comes first after the guarantees, and a weight."""

    guaranteed: Vector
    demand: Vector
    first: Vector
    weight: Vector


def divide_vectors(amounts: Vector, claims: Sequence[VectorClaim], scale: Vector) -> list[list[int]]:
    """Share `amounts` among siblings by weighted dominant share.

    Parameters
    ----------
    amounts : what there is of each resource.
    claims : the siblings.
    scale : per resource, what a dominant share is a part of: its capacity divided by how much it weighs.

    Returns
    -------
    shape (claims, resources)
        Of each resource in sum at most min(amount, total demand), and less by fewer units than there are claims.
    """
    kinds = range(len(amounts))
    share = [[0] * len(amounts) for _ in claims]
    scarce: set[int] = set()
    for r in kinds:
        caps = [min(claim.guaranteed[r], claim.demand[r]) for claim in claims]
        if sum(caps) >= amounts[r]:
            caps = fill(amounts[r], caps, [claim.weight[r] for claim in claims], [0] * len(claims))
            scarce.add(r)
        for mine, cap in zip(share, caps, strict=True):
            mine[r] = cap
    if any(any(claim.first) for claim in claims):
        caps_of = [
            [max(mine[r], min(claim.first[r], claim.demand[r])) for r in kinds]
            for mine, claim in zip(share, claims, strict=True)
        ]
        share = _raise(amounts, share, caps_of, claims, scale, scarce)
    return _raise(amounts, share, [list(claim.demand) for claim in claims], claims, scale, scarce)


def _raise(
    amounts: Vector,
    floor: list[list[int]],
    caps: list[list[int]],
    claims: Sequence[VectorClaim],
    scale: Vector,
    scarce: set[int],
) -> list[list[int]]:
    """Raise everybody from floor towards caps at one level of weighted dominant share. O(claims log claims) each."""
    full = [_full_level(mine, cap, claim, scale) for mine, cap, claim in zip(floor, caps, claims, strict=True)]
    order = sorted((level, i) for i, level in enumerate(full) if level)
    share = [list(mine) for mine in floor]
    for r in range(len(amounts)):
        if r in scarce:
            continue
        rates = {i: ((caps[i][r] - floor[i][r]) << _RATE) // level for level, i in order if caps[i][r] > floor[i][r]}
        left = amounts[r] - sum(mine[r] for mine in floor)
        speed = sum(rates.values())
        top: int | None = None
        for level, i in order:
            if i not in rates:
                continue
            if speed * level > left << _RATE:
                top = (left << _RATE) // speed
                break
            left -= caps[i][r] - floor[i][r]
            speed -= rates[i]
        for i, rate in rates.items():
            reached = caps[i][r] if top is None or full[i] <= top else floor[i][r] + (rate * top >> _RATE)
            share[i][r] = min(caps[i][r], reached)
    return share


def _full_level(floor: Vector, caps: Vector, claim: VectorClaim, scale: Vector) -> int:
    """Return the level at which a claim has all it can: the dominant share of what it lacks, by weight; 0 for none."""
    level = 0
    for r, (low, high) in enumerate(zip(floor, caps, strict=True)):
        if high > low:
            by = scale[r] * max(1, claim.weight[r])
            level = max(level, 1 if not by else -(-((high - low) << _LEVEL) // by))
    return level


def entitlements_of_all(
    tree: QueueTree,
    capacity: Mapping[str, int],
    demand: Mapping[str, Mapping[str, int]],
    held: Mapping[str, Mapping[str, int]],
) -> dict[str, dict[str, int]]:
    """Return resource -> queue -> what its own jobs are entitled to.

    `capacity` is per resource, `demand` and `held` per resource and queue, children not included. Resources of which
    there is nothing are left out of every dominant share.
    """
    return _Walk(tree, sorted(capacity), capacity, demand, held).run()


def scale_of(policy: FairnessPolicy, kinds: Sequence[str], capacity: Vector) -> list[int]:
    """Return what a dominant share of each resource is a part of, 0 where a policy does not count it."""
    weights = dict(policy.resources)
    by_kind = [weights.get(kind, _THOUSAND if kind == GPU or not weights else 0) for kind in kinds]
    return [amount * _THOUSAND // by if by else 0 for amount, by in zip(capacity, by_kind, strict=True)]


class _Walk:
    """One walk down the part of the tree that wants something."""

    def __init__(
        self,
        tree: QueueTree,
        kinds: list[str],
        capacity: Mapping[str, int],
        demand: Mapping[str, Mapping[str, int]],
        held: Mapping[str, Mapping[str, int]],
    ) -> None:
        self._tree, self._kinds = tree, kinds
        self._capacity = [capacity[kind] for kind in kinds]
        self._books = [tree.book(kind) for kind in kinds]
        wanting = {name for of in demand.values() for name, amount in of.items() if amount and name in tree.queues}
        self._active = tree.active(wanting)
        self._own = {name: [demand.get(kind, {}).get(name, 0) for kind in kinds] for name in wanting}
        self._own_held = {name: [held.get(kind, {}).get(name, 0) for kind in kinds] for name in wanting}
        self._wanted: dict[str, list[int]] = {}
        self._holding: dict[str, list[int]] = {}
        self._nothing = [0] * len(kinds)

    def run(self) -> dict[str, dict[str, int]]:
        below = self._active.below
        for name in self._active.upward:
            own, own_held = self._own.get(name, self._nothing), self._own_held.get(name, self._nothing)
            children = below.get(name, ())
            wanted = [amount + sum(self._wanted[child][r] for child in children) for r, amount in enumerate(own)]
            for r, book in enumerate(self._books):
                most = book.most.get(name)
                wanted[r] = wanted[r] if most is None else min(most.amount, wanted[r])
            self._wanted[name] = wanted
            self._holding[name] = [
                min(wanted[r], amount + sum(self._holding[child][r] for child in children))
                for r, amount in enumerate(own_held)
            ]
        share = self._among("", below.get("", []), self._capacity)
        entitled: dict[str, list[int]] = {}
        for name in reversed(self._active.upward):
            if name not in below:
                entitled[name] = share[name]
            else:
                inside = self._among(name, below[name], share[name])
                entitled[name] = inside.pop(name, self._nothing)
                share |= inside
        return {kind: {name: part[r] for name, part in entitled.items()} for r, kind in enumerate(self._kinds)}

    def _among(self, parent: str, siblings: list[str], amounts: Vector) -> dict[str, list[int]]:
        rule, books = self._tree.rule(parent), self._books
        names, claims = list(siblings), list[VectorClaim]()
        for name in names:
            first = [book.needed.get(name, 0) for book in books] if rule.needs_first else self._nothing
            first = self._holding[name] if rule.keeps_what_is_held else first
            promised = [book.promised.get(name, 0) for book in books]
            claims.append(VectorClaim(promised, self._wanted[name], first, self._weights(name)))
        if parent and any(self._own.get(parent, ())):
            kept = [max(0, b.guaranteed.get(parent, 0) - b.promised_below.get(parent, 0)) for b in books]
            first = self._own_held[parent] if rule.keeps_what_is_held else self._nothing
            claims.append(VectorClaim(kept, self._own[parent], first, self._weights(parent)))
            names.append(parent)
        left: list[int] = []
        for r, book in enumerate(books):
            unlent = book.kept_below.get(parent, 0)
            unlent -= sum(min(book.kept.get(name, 0), self._wanted[name][r]) for name in siblings) if unlent else 0
            left.append(max(0, amounts[r] - unlent))
        scale = scale_of(rule.policy, self._kinds, self._capacity)
        return dict(zip(names, divide_vectors(left, claims, scale), strict=True))

    def _weights(self, name: str) -> list[int]:
        if self._tree.rule(self._tree.parents[name]).same_weight:
            return [1] * len(self._books)
        return [book.weight(name) for book in self._books]
