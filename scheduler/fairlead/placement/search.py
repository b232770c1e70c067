"""Where a gang goes: the tightest domain that holds all of it, few domains below that, then devices; all or nothing.

Levels are tried tightest first up to the one that is required; in each, the domains that could hold every role, best
pace first and then the least room left over. Inside a domain the roles are seated the scarcest first, then in other
orders, and at last (small domains, several roles) every way there is. All of it is counted in steps: an answer is a
placement, a *no* that is certain, or a search that ended too early to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations

import numpy as np

from fairlead.model.gang import Gang, Placement, Role, TopologyRequest
from fairlead.placement.columns import ClassColumns, PodClass
from fairlead.placement.exact import seat_exactly
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.score import PACE_SHIFT
from fairlead.placement.seats import Seat, placement_of, take_seats
from fairlead.placement.tree import Chain, Chains, Tree, Wish, within_caps
from fairlead.placement.wishes import (
    alternatives,
    keeps_wishes,
    levels_to_try,
    named_levels,
    slices_of,
    takes_devices,
    weight_of,
)
from fairlead.world.fleet import IntColumn, Inventory, Level
from fairlead.world.overlay import Overlay

DOMAINS_TRIED = 16
"""Domains of one level that are tried for one gang."""
STEPS = 96
"""Attempts to seat a gang, over all levels, models and orders of roles."""
ORDERS_TRIED = 6
_LEFT_BITS = 44  # room left over in a domain is far below 2^44 GPUs
EXACT_STEPS = 5_000
"""Rows looked at in all by the exact search for one gang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A placement; or none, and then whether that is certain. The overlay has it taken, or is as it was."""

    placement: Placement | None = None
    ended_early: bool = False
    steps: int = 0


@dataclass(slots=True)
class _Part:
    """One role of one attempt: how many pods, and what they wish for below the base domain."""

    position: int
    role: Role
    count: int
    own: TopologyRequest | None


class Search:
    """The search for one gang: candidates, attempts, and how many steps are left."""

    def __init__(
        self,
        gang: Gang,
        overlay: Overlay,
        classes: ClassColumns,
        chains: Chains,
        paces: GangPaces,
        lone: frozenset[str],
        steps: int | None,
    ) -> None:
        """Look at nothing yet. `lone` are levels each of whose domains is one node."""
        self._gang = gang
        self._inventory: Inventory = overlay.inventory
        self._overlay = overlay
        self._classes = classes
        self._feasibility = classes.feasibility
        self._paces = paces
        self._lone = lone
        named, above = named_levels(gang), self._feasibility.levels_above(gang)
        self._chain: Chain | None = chains.through(named | above) or chains.through(named)
        self._left = steps
        self._steps = 0
        self._exact_steps = 0
        self._unsure = False
        self._models = alternatives(gang, self._feasibility)
        self._kinds: dict[tuple[int, str], PodClass] = {}
        self._shaped = [self._is_shaped(role) for role in gang.roles]

    def run(self) -> Answer:
        """Try the whole gang; then, where roles have a minimum, as many of their replicas as there is room for."""
        levels = levels_to_try(self._gang, self._inventory)
        found = self._somewhere(levels, [role.replicas for role in self._gang.roles])
        if found is None and any(role.fewest < role.replicas for role in self._gang.roles):
            found = self._as_many_as_fit(levels)
        if found is not None:
            return Answer(placement=found, steps=self._steps)
        return Answer(ended_early=self._unsure, steps=self._steps)

    def run_in(self, level: Level, domain: int) -> Answer:
        """Try the whole gang in one domain."""
        counts = [role.replicas for role in self._gang.roles]
        for model in self._models:
            found = self._in_domain(level, domain, counts, model)
            if found is not None:
                return Answer(placement=found, steps=self._steps)
        return Answer(ended_early=self._unsure, steps=self._steps)

    # --- which domains --------------------------------------------------------------------------------------------

    def _somewhere(self, levels: Sequence[Level], counts: Sequence[int]) -> Placement | None:
        if self._chain is None:
            return None
        able = self._able(counts)
        for level in levels:
            lone = level.name in self._lone
            models = [at for at, on_one_node in able if on_one_node or not lone]
            tried = 0
            for alike in self._by_pace(level, counts, models):
                candidates = sorted(
                    (slow, over, domain, at)
                    for at in alike
                    for slow, over, domain in self._candidates(level, counts, self._models[at])
                )
                for _, _, domain, at in candidates[: max(0, DOMAINS_TRIED - tried)]:
                    found = self._in_domain(level, domain, counts, self._models[at])
                    if found is not None:
                        return found
                tried += len(candidates)
            if tried > DOMAINS_TRIED:
                self._unsure = True
        return None

    def _able(self, counts: Sequence[int]) -> list[tuple[int, bool]]:
        """Return which models have enough room at all, by number, and whether one node may have enough of it."""
        found: list[tuple[int, bool]] = []
        for at, model in enumerate(self._models):
            kinds = [(self._kind_at(position, model), count) for position, count in enumerate(counts) if count]
            if all(kind.total >= count for kind, count in kinds):
                found.append((at, all(kind.holds(count) for kind, count in kinds)))
        return found

    def _candidates(self, level: Level, counts: Sequence[int], model: str) -> list[tuple[int, int, int]]:
        """Return (pace, left over, domain) of domains that could hold every role: the best, one more than are tried."""
        gang = self._gang
        enough = self._feasibility.inside(level, gang)
        left: IntColumn | int = 0
        pace: IntColumn | int = 0
        for position, (role, count) in enumerate(zip(gang.roles, counts, strict=True)):
            if not count:
                continue
            kind = self._kind_at(position, model)
            held = self._held(position, kind, level)
            if int(held.max()) < count:
                return []
            enough = enough & (held >= count)
            left = left + (held - count) * weight_of(role)
            if role.gpus > 1:
                pace = np.maximum(pace, self._pace(kind, level))
        found = np.flatnonzero(enough)
        if not len(found):
            return []
        over = left[found] if isinstance(left, np.ndarray) else np.zeros_like(found)
        slow = pace[found] if isinstance(pace, np.ndarray) and len(pace) > 1 else np.full_like(found, np.max(pace))
        if len(found) > DOMAINS_TRIED:
            key = (slow << _LEFT_BITS) + over
            best = np.sort(np.argpartition(key, DOMAINS_TRIED)[: DOMAINS_TRIED + 1])
            if int(key[best].max()) > int(key.min()):  # ties at the edge end at the lower number
                edge = int(np.sort(key[best])[DOMAINS_TRIED])
                best = np.concatenate((np.flatnonzero(key < edge), np.flatnonzero(key == edge)))[: DOMAINS_TRIED + 1]
            else:
                best = np.arange(DOMAINS_TRIED + 1)
            found, over, slow = found[best], over[best], slow[best]
        return list(zip(slow.tolist(), over.tolist(), found.tolist(), strict=True))

    def _by_pace(self, level: Level, counts: Sequence[int], models: list[int]) -> list[list[int]]:
        """Return models, by number, in groups: each has only domains that come before those of the next.

        Above the nodes all domains of a model count as fast as its best devices are.
        """
        if level.name == "node" or len(models) < 2:
            return [models]
        groups: dict[int, list[int]] = {}
        for at in models:
            wanted = [self._kind_at(i, self._models[at]) for i, count in enumerate(counts) if count]
            slow = max((kind.least >> PACE_SHIFT for kind in wanted if kind.role.gpus > 1), default=0)
            groups.setdefault(slow, []).append(at)
        return [groups[slow] for slow in sorted(groups)]

    def _pace(self, kind: PodClass, level: Level) -> IntColumn:
        """Return how slow a pod's devices would be: on the node itself, else at best anywhere (shape (1,))."""
        if level.name == "node":
            slow = np.empty(len(level.names), dtype=np.int64)
            slow[level.domain_of] = kind.cost >> PACE_SHIFT
            return slow
        return np.array([kind.least >> PACE_SHIFT])

    def _held(self, position: int, kind: PodClass, level: Level) -> IntColumn:
        """Return how many pods of a role each domain of a level holds; never too few. Shape (domains,)."""
        role = self._gang.roles[position]
        if not self._shaped[position]:
            return self._classes.sums(kind, level)
        assert self._chain is not None, self._gang
        tree = Tree(self._chain, self._chain.order, kind.room, kind.cost, self._wish(role, None))
        if level.name == "cluster":
            return np.array([tree.capacity], dtype=np.int64)
        held = tree.caps_of(level)
        return self._classes.sums(kind, level) if held is None else held

    # --- inside one domain ------------------------------------------------------------------------------------------

    def _in_domain(self, level: Level, domain: int, counts: Sequence[int], model: str) -> Placement | None:
        """Seat all roles on the rows of one domain, or leave the overlay as it was."""
        parts = [
            _Part(position, role, count, role.topology)
            for position, (role, count) in enumerate(zip(self._gang.roles, counts, strict=True))
            if count
        ]
        rows = self._rows(level, domain)
        for order in self._orders(parts, rows, model):
            if not self._may_step():
                return None
            seats = self._seat(order, rows, model)
            if seats is not None:
                return self._named(seats, level, domain)
        seats = self._seat_exactly(parts, rows, level, model) if len(parts) > 1 else None
        return None if seats is None else self._named(seats, level, domain)

    def _seat_exactly(self, parts: Sequence[_Part], rows: IntColumn, level: Level, model: str) -> list[Seat] | None:
        """Look at every way to seat several roles, where they are plain enough for that and steps are left."""
        kinds = [self._kind_at(part.position, model) for part in parts]
        plain = not any(
            part.role.share or part.role.mig or part.role.spread or part.role.pod.host_ports for part in parts
        )
        plain = plain and not any(self._feasibility.caps_above(part.role, self._overlay.columns) for part in parts)
        if not plain or (self._left is not None and self._exact_steps >= EXACT_STEPS):
            self._unsure = True
            return None
        named = [self._inventory.levels[name].domain_of for name in sorted(named_levels(self._gang))]
        limit = None if self._left is None else EXACT_STEPS - self._exact_steps
        found, steps = seat_exactly(
            kinds,
            [part.count for part in parts],
            rows.tolist(),
            self._overlay,
            limit,
            lambda row: tuple(int(column[row]) for column in named),
            lambda spots: all(
                keeps_wishes(self._gang, part.role, spots[at], self._inventory) for at, part in enumerate(parts)
            ),
        )
        self._exact_steps += steps
        if found is None or found == "ended":
            self._unsure = self._unsure or found == "ended"
            return None
        mark = self._overlay.checkpoint()
        seats: list[Seat] = []
        narrow_first = sorted(range(len(parts)), key=lambda i: int(np.bitwise_count(kinds[i].fit.devices[rows]).sum()))
        for at in narrow_first:  # who accepts fewer devices chooses first, so that they are still there
            position, spots = parts[at].position, found[at]
            if any(int(self._kind_at(position, model).room[row]) < number for row, number in spots):
                self._overlay.roll_back(mark)
                self._unsure = True
                return None
            taken = self._take(parts[at], kinds[at], spots)
            assert taken is not None, (self._gang, spots)
            seats += taken
        return seats

    def _named(self, seats: Sequence[Seat], level: Level, domain: int) -> Placement:
        return placement_of(self._gang, seats, level, domain, self._inventory, self._paces)

    def _take(self, part: _Part, kind: PodClass, spots: Sequence[tuple[int, int]]) -> list[Seat] | None:
        return take_seats(part.position, self._gang, kind, spots, self._overlay, self._classes.score, self._paces)

    def _rows(self, level: Level, domain: int) -> IntColumn:
        assert self._chain is not None, self._gang
        return self._chain.rows(level, domain)

    def _orders(self, parts: list[_Part], rows: IntColumn, model: str) -> Iterator[list[_Part]]:
        """Yield orders of the roles: the one with the least room to spare first, then others."""
        if len(parts) == 1:
            yield parts
            return
        spare: dict[int, tuple[int, int, int]] = {}
        for part in parts:
            room = int(self._kind_at(part.position, model).room[rows].sum())
            spare[part.position] = (1000 * room // part.count, -part.role.gpus, part.position)
        ranked = sorted(parts, key=lambda part: spare[part.position])
        yield from (list(order) for order in islice(permutations(ranked), ORDERS_TRIED))

    def _seat(self, parts: Sequence[_Part], rows: IntColumn, model: str) -> list[Seat] | None:
        mark = self._overlay.checkpoint()
        seats: list[Seat] = []
        for part in parts:
            kind = self._kind_at(part.position, model)
            spots = self._spots(part, kind, rows)
            taken = None
            if spots is not None:
                taken = self._take(part, kind, spots)
            if taken is None:
                self._overlay.roll_back(mark)
                return None
            seats += taken
        return seats

    def _spots(self, part: _Part, kind: PodClass, rows: IntColumn) -> list[tuple[int, int]] | None:
        """Return (row, pods) for a role; a domain that is only preferred for it is given up where it must be."""
        assert self._chain is not None, self._gang
        wish = self._wish(part.role, part.own)
        spots = Tree(self._chain, rows, kind.room, kind.cost, wish).place(part.count)
        if spots is None and wish.whole and part.own is not None and not part.own.required:
            split = replace(wish, whole="", balanced="" if wish.spread else part.own.within)
            spots = Tree(self._chain, rows, kind.room, kind.cost, split).place(part.count)
        if spots is not None and not within_caps(spots, wish.caps, self._inventory):
            self._unsure = True
            return None
        return spots

    def _wish(self, role: Role, own: TopologyRequest | None) -> Wish:
        """Return a role's wish below a base domain; without `own` only what is required counts."""
        near = own if own is not None else role.topology
        whole = near.within if near is not None and (near.required or own is not None) else ""
        wish = self._gang.topology
        close = wish.within if wish is not None and not wish.required and wish.within != "cluster" else ""
        return Wish(
            slices=slices_of(self._gang, role),
            whole="" if whole == "cluster" else whole,
            spread="" if role.spread == "cluster" else role.spread,
            balanced="" if role.spread else close,
            caps=self._feasibility.caps_above(role, self._overlay.columns),
        )

    # --- fewer replicas ---------------------------------------------------------------------------------------------

    def _as_many_as_fit(self, levels: Sequence[Level]) -> Placement | None:
        """Find room for the fewest, then by halving for as many of each elastic role as fit with that."""
        counts = [role.fewest for role in self._gang.roles]
        units = [max(slices_of(self._gang, role).values(), default=1) for role in self._gang.roles]
        if not any(counts):
            return None
        best = self._try_counts(levels, counts)
        if best is None:
            return None
        for position, role in enumerate(self._gang.roles):
            low, high = counts[position] // units[position], role.replicas // units[position]
            while low < high:
                middle = (low + high + 1) // 2
                more = [*counts[:position], middle * units[position], *counts[position + 1 :]]
                found = self._try_counts(levels, more)
                if found is None:
                    high = middle - 1
                else:
                    low, counts = middle, more
        return self._somewhere(levels, counts)

    def _try_counts(self, levels: Sequence[Level], counts: Sequence[int]) -> Placement | None:
        mark = self._overlay.checkpoint()
        found = self._somewhere(levels, counts)
        self._overlay.roll_back(mark)
        return found

    # --- small things -----------------------------------------------------------------------------------------------

    def _kind_at(self, position: int, model: str) -> PodClass:
        """Return a role's columns as they are now."""
        kind = self._kinds.get((position, model))
        if kind is None:
            role = self._gang.roles[position]
            kind = self._classes.of(self._gang, role, model if takes_devices(role) else "")
            self._kinds[position, model] = kind
        else:
            self._classes.refresh(kind)
        return kind

    def _is_shaped(self, role: Role) -> bool:
        """Whether more than the sum of its nodes' room decides how many pods of a role a domain holds."""
        whole = role.topology is not None and role.topology.required and role.topology.within != "cluster"
        above = self._feasibility.budgets.keys() & {name for name, _ in role.pod.requests.extended}
        return whole or bool(slices_of(self._gang, role)) or bool(above)

    def _may_step(self) -> bool:
        self._steps += 1
        if self._left is None:
            return True
        self._left -= 1
        if self._left < 0:
            self._unsure = True
        return self._left >= 0
