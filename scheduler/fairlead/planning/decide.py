"""decide(world) -> Plan: all control flow of a cycle, and nothing but the decision.

First what must end (`care`), then gangs for which room was being made, then the queues in order: place, else make room,
else say why not. A walk of at most `rules.gangs_per_slice` gangs; whatever is left over is asked in the next slice,
after new facts were taken in. Equal requests are answered from one refusal as long as nothing was freed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fairlead.model.effects import Effect, EndNomination, Nominate, Phase, Place, Refuse, Stop
from fairlead.model.gang import Gang, Placement
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.tenancy import Pool
from fairlead.ordering.backlog import in_order, inside_queue
from fairlead.ordering.standing import Standing
from fairlead.placement.feasible import Feasibility, request_key, row_is_free
from fairlead.placement.preempt import find_room
from fairlead.placement.refusals import unknown_level, why_never, why_not_now
from fairlead.placement.score import Score
from fairlead.placement.search import Answer, Placer
from fairlead.planning.admission import admission
from fairlead.planning.care import care
from fairlead.planning.plan import Plan
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import Waiting, World
from fairlead.world.use import use_of


@dataclass(slots=True)
class Memo:
    """What one cycle may keep for the next; only values that the same World would yield again."""

    pools: tuple[Pool, ...] = ()
    placer: Placer | None = None
    epoch: tuple[int, int] = (-1, 0)
    refusals: dict[tuple[object, ...], Refusal] = field(default_factory=dict[tuple[object, ...], Refusal])

    def for_world(self, world: World) -> Placer:
        """Return a placer over this world; drop refusals of another epoch."""
        pools = tuple(world.pools[name] for name in sorted(world.pools))
        placer = self.placer
        if placer is None or placer.inventory is not world.inventory or self.pools != pools:
            placer = self.placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools), Score())
            self.pools = pools
        else:
            placer.overlay.follow(world)
        if self.epoch != (world.epoch, world.ripened_ms):
            self.epoch, self.refusals = (world.epoch, world.ripened_ms), {}
        return placer


def decide(world: World, memo: Memo | None = None) -> Plan:
    """Return what to do about this world. Touches nothing; the same world gives the same plan."""
    memo = memo or Memo()
    effects, wake = care(world)
    cycle = _Cycle(world, memo, effects)
    more = cycle.run()
    later = [w.retry_at_ms for w in world.waiting if w.retry_at_ms > world.now_ms]
    later += [w.nomination.until_ms for w in world.waiting if w.nomination is not None]
    later += [attempt.ripe_ms for attempt in world.running if attempt.ripe_ms > world.now_ms]
    later += [wake] if wake is not None else []
    return Plan(version=world.version, effects=tuple(cycle.effects), more=more, wake_at_ms=min(later, default=None))


class _Cycle:
    """The state of one walk."""

    def __init__(self, world: World, memo: Memo, effects: list[Effect]) -> None:
        self.world = world
        self.memo = memo
        self.effects = effects
        self.placer = memo.for_world(world)
        self.overlay = self.placer.overlay
        usable = world.inventory.usable
        capacity = int(np.bitwise_count(world.free.free_mask[usable]).sum()) + sum(world.queue_gpus.values())
        self.spared: set[str] = {effect.gang for effect in effects if isinstance(effect, Stop)}
        pending = [
            (w.gang.queue, w.gang.gpus)
            for w in world.waiting
            if not w.hopeless and (w.nomination is not None or admission(w.gang, world) is None)
        ]
        leaving = [
            (attempt.queue, attempt.gpus)
            for attempt in world.running
            if attempt.phase is Phase.STOPPING or attempt.gang in self.spared
        ]
        self.standing = Standing(capacity, world.queues, world.queue_gpus, pending, leaving)
        self.stops_left = world.rules.stops_per_cycle
        placing = (attempt for attempt in world.running if attempt.phase is Phase.PLACING)
        self.pods_left = world.rules.placing_pods - sum(len(attempt.placement.members) for attempt in placing)

    def run(self) -> bool:
        """Walk; return whether gangs are left for the next slice."""
        self._nominated()
        fresh = [
            w for w in self.world.waiting if w.fresh and w.nomination is None and w.retry_at_ms <= self.world.now_ms
        ]
        looked = 0
        for waiting in in_order(fresh, self.standing):
            if looked >= self.world.rules.gangs_per_slice:
                return True
            if self.pods_left <= 0:  # the walk goes on as soon as one of those on their way has arrived
                return False
            looked += self._consider(waiting)
        return False

    # --- room that was being made ---------------------------------------------------------------------------------

    def _nominated(self) -> None:
        live = {(attempt.gang, attempt.attempt) for attempt in self.world.running}
        unfinished: list[Waiting] = []
        for waiting in sorted((w for w in self.world.waiting if w.nomination), key=inside_queue):
            nomination = waiting.nomination
            assert nomination is not None, waiting
            gang = waiting.gang
            stays = self._rules(gang) is None and self.standing.limit_hit(gang.queue, gang.gpus) is None
            if stays and self._still_fits(gang, nomination.placement):
                self._take(waiting, nomination.placement)
            elif self.world.now_ms >= nomination.until_ms or not any(v in live for v in nomination.victims):
                self.effects.append(EndNomination(gang=gang.id))
            else:
                unfinished.append(waiting)
        for waiting in unfinished:
            assert waiting.nomination is not None, waiting
            self.overlay.take_placement(waiting.gang, waiting.nomination.placement)
            self.standing.hope(waiting.gang.queue, waiting.gang.gpus)
            self.spared.update(victim for victim, _ in waiting.nomination.victims)

    def _still_fits(self, gang: Gang, placement: Placement) -> bool:
        """Take a placement exactly as it was nominated, if every part of it is free now."""
        mark = self.overlay.checkpoint()
        fits = {role.name: self.placer.feasibility.fit(role, gang.service_class) for role in gang.roles}
        for member in placement.members:
            row = self.world.inventory.row.get(member.node)
            role = next(r for r in gang.roles if r.name == member.role)
            mask = 0 if row is None else self.world.inventory.mask(row, member.devices)
            ready = row is not None and bool(fits[member.role].allowed[row])
            if row is None or not ready or not row_is_free(role, row, mask, len(member.devices), self.overlay):
                self.overlay.roll_back(mark)
                return False
            self.overlay.take(self.overlay.taking(row, use_of(gang, member)))
        return True

    # --- the queues -------------------------------------------------------------------------------------------------

    def _consider(self, waiting: Waiting) -> int:
        """Decide about one gang; returns the steps it took."""
        gang = waiting.gang
        key = request_key(gang)
        known = self.memo.refusals.get(key)
        if known is not None:
            self.effects.append(Refuse(gang=gang.id, refusal=known))
            return 0
        refusal = self._rules(gang)
        if refusal is None:
            hit = self.standing.limit_hit(gang.queue, gang.gpus)
            answer = self.placer.place(gang) if hit is None else Answer()
            if answer.placement is not None:
                self._take(waiting, answer.placement)
                return 1
            if self._make_room(waiting):
                return 1
            refusal = why_never(gang, self.world.offered, self.world.inventory, self.placer.feasibility)
            if refusal is None and hit is not None:
                refusal = refuse(Reason.QUEUE_AT_LIMIT, queue=hit.queue, used=hit.used, limit=hit.limit, need=gang.gpus)
            refusal = refusal or why_not_now(gang, self.placer, answer)
        self.memo.refusals[key] = refusal
        self.effects.append(Refuse(gang=gang.id, refusal=refusal))
        return 1

    def _rules(self, gang: Gang) -> Refusal | None:
        """Return what forbids the gang whatever is free."""
        if not self.world.rules.placement_on:
            return refuse(Reason.PLACEMENT_DISABLED)
        refusal = admission(gang, self.world)
        if refusal is not None:
            return refusal
        unknown = unknown_level(gang, self.world.inventory)
        if unknown is not None:
            return unknown
        never = self.standing.never_within_limit(gang.queue, gang.gpus)
        if never is not None:
            return refuse(Reason.ABOVE_LIMIT, need=gang.gpus, queue=never.queue, limit=never.limit)
        return None

    def _take(self, waiting: Waiting, placement: Placement) -> None:
        gang = waiting.gang
        hit = self.standing.limit_hit(gang.queue, gang.gpus)
        assert hit is None, (gang, hit)
        self.effects.append(
            Place(
                gang=gang.id,
                attempt=waiting.attempts + 1,
                placement=placement,
                tier=self.standing.tier(gang.queue, gang.gpus),
                deadline_ms=self.world.now_ms + self.world.rules.place_deadline_ms,
            )
        )
        self.standing.charge(gang.queue, gang.gpus)
        self.pods_left -= gang.members

    def _make_room(self, waiting: Waiting) -> bool:
        """Find victims that the gang has a right to; nominate it and stop them."""
        gang = waiting.gang
        if not self.world.rules.preemption_on or self.stops_left <= 0:
            return False
        room = find_room(gang, self.world, self.placer, self.standing, frozenset(self.spared))
        if room is None or not room.victims or len(room.victims) > self.stops_left:
            return False
        self.stops_left -= len(room.victims)
        self.effects.append(
            Nominate(
                gang=gang.id,
                placement=room.placement,
                victims=tuple((victim.gang, victim.attempt) for victim in room.victims),
                until_ms=self.world.now_ms + self.world.rules.nomination_ms,
            )
        )
        for victim in room.victims:
            own = victim.queue == gang.queue
            cause = refuse(Reason.PREEMPTED) if own else refuse(Reason.RECLAIMED, gpus=victim.gpus)
            self.effects.append(Stop(gang=victim.gang, attempt=victim.attempt, cause=cause, requeue=True, by=gang.id))
            self.spared.add(victim.gang)
            self.standing.leave(victim.queue, victim.gpus)
        self.standing.hope(gang.queue, gang.gpus)
        self.overlay.take_placement(gang, room.placement)
        domain = room.placement.domain or "the cluster"
        self.effects.append(
            Refuse(
                gang=gang.id,
                refusal=refuse(Reason.WAITING_FOR_VICTIMS, count=len(room.victims), domain=domain),
            )
        )
        return True
