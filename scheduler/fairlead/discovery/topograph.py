"""Read topograph's fabric models: which nodes hang on which switches, and which accelerator domain they share.

Both layouts that topograph has had are read: ``switches`` as a mapping with ``blocks``, and lists of named switches
with ``capacity_blocks``. A model knows no rates and no devices; its machines have a name only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fairlead.discovery.documents import Mapping, listing, mapping, text, texts
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Fabric, FabricLink, FabricVertex, Inventory, NamedMachine, Warned

MOST_NODES = 100_000
_MOST_SWITCHES = 20_000
_RANGE = re.compile(r"([^\[\]]*)\[([0-9,\s-]+)\]([^\[\]]*)")
_PART = re.compile(r"([0-9]{1,12})(?:\s*-\s*([0-9]{1,12}))?")
_DOMAIN_KEYS = ("domain", "accelerator", "level-0", "nvlink", "nvl-domain")
_PARTITION_KEYS = ("sub-domain", "level-1")
_GROUP_KEYS = {"zone": "zone", "region": "region", "rack": "rack", "block": "block"}


@dataclass(slots=True)
class _Model:
    name: str
    parents: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    blocks: list[tuple[str, str, list[str], dict[str, str]]] = field(
        default_factory=list[tuple[str, str, list[str], dict[str, str]]]
    )
    switch_of_block: dict[str, str] = field(default_factory=dict[str, str])
    warnings: list[Warned] = field(default_factory=list[Warned])

    def warn(self, where: str, what: str) -> None:
        self.warnings.append(Warned(where=f"{self.name}: {where}", what=what))


def looks_like(document: Mapping) -> bool:
    """Whether a document is a fabric model."""
    return "kind" not in document and "switches" in document and bool({"blocks", "capacity_blocks"} & set(document))


def parse(document: Mapping, *, name: str) -> Inventory:
    """Return the nodes of a model as machines without devices, and its fabric.

    Raises
    ------
    UnreadableInput
        A field has the wrong kind, switches form a circle, or a range of nodes is unreadable.
    """
    model = _Model(name)
    _switches(document.get("switches"), model)
    _blocks(document, model)
    tiers = _tiers(model)
    vertices: dict[str, FabricVertex] = {
        f"switch:{at}": FabricVertex(
            id=at, kind="switch", tier=tiers[at], labels=tuple(sorted(model.labels.get(at, {}).items())), source=name
        )
        for at in tiers
    }
    links = [FabricLink(a=f"switch:{low}", b=f"switch:{high}", source=name) for low, high in model.parents.items()]
    nodes: dict[str, NamedMachine] = {}
    for switch, block, members, labels in model.blocks:
        for node in members:
            if node in nodes:
                model.warn(f"block {block}", f"node {node} is in a block already; it stays there")
                continue
            if len(nodes) >= MOST_NODES:
                raise UnreadableInput(f"{name}: more than {MOST_NODES} nodes")
            nodes[node] = NamedMachine(name=node, sources=(("topograph", name),), labels=tuple(sorted(labels.items())))
            if switch:
                links.append(FabricLink(a=f"node:{node}", b=f"switch:{switch}", source=name))
            for kind, domain in _groups(switch, labels, model):
                key = f"{kind}:{domain}"
                vertices.setdefault(key, FabricVertex(id=domain, kind=kind, source=name))
                links.append(FabricLink(a=f"node:{node}", b=key, kind="member", source=name))
    if not nodes:
        model.warn("blocks", "no node hangs on any switch")
    fabric = Fabric(vertices=tuple(vertices.values()), links=tuple(links))
    return Inventory(source=name, machines=tuple(nodes.values()), fabric=fabric, warnings=tuple(model.warnings))


def expand(pattern: str, *, where: str) -> list[str]:
    """Return the names that a range such as ``node[08-10,12]`` stands for; digits keep their width.

    >>> expand("n[08-10]", where="")
    ['n08', 'n09', 'n10']
    """
    match = _RANGE.fullmatch(pattern)
    if match is None:
        if "[" in pattern or "]" in pattern or not pattern.strip():
            raise UnreadableInput(f"{where}: {pattern!r} is no node and no range such as node[01-18]")
        return [pattern]
    names: list[str] = []
    for part in match[2].split(","):
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise UnreadableInput(f"{where}: {part!r} in {pattern!r} is no number and no range")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or last - first >= MOST_NODES or len(names) > MOST_NODES:
            raise UnreadableInput(f"{where}: range {part!r} in {pattern!r} runs backwards or names too many nodes")
        width = len(found[1])
        names += [f"{match[1]}{number:0{width}d}{match[3]}" for number in range(first, last + 1)]
    return names


def _switches(value: object, model: _Model) -> None:
    where = f"{model.name}: switches"
    if isinstance(value, list):
        found = [mapping(item, f"{where}[{at}]") for at, item in enumerate(listing(value, where))]
        entries = [(text(item.get("name"), f"{where}.name"), item) for item in found]
    else:
        entries = [(key, mapping(item, f"{where}.{key}")) for key, item in mapping(value, where).items()]
    if len(entries) > _MOST_SWITCHES:
        raise UnreadableInput(f"{where}: more than {_MOST_SWITCHES} switches")
    for at, (name, entry) in enumerate(entries):
        here = f"{where}.{name or at}"
        if not name:
            raise UnreadableInput(f"{here}: a switch needs a name")
        model.labels[name] = texts(entry.get("labels") or entry.get("metadata"), f"{here}.labels")
        for below in listing(entry.get("switches"), f"{here}.switches"):
            child = text(below, f"{here}.switches")
            if model.parents.get(child, name) != name:
                model.warn(
                    f"switches.{name}", f"switch {child} hangs on {model.parents[child]} already; it stays there"
                )
            elif child:
                model.parents[child] = name
        for block in listing(entry.get("capacity_blocks"), f"{here}.capacity_blocks"):
            model.switch_of_block.setdefault(text(block, f"{here}.capacity_blocks"), name)


def _blocks(document: Mapping, model: _Model) -> None:
    key = "blocks" if "blocks" in document else "capacity_blocks"
    value, where = document.get(key), f"{model.name}: {key}"
    if isinstance(value, dict):
        entries = [(name, mapping(item, f"{where}.{name}")) for name, item in mapping(value, where).items()]
    else:
        items = [mapping(item, f"{where}[{at}]") for at, item in enumerate(listing(value, where))]
        entries = [(text(item.get("name"), f"{where}.name") or str(at), item) for at, item in enumerate(items)]
    known = set(model.labels) | set(model.parents)
    for name, entry in entries:
        here = f"{where}.{name}"
        switch = text(entry.get("switch"), f"{here}.switch") or model.switch_of_block.get(name, "")
        if switch and switch not in known:
            model.warn(f"{key}.{name}", f"switch {switch} is not among the switches; it is added without a parent")
            model.labels[switch] = {}
            known.add(switch)
        labels = texts(entry.get("labels"), f"{here}.labels") | texts(entry.get("annotations"), f"{here}.annotations")
        labels |= texts(entry.get("attributes"), f"{here}.attributes")
        if text(entry.get("nvlink"), f"{here}.nvlink"):
            labels["nvlink"] = text(entry.get("nvlink"), f"{here}.nvlink")
        if text(entry.get("type"), f"{here}.type"):
            labels["type"] = text(entry.get("type"), f"{here}.type")
        nodes: list[str] = []
        for item in listing(entry.get("nodes"), f"{here}.nodes"):
            nodes += expand(text(item, f"{here}.nodes"), where=f"{here}.nodes")
            if len(nodes) > MOST_NODES:
                raise UnreadableInput(f"{here}.nodes: more than {MOST_NODES} nodes")
        model.blocks.append((switch, name, nodes, labels))


def _groups(switch: str, labels: dict[str, str], model: _Model) -> list[tuple[str, str]]:
    """Return (kind, id) of every group that a block's labels and those of the switches above it name."""
    found: dict[str, str] = {}

    def take(values: dict[str, str]) -> None:
        for key, value in values.items():
            last = key.rsplit("/", 1)[-1]
            kind = (
                "nvl-domain"
                if last in _DOMAIN_KEYS
                else "nvl-partition"
                if last in _PARTITION_KEYS
                else _GROUP_KEYS.get(last, "")
            )
            if kind and value:
                found.setdefault(kind, value)

    take(labels)
    at = switch
    while at:
        take(model.labels.get(at, {}))
        at = model.parents.get(at, "")
    return sorted(found.items())


def _tiers(model: _Model) -> dict[str, int]:
    """Return every switch with its tier, counted from the nodes: one more than the highest tier below it."""
    order = list(dict.fromkeys([*model.labels, *model.parents, *model.parents.values()]))
    below: dict[str, int] = dict.fromkeys(order, 0)
    for parent in model.parents.values():
        below[parent] += 1
    tiers = dict.fromkeys(order, 1)
    ready = [at for at in order if not below[at]]
    done = 0
    while ready:
        at = ready.pop()
        done += 1
        parent = model.parents.get(at, "")
        if parent:
            tiers[parent] = max(tiers[parent], tiers[at] + 1)
            below[parent] -= 1
            if not below[parent]:
                ready.append(parent)
    if done < len(order):
        circle = next(at for at in order if below[at])
        raise UnreadableInput(f"{model.name}: switches.{circle}: the switches above it lead back to it")
    return tiers
