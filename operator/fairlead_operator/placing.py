"""The way of a gang into the cluster: status first, then pods and claims, then all allocations, bindings last.

Theory of operation. Until the first binding everything can be taken back without a trace, because a pod without a node
runs nowhere and a claim's devices are used by nobody. So whatever can be refused is tried before: creation (quota,
policies, webhooks), volumes, every allocation, and a last look at who else holds the devices. That look waits until
the claim watch has shown our own last allocation; it has then shown all that was written before it, and whoever
allocates a device later finds it taken. Bindings come last and all at once; if one fails, the gang goes whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from fairlead.clock import monotonic_ms
from fairlead.errors import FairleadError, Unreachable, UnreadableInput
from fairlead.model.effects import Phase
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.claim_devices import claim_devices
from fairlead_operator.claim_index import ClaimIndex, Device, devices_of
from fairlead_operator.custom_objects import GANGJOBS
from fairlead_operator.device_objects import CLAIMS, DEVICE_CLASSES, Claim
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import PODS, SERVICES, HasMeta, Meta, Pod, Resource
from fairlead_operator.pods import (
    ATTEMPT,
    GANG_UID,
    Manifest,
    allocation_status,
    binding,
    claim_manifest,
    claim_status,
    pod_manifest,
    service_manifest,
)
from fairlead_operator.trips import Lookup, Step, Trip, all_of
from fairlead_operator.volumes import bind_volumes

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=HasMeta)

_TRIES = 5  # against conflicts with other writers of one claim; each comes with the newest version
_WATCH_S = 5.0
_CLASS_AGE_MS = 60_000


class PlaceTrouble(FairleadError):
    """The attempt cannot go on; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep the reason."""
        super().__init__(refusal.message)
        self.refusal = refusal


def conflict(detail: str) -> PlaceTrouble:
    """Build the trouble of a cluster that is not as we thought."""
    return PlaceTrouble(refuse(Reason.PLACE_CONFLICT, detail=detail))


def cause_of(problem: BaseException) -> Refusal:
    """Say why an attempt failed, in the words of status."""
    if isinstance(problem, PlaceTrouble):
        return problem.refusal
    if isinstance(problem, TimeoutError):
        return refuse(Reason.PLACE_CONFLICT, detail="it took too long")
    text = problem.message if isinstance(problem, ApiError) else str(problem)
    return refuse(Reason.PLACE_CONFLICT, detail=text[:500])


class Placer:
    """Carries attempts into the cluster. `same_shape` compares a created pod with what was placed."""

    def __init__(
        self,
        client: KubeClient,
        lookup: Lookup,
        claims: ClaimIndex,
        same_shape: Callable[[Trip, Step, Pod], bool] = lambda trip, step, pod: True,
    ) -> None:
        """Keep the doors."""
        self._client = client
        self._lookup = lookup
        self._claims = claims
        self._same_shape = same_shape
        self._classes: dict[str, tuple[int, list[Manifest]]] = {}

    async def forward(self, trip: Trip, within_s: float) -> None:
        """Bring the whole gang to its nodes.

        Raises
        ------
        FairleadError
            Something refused or did not answer; whatever was written is still there and must be undone.
        TimeoutError
            The time is over.
        """
        end_ms = monotonic_ms() + int(within_s * 1000)
        async with asyncio.timeout(within_s):
            await self._say_placing(trip)
            await self._ensure_service(trip)
            await self._carry(trip, end_ms)

    async def join(self, trip: Trip, within_s: float) -> None:
        """Bring to their nodes, all of them, members that join a running attempt of which nothing else is touched.

        Raises as `forward` does.
        """
        end_ms = monotonic_ms() + int(within_s * 1000)
        async with asyncio.timeout(within_s):
            await self._carry(trip, end_ms)

    async def _carry(self, trip: Trip, end_ms: int) -> None:
        """Create, allocate, look once more, bind."""
        created = await all_of(self._create(trip, step) for step in trip.steps)
        self._go_on(trip)
        left_s = (end_ms - monotonic_ms()) / 1000
        await all_of(
            bind_volumes(self._client, pod, step.member.node, left_s)
            for step, (pod, _) in zip(trip.steps, created, strict=True)
            if any(volume.persistent_volume_claim for volume in pod.spec.volumes)
        )
        self._go_on(trip)
        pairs = [(s, claim) for s, (_, claim) in zip(trip.steps, created, strict=True) if claim is not None]
        allocated = await all_of(self._allocate(trip, step, claim) for step, claim in pairs)
        await self._last_look(trip, [(s, c) for (s, _), c in zip(pairs, allocated, strict=True)])
        self._go_on(trip)
        await all_of(self._bind(trip, step) for step in trip.steps)

    def _go_on(self, trip: Trip) -> None:
        """Stop here if the attempt is to end, or if a node went away meanwhile."""
        if trip.aborted:
            raise conflict(trip.aborted)
        for step in trip.steps:
            node = self._lookup.node(step.member.node)
            if node is None or not node.ready:
                raise conflict(f"node {step.member.node} is {'gone' if node is None else 'not ready'}")

    async def _say_placing(self, trip: Trip) -> None:
        """Write the open segments before anything can be held."""
        attempt = trip.attempt
        status = {
            "phase": Phase.PLACING.value,
            "attempt": attempt.number,
            "reason": None,
            "message": None,
            "position": None,
            "allocation": allocation_status(attempt),
        }
        sheet = trip.sheet
        await self._client.patch_merge(GANGJOBS, sheet.name, {"status": status}, sheet.namespace, sub="status")

    async def _ensure_service(self, trip: Trip) -> None:
        """See that the members' names resolve to the pods of this attempt."""
        sheet, manifest = trip.sheet, service_manifest(trip.sheet, trip.attempt.number)
        for last in (False, True):
            try:
                await self._post(SERVICES, manifest, sheet.namespace)
                return
            except ApiError as error:
                if error.status != 409:
                    raise
                trouble = error
            try:
                found = await self._client.get(SERVICES, sheet.name, sheet.namespace)
            except ApiError as error:
                if error.status == 404 and not last:
                    continue
                raise
            if found.metadata.labels.get(GANG_UID) == sheet.uid:
                patch = {"spec": {"selector": manifest["spec"]["selector"]}}
                await self._client.patch_merge(SERVICES, sheet.name, patch, sheet.namespace)
                return
            if last or not _is_a_predecessors(found.metadata, sheet.name):
                problem = f"a Service named {sheet.name} is there already and is not this GangJob's; rename one of them"
                raise conflict(problem) from trouble
            # The garbage collector would take it too, but whoever submits a job anew must not wait for that.
            await self._remove(SERVICES, found.metadata)

    async def _remove(self, resource: Resource[Item], meta: Meta) -> None:
        """Delete exactly this object; one that is gone is no loss."""
        try:
            options = {"preconditions": {"uid": meta.uid}}
            await self._client.delete(resource, meta.name, meta.namespace, options=options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _create(self, trip: Trip, step: Step) -> tuple[Pod, Claim | None]:
        """Create a member's claim and pod, or take up what an earlier try of the same attempt left."""
        claim: Claim | None = None
        if step.claim:
            manifest = claim_manifest(trip.sheet, step.member, trip.attempt, self._class_of(step))
            claim = await self._adopt(trip, CLAIMS, manifest)
        try:
            pod = await self._adopt(trip, PODS, pod_manifest(trip.sheet, step.member, trip.attempt))
        except ApiError as error:
            if error.status in (400, 403, 422):
                raise PlaceTrouble(
                    refuse(Reason.TEMPLATE_REFUSED, role=step.member.role, problem=error.message[:500])
                ) from error
            raise
        step.pod_uid = pod.metadata.uid
        if not self._same_shape(trip, step, pod):
            raise conflict(f"the API server now makes another pod of role {step.member.role} than was placed")
        return pod, claim

    async def _adopt(self, trip: Trip, resource: Resource[Item], manifest: Manifest) -> Item:
        """Create an object; one of the same name is ours only with our uid and attempt, and while it is to stay."""
        namespace, name = trip.sheet.namespace, manifest["metadata"]["name"]
        try:
            return await self._post(resource, manifest, namespace)
        except ApiError as error:
            if error.status != 409:
                raise
            found = await self._client.get(resource, name, namespace)
            labels = found.metadata.labels
            ours = labels.get(GANG_UID) == trip.sheet.uid and labels.get(ATTEMPT) == str(trip.attempt.number)
            if not ours or found.metadata.deletion_timestamp:
                raise conflict(f"{resource.kind} {name} is there already and is not this attempt's") from error
            return found

    async def _post(self, resource: Resource[Item], manifest: Manifest, namespace: str) -> Item:
        """Create with retries: a second try of one that was done answers AlreadyExists, which callers expect."""
        raw = await self._client.request("POST", resource.path(namespace), manifest, retry=True)
        try:
            return msgspec.json.decode(raw, type=resource.struct)
        except msgspec.DecodeError as error:
            raise UnreadableInput(f"{resource.kind} from the API server: {error}") from error

    async def _allocate(self, trip: Trip, step: Step, claim: Claim) -> Claim:
        """Give one claim its devices and reserve it, in one write based on the version we have seen."""
        node = self._lookup.node(step.member.node)
        if node is None:
            raise conflict(f"node {step.member.node} is gone")
        config = await self._class_config(self._class_of(step))
        pool = node.device_pool or str(node.name)
        names = claim_devices(node, step.member, trip.sheet.mig.get(step.member.role, ""))
        status = claim_status(node.name, names, step.pod, step.pod_uid, node.driver, pool, config)
        wanted = tuple((node.driver, pool, name) for name in names)
        for _ in range(_TRIES):
            self._free(wanted, claim)
            if claim.metadata.deletion_timestamp:
                raise conflict(f"claim {step.claim} is being deleted")
            if claim.status.allocation is not None:
                if set(devices_of(claim)) == set(wanted) and _reserved(claim, step):
                    return claim
                raise conflict(f"claim {step.claim} was allocated by somebody else")
            meta = claim.metadata
            body = {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {
                    "name": meta.name,
                    "namespace": meta.namespace,
                    "uid": meta.uid,
                    "resourceVersion": meta.resource_version,
                },
                "spec": claim_manifest(trip.sheet, step.member, trip.attempt, self._class_of(step))["spec"],
                "status": status,
            }
            try:
                return await self._client.replace(CLAIMS, meta.name, body, meta.namespace, sub="status")
            except ApiError as error:
                if error.status != 409:
                    raise
                claim = await self._client.get(CLAIMS, meta.name, meta.namespace)
        raise conflict(f"claim {step.claim} changes too often")

    def _free(self, wanted: tuple[Device, ...], claim: Claim) -> None:
        """See that nobody else holds the devices as far as the watch has told."""
        taken = self._claims.held_by_others(wanted, claim.metadata.uid)
        if taken:
            pool = taken[0][1]
            raise conflict(f"{len(taken)} devices of {pool} were allocated by another claim ({taken[0][2]})")

    async def _last_look(self, trip: Trip, allocated: list[tuple[Step, Claim]]) -> None:
        """Wait until the watch has shown our own allocations, then see that no device is in two claims."""
        if not allocated:
            return
        newest = max((claim.metadata.resource_version for _, claim in allocated), key=lambda v: int(v) if v else 0)
        if not await self._claims.caught_up(newest, _WATCH_S):
            raise conflict("the claim watch is behind, so nobody can tell whether the devices are still free")
        for _, claim in allocated:
            self._free(devices_of(claim), claim)

    async def _bind(self, trip: Trip, step: Step) -> None:
        """Bind one pod. No answer, or a conflict, is settled by looking at the pod."""
        step.binding_tried = True
        namespace = trip.sheet.namespace
        body = binding(namespace, step.pod, step.pod_uid, step.member.node)
        path = PODS.path(namespace, step.pod, "binding")
        try:
            await self._client.request("POST", path, body, retry=True)
        except (ApiError, Unreachable) as error:
            if isinstance(error, ApiError) and error.status != 409:
                raise
            pod = await self._client.get(PODS, step.pod, namespace)
            if pod.metadata.uid != step.pod_uid or pod.spec.node_name != step.member.node:
                raise
            log.info("%s pod=%s was bound although the answer said %s", trip.tag, step.pod, error)

    def _class_of(self, step: Step) -> str:
        """Return the device class of the pool that the member's node is in, for what the member holds."""
        node = self._lookup.node(step.member.node)
        pool = self._lookup.pool(node.pool) if node else None
        if step.member.mig_start >= 0:
            return pool.mig_device_class if pool else "mig.nvidia.com"
        return pool.device_class if pool else "gpu.nvidia.com"

    async def _class_config(self, name: str) -> list[Manifest]:
        """Return DeviceClass.spec.config, which every allocation must carry along; read at most once a minute."""
        known = self._classes.get(name)
        if known is not None and monotonic_ms() - known[0] < _CLASS_AGE_MS:
            return known[1]
        try:
            raw = await self._client.request("GET", DEVICE_CLASSES.path(name=name))
            config = list((msgspec.json.decode(raw).get("spec") or {}).get("config") or [])
        except ApiError as error:
            if error.status != 404:
                raise
            config = []
        self._classes[name] = (monotonic_ms(), config)
        return config


def _is_a_predecessors(meta: Meta, name: str) -> bool:
    """Whether an object that is not ours was left by a deleted GangJob of the same name, which is now ours."""
    return any(owner.kind == "GangJob" and owner.name == name for owner in meta.owner_references)


def _reserved(claim: Claim, step: Step) -> bool:
    """Whether the claim is reserved for exactly the member's pod."""
    return [consumer.uid for consumer in claim.status.reserved_for] == [step.pod_uid]
