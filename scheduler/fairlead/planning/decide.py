"""decide(world) -> Plan: all control flow of a cycle, and nothing but the decision.

First what must end (`care`), then gangs for which room was being made, then the queues in order: place, else make room,
else say why not. A walk of at most `rules.gangs_per_slice` gangs; whatever is left over is asked in the next slice,
after new facts were taken in. What is said to the first of a line is said to all in it, and stands until something
could change it.
"""

from __future__ import annotations

from itertools import count

from fairlead.model.effects import Effect, EndNomination, Notice, Place, Refuse, Shrink, Stop
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.quota import Amounts
from fairlead.model.reasons import Kind, Reason, Refusal, refuse
from fairlead.ordering.backlog import Walk, inside_queue
from fairlead.placement.fence import NOTHING, Fence
from fairlead.placement.lenders_first import look_for_room_by_excess
from fairlead.placement.preempt import RoomAnswer
from fairlead.placement.refusals import unknown_level, why_not_now
from fairlead.placement.room_search import Room
from fairlead.placement.search import Answer
from fairlead.placement.sharing import sharing_refusal
from fairlead.placement.shields import Shields
from fairlead.planning.admission import admission, at_the_door
from fairlead.planning.alike import Alike
from fairlead.planning.budgets import demotions, renewals, stops_over
from fairlead.planning.caps import Caps
from fairlead.planning.care import care
from fairlead.planning.deadlines import behind_demand, moments_of
from fairlead.planning.growing import Growing, Hands
from fairlead.planning.holes import promise_refusal
from fairlead.planning.keeping import keeping
from fairlead.planning.memo import Memo as Memo
from fairlead.planning.notices import in_steps
from fairlead.planning.plan import Plan
from fairlead.planning.pool_rules import pool_rules
from fairlead.planning.promising import Promises
from fairlead.planning.quota_places import (
    charge_of,
    limit_refusal,
    model_refusal,
    never_refusal,
    place_within,
    standing_of,
)
from fairlead.planning.room_effects import guests_leave
from fairlead.planning.taking import any_holds, takings, why_no_room
from fairlead.planning.tiers import Tiers
from fairlead.world.charges import least
from fairlead.world.snapshot import Waiting, World


def decide(world: World, memo: Memo | None = None) -> Plan:
    """Return what to do about this world. Touches nothing; the same world gives the same plan."""
    effects, due = care(world)
    effects += at_the_door(world)
    cycle = _Cycle(world, memo or Memo(), effects)
    more, cut, looked = cycle.run()
    cycle.fence.around(NOTHING)
    cycle.promises.lower()
    effects += keeping(world, cycle.overlay, cycle.kept, effects, cycle.memo.keeping)
    later = [due, world.waiting.retry_at_ms, world.running.next_ripe_ms, world.force.until_ms, world.next_turn_ms]
    later += [*cycle.promises.wakes(), *moments_of(cycle.effects, world)]
    later += [world.takings.next_ms if cycle.shields.any else None, cycle.growing.wake_ms]
    later += renewals(world, cycle.caps.renewing(), cycle.standing.tree.chains)
    later += [w.nomination.until_ms for w in world.waiting.nominated if w.nomination is not None]
    told = in_steps(cycle.effects, world)
    later += [effect.until_ms for effect in told if isinstance(effect, Notice)]
    wake = min((moment for moment in later if moment is not None), default=None)
    return Plan(
        version=world.version,
        effects=tuple(told),
        more=more or cycle.tiers.more,
        cut=cut,
        looked=looked,
        wake_at_ms=wake,
    )


