"""Publishes the head of the ledger's chain outside the database: a ConfigMap in the operator's own namespace.

What a chain cannot show by itself is that its tail was cut off or written anew; whoever can change the database should
not be able to change this as well. A head that is behind the published one means books of an earlier day: it is said
loudly, and the one that was published is kept beside the new.
"""

from __future__ import annotations

import logging
from typing import Any

from fairlead.ledger.chain import Head
from fairlead.service.metrics import Metrics
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import CONFIG_MAPS
from fairlead_operator.statuses import rfc3339

log = logging.getLogger(__name__)

NAME = "fairlead-chain-head"


class ChainHead:
    """One ConfigMap with `number`, `hash` and `at`; also `replaced` after books that were behind it."""

    def __init__(self, client: KubeClient, namespace: str, metrics: Metrics) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._namespace = namespace
        self._metrics = metrics
        self._published: Head | None = None

    async def publish(self, head: Head, now_ms: int) -> None:
        """Write a head, unless it is the one that we wrote last.

        Raises
        ------
        FairleadError
            The server does not answer, refuses, or somebody else leads.
        """
        self._metrics.ledger_head_number.set(head.number)
        if head == self._published:
            return
        data = {"number": str(head.number), "hash": head.hash, "at": rfc3339(now_ms)}
        try:
            if self._published is None:
                data |= await self._behind(head)
            await self._client.patch_merge(CONFIG_MAPS, NAME, {"data": data}, self._namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            made: dict[str, Any] = {"metadata": {"name": NAME, "namespace": self._namespace}, "data": data}
            await self._client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **made}, self._namespace)
        self._published = head

    async def _behind(self, head: Head) -> dict[str, str]:
        """Compare the first head of this process with the published one."""
        found = (await self._client.get(CONFIG_MAPS, NAME, self._namespace)).data
        text = found.get("number", "")
        number = int(text) if text.isdecimal() else 0
        if number < head.number or (number, found.get("hash")) == (head.number, head.hash):
            return {}
        self._metrics.drift.labels(kind="chain-head").inc()
        log.error(
            "event=books_are_behind published=%d books=%d detail=%r", number, head.number,
            "the database is older than, or another than, the one whose head was published: was it restored?",
        )  # fmt: skip
        return {"replaced": f"{number} {found.get('hash', '')} {found.get('at', '')}"}
