"""May a gang be evicted whole? Every member's eviction is tried without effect before any of them is sent."""

from __future__ import annotations

import asyncio

from fairlead.errors import FairleadError
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import PODS
from fairlead_operator.trips import Step, Trip


async def may_evict(client: KubeClient, trip: Trip) -> bool:
    """Ask with dryRun for every member; False where one PodDisruptionBudget says no. A pod that is gone may go.

    Raises
    ------
    FairleadError
        The server did not answer the question.
    """

    async def ask(step: Step) -> bool:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": step.pod, "namespace": trip.sheet.namespace},
            "deleteOptions": {"dryRun": ["All"]},
        }
        path = PODS.path(trip.sheet.namespace, step.pod, "eviction")
        try:
            # A budget says 429, which the client would try again: the short deadline keeps it from that.
            await client.request("POST", path, body, params={"dryRun": "All"}, deadline_s=1.5, retry=False)
        except ApiError as error:
            if error.status == 404:
                return True
            if error.status == 429:
                return False
            raise
        return True

    answers = await asyncio.gather(*(ask(step) for step in trip.steps), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, FairleadError):
            raise answer
    if any(answer is False for answer in answers):
        return False
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return True
