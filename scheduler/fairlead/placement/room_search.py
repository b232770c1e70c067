"""The search for room: which domains, which victims in them, and what of it holds in the overlay.

Domains are ranked by what their room would cost at about; the best of each level are walked node by node (`RowSteps`),
and the cheapest sets are tried: released in the overlay, the gang placed, everybody spared who is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, GangId, Placement
from fairlead.ordering.standing import Standing
from fairlead.placement.placer import Placer
from fairlead.placement.release import release
from fairlead.placement.room_bounds import Bound
from fairlead.placement.row_steps import Demand, Rights, RowSteps, Step, amounts_on, demand_of
from fairlead.placement.victims import RESTART_COST_MS, Victim, Victims, Yield
from fairlead.placement.wishes import is_single
from fairlead.world.fleet import BoolColumn, IntColumn, Level
from fairlead.world.snapshot import Running

SINGLE_ROWS_TRIED = 48
"""Domains of one node whose victims are counted exactly for one gang, of each level."""
WIDE_DOMAINS_TRIED = 8
"""Domains of more nodes, of each level."""
ROWS_WALKED = 256
"""Nodes whose victims are counted exactly in all, beside those that a gang of many pods needs."""
TRIES = 24
"""Times that a gang is placed in the overlay with victims released."""
EVERYONE_AT_MOST = 1_024
"""Victims in a domain up to which it is tried with all of them gone, where the cheapest choice did not do."""
DEAR = 1 << 42  # a price in ms that no attempt has, small enough to be multiplied by devices


@dataclass(frozen=True, slots=True)
class Room:
    """A placement that becomes possible once `victims` are gone."""

    placement: Placement
    victims: tuple[Running, ...]
    cost: int


@dataclass(frozen=True, slots=True)
class _Offer:
    """Victims in one domain that should do, and what they cost. None of them: the domain is tried with everybody."""

    price: int
    position: int
    domain: int
    victims: tuple[Victim, ...]


class RoomSearch:
    """One gang's search; holds what all domains share."""

    def __init__(
        self,
        gang: Gang,
        placer: Placer,
        standing: Standing,
        victims: Victims,
        rights: Rights,
        yields: Sequence[Yield],
        bounds: Sequence[Bound],
    ) -> None:
        """`bounds` are those of the gang's roles, `yields` the groups that it has a right to."""
        self._gang = gang
        self._placer = placer
        self._overlay = placer.overlay
        self._standing = standing
        self._victims = victims
        self._rights = rights
        self._bounds = bounds
        self._now_ms = victims.now_ms
        extended = victims.extended
        self._demands: list[Demand] = [
            demand_of(gang, role, bound.kind, self._overlay, placer.feasibility, extended)
            for role, bound in zip(gang.roles, bounds, strict=True)
        ]
        self._steps = [
            RowSteps(demand, demand.role.replicas, victims, rights, self._overlay) for demand in self._demands
        ]
        self._main = max(range(len(gang.roles)), key=lambda i: (gang.roles[i].gpus, gang.roles[i].replicas))
        self._youngest = yields[0].youngest
        for group in yields[1:]:
            self._youngest = np.maximum(self._youngest, group.youngest)
        self._walks_left = ROWS_WALKED + sum(2 * role.replicas for role in gang.roles)
        self._tries_left = TRIES
        self._room_after = 0
        self._everyones: list[_Offer] = []

    def best(self, levels: Sequence[Level], at_most: int | None) -> Room | None:
        """Return the cheapest room in the domains of some levels that is found in the bounded search."""
        if is_single(self._gang):
            levels = [level for level in levels if level.name == "node"] or levels
        offers: list[_Offer] = []
        for position, level in enumerate(levels):
            enough = self._placer.feasibility.inside(level, self._gang)
            for role, bound in zip(self._gang.roles, self._bounds, strict=True):
                enough = enough & (bound.sums_of(level) >= role.replicas)
            domains = np.flatnonzero(enough)
            if len(domains):
                single = level.name in self._placer.lone
                offers += self._single_rows(position, level, domains) if single else self._wide(position, level, enough)
        offers.sort(key=lambda offer: (offer.price, offer.position, offer.domain))
        for offer in offers:
            room = self._room(offer.victims, levels[offer.position], offer.domain)
            if room is not None and (at_most is None or len(room.victims) <= at_most):
                return room
        best: Room | None = None
        for offer in sorted(self._everyones, key=lambda offer: (offer.price, offer.position, offer.domain)):
            level = levels[offer.position]
            rows = self._rows(level, offer.domain)
            room = self._room(self._everyone(rows), level, offer.domain)
            if room is None or (at_most is not None and len(room.victims) > at_most):
                continue
            if best is None or room.cost < best.cost:
                best = room
        return best

    # --- which domains, and who in them -----------------------------------------------------------------------------

    def _price_of_device(self, rows: IntColumn) -> IntColumn:
        """Return the least that one device costs on each row, in GPU-ms; DEAR where there is nobody to take from."""
        youngest = self._youngest[rows]
        price: IntColumn = np.where(youngest < 0, DEAR, np.maximum(0, self._now_ms - youngest) + RESTART_COST_MS)
        return price

    def _free(self, rows: IntColumn) -> IntColumn:
        """Count the devices on each row that the main role could have now."""
        devices = self._bounds[self._main].kind.fit.devices[rows]
        return np.bitwise_count(self._overlay.columns.free_mask[rows] & devices).astype(np.int64)

    def _single_rows(self, position: int, level: Level, domains: IntColumn) -> list[_Offer]:
        """Look at domains of one node, the one of the lowest estimate first, until none can be cheaper than the best.

        The estimate is never above the price: a device costs at least what the youngest one on the node does.
        """
        rows = level.order[level.starts[domains]]
        wanted = sum(role.gpus * role.replicas for role in self._gang.roles)
        least = np.maximum(0, wanted - self._free(rows)) * self._price_of_device(rows)
        ranked = np.argsort(least, kind="stable")[:SINGLE_ROWS_TRIED]
        offers: list[_Offer] = []
        cheapest = DEAR * DEAR
        for at in ranked.tolist():
            if self._walks_left <= 0 or cheapest <= int(least[at]):
                break
            self._walks_left -= 1
            offer = self._offer(position, level, int(domains[at]), [int(rows[at])], int(least[at]))
            if offer is not None:
                cheapest = min(cheapest, offer.price)
                offers.append(offer)
        return offers

    def _wide(self, position: int, level: Level, enough: BoolColumn) -> list[_Offer]:
        """Walk the domains in which the pods of the main role are cheapest at about, and there the cheapest nodes."""
        bound, role = self._bounds[self._main], self._gang.roles[self._main]
        inside = np.flatnonzero((level.domain_of >= 0) & (bound.room > 0))
        inside = inside[enough[level.domain_of[inside]]]
        domain = level.domain_of[inside]
        now = np.minimum(bound.kind.room[inside], bound.room[inside])
        gain = bound.room[inside] - now
        missing = np.full(len(level.names), role.replicas, dtype=np.int64)
        np.subtract.at(missing, domain, np.minimum(now, role.replicas))
        short = np.maximum(0, role.gpus * bound.room[inside] - self._free(inside))
        pod = short * self._price_of_device(inside) // np.maximum(1, gain)
        order = np.lexsort((pod, domain))
        inside, domain, gain, pod = inside[order], domain[order], gain[order], pod[order]
        so_far = np.cumsum(gain) - gain
        starts = np.flatnonzero(np.concatenate(([True], domain[1:] != domain[:-1])))
        so_far -= np.repeat(so_far[starts], np.diff(np.append(starts, len(domain))))
        taken = np.clip(missing[domain] - so_far, 0, gain)
        prices = np.add.reduceat(taken * pod, starts)
        ends = np.append(starts[1:], len(domain))
        offers: list[_Offer] = []
        for at in np.argsort(prices, kind="stable")[:WIDE_DOMAINS_TRIED].tolist():
            if self._walks_left <= 0:
                break
            which = int(domain[starts[at]])
            wanted = max(0, int(missing[which]))
            rows = inside[starts[at] : ends[at]][so_far[starts[at] : ends[at]] < wanted + wanted // 4 + 16]
            self._walks_left -= len(rows)
            offer = self._offer(position, level, which, rows.tolist(), int(prices[at]))
            if offer is not None:
                offers.append(offer)
        return offers

    def _offer(self, position: int, level: Level, domain: int, rows: Sequence[int], estimate: int) -> _Offer | None:
        """Choose victims on some rows of a domain, None where that does not do; the domain is kept for a later try."""
        self._everyones.append(_Offer(estimate, position, domain, ()))
        chosen: dict[GangId, Victim] = {}
        for at in range(len(self._gang.roles)):
            chosen |= self._choose(at, rows, self._rows(level, domain))
        if not chosen:
            return None
        return _Offer(sum(v.lost(self._now_ms) for v in chosen.values()), position, domain, tuple(chosen.values()))

    def _choose(self, at: int, rows: Sequence[int], everywhere: IntColumn) -> dict[GangId, Victim]:
        """Take rows by the price of one more pod of a role until all its replicas have a place in the domain."""
        wanted = self._gang.roles[at].replicas
        have = int(np.minimum(self._bounds[at].kind.room[everywhere], wanted).sum())
        chosen: dict[GangId, Victim] = {}
        if have >= wanted:
            return chosen
        steps: list[tuple[int, int, int, Step]] = []
        for row in rows:
            dearest = 0
            for number, step in enumerate(self._steps[at].on(row)):
                dearest = max(dearest, step.price // step.gain)  # a later step on a row needs those before it
                steps.append((dearest, row, number, step))
        steps.sort(key=lambda offer: offer[:3])
        for _, _, _, step in steps:
            chosen |= {victim.gang: victim for victim in step.victims}
            have += step.gain
            if have >= wanted:
                break
        return chosen

    def _rows(self, level: Level, domain: int) -> IntColumn:
        return level.order[level.starts[domain] : level.starts[domain + 1]]

    def _everyone(self, rows: IntColumn) -> tuple[Victim, ...]:
        """Return all whom the gang has a right to on some rows, nobody where they are too many."""
        found: dict[GangId, Victim] = {}
        for row in rows.tolist():
            for gang, (victim, _) in self._victims.on_row[row].items():
                if self._rights.cover(victim):
                    found[gang] = victim
            if len(found) > EVERYONE_AT_MOST:
                return ()
        return tuple(found.values())

    # --- what holds --------------------------------------------------------------------------------------------------

    def _room(self, victims: Sequence[Victim], level: Level, domain: int) -> Room | None:
        """Return the room that these victims make in a domain, pruned of those who are not needed."""
        allowed = self._rightful(victims)
        if not allowed:
            return None
        placement = self._try(allowed, level, domain)
        if placement is None:
            return None
        kept, placement = self._prune(allowed, placement, level, domain)
        cost = sum(victim.lost(self._now_ms) for victim in kept)
        return Room(placement, tuple(victim.attempt for victim in kept), cost)

    def _rightful(self, victims: Sequence[Victim]) -> list[Victim]:
        """Keep, in this order, those that may be taken together: every right is checked as usage falls."""
        standing, own = self._standing, self._gang.queue
        excess = {v.queue: standing.used.get(v.queue, 0) - standing.entitled.get(v.queue, 0) for v in victims}
        taken: list[Victim] = []
        for victim in sorted(victims, key=lambda v: (-excess[v.queue], v.lost(self._now_ms), v.gang)):
            if victim.queue == own or standing.may_lose(victim.queue, victim.gpu_milli, own):
                taken.append(victim)
                standing.charge(victim.queue, -victim.gpu_milli)
        for victim in taken:
            standing.charge(victim.queue, victim.gpu_milli)
        return taken

    def _try(self, victims: Sequence[Victim], level: Level, domain: int) -> Placement | None:
        """Place the gang in a domain with victims gone; the overlay is then as it was."""
        if self._tries_left <= 0 or not self._within_limits(victims):
            return None
        self._tries_left -= 1
        mark = self._overlay.checkpoint()
        release(self._overlay, victims, self._victims.extended)
        if len(self._gang.roles) == 1:
            kind = self._placer.classes.of(self._gang, self._gang.roles[0])
            self._room_after = int(kind.room[self._rows(level, domain)].sum())
        placement = self._placer.place_in(self._gang, level, domain).placement
        self._overlay.roll_back(mark)
        return placement

    def _within_limits(self, victims: Iterable[Victim]) -> bool:
        standing, gang = self._standing, self._gang
        if standing.limit_hit(gang.queue, gang.gpu_milli, after_stops=True) is None:
            return True
        gone: dict[str, int] = {}
        for victim in victims:
            gone[victim.queue] = gone.get(victim.queue, 0) + victim.gpu_milli
        for queue, milli in gone.items():
            standing.charge(queue, -milli)
        hit = standing.limit_hit(gang.queue, gang.gpu_milli, after_stops=True)
        for queue, milli in gone.items():
            standing.charge(queue, milli)
        return hit is None

    # --- who is not needed --------------------------------------------------------------------------------------------

    def _prune(
        self, victims: list[Victim], placement: Placement, level: Level, domain: int
    ) -> tuple[list[Victim], Placement]:
        """Spare everyone who is not in the way, the most expensive first."""
        pods = self._pods_on(placement)
        if is_single(self._gang) and len(victims) == 1:
            return victims, placement
        kept = [victim for victim in victims if any(held.row in pods for held in victim.held)]
        kept = self._needed(kept, pods)
        if len(kept) < len(victims):
            again = self._try(kept, level, domain)
            if again is None:
                kept = victims
            else:
                placement = again
        if len(kept) > self._tries_left:
            return kept, placement
        for victim in sorted(kept, key=lambda v: (-v.lost(self._now_ms), v.gang)):
            if self._is_needed(victim, kept):
                continue
            room_before = self._room_after
            fewer = [other for other in kept if other is not victim]
            spared = self._try(fewer, level, domain)
            if spared is not None:
                kept, placement = fewer, spared
            else:
                self._room_after = room_before
        return kept, placement

    def _pods_on(self, placement: Placement) -> dict[int, list[int]]:
        """Return row -> how many pods of each role a placement has there."""
        names = {role.name: at for at, role in enumerate(self._gang.roles)}
        pods: dict[int, list[int]] = {}
        for member in placement.members:
            row = self._placer.inventory.row[member.node]
            pods.setdefault(row, [0] * len(names))[names[member.role]] += 1
        return pods

    def _needed(self, victims: list[Victim], pods: dict[int, list[int]]) -> list[Victim]:
        """Leave out, the dearest first, those without whom bits and amounts of each row are still enough."""
        if not all(demand.plain for demand in self._demands):
            return victims
        left = {row: self._with_all(row, victims_on) for row, victims_on in _by_row(victims).items() if row in pods}
        kept: set[GangId] = {victim.gang for victim in victims}
        for victim in sorted(victims, key=lambda v: (-v.lost(self._now_ms), v.gang)):
            without: dict[int, tuple[int, list[int]]] = {}
            for held in victim.held:
                if held.row in left:
                    free, amounts = left[held.row]
                    rest = [a - b for a, b in zip(amounts, held.amounts, strict=True)]
                    if not held.plain or not self._enough(held.row, pods[held.row], free & ~held.mask, rest):
                        break
                    without[held.row] = free & ~held.mask, rest
            else:
                kept.discard(victim.gang)
                left |= without
        return [victim for victim in victims if victim.gang in kept]

    def _with_all(self, row: int, victims: Sequence[Victim]) -> tuple[int, list[int]]:
        """Return devices and amounts on a row with victims gone."""
        free = int(self._overlay.columns.free_mask[row])
        amounts = amounts_on(row, self._overlay.columns, self._victims.extended)
        for victim in victims:
            for held in victim.held:
                if held.row == row:
                    free |= held.mask
                    amounts = [a + b for a, b in zip(amounts, held.amounts, strict=True)]
        return free, amounts

    def _enough(self, row: int, pods: Sequence[int], free: int, amounts: Sequence[int]) -> bool:
        """Whether pods of the roles fit on a row, each role counting only devices that all of them accept."""
        devices = free
        for demand, count in zip(self._demands, pods, strict=True):
            if count and demand.role.gpus:
                devices &= int(demand.kind.fit.devices[row])
        if devices.bit_count() < sum(d.role.gpus * n for d, n in zip(self._demands, pods, strict=True)):
            return False
        return all(
            amount >= sum(d.amounts[at] * n for d, n in zip(self._demands, pods, strict=True))
            for at, amount in enumerate(amounts)
        )

    def _is_needed(self, victim: Victim, kept: Sequence[Victim]) -> bool:
        """Whether a count proves that without this victim too few pods fit: of one role of plain pods alone."""
        demand = self._demands[0]
        if len(self._demands) > 1 or not demand.plain or not all(v.plain for v in kept):
            return False
        loss = 0
        for held in victim.held:
            free, amounts = self._with_all(held.row, [v for v in kept if any(h.row == held.row for h in v.held)])
            if not demand.kind.fit.allowed[held.row]:
                continue
            devices = int(demand.kind.fit.devices[held.row])
            rest = [a - b for a, b in zip(amounts, held.amounts, strict=True)]
            loss += demand.slots(devices, free, amounts) - demand.slots(devices, free & ~held.mask, rest)
        return self._room_after - loss < demand.role.replicas


def _by_row(victims: Iterable[Victim]) -> dict[int, list[Victim]]:
    on_row: dict[int, list[Victim]] = {}
    for victim in victims:
        for held in victim.held:
            on_row.setdefault(held.row, []).append(victim)
    return on_row
