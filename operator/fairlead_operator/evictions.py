"""May a gang be evicted whole? Every member's eviction is tried without effect before any of them is sent."""

from __future__ import annotations

import asyncio
import logging

from fairlead.errors import FairleadError
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.objects import PODS
from fairlead_operator.trips import Step, Trip

log = logging.getLogger(__name__)

_ASK_S = 1.5  # a budget says 429, which the client would try again: the short deadline keeps it from that


async def refused_evictions(client: KubeClient, trip: Trip, ranks: frozenset[int] | None = None) -> Refusal | None:
    """Ask with dryRun for every member, or for those of `ranks`; return why not where one may not go now.

    A pod that is gone may go. A question that the server does not answer counts as a no: nobody is stopped on a guess.
    The refusal names no pod and no budget, because it may be read by whoever wanted the room.

    Raises
    ------
    NotLeader
        We may not write any more.
    """
    steps = [step for step in trip.steps if ranks is None or step.member.rank in ranks]
    answers = await asyncio.gather(*(_ask(client, trip, step) for step in steps))
    noes = [(step, answer) for step, answer in zip(steps, answers, strict=True) if answer is not None]
    if not noes:
        return None
    step, words = noes[0]
    log.info("event=eviction_refused %s refused=%d first=%s words=%r", trip.tag, len(noes), step.pod, str(words))
    if all(isinstance(answer, ApiError) and answer.status == 429 for _, answer in noes):
        detail = f"{len(noes)} of its {len(steps)} pods may not be evicted now"
    else:
        detail = f"it is not known of {len(noes)} of its {len(steps)} pods whether they may be evicted"
    return refuse(Reason.BUDGET_REFUSES, detail=detail)


async def _ask(client: KubeClient, trip: Trip, step: Step) -> FairleadError | None:
    """Try one eviction without effect; return what stands against it."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": step.pod, "namespace": trip.sheet.namespace},
        "deleteOptions": {"dryRun": ["All"]},
    }
    path = PODS.path(trip.sheet.namespace, step.pod, "eviction")
    try:
        await client.request("POST", path, body, params={"dryRun": "All"}, deadline_s=_ASK_S, retry=False)
    except NotLeader:
        raise
    except FairleadError as error:
        return None if isinstance(error, ApiError) and error.status == 404 else error
    return None
