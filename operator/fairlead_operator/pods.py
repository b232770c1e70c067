"""A gang's objects as plain manifests: pods, claims, the headless Service, an allocation. Values in, dicts out.

Names carry the attempt number, because on a dead node the old pod stays Terminating while the next attempt runs; host
names do not, because the program looks its peers up by them. A container's own environment always wins over ours.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.model import labels as member_labels
from fairlead.model.checkpoints import Saved
from fairlead.model.gang import Checkpoint, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead_operator.allocations import held_text, placement_status, read_placement
from fairlead_operator.custom_objects import Allocation, GangJob
from fairlead_operator.decode_saving import checkpoint_of, grace_of
from fairlead_operator.saving_pods import give_saving, saving_environment

Manifest = dict[str, Any]

GROUP = "fairlead.dev"
API_VERSION = f"{GROUP}/v1alpha1"
SCHEDULER = "fairlead"
BOOKED = f"{GROUP}/booked"
POOL_TAINT = f"{GROUP}/pool"
GANG, ROLE, INDEX, QUEUE = (f"{GROUP}/{name}" for name in ("gang", "role", "index", "queue"))
GANG_UID, ATTEMPT, RANK = member_labels.GANG_UID, member_labels.ATTEMPT, member_labels.RANK
DELETE_PROTECTION = "resource.kubernetes.io/delete-protection"
TIER, PLACED_AT, DEVICES = (f"{GROUP}/{name}" for name in ("tier", "placed-at-ms", "devices"))

CLAIM_IN_POD = "gpus"  # the name by which a template's container may ask for the devices itself
CLAIM_DEVICES_MAX = 32  # results in one claim; the API server refuses more
NAME_MAX = 63
MASTER_PORT = 29_500  # torchrun's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSheet:
    """What manifests need of a GangJob. `templates` is role -> pod template as submitted; not modified.

    `needs` is role -> what each pod takes of resources above its node, as written; no manifest has a place for it.
    `mig` is role -> MIG profile. `checkpoint` and `grace_ms` are as in `Gang`, `resume` is what was saved.
    """

    uid: str
    namespace: str
    name: str
    queue: str
    templates: Mapping[str, Manifest]
    priority_class: str = ""
    needs: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict[str, Mapping[str, str | int]])
    mig: Mapping[str, str] = field(default_factory=dict[str, str])
    checkpoint: Checkpoint | None = None
    grace_ms: int = 0
    resume: Saved | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a gang: where its members go, how its queue came by them, and since when (UTC ms)."""

    number: int
    placement: Placement
    tier: Tier
    placed_at_ms: int


def sheet_of(job: GangJob) -> JobSheet:
    """Return what manifests need of a GangJob.

    Raises
    ------
    UnreadableInput
        A template is no mapping.
    """
    templates: dict[str, Manifest] = {}
    for role in job.spec.roles:
        template = msgspec.json.decode(role.template)
        if not isinstance(template, dict):
            raise UnreadableInput(f"spec.roles[{role.name}].template: must be a pod template; write metadata and spec")
        templates[role.name] = template
    return JobSheet(
        uid=job.metadata.uid,
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        queue=job.spec.queue,
        templates=templates,
        priority_class=job.spec.priority_class_name,
        needs={role.name: role.needs for role in job.spec.roles if role.needs},
        mig={role.name: role.devices.mig for role in job.spec.roles if role.devices.mig},
        checkpoint=checkpoint_of(job.spec),
        grace_ms=grace_of(job.spec),
    )


def pod_name(gang: str, role: str, index: int, attempt: int) -> str:
    """Return the pod's name; one that is too long ends in a hash of the whole instead.

    >>> pod_name("train", "worker", 3, 1)
    'train-worker-3-1'
    """
    full = f"{gang}-{role}-{index}-{attempt}"
    if len(full) <= NAME_MAX:
        return full
    return f"{full[: NAME_MAX - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def claim_name(pod: str) -> str:
    """Return the name of the claim of a pod."""
    return f"{pod}-gpus"


def host_name(gang: str, role: str, index: int) -> str:
    """Return the stable host name of a member, the same in every attempt."""
    return f"{gang}-{role}-{index}"


def address(sheet: JobSheet, member: Member) -> str:
    """Return the DNS name under which the other members find this one."""
    return f"{host_name(sheet.name, member.role, member.index)}.{sheet.name}.{sheet.namespace}.svc"


