"""The matrices in hwloc's XML: latencies between NUMA nodes, bandwidths between GPUs and NVSwitches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from fairlead.discovery.machine_tree import Facts, NvLinkPair
from fairlead.discovery.xml_tree import Element

_MOST_OBJECTS = 1_024
_NVLINK1_MBYTES_PER_S = 20_000  # one link; 25,000 from NVLink 2 on, which hwloc counts for all later ones too
_NVLINK_MBYTES_PER_S = 25_000


class _Matrix(NamedTuple):
    name: str
    line: int
    ids: list[str]
    values: list[int]

    def pairs(self) -> Iterator[tuple[str, str, int]]:
        """Yield (row, column, value), the diagonal included."""
        size = len(self.ids)
        for at, value in enumerate(self.values):
            yield self.ids[at // size], self.ids[at % size], value


def _matrices(root: Element, warnings: list[str], *, name: str) -> list[_Matrix]:
    """Return the sound matrices of the versions 2 and 3; the others are warned about."""
    found: list[_Matrix] = []
    for element in root.children:
        if element.tag not in ("distances2", "distances2hetero"):
            continue
        ids = [word for part in element.all("indexes") for word in part.text.split()]
        words = [word for part in element.all("u64values") for word in part.text.split()]
        if not ids or len(ids) > _MOST_OBJECTS or len(set(ids)) != len(ids) or len(words) != len(ids) ** 2:
            warnings.append(
                f"{name}:{element.line}: {element.get('name')}: {len(words)} values for {len(ids)} objects; "
                "the matrix is left out"
            )
        elif not all(re.fullmatch(r"[0-9]{1,15}", word) for word in words):
            warnings.append(f"{name}:{element.line}: {element.get('name')}: a value is no number; it is left out")
        else:
            kind = element.get("type")
            ids = [f"{kind}:{i}" if kind and ":" not in i and element.get("indexing") != "os" else i for i in ids]
            found.append(_Matrix(element.get("name"), element.line, ids, [int(word) for word in words]))
    return found


def read_distances(
    root: Element, nodes: tuple[int, ...], node_of_gp: dict[str, int], warnings: list[str], *, name: str
) -> dict[tuple[int, int], int]:
    """Return the latencies between NUMA nodes by their numbers, as the firmware gives them (10 is local)."""
    for element in root.children:
        if element.tag in ("distances2", "distances2hetero") and _latency(element):
            for matrix in _matrices_of(root, element, warnings, name=name):
                index = {i: _node(i, nodes, node_of_gp) for i in matrix.ids}
                if -1 not in index.values():
                    return {(index[a], index[b]): value for a, b, value in matrix.pairs()}
                warnings.append(f"{name}:{matrix.line}: {matrix.name} names NUMA nodes that are not there")
    return _version_1(root, nodes, warnings, name=name)


def _latency(element: Element) -> bool:
    named = element.get("name")
    return element.get("type") == "NUMANode" and (named == "NUMALatency" or (not named and element.get("kind") == "5"))


def _matrices_of(root: Element, element: Element, warnings: list[str], *, name: str) -> list[_Matrix]:
    return _matrices(Element(root.tag, root.line, {}, [element]), warnings, name=name)


def _node(index: str, nodes: tuple[int, ...], node_of_gp: dict[str, int]) -> int:
    text = index.rpartition(":")[2]
    if ":" in index:
        return node_of_gp.get(text, -1)
    return int(text) if text.isdecimal() and len(text) < 8 and int(text) in nodes else -1


def _version_1(root: Element, nodes: tuple[int, ...], warnings: list[str], *, name: str) -> dict[tuple[int, int], int]:
    """Read latencies of version 1: factors of a base, in logical order, inside the outermost object."""
    todo = [child for child in root.all("object")]
    for machine in todo:
        for element in machine.all("distances"):
            values = [value.get("value") for value in element.all("latency")]
            base = element.get("latency_base")
            number = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?")
            if len(values) != len(nodes) ** 2 or not all(number.fullmatch(text) for text in (*values, base)):
                warnings.append(f"{name}:{element.line}: {len(values)} latencies for {len(nodes)} NUMA nodes; left out")
                continue
            size = len(nodes)
            scaled = [round(float(text) * float(base)) for text in values]
            return {(nodes[at // size], nodes[at % size]): value for at, value in enumerate(scaled)}
    return {}


def read_nvlinks(root: Element, objects: dict[str, str], facts: Facts, *, name: str) -> list[NvLinkPair]:
    """Return the NVLinks between GPUs and NVSwitches. `objects` gives the PCI address that an object is on.

    hwloc has MB/s of all links of a pair together, from which their number follows.
    """
    found: dict[tuple[str, str], int] = {}
    for element in root.children:
        if not element.tag.startswith("distances2") or element.get("name") != "NVLinkBandwidth":
            continue
        for matrix in _matrices_of(root, element, facts.warnings, name=name):
            missing = sorted({i for i in matrix.ids if i not in objects})
            if missing:
                facts.warnings.append(
                    f"{name}:{matrix.line}: NVLinkBandwidth: {missing[0]} is no object on PCI; its row is left out"
                )
            for a, b, value in matrix.pairs():
                ends = sorted((objects.get(a, ""), objects.get(b, "")))
                if ends[0] and ends[0] != ends[1] and value:
                    known = found.setdefault((ends[0], ends[1]), value)
                    if known != value:
                        facts.warnings.append(
                            f"{name}:{matrix.line}: NVLinkBandwidth of {ends[0]} and {ends[1]} is {known} in one "
                            f"direction and {value} in the other; the lower counts"
                        )
                        found[ends[0], ends[1]] = min(known, value)
    if not found:
        return []
    old = all(not value % _NVLINK1_MBYTES_PER_S for value in found.values()) and any(
        value % _NVLINK_MBYTES_PER_S for value in found.values()
    )
    one = _NVLINK1_MBYTES_PER_S if old else _NVLINK_MBYTES_PER_S
    return [NvLinkPair(a, b, max(1, value // one), value * 1_000_000) for (a, b), value in sorted(found.items())]
