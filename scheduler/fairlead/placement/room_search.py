"""The search for room: what of the offers holds in the overlay, and who of their victims is not needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.quota import Amounts, added
from fairlead.ordering.standing import Standing
from fairlead.placement.amounts import amounts_left
from fairlead.placement.placer import Placer
from fairlead.placement.release import release
from fairlead.placement.room_charges import Charges, by_queue
from fairlead.placement.room_offers import Offer
from fairlead.placement.row_steps import Demand, Rights
from fairlead.placement.shields import Shields
from fairlead.placement.victim import WHOLE, Victim
from fairlead.placement.victims import Victims
from fairlead.placement.wishes import is_single
from fairlead.world.fleet import IntColumn, Level
from fairlead.world.snapshot import Running

TRIES = 24
"""Times that a gang is placed in the overlay with victims released."""
EVERYONE_AT_MOST = 1_024
"""Victims in a domain up to which it is tried with all of them gone, where the cheapest choice did not do."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of one attempt: all of it, or the members of `ranks`. `lost_gpu_ms` is what that throws away.

    `by_priority` says by which right: else it is reclaimed.
    """

    attempt: Running
    ranks: tuple[int, ...]
    gpu_milli: int
    also: Amounts
    lost_gpu_ms: int
    by_priority: bool


@dataclass(frozen=True, slots=True)
class Room:
    """A placement that becomes possible once all that is `taken` has let go."""

    placement: Placement
    taken: tuple[Taken, ...]

    @property
    def cost(self) -> int:
        """GPU-ms of lost work."""
        return sum(taken.lost_gpu_ms for taken in self.taken)

    @property
    def victims(self) -> tuple[Running, ...]:
        """The attempts that go whole."""
        return tuple(taken.attempt for taken in self.taken if not taken.ranks)


class RoomSearch:
    """One gang's search; holds what all offers share."""

    def __init__(
        self,
        gang: Gang,
        placer: Placer,
        standing: Standing,
        victims: Victims,
        rights: Rights,
        levels: Sequence[Level],
        shields: Shields,
        charges: Charges | None = None,
    ) -> None:
        """`levels` are those that the positions of offers mean."""
        self._gang = gang
        self._gpu_milli = placer.feasibility.charge(gang)
        self._placer = placer
        self._overlay = placer.overlay
        self._standing = standing
        self._victims = victims
        self._rights = rights
        self._shields = shields
        self._charges = charges or Charges()
        self._also = self._charges.of(gang)
        self._wants = standing.kinds(self._gpu_milli, self._also)
        self._levels = levels
        self._now_ms = victims.now_ms
        self._tries_left = TRIES
        self._room_after = 0
        self._demands: tuple[Demand, ...] = ()
        self.ended = self.too_many = False

    def best(self, offers: Sequence[Offer], everyones: Sequence[Offer], at_most: int | None) -> Room | None:
        """Return the room of the cheapest offer that holds; else the cheapest where everybody's end makes room.

        `ended` says afterwards that there was more to try, `too_many` that some room would have taken too many victims.
        """
        for offer in sorted(offers, key=_rank):
            self._demands = offer.demands
            room = self._room(offer.victims, self._levels[offer.position], offer.domain)
            if room is not None and self._is_allowed(room, at_most):
                return room
        best: Room | None = None
        for offer in sorted(everyones, key=_rank):
            if self._tries_left <= 0:
                self.ended = True
                break
            self._demands = offer.demands
            level = self._levels[offer.position]
            room = self._room(self._everyone(self._rows(level, offer.domain)), level, offer.domain)
            if room is None or not self._is_allowed(room, at_most):
                continue
            if best is None or room.cost < best.cost:
                best = room
        return best

    def _is_allowed(self, room: Room, at_most: int | None) -> bool:
        few = at_most is None or len(room.taken) <= at_most
        self.too_many = self.too_many or not few
        return few

    def _rows(self, level: Level, domain: int) -> IntColumn:
        return level.order[level.starts[domain] : level.starts[domain + 1]]

    def _everyone(self, rows: IntColumn) -> tuple[Victim, ...]:
        """Return all whom the gang has a right to on some rows, nobody where they are too many."""
        found: dict[str, Victim] = {}
        for row in rows.tolist():
            for key, (victim, _) in self._victims.on_row[row].items():
                if self._rights.cover(victim):
                    found[key] = victim
            if len(found) > EVERYONE_AT_MOST:
                return ()
        return tuple(found.values())

    # --- what holds --------------------------------------------------------------------------------------------------

    def _room(self, victims: Sequence[Victim], level: Level, domain: int) -> Room | None:
        """Return the room that these victims make in a domain, pruned of those who are not needed."""
        allowed = self._rightful(self._victims.parts_of(victims))
        if not allowed:
            return None
        placement = self._try(allowed, level, domain)
        if placement is None:
            return None
        kept, placement = self._prune(allowed, placement, level, domain)
        return Room(placement, self._taken(kept))

    def _taken(self, victims: Sequence[Victim]) -> tuple[Taken, ...]:
        """Put the parts of each attempt together again."""
        parts: dict[GangId, list[Victim]] = {}
        for victim in victims:
            parts.setdefault(victim.gang, []).append(victim)
        found: list[Taken] = []
        for those in parts.values():
            whole = any(victim.depth == WHOLE for victim in those)
            ranks = () if whole else tuple(sorted(rank for victim in those for rank in victim.ranks))
            milli, also = those[0].gpu_milli, those[0].also
            for victim in those[1:]:
                milli, also = milli + victim.gpu_milli, added(also, victim.also)
            lost, ranked = sum(v.lost(self._now_ms) for v in those), self._rights.by_priority(those[0].queue)
            found.append(Taken(those[0].attempt, ranks, milli, also, lost, ranked))
        return tuple(found)

    def _rightful(self, victims: Sequence[Victim]) -> list[Victim]:
        """Keep, in this order, those that may be taken together: every right and cap is checked as usage falls."""
        standing, own, now_ms = self._standing, self._gang.queue, self._now_ms
        excess = {v.queue: standing.used.get(v.queue, 0) - standing.entitled.get(v.queue, 0) for v in victims}
        left = {queue: self._shields.left(queue) for queue in excess}
        capped = any(one is not None for one in left.values())
        taken: list[Victim] = []
        for victim in sorted(victims, key=lambda v: (-excess[v.queue], v.lost(now_ms), v.priority, v.key)):
            milli, also = victim.gpu_milli, victim.also
            if victim.queue != own and not self._may_lose(victim.queue, milli, also):
                continue
            if capped and not self._shields.admit(victim.queue, victim.gang, victim.lost(now_ms)):
                continue
            taken.append(victim)
            standing.give_back(victim.queue, milli, also)
        for victim in taken:
            standing.charge(victim.queue, victim.gpu_milli, victim.also)
        if capped:
            self._shields.forget_admitted()
        if any(victim.ranks for victim in victims):  # nothing of a gang is taken without what must go before it
            keys = {victim.key for victim in taken}
            taken = [v for v in taken if all(part.key in keys for part in self._victims.parts_of([v]))]
        return taken

    def _may_lose(self, queue: str, milli: int, also: Amounts) -> bool:
        """Whether another queue may lose so much, as usage stands by now."""
        if self._rights.by_priority(queue):
            return self._standing.may_yield(queue, milli, self._gang.queue, also)
        if self._rights.owed:
            return milli <= self._standing.due(queue, self._gang.queue, self._gpu_milli)
        return self._standing.may_lose(queue, milli, self._gang.queue, also, wants=self._wants)

    def _try(self, victims: Sequence[Victim], level: Level, domain: int) -> Placement | None:
        """Place the gang in a domain with victims gone; the overlay is then as it was."""
        if self._tries_left <= 0:
            self.ended = True
            return None
        if not self._within_limits(victims, self._also):
            return None
        self._tries_left -= 1
        mark = self._overlay.checkpoint()
        release(self._overlay, victims, self._victims.extended)
        if len(victims) > 1 and len(self._gang.roles) == 1:
            kind = self._placer.classes.of(self._gang, self._gang.roles[0])
            self._room_after = int(kind.room[self._rows(level, domain)].sum())
        placement = self._placer.place_in(self._gang, level, domain).placement
        self._overlay.roll_back(mark)
        if placement is None:
            return None
        also = self._charges.of(self._gang, placement)
        if also == self._also or self._has_right(placement.gpu_milli, also, victims):
            return placement
        return None

    def _has_right(self, milli: int, also: Amounts, victims: Iterable[Victim]) -> bool:
        """Whether limits and entitlements allow what a placement is charged for, now that its models are known."""
        own, standing = self._gang.queue, self._standing
        lenders = {victim.queue for victim in victims if not self._rights.by_priority(victim.queue)}
        alone = all(standing.tree.same_scope(queue, own) for queue in lenders)
        right = not lenders or standing.within_entitlement(own, milli, also, alone=alone)
        return right and self._within_limits(victims, also)

    def _within_limits(self, victims: Iterable[Victim], also: Amounts) -> bool:
        standing, own = self._standing, self._gang.queue
        if standing.limit_hit(own, self._gpu_milli, also, after_stops=True) is None:
            return True
        gone = by_queue(victims)
        for queue, charge in gone.items():
            standing.give_back(queue, *charge)
        hit = standing.limit_hit(own, self._gpu_milli, also, after_stops=True)
        for queue, charge in gone.items():
            standing.charge(queue, *charge)
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
        kept = self._needed(self._victims.parts_of(kept), pods)
        if len(kept) < len(victims):
            again = self._try(kept, level, domain)
            if again is None:
                kept = victims
            else:
                placement = again
        if len(kept) > self._tries_left:
            return kept, placement
        for victim in sorted(kept, key=self._dearest_first):
            if _goes_anyway(victim, kept) or self._is_needed(victim, kept):
                continue
            room_before = self._room_after
            fewer = [other for other in kept if other is not victim]
            spared = self._try(fewer, level, domain)
            if spared is not None:
                kept, placement = fewer, spared
            else:
                self._room_after = room_before
        return kept, placement

    def _dearest_first(self, victim: Victim) -> tuple[int, int, int, int, str]:
        """Order in which victims are spared: who can't save before who can, and of one gang who goes last first.

        At equal loss the lower priority goes: the higher one would take from it next, and both would be stopped.
        """
        return (-victim.kind, -victim.lost(self._now_ms), -victim.priority, -victim.depth, victim.key)

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
        kept = {victim.key: victim for victim in victims}
        for victim in sorted(victims, key=self._dearest_first):
            if _goes_anyway(victim, kept.values()):
                continue
            without: dict[int, tuple[int, list[int]]] = {}
            for held in victim.held:
                if held.row in left:
                    free, amounts = left[held.row]
                    rest = [a - b for a, b in zip(amounts, held.amounts, strict=True)]
                    if not held.plain or not self._enough(held.row, pods[held.row], free & ~held.mask, rest):
                        break
                    without[held.row] = free & ~held.mask, rest
            else:
                del kept[victim.key]
                left |= without
        return [victim for victim in victims if victim.key in kept]

    def _with_all(self, row: int, victims: Sequence[Victim]) -> tuple[int, list[int]]:
        """Return devices and amounts on a row with victims gone."""
        free = int(self._overlay.columns.free_mask[row])
        amounts = amounts_left(row, self._overlay.columns, self._victims.extended)
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


def _goes_anyway(victim: Victim, kept: Iterable[Victim]) -> bool:
    """Whether somebody who is kept takes the victim along."""
    if victim.depth == WHOLE:
        return False
    return any(o is not victim and o.gang == victim.gang and victim.goes_with(o) for o in kept)


def _rank(offer: Offer) -> tuple[int, int, int, int]:
    return offer.price, offer.position, max((v.priority for v in offer.victims), default=0), offer.domain


def _by_row(victims: Iterable[Victim]) -> dict[int, list[Victim]]:
    on_row: dict[int, list[Victim]] = {}
    for victim in victims:
        for held in victim.held:
            on_row.setdefault(held.row, []).append(victim)
    return on_row
