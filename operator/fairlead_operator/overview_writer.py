"""Writes statuses of Queues, Pools and QueueViews when their numbers change, and takes QueueViews away again.

A QueueView lies in a tenant's namespace; where its queue no longer lists that namespace, it must not be read any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.errors import FairleadError
from fairlead.reports.queue_usage import QueueUsage
from fairlead.service.metrics import Metrics
from fairlead.world.views import GangView, PoolView, QueueView
from fairlead_operator.custom_objects import POOLS, QUEUE_VIEWS, QUEUES
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.objects import Resource
from fairlead_operator.overviews import PoolTroubles, Standing, cost_text, pool_status, queue_status, queue_view_status
from fairlead_operator.pods import API_VERSION
from fairlead_operator.status_writer import patch_status
from fairlead_operator.statuses import MESSAGE_MAX, Condition, rfc3339

log = logging.getLogger(__name__)

AGAIN_MS = 300_000
"""After this even what has not changed is written again: somebody may have deleted or edited it."""

Standings = Mapping[tuple[str, str], Standing]
"""(kind, name) -> how the object stands, of all Queues and Pools there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that is told at one moment. `namespaces` is queue -> those that it lists and that exist.

    `alarms` is queue -> what of its costs alarms, None where nobody has looked yet.
    `policies` are (resource, name, uid, status) of QuotaExceptions and the Switchboard.
    """

    queues: Sequence[QueueView]
    pools: Sequence[PoolView]
    gangs: Sequence[GangView]
    namespaces: Mapping[str, Sequence[str]]
    standings: Standings
    troubles: Mapping[str, PoolTroubles] = field(default_factory=dict[str, PoolTroubles])
    usage: QueueUsage | None = None
    alarms: Mapping[str, str] | None = None
    policies: Sequence[tuple[Resource[Any], str, str, dict[str, Any]]] = ()

    def alarm_of(self, queue: str) -> str | None:
        """Return what of a queue's costs alarms, "" for nothing; None where nobody has looked yet."""
        return None if self.alarms is None else self.alarms.get(queue, "")


@dataclass(slots=True)
class _Last:
    """What was written of one object."""

    uid: str
    status: dict[str, Any]
    at_ms: int


