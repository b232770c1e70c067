"""Objects of ours that we know by their labels only, such as those of a GangJob that is gone."""

from __future__ import annotations

from fairlead.model.gang import GangId
from fairlead_operator.device_objects import CLAIMS
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.objects import PODS
from fairlead_operator.pods import RANK, claim_name, selector
from fairlead_operator.teardown import Teardown


async def let_strangers_go(client: KubeClient, teardown: Teardown, gang: GangId, attempt: int, rank: int) -> None:
    """Let go of objects that we know by their labels only, such as those of a GangJob that is gone."""
    chosen = f"{selector(gang, attempt)},{RANK}={rank}"
    pods, _ = await client.list_all(PODS, label_selector=chosen)
    claims, _ = await client.list_all(CLAIMS, label_selector=chosen)
    names = {claim.metadata.name for claim in claims}
    for pod in pods:
        own = claim_name(pod.metadata.name)
        await teardown.let_go(pod.metadata.namespace, pod.metadata.name, own if own in names else "")
        names.discard(own)
    for claim in claims:
        if claim.metadata.name in names:
            await teardown.let_go(
                claim.metadata.namespace, claim.metadata.name.removesuffix("-gpus"), claim.metadata.name
            )
