"""Events in the cluster: what `kubectl describe` shows of an object. One that is refused or lost is no loss."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from fairlead.errors import FairleadError
from fairlead_operator.kube_client import KubeClient, NotLeader
from fairlead_operator.pods import API_VERSION
from fairlead_operator.statuses import rfc3339_micro

log = logging.getLogger(__name__)

CLUSTER_NAMESPACE = "default"
"""Where Events of objects lie that are in no namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of an object, and by which token; `mark` tells apart what is told of it at one moment."""

    kind: str
    name: str
    uid: str
    action: str
    reason: str
    note: str
    mark: str
    bad: bool
    namespace: str = ""


async def tell(client: KubeClient, told: Told, now_ms: int) -> None:
    """Write an Event. Raises NotLeader."""
    namespace = told.namespace or CLUSTER_NAMESPACE
    mark = hashlib.sha256(f"{told.mark}/{now_ms}".encode()).hexdigest()[:16]
    regarding = {"apiVersion": API_VERSION, "kind": told.kind, "name": told.name, "uid": told.uid}
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{told.name}.{mark}", "namespace": namespace},
        "eventTime": rfc3339_micro(now_ms),
        "reportingController": "fairlead.dev/operator",
        "reportingInstance": "fairlead-operator",
        "action": told.action,
        "reason": told.reason,
        "type": "Warning" if told.bad else "Normal",
        "note": told.note[:1_000],
        "regarding": regarding | ({"namespace": told.namespace} if told.namespace else {}),
    }
    try:
        await client.request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
    except NotLeader:
        raise
    except FairleadError as error:
        log.info("event=event_lost kind=%s name=%s/%s error=%r", told.kind, namespace, told.name, str(error))
