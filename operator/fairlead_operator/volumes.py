"""Volumes that wait for their first consumer: told which node it will be on, and bound before the pod is."""

from __future__ import annotations

import asyncio

from fairlead.clock import monotonic_ms
from fairlead.errors import FairleadError
from fairlead.model.hardware import NodeName
from fairlead_operator.custom_objects import STORAGE_CLASSES, VOLUME_CLAIMS, VolumeClaim
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.objects import Pod

SELECTED_NODE = "volume.kubernetes.io/selected-node"
_POLL_S = 0.25


class VolumeTrouble(FairleadError):
    """A volume that the pod needs cannot be had on its node, or not in time."""


async def bind_volumes(client: KubeClient, pod: Pod, node: NodeName, within_s: float) -> None:
    """See that every volume claim of the pod is bound, choosing `node` for those that wait for a consumer.

    Raises
    ------
    VolumeTrouble
        A claim is missing, waits for something else, is refused by its provisioner or is not bound in time.
    """
    end_ms = monotonic_ms() + int(within_s * 1000)
    names = [v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim]
    waiting: list[str] = []
    for name in sorted(set(names)):
        claim = await client.get(VOLUME_CLAIMS, name, pod.metadata.namespace)
        if claim.status.phase == "Bound":
            continue
        await _select(client, claim, node)
        waiting.append(name)
    while waiting:
        if monotonic_ms() >= end_ms:
            raise VolumeTrouble(f"volume claim {waiting[0]} is not bound after {within_s:.0f} s")
        await asyncio.sleep(_POLL_S)
        still: list[str] = []
        for name in waiting:
            claim = await client.get(VOLUME_CLAIMS, name, pod.metadata.namespace)
            if claim.status.phase == "Bound":
                continue
            if claim.metadata.annotations.get(SELECTED_NODE) != node:  # a provisioner takes it off to say no
                raise VolumeTrouble(f"volume claim {name} cannot be provisioned for node {node}")
            still.append(name)
        waiting = still


async def _select(client: KubeClient, claim: VolumeClaim, node: NodeName) -> None:
    """Write the chosen node on a claim whose class waits for a consumer."""
    name, namespace = claim.metadata.name, claim.metadata.namespace
    storage = claim.spec.storage_class_name
    mode = (await client.get(STORAGE_CLASSES, storage)).volume_binding_mode if storage else "Immediate"
    if mode != "WaitForFirstConsumer":
        raise VolumeTrouble(f"volume claim {name} is {claim.status.phase or 'Pending'} and waits for no consumer")
    patch = {"metadata": {"annotations": {SELECTED_NODE: str(node)}}}
    await client.patch_merge(VOLUME_CLAIMS, name, patch, namespace)
