"""Writes the node's NodeTopology: only what changed, and a sign of life now and then.

While the server is away the newest state waits here; health events wait in the ward's ring, of which the oldest go.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead.discovery.inventory import SliceDevice
from fairlead.errors import FairleadError, UnreadableInput
from fairlead_operator.agent.manifest import conditions, events_of, spec_of
from fairlead_operator.agent.ward import Ward
from fairlead_operator.custom_objects import NODE_TOPOLOGIES
from fairlead_operator.decode_nodes import slice_devices
from fairlead_operator.device_objects import SLICES
from fairlead_operator.kube_client import MERGE_PATCH, ApiError, KubeClient
from fairlead_operator.objects import NODES

log = logging.getLogger(__name__)
_DEADLINE_S = 8.0
_SLICES_EVERY_MS = 30_000


class Publisher:
    """Keeps one NodeTopology as the ward is. `behind_since_ms` is since when the server does not have our state."""

    def __init__(
        self,
        client: KubeClient,
        node: str,
        *,
        boot_id: str,
        driver: str = "gpu.nvidia.com",
        heartbeat_ms: int = 120_000,
    ) -> None:
        """Prepare; nothing is asked yet."""
        self.behind_since_ms: int | None = None
        self.writes = 0
        self.failures = 0
        self._client = client
        self._node = node
        self._boot_id = boot_id
        self._driver = driver
        self._heartbeat_ms = heartbeat_ms
        self._spec: dict[str, Any] | None = None
        self._status: dict[str, Any] = {}
        self._generation = 0
        self._beat_ms = 0
        self._restored = False
        self._slices_ms = -_SLICES_EVERY_MS
        self._devices: tuple[SliceDevice, ...] | None = None
        self._doubts: tuple[str, ...] = ()

    @property
    def mismatch(self) -> bool:
        """Whether what we found and the driver's ResourceSlices disagree."""
        found = {c.get("type"): c.get("status") for c in self._status.get("conditions") or ()}
        return found.get("Mismatch") == "True"

    async def restore_into(self, ward: Ward, now_ms: int) -> None:
        """Give the ward what an earlier agent published of this node; a server that is away is asked by `publish`."""
        if self._restored:
            return
        try:
            raw = await self._client.request("GET", NODE_TOPOLOGIES.path(name=self._node), deadline_s=_DEADLINE_S)
            found: Mapping[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
            self._known(found)
            ward.restore(found, now_ms)
            self._restored = True
        except ApiError as error:
            self._restored = error.status == 404
            if not self._restored:
                log.warning("event=not_restored error=%r", str(error))
        except FairleadError as error:
            log.warning("event=not_restored error=%r", str(error))

    async def publish(self, ward: Ward, now_ms: int) -> bool:
        """Write what differs from what the server has; False where it could not be told. Never raises."""
        try:
            await self.restore_into(ward, now_ms)
            await self._look_at_slices(ward, now_ms)
            await self._write(ward, now_ms)
        except FairleadError as error:
            self.failures += 1
            if self.behind_since_ms is None:
                self.behind_since_ms = now_ms
                log.warning("event=publish_failed error=%r", str(error))
            return False
        if self.behind_since_ms is not None:
            log.info("event=published_again after_ms=%d", now_ms - self.behind_since_ms)
        self.behind_since_ms = None
        return True

    async def _look_at_slices(self, ward: Ward, now_ms: int) -> None:
        """Read this node's ResourceSlices now and then; not knowing them keeps nothing from being published."""
        if now_ms - self._slices_ms < _SLICES_EVERY_MS:
            return
        try:
            found, _ = await self._client.list_all(SLICES, field_selector=f"spec.nodeName={self._node}")
            mine = [one for one in found if one.spec.node_name == self._node]
            _, self._devices, self._doubts = slice_devices(mine, self._driver)
            self._slices_ms = now_ms
            if ward.machine.gpus or ward.gpus:
                ward.adopt(self._devices)
        except (ApiError, UnreadableInput) as error:
            self._devices = None
            log.warning("event=slices_not_read error=%r", str(error))

    async def _write(self, ward: Ward, now_ms: int) -> None:
        spec = spec_of(ward, boot_id=self._boot_id)
        if self._spec is None:
            await self._first(spec, now_ms)
        elif spec != self._spec:
            body = {"spec": {**spec, "observedAtMs": now_ms}}
            await self._send("PATCH", NODE_TOPOLOGIES.path(name=self._node), body)
            self._spec = spec
        status = self._status_of(ward, now_ms)
        beat = now_ms - self._beat_ms >= self._heartbeat_ms
        if beat or status != self._status:
            path = NODE_TOPOLOGIES.path(name=self._node, sub="status")
            await self._send("PATCH", path, {"status": {**status, "heartbeatMs": now_ms}})
            self._status, self._beat_ms = status, now_ms

    async def _first(self, spec: dict[str, Any], now_ms: int) -> None:
        """Make the object, owned by its Node so that it goes with it; where it is there already, make it ours."""
        node = await self._client.get(NODES, self._node, deadline_s=_DEADLINE_S)
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node.metadata.uid}
        body = {
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "NodeTopology",
            "metadata": {"name": self._node, "ownerReferences": [owner]},
            "spec": {"observedAtMs": now_ms, **{k: v for k, v in spec.items() if v is not None}},
        }
        try:
            await self._send("POST", NODE_TOPOLOGIES.path(), body)
        except ApiError as error:
            if error.status != 409:
                raise
            patch = {"metadata": {"ownerReferences": [owner]}, "spec": {**spec, "observedAtMs": now_ms}}
            await self._send("PATCH", NODE_TOPOLOGIES.path(name=self._node), patch)
        self._spec = spec

    def _status_of(self, ward: Ward, now_ms: int) -> dict[str, Any]:
        made = conditions(
            ward.current(),
            self._devices,
            self._doubts,
            self._status.get("conditions") or (),
            generation=self._generation,
            now_ms=now_ms,
        )
        status = {"observedGeneration": self._generation, "conditions": made, "events": events_of(ward.events)}
        return status if ward.busy.last is None else {**status, "counted": ward.busy.last}

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        try:
            raw = await self._client.request(method, path, body, content_type=kind, deadline_s=_DEADLINE_S)
        except ApiError as error:
            if error.status == 404:
                self._spec, self._status = None, {}  # somebody deleted it; the next round makes it anew
            raise
        self.writes += 1
        self._known(msgspec.json.decode(raw, type=dict[str, Any]))

    def _known(self, found: Mapping[str, Any]) -> None:
        """Keep the server's generation and the conditions' times."""
        self._generation = int((found.get("metadata") or {}).get("generation") or 0)
        if not self._status:
            self._status = {"conditions": (found.get("status") or {}).get("conditions") or []}
