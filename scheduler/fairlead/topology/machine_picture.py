"""A machine as a picture: sockets and NUMA nodes as boxes with PCIe trees in them, NVLink below, paths in a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.model.fabric import NamedMachine
from fairlead.model.hardware import Machine
from fairlead.topology.canvas import (
    CLASS_COLOURS,
    CLASS_WORDS,
    INK,
    MUTED,
    PAPER,
    Canvas,
    class_key,
    text_width,
)
from fairlead.topology.graph import ROOT, device_graph, parent
from fairlead.topology.paths import nvlinks, path_class
from fairlead.units import pace_text

_CARDS = {"gpu": (84, 54), "nic": (66, 40), "drive": (66, 40), "nvswitch": (74, 40)}
_FILLS = {
    "gpu": ("#e6f7ea", "#2f9e44"),
    "nic": ("#e7f3fd", "#1c7ed6"),
    "drive": ("#f1f3f5", "#868e96"),
    "nvswitch": ("#ebfbee", "#66a80f"),
    "switch": ("#fff4d6", "#d9a300"),
    "root": ("#eef1f5", "#9aa7b4"),
}
_CONTAINERS = ("package", "numa")
_GAP, _PAD, _STEP, _PILL, _TOP = 12, 12, 46, 24, 64
_MOST_ALIKE = 6  # NICs or drives beside each other before the rest becomes a count
_GRID_UP_TO = 40  # columns of the grid


@dataclass(slots=True)
class _Box:
    """One vertex with what hangs below it; x and y are set by the layout."""

    id: str
    kind: str
    children: list[_Box] = field(default_factory=list["_Box"])
    width: float = 0
    x: float = 0
    y: float = 0
    more: int = 0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def draw_machine(named: NamedMachine) -> str:
    """Return the SVG of one machine."""
    machine, canvas = named.machine, Canvas()
    root = _boxes(machine)
    labels = _labels(machine)
    _measure(root, labels)
    width = max(root.width, 640.0)
    root.x = 24 + (width - root.width) / 2
    levels = _place(root, _TOP)
    bottom = _TOP + 34 * _depth(root, "package") + 44 * _depth(root, "numa") + _STEP * levels
    tops = bottom + 8
    boxes = list(_walk(root))
    for box in boxes:
        if box.kind in _CARDS:
            box.y = tops
    for box in boxes:
        _container(canvas, box, tops, labels)
    for box in boxes:
        for child in box.children:
            _branch(canvas, box, child, machine)
    for box in boxes:
        _vertex(canvas, box, labels)
    low: float = tops + 54 + 26
    places = {box.id: box for box in boxes}
    low = _nvlink(canvas, machine, places, low, 24, width)
    low = _grid(canvas, machine, low + 22, 24 + width / 2)
    canvas.text(24, 30, named.name, size=18, bold=True, anchor="start")
    canvas.text(24, 48, _subtitle(named), colour=MUTED, anchor="start", size=12)
    return canvas.svg(width + 48, low + 8, f"Topology of {named.name}")


def _subtitle(named: NamedMachine) -> str:
    machine = named.machine
    models = ", ".join(dict.fromkeys(gpu.model for gpu in machine.gpus if gpu.model))
    parts = [f"{len(machine.gpus)} GPUs{f' ({models})' if models else ''}", f"{len(machine.nics)} NICs"]
    parts += [f"{len(machine.numa_nodes)} NUMA nodes"] if machine.numa_nodes else []
    parts += [f"NVLink domain {machine.clique}"] if machine.clique else []
    return " · ".join(parts)


def _boxes(machine: Machine) -> _Box:
    """Return the tree to draw, from the graph; what is alike and many becomes a count."""
    graph = device_graph(machine)
    below: dict[str, list[str]] = {}
    for a, b, facts in graph.edges(data=True):
        if facts["kind"] == "tree":
            below.setdefault(facts["above"], []).append(b if facts["above"] == a else a)
    root = _Box(ROOT, "machine")
    todo = [root]
    rank = {"package": 0, "numa": 1, "root": 2, "switch": 3, "gpu": 4, "nic": 5, "drive": 6, "nvswitch": 7}
    while todo:
        box = todo.pop()
        kinds = [(str(graph.nodes[at]["kind"]), at) for at in below.get(box.id, [])]
        kinds.sort(key=lambda entry: rank.get(entry[0], 9))
        counts: dict[str, int] = {}
        for kind, at in kinds:
            if kind not in rank or (kind == "nvswitch" and machine.gpus):
                continue
            counts[kind] = counts.get(kind, 0) + 1
            if kind in ("nic", "drive") and counts[kind] > _MOST_ALIKE:
                box.children[-1].more += 1
                continue
            box.children.append(_Box(at, kind))
        todo += box.children
    _prune(root, set(below))
    return root


def _prune(box: _Box, parents: set[str]) -> None:
    """Drop roots and switches that hold nothing that is drawn."""
    for child in box.children:
        _prune(child, parents)
    box.children = [c for c in box.children if c.children or c.kind not in ("root", "switch")]


def _labels(machine: Machine) -> dict[str, tuple[str, ...]]:
    """Return the lines written on each vertex."""
    found: dict[str, tuple[str, ...]] = {}
    for gpu in machine.gpus:
        size = f"{gpu.memory_bytes >> 30} GiB" if gpu.memory_bytes else ""
        found[gpu.id] = (gpu.id, gpu.pci.removeprefix("0000:"), size if gpu.healthy else "not healthy")
    for nic in machine.nics:
        found[nic.id] = (nic.id, _rate(nic.bytes_per_s) or nic.pci.removeprefix("0000:"))
    for drive in machine.drives:
        found[drive.id] = (drive.id, drive.pci.removeprefix("0000:"))
    for switch in machine.nvswitches:
        found[switch.id] = (switch.id, switch.pci.removeprefix("0000:"))
    for node in machine.numa_nodes:
        memory = f"{node.memory_bytes >> 30} GiB" if node.memory_bytes else ""
        found[f"numa:{node.id}"] = (f"NUMA {node.id}", _short(node.cpus), memory)
    devices = set(found)
    graph = device_graph(machine)
    for vertex in [str(at) for at in graph.nodes if graph.nodes[at]["kind"] in ("root", "switch")]:
        found[vertex] = (_bridge_name(vertex, devices), _uplink(graph.edges[parent(graph, vertex), vertex, "tree"]))
    for package in machine.packages:
        found[f"package:{package.id}"] = (f"Socket {package.id}", package.model)
    return found


def _bridge_name(vertex: str, devices: set[str]) -> str:
    """Name a root or switch; sources without PCI addresses name it after its first device, which says nothing."""
    kind, _, name = vertex.partition(":")
    last = name.rpartition("/")[2].removeprefix("0000:")
    if kind == "root":
        return "C2C" if name.startswith("c2c") else "host bridge" if name in devices else name.removeprefix("pci")
    if name.rpartition("/")[2] in devices:
        return "PCIe switch"
    return last if last.startswith("switch") or ":" in last else f"switch {last}"


def _uplink(edge: Mapping[str, Any]) -> str:
    if not edge["generation"]:
        return ""
    over = int(edge["oversubscription"])
    ratio = f" · {over / 1_000_000:.1f}:1" if over > 1_000_000 else ""
    return f" · gen {edge['generation']} x{edge['lanes']}{ratio}"


def _rate(bytes_per_s: int) -> str:
    return f"{bytes_per_s * 8 // 1_000_000_000} Gb/s" if bytes_per_s >= 125_000_000 else ""


def _short(cpus: str) -> str:
    parts = cpus.split(",")
    return f"CPU {cpus}" if cpus and len(cpus) < 22 else f"CPU {parts[0]},…" if cpus else ""


def _name(box: _Box, labels: Mapping[str, tuple[str, ...]]) -> str:
    if box.id in labels:
        return labels[box.id][0]
    name = box.id.partition(":")[2]
    if box.kind == "package":
        return f"Socket {name}"
    if box.kind == "numa":
        return f"NUMA {name}"
    return name


def _measure(box: _Box, labels: Mapping[str, tuple[str, ...]]) -> None:
    for child in box.children:
        _measure(child, labels)
    inner = sum(child.width for child in box.children) + _GAP * max(len(box.children) - 1, 0)
    if box.kind in _CARDS:
        lines = labels.get(box.id, (box.id,))
        widest = max(text_width(line, 12 if at == 0 else 10) for at, line in enumerate(lines))
        box.width = max(_CARDS[box.kind][0], widest + 12)
    elif box.kind in _CONTAINERS:
        lines = labels.get(box.id, (_name(box, labels),))
        whole = text_width(" · ".join(lines), 15) if box.kind == "package" else max(map(text_width, lines))
        box.width = max(inner, whole) + 2 * _PAD
    else:
        box.width = max(inner, text_width(_name(box, labels), 10) + 18 if box.kind != "machine" else 0)


def _depth(box: _Box, kind: str) -> int:
    """Return 1 if a kind of container is anywhere below."""
    return int(any(found.kind == kind for found in _walk(box)))


def _walk(box: _Box) -> list[_Box]:
    found = [box]
    for at in found:
        found += at.children
    return found


def _place(box: _Box, y: float, level: int = 0) -> int:
    """Set x of everything and y of all but cards; return how many levels of pills are the most below."""
    box.y = y
    inner = sum(child.width for child in box.children) + _GAP * max(len(box.children) - 1, 0)
    x = box.x + (box.width - inner) / 2
    deepest = level
    for child in box.children:
        child.x = x
        x += child.width + _GAP
        step = {"package": 34, "numa": 44}.get(box.kind, 0 if box.kind == "machine" else _STEP)
        pill = child.kind in ("root", "switch")
        deepest = max(deepest, _place(child, y + step, level + pill))
    return deepest


def _container(canvas: Canvas, box: _Box, tops: float, labels: Mapping[str, tuple[str, ...]]) -> None:
    if box.kind not in _CONTAINERS:
        return
    package = box.kind == "package"
    height = tops + 54 + (20 if package else 10) - box.y
    fill = "#f6f8fa" if package else "#fdfefe"
    canvas.box(box.x, box.y, box.width, height, fill=fill, stroke="#aeb9c4" if package else "#ccd5de", r=10)
    lines = labels.get(box.id, ())
    if package:
        title = " · ".join(line for line in (_name(box, labels), *lines[1:2]) if line)
        canvas.text(box.x + _PAD, box.y + 21, title, size=13, bold=True, anchor="start")
        return
    canvas.text(box.x + _PAD, box.y + 17, _name(box, labels), size=12, bold=True, anchor="start")
    detail = " · ".join(line for line in lines[1:] if line)
    if text_width(detail, 10) > box.width - 2 * _PAD:
        detail = next((line for line in lines[1:] if line), "")
    canvas.text(box.x + _PAD, box.y + 31, detail, size=10, colour=MUTED, anchor="start")


def _branch(canvas: Canvas, box: _Box, child: _Box, machine: Machine) -> None:
    """Draw the line from a pill (or a NUMA node) to what hangs on it; wide links are thick lines."""
    if child.kind in _CONTAINERS or box.kind == "machine":
        return
    c2c = child.kind == "gpu" and any(w.kind == "c2c" and child.id in (w.a, w.b) for w in machine.wires)
    c2c = c2c or (box.kind == "root" and box.id.startswith("root:c2c"))
    start = box.y + (44 if box.kind == "numa" else 34 if box.kind == "package" else _PILL)
    colour = CLASS_COLOURS["C2C"] if c2c else "#8795a1"
    width = 3.5 if c2c else 2.2 if child.kind == "gpu" else 1.5
    if box.kind in _CONTAINERS:
        canvas.line(child.middle, start - 6, child.middle, child.y, colour=colour, width=width)
    else:
        canvas.elbow(box.middle, start, child.middle, child.y, colour=colour, width=width)


def _vertex(canvas: Canvas, box: _Box, labels: Mapping[str, tuple[str, ...]]) -> None:
    if box.kind in ("root", "switch"):
        fill, stroke = _FILLS[box.kind]
        if box.id.startswith("root:c2c"):
            fill, stroke = "#f0ebff", CLASS_COLOURS["C2C"]
        canvas.box(box.x, box.y, box.width, _PILL, fill=fill, stroke=stroke, r=12,
                   hint=f"{box.id}{labels.get(box.id, ('', ''))[1]}")  # fmt: skip
        name, uplink = labels.get(box.id, (_name(box, labels), ""))
        fits = text_width(name + uplink, 10) + 16 <= box.width
        canvas.text(box.middle, box.y + 16, name + uplink if fits else name, size=10)
    elif box.kind in _CARDS:
        fill, stroke = _FILLS[box.kind]
        lines = [line for line in labels.get(box.id, (box.id,)) if line]
        if lines[-1] == "not healthy":
            fill, stroke = "#ffe3e3", "#e03131"
        height = _CARDS[box.kind][1]
        canvas.box(box.x, box.y, box.width, height, fill=fill, stroke=stroke, r=7, hint=" ".join(lines))
        first = box.y + height / 2 - 7 * (len(lines) - 1) + 4
        for at, line in enumerate(lines):
            canvas.text(box.middle, first + 14 * at, line, size=12 if at == 0 else 10, bold=at == 0,
                        colour=INK if at == 0 else MUTED)  # fmt: skip
        if box.more:
            canvas.text(box.middle, box.y + height + 11, f"+ {box.more} more", size=9, colour=MUTED)


def _nvlink(canvas: Canvas, machine: Machine, places: dict[str, _Box], y: float, left: float, width: float) -> float:
    """Draw NVLink: one band where all pairs are alike, else a curve a pair; return where it ends."""
    pairs = [link for link in machine.links if nvlinks(link.path) and link.a in places and link.b in places]
    if not pairs:
        return y
    gpus = [places[gpu.id] for gpu in machine.gpus if gpu.id in places]
    full = len(gpus) * (len(gpus) - 1) // 2
    green = CLASS_COLOURS["NV"]
    if len({link.path for link in pairs}) == 1 and len(pairs) == full:
        for box in gpus:
            canvas.line(box.middle, box.y + 55, box.middle, y + 18, colour=green, width=3.5)
        switches = f"{len(machine.nvswitches)} NVSwitches · " if machine.nvswitches else ""
        domain = f" · reaches all of NVLink domain {machine.clique}" if machine.clique else ""
        text = f"{switches}{pairs[0].path} between all GPUs · {pace_text(pairs[0].bytes_per_s)} each way{domain}"
        first, last = min(b.middle for b in gpus) - 42, max(b.middle for b in gpus) + 42
        half = max(last - first, text_width(text, 13) + 40) / 2
        low, high = max(left, (first + last) / 2 - half), min(left + width, (first + last) / 2 + half)
        canvas.box(low, y + 18, high - low, 30, fill="#d3f9d8", stroke=green, r=9)
        canvas.text((low + high) / 2, y + 38, text, size=12, bold=True, colour="#1b5e20")
        return y + 56
    deepest = 0.0
    most = max(nvlinks(link.path) for link in pairs)
    for link in sorted(pairs, key=lambda link: nvlinks(link.path)):
        a, b = places[link.a], places[link.b]
        depth = 26 + abs(a.middle - b.middle) * 0.16
        deepest = max(deepest, depth)
        strength = nvlinks(link.path)
        colour = green if strength == most else "#8ccf9a"
        canvas.arc(a.middle, b.middle, a.y + 54, depth, colour=colour, width=1.2 + 2.4 * strength / most,
                   hint=f"{link.a}-{link.b} {link.path}")  # fmt: skip
    names = sorted({link.path for link in pairs}, key=nvlinks, reverse=True)
    text = "NVLink: " + ", ".join(f"{name} {'thick' if nvlinks(name) == most else 'thin'}" for name in names)
    end = gpus[0].y + 54 + deepest * 0.76 + 18
    canvas.text(left + width / 2, end, text if len(names) > 1 else f"NVLink: {names[0]}", colour="#1b5e20", size=11)
    return max(y, end)


def _grid(canvas: Canvas, machine: Machine, y: float, middle: float) -> float:
    """Draw the path class of every GPU to every GPU and NIC, and the legend; return where it ends."""
    columns = [gpu.id for gpu in machine.gpus] + [nic.id for nic in machine.nics]
    columns = columns[:_GRID_UP_TO]
    if len(columns) < 2 or not machine.gpus:
        return y
    cell = 40 if len(columns) <= 24 else 28
    head = max(text_width(name, 10) for name in columns)
    turned = head > cell
    x = middle - cell * len(columns) / 2 + 24
    canvas.text(x, y, "Paths between devices", size=12, bold=True, anchor="start")
    y += 12 + (head * 0.75 if turned else 8)
    for at, name in enumerate(columns):
        if turned:
            canvas.text(x + cell * at + cell / 2, y - 4, name, size=10, colour=MUTED, anchor="start", turn=-45)
        else:
            canvas.text(x + cell * at + cell / 2, y - 4, name, size=10, colour=MUTED)
    used: dict[str, None] = {}
    for row, gpu in enumerate(machine.gpus):
        top = y + 22 * row
        canvas.text(x - 6, top + 15, gpu.id, size=10, colour=MUTED, anchor="end")
        for at, name in enumerate(columns):
            path = path_class(machine, gpu.id, name)
            key = class_key(path)
            own = name == gpu.id
            if not own:
                used[key] = None
            canvas.box(x + cell * at + 1, top + 1, cell - 2, 20, r=3, stroke="none",
                       fill="#f1f3f5" if own else CLASS_COLOURS[key], hint=f"{gpu.id} - {name}: {path}")  # fmt: skip
            if not own:
                dark = key in ("PHB", "")
                canvas.text(x + cell * at + cell / 2, top + 15, path or "?", size=10 if cell == 40 else 8,
                            colour=INK if dark else PAPER)  # fmt: skip
    y += 22 * len(machine.gpus) + 24
    keys = [key for key in CLASS_WORDS if key in used]
    wide = sum(34 + text_width(f"{key}  {CLASS_WORDS[key]}") for key in keys)
    canvas.legend(max(24.0, middle - wide / 2), y, keys)
    return y + 14
