"""Promises inside one cycle: which are kept, due or broken, who may use a hole, and who is promised something new.

A promise names devices, and a moment at which they are free whatever happens, because whoever holds one of them has an
end that is enforced. The first `rules.promises` gangs that find no room get one; everybody else may go ahead of them,
but into a hole (a device that is kept for later) only who is gone by its end: because its declared duration says so, or
because it may be stopped then. Who is still there is stopped in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fairlead.model.effects import Effect, Phase, Stop
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.promises import EndPromise, Promise, Promised
from fairlead.model.quota import Amounts
from fairlead.model.reasons import Kind, Reason, Refusal, refuse
from fairlead.ordering.standing import Standing
from fairlead.placement.placer import Placer
from fairlead.planning.end_calendar import Entry, placed_entry
from fairlead.planning.holes import FOREVER, can_be_promised, gone_by, may_be_stopped_for, why_lost
from fairlead.planning.promise_memo import PromiseMemo
from fairlead.planning.promise_search import PromiseSearch
from fairlead.planning.quota_places import charge_of
from fairlead.planning.reserving import Reserving
from fairlead.planning.shield import Kept, Shield, kept_for
from fairlead.units import utc_text
from fairlead.world.durations import HALF
from fairlead.world.ends import end_if_placed, lead_ms
from fairlead.world.snapshot import Waiting, World

SEARCHES = 2
"""Searches for a promise in one cycle, a promise that may be given: some find nothing."""


class Promises:
    """The promises of one cycle. Where nothing is promised and nothing has a declared end, all of it is idle."""

    def __init__(
        self,
        world: World,
        placer: Placer,
        standing: Standing,
        memo: PromiseMemo,
        effects: list[Effect],
        chains: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Look at what stands."""
        self._world = world
        self._placer = placer
        self._standing = standing
        self._memo = memo
        self._effects = effects
        self._now_ms = world.now_ms
        self._shield: Shield | None = None
        self.reserving = Reserving(world, placer, chains, memo.calendar)
        if self.reserving:
            self._shield = Shield(placer.overlay, memo.calendar)
        self._search: PromiseSearch | None = None
        self._protected: frozenset[GangId] | None = None
        self._new, self._rooms = list[Entry](), list[tuple[Gang, Placement]]()
        self._given: dict[GangId, Promised | Promise] = {one.gang: one for one in world.promises}
        self._specs: dict[GangId, Gang] = {}
        self._searches_left = SEARCHES * world.rules.promises
        self._bounded = world.running.bounded > 0
        memo.follow(placer)
        if world.promises:
            memo.calendar.follow(world)
            memo.kept = {gang: kept for gang, kept in memo.kept.items() if gang in self._given}

    # --- what stands ------------------------------------------------------------------------------------------------

    def review(
        self,
        fits: Callable[[Gang, Placement], bool],
        place: Callable[[Waiting], Placement | None],
        take: Callable[[Waiting, Placement], None],
        may: Callable[[Gang, int, Amounts], bool],
        at_most: int,
        kept_from: Callable[[Waiting, Placement], Refusal | None] = lambda _, __: None,
    ) -> list[GangId]:
        """Place whoever's promise has come true or is about to, end promises, and stop who is in the way.

        `fits` takes exactly a placement in the overlay, `place` takes any, `take` decides it; `may` says whether the
        rules and limits of its queue allow so many thousandths of GPUs and so much else now, `kept_from` what a pool by
        now keeps of a placement. Returns who is stopped, `at_most` so many.
        """
        late: list[tuple[Waiting, Promised, bool]] = []
        ready: list[tuple[Waiting, Promised]] = []
        for promise in self._world.promises:
            waiting = self._world.waiting.get(promise.gang)
            if waiting is None:
                self._follow_placed(promise)
                continue
            self._specs[promise.gang] = waiting.gang
            cause = self._lost(promise, waiting.gang) or kept_from(waiting, promise.placement)
            if cause is not None:
                self._end(promise, cause)
                continue
            if waiting.nomination is None and waiting.retry_at_ms <= self._now_ms:
                ready.append((waiting, promise))
        for one in self._given.values():
            self._keep(self._specs[one.gang], one)
        for waiting, promise in ready:
            charge = promise.placement.gpu_milli, charge_of(waiting.gang, promise.placement, self._world)
            self.make_way(waiting.gang)  # what is free of its devices may be promised to another before
            allowed = may(waiting.gang, *charge)
            if allowed and self._is_free(promise) and fits(waiting.gang, promise.placement):
                take(waiting, promise.placement)
            else:
                late.append((waiting, promise, allowed))
        stopped: list[GangId] = []
        for waiting, promise, allowed in late:
            stopped += self._press(waiting, promise, allowed, place, take, at_most - len(stopped))
        return stopped

    def _press(
        self,
        waiting: Waiting,
        promise: Promised,
        allowed: bool,
        place: Callable[[Waiting], Placement | None],
        take: Callable[[Waiting, Placement], None],
        at_most: int,
    ) -> list[GangId]:
        """Do what is due for a promise that has not come true yet; return who is stopped for it."""
        if promise.latest_start_ms <= self._now_ms + self._world.rules.horizon_ms:
            placement = place(waiting)
            if placement is not None:
                take(waiting, placement)
                return []
        if self._now_ms >= promise.latest_start_ms:
            late = refuse(Reason.PROMISE_LATE, at=utc_text(promise.latest_start_ms))
            self._end(promise, late if allowed else refuse(Reason.PROMISE_FORBIDDEN, queue=waiting.gang.queue))
        elif self._now_ms >= promise.latest_start_ms - self._lead_ms(promise):
            return self._clear(promise, at_most)
        return []

    def _follow_placed(self, promise: Promised) -> None:
        """A promise whose gang waits no more: it is kept, once the gang is bound."""
        attempt = self._world.running.everyone.get(promise.gang)
        if attempt is None:
            self._end(promise, None)
        elif attempt.bound_ms is not None:
            late = attempt.since_ms > promise.latest_start_ms
            cause = refuse(Reason.PROMISE_LATE, at=utc_text(promise.latest_start_ms)) if late else None
            self._end(promise, cause, max(0, promise.latest_start_ms - attempt.since_ms))
        elif attempt.spec is not None:
            self._specs[promise.gang] = attempt.spec
        else:
            self._end(promise, None)

    def _end(self, promise: Promised, cause: Refusal | None, early_ms: int = 0) -> None:
        self._effects.append(EndPromise(gang=promise.gang, cause=cause, early_ms=early_ms))
        self._drop(promise.gang)

    def _drop(self, gang: GangId) -> None:
        self._given.pop(gang, None)
        self._search = self._protected = None
        if self._shield is not None:
            self._shield.drop(gang)

    def _lost(self, promise: Promised, gang: Gang) -> Refusal | None:
        """Return what of a promise can't be given any more. Looked for only when some node has changed."""
        if self._known(promise) is not None:
            return None
        cause = why_lost(promise, gang, self._world, self._placer.feasibility)
        if cause is None:
            kept = kept_for(gang, promise.placement, promise.latest_start_ms, self._placer.overlay)
            rows = np.array([row for row, _, _ in kept.rows], dtype=np.int64)
            masks = np.array([mask for _, mask, _ in kept.rows], dtype=np.int64)
            self._memo.kept[promise.gang] = promise, self._world.inventory, kept, rows, masks
        return cause

    def _known(self, promise: Promised | Promise) -> Kept | None:
        """Return what a promise keeps, if that was found out about the nodes as they are."""
        known = self._memo.kept.get(promise.gang)
        fresh = known is not None and known[0] == promise and known[1] is self._world.inventory
        return known[2] if known is not None and fresh else None

    def _is_free(self, promise: Promised) -> bool:
        """Whether all devices are free, before anything else is looked at."""
        _, _, _, rows, masks = self._memo.kept[promise.gang]
        return bool(((self._placer.overlay.columns.free_mask[rows] & masks) == masks).all())

    def _clear(self, promise: Promised, at_most: int) -> list[GangId]:
        """Stop whoever still holds something of a hole that ends, as long before as that takes."""
        found: list[GangId] = []
        left_ms = promise.latest_start_ms - self._now_ms
        stopped = {effect.gang for effect in self._effects if isinstance(effect, Stop)}
        for entry in self._holders(self._memo.kept[promise.gang][2]):
            attempt = entry.attempt
            if attempt is None or attempt.spec is None or attempt.phase is Phase.STOPPING or entry.owner in stopped:
                continue
            if attempt.notice is not None or left_ms > lead_ms(attempt.spec, self._world.rules):
                continue
            if (attempt.spec.preemptible or attempt.spec.duration_ms is not None) and len(found) < at_most:
                cause = refuse(Reason.HOLE_ENDED)
                self._effects.append(Stop(gang=entry.owner, attempt=attempt.attempt, cause=cause, requeue=True))
                self._standing.leave(attempt.queue, attempt.gpu_milli, attempt.also)
                found.append(entry.owner)
        return found

    def _holders(self, kept: Kept) -> Iterator[Entry]:
        seen: set[GangId] = set()
        for row, mask, _ in kept.rows:
            for entry in self._memo.calendar.holders(row, mask):
                if entry.owner not in seen and entry.owner != kept.holder:
                    seen.add(entry.owner)
                    yield entry

    def _keep(self, gang: Gang, promise: Promised | Promise) -> None:
        if self._shield is None:
            self._shield = Shield(self._placer.overlay, self._memo.calendar)
        kept = self._known(promise)
        if kept is None:
            kept = kept_for(gang, promise.placement, promise.latest_start_ms, self._placer.overlay)
        self._shield.keep(kept)

    def _lead_ms(self, promise: Promised | Promise) -> int:
        """Return how long before a promised start the first who holds something of it must be told."""
        rules, calendar = self._world.rules, self._memo.calendar
        kept = self._known(promise)
        if not calendar.savers or kept is None:
            return rules.stop_ms
        held = [entry.attempt for entry in self._holders(kept) if entry.owner in calendar.savers]
        leads = [lead_ms(one.spec, rules) for one in held if one is not None and one.spec is not None]
        return max(leads, default=rules.stop_ms)

    def wakes(self) -> list[int]:
        """Return the next moments at which a standing promise wants something done, in no order."""
        given = [(one.latest_start_ms, self._lead_ms(one)) for one in self._given.values()]
        moments = {start - before for start, lead in given for before in (self._world.rules.stop_ms, lead, 0)}
        return [*self.reserving.wakes(), *(moment for moment in moments if moment > self._now_ms)]

    def has(self, gang: GangId) -> bool:
        """Whether a gang is promised anything."""
        return gang in self._given

    def crowd_out(self, gang: Gang) -> bool:
        """Whether something is promised, but there would be no place if it were not; all of it can be seen then."""
        if self._shield:
            self._shield.lower()
        return bool(self._shield) and not self._placer.may_hold(gang)

    @property
    def hides(self) -> bool:
        """Whether anything that is free is kept out of the sight of the gang that way was made for last."""
        return self._shield is not None and self._shield.hides_anything

    def lower(self) -> None:
        """Let everything that is promised be seen, until somebody is to be looked at next."""
        if self._shield is not None:
            self._shield.lower()

    # --- who may use a hole -----------------------------------------------------------------------------------------

    def make_way(self, gang: Gang, *, entering: bool = True) -> None:
        """Keep out of the gang's sight the holes that it may not enter; all but its own where it is not `entering`."""
        if self._shield is None:
            return
        gone = gone_by(gang, self._now_ms, self._world.rules, self._world.durations.quantile(gang, HALF))
        holes = self._shield.kept_until(gone if entering else FOREVER, gang.id)
        if self.reserving:
            later = gone if entering else gone + self._world.rules.nomination_ms
            holes = (*holes, *self.reserving.kept_from(gang, later))
        self._shield.stand_before(holes)

    def protected(self) -> frozenset[GangId]:
        """Return who holds something that is promised to somebody: it ends in time, and nobody may come instead."""
        if not self._shield:
            return frozenset()
        if self._protected is None:
            kept = self._shield.kept_until(FOREVER)
            self._protected = frozenset(entry.owner for one in kept for entry in self._holders(one))
        return self._protected

    def limits_kept(self, gang: Gang, milli: int) -> bool:
        """Whether the limits that a gang shares with those whose holes it may not enter leave room for them in time."""
        if self._shield is None or not self._shield.before or self._standing.room_within_limits(gang.queue) is None:
            return True
        return all(self._within_limits(gang.queue, milli, one.start_ms, but=gang.id) for one in self._shield.before)

    def _within_limits(self, queue: str, milli: int, by_ms: int, but: GangId) -> bool:
        """Whether a queue may be charged for so much more by a moment, beside all that is promised until then."""
        if self._standing.room_within_limits(queue) is None:
            return True
        changes = self._memo.calendar.given_back(by_ms)
        for one in self._given.values():
            if one.gang != but and one.gang in self._specs and one.latest_start_ms <= by_ms:
                changes.append((self._specs[one.gang].queue, one.placement.gpu_milli))
        return self._standing.hit_after(changes, queue, milli) is None

    def why_kept(self, gang: Gang, place: Callable[[Gang], Placement | None]) -> Refusal | None:
        """Return that the gang would have a place but for what is promised to others; None where it would not.

        `place` must leave the overlay as it was.
        """
        if self._shield is None or not self._shield.hides_anything:
            return None
        holes = self._shield.before
        self._shield.lower()
        placement = place(gang)
        if placement is None:
            return None
        wanted = {(row, mask) for row, mask, _ in kept_for(gang, placement, 0, self._placer.overlay).rows}
        met = [h for h in holes if any(r == row and m & mask for r, m, _ in h.rows for row, mask in wanted)]
        first = min(met or holes, key=lambda hole: hole.start_ms)
        reason = Reason.RESERVED if first.reserved else Reason.KEPT_FOR_PROMISE
        return refuse(reason, at=utc_text(first.start_ms))

    # --- new promises -----------------------------------------------------------------------------------------------

    def placed(self, gang: Gang, placement: Placement) -> None:
        """Hear of a placement of this cycle: its end is enforced, too."""
        self._specs[gang.id] = gang
        end_ms = end_if_placed(gang, self._now_ms, self._world.rules)
        if end_ms is not None:
            self._new.append(placed_entry(gang, placement, end_ms, self._placer.inventory))
            self._search, self._bounded = None, True

    def nominated(self, gang: Gang, placement: Placement) -> None:
        """Hear of room that is being made: nobody is promised any of it."""
        self._rooms.append((gang, placement))
        self._search = None

    def promise(self, waiting: Waiting, refusal: Refusal) -> bool:
        """Promise a gang that finds no room now its devices, if there is a moment by which they must be free.

        Returns whether it was promised anything.
        """
        gang = waiting.gang
        hero = gang.wants_promise and self._hero_slots(gang) > 0
        if gang.id in self._given or refusal.reason.kind is not Kind.NOT_NOW or waiting.nomination is not None:
            return False
        patient = gang.submitted_ms + self._world.rules.patience_ms <= self._now_ms
        may = hero or ((self._bounded or patient) and self._slots() > 0)
        if not may or not can_be_promised(gang) or self._searches_left <= 0:
            return False
        self._searches_left -= 1
        self._memo.calendar.follow(self._world)
        self.lower()
        notice_ms = self._notice_ms(gang, hero=hero, patient=patient)
        search = self._plain_search() if notice_ms is None else self._search_with_notice(gang, notice_ms)
        milli = self._placer.feasibility.charge(gang)
        found = search.earliest(gang, lambda by_ms: self._within_limits(gang.queue, milli, by_ms, gang.id))
        if found is None:
            return False
        stops = self._stops(gang, found.placement, found.at_ms)
        made = Promise(gang=gang.id, placement=found.placement, latest_start_ms=found.at_ms, stops=stops, hero=hero)
        self._effects.append(made)
        self._given[gang.id], self._specs[gang.id] = made, gang
        self._search = self._protected = None
        self._keep(gang, made)
        return True

    def _slots(self) -> int:
        return self._world.rules.promises - sum(not one.hero for one in self._given.values())

    def _hero_slots(self, gang: Gang) -> int:
        queue = self._world.queues.get(gang.queue)
        heroes = [one for one in self._given.values() if one.hero and one.gang in self._specs]
        held = sum(self._specs[one.gang].queue == gang.queue for one in heroes)
        return 0 if queue is None else queue.promised_jobs - held

    def _plain_search(self) -> PromiseSearch:
        if self._search is None:
            held = (*self._memo.calendar.bounded(), *self._new)
            self._search = PromiseSearch(self._placer, held, self._promised(), self._now_ms)
        return self._search

    def _notice_ms(self, gang: Gang, *, hero: bool, patient: bool) -> int | None:
        """Return after how long work of its own queue may be stopped for a promise, None where it may not."""
        own, late = self._world.queues[gang.queue].promise_notice_ms, self._world.rules.notice_ms
        return own if hero else late if patient else None

    def _search_with_notice(self, gang: Gang, notice_ms: int) -> PromiseSearch:
        """Like any other, but preemptible work of the gang's own queue ends when the notice is over."""
        over_ms = self._now_ms + notice_ms + self._world.rules.stop_ms
        held = self._memo.calendar.ending(lambda attempt: may_be_stopped_for(attempt, gang), over_ms)
        held = sorted([*self._new, *held], key=lambda entry: (entry.end_ms, entry.owner))
        return PromiseSearch(self._placer, held, self._promised(), self._now_ms)

    def _stops(self, gang: Gang, placement: Placement, at_ms: int) -> tuple[tuple[GangId, int], ...]:
        kept = kept_for(gang, placement, at_ms, self._placer.overlay)
        late = ((entry.owner, entry.attempt) for entry in self._holders(kept) if entry.end_ms > at_ms)
        return tuple(sorted((owner, attempt.attempt) for owner, attempt in late if attempt is not None))

    def _promised(self) -> list[Entry]:
        """Return what is promised, each until it would be over."""
        found = [placed_entry(gang, placement, None, self._placer.inventory) for gang, placement in self._rooms]
        found += self.reserving.entries()
        for one in self._given.values():
            gang = self._specs.get(one.gang)
            if gang is not None:
                end_ms = end_if_placed(gang, one.latest_start_ms, self._world.rules)
                found.append(placed_entry(gang, one.placement, end_ms, self._placer.inventory))
        return found
