"""Who yields: the cheapest set of whole gangs whose devices are the right shape for one that may take them.

Two rights and no others (design section 8). *Priority* takes from gangs of lower priority in the same queue, or in
the queues of its scope of priority down to their guarantees. *Reclaim* takes from queues above their entitlement, for a
queue that stays at or below its own, and never below a guarantee. Both depend on limits, guarantees, entitlements and
static priority only.

Why this ends: reclaim lowers Σ max(0, used − entitled) over queues and raises nobody's, because the taker stays
within its entitlement (of a scope of priority all queues count together); priority replaces work of one queue or scope
by work of higher priority in it. Between two facts both can happen only finitely often.

How it is found: rights first, then a bound on what each domain could hold if everybody were gone whom the gang has a
right to. Where that is enough, the domains are ranked by a price, the best of them walked node by node, and the
cheapest sets tried in the overlay. All of it is bounded, and None means that no room was found, not that there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fairlead.model.gang import Gang, GangId
from fairlead.model.quota import Amounts
from fairlead.model.rules import Rules
from fairlead.ordering.standing import Standing
from fairlead.placement.placer import Placer
from fairlead.placement.room_bounds import Bound, Bounds
from fairlead.placement.room_charges import Charges
from fairlead.placement.room_offers import Offers, offers_of
from fairlead.placement.room_search import Room, RoomSearch
from fairlead.placement.row_steps import Rights
from fairlead.placement.shields import Shields
from fairlead.placement.victim import Kind
from fairlead.placement.victims import Victims, Yield
from fairlead.placement.wishes import alternatives, is_single, levels_to_try, named_levels, takes_devices
from fairlead.world.charges import sure
from fairlead.world.fleet import Level
from fairlead.world.snapshot import World


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


@dataclass(frozen=True, slots=True)
class RoomAnswer:
    """What a search for room came to. Without `room`, why there may be some all the same.

    ended     the search was cut off: there may be room that it did not find
    too_many  there is room that takes more victims than one cycle may
    protected with those gone who may not be taken from for now, or not any more in this hour, there would be room
    """

    room: Room | None = None
    ended: bool = False
    too_many: bool = False
    protected: bool = False


def look_for_room(
    gang: Gang,
    world: World,
    placer: Placer,
    standing: Standing,
    spared: Collection[GangId],
    memo: RoomMemo | None = None,
    at_most: int | None = None,
    shields: Shields | None = None,
    *,
    among: frozenset[str] | None = None,
) -> RoomAnswer:
    """Return the cheapest room that was found for `gang` by right, of `at_most` victims, or why there is none.

    Members that elastic gangs can do without are asked first, then those who can save their state, then everybody.
    The overlay is left as it was. `spared` are gangs that must not be taken (already taken in this cycle); from one
    call to the next about the same world with the same memo they may only become more. Other queues than the gang's own
    are taken from only if they are `among` these; None is any.
    """
    victims, bounds = (memo or RoomMemo()).of(placer)
    victims.follow(world, placer.inventory, spared)
    shields = shields or Shields(world)
    gpu_milli, also = placer.feasibility.charge(gang), sure(gang, world.counted)
    levels = levels_to_try(gang, placer.inventory)
    if not levels or placer.chains.through(named_levels(gang)) is None:
        return RoomAnswer()
    if is_single(gang):
        levels = [level for level in levels if level.name == "node"] or levels
    looked = _Look(gang, world, placer, standing, victims, bounds, levels, shields, at_most)
    for rights in (
        rights_of(gang, gpu_milli, victims, standing, world.rules, also, shields, among),
        rights_by_guarantee(gang, gpu_milli, victims, standing, world.rules, also, shields) if among is None else None,
    ):
        if rights is None or not _within_limits(gang.queue, gpu_milli, victims, rights, standing, also):
            continue
        for kind in victims.kinds_of(queue for queue, _ in rights.groups):
            room = looked.for_kind(replace(rights, kind=kind))
            if room is not None:
                return RoomAnswer(room)
    protected = not looked.ended and not looked.too_many and looked.would_do_with_the_protected(gpu_milli, also)
    return RoomAnswer(None, looked.ended, looked.too_many, protected)


class _Look:
    """One gang's search, kind of victim by kind of victim."""

    def __init__(
        self,
        gang: Gang,
        world: World,
        placer: Placer,
        standing: Standing,
        victims: Victims,
        bounds: Bounds,
        levels: Sequence[Level],
        shields: Shields,
        at_most: int | None,
    ) -> None:
        self._gang = gang
        self._placer = placer
        self._standing = standing
        self._victims = victims
        self._bounds = bounds
        self._levels = levels
        self._shields = shields
        self._charges = Charges(world)
        self._rules = world.rules
        self._at_most = at_most
        self.ended = self.too_many = False

    def for_kind(self, rights: Rights) -> Room | None:
        """Search among victims up to a kind."""
        found: list[Offers] = []
        yields = [self._victims.yield_of(queue, below, rights.kind) for queue, below in rights.groups]
        models = self._models()
        for model in models:
            bound = self._bound(yields, model)
            if not self._holds(bound):
                if not model:
                    return None  # what no domain of the widest level holds, no narrower one does
                continue
            if model or len(models) == 1:
                found.append(Offers(self._gang, self._placer, self._victims, rights, yields, bound))
        offers, everyones = offers_of(found, self._levels)
        search = RoomSearch(
            self._gang, self._placer, self._standing, self._victims, rights, self._levels, self._shields, self._charges
        )
        room = search.best(offers, everyones, self._at_most)
        self.ended = search.ended or any(one.cut for one in found)  # a later kind includes those before it
        self.too_many = self.too_many or search.too_many
        return room

    def would_do_with_the_protected(self, gpu_milli: int, also: Amounts) -> bool:
        """Whether a bound leaves it possible that there is room once nobody is protected any more."""
        if not self._victims.protected and not self._shields.any:
            return False
        wide = rights_of(self._gang, gpu_milli, self._victims, self._standing, self._rules, also)
        groups = () if wide is None else wide.groups
        queues = [queue for queue, _ in groups]
        if not self._victims.protects(queues) and all(self._shields.left(queue) is None for queue in queues):
            return False
        yields = [self._victims.yield_of(queue, below, Kind.PROTECTED) for queue, below in groups]
        return bool(yields) and self._holds(self._bound(yields, ""))

    def _models(self) -> list[str]:
        return ["", *(model for model in alternatives(self._gang, self._placer.feasibility) if model)]

    def _bound(self, yields: Sequence[Yield], model: str) -> list[Bound]:
        gang = self._gang
        return [self._bounds.of(gang, role, yields, model if takes_devices(role) else "") for role in gang.roles]

    def _holds(self, bound: Sequence[Bound]) -> bool:
        widest = self._levels[-1]
        rooms = zip(bound, self._gang.roles, strict=True)
        return all(int(one.sums_of(widest).max(initial=0)) >= role.replicas for one, role in rooms)


