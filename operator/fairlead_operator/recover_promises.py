"""Promises that an earlier process gave, read back from the GangJobs' status. Pure."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.events import Event
from fairlead.model.gang import GangId
from fairlead.model.promises import Promised
from fairlead_operator.allocations import read_placement
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.objects import time_ms


def restore_promise(facts: list[Event], job: GangJob, now_ms: int) -> None:
    """Keep what a gang that still waits was promised, if its time has not come yet."""
    kept = job.status.promise
    if kept is None or not kept.members or job.status.phase != "Pending":
        return
    latest_ms = time_ms(kept.latest_start)
    if latest_ms <= now_ms:
        return
    try:
        placement = read_placement(kept)
    except UnreadableInput:
        return
    stops: list[tuple[GangId, int]] = []
    for text in kept.stops:
        uid, _, attempt = text.rpartition("#")
        if uid and attempt.isdecimal():
            stops.append((GangId(uid), int(attempt)))
    facts.append(
        Promised(
            gang=GangId(job.metadata.uid),
            placement=placement,
            latest_start_ms=latest_ms,
            at_ms=now_ms,
            stops=tuple(stops),
            hero=kept.asked,
        )
    )
