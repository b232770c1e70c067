"""Notices in the cluster: an attempt is asked to save by what a controller can do without entering its containers.

A program that watches a file hears of it through an annotation of its pods, which the kubelet shows in that file within
a minute or two; it goes on running. One that has named a command or a signal hears of it by the deletion of its pods:
the kubelet runs the command, or sends the signal, and waits for as long as the grace says. What was asked stands in the
GangJob's status before it is asked, so that whoever leads next goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fairlead.model.effects import Notice
from fairlead.model.events import NoticeIntended
from fairlead.model.gang import GangId
from fairlead.model.reasons import BY_TOKEN, Reason, Refusal, refuse
from fairlead_operator.custom_objects import GANGJOBS, NoticeStatus
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import PODS
from fairlead_operator.saving_words import NOTICE
from fairlead_operator.teardown import Teardown
from fairlead_operator.trips import Trip, all_of

log = logging.getLogger(__name__)


class Notices:
    """Writes notices. Each call may be made again; nothing is asked twice of a pod that has been asked."""

    def __init__(self, client: KubeClient, teardown: Teardown, now_ms: Callable[[], int]) -> None:
        """Keep the doors."""
        self._client = client
        self._teardown = teardown
        self._now_ms = now_ms

    async def record(self, trip: Trip, notice: Notice) -> None:
        """Write into the GangJob's status what is about to be asked."""
        await self._write(trip, notice_status(notice))

    async def forget(self, trip: Trip) -> None:
        """Take a notice off the status and the pods again; pods that are being deleted cannot be called back."""
        await self._write(trip, None)
        if trip.sheet.checkpoint is not None and trip.sheet.checkpoint.watches:
            await all_of(self._annotate(trip, step.pod, None) for step in trip.steps if not step.released)

    async def _write(self, trip: Trip, status: dict[str, Any] | None) -> None:
        sheet = trip.sheet
        try:
            body = {"status": {"notice": status}}
            await self._client.patch_merge(GANGJOBS, sheet.name, body, sheet.namespace, sub="status")
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
