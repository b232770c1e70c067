"""Writes statuses at a bounded rate: the newest view of each gang, changes of phase before changes of place.

A status is what people read, never what we decide by, so it may be late and a write that fails is taken up again.
The one part that recovery reads, status.allocation, is written by placing before anything is held; this module only
takes it away, and only that of an attempt that is over: the server itself compares the attempt, because a patch that
was sent before the next attempt was placed may reach it after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fairlead.errors import FairleadError
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.service.metrics import Metrics
from fairlead.world.views import GangView
from fairlead_operator.cluster_events import Told, tell
from fairlead_operator.custom_objects import GANGJOBS, GangJob
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import Condition as Written
from fairlead_operator.objects import Resource
from fairlead_operator.statuses import HOLDING, IDLE, Condition, conditions, gang_status, idle_text

log = logging.getLogger(__name__)

_PAUSE_S = 1.0  # after a failure of the server, before the next write
_BAD_ENDS = (Phase.FAILED, Phase.REFUSED)


class StatusWriter:
    """Owns the statuses of GangJobs. `job` reads a GangJob from memory, None where it is gone."""

    def __init__(
        self,
        client: KubeClient,
        job: Callable[[GangId], GangJob | None],
        now_ms: Callable[[], int],
        metrics: Metrics,
        *,
        writes_per_s: int = 50,
    ) -> None:
        """Start with nothing to write."""
        self._client = client
        self._job = job
        self._now_ms = now_ms
        self._metrics = metrics
        self._gap_s = 1 / writes_per_s
        self._urgent: dict[GangId, GangView] = {}
        self._calm: dict[GangId, GangView] = {}
        self._news = asyncio.Event()
        self._conditions: dict[GangId, dict[str, Condition]] = {}
        self._phases: dict[GangId, Phase] = {}
        self._placed: dict[GangId, int] = {}

    def placing(self, gang: GangId, attempt: int) -> None:
        """Hear that an attempt's allocation is about to be written: older views tell of what is past."""
        self._placed[gang] = attempt
        self._urgent.pop(gang, None)
        self._calm.pop(gang, None)

    def put(self, views: Sequence[GangView]) -> None:
        """Take in views; a newer one of the same gang replaces the older."""
        for view in views:
            if self._urgent.pop(view.id, None) is not None or self._phases.get(view.id) is not view.phase:
                self._calm.pop(view.id, None)
                self._urgent[view.id] = view
            else:
                self._calm[view.id] = view
        self._metrics.status_backlog.set(len(self))
        self._news.set()

    def place_moved(self, view: GangView) -> bool:
        """Whether a waiting gang's place in its queue differs from the one that its status says."""
        job = self._job(view.id)
        return job is not None and job.status.position != view.position

    def __len__(self) -> int:
        """How many gangs' statuses are not written yet."""
        return len(self._urgent) + len(self._calm)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            while not len(self):
                self._news.clear()
                await self._news.wait()
            line = self._urgent or self._calm
            gang = next(iter(line))
            view = line.pop(gang)
            self._metrics.status_backlog.set(len(self))
            try:
                await asyncio.gather(self._write_gang(view), asyncio.sleep(self._gap_s))
            except FairleadError as error:
                log.warning("event=status_failed gang=%s/%s error=%r", view.namespace, view.name, str(error))
                if gang not in self._urgent and gang not in self._calm:
                    self._calm[gang] = view
                await asyncio.sleep(_PAUSE_S)

    async def flush(self, within_s: float) -> None:
        """Write what is left before the end, as far as the time goes."""
        try:
            async with asyncio.timeout(within_s):
                while len(self):
                    line = self._urgent or self._calm
                    await self._write_gang(line.pop(next(iter(line))))
        except (FairleadError, TimeoutError) as error:
            log.info("event=status_unfinished left=%d error=%r", len(self), str(error))

    async def _write_gang(self, view: GangView) -> None:
        """Write one gang's status, and an Event where its phase has changed."""
        job = self._job(view.id)
        if job is None:
            self._forget(view.id)
            return
        before = self._conditions.get(view.id) or {c.type: c for c in read_conditions(job.status.conditions)}
        now_ms = self._now_ms()
        made = conditions(view, before, now_ms)
        if view.phase not in HOLDING:
            await self._take_allocation(view, job)
        status = gang_status(view, made, job.metadata.generation, now_ms)
        if not await patch_status(self._client, self._metrics, GANGJOBS, view.name, {"status": status}, view.namespace):
            self._forget(view.id)
            return
        self._conditions[view.id] = made
        known = self._phases.get(view.id)
        self._phases[view.id] = view.phase
        if known is not view.phase and not (known is None and job.status.phase == view.phase.value):
            await self._tell_phase(view, now_ms)
        if view.idle_ms is not None and (IDLE not in before or before[IDLE].status != "True"):
            await self._event(view, "Idle", "AllDevicesIdle", idle_text(view.idle_ms), now_ms, bad=True)

    async def _take_allocation(self, view: GangView, job: GangJob) -> None:
        """Take away the allocation of an attempt that is over, so that none is read beside a phase that has none."""
        allocation = job.status.allocation
        number = self._placed.get(view.id) or (allocation.attempt if allocation else 0)
        if not number or view.attempt < number:
            return
        operations: list[dict[str, Any]] = [
            {"op": "test", "path": "/status/allocation/attempt", "value": number},
            {"op": "remove", "path": "/status/allocation"},
        ]
        try:
            await self._client.patch_json(GANGJOBS, view.name, operations, view.namespace, sub="status")
        except ApiError as error:
            if error.status not in (404, 422):  # gone, or it is not there (any more): another attempt's may be
                raise
        if self._placed.get(view.id) == number:
            del self._placed[view.id]

    def _forget(self, gang: GangId) -> None:
        """Drop what is remembered of a gang that is gone."""
        for memory in (self._conditions, self._phases, self._placed):
            memory.pop(gang, None)

    async def _tell_phase(self, view: GangView, now_ms: int) -> None:
        """Tell of a change of phase."""
        token = view.refusal.reason.token if view.refusal else view.phase.value
        bad = view.phase in _BAD_ENDS or view.phase is Phase.STOPPING
        note = view.refusal.message if view.refusal else f"the gang is {view.phase.value}"
        await self._event(view, view.phase.value, token, note, now_ms, bad=bad and token != "Finished")

    async def _event(self, view: GangView, action: str, reason: str, note: str, now_ms: int, *, bad: bool) -> None:
        told = Told(
            kind="GangJob",
            namespace=view.namespace,
            name=view.name,
            uid=view.id,
            action=action,
            reason=reason,
            note=note,
            mark=f"{view.id}/{view.attempt}/{action}/{note}",
            bad=bad,
        )
        await tell(self._client, told, now_ms)


async def patch_status(
    client: KubeClient, metrics: Metrics, resource: Resource[Any], name: str, body: dict[str, Any], namespace: str = ""
) -> bool:
    """Merge into a status; False where the object is gone, which is nobody's fault."""
    try:
        await client.patch_merge(resource, name, body, namespace, sub="status")
    except ApiError as error:
        if error.status == 404:
            return False
        if error.status in (400, 422):  # our own bug; the same again would be refused again
            log.error("event=status_refused kind=%s name=%s error=%r", resource.kind, name, error.message)
            metrics.drift.labels(kind="status-refused").inc()
            return True
        raise
    return True


def read_conditions(found: Iterable[Written]) -> tuple[Condition, ...]:
    """Return the conditions that an earlier leader wrote."""
    return tuple(Condition(c.type, c.status, c.reason, c.message, c.last_transition_time or "") for c in found)
