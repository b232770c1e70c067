"""Facts about nodes: what they are, what others take of them, and which of their devices others hold.

Changes only mark a node; `flush` joins what is known of each marked node and tells what really differs, so that a
heartbeat costs nothing and a first list tells every node once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fairlead.errors import UnreadableInput
from fairlead.model.events import DevicesCounted, Event, ForeignDevices, NodeGone, NodeSeen, NodeUsed
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.model.tenancy import Pool
from fairlead_operator.claim_index import Device
from fairlead_operator.decode_nodes import (
    LevelLabels,
    decode_node,
    is_out_of_service,
    readable_node,
    silent_since_ms,
)
from fairlead_operator.device_objects import Slice
from fairlead_operator.objects import NodeObject
from fairlead_operator.topology_objects import CountedStatus, NodeTopology

HostPort = tuple[str, str, int]
_CLOCK_S = 30.0  # how often it is looked which agents have gone silent


@dataclass(frozen=True, slots=True)
class Taken:
    """What one pod that is not ours takes of its node."""

    node: str
    requests: Resources
    ports: tuple[HostPort, ...]


@dataclass(slots=True)
class _Usage:
    """What such pods take of one node together."""

    requests: Resources = field(default_factory=Resources)
    ports: Counter[HostPort] = field(default_factory=Counter)


class NodeFacts:
    """Joins nodes and tells of them through `put`. `defer` runs `flush` soon; without it the owner calls `flush`."""

    def __init__(
        self,
        put: Callable[[Event], None],
        level_labels: LevelLabels,
        now_ms: Callable[[], int],
        defer: Callable[[Callable[[], None]], object],
    ) -> None:
        """Start with nothing known."""
        self.nodes: dict[NodeName, Node] = {}
        self._put = put
        self._level_labels = level_labels
        self._now_ms = now_ms
        self._defer = defer
        self._objects: dict[str, NodeObject] = {}
        self._topologies: dict[str, NodeTopology] = {}
        self._slices: dict[str, dict[str, Slice]] = {}
        self._homes: dict[tuple[str, str], str] = {}
        self._pools: Mapping[str, Pool] = {}
        self._pods: dict[str, Taken] = {}
        self._usage: dict[str, _Usage] = {}
        self._claims: dict[str, tuple[Device, ...]] = {}
        self._foreign: dict[tuple[str, str], Counter[str]] = {}
        self._told_used: dict[str, NodeUsed] = {}
        self._told_foreign: dict[str, tuple[str, ...]] = {}
        self._marked: dict[str, None] = {}
        self._silent: set[str] = set()
        self._counted: dict[str, CountedStatus] = {}

    def node(self, found: NodeObject | None, name: str) -> None:
        """A Node object is like this now, or gone."""
        if found is None:
            self._objects.pop(name, None)
        else:
            self._objects[name] = found
        self._mark(name)

    def topology(self, found: NodeTopology | None, name: str) -> None:
        """A NodeTopology is like this now, or gone; a sign of life alone tells nothing new."""
        old = self._topologies.pop(name, None)
        if found is not None:
            self._topologies[name] = found
            if found.status.counted is not None and (old is None or old.status.counted != found.status.counted):
                self._counted[name] = found.status.counted
                self._mark(name)
        if old is None or found is None or old.spec != found.spec or self._silence_differs(name):
            self._mark(name)

    def slice(self, found: Slice, *, gone: bool) -> None:
        """A ResourceSlice is like this now, or gone; those of no one node are not ours to use."""
        name = found.spec.node_name
        if not name:
            return
        slices = self._slices.setdefault(name, {})
        if gone:
            slices.pop(found.metadata.uid, None)
        else:
            slices[found.metadata.uid] = found
            self._homes[(found.spec.driver, found.spec.pool.name)] = name
        self._mark(name)

    def pools(self, pools: Mapping[str, Pool]) -> None:
        """The pools are these now."""
        self._pools = dict(pools)
        for name in self._objects:
            self._mark(name)

    def pod(self, uid: str, taken: Taken | None) -> None:
        """A pod that is not ours takes this now; None where it takes nothing any more."""
        old = self._pods.pop(uid, None)
        if taken is not None:
            self._pods[uid] = taken
        if old == taken:
            return
        for one, times in ((old, -1), (taken, 1)):
            if one is None:
                continue
            usage = self._usage.setdefault(one.node, _Usage())
            usage.requests = usage.requests.plus(one.requests, times)
            for port in one.ports:
                usage.ports[port] += times
            self._mark(one.node)

    def claim(self, uid: str, devices: tuple[Device, ...]) -> None:
        """A claim that is not ours holds these devices now."""
        old = self._claims.pop(uid, ())
        if devices:
            self._claims[uid] = devices
        if old == devices:
            return
        for held, times in ((old, -1), (devices, 1)):
            for driver, pool, device in held:
                self._foreign.setdefault((driver, pool), Counter())[device] += times
                self._mark(self._homes.get((driver, pool), pool))

    async def run(self) -> None:
        """Look at the clock now and then."""
        while True:
            await asyncio.sleep(_CLOCK_S)
            self.tick()

    def tick(self) -> None:
        """Mark the nodes whose agent has gone silent; each is told once, and once more when it speaks again."""
        for name in self._topologies:
            if self._silence_differs(name):
                self._mark(name)

    def flush(self) -> None:
        """Tell what has changed of every marked node."""
        marked, self._marked = self._marked, {}
        for name in marked:
            if silent_since_ms(self._topologies.get(name), self._now_ms()) is None:
                self._silent.discard(name)
            else:
                self._silent.add(name)
            found = self._objects.get(name)
            if found is None or is_out_of_service(found):
                self._gone(name)
            else:
                self._seen(found)

    def _silence_differs(self, name: str) -> bool:
        return (silent_since_ms(self._topologies.get(name), self._now_ms()) is not None) != (name in self._silent)

    def _mark(self, name: str) -> None:
        """Look at a node again soon."""
        if not self._marked:
            self._defer(self.flush)
        self._marked[name] = None

    def _seen(self, found: NodeObject) -> None:
        """Join a node and tell it if it differs, and what others take of it likewise."""
        name = NodeName(found.metadata.name)
        now = self._now_ms()
        try:
            node = decode_node(
                found,
                topology=self._topologies.get(name),
                slices=self._slices.get(name, {}).values(),
                pools=self._pools.values(),
                level_labels=self._level_labels,
                now_ms=now,
            )
        except UnreadableInput as error:
            node = readable_node(found, error)
        if self.nodes.get(name) != node:
            self.nodes[name] = node
            self._put(NodeSeen(node=node, at_ms=now))
        self._tell_counted(node)
        usage = self._usage.get(name, _Usage())
        ports = tuple(sorted(port for port, count in usage.ports.items() if count > 0))
        used = NodeUsed(name=name, taken=usage.requests, at_ms=0, host_ports=ports)
        if self._told_used.get(name, NodeUsed(name=name, taken=Resources(), at_ms=0)) != used:
            self._told_used[name] = used
            self._put(NodeUsed(name=name, taken=usage.requests, at_ms=now, host_ports=ports))
        counts = self._foreign.get((node.driver, node.device_pool), Counter())
        devices = tuple(sorted(device for device, count in counts.items() if count > 0))
        if self._told_foreign.get(name, ()) != devices:
            self._told_foreign[name] = devices
            self._put(ForeignDevices(name=name, devices=devices, at_ms=now))

    def _tell_counted(self, node: Node) -> None:
        """Tell how busy the node's GPUs were, once a window; what lies in the future is nobody's to count."""
        counted = self._counted.pop(node.name, None)
        if counted is None or not counted.from_ms < counted.to_ms <= self._now_ms():
            return
        names = {gpu.uuid: gpu.device for gpu in node.machine.gpus if gpu.uuid}
        busy = tuple(sorted((names[gpu.uuid], gpu.busy) for gpu in counted.gpus if gpu.uuid in names))
        if busy:
            self._put(DevicesCounted(name=node.name, from_ms=counted.from_ms, busy=busy, at_ms=counted.to_ms))

    def _gone(self, name: str) -> None:
        """Tell that a node is gone; if it comes back, everything about it is told anew."""
        self._told_used.pop(name, None)
        self._told_foreign.pop(name, None)
        if self.nodes.pop(NodeName(name), None) is not None:
            self._put(NodeGone(name=NodeName(name), at_ms=self._now_ms()))