class _Cycle:
    """The state of one walk."""

    def __init__(self, world: World, memo: Memo, effects: list[Effect]) -> None:
        self.world = world
        self.effects = effects
        self.memo = memo
        self.placer = memo.placer_for(world)
        self.overlay = self.placer.overlay
        self.spared: set[GangId] = {effect.gang for effect in effects if isinstance(effect, Stop)}
        ended = [attempt for attempt in world.running.doubtful if attempt.gang in self.spared]
        tree = memo.tree_for(world)
        self.caps = Caps(world, tree.chains)
        self.fence = Fence(self.overlay)
        self.kept = pool_rules(world, self.fence, memo.kept)
        idle_milli = 0 if self.kept is None else self.kept.idle_milli()
        self.standing = standing_of(world, tree, self.caps, ended, idle_milli)
        self.stops_left = world.rules.stops_per_cycle
        self.shields = Shields(world)
        self.tiers = Tiers(world, tree, memo.tiers, demotions(world, self.caps.renewing(), tree.chains))
        effects += self.tiers.retiers
        self.pods_left = world.rules.placing_pods - world.running.pods_placing
        self.promises = Promises(world, self.placer, self.standing, memo.promises, effects, tree.chains)
        hands = Hands(
            self.placer, self.fence, self.standing, self.caps, self.tiers, self.promises, self.kept, tree.chains
        )
        self.growing = Growing(world, hands, memo.idle)
        self.taken: set[GangId] = set()
        self.alike = Alike(world, self.promises, idle=self.kept is not None)
        self.certain = False
        self._give_back()

    def run(self) -> tuple[bool, bool, int]:
        """Walk; return whether gangs are left for the next slice, whether any at all are, and how many were tried."""
        if self.world.rules.preemption_on:
            stops = stops_over(self.world, self.caps.renewing(), self.standing, self.spared, self.stops_left)
            self.effects += stops
            self.stops_left -= len(stops)
        self._nominated()
        self._promised()
        rules, pods = self.world.rules, self.pods_left
        walk = Walk(self.world.waiting, self.standing, cut_version=self.world.cut_version, again=rules.asked_again)
        for looked in count():
            waiting = walk.step()
            if waiting is None:
                busy = {e.gang for e in self.effects if isinstance(e, Stop | Shrink)} | self.spared
                self.effects += self.growing.growths(self._is_hopeless, self.taken, busy, self.pods_left)
                return False, False, looked
            if self.pods_left <= 0:  # the walk goes on as soon as one of those on their way has arrived
                return False, True, looked
            if looked >= rules.gangs_per_slice or pods - self.pods_left + walk.steps >= rules.steps_per_slice:
                return True, True, looked
            if self._consider(waiting):
                walk.go_on()
            else:
                walk.line_refused()
        raise AssertionError("a walk has an end")

    def _give_back(self) -> None:
        """Stop who has been lent what a pool needs back."""
        returns = self.kept.returns(self.stops_left) if self.kept and self.world.rules.preemption_on else ()
        for stop, attempt in returns:
            self.effects.append(stop)
            self.spared.add(stop.gang)
            self.stops_left -= 1
            self.standing.leave(attempt.queue, attempt.gpu_milli, attempt.also)

    def _fence(self, waiting: Waiting) -> None:
        """Close what pools keep free of a gang, and nothing else."""
        if self.kept is not None:
            self.promises.lower()
            self.fence.around(self.kept.closed_to(waiting))

    # --- room that was being made ---------------------------------------------------------------------------------

    def _nominated(self) -> None:
        unfinished: list[Waiting] = []
        for waiting in sorted(self.world.waiting.nominated, key=inside_queue):
            nomination = waiting.nomination
            assert nomination is not None, waiting
            gang = waiting.gang
            self._fence(waiting)
            charge = nomination.placement.gpu_milli, charge_of(gang, nomination.placement, self.world)
            if self._may(gang, *charge) and self.placer.take_exactly(gang, nomination.placement):
                self._take(waiting, nomination.placement)
            elif self.world.now_ms >= nomination.until_ms or not any_holds(nomination, self.world.running):
                self.effects.append(EndNomination(gang=gang.id))
            else:
                unfinished.append(waiting)
        self.fence.around(NOTHING)
        for waiting in unfinished:
            assert waiting.nomination is not None, waiting
            gang, placement = waiting.gang, waiting.nomination.placement
            self.overlay.take_placement(gang, placement)
            self.promises.nominated(gang, placement)
            self.standing.hope(gang.queue, placement.gpu_milli, charge_of(gang, placement, self.world))
            self.caps.charge(gang, placement.gpu_milli)
            self.spared.update(victim for victim, _ in waiting.nomination.victims)

    def _promised(self) -> None:
        """Gangs whose promise comes true, or is about to be due, come first; who is in the way is stopped."""
        at_most = self.stops_left if self.world.rules.preemption_on else 0
        if self.world.promises:
            kept = (self.kept.why_withdrawn,) if self.kept is not None else ()
            stopped = self.promises.review(self._fits_inside, self._place_inside, self._take, self._may, at_most, *kept)
            self.fence.around(NOTHING)
            self.stops_left -= len(stopped)
            self.spared.update(stopped)
        if self.promises.reserving:
            self.effects += self.promises.reserving.clear(at_most, self.spared)

    def _fits_inside(self, gang: Gang, placement: Placement) -> bool:
        waiting = self.world.waiting.get(gang.id)
        assert waiting is not None, gang
        self._fence(waiting)
        self.promises.make_way(gang)
        return self.placer.take_exactly(gang, placement)

    def _place_inside(self, waiting: Waiting) -> Placement | None:
        self._fence(waiting)
        return None if self._rules(waiting.gang) is not None else self._place(waiting.gang).placement

    def _may(self, gang: Gang, gpu_milli: int, also: Amounts = ()) -> bool:
        allowed = self._rules(gang) is None and self.standing.limit_hit(gang.queue, gpu_milli, also) is None
        return allowed and self.caps.refusal(gang, gpu_milli) is None

    # --- the queues -------------------------------------------------------------------------------------------------

    def _consider(self, waiting: Waiting) -> bool:
        """Decide about one gang; returns whether the next in its line may have another answer."""
        gang = waiting.gang
        if gang.id in self.taken:  # its promise came true
            return True
        told = self.alike.told(waiting)
        refusal = self._rules(gang) if told is None else self.memo.why_invalid(gang)
        if refusal is None:
            refusal = told or self._place_or_make_room(waiting)
            if refusal is None:
                return True
            if self.kept is not None:  # what is lent for a while is promised to nobody
                self.fence.around(self.kept.closed_to(waiting, lent=False))
            if self.promises.promise(waiting, refusal):  # the next in line may be promised something, too
                self.alike.forget()
                self.effects.append(Refuse(gang=gang.id, refusal=refusal, alone=True))
                return True
        self.effects.append(Refuse(gang=gang.id, refusal=refusal))
        return False

    def _place_or_make_room(self, waiting: Waiting) -> Refusal | None:
        """Place a gang that nothing forbids, or make room for it; else say why neither can be."""
        gang, self.certain = waiting.gang, False
        self._fence(waiting)
        answer = self._place(gang)
        if answer.placement is not None:
            self._take(waiting, answer.placement)
            return None
        room = self._look_for_room(gang)
        if room.room is not None:
            self._make_room(waiting, room.room)
            return None
        if self._own_room(waiting):
            return None
        kept = self._why_kept(waiting)
        refusal = kept or self._why_not(gang, answer)
        if kept is None and refusal.reason.kind is Kind.NOT_NOW and refusal.reason is not Reason.QUEUE_AT_LIMIT:
            refusal = why_no_room(room, self.world.rules) or refusal
        if self.certain:
            self.alike.tell(waiting, refusal)
        return refusal

    def _place(self, gang: Gang) -> Answer:
        """Find devices for as many replicas as the limits of its queues leave room for."""
        feasibility, also = self.placer.feasibility, least(gang, self.world.counted)
        if self.standing.limit_hit(gang.queue, feasibility.charge(gang, fewest=True), also) is not None:
            return Answer()
        if self.promises.crowd_out(gang):
            self.certain = True
            return Answer()
        self.promises.make_way(gang)
        if not self.promises.limits_kept(gang, feasibility.charge(gang)):
            return Answer()
        answer = place_within(gang, self.world, self.placer, self.standing, self.caps.room_milli(gang))
        self.certain = not answer.ended_early and not self.promises.hides
        return answer

    def _why_kept(self, waiting: Waiting) -> Refusal | None:
        """Return what a pool keeps free, where the gang would have had a place there; its rows are open afterwards."""
        if self.kept is None or not self.fence.closed:
            return None
        self.fence.around(NOTHING)
        self.promises.make_way(waiting.gang)  # before the mark: what is put up after it is rolled back
        mark = self.overlay.checkpoint()
        kept_it = self._place(waiting.gang).placement is not None
        self.overlay.roll_back(mark)
        return self.kept.why_closed(waiting) if kept_it else None

    def _why_not(self, gang: Gang, answer: Answer) -> Refusal:
        never = self.memo.why_never(gang, self.world)
        if never is not None:
            return never
        fewest = self.placer.feasibility.charge(gang, fewest=True)
        also = least(gang, self.world.counted)
        hit = self.standing.limit_hit(gang.queue, fewest, also)
        if hit is not None:
            return limit_refusal(hit, fewest, also)
        if self.certain:
            self.promises.lower()
        kept = None if self.certain else self.promises.why_kept(gang, self._would_fit)
        kept = kept or behind_demand(gang, self.world)
        kept = kept or model_refusal(gang, self.world, self.placer, self.standing)
        return why_not_now(gang, self.placer, answer) if kept is None else kept

    def _would_fit(self, gang: Gang) -> Placement | None:
        mark = self.overlay.checkpoint()
        answer = self.placer.place(gang)
        self.overlay.roll_back(mark)
        self.certain = answer.placement is None and not answer.ended_early
        return answer.placement

    def _rules(self, gang: Gang) -> Refusal | None:
        """Return what forbids the gang whatever is free."""
        if not self.world.rules.placement_on:
            return refuse(Reason.PLACEMENT_DISABLED)
        refusal = (
            self.memo.why_invalid(gang)
            or admission(gang, self.world)
            or sharing_refusal(gang, self.world.pools.values())
        )
        refusal = refusal or promise_refusal(gang, self.world.queues)
        if refusal is not None:
            return refusal
        unknown = unknown_level(gang, self.world.inventory)
        if unknown is not None:
            return unknown
        fewest = self.placer.feasibility.charge(gang, fewest=True)
        also = least(gang, self.world.counted)
        never = self.standing.never_within_limit(gang.queue, fewest, also)
        return self.caps.refusal(gang, fewest) if never is None else never_refusal(never, fewest, also)

    def _is_hopeless(self, gang: Gang) -> bool:
        refusal = self._rules(gang) or self.memo.why_never(gang, self.world)
        return refusal is not None and refusal.reason.kind in (Kind.INVALID, Kind.NEVER)

    def _take(self, waiting: Waiting, placement: Placement) -> None:
        gang, charge = waiting.gang, (placement.gpu_milli, charge_of(waiting.gang, placement, self.world))
        hit = self.standing.limit_hit(gang.queue, *charge)
        assert hit is None, (gang, hit)
        self.effects.append(
            Place(
                gang=gang.id,
                attempt=waiting.attempts + 1,
                placement=self.memo.idle.judged(gang, placement, self.world),
                tier=self.tiers.place(gang, placement, charge[1]),
                deadline_ms=self.world.now_ms + self.world.rules.place_deadline_ms,
            )
        )
        self.alike.forget()
        self.standing.charge(gang.queue, *charge)
        self.caps.charge(gang, charge[0])
        self.promises.placed(gang, placement)
        self.taken.add(gang.id)
        self.pods_left -= len(placement.members)
        if self.kept is not None:
            self.kept.took(waiting, placement)

    def _look_for_room(self, gang: Gang) -> RoomAnswer:
        """Find victims that the gang has a right to."""
        rules = self.world.rules
        if not (rules.preemption_on or rules.reclaim_on) or gang.id in self.world.takings.settled:
            return RoomAnswer()  # who was given room once takes no second time before something happens outside
        if self.stops_left <= 0:
            return RoomAnswer(too_many=True)
        if self.caps.refusal(gang, self.placer.feasibility.charge(gang)) is not None:
            return RoomAnswer()  # room is made for all replicas, and its user may not have so many
        self.promises.make_way(gang, entering=False)
        self.spared |= self.promises.protected()
        return look_for_room_by_excess(
            gang, self.world, self.placer, self.standing, self.spared, self.memo.room, self.stops_left, self.shields
        )

    def _own_room(self, waiting: Waiting) -> bool:
        """Send guests away from nodes that are reserved for the gang's queue."""
        gang, reserving = waiting.gang, self.promises.reserving
        if not reserving or not self.world.rules.preemption_on or gang.id in self.world.takings.settled:
            return False
        charge = self.placer.feasibility.charge(gang), least(gang, self.world.counted)
        room = reserving.room_for(gang, self.spared) if self._may(gang, *charge) else None
        if room is None or len(room[1]) > self.stops_left:
            return False
        placement, victims = room
        self.stops_left -= len(victims)
        self.effects += guests_leave(gang, placement, victims, self.world.now_ms + self.world.rules.nomination_ms)
        for victim in victims:
            self.spared.add(victim.gang)
            self.standing.leave(victim.queue, victim.gpu_milli, victim.also)
        self._hope(gang, placement, len(victims))
        return True

    def _make_room(self, waiting: Waiting, room: Room) -> None:
        """Nominate a gang, and stop or shrink those who make room for it."""
        gang = waiting.gang
        self.stops_left -= len(room.taken)
        self.effects += takings(gang, room, self.world)
        for taken in room.taken:
            victim = taken.attempt
            self.spared.add(victim.gang)
            self.standing.leave(victim.queue, taken.gpu_milli, taken.also)
            self.shields.charge(victim.queue, 1, taken.lost_gpu_ms)
        self._hope(gang, room.placement, len(room.taken))

    def _hope(self, gang: Gang, placement: Placement, count: int) -> None:
        """Keep a place for a gang until those who are on it have gone."""
        self.alike.forget()
        self.standing.hope(gang.queue, placement.gpu_milli, charge_of(gang, placement, self.world))
        self.caps.charge(gang, placement.gpu_milli)
        self.overlay.take_placement(gang, placement)
        self.promises.nominated(gang, placement)
        told = refuse(Reason.WAITING_FOR_VICTIMS, count=count, domain=placement.domain or "the cluster")
        self.effects.append(Refuse(gang=gang.id, refusal=told, alone=True))
