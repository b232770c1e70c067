"""Who yields: the cheapest set of whole gangs whose devices are the right shape for one that may take them.

Two rights and no others (design section 8). *Priority* takes from gangs of lower priority in the same queue.
*Reclaim* takes from queues above their entitlement, for a queue that stays at or below its own, and never below a
guarantee. Both depend on limits, guarantees, entitlements and static priority only.

Why this ends: reclaim lowers Σ max(0, used − entitled) over queues and raises nobody's, because the taker stays
within its entitlement; priority replaces work of one queue by work of higher priority in it. Between two facts both
can happen only finitely often.

How it is found: rights first, then a bound on what each domain could hold if everybody were gone whom the gang has a
right to. Where that is enough, the domains are ranked by a price, the best of them walked node by node, and the
cheapest sets tried in the overlay. All of it is bounded, and None means that no room was found, not that there is none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fairlead.model.gang import Gang, GangId
from fairlead.model.quota import Amounts
from fairlead.model.rules import Rules
from fairlead.ordering.standing import Standing
from fairlead.placement.placer import Placer
from fairlead.placement.room_bounds import Bounds
from fairlead.placement.room_charges import Charges
from fairlead.placement.room_offers import Offers, offers_of
from fairlead.placement.room_search import Room, RoomSearch
from fairlead.placement.row_steps import Rights
from fairlead.placement.victims import RESTART_COST_MS, Victims, lost_work
from fairlead.placement.wishes import alternatives, is_single, levels_to_try, named_levels, takes_devices
from fairlead.world.charges import sure
from fairlead.world.snapshot import World

__all__ = ["RESTART_COST_MS", "Room", "RoomMemo", "find_room", "lost_work"]


@dataclass(slots=True)
class RoomMemo:
    """What one search keeps for the next, over one placer; only values that the same World would yield again."""

    placer: Placer | None = None
    victims: Victims | None = None
    bounds: Bounds | None = None

    def of(self, placer: Placer) -> tuple[Victims, Bounds]:
        """Return the caches over a placer, empty ones where it is another than before."""
        if self.placer is not placer or self.victims is None or self.bounds is None:
            self.placer, self.victims = placer, Victims(placer.inventory)
            self.bounds = Bounds(placer, self.victims)
        return self.victims, self.bounds


def find_room(
    gang: Gang,
    world: World,
    placer: Placer,
    standing: Standing,
    spared: Collection[GangId],
    memo: RoomMemo | None = None,
    at_most: int | None = None,
    *,
    among: frozenset[str] | None = None,
) -> Room | None:
    """Return the cheapest room that was found for `gang` by right, of `at_most` victims; None where none was.

    The overlay is left as it was. `spared` are gangs that must not be taken (already taken in this cycle); from one
    call to the next about the same world with the same memo they may only become more. Other queues than the gang's own
    are taken from only if they are `among` these; None is any.
    """
    victims, bounds = (memo or RoomMemo()).of(placer)
    victims.follow(world, placer.inventory, spared)
    gpu_milli, also = placer.feasibility.charge(gang), sure(gang, world.counted)
    rights = rights_of(gang, gpu_milli, victims, standing, world.rules, also, among)
    if rights is None or not _within_limits(gang.queue, gpu_milli, victims, rights, standing, also):
        return None
    levels = levels_to_try(gang, placer.inventory)
    if not levels or placer.chains.through(named_levels(gang)) is None:
        return None
    widest = levels[-1]
    yields = [victims.yield_of(queue, below) for queue, below in rights.groups]
    found: list[Offers] = []
    if is_single(gang):
        levels = [level for level in levels if level.name == "node"] or levels
    models = ["", *(model for model in alternatives(gang, placer.feasibility) if model)]
    for model in models:
        bound = [bounds.of(gang, role, yields, model if takes_devices(role) else "") for role in gang.roles]
        if any(int(b.sums_of(widest).max(initial=0)) < r.replicas for b, r in zip(bound, gang.roles, strict=True)):
            if not model:
                return None  # what no domain of the widest level holds, no narrower one does
            continue
        if model or len(models) == 1:
            found.append(Offers(gang, placer, victims, rights, yields, bound))
    offers, everyones = offers_of(found, levels)
    charges = Charges(world)
    return RoomSearch(gang, placer, standing, victims, rights, levels, charges).best(offers, everyones, at_most)


def rights_of(
    gang: Gang,
    gpu_milli: int,
    victims: Victims,
    standing: Standing,
    rules: Rules,
    also: Amounts = (),
    among: frozenset[str] | None = None,
) -> Rights | None:
    """Return whom a gang that is charged for `gpu_milli`, and `also`, may take from; None where that is nobody."""
    groups: list[tuple[str, int | None]] = []
    if rules.preemption_on and victims.milli_of(gang.queue, gang.priority) is not None:
        groups.append((gang.queue, gang.priority))
    most: dict[str, int] = {}
    wants = standing.kinds(gpu_milli, also)
    if rules.reclaim_on and wants and standing.within_entitlement(gang.queue, gpu_milli, also):
        for lender in standing.lenders():
            if lender == gang.queue or victims.milli_of(lender, None) is None:
                continue
            if among is not None and lender not in among:
                continue
            milli = standing.most_to_lose(lender, gang.queue, wants=wants)
            if milli >= 0:
                most[lender] = milli
                groups.append((lender, None))
    return Rights(gang.queue, gang.priority, most, tuple(groups)) if groups else None


def _within_limits(
    queue: str, gpu_milli: int, victims: Victims, rights: Rights, standing: Standing, also: Amounts
) -> bool:
    """Whether the limits of its queues would allow the gang if everybody were gone whom it has a right to."""
    if standing.limit_hit(queue, gpu_milli, also, after_stops=True) is None:
        return True
    if also:
        return True  # what victims hold of the rest is looked at when they are known
    gone = [(lender, victims.milli_of(lender, below) or 0) for lender, below in rights.groups]
    for lender, milli in gone:
        standing.charge(lender, -milli)
    hit = standing.limit_hit(queue, gpu_milli, after_stops=True)
    for lender, milli in gone:
        standing.charge(lender, milli)
    return hit is None
