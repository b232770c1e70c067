"""Before an uninstall: nothing may stay Terminating, or tainted, for want of an operator."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, TypeVar

from fairlead.errors import FairleadError
from fairlead_operator.device_objects import CLAIMS
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import NODES, PODS, HasMeta, Resource
from fairlead_operator.pods import BOOKED, GANG_UID
from fairlead_operator.pool_taints import settle_taints
from fairlead_operator.teardown import STRATEGIC_MERGE

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=HasMeta)

_ROUNDS = 3


@dataclass(slots=True)
class Released:
    """How many objects and nodes were let go, and how many could not be."""

    objects: int = 0
    nodes: int = 0
    failed: int = 0


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