def labels(sheet: JobSheet, member: Member, attempt: int) -> dict[str, str]:
    """Return the labels of a member's pod and claim."""
    return {
        GANG: sheet.name[:NAME_MAX],
        GANG_UID: sheet.uid,
        ROLE: member.role,
        INDEX: str(member.index),
        RANK: str(member.rank),
        ATTEMPT: str(attempt),
        QUEUE: sheet.queue,
    }


def selector(uid: str, attempt: int | None = None) -> str:
    """Return the label selector for a gang's objects, of one attempt or of all."""
    return f"{GANG_UID}={uid}" + ("" if attempt is None else f",{ATTEMPT}={attempt}")


def pod_manifest(sheet: JobSheet, member: Member, attempt: Attempt) -> Manifest:
    """Build the pod of one member from its role's template.

    A template's container that lists the claim ``gpus`` under resources.claims gets the devices; where none does, all
    containers get them.
    """
    template = copy.deepcopy(dict(sheet.templates[member.role]))
    meta: Manifest = template.get("metadata") or {}
    spec: Manifest = template.get("spec") or {}
    name = pod_name(sheet.name, member.role, member.index, attempt.number)
    spec["schedulerName"] = SCHEDULER
    spec["hostname"] = host_name(sheet.name, member.role, member.index)
    spec["subdomain"] = sheet.name
    spec.setdefault("restartPolicy", "Never")  # a gang restarts whole, so a member never restarts alone
    if sheet.priority_class:
        spec.setdefault("priorityClassName", sheet.priority_class)
    spec["tolerations"] = [*(spec.get("tolerations") or []), {"key": POOL_TAINT, "operator": "Exists"}]
    if member.devices:
        _give_devices(spec, claim_name(name))
    _give_environment(
        spec, _environment(sheet, member, attempt) | saving_environment(sheet.checkpoint, sheet.resume, sheet.uid)
    )
    give_saving(spec, sheet.checkpoint, sheet.grace_ms)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": sheet.namespace,
            "labels": {**(meta.get("labels") or {}), **labels(sheet, member, attempt.number)},
            "annotations": {**(meta.get("annotations") or {}), **_annotations(member, attempt)},
            "ownerReferences": [_owner(sheet)],
            "finalizers": [*(meta.get("finalizers") or []), BOOKED],
        },
        "spec": spec,
    }


def claim_manifest(sheet: JobSheet, member: Member, attempt: Attempt, device_class: str) -> Manifest:
    """Build the claim of one member; both finalizers are there from the start.

    Without the delete-protection finalizer the controller manager would not empty the claim when its pod is done.
    """
    assert 0 < len(member.devices) <= CLAIM_DEVICES_MAX, member
    name = claim_name(pod_name(sheet.name, member.role, member.index, attempt.number))
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": len(member.devices)}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": name,
            "namespace": sheet.namespace,
            "labels": labels(sheet, member, attempt.number),
            "annotations": _annotations(member, attempt),
            "ownerReferences": [_owner(sheet)],
            "finalizers": [DELETE_PROTECTION, BOOKED],
        },
        "spec": {"devices": {"requests": [{"name": CLAIM_IN_POD, "exactly": exactly}]}},
    }


def claim_status(
    node: NodeName,
    names: Iterable[str],
    pod: str,
    pod_uid: str,
    driver: str,
    device_pool: str,
    class_config: Sequence[Manifest] = (),
) -> Manifest:
    """Build the status that gives a claim its devices and reserves it for its pod, both in one write.

    `names` are those that the driver publishes (`claim_devices`). `class_config` is DeviceClass.spec.config, copied as
    the scheduler of Kubernetes copies it. The node selector keeps exactly the one-term form that the server's node
    association check relies on.
    """
    results = [{"request": CLAIM_IN_POD, "driver": driver, "pool": device_pool, "device": name} for name in names]
    devices: Manifest = {"results": results}
    if class_config:
        devices["config"] = [{"source": "FromClass", "requests": [], **entry} for entry in class_config]
    field = {"key": "metadata.name", "operator": "In", "values": [str(node)]}
    return {
        "allocation": {"devices": devices, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}},
        "reservedFor": [{"resource": "pods", "name": pod, "uid": pod_uid}],
    }


