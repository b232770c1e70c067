"""The cluster as the loop's port: effects become writes to the API server, and what came of them becomes facts.

`perform` never raises for what the outside did. Nothing here decides; the order of writes is that of `placing` and
`teardown`, and statuses go through `status_writer`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from fairlead.errors import FairleadError, Unreachable
from fairlead.model.effects import EndNomination, Grow, Nominate, Notice, Place, Shrink, Stop, Withdraw
from fairlead.model.events import (
    Bound,
    Event,
    GangRefused,
    MemberReleased,
    NominationEnded,
    PlaceFailed,
    StopRefused,
)
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules
from fairlead.service.metrics import Metrics
from fairlead.service.ports import Hold, Performable
from fairlead.world.views import GangView
from fairlead_operator.custom_objects import GANGJOBS
from fairlead_operator.evictions import refused_evictions
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.notices import Notices, stop_asking
from fairlead_operator.objects import Pod
from fairlead_operator.placing import Placer, cause_of
from fairlead_operator.pods import CLAIM_IN_POD, Attempt, JobSheet, claim_name
from fairlead_operator.resizing import Resizes, joined
from fairlead_operator.status_writer import StatusWriter
from fairlead_operator.statuses import nomination_status
from fairlead_operator.strangers import let_strangers_go
from fairlead_operator.teardown import Teardown
from fairlead_operator.trips import Gate, Key, Lookup, Trip, trip_of

log = logging.getLogger(__name__)

UNDO_MS = 10_000  # of a placement's deadline: kept for taking everything back
_SWEEP_S = 20.0  # after this a write that was cut off has happened or never will
_RETRY_S, _RETRY_MAX_S = 1.0, 30.0

Check = Callable[[JobSheet], Awaitable[Refusal | None]]
"""Repeats the API server's dry run of a GangJob's templates."""


class KubeCluster:
    """Implements `fairlead.service.ports.Cluster` over one API server.

    `report` hands in facts that come later; set it to the loop's `put` before the first effect.
    """

    def __init__(
        self,
        client: KubeClient,
        lookup: Lookup,
        placer: Placer,
        writer: StatusWriter,
        *,
        check: Check,
        now_ms: Callable[[], int],
        rng: random.Random,
        rules: Rules,
        metrics: Metrics,
        width: int = 64,
    ) -> None:
        """Keep the doors. At most `width` pods are being placed at once."""
        self.report: Callable[..., None] = lambda *facts: None
        self.teardown = Teardown(client, lambda fact: self.report(fact), now_ms, rng)
        self._notices = Notices(client, self.teardown, now_ms, self._refused, self._until_done, self._background)
        self._client = client
        self._lookup = lookup
        self._placer = placer
        self._writer = writer
        self._check = check
        self._now_ms = now_ms
        self._rng = rng
        self._rules = rules
        self._metrics = metrics
        self._gate = Gate(width)
        self._resizes = Resizes(
            client, self.teardown, placer, self._gate, self._refused, self._until_done, now_ms, rules
        )
        self._trips: dict[Key, Trip] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def know(self, trip: Trip) -> None:
        """Remember the objects of an attempt that was found in the cluster."""
        trip.done.set()
        self._trips[trip.key] = trip

    def knows(self, gang: GangId, attempt: int) -> bool:
        """Whether an attempt is one of ours, whatever labels somebody may have written on an object."""
        return (gang, attempt) in self._trips

    def pod_over(self, pod: Pod) -> None:
        """Hear that nothing of a pod of ours runs any more: its devices are free at once.

        The controller manager would empty the claim of a pod with a terminal phase, but not of one that ended without
        and is kept by our finalizer.
        """
        name = claim_name(pod.metadata.name)
        if any(claim.name == CLAIM_IN_POD for claim in pod.spec.resource_claims):
            self._background(self._empty(pod.metadata.namespace, name, pod.metadata.uid))

    async def _empty(self, namespace: str, name: str, pod_uid: str) -> None:
        async def work() -> tuple[int, ...]:
            await self.teardown.empty_claim(namespace, name, pod_uid)
            return ()

        await self._until_done(work, f"claim={namespace}/{name}")

    async def perform(self, effect: Performable) -> Sequence[Event]:
        """Carry out one effect, as the port says."""
        try:
            match effect:
                case Place():
                    return await self._place(effect)
                case Stop():
                    return await self._stop(effect)
                case Notice():
                    return await self._notices.give(effect, self._trips.get((effect.gang, effect.attempt)))
                case Withdraw():
                    return await self._notices.withdraw(effect, self._trips.get((effect.gang, effect.attempt)))
                case Shrink():
                    return await self._resizes.shrink(effect, self._trips.get((effect.gang, effect.attempt)))
                case Grow():
                    return await self._resizes.grow(effect, self._trips.get((effect.gang, effect.attempt)))
                case Nominate():
                    return await self._nominate(effect)
                case EndNomination():
                    await self._write_nomination(effect.gang, None)
                    return ()
        except FairleadError as error:
            log.warning(
                "event=effect_failed effect=%s gang=%s error=%r", type(effect).__name__, effect.gang, str(error)
            )
            return ()

    # --- placing ----------------------------------------------------------------------------------------------------

    async def _place(self, effect: Place) -> Sequence[Event]:
        async with self._gate.passing(len(effect.placement.members)):
            return [await self._place_now(effect)]

    async def _place_now(self, effect: Place) -> Event:
        """Write one placement. Its time counts from here: nothing of it is in the cluster while it waits its turn."""
        began_ms = self._now_ms()
        sheet, deadline_ms = self._lookup.sheet(effect.gang), self._rules.place_deadline_ms
        if sheet is None or began_ms > effect.deadline_ms:
            detail = "the GangJob is gone" if sheet is None else "its turn came too late"
            everyone = range(len(effect.placement.members))
            return self._failed(effect, refuse(Reason.PLACE_CONFLICT, detail=detail), everyone)
        placed_at_ms = effect.deadline_ms - deadline_ms
        attempt = Attempt(
            number=effect.attempt, placement=effect.placement, tier=effect.tier, placed_at_ms=placed_at_ms
        )
        trip = trip_of(sheet, attempt)
        self._trips[trip.key] = trip
        self._writer.placing(effect.gang, effect.attempt)
        try:
            await self._placer.forward(trip, (deadline_ms - min(UNDO_MS, deadline_ms // 3)) / 1000)
        except (FairleadError, TimeoutError) as problem:
            return await self._undo(effect, trip, problem, began_ms)
        finally:
            trip.done.set()
        took_s = (self._now_ms() - began_ms) / 1000
        self._metrics.place_seconds.labels(outcome="bound").observe(took_s)
        log.info("event=bound %s members=%d seconds=%.3f", trip.tag, len(trip.steps), took_s)
        return Bound(gang=effect.gang, attempt=effect.attempt, at_ms=self._now_ms())

    async def _undo(self, effect: Place, trip: Trip, problem: BaseException, began_ms: int) -> PlaceFailed:
        """Take an attempt back within what is left of its time."""
        cause = cause_of(problem)
        log.warning("event=place_failed %s reason=%s detail=%r", trip.tag, cause.reason.token, cause.message)
        if isinstance(problem, NotLeader):
            released: tuple[int, ...] = ()  # somebody else leads by now, finds the pieces and settles them
        else:
            left_ms = max(1_000, began_ms + self._rules.place_deadline_ms - self._now_ms())
            released = await self.teardown.undo(trip, left_ms / 1000)
            if isinstance(problem, TimeoutError | Unreachable):
                self._background(self._sweep(trip))
        self._metrics.place_seconds.labels(outcome="failed").observe((self._now_ms() - began_ms) / 1000)
        return self._failed(effect, cause, released)

    def _failed(self, effect: Place, cause: Refusal, released: Sequence[int]) -> PlaceFailed:
        return PlaceFailed(
            gang=effect.gang, attempt=effect.attempt, cause=cause, released=tuple(released), at_ms=self._now_ms()
        )

    async def _sweep(self, trip: Trip) -> None:
        """Look once more for objects of a failed attempt: a write that was cut off may have happened late."""
        await asyncio.sleep(_SWEEP_S)
        await self._until_done(lambda: self.teardown.stop(trip, keep_ended=False), trip.tag)

    # --- stopping ---------------------------------------------------------------------------------------------------

    async def _stop(self, effect: Stop) -> Sequence[Event]:
        trip = self._trips.get((effect.gang, effect.attempt))
        if trip is None:
            sheet = self._lookup.sheet(effect.gang)
            log.warning(
                "event=stop_unknown gang=%s attempt=%d known=%s", effect.gang, effect.attempt, sheet is not None
            )
            return ()
        if not trip.done.is_set():
            trip.aborted = f"it is to stop: {effect.cause.message}"
            await trip.done.wait()  # placing has a deadline of its own
        await joined(trip, why_not=f"its gang is to stop: {effect.cause.reason.token}")
        stop_asking(trip)
        if effect.by and (refused := await self._refused(effect, trip)) is not None:
            await self._notices.forget(trip)
            return [refused]
        keep = effect.cause.reason is Reason.FINISHED
        try:
            released = await self.teardown.stop(trip, keep_ended=keep)
        except FairleadError as error:
            log.warning("event=stop_failed %s error=%r", trip.tag, str(error))
            self._background(self._stop_later(trip, keep))
            return ()
        log.info("event=stopping %s reason=%s released=%d", trip.tag, effect.cause.reason.token, len(released))
        return self._released(trip, released)

    async def _refused(
        self, effect: Stop | Notice | Shrink, trip: Trip, ranks: frozenset[int] | None = None
    ) -> StopRefused | None:
        """Ask the disruption budgets of one that is to yield; a no also ends the room that was being made."""
        refusal = await refused_evictions(self._client, trip, ranks)
        if refusal is None:
            return None
        await self._forget_nomination(GangId(effect.by))
        return StopRefused(gang=effect.gang, attempt=effect.attempt, cause=refusal, at_ms=self._now_ms())

    def resume_notice(self, trip: Trip, notice: Notice) -> None:
        """Go on asking an attempt to save that an earlier leader gave notice."""
        self._notices.resume(trip, notice)

    async def resume_shrink(self, trip: Trip) -> None:
        """Go on with members' leave that an earlier leader began."""
        log.info("event=shrink_resumed %s", trip.tag)
        self.report(*await self._resizes.leave(trip, frozenset(trip.left)))

    async def resume_stop(self, trip: Trip, keep: bool) -> None:
        """Go on with a stop that an earlier leader began."""
        log.info("event=stop_resumed %s", trip.tag)
        await self._stop_later(trip, keep)

    async def _stop_later(self, trip: Trip, keep: bool) -> None:
        """Go on with a stop that the server did not let us finish: a gang goes whole."""
        released = await self._until_done(lambda: self.teardown.stop(trip, keep_ended=keep), trip.tag)
        self.report(*self._released(trip, released or ()))

    def _released(self, trip: Trip, ranks: Sequence[int]) -> list[MemberReleased]:
        now_ms = self._now_ms()
        return [MemberReleased(gang=trip.gang, attempt=trip.attempt.number, rank=rank, at_ms=now_ms) for rank in ranks]

    async def _until_done(
        self, work: Callable[[], Coroutine[Any, Any, tuple[int, ...]]], tag: str
    ) -> tuple[int, ...] | None:
        """Try until the server has let us, or until we no longer lead (None)."""
        wait_s = _RETRY_S
        while True:
            try:
                return await work()
            except NotLeader:
                return None
            except FairleadError as error:
                log.warning("event=retry %s error=%r", tag, str(error))
            await asyncio.sleep(wait_s * self._rng.uniform(0.75, 1.0))
            wait_s = min(_RETRY_MAX_S, wait_s * 2)

    # --- nominations ------------------------------------------------------------------------------------------------

    async def _nominate(self, effect: Nominate) -> Sequence[Event]:
        """Persist the nomination, unless the API server would no longer take the gang's pods."""
        sheet = self._lookup.sheet(effect.gang)
        refusal = None if sheet is None else await self._check(sheet)
        now_ms = self._now_ms()
        if sheet is None:
            return [NominationEnded(gang=effect.gang, at_ms=now_ms)]
        if refusal is not None:
            refused = GangRefused(
                gang=effect.gang,
                namespace=sheet.namespace,
                name=sheet.name,
                queue=sheet.queue,
                refusal=refusal,
                at_ms=now_ms,
            )
            return [NominationEnded(gang=effect.gang, at_ms=now_ms), refused]
        others = [*(gang for gang, _ in effect.victims), *(gang for gang, _, _ in effect.shrunk)]
        names = {gang: self._lookup.sheet(gang) for gang in (effect.gang, *others)}
        await self._write_nomination(effect.gang, nomination_status(effect, names))
        return ()

    async def _forget_nomination(self, gang: GangId) -> None:
        """Take a nomination that came to nothing off the status; one that stays there by mischance lapses by itself."""
        try:
            await self._write_nomination(gang, None)
        except FairleadError as error:
            log.warning("event=nomination_stays gang=%s error=%r", gang, str(error))

    async def _write_nomination(self, gang: GangId, nomination: dict[str, Any] | None) -> None:
        sheet = self._lookup.sheet(gang)
        if sheet is None:
            return
        body = {"status": {"nomination": nomination}}
        try:
            await self._client.patch_merge(GANGJOBS, sheet.name, body, sheet.namespace, sub="status")
        except ApiError as error:
            if error.status != 404:
                raise

    # --- status and books -------------------------------------------------------------------------------------------

    async def publish(self, views: Sequence[GangView]) -> None:
        """Queue the statuses; they are written at their own pace."""
        self._writer.put(views)

    async def booked(self, holds: Sequence[Hold]) -> None:
        """Let go of objects whose closing entry is committed; the work is done beside the loop."""
        self._background(self._let_go(list(holds)))

    async def _let_go(self, holds: list[Hold]) -> None:
        await asyncio.gather(*(self._let_one_go(hold) for hold in holds))

    async def _let_one_go(self, hold: Hold) -> None:
        gang, number, rank = hold
        trip = self._trips.get((gang, number))

        async def work() -> tuple[int, ...]:
            if trip is not None:
                step = trip.steps[rank]
                await self.teardown.let_go(trip.sheet.namespace, step.pod, step.claim)
            else:
                await let_strangers_go(self._client, self.teardown, gang, number, rank)
            return ()

        await self._until_done(work, f"gang={gang} attempt={number} rank={rank}")
        if trip is not None and all(step.released for step in trip.steps):
            self._trips.pop(trip.key, None)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End background work; whoever leads next finds what is left."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.teardown.close()

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("event=background_failed error=%r", error, exc_info=error)
