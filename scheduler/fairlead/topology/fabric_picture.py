"""A fabric as a picture: switches by tier, nodes below their leaf, NVLink domains and racks as boxes around them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.model.fabric import TIERS, Inventory
from fairlead.topology.canvas import MUTED, Canvas, text_width
from fairlead.topology.fabric_paths import FabricPaths

_MOST_GROUPS = 48
_MOST_NODES = 72
_ACROSS = 6
_CELL = 24
_WRAP_AT = 1_400
_COLOURS = {1: ("#e7f3fd", "#1c7ed6"), 2: ("#fff4d6", "#d9a300"), 3: ("#ffe8e0", "#e8590c")}
_GROUPINGS = ("nvl-domain", "rack", "block", "zone")


@dataclass(slots=True)
class _Group:
    """Nodes with one parent switch and one group; the unit that is placed."""

    switch: str
    name: str
    kind: str
    nodes: list[str] = field(default_factory=list[str])
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def height(self) -> float:
        """Header, rows of nodes, and a line for those that are not drawn."""
        rows = -(-min(len(self.nodes), _MOST_NODES) // _ACROSS)
        return 34 + rows * _CELL + (16 if len(self.nodes) > _MOST_NODES else 0)


def draw_fabric(inventory: Inventory) -> str:
    """Return the SVG of what lies between the machines of an inventory."""
    canvas, paths = Canvas(), FabricPaths(inventory.fabric)
    groups = _groups(inventory)
    drawn = groups[:_MOST_GROUPS]
    tiers = sorted({v.tier for v in inventory.fabric.vertices if v.kind == "switch"}, reverse=True)
    width = _spread(drawn, wrap=not tiers)
    top = 78.0
    heights = {tier: top + 74 * at for at, tier in enumerate(tiers)}
    low = top + 74 * len(tiers)
    middles = _middles(inventory, paths, drawn)
    for link in inventory.fabric.links:
        if link.kind == "network" and link.a in middles and link.b in middles:
            a, b = middles[link.a], middles[link.b]
            y1, y2 = heights[_tier(inventory, link.b)] + 28, heights[_tier(inventory, link.a)]
            canvas.elbow(b, y1, a, y2, width=1.8, colour="#8795a1")
    for vertex in inventory.fabric.vertices:
        if vertex.key in middles:
            fill, stroke = _COLOURS.get(vertex.tier, ("#f1f3f5", "#868e96"))
            wide = text_width(vertex.id, 11) + 24
            y = heights[vertex.tier]
            canvas.box(middles[vertex.key] - wide / 2, y, wide, 28, fill=fill, stroke=stroke, r=9, hint=vertex.key)
            canvas.text(middles[vertex.key], y + 18, vertex.id, bold=True)
    for tier in tiers:
        canvas.text(12, heights[tier] - 6, TIERS.get(tier, f"tier {tier}"), colour=MUTED, anchor="start", size=10)
    end = low
    for group in drawn:
        end = max(end, _draw_group(canvas, group, low + group.y, inventory))
        if group.switch in middles:
            y = heights[_tier(inventory, group.switch)] + 28
            canvas.elbow(middles[group.switch], y, group.x + group.width / 2, low, colour="#8795a1", width=1.8)
    if len(groups) > len(drawn):
        canvas.text(24, end + 20, f"and {len(groups) - len(drawn)} more groups", colour=MUTED, anchor="start")
        end += 22
    canvas.text(24, 30, inventory.source.rpartition("/")[2], size=18, bold=True, anchor="start")
    gpus = sum(len(found.machine.gpus) for found in inventory.machines)
    text = f"{len(inventory.machines)} nodes" + (f" · {gpus} GPUs" if gpus else "")
    switches = sum(v.kind == "switch" for v in inventory.fabric.vertices)
    text += f" · {switches} switches" if switches else ""
    canvas.text(24, 48, text, colour=MUTED, anchor="start", size=12)
    return canvas.svg(width, end + 20, f"Fabric of {inventory.source}")


def _spread(groups: list[_Group], *, wrap: bool) -> float:
    """Set x and y of groups side by side, in several rows where nothing hangs above them; return the width."""
    x, y, widest, highest = 24.0, 0.0, 560.0, 0.0
    for group in groups:
        group.width = max(_ACROSS * _CELL + 20, text_width(f"{group.kind} {group.name}", 11) + 20)
        if wrap and x > 24 and x + group.width > _WRAP_AT:
            x, y, highest = 24.0, y + highest + 14, 0.0
        group.x, group.y = x, y
        x += group.width + 14
        widest, highest = max(widest, x + 10), max(highest, group.height)
    return widest


def _tier(inventory: Inventory, key: str) -> int:
    return next((v.tier for v in inventory.fabric.vertices if v.key == key), 0)


def _groups(inventory: Inventory) -> list[_Group]:
    """Return nodes by leaf switch and closest group; those of neither are one group."""
    leaf = {k.a: k.b for k in reversed(inventory.fabric.links) if k.kind == "network" and k.a.startswith("node:")}
    member: dict[str, dict[str, str]] = {}
    for link in inventory.fabric.links:
        if link.kind == "member":
            kind, _, name = link.b.partition(":")
            member.setdefault(link.a, {}).setdefault(kind, name)
    found: dict[tuple[str, str], _Group] = {}
    for machine in inventory.machines:
        key = f"node:{machine.name}"
        kind = next((kind for kind in _GROUPINGS if kind in member.get(key, {})), "")
        name = member.get(key, {}).get(kind, "")
        switch = leaf.get(key, "")
        found.setdefault((switch, name), _Group(switch, name, kind)).nodes.append(machine.name)
    return list(found.values())


def _middles(inventory: Inventory, paths: FabricPaths, drawn: list[_Group]) -> dict[str, float]:
    """Return the middle of every switch above a drawn group: that of the nodes below it."""
    spans: dict[str, list[float]] = {}
    for group in drawn:
        for key in paths.above(f"node:{group.nodes[0]}"):
            if key.startswith("switch:"):
                spans.setdefault(key, []).append(group.x + group.width / 2)
    known = {v.key for v in inventory.fabric.vertices}
    return {key: (min(xs) + max(xs)) / 2 for key, xs in spans.items() if key in known}


def _draw_group(canvas: Canvas, group: _Group, y: float, inventory: Inventory) -> float:
    shown = group.nodes[:_MOST_NODES]
    height = group.height
    nvlink = group.kind == "nvl-domain"
    fill, stroke = ("#e6f7ea", "#2f9e44") if nvlink else ("#f6f8fa", "#aeb9c4")
    canvas.box(group.x, y, group.width, height, fill=fill, stroke=stroke, r=10)
    words = {"nvl-domain": "NVLink", "": "nodes"}.get(group.kind, group.kind)
    canvas.text(group.x + group.width / 2, y + 18, f"{words} {group.name}".strip(), bold=True)
    gpus = {found.name: len(found.machine.gpus) for found in inventory.machines}
    left = group.x + (group.width - _ACROSS * _CELL) / 2
    for at, node in enumerate(shown):
        cx, cy = left + at % _ACROSS * _CELL, y + 26 + at // _ACROSS * _CELL
        count = gpus.get(node, 0)
        canvas.box(cx + 2, cy + 2, _CELL - 4, _CELL - 4, fill="#ffffff", stroke=stroke, r=4,
                   hint=f"{node}: {count} GPUs" if count else node)  # fmt: skip
        text = str(count) if count else node[-2:]
        canvas.text(cx + _CELL / 2, cy + _CELL / 2 + 3, text, size=9, colour=MUTED)
    if len(group.nodes) > len(shown):
        more = f"and {len(group.nodes) - len(shown)} more"
        canvas.text(group.x + group.width / 2, y + height - 6, more, size=10, colour=MUTED)
    return y + height
