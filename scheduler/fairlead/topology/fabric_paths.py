"""Ways through the fabric: which switches lie between two nodes, and which groups a node is in."""

from __future__ import annotations

from fairlead.model.fabric import GROUPS, Fabric, FabricLink


class FabricPaths:
    """The fabric by vertex. Keys are those of `FabricVertex` and ``node:name``."""

    def __init__(self, fabric: Fabric) -> None:
        """Index the links of `fabric`."""
        self.fabric = fabric
        self._up: dict[str, list[FabricLink]] = {}
        self._down: dict[str, list[str]] = {}
        for link in fabric.links:
            self._up.setdefault(link.a, []).append(link)
            self._down.setdefault(link.b, []).append(link.a)

    def above(self, key: str) -> tuple[str, ...]:
        """Return every switch and group that a node or vertex is below or in: groups, then switches by distance."""
        groups: list[str] = []
        switches: list[str] = []
        todo, seen = [key], {key}
        while todo:
            at = todo.pop(0)
            for link in self._up.get(at, ()):
                if link.b not in seen:
                    seen.add(link.b)
                    todo.append(link.b)
                    (groups if link.kind == "member" else switches).append(link.b)
        order = {kind: at for at, kind in enumerate(GROUPS)}
        groups.sort(key=lambda found: (order.get(found.partition(":")[0], len(order)), found))
        return (*groups, *switches)

    def nodes_below(self, key: str) -> tuple[str, ...]:
        """Return the names of all nodes below a switch or in a group, in the fabric's order."""
        found: dict[str, None] = {}
        todo, seen = [key], {key}
        while todo:
            at = todo.pop()
            for below in self._down.get(at, ()):
                if below.startswith("node:"):
                    found[below.partition(":")[2]] = None
                elif below not in seen:
                    seen.add(below)
                    todo.append(below)
        return tuple(found)

    def common_group(self, one: str, other: str, kind: str) -> str:
        """Return the key of the group of `kind` that two nodes share, "" for none."""
        mine = {link.b for link in self._up.get(f"node:{one}", ()) if link.b.startswith(f"{kind}:")}
        return next((link.b for link in self._up.get(f"node:{other}", ()) if link.b in mine), "")

    def route(self, one: str, other: str) -> tuple[tuple[str, int], ...]:
        """Return (switch, bytes/s of the slower link that leads to it) from one node to another; () without a way."""
        mine, yours = self._climb(f"node:{one}"), self._climb(f"node:{other}")
        meeting = next((key for key in mine if key in yours), "")
        if not meeting:
            return ()
        way = [*self._back(mine, meeting), *reversed(self._back(yours, meeting)[:-1])]
        top = [min((rate for rate in (mine[meeting][1], yours[meeting][1]) if rate), default=0)]
        rates = {key: mine[key][1] if key in mine else yours[key][1] for key in way} | {meeting: top[0]}
        return tuple((key, rates[key]) for key in way)

    def cut_off(self, key: str) -> tuple[str, ...]:
        """Return the nodes that have no way to any other node once a switch is gone."""
        gone = set(self.nodes_below(key))
        left: list[str] = []
        for node in self.nodes_below(key):
            others = [link.b for link in self._up.get(f"node:{node}", ()) if link.kind == "network" and link.b != key]
            reach = {n for switch in others for n in self.nodes_below(switch)} - {node}
            if not reach:
                left.append(node)
        return tuple(node for node in left if node in gone)

    def _climb(self, start: str) -> dict[str, tuple[str, int]]:
        """Return switch -> (where it was reached from, rate of that link), nearest first."""
        found: dict[str, tuple[str, int]] = {}
        todo = [start]
        while todo:
            at = todo.pop(0)
            for link in self._up.get(at, ()):
                if link.kind == "network" and link.b not in found:
                    measured = link.measured.bytes_per_s if link.measured is not None else 0
                    found[link.b] = (at, min(measured, link.bytes_per_s) if measured else link.bytes_per_s)
                    todo.append(link.b)
        return found

    @staticmethod
    def _back(climbed: dict[str, tuple[str, int]], top: str) -> list[str]:
        way: list[str] = []
        while top in climbed:
            way.append(top)
            top = climbed[top][0]
        return way[::-1]
