"""Members that leave a running elastic gang: on record first, then their pods and claims go; the others go on."""

from __future__ import annotations

import logging

from fairlead_operator.custom_objects import GANGJOBS
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.teardown import Teardown
from fairlead_operator.trips import Trip

log = logging.getLogger(__name__)


async def let_leave(client: KubeClient, teardown: Teardown, trip: Trip, ranks: frozenset[int]) -> tuple[int, ...]:
    """Take members away; returns ranks that hold nothing now, the others follow as facts. Doing it again is no matter.

    That they leave is written into the GangJob's status before anything is deleted: a new leader would else take a gang
    without some of its pods for one that is half bound, and undo it.

    Raises
    ------
    FairleadError
        The server refused or did not answer; call again.
    """
    trip.left |= ranks
    body = {"status": {"allocation": {"left": sorted(trip.left)}}}
    await client.patch_merge(GANGJOBS, trip.sheet.name, body, trip.sheet.namespace, sub="status")
    released = await teardown.stop(trip, keep_ended=False, ranks=ranks)
    log.info("event=shrinking %s members=%d released=%d", trip.tag, len(ranks), len(released))
    return released
