"""Notices in the cluster: an attempt is asked to save by what a controller can do without entering its containers.

A program that watches a file hears of it through an annotation of its pods, which the kubelet shows in that file within
a minute or two; it goes on running. One that has named a command or a signal hears of it by the deletion of its pods:
the kubelet runs the command, or sends the signal, and waits for as long as the grace says. What was asked stands in the
GangJob's status before it is asked, so that whoever leads next goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from fairlead.model.effects import Notice, Phase, Withdraw
from fairlead.model.events import Event, NoticeIntended, StopRefused
from fairlead.model.gang import GangId
from fairlead.model.reasons import BY_TOKEN, Reason, Refusal, refuse
from fairlead_operator.custom_objects import GANGJOBS, NoticeStatus
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import PODS
from fairlead_operator.saving_words import NOTICE
from fairlead_operator.teardown import Teardown
from fairlead_operator.trips import Trip, UntilDone, all_of

log = logging.getLogger(__name__)


class Notices:
    """Writes notices. Each call may be made again; nothing is asked twice of a pod that has been asked.

    `refused` asks disruption budgets, `until_done` tries again, `background` runs something beside the loop.
    """

    def __init__(
        self,
        client: KubeClient,
        teardown: Teardown,
        now_ms: Callable[[], int],
        refused: Callable[[Notice, Trip], Awaitable[StopRefused | None]],
        until_done: UntilDone,
        background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """Keep the doors."""
        self._client = client
        self._teardown = teardown
        self._now_ms = now_ms
        self._refused = refused
        self._until_done = until_done
        self._background = background

    async def give(self, notice: Notice, trip: Trip | None) -> Sequence[Event]:
        """Ask an attempt to save, unless a budget forbids to stop it at all. It is asked beside the loop, in its turn.

        A notice that cannot even be written down is not given: the attempt is then stopped when its time is over.

        Raises
        ------
        FairleadError
            It could not be written down.
        """
        if trip is None:
            log.warning("event=notice_unknown gang=%s attempt=%d", notice.gang, notice.attempt)
            return ()
        async with trip.notices:
            if notice.by and (refused := await self._refused(notice, trip)) is not None:
                return [refused]
            await self.record(trip, notice)
            self.resume(trip, notice)
        return ()

    def resume(self, trip: Trip, notice: Notice) -> None:
        """Ask an attempt to save when its turn has come, until it has been asked or is stopped."""

        async def work() -> tuple[int, ...]:
            await self.ask(trip, notice)
            return ()

        async def ask() -> None:
            await self._until_done(work, trip.tag)

        if trip.asking is None:
            trip.asking = self._background(ask())

    async def withdraw(self, effect: Withdraw, trip: Trip | None) -> Sequence[Event]:
        """Let an attempt go on: nothing more is asked of it, and what stands written is taken off."""
        if trip is None:
            log.warning("event=withdraw_unknown gang=%s attempt=%d", effect.gang, effect.attempt)
            return ()
        async with trip.notices:
            stop_asking(trip)
            await self._until_done(partial(self.forget, trip), trip.tag)
        log.info("event=notice_withdrawn %s", trip.tag)
        return ()

    async def record(self, trip: Trip, notice: Notice) -> None:
        """Write into the GangJob's status what is about to be asked."""
        await self._write(trip, {"notice": notice_status(notice)})

    async def forget(self, trip: Trip) -> tuple[int, ...]:
        """Take a notice off the status and the pods again; pods that are being deleted cannot be called back.

        The phase goes with it: a new leader would else take the gang for one that was being stopped.
        """
        await self._write(trip, {"notice": None, "phase": Phase.RUNNING.value})
        if trip.sheet.checkpoint is not None and trip.sheet.checkpoint.watches:
            await all_of(self._annotate(trip, step.pod, None) for step in trip.steps if not step.released)
        return ()

    async def _write(self, trip: Trip, status: dict[str, Any]) -> None:
        sheet = trip.sheet
        try:
            await self._client.patch_merge(GANGJOBS, sheet.name, {"status": status}, sheet.namespace, sub="status")
        except ApiError as error:
            if error.status != 404:
                raise

    async def ask(self, trip: Trip, notice: Notice) -> None:
        """Wait for the attempt's turn, then ask all its pods.

        Raises
        ------
        FairleadError
            The server refused or did not answer; call again.
        """
        await asyncio.sleep(max(0, notice.begins_ms - self._now_ms()) / 1000)
        saving = trip.sheet.checkpoint
        if saving is not None and saving.watches:
            await all_of(
                self._annotate(trip, step.pod, str(notice.begins_ms)) for step in trip.steps if not step.released
            )
        else:
            grace_ms = max(1_000, notice.until_ms - max(self._now_ms(), notice.begins_ms))
            await self._teardown.end_pods(trip, grace_s=-(-grace_ms // 1000))
        log.info("event=notice %s until_ms=%d", trip.tag, notice.until_ms)

    async def _annotate(self, trip: Trip, pod: str, text: str | None) -> None:
        patch = {"metadata": {"annotations": {NOTICE: text}}}
        try:
            await self._client.patch_merge(PODS, pod, patch, trip.sheet.namespace)
        except ApiError as error:
            if error.status != 404:
                raise


def stop_asking(trip: Trip) -> None:
    """Ask an attempt no more; what it has heard it has heard."""
    if trip.asking is not None:
        trip.asking.cancel()
        trip.asking = None


def notice_status(notice: Notice) -> dict[str, Any]:
    """Return status.notice, exact enough to go on with it after a restart."""
    return {
        "attempt": notice.attempt,
        "beginsAtMs": notice.begins_ms,
        "untilMs": notice.until_ms,
        "reason": notice.cause.reason.token,
        "details": {name: value for name, value in notice.cause.details},
        "requeue": notice.requeue,
        "by": notice.by,
    }


def cause_of_notice(kept: NoticeStatus) -> Refusal:
    """Read back why an attempt is being stopped; of what a later version wrote, only that it is."""
    reason = BY_TOKEN.get(kept.reason)
    if reason is None:
        return refuse(Reason.PLACE_CONFLICT, detail="it was being stopped when the scheduler restarted")
    cause = refuse(reason, **kept.details)
    try:
        _ = cause.message
    except KeyError:
        return refuse(Reason.PLACE_CONFLICT, detail="it was being stopped when the scheduler restarted")
    return cause


def notice_fact(gang: GangId, kept: NoticeStatus) -> NoticeIntended:
    """Build the fact of a notice that an earlier leader gave. It was decided when it could first begin, or before."""
    return NoticeIntended(
        gang=gang,
        attempt=kept.attempt,
        cause=cause_of_notice(kept),
        requeue=kept.requeue,
        at_ms=kept.begins_at_ms,
        begins_ms=kept.begins_at_ms,
        until_ms=kept.until_ms,
        by=kept.by,
    )


def notice_of(fact: NoticeIntended) -> Notice:
    """Return the effect behind the fact."""
    return Notice(
        gang=fact.gang,
        attempt=fact.attempt,
        cause=fact.cause,
        requeue=fact.requeue,
        begins_ms=fact.begins_ms,
        until_ms=fact.until_ms,
        by=fact.by,
    )
