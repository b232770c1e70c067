"""A fleet of nodes, a built-in one or the operator's, as an inventory: levels become groups, cliques NVLink domains."""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.model.fabric import GROUPS, Fabric, FabricLink, FabricVertex, Inventory, NamedMachine
from fairlead.model.hardware import Node


def fleet_inventory(nodes: Iterable[Node], *, source: str) -> Inventory:
    """Return machines by node name. Levels that are no kind of group that is known are failure domains."""
    machines: list[NamedMachine] = []
    vertices: dict[str, FabricVertex] = {}
    links: list[FabricLink] = []
    for node in nodes:
        machines.append(
            NamedMachine(name=str(node.name), machine=node.machine, sources=(("fleet", source),), labels=node.labels)
        )
        groups = [(level if level in GROUPS else "failure-domain", domain) for level, domain in node.levels]
        if node.machine.clique:
            groups.append(("nvl-domain", node.machine.clique))
        for kind, domain in groups:
            vertex = FabricVertex(id=domain, kind=kind, source=source)
            vertices.setdefault(vertex.key, vertex)
            links.append(FabricLink(a=f"node:{node.name}", b=vertex.key, kind="member", source=source))
    fabric = Fabric(vertices=tuple(vertices.values()), links=tuple(links))
    return Inventory(source=source, machines=tuple(machines), fabric=fabric)
