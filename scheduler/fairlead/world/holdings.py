"""Who holds what: every member's hold on its node, and what queues are charged for it."""

from __future__ import annotations

from collections.abc import Callable

from fairlead.model.hardware import NodeName
from fairlead.world.gangs import Hold, HoldKey
from fairlead.world.past_usage import PastUsage


class Holdings:
    """Holds by key and by node, and thousandths of a GPU charged per queue.

    `freed` hears of each node that a hold has left, `past` of whatever a queue holds more or less.
    """

    def __init__(self, freed: Callable[[NodeName], None], past: PastUsage) -> None:
        """Start with nothing held."""
        self._past = past
        self.by_key: dict[HoldKey, Hold] = {}
        self.on_node: dict[NodeName, dict[HoldKey, Hold]] = {}
        self.queue_gpu_milli: dict[str, int] = {}
        self._freed = freed

    def add(self, key: HoldKey, hold: Hold, *, charged: bool) -> None:
        """Take up a hold; one that is not `charged` is of an attempt that is over for its queue."""
        self.by_key[key] = hold
        self.on_node.setdefault(hold.node, {})[key] = hold
        if charged:
            self.queue_gpu_milli[hold.queue] = self.queue_gpu_milli.get(hold.queue, 0) + hold.use.gpu_milli
            self._past.change(hold.queue, hold.use.gpu_milli, hold.since_ms)

    def drop(self, key: HoldKey) -> None:
        """Let go of a hold; one that is not there is no matter."""
        hold = self.by_key.pop(key, None)
        if hold is None:
            return
        on_node = self.on_node[hold.node]
        del on_node[key]
        if not on_node:
            del self.on_node[hold.node]
        self._freed(hold.node)

    def uncharge(self, key: HoldKey, at_ms: int) -> None:
        """Stop charging for a hold that stays: to the queue that the gang had then, whatever it names now."""
        hold = self.by_key[key]
        left = self.queue_gpu_milli.get(hold.queue, 0) - hold.use.gpu_milli
        assert left >= 0, (key, hold, left)
        self.queue_gpu_milli[hold.queue] = left
        self._past.change(hold.queue, -hold.use.gpu_milli, at_ms)
