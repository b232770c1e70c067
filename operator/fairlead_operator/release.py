"""Before an uninstall: nothing may stay Terminating, or tainted, for want of an operator.

An operator that still runs would put back what is taken off, so its lease is taken from it first: it notices at its
next renewal, the leader fence at once, and it stands aside while `STAND_ASIDE_S` have not passed.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, TypeVar

from fairlead.clock import now_ms
from fairlead.errors import FairleadError
from fairlead_operator.custom_objects import LEASES
from fairlead_operator.device_objects import CLAIMS
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import NODES, PODS, HasMeta, Resource
from fairlead_operator.pods import BOOKED, GANG_UID
from fairlead_operator.pool_taints import settle_taints
from fairlead_operator.statuses import rfc3339_micro
from fairlead_operator.teardown import STRATEGIC_MERGE

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=HasMeta)

HOLDER = "fairlead-release"
STAND_ASIDE_S = 600
"""For how long no operator leads after this, unless the Lease is deleted, as an uninstall does."""

_ROUNDS = 3
_TRIES = 5


@dataclass(slots=True)
class Released:
    """How many objects and nodes were let go, and how many could not be."""

    objects: int = 0
    nodes: int = 0
    failed: int = 0


async def depose(client: KubeClient, namespace: str, name: str) -> bool:
    """Take the lease, from whoever has it; True where somebody led, who needs a moment to notice.

    Somebody who may not write Leases, or a Lease that is gone, stops nothing: that is said, and the rest goes on.
    """
    for _ in range(_TRIES):
        try:
            lease = await client.get(LEASES, name, namespace)
            now = rfc3339_micro(now_ms())
            spec = {
                "holderIdentity": HOLDER,
                "leaseDurationSeconds": STAND_ASIDE_S,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": (lease.spec.lease_transitions or 0) + 1,
            }
            metadata = {"name": name, "namespace": namespace, "resourceVersion": lease.metadata.resource_version}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await client.replace(LEASES, name, body, namespace)
        except ApiError as error:
            if error.status == 409:
                continue
            if error.status != 404:
                log.warning("event=lease_not_taken lease=%s/%s error=%r", namespace, name, str(error))
            return False
        log.info("event=lease_taken lease=%s/%s from=%s", namespace, name, lease.spec.holder_identity or "nobody")
        return bool(lease.spec.holder_identity)
    log.warning("event=lease_not_taken lease=%s/%s error=%r", namespace, name, "it changes too often")
    return False


async def release_all(client: KubeClient) -> Released:
    """Take the booked finalizer off every pod and claim of ours, and the pools' taints off every node.

    Whatever changes or fails meanwhile is tried again, `_ROUNDS` times in all.
    """
    count = Released()
    for _ in range(_ROUNDS):
        count.failed = 0
        await _release_kind(client, PODS, count)
        await _release_kind(client, CLAIMS, count)
        nodes, _version = await client.list_all(NODES)
        count.nodes += await settle_taints(client, nodes, ())
        if not count.failed:
            break
    return count


async def _release_kind(client: KubeClient, resource: Resource[Item], count: Released) -> None:
    """Let go of all of one kind."""
    items, _version = await client.list_all(resource, label_selector=GANG_UID)
    names = [(i.metadata.namespace, i.metadata.name) for i in items if BOOKED in i.metadata.finalizers]
    done = await asyncio.gather(*(_let_go(client, resource, *name) for name in names))
    count.objects += sum(done)
    count.failed += len(done) - sum(done)


async def _let_go(client: KubeClient, resource: Resource[Any], namespace: str, name: str) -> bool:
    """Take the finalizer off one object; one that is gone is as good."""
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [BOOKED]}}
    try:
        await client.request("PATCH", resource.path(namespace, name), patch, content_type=STRATEGIC_MERGE)
    except FairleadError as error:
        if isinstance(error, ApiError) and error.status == 404:
            return True
        log.warning("event=release_failed kind=%s name=%s/%s error=%r", resource.kind, namespace, name, str(error))
        return False
    return True
