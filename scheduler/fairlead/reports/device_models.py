"""Device time by model of GPU. The books' sums know pools and no models, and mostly that is enough.

Where all devices ever were of one model, or all that a pool had in a time, the sums by hour and day answer. Of the
other pools the entries are summed, model by model, cut where a device became another model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from fairlead.ledger.accounts import TICKS
from fairlead.ledger.entry import EntryKind
from fairlead.ledger.periods import Line
from fairlead.store import devices
from fairlead.store import engine as database
from fairlead.store.devices import Place

Models = Mapping[tuple[str, str], Sequence[tuple[int, str]]]
"""(node, device) -> (since when, model), in order; the first holds for all time before, too."""


def by_model(
    connection: database.Connection, models: Models, window: tuple[int, int], lines: Iterable[Line]
) -> Iterator[tuple[str, Line]]:
    """Yield the timeline's lines in ticks, each with the model of its devices, "" where they were never seen.

    `lines` are all that was booked in the window, in any unit. Of pools with several models they are left out, and the
    entries' are yielded in their place, by job.
    """
    anywhere = {model for known in models.values() for _, model in known}
    there = devices.places(connection, window) if len(anywhere) > 1 else []
    otherwise = anywhere if len(anywhere) == 1 else {""}
    of_pool: dict[str, set[str]] = {}
    for place in there:
        of_pool.setdefault(place.pool, set()).update(model for *_, model in _times(models, place, window))
    for line in lines:
        known = of_pool.get(line.pool, otherwise)
        if line.unit == TICKS and line.kind == EntryKind.SEGMENT and len(known) == 1:
            yield next(iter(known)), line
    mixed = {pool for pool, known in of_pool.items() if len(known) > 1}
    nodes, single = _apart(models, [place for place in there if place.pool in mixed], window)
    for model in sorted(nodes):
        for line in devices.lines(connection, window, mixed, nodes=nodes[model]):
            yield model, line
    for (begin, end, model), some in sorted(single.items()):
        for line in devices.lines(connection, (begin, end), mixed, single=some):
            yield model, line


def _times(models: Models, place: Place, window: tuple[int, int]) -> list[tuple[int, int, str]]:
    """Divide a window into the (from_ms, to_ms, model) of a device."""
    known = models.get((place.node, place.device), ()) or ((0, ""),)
    changes = [at for at, _ in known[1:]]
    edges = [min(max(at, window[0]), window[1]) for at in (window[0], *changes, window[1])]
    found = [(begin, end, known[at][1]) for at, (begin, end) in enumerate(pairwise(edges)) if begin < end]
    return found if len({model for *_, model in found}) > 1 else [(*window, found[0][2])]


def _apart(
    models: Models, places: Iterable[Place], window: tuple[int, int]
) -> tuple[dict[str, list[str]], dict[tuple[int, int, str], list[tuple[str, str]]]]:
    """Return, by model, the nodes that have only devices of it, and of other nodes the devices by time and model."""
    found: dict[str, set[str]] = {}
    for place in places:
        found.setdefault(place.node, set()).add(place.device)
    nodes: dict[str, list[str]] = {}
    single: dict[tuple[int, int, str], list[tuple[str, str]]] = {}
    for node, here in sorted(found.items()):
        there = [(device, time) for device in sorted(here) for time in _times(models, Place("", node, device), window)]
        if len({model for _, (*_, model) in there}) == 1:
            nodes.setdefault(there[0][1][2], []).append(node)
            continue
        for device, time in there:
            single.setdefault(time, []).append((node, device))
    return nodes, single