class OverviewWriter:
    """Owns the statuses of Queues and Pools, and QueueViews whole."""

    def __init__(
        self, client: KubeClient, now_ms: Callable[[], int], metrics: Metrics, *, writes_per_s: int = 50
    ) -> None:
        """Start with nothing written."""
        self._client = client
        self._now_ms = now_ms
        self._metrics = metrics
        self._gap_s = 1 / writes_per_s
        self._conditions: dict[tuple[str, str], dict[str, Condition]] = {}
        self._last: dict[tuple[str, str, str], _Last] = {}
        self._views: set[tuple[str, str]] | None = None

    async def write(self, overview: Overview) -> None:
        """Write what has changed.

        Raises
        ------
        FairleadError
            The server does not answer, or somebody else leads.
        """
        await self._write_pools(overview)
        await self._write_queues(overview)
        await self._write_views(overview)
        for resource, name, uid, status in overview.policies:
            await self._write_changed(resource, name, "", status, uid=uid)

    async def _write_pools(self, overview: Overview) -> None:
        views = {view.name: view for view in overview.pools}
        for kind, name in sorted(overview.standings):
            if kind == "Pool":
                standing, before = overview.standings[kind, name], self._conditions.get((kind, name), {})
                status, made = pool_status(
                    views.get(name), standing, overview.troubles.get(name), before, self._now_ms()
                )
                if await self._write_changed(POOLS, name, "", status, uid=standing.uid):
                    self._conditions[kind, name] = made

    async def _write_queues(self, overview: Overview) -> None:
        views = {view.name: view for view in overview.queues}
        used = overview.usage.total if overview.usage else None
        for kind, name in sorted(overview.standings):
            if kind == "Queue":
                standing, before = overview.standings[kind, name], self._conditions.get((kind, name), {})
                gpu_ms = None if used is None else max(0, used.get(name, 0))
                alarm = overview.alarm_of(name)
                status, made = queue_status(views.get(name), standing, gpu_ms, before, self._now_ms(), alarm)
                if await self._write_changed(QUEUES, name, "", status, uid=standing.uid):
                    self._conditions[kind, name] = made

    async def _write_views(self, overview: Overview) -> None:
        """Write QueueViews where they may be, and remove them where they may not be any more."""
        by_place: dict[tuple[str, str], list[GangView]] = {}
        for gang in overview.gangs:
            by_place.setdefault((gang.queue, gang.namespace), []).append(gang)
        if self._views is None:
            found, _version = await self._client.list_all(QUEUE_VIEWS)
            self._views = {(view.metadata.name, view.metadata.namespace) for view in found}
        wanted = {(queue.name, place) for queue in overview.queues for place in overview.namespaces.get(queue.name, ())}
        for name, namespace in sorted(self._views - wanted):
            await self._remove(name, namespace)
        usage = overview.usage
        fresh = {"usage": {"asOf": rfc3339(usage.as_of_ms)}} if usage is not None else None
        for queue in overview.queues:
            for namespace in sorted(overview.namespaces.get(queue.name, ())):
                status = queue_view_status(queue, by_place.get((queue.name, namespace), []))
                said = cost_text(queue, overview.alarm_of(queue.name))
                if said is not None:
                    status["costAnomaly"] = said[:MESSAGE_MAX] or None
                if usage is not None:
                    gpu_ms = max(0, usage.period.get(queue.name, 0))
                    status["usage"] = {"periodStart": rfc3339(usage.period_start_ms), "gpuMs": gpu_ms}
                if await self._write_changed(QUEUE_VIEWS, queue.name, namespace, status, fresh=fresh):
                    self._views.add((queue.name, namespace))

    async def _write_changed(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str,
        status: dict[str, Any],
        *,
        uid: str = "",
        fresh: Mapping[str, Mapping[str, str]] | None = None,
    ) -> bool:
        """Write a status if it differs from what we wrote last; `fresh` has times that are no difference.

        A QueueView that is missing is created. Returns whether it was written.
        """
        key, now_ms = (resource.plural, namespace, name), self._now_ms()
        last = self._last.get(key)
        if last and last.uid == uid and last.status == status and now_ms - last.at_ms < AGAIN_MS:
            return False
        whole: dict[str, Any] = {**status, "asOf": rfc3339(now_ms)}
        for field_name, times in (fresh or {}).items():
            whole[field_name] = {**whole[field_name], **times}
        body = {"status": whole}
        try:
            found = await patch_status(self._client, self._metrics, resource, name, body, namespace)
            if not found and resource is QUEUE_VIEWS:
                await self._create_view(name, namespace)
                found = await patch_status(self._client, self._metrics, resource, name, body, namespace)
        except NotLeader:
            raise
        except FairleadError as error:
            log.warning("event=overview_failed kind=%s name=%s error=%r", resource.kind, name, str(error))
            return False
        if found:
            self._last[key] = _Last(uid, status, now_ms)
        await asyncio.sleep(self._gap_s)
        return found

    async def _create_view(self, name: str, namespace: str) -> None:
        made = {
            "apiVersion": API_VERSION,
            "kind": "QueueView",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"queue": name},
        }
        await self._client.create(QUEUE_VIEWS, made, namespace)

    async def _remove(self, name: str, namespace: str) -> None:
        """Delete a QueueView; one that is gone is as good."""
        assert self._views is not None
        try:
            await self._client.delete(QUEUE_VIEWS, name, namespace)
        except ApiError as error:
            if error.status != 404:
                log.warning("event=view_stays name=%s/%s error=%r", namespace, name, str(error))
                return
        self._views.discard((name, namespace))
        self._last.pop((QUEUE_VIEWS.plural, namespace, name), None)
