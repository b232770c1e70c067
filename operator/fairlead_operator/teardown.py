"""The way of a gang out of the cluster: undo of what was not bound, stop of what runs, letting go of what is booked.

Theory of operation. A pod that was never bound can be deleted at once, and its claim emptied by us, because nothing can
use the devices. A pod that was bound is deleted with its grace and its claim stays allocated until the pod is done: the
controller manager empties it then, or we do where our own finalizer keeps the pod from going. Whether a pod was bound
is read from the answer to its deletion: after that it can no longer be bound. What the API server does not answer now
is tried again until it is done; a rank counts as released only when its claim is seen empty or gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from fairlead.errors import FairleadError
from fairlead.model.events import Event, MemberReleased
from fairlead.model.gang import GangId
from fairlead_operator.device_objects import CLAIMS, Claim
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.objects import PODS, HasMeta, Pod, Resource
from fairlead_operator.pods import BOOKED, DELETE_PROTECTION, GANG_UID, selector
from fairlead_operator.trips import Step, Trip, all_of

log = logging.getLogger(__name__)

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
DONE = ("Succeeded", "Failed")
_TRIES = 6
_GRACE_BOUND_S = 1  # of a pod that is being undone: the shortest that still waits for the kubelet's word
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 5.0
_LINGER_S, _LINGER_MAX_S = 2.0, 30.0


def gone_by_now(pod: Pod) -> bool:
    """Whether nothing of the pod runs: it has ended, was never bound, or only finalizers keep it."""
    if pod.status.phase in DONE or not pod.spec.node_name:
        return True
    return pod.metadata.deletion_timestamp is not None and pod.metadata.deletion_grace_period_seconds == 0


class Teardown:
    """Takes attempts away. `report` hands in facts that come later than the call that began them."""

    def __init__(
        self, client: KubeClient, report: Callable[[Event], None], now_ms: Callable[[], int], rng: random.Random
    ) -> None:
        """Keep the doors."""
        self._client = client
        self._report = report
        self._now_ms = now_ms
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self.backlog = 0

    async def close(self) -> None:
        """End what still runs in the background; the next leader finds what is left."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def undo(self, trip: Trip, within_s: float) -> tuple[int, ...]:
        """Take back an attempt that could not be bound whole; returns the ranks that hold nothing any more.

        What cannot be done in `within_s` goes on in the background and is reported rank by rank.
        """
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._try(trip, step) for step in trip.steps))
        except TimeoutError:
            log.warning("event=undo_slow %s", trip.tag)
        left = [step for step in trip.steps if not step.released]
        if left:
            self._background(self._undo_rest(trip))
        return tuple(step.member.rank for step in trip.steps if step.released)

    async def _try(self, trip: Trip, step: Step) -> bool:
        """Take one member away; False where the server did not let us, or its pod has to end first."""
        try:
            step.released = step.released or await self._end(trip.sheet.namespace, trip.gang, step)
        except (FairleadError, TimeoutError) as error:
            log.warning("event=undo_failed %s pod=%s error=%r", trip.tag, step.pod, str(error))
            return False
        return True

    async def _undo_rest(self, trip: Trip) -> None:
        """Go on until every member is away, then watch those that were bound to their end."""
        self.backlog += 1
        try:
            wait_s = _FIRST_WAIT_S
            while True:
                left = [step for step in trip.steps if not step.released]
                answers = await asyncio.gather(*(self._try(trip, step) for step in left))
                for step in left:
                    if step.released:
                        self._say_released(trip.gang, trip.attempt.number, step.member.rank)
                if all(answers):
                    break
                await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
                wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
        finally:
            self.backlog -= 1
        await self.linger(trip)

    async def _end(self, namespace: str, gang: GangId, step: Step) -> bool:
        """Delete a member's pod and claim; True once its devices are free."""
        pod = await self._delete_pod(namespace, gang, step)
        free = pod is None or gone_by_now(pod)
        if not step.claim:
            return free
        return await self._delete_claim(namespace, gang, step.claim, empty=free)

    async def _delete_pod(self, namespace: str, gang: GangId, step: Step) -> Pod | None:
        """Ask for a pod's deletion and return it as it is then; None where there is none of ours."""
        found: Pod | None = await self._find(PODS, namespace, step.pod, gang)
        if found is None:
            return None
        if found.metadata.deletion_timestamp is None:
            options: dict[str, Any] = {"preconditions": {"uid": found.metadata.uid}}
            options["gracePeriodSeconds"] = _GRACE_BOUND_S if step.binding_tried or found.spec.node_name else 0
            try:
                raw = await self._client.request("DELETE", PODS.path(namespace, step.pod), options)
            except ApiError as error:
                if error.status != 404:
                    raise
                return None
            found = msgspec.json.decode(raw, type=Pod)
        return found

    async def _delete_claim(self, namespace: str, gang: GangId, name: str, *, empty: bool) -> bool:
        """Ask for a claim's deletion; where nobody uses it, empty it first. True once it holds nothing."""
        claim = await self._find(CLAIMS, namespace, name, gang)
        if claim is None:
            return True
        if claim.metadata.deletion_timestamp is None:
            await self._delete_exactly(CLAIMS, claim)
        if not empty:
            return claim.status.allocation is None
        await self.empty_claim(namespace, name)
        await self._drop_finalizer(CLAIMS, name, namespace, DELETE_PROTECTION)
        return True

    async def empty_claim(self, namespace: str, name: str, pod_uid: str = "") -> None:
        """Take allocation and reservation out of a claim whose pod is done; with `pod_uid`, only if it is that pod's.

        Raises
        ------
        FairleadError
            The server refused, or the claim changed under every try.
        """
        for _ in range(_TRIES):
            claim: Claim | None = await self._find(CLAIMS, namespace, name, None)
            if claim is None or claim.status.allocation is None:
                return
            if pod_uid and any(consumer.uid != pod_uid for consumer in claim.status.reserved_for):
                return
            version = {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version}
            body = {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"name": name, "namespace": namespace, **version},
                "spec": {},
                "status": {},
            }
            try:
                await self._client.replace(CLAIMS, name, body, namespace, sub="status")
                return
            except ApiError as error:
                if error.status == 404:
                    return
                if error.status != 409:
                    raise
        raise ApiError(409, "Conflict", f"claim {namespace}/{name} changes too often to be emptied")

    async def _find(self, resource: Resource[Any], namespace: str, name: str, gang: GangId | None) -> Any:
        """Read an object; None where it is absent or (by its label) not this gang's."""
        try:
            found = await self._client.get(resource, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        if gang is not None and found.metadata.labels.get(GANG_UID) != gang:
            return None
        return found

    async def _delete_exactly(self, resource: Resource[Any], item: HasMeta, grace_s: int | None = None) -> None:
        """Ask for the deletion of this object; one that is gone, or that another of its name has followed, is done."""
        meta = item.metadata
        try:
            options: dict[str, Any] = {"preconditions": {"uid": meta.uid}}
            if grace_s is not None:
                options["gracePeriodSeconds"] = grace_s
            await self._gone_is_fine(self._client.delete(resource, meta.name, meta.namespace, options=options))
        except ApiError as error:
            if error.status != 409:
                raise
            found = await self._find(resource, meta.namespace, meta.name, None)
            if found is not None and found.metadata.uid == meta.uid:
                raise  # a conflict of another kind: it is still there, and must not be taken for done

    async def _gone_is_fine(self, call: Coroutine[Any, Any, object]) -> None:
        """Await a write for which an object that is gone is as good as done."""
        try:
            await call
        except ApiError as error:
            if error.status != 404:
                raise

    async def _drop_finalizer(self, resource: Resource[Any], name: str, namespace: str, finalizer: str) -> None:
        """Take one finalizer off, whatever else is on. The server retries conflicts itself, a few times."""
        patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [finalizer]}}
        path = resource.path(namespace, name)
        await self._gone_is_fine(self._client.request("PATCH", path, patch, content_type=STRATEGIC_MERGE))

    async def let_go(self, namespace: str, pod: str, claim: str) -> None:
        """Take the booked finalizer off a member's objects; a claim, which nobody needs any more, is deleted too."""
        if claim:
            await self._drop_finalizer(CLAIMS, claim, namespace, BOOKED)
            await self._gone_is_fine(self._client.delete(CLAIMS, claim, namespace))
        await self._drop_finalizer(PODS, pod, namespace, BOOKED)

    async def stop(self, trip: Trip, *, keep_ended: bool, ranks: frozenset[int] | None = None) -> tuple[int, ...]:
        """Delete all pods of an attempt with their own grace, and their claims; returns ranks that hold nothing now.

        `keep_ended` leaves pods that have ended, whose logs their owner may want. With `ranks` the others go on.

        Raises
        ------
        FairleadError
            The server refused or did not answer; call again.
        """
        namespace, gang, number = trip.sheet.namespace, trip.gang, trip.attempt.number
        chosen = selector(gang, number)
        pods, _ = await self._client.list_all(PODS, namespace, label_selector=chosen)
        claims, _ = await self._client.list_all(CLAIMS, namespace, label_selector=chosen)
        steps = [step for step in trip.steps if ranks is None or step.member.rank in ranks]
        if ranks is not None:
            pods = [pod for pod in pods if pod.metadata.name in {step.pod for step in steps}]
            claims = [claim for claim in claims if claim.metadata.name in {step.claim for step in steps}]
        by_name = {pod.metadata.name: pod for pod in pods}

        async def end(pod: Pod) -> None:
            if pod.metadata.deletion_timestamp or (keep_ended and pod.status.phase in DONE):
                return
            await self._delete_exactly(PODS, pod)

        async def release(claim: Claim) -> None:
            pod = by_name.get(claim.metadata.name.removesuffix("-gpus"))
            free = pod is None or gone_by_now(pod)
            await self._delete_claim(namespace, gang, claim.metadata.name, empty=free)

        await all_of(end(pod) for pod in pods)
        await all_of(release(claim) for claim in claims)
        self._mark(steps, by_name, {claim.metadata.name: claim for claim in claims})
        if not all(step.released for step in steps):
            self._background(self.linger(trip, steps))
        return tuple(step.member.rank for step in steps if step.released)

    async def end_pods(self, trip: Trip, *, grace_s: int) -> None:
        """Ask for the deletion of all pods of an attempt that have not ended, with that grace; claims stay.

        Raises
        ------
        FairleadError
            The server refused or did not answer; call again.
        """
        chosen = selector(trip.gang, trip.attempt.number)
        pods, _ = await self._client.list_all(PODS, trip.sheet.namespace, label_selector=chosen)

        async def end(pod: Pod) -> None:
            if pod.metadata.deletion_timestamp is None and pod.status.phase not in DONE:
                await self._delete_exactly(PODS, pod, grace_s)

        await all_of(end(pod) for pod in pods)

    def _mark(self, steps: Sequence[Step], pods: dict[str, Pod], claims: dict[str, Claim]) -> list[Step]:
        """Note who holds nothing any more, from lists made before their claims were emptied; returns the news."""
        news: list[Step] = []
        for step in steps:
            pod = pods.get(step.pod)
            over = pod is None or gone_by_now(pod)
            holds = step.claim in claims and claims[step.claim].status.allocation is not None
            if not step.released and (over or (step.claim and not holds)):
                step.released = True
                news.append(step)
        return news

    async def linger(self, trip: Trip, steps: Sequence[Step] | None = None) -> None:
        """Look after an attempt that is ending, or members that leave it, until all their devices are free.

        The controller manager empties a claim when its pod is gone or has a terminal phase. A pod that was removed
        without one is kept by our own finalizer, and its claim with it: that knot is ours to undo.
        """
        wait_s = _LINGER_S
        steps = trip.steps if steps is None else steps
        ours = {step.claim for step in steps}
        while not all(step.released for step in steps):
            await asyncio.sleep(wait_s * self._rng.uniform(0.75, 1.0))
            wait_s = min(_LINGER_MAX_S, wait_s * 1.5)
            try:
                namespace, chosen = trip.sheet.namespace, selector(trip.gang, trip.attempt.number)
                pods, _ = await self._client.list_all(PODS, namespace, label_selector=chosen)
                claims, _ = await self._client.list_all(CLAIMS, namespace, label_selector=chosen)
                by_name = {pod.metadata.name: pod for pod in pods}
                for claim in claims:
                    pod = by_name.get(claim.metadata.name.removesuffix("-gpus"))
                    if claim.metadata.name in ours and (pod is None or gone_by_now(pod)):
                        await self._delete_claim(namespace, trip.gang, claim.metadata.name, empty=True)
            except NotLeader:
                return
            except FairleadError as error:
                log.warning("event=linger_failed %s error=%r", trip.tag, str(error))
                continue
            for step in self._mark(steps, by_name, {claim.metadata.name: claim for claim in claims}):
                self._say_released(trip.gang, trip.attempt.number, step.member.rank)

    def _say_released(self, gang: GangId, attempt: int, rank: int) -> None:
        """Report a member whose devices are free."""
        self._report(MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=self._now_ms()))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the loop and hold on to it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Forget a background task; one that failed is a bug and is said loudly."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("event=background_failed error=%r", error, exc_info=error)
