"""GangJobs that have ended and have outlived their time are deleted, and their pods with them."""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.errors import UnreadableInput
from fairlead.units import duration_ms
from fairlead_operator.custom_objects import GANGJOBS, GangJob
from fairlead_operator.gang_facts import FINAL
from fairlead_operator.kube_client import ApiError, KubeClient


def expired(jobs: Iterable[GangJob], now_ms: int) -> list[GangJob]:
    """Return the finished jobs whose ttl is over, those that are being deleted left out."""
    return [job for job in jobs if _is_over(job, now_ms)]


def _is_over(job: GangJob, now_ms: int) -> bool:
    ended_ms, status = job.status.finished_at_ms, job.status
    if not job.spec.ttl or job.metadata.deletion_timestamp or status.phase not in FINAL or ended_ms is None:
        return False
    if status.allocation is not None:  # its devices are not all known to be free yet
        return False
    try:
        return now_ms >= ended_ms + duration_ms(job.spec.ttl)
    except UnreadableInput:
        return False


async def delete_expired(client: KubeClient, jobs: Iterable[GangJob], now_ms: int, *, at_most: int) -> int:
    """Delete up to `at_most` expired jobs as they were seen; one that has changed is looked at again next time."""
    deleted = 0
    for job in expired(jobs, now_ms)[:at_most]:
        meta = job.metadata
        seen = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        try:
            await client.delete(GANGJOBS, meta.name, meta.namespace, options={"preconditions": seen})
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        else:
            deleted += 1
    return deleted