def binding(namespace: str, pod: str, pod_uid: str, node: NodeName) -> Manifest:
    """Build the Binding; the uid in it makes the server refuse a pod of the same name made anew."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace, "uid": pod_uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": str(node)},
    }


def service_manifest(sheet: JobSheet, attempt: int) -> Manifest:
    """Build the headless Service behind the members' host names.

    It selects one attempt only: a pod that stays Terminating on a dead node would else answer for its successor. Not
    ready addresses are published, because members look for each other before any of them is ready.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": sheet.name,
            "namespace": sheet.namespace,
            "labels": {GANG: sheet.name[:NAME_MAX], GANG_UID: sheet.uid},
            "ownerReferences": [_owner(sheet)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {GANG_UID: sheet.uid, ATTEMPT: str(attempt)},
        },
    }


def allocation_status(attempt: Attempt) -> Manifest:
    """Build GangJob.status.allocation: the open segments of the ledger, members in rank order."""
    return {
        "attempt": attempt.number,
        "placedAtMs": attempt.placed_at_ms,
        "left": [],  # a merge patch would else keep who left the attempt before
        **placement_status(attempt.placement),
    }


def read_allocation(allocation: Allocation, tier: Tier = Tier.IN_QUOTA) -> Attempt:
    """Read what `allocation_status` wrote; `tier` is not in it and comes from the pods' annotations.

    Raises
    ------
    UnreadableInput
        Somebody else has edited the status.
    """
    return Attempt(
        number=allocation.attempt,
        placement=read_placement(allocation),
        tier=tier,
        placed_at_ms=allocation.placed_at_ms,
    )


def without(finalizers: Iterable[str], *gone: str) -> list[str]:
    """Return the finalizers that stay."""
    return [name for name in finalizers if name not in gone]


def _owner(sheet: JobSheet) -> Manifest:
    """Point to the GangJob, so that deleting it cleans up; it never waits for that itself."""
    return {
        "apiVersion": API_VERSION,
        "kind": "GangJob",
        "name": sheet.name,
        "uid": sheet.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _annotations(member: Member, attempt: Attempt) -> dict[str, str]:
    """Return what recovery needs where the GangJob and its status are gone."""
    return {
        TIER: attempt.tier.value,
        PLACED_AT: str(attempt.placed_at_ms),
        DEVICES: f"{member.node}={held_text(member, member.cpus)}",
    }


def _environment(sheet: JobSheet, member: Member, attempt: Attempt) -> dict[str, str]:
    """Return a member's variables. RANK, NODE_RANK and WORLD_SIZE count pods, as torchrun's --node-rank does.

    Sizes count the members that were placed, which may be fewer than the job's replicas.
    """
    members = attempt.placement.members
    rank, size = str(member.rank), str(len(members))
    chosen = {"FAIRLEAD_CPUS": member.cpus, "FAIRLEAD_NICS": ",".join(member.nics)}
    return {
        "FAIRLEAD_GANG": sheet.name,
        "FAIRLEAD_ROLE": member.role,
        "FAIRLEAD_ROLE_INDEX": str(member.index),
        "FAIRLEAD_RANK": rank,
        "FAIRLEAD_SIZE": size,
        "FAIRLEAD_GPUS": str(len(member.devices)),
        "FAIRLEAD_ATTEMPT": str(attempt.number),
        "RANK": rank,
        "NODE_RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": address(sheet, members[0]),
        "MASTER_PORT": str(MASTER_PORT),
        **{name: value for name, value in chosen.items() if value},
    }


def _containers(spec: Manifest) -> list[Manifest]:
    """Return init containers and containers, all that may want devices and environment."""
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _give_devices(spec: Manifest, claim: str) -> None:
    """Add the claim to the pod and to the containers that are to see it."""
    spec["resourceClaims"] = [
        *(spec.get("resourceClaims") or []),
        {"name": CLAIM_IN_POD, "resourceClaimName": claim},
    ]

    def asks(container: Manifest) -> bool:
        claims: list[Manifest] = (container.get("resources") or {}).get("claims") or []
        return any(entry.get("name") == CLAIM_IN_POD for entry in claims)

    if any(asks(container) for container in _containers(spec)):
        return
    for container in spec.get("containers") or []:
        resources: Manifest = container.setdefault("resources", {})
        resources["claims"] = [*(resources.get("claims") or []), {"name": CLAIM_IN_POD}]


def _give_environment(spec: Manifest, environment: Mapping[str, str]) -> None:
    """Add the variables that a container does not set itself, before its own so that those may refer to ours."""
    for container in _containers(spec):
        own: list[Manifest] = list(container.get("env") or [])
        names = {str(entry.get("name")) for entry in own}
        ours = [{"name": name, "value": value} for name, value in environment.items() if name not in names]
        container["env"] = [*ours, *own]
