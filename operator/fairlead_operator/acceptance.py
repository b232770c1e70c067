"""Is a GangJob one that can run here? Asked of the API server itself: one pod per role, created with dryRun=All.

The pod that comes back, with everything that defaults, quotas, policies and webhooks made of it, is what is placed. The
answer is kept for a while per namespace and template, so that a thousand jobs from one template ask once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from fairlead.clock import monotonic_ms
from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, Member, Placement, PodShape, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.custom_objects import (
    STORAGE_CLASSES,
    VOLUME_CLAIMS,
    VOLUMES,
    GangJob,
    PersistentVolume,
    RoleSpec,
    StorageClass,
    VolumeClaim,
)
from fairlead_operator.decode import decode_gang, priority_of, spec_refusal, template_refusal
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import PODS, Pod, PriorityClass
from fairlead_operator.pod_shape import pod_shape, unsupported
from fairlead_operator.pod_volumes import VolumeNeeds, claims_of, volume_needs
from fairlead_operator.pods import Attempt, JobSheet, pod_manifest, sheet_of

_KEEP_MS = 120_000  # a policy or a LimitRange that changes is noticed at placement in any case
_KEEP_NO_MS = 5_000  # a quota may be free again soon
_ENTRIES_MAX = 10_000
_NO = frozenset({400, 403, 404, 409, 413, 422})


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer and when it ceases to count, in monotonic ms."""

    answer: Pod | Refusal
    until_ms: int


class Acceptor:
    """Asks about templates and remembers the answers. `priority_classes` are all there are now."""

    def __init__(
        self,
        client: KubeClient,
        priority_classes: Callable[[], Iterable[PriorityClass]],
        mono_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        """Start with nothing known."""
        self._client = client
        self._priority_classes = priority_classes
        self._mono_ms = mono_ms
        self._kept: dict[str, _Kept] = {}

    async def accept(self, job: GangJob) -> Gang | Refusal:
        """Return the gang as it is to be placed, or why it cannot be.

        Raises
        ------
        FairleadError
            The API server did not answer; ask again.
        """
        refusal = spec_refusal(job)
        if refusal is not None:
            return refusal
        priority = priority_of(job, self._priority_classes())
        if isinstance(priority, Refusal):
            return priority
        try:
            sheet = sheet_of(job)
        except (UnreadableInput, msgspec.DecodeError) as error:
            return refuse(Reason.INVALID_SPEC, field="spec.roles", problem=str(error), mend="write a pod template")
        shapes: dict[str, PodShape] = {}
        for role in job.spec.roles:
            pod = await self._dry_run(sheet, role.name, role.devices.claimed, fresh=False)
            shape = pod if isinstance(pod, Refusal) else await self._shape(role, pod)
            if isinstance(shape, Refusal):
                return shape
            shapes[role.name] = shape
        return decode_gang(job, shapes, priority=priority[0], priority_class=priority[1])

    async def recheck(self, job: GangJob) -> Refusal | None:
        """Ask the API server anew for every role; None where it still takes them."""
        sheet = sheet_of(job)
        for role in job.spec.roles:
            pod = await self._dry_run(sheet, role.name, role.devices.claimed, fresh=True)
            if isinstance(pod, Refusal):
                return pod
        return None

    async def _shape(self, role: RoleSpec, pod: Pod) -> PodShape | Refusal:
        """Read from the returned pod what decides where it may run, or which field we cannot honour."""
        refusal = template_refusal(role.name, unsupported(pod, with_devices=role.devices.claimed > 0))
        if refusal is not None:
            return refusal
        needs = await self._volume_needs(pod)
        refusal = template_refusal(role.name, needs.problems)
        return refusal or pod_shape(pod, needs.affinity)

    async def _dry_run(self, sheet: JobSheet, role: str, devices: int, *, fresh: bool) -> Pod | Refusal:
        """Have the server make the pod of one member without keeping it."""
        template = msgspec.json.encode(
            [sheet.namespace, sheet.priority_class, devices, sheet.templates[role]], order="sorted"
        )
        key = hashlib.sha256(template).hexdigest()
        kept = self._kept.get(key)
        now = self._mono_ms()
        if kept is not None and not fresh and now < kept.until_ms:
            return _for_role(kept.answer, role)
        names = tuple(f"gpu-{i}" for i in range(devices))
        member = Member(role=role, index=0, rank=0, node=NodeName(""), devices=names)
        attempt = Attempt(number=0, placement=Placement(members=(member,)), tier=Tier.IN_QUOTA, placed_at_ms=0)
        manifest = pod_manifest(sheet, member, attempt)
        answer: Pod | Refusal
        try:
            answer = await self._client.create(PODS, manifest, sheet.namespace, dry_run=True)
        except ApiError as error:
            if error.status not in _NO:
                raise
            answer = refuse(Reason.TEMPLATE_REFUSED, role=role, problem=error.message[:1_000])
        if len(self._kept) >= _ENTRIES_MAX:
            self._kept = {k: v for k, v in self._kept.items() if v.until_ms > now}
        keep_ms = _KEEP_NO_MS if isinstance(answer, Refusal) else _KEEP_MS
        self._kept[key] = _Kept(answer, now + keep_ms)
        return answer

    async def _volume_needs(self, pod: Pod) -> VolumeNeeds:
        """Read the pod's volume claims, their volumes and their classes, and what follows for its node."""
        claims: dict[str, VolumeClaim] = {}
        volumes: dict[str, PersistentVolume] = {}
        classes: dict[str, StorageClass] = {}
        for name in claims_of(pod):
            claim = await self._read_or_none(name, pod.metadata.namespace)
            if claim is None:
                continue
            claims[name] = claim
            bound, storage = claim.spec.volume_name, claim.spec.storage_class_name
            try:
                if bound and bound not in volumes:
                    volumes[bound] = await self._client.get(VOLUMES, bound)
                if storage and storage not in classes:
                    classes[storage] = await self._client.get(STORAGE_CLASSES, storage)
            except ApiError as error:
                if error.status != 404:
                    raise
        return volume_needs(pod, claims, volumes, classes)

    async def _read_or_none(self, name: str, namespace: str) -> VolumeClaim | None:
        """Read one volume claim; None where there is none."""
        try:
            return await self._client.get(VOLUME_CLAIMS, name, namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return None


def _for_role(answer: Pod | Refusal, role: str) -> Pod | Refusal:
    """Say a kept refusal in the words of another role that has the same template."""
    if isinstance(answer, Refusal):
        return refuse(answer.reason, **{**dict(answer.details), "role": role})
    return answer
