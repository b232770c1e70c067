"""Publishes the ends of the books' chains outside the database: a ConfigMap in the operator's own namespace.

What a chain cannot show by itself is that its tail was cut off or written anew; whoever can change the database should
not be able to change this as well. A head that is behind the published one means books of an earlier day, and another
hash under the published number means that they were written anew: it is said loudly, and the one that was published is
kept beside the new.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.ledger.chain import Head
from fairlead.ledger.published import ENTRIES, JOURNAL, NAME, PERIOD, STEPS, Fields, Published, decimal, from_data
from fairlead.service.metrics import Metrics
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import CONFIG_MAPS
from fairlead_operator.statuses import rfc3339

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Alarm:
    """How it is said that a chain is behind: the event, the metric's kind, and where the old head is kept."""

    event: str
    kind: str
    kept_in: str


_ALARMS = {
    ENTRIES: _Alarm("books_are_behind", "chain-head", "replaced"),
    STEPS: _Alarm("periods_are_behind", "period-head", "periodReplaced"),
    JOURNAL: _Alarm("journal_is_behind", "journal-head", "journalReplaced"),
}


class ChainHead:
    """One ConfigMap with the fields of `Published` and `at`; also what was replaced after books that were behind it."""

    def __init__(self, client: KubeClient, namespace: str, metrics: Metrics) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._namespace = namespace
        self._metrics = metrics
        self._data: dict[str, str] | None = None  # of the ConfigMap, as far as we know

    async def published(self) -> Published | None:
        """Return what stands there, from us or an earlier process; None where that is nothing that can be read.

        Raises as `publish` does.
        """
        there = await self._there()
        try:
            return from_data(there, name=NAME) if there else None
        except UnreadableInput as error:
            log.warning("event=published_head_unreadable error=%r", str(error))
            return None

    async def publish(self, said: Published, now_ms: int, denied: Collection[Fields] = ()) -> None:
        """Write the heads that are known, unless they stand there already; what is not known stays as it was published.

        `denied` are the chains whose published head the books do not have any more.

        Raises
        ------
        FairleadError
            The server does not answer, refuses, or somebody else leads.
        """
        self._metrics.ledger.head_number.set(said.entries.number)
        if said.steps is not None:
            self._metrics.ledger.period_number.set(said.steps.number)
        there, new = await self._there(), said.to_data()
        if new.items() <= there.items() and not denied:
            return
        data = there | new | {"at": rfc3339(now_ms)}
        for fields, head in said.ends.items():
            data |= self._behind(fields, head, there, denied=fields in denied)
        self._data = None  # until the answer is in; one that is lost may have been for a write that was done
        await self._write(data, make=not there)
        self._data = data

    async def _write(self, data: dict[str, str], *, make: bool) -> None:
        """Write it whole: somebody may have taken it away since."""
        if not make:
            try:
                await self._client.patch_merge(CONFIG_MAPS, NAME, {"data": data}, self._namespace)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        made: dict[str, Any] = {"metadata": {"name": NAME, "namespace": self._namespace}, "data": data}
        await self._client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **made}, self._namespace)

    async def _there(self) -> dict[str, str]:
        """Return what we know to stand there; what an earlier process published is asked for once."""
        if self._data is None:
            try:
                self._data = dict((await self._client.get(CONFIG_MAPS, NAME, self._namespace)).data)
            except ApiError as error:
                if error.status != 404:
                    raise
                self._data = {}
        return self._data

    def _behind(self, fields: Fields, head: Head, there: dict[str, str], *, denied: bool) -> dict[str, str]:
        """Compare a head with the published one; return what is to be kept of that."""
        if fields.number not in there:
            return {}
        number, alarm = decimal(there[fields.number]) or 0, _ALARMS[fields]
        if not denied and (number < head.number or (number, there.get(fields.hash)) == (head.number, head.hash)):
            return {}
        self._metrics.drift.labels(kind=alarm.kind).inc()
        log.error(
            "event=%s published=%d books=%d detail=%r", alarm.event, number, head.number,
            "the database is older or another than the one that was published, or was written anew: was it restored?",
        )  # fmt: skip
        words = [str(number), there.get(fields.hash, ""), there.get("at", "")]
        return {alarm.kept_in: " ".join(words + [there.get(PERIOD, "")] * (fields is STEPS)).rstrip()}
