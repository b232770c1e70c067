"""Keeps the taint of a pool on its nodes, so that nobody else's pods come to devices that we allocate.

The taint is ours alone: taints of others are kept as they are, and a node that leaves its pool loses it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import msgspec

from fairlead.errors import FairleadError
from fairlead.model.tenancy import Pool
from fairlead_operator.kube_client import ApiError, KubeClient, NotLeader
from fairlead_operator.objects import NODES, NodeObject
from fairlead_operator.pods import POOL_TAINT, Manifest

log = logging.getLogger(__name__)

EFFECT = "NoSchedule"


def pool_of(labels: Mapping[str, str], pools: Iterable[Pool]) -> Pool | None:
    """Return the pool whose selector matches; of several the first by name, as everywhere."""
    for pool in sorted(pools, key=lambda pool: pool.name):
        if pool.node_selector and all(labels.get(key) == value for key, value in pool.node_selector):
            return pool
    return None


def wanted_taints(
    labels: Mapping[str, str], taints: Iterable[Manifest], pools: Iterable[Pool]
) -> list[Manifest] | None:
    """Return all taints a node should have, None where it has them already."""
    pool, taints = pool_of(labels, pools), list(taints)
    wanted = [{"key": POOL_TAINT, "value": pool.name, "effect": EFFECT}] if pool and pool.taint else []
    ours = [{k: t.get(k) for k in ("key", "value", "effect")} for t in taints if t.get("key") == POOL_TAINT]
    if ours == wanted:
        return None
    return [*(taint for taint in taints if taint.get("key") != POOL_TAINT), *wanted]


async def settle_taints(client: KubeClient, nodes: Iterable[NodeObject], pools: Iterable[Pool]) -> int:
    """Bring the taints of all nodes in line; returns how many nodes were changed.

    A node that changes under us, or a server that does not answer, is left for the next call.
    """
    pools, changed = list(pools), 0
    for node in nodes:
        seen = [{"key": t.key, "value": t.value, "effect": t.effect} for t in node.spec.taints]
        if wanted_taints(node.metadata.labels, seen, pools) is None:
            continue
        try:
            changed += await _settle(client, node.metadata.name, pools)
        except NotLeader:
            raise
        except FairleadError as error:
            if not isinstance(error, ApiError) or error.status not in (404, 409):
                log.warning("event=taint_failed node=%s error=%r", node.metadata.name, str(error))
    return changed


async def _settle(client: KubeClient, name: str, pools: list[Pool]) -> bool:
    """Replace one node's taints, read whole so that nothing of anybody else's is lost, by compare-and-swap."""
    whole = msgspec.json.decode(await client.request("GET", NODES.path(name=name)))
    meta, spec = whole["metadata"], whole.get("spec") or {}
    taints = wanted_taints(meta.get("labels") or {}, spec.get("taints") or [], pools)
    if taints is None:
        return False
    body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"taints": taints}}
    await client.patch_merge(NODES, name, body)
    log.info("event=tainted node=%s taints=%d", name, len(taints))
    return True
