"""What rules keep free over time, and for whom: one track a rule.

What was kept when an engine ended is kept by nobody from the beginning of the next one on, until that says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.ledger import tracks
from fairlead.model.events import KeptFree
from fairlead.model.hardware import NodeName

Point = tuple[int, int, str, dict[NodeName, frozenset[str]]]
"""(at_ms, sequence, queue, node -> devices)."""


@dataclass(slots=True)
class Keeper:
    """One rule; `begins` are the beginnings of engines, (at_ms, sequence), the same list for all rules."""

    name: str
    begins: list[tuple[int, int]]
    points: list[Point] = field(default_factory=list[Point])

    def at(self, at_ms: int, node: NodeName) -> tuple[str, frozenset[str]] | None:
        """Return (queue, devices) of what it keeps on a node at a moment, None where that is nothing."""
        point, begun = tracks.last(self.points, at_ms), tracks.last(self.begins, at_ms)
        if point is None or node not in point[3] or (begun is not None and begun > point[:2]):
            return None
        return point[2], point[3][node]

    def nodes(self) -> list[NodeName]:
        """Return every node that it is known to have kept something on."""
        return sorted({node for point in self.points for node in point[3]})


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedKept:
    """All rules as values: name -> points, and the beginnings of engines."""

    keepers: dict[str, list[Point]]
    begins: list[tuple[int, int]]


class Kept:
    """All rules of one set of books, and which of them concern a node."""

    def __init__(self) -> None:
        """Nothing is kept."""
        self.keepers: dict[str, Keeper] = {}
        self.begins: list[tuple[int, int]] = []
        self._on_node: dict[NodeName, dict[str, Keeper]] = {}

    def saved(self) -> SavedKept:
        """Return what is known."""
        return SavedKept(keepers={name: one.points for name, one in self.keepers.items()}, begins=self.begins)

    def restore(self, saved: SavedKept) -> None:
        """Know what was saved."""
        self.begins = saved.begins
        for name, points in saved.keepers.items():
            keeper = self.keepers[name] = Keeper(name, self.begins, points)
            for node in keeper.nodes():
                self._on_node.setdefault(node, {})[name] = keeper

    def add(self, fact: KeptFree, at_ms: int, sequence: int) -> list[NodeName]:
        """Take what a rule keeps from a moment on; return the nodes that are concerned."""
        keeper = self.keepers.setdefault(fact.keeper, Keeper(fact.keeper, self.begins))
        on_node = {node: frozenset(devices) for node, devices in fact.devices}
        tracks.learn(keeper.points, (at_ms, sequence, fact.queue, on_node))
        for node in on_node:
            self._on_node.setdefault(node, {})[fact.keeper] = keeper
        return keeper.nodes()

    def begin(self, at_ms: int, sequence: int) -> list[NodeName]:
        """Take the beginning of an engine; return the nodes that are concerned."""
        tracks.learn(self.begins, (at_ms, sequence))
        return sorted(self._on_node)

    def edges(self, node: NodeName, after_ms: int) -> Iterator[int]:
        """Yield the moments after one at which what is kept on a node may change."""
        keepers = self._on_node.get(node)
        if keepers:
            yield from (point[0] for keeper in keepers.values() for point in tracks.later(keeper.points, after_ms))
            yield from (at_ms for at_ms, _ in tracks.later(self.begins, after_ms))

    def on(self, node: NodeName, at_ms: int) -> dict[str, tuple[str, str]]:
        """Return device -> (rule, queue) at a moment; of two rules the first by name counts."""
        found: dict[str, tuple[str, str]] = {}
        for name, keeper in sorted(self._on_node.get(node, {}).items()):
            queue, devices = keeper.at(at_ms, node) or ("", frozenset[str]())
            for device in devices:
                found.setdefault(device, (name, queue))
        return found

    def forget(self, before_ms: int) -> None:
        """Drop what no later fact can change any more."""
        tracks.forget(self.begins, before_ms)
        for name, keeper in list(self.keepers.items()):
            tracks.forget(keeper.points, before_ms)
            left = keeper.nodes()
            if not left and keeper.points[-1][0] < before_ms:
                del self.keepers[name]
            for node in [node for node, keepers in self._on_node.items() if name in keepers and node not in left]:
                del self._on_node[node][name]
                if not self._on_node[node]:
                    del self._on_node[node]
