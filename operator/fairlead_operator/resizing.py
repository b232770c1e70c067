"""Members that leave a running elastic gang, or join it, while the others go on: on record first, then in the cluster.

Theory of operation. `status.allocation.left` of the GangJob names the ranks that are no part of the attempt: those that
have left or are about to, and those that are to join and are not bound yet. It is written before anything is created or
deleted, so a new leader neither takes a gang without some of its pods for one that is half bound, nor keeps members of
which only some were bound: it takes away what stands there. Who has been bound is taken off it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from fairlead.errors import FairleadError
from fairlead.model.effects import Grow, Shrink
from fairlead.model.events import Event, GrowFailed, MemberReleased, StopRefused
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules
from fairlead_operator.custom_objects import GANGJOBS
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.placing import Placer, cause_of
from fairlead_operator.pods import allocation_status
from fairlead_operator.teardown import Teardown
from fairlead_operator.trips import Gate, Trip, UntilDone, trip_of

log = logging.getLogger(__name__)

UNDO_MS = 10_000  # of the time for joining, kept for taking it back


class Resizes:
    """Carries changes of size into the cluster. `refused` asks disruption budgets, `until_done` tries again."""

    def __init__(
        self,
        client: KubeClient,
        teardown: Teardown,
        placer: Placer,
        gate: Gate,
        refused: Callable[[Shrink, Trip, frozenset[int]], Awaitable[StopRefused | None]],
        until_done: UntilDone,
        now_ms: Callable[[], int],
        rules: Rules,
    ) -> None:
        """Keep the doors."""
        self._client = client
        self._teardown = teardown
        self._placer = placer
        self._gate = gate
        self._refused = refused
        self._until_done = until_done
        self._now_ms = now_ms
        self._place_deadline_ms = rules.place_deadline_ms

    async def shrink(self, effect: Shrink, trip: Trip | None) -> Sequence[Event]:
        """Take members away, unless a budget forbids it: only those are asked of whom somebody gains."""
        if trip is None or not trip.done.is_set() or trip.aborted:
            log.warning("event=shrink_unknown gang=%s attempt=%d", effect.gang, effect.attempt)
            return ()
        await joined(trip)
        ranks = frozenset(effect.ranks)
        refused = await self._refused(effect, trip, ranks) if effect.by else None
        return await self.leave(trip, ranks) if refused is None else [refused]

    async def leave(self, trip: Trip, ranks: frozenset[int]) -> Sequence[Event]:
        """Take members away; what holds nothing now is returned, the others follow as facts."""
        released = await self._until_done(partial(self._let_leave, trip, ranks), trip.tag) or ()
        number, now_ms = trip.attempt.number, self._now_ms()
        return [MemberReleased(gang=trip.gang, attempt=number, rank=rank, at_ms=now_ms) for rank in released]

    async def _let_leave(self, trip: Trip, ranks: frozenset[int]) -> tuple[int, ...]:
        trip.left |= ranks
        await self._write_left(trip, trip.left)
        released = await self._teardown.stop(trip, keep_ended=False, ranks=ranks)
        log.info("event=shrinking %s members=%d released=%d", trip.tag, len(ranks), len(released))
        return released

    async def _write_left(self, trip: Trip, left: set[int]) -> None:
        body = {"status": {"allocation": {"left": sorted(left)}}}
        try:
            await self._client.patch_merge(GANGJOBS, trip.sheet.name, body, trip.sheet.namespace, sub="status")
        except ApiError as error:
            if error.status != 404:
                raise

    async def grow(self, effect: Grow, trip: Trip | None) -> Sequence[Event]:
        """Bring members to a running attempt: all that are to join, or none."""
        ranks = tuple(effect.ranks)
        if trip is None or not trip.done.is_set() or trip.aborted or len(trip.steps) != ranks[0]:
            return [self._failed(effect, refuse(Reason.PLACE_CONFLICT, detail="the gang is not as it was"), ranks)]
        if self._now_ms() > effect.deadline_ms:
            return [self._failed(effect, refuse(Reason.PLACE_CONFLICT, detail="its turn came too late"), ranks)]
        attempt = replace(trip.attempt, placement=effect.placement)
        whole = trip_of(trip.sheet, attempt)
        trip.attempt, trip.left = attempt, trip.left | set(ranks)
        trip.steps += whole.steps[ranks[0] :]
        present = [m for m in effect.placement.members if m.rank in ranks or m.rank not in trip.left]
        part = Trip(
            gang=trip.gang,
            sheet=trip.sheet,
            attempt=replace(attempt, placement=replace(effect.placement, members=tuple(present)), tier=effect.tier),
            steps=trip.steps[ranks[0] :],
        )
        trip.joining = part
        try:
            return await self._join(effect, trip, part)
        finally:
            part.done.set()
            trip.joining = None

    async def _join(self, effect: Grow, trip: Trip, part: Trip) -> Sequence[Event]:
        within_s = (self._place_deadline_ms - min(UNDO_MS, self._place_deadline_ms // 3)) / 1000
        sheet = trip.sheet
        status = {"allocation": allocation_status(trip.attempt) | {"left": sorted(trip.left)}}
        try:
            async with self._gate.passing(len(part.steps)):
                await self._client.patch_merge(GANGJOBS, sheet.name, {"status": status}, sheet.namespace, sub="status")
                await self._placer.join(part, within_s)
                await self._write_left(trip, trip.left - set(effect.ranks))
        except (FairleadError, TimeoutError) as problem:
            cause = cause_of(problem)
            log.warning("event=grow_failed %s reason=%s detail=%r", trip.tag, cause.reason.token, cause.message)
            nobody: tuple[int, ...] = ()
            gone = nobody if isinstance(problem, NotLeader) else await self._teardown.undo(part, UNDO_MS / 1000)
            return [self._failed(effect, cause, gone)]
        trip.left -= set(effect.ranks)
        log.info("event=grown %s members=%d", trip.tag, len(part.steps))
        return ()

    def _failed(self, effect: Grow, cause: Refusal, released: tuple[int, ...]) -> GrowFailed:
        return GrowFailed(
            gang=effect.gang,
            attempt=effect.attempt,
            ranks=tuple(effect.ranks),
            cause=cause,
            released=released,
            at_ms=self._now_ms(),
        )


async def joined(trip: Trip, why_not: str = "") -> None:
    """Wait until nobody is on the way into an attempt; with `why_not` they are told to turn back."""
    part = trip.joining
    if part is not None:
        part.aborted = part.aborted or why_not
        await asyncio.shield(part.done.wait())