def rights_of(
    gang: Gang,
    gpu_milli: int,
    victims: Victims,
    standing: Standing,
    rules: Rules,
    also: Amounts = (),
    shields: Shields | None = None,
    among: frozenset[str] | None = None,
) -> Rights | None:
    """Return whom a gang that is charged for `gpu_milli`, and `also`, may take from; None where that is nobody.

    With `shields`, queues of which nothing more may be taken in this hour are left out; without, nobody is: not even
    those who are protected for now.
    """
    most = _ranked(gang, victims, standing, rules, shields)
    ranked = frozenset(most)
    groups: list[tuple[str, int | None]] = [(queue, gang.priority) for queue in most]
    if rules.preemption_on and _has_any(victims, gang.queue, gang.priority, shields):
        groups.insert(0, (gang.queue, gang.priority))
    wants = standing.kinds(gpu_milli, also)
    if rules.reclaim_on and wants and standing.within_entitlement(gang.queue, gpu_milli, also):
        for lender in standing.lenders():
            if lender == gang.queue or lender in ranked or not _has_any(victims, lender, None, shields):
                continue
            if among is not None and lender not in among:
                continue
            milli = standing.most_to_lose(lender, gang.queue, wants=wants)
            if milli >= 0:
                most[lender] = milli
                groups.append((lender, None))
    return Rights(gang.queue, gang.priority, most, tuple(groups), ranked=ranked) if groups else None


def _ranked(gang: Gang, victims: Victims, standing: Standing, rules: Rules, shields: Shields | None) -> dict[str, int]:
    """Return the other queues of the gang's scope in which somebody of lower priority runs, and what each may lose."""
    scope = standing.tree.scopes.get(gang.queue)
    found: dict[str, int] = {}
    for queue in sorted(standing.used) if scope is not None and rules.preemption_on else ():
        if queue == gang.queue or standing.tree.scopes.get(queue) != scope:
            continue
        milli = standing.above_guarantees(queue, gang.queue)
        if milli > 0 and _has_any(victims, queue, gang.priority, shields):
            found[queue] = milli
    return found


def rights_by_guarantee(
    gang: Gang,
    gpu_milli: int,
    victims: Victims,
    standing: Standing,
    rules: Rules,
    also: Amounts = (),
    shields: Shields | None = None,
) -> Rights | None:
    """Return whom a gang may take from because its GPUs are due to its queue; None where that is nobody.

    Asked after `rights_of`, where what others hold beyond their entitlement does not make the right shape: then
    whoever holds more than its guarantee makes room, down to that.
    """
    if not rules.reclaim_on or not standing.is_owed(gang.queue, gpu_milli):
        return None
    if not standing.within_entitlement(gang.queue, gpu_milli, also, alone=True):
        return None
    outside = standing.within_entitlement(gang.queue, gpu_milli, also)  # of other scopes only what its own is due
    due = {
        queue: standing.due(queue, gang.queue, gpu_milli)
        for queue in sorted(standing.used)
        if queue != gang.queue and (outside or standing.tree.same_scope(queue, gang.queue))
    }
    most = {queue: milli for queue, milli in due.items() if milli >= 0 and _has_any(victims, queue, None, shields)}
    if not most:
        return None
    ranked = {q: m for q, m in _ranked(gang, victims, standing, rules, shields).items() if q not in most}
    may_preempt = rules.preemption_on and _has_any(victims, gang.queue, gang.priority, shields)
    own = [(gang.queue, gang.priority)] if may_preempt else []
    groups = (*own, *((queue, gang.priority) for queue in ranked), *((queue, None) for queue in most))
    return Rights(gang.queue, gang.priority, most | ranked, groups, owed=True, ranked=frozenset(ranked))


def _has_any(victims: Victims, queue: str, below: int | None, shields: Shields | None) -> bool:
    """Whether somebody of a group may be taken from."""
    if shields is None and victims.protects([queue]):
        return True
    if victims.milli_of(queue, below) is None:
        return False
    left = shields.left(queue) if shields is not None else None
    return left is None or (left.takings > 0 and left.lost_gpu_ms > 0)


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
