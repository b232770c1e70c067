"""Who yields: the cheapest set of whole gangs whose devices are the right shape for one that may take them.

Two rights and no others (design section 8). *Priority* takes from gangs of lower priority in the same queue.
*Reclaim* takes from queues above their entitlement, for a queue that stays at or below its own, and never below a
guarantee. Both depend on limits, guarantees, entitlements and static priority only.

Why this ends: reclaim lowers Σ max(0, used − entitled) over queues and raises nobody's, because the taker stays
within its entitlement; priority replaces work of one queue by work of higher priority in it. Between two facts both
can happen only finitely often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, Placement
from fairlead.ordering.standing import Standing
from fairlead.placement.feasible import slots_on
from fairlead.placement.placer import Placer
from fairlead.placement.wishes import levels_to_try
from fairlead.world.fleet import IntColumn, Level
from fairlead.world.overlay import uses_of
from fairlead.world.snapshot import Running, World

RESTART_COST_MS = 60_000
"""What losing an attempt costs beside the time since it started: images, start-up, warm caches."""
DOMAINS_TRIED = 48
PRUNED_AT_MOST = 96


@dataclass(frozen=True, slots=True)
class Room:
    """A placement that becomes possible once `victims` are gone."""

    placement: Placement
    victims: tuple[Running, ...]
    cost: int


def lost_work(victim: Running, now_ms: int) -> int:
    """GPU-ms that stopping this attempt throws away, restart included. There are no checkpoints yet to save any."""
    started = victim.all_running_ms if victim.all_running_ms is not None else now_ms
    return victim.gpus * (max(0, now_ms - started) + RESTART_COST_MS)


def find_room(
    gang: Gang,
    world: World,
    placer: Placer,
    standing: Standing,
    spared: frozenset[str],
) -> Room | None:
    """Return the cheapest room that can rightfully be made for `gang`, None where there is none.

    The overlay is left as it was. `spared` are gangs that must not be taken (already taken in this cycle).
    """
    gpu_milli = placer.feasibility.charge(gang)
    candidates = _candidates(gang, gpu_milli, world, standing, spared)
    if not candidates:
        return None
    overlay = placer.overlay
    mark = overlay.checkpoint()
    overlay.release(candidates)
    rooms = [placer.classes.of(gang, role).room.copy() for role in gang.roles]
    overlay.roll_back(mark)
    on_row = _by_row(candidates, placer)
    best: Room | None = None
    search = _Search(gang, world, placer, standing, on_row)
    for level in levels_to_try(gang, placer.inventory):
        enough = placer.feasibility.inside(level, gang).copy()
        for role, room in zip(gang.roles, rooms, strict=True):
            enough &= domain_sums(room, level) >= role.fewest
        for domain in _cheap_first(np.flatnonzero(enough).tolist(), level, on_row, search):
            offer = search.in_domain(level, domain)
            if offer is not None and (best is None or _price(offer) < _price(best)):
                best = offer
    return best


def domain_sums(column: IntColumn, level: Level) -> IntColumn:
    """Sum a column over the domains of a level. Shape (domains,)."""
    inside = level.domain_of >= 0
    sums = np.zeros(len(level.names), dtype=np.int64)
    np.add.at(sums, level.domain_of[inside], column[inside])
    return sums


def _candidates(gang: Gang, gpu_milli: int, world: World, standing: Standing, spared: frozenset[str]) -> list[Running]:
    """Return attempts that `gang`, which is charged for `gpu_milli`, has a right to, each taken alone."""
    reclaims = gpu_milli > 0 and standing.within_entitlement(gang.queue, gpu_milli)
    found: list[Running] = []
    for victim in world.running:
        spec = victim.spec
        if spec is None or victim.phase not in (Phase.STARTING, Phase.RUNNING) or victim.gang in spared:
            continue
        if not spec.preemptible or not victim.holding or victim.gone:
            continue
        if world.now_ms < victim.ripe_ms:
            continue
        if victim.queue == gang.queue:
            if spec.priority < gang.priority:
                found.append(victim)
        elif reclaims and standing.may_lose(victim.queue, victim.gpu_milli, gang.queue):
            found.append(victim)
    return found


def _by_row(candidates: Sequence[Running], placer: Placer) -> dict[int, list[Running]]:
    on_row: dict[int, dict[str, Running]] = {}
    for victim in candidates:
        for rank in victim.holding:
            row = placer.inventory.row.get(victim.placement.members[rank].node)
            if row is not None:
                on_row.setdefault(row, {})[victim.gang] = victim
    return {row: [victims[name] for name in sorted(victims)] for row, victims in on_row.items()}


def _cheap_first(
    domains: Sequence[int], level: Level, on_row: Mapping[int, Sequence[Running]], search: _Search
) -> list[int]:
    """Return the domains most worth a search: those whose victims are cheapest in all, bounded in number."""
    if len(domains) <= DOMAINS_TRIED:
        return list(domains)
    price = dict.fromkeys(domains, 0)
    domain_of = level.domain_of.tolist()
    for row, victims in on_row.items():
        if domain_of[row] in price:
            price[domain_of[row]] += search.row_price(row, victims)
    return sorted(price, key=lambda domain: (price[domain], domain))[:DOMAINS_TRIED]


class _Search:
    """One gang's search for room; holds what all domains share."""

    def __init__(
        self,
        gang: Gang,
        world: World,
        placer: Placer,
        standing: Standing,
        on_row: Mapping[int, Sequence[Running]],
    ) -> None:
        self.gang = gang
        self.gpu_milli = placer.feasibility.charge(gang)
        self.placer = placer
        self.overlay = placer.overlay
        self.standing = standing
        self.on_row = on_row
        self.now_ms = world.now_ms
        self.main = max(range(len(gang.roles)), key=lambda i: (gang.roles[i].gpus, gang.roles[i].replicas))
        self.kinds = [placer.classes.of(gang, role) for role in gang.roles]

    def row_price(self, row: int, victims: Sequence[Running]) -> int:
        """GPU-ms lost if one pod of the main role is to fit on this row."""
        steps = self._row_steps(row, victims)
        return steps[0][0] if steps else sum(lost_work(v, self.now_ms) for v in victims)

    def in_domain(self, level: Level, domain: int) -> Room | None:
        """Return the room that a domain offers, pruned of victims that are not needed."""
        rows = np.flatnonzero(level.domain_of == domain).tolist()
        chosen = self._choose(rows)
        everyone = _unique([v for row in rows for v in self.on_row.get(row, ())])
        for victims in (chosen, everyone):
            allowed = self._rightful(victims)
            placement = self._try(allowed, level, domain)
            if placement is not None:
                return self._prune(allowed, placement, level, domain)
        return None

    def _choose(self, rows: Sequence[int]) -> list[Running]:
        """Take rows by the price of one more pod of the main role until all its replicas have a place."""
        role = self.gang.roles[self.main]
        offers: list[tuple[int, int, int, list[Running]]] = []
        have = 0
        for row in rows:
            have += min(role.replicas, self._slots(row))
            for price, gain, victims in self._row_steps(row, self.on_row.get(row, ())):
                offers.append((price // gain, row, gain, victims))
        chosen: list[Running] = []
        for _, _, gain, victims in sorted(offers, key=lambda offer: offer[:2]):
            if have >= role.replicas:
                break
            chosen += victims
            have += gain
        return _unique(chosen)

    def _row_steps(self, row: int, victims: Sequence[Running]) -> list[tuple[int, int, list[Running]]]:
        """Stop victims on one row, cheapest first: each time another pod fits, (price, pods gained, victims so far)."""
        mark = self.overlay.checkpoint()
        before = self._slots(row)
        steps: list[tuple[int, int, list[Running]]] = []
        batch: list[Running] = []
        price = 0
        for victim in sorted(victims, key=lambda v: (self._price_on(row, v), v.gang)):
            self._release_on(row, victim)
            batch.append(victim)
            price += self._price_on(row, victim)
            now = self._slots(row)
            if now > before:
                steps.append((price, now - before, batch))
                before, batch, price = now, [], 0
        self.overlay.roll_back(mark)
        return steps

    def _price_on(self, row: int, victim: Running) -> int:
        """A victim's price, shared among its rows: one that must go anyway costs little on the next row."""
        return lost_work(victim, self.now_ms) // max(1, len({m.node for m in victim.placement.members}))

    def _slots(self, row: int) -> int:
        """Return the pods of the main role that one row could take now."""
        kind = self.kinds[self.main]
        return int(slots_on(kind.role, kind.fit, kind.group, self.overlay, np.array([row]))[0])

    def _release_on(self, row: int, victim: Running) -> None:
        for at, use in uses_of(victim, self.overlay.inventory):
            if at == row:
                self.overlay.give(self.overlay.taking(row, use))

    def _rightful(self, victims: Sequence[Running]) -> list[Running]:
        """Keep, in this order, those that may be taken together: every right is checked as usage falls."""
        taken: list[Running] = []
        for victim in sorted(victims, key=lambda v: (-self._excess(v.queue), lost_work(v, self.now_ms), v.gang)):
            own = victim.queue == self.gang.queue
            if own or self.standing.may_lose(victim.queue, victim.gpu_milli, self.gang.queue):
                taken.append(victim)
                self.standing.charge(victim.queue, -victim.gpu_milli)
        for victim in taken:
            self.standing.charge(victim.queue, victim.gpu_milli)
        return taken

    def _excess(self, queue: str) -> int:
        return self.standing.used.get(queue, 0) - self.standing.entitled.get(queue, 0)

    def _try(self, victims: Sequence[Running], level: Level, domain: int) -> Placement | None:
        for victim in victims:
            self.standing.charge(victim.queue, -victim.gpu_milli)
        hit = self.standing.limit_hit(self.gang.queue, self.gpu_milli, after_stops=True)
        for victim in victims:
            self.standing.charge(victim.queue, victim.gpu_milli)
        if hit is not None:
            return None
        mark = self.overlay.checkpoint()
        self.overlay.release(victims)
        placement = self.placer.place_in(self.gang, level, domain).placement
        self.overlay.roll_back(mark)
        return placement

    def _prune(self, victims: list[Running], placement: Placement, level: Level, domain: int) -> Room:
        """Spare everyone who is not in the way, the most expensive first."""
        used_nodes = {member.node for member in placement.members}
        kept = [v for v in victims if any(v.placement.members[r].node in used_nodes for r in v.holding)]
        again = self._try(kept, level, domain)
        if again is None:
            kept = list(victims)
        else:
            placement = again
        if len(kept) <= PRUNED_AT_MOST:
            for victim in sorted(kept, key=lambda v: (-lost_work(v, self.now_ms), v.gang)):
                fewer = [v for v in kept if v is not victim]
                spared = self._try(fewer, level, domain)
                if spared is not None:
                    kept, placement = fewer, spared
        return Room(placement, tuple(kept), sum(lost_work(v, self.now_ms) for v in kept))


def _price(room: Room) -> tuple[int, int]:
    return room.cost, len(room.victims)


def _unique(victims: Sequence[Running]) -> list[Running]:
    return list({victim.gang: victim for victim in victims}.values())
