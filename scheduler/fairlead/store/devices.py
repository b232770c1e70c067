"""Which devices the timeline of a time is of, and sums over some of them: what the sums by hour do not know."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.ledger.entry import TIMELINE
from fairlead.ledger.periods import Line
from fairlead.store import periods
from fairlead.store.tables import entry

_NODES, _DEVICES = 2_000, 200  # a statement has room for so many names


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A device in a pool."""

    pool: str
    node: str
    device: str


def places(connection: sa.Connection, window: tuple[int, int]) -> list[Place]:
    """Return every device that the timeline has in [from_ms, to_ms), sorted. Reads the entries of that time once."""
    query = sa.select(entry.c.pool, entry.c.node, entry.c.device).where(
        entry.c.kind.in_(TIMELINE), entry.c.to_ms > window[0], entry.c.from_ms < window[1]
    )
    return sorted(Place(*map(str, row)) for row in connection.execute(query.distinct()))


def lines(
    connection: sa.Connection,
    window: tuple[int, int],
    pools: Collection[str],
    *,
    nodes: Sequence[str] = (),
    single: Sequence[tuple[str, str]] = (),
) -> Iterator[Line]:
    """Yield the timeline's sums in a window, in some pools, of whole nodes and of `single` devices (node, device).

    By account and job, as `periods.sums` does; an account may come more than once.
    """
    here = [entry.c.kind.in_(TIMELINE), entry.c.pool.in_(sorted(pools))]
    those = [entry.c.node.in_(nodes[at : at + _NODES]) for at in range(0, len(nodes), _NODES)]
    pair = sa.tuple_(entry.c.node, entry.c.device)
    those += [pair.in_(single[at : at + _DEVICES]) for at in range(0, len(single), _DEVICES)]
    for some in those:
        yield from periods.sums(connection, window, None, "", only=[*here, some])
