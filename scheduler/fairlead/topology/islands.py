"""Islands: devices of one machine that reach each other over fast links, and what a threshold makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.hardware import Link, Machine
from fairlead.topology.paths import effective, theoretical_pace, tree_class


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Two or more GPUs that reach each other over links of at least `bytes_per_s`.

    `name` follows from the path class and the member with the lowest PCI address (or id), so it does not depend on the
    order in which a source lists devices. `complete` says that every pair reaches the threshold directly; `pace` is the
    bytes/s of the slowest pair, which is lower where it is not complete.
    """

    name: str
    path: str
    bytes_per_s: int
    members: tuple[str, ...]
    complete: bool
    pace: int


def islands(machine: Machine, threshold_bytes_per_s: int = 0) -> tuple[Island, ...]:
    """Return islands by `threshold_bytes_per_s`; for 0 those of every pace that some pair has, fastest first.

    A pace that joins nothing more than the one before it adds no island.
    """
    paths = _paths(machine)
    if threshold_bytes_per_s > 0:
        return _at(machine, paths, threshold_bytes_per_s)
    found: list[Island] = []
    seen: set[frozenset[str]] = set()
    for pace in sorted({pace for _, pace in paths.values() if pace}, reverse=True):
        for island in _at(machine, paths, pace):
            if frozenset(island.members) not in seen:
                seen.add(frozenset(island.members))
                found.append(island)
    return tuple(found)


def _paths(machine: Machine) -> dict[tuple[str, str], tuple[str, int]]:
    """Return (path class, bytes/s) of every pair of GPUs, both ways."""
    known: dict[tuple[str, str], Link] = {}
    for link in machine.links:
        known[link.a, link.b] = known[link.b, link.a] = link
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for at, a in enumerate(machine.gpus):
        for b in machine.gpus[at + 1 :]:
            joined = known.get((a.id, b.id))
            path = joined.path if joined is not None else tree_class(a, b)
            pace = effective(joined) if joined is not None else theoretical_pace(path)
            found[a.id, b.id] = found[b.id, a.id] = (path, pace)
    return found


def _at(machine: Machine, paths: dict[tuple[str, str], tuple[str, int]], threshold: int) -> tuple[Island, ...]:
    order = sorted(machine.gpus, key=lambda gpu: (gpu.pci or "~", gpu.index, gpu.id))
    group = {gpu.id: at for at, gpu in enumerate(order)}
    for (a, b), (_, pace) in paths.items():
        if pace >= threshold and group[a] != group[b]:
            low, high = sorted((group[a], group[b]))
            group = {gpu: low if at == high else at for gpu, at in group.items()}
    found: list[Island] = []
    for number in sorted(set(group.values())):
        members = [gpu.id for gpu in machine.gpus if group[gpu.id] == number]
        pairs = [paths[a, b] for i, a in enumerate(members) for b in members[i + 1 :]]
        if not pairs:
            continue
        inside = [pair for pair in pairs if pair[1] >= threshold]
        path = min(inside, key=lambda pair: pair[1])[0]
        found.append(
            Island(
                name=f"{path}@{order[number].id}",
                path=path,
                bytes_per_s=threshold,
                members=tuple(members),
                complete=len(inside) == len(pairs),
                pace=min(pace for _, pace in pairs),
            )
        )
    return tuple(found)
