"""Decide again what a journal says was decided, and compare: the same engine, the same facts, the same bytes (P7).

A journal is one run after another, each begun by `Started`. Within a run every cycle that had something to say left a
`Decided` mark with the digest of its plan, and after it the intentions that state took over. The replay feeds an engine
the facts, lets it decide at each mark, and demands the same digest and the same intentions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.model.codec import Again, Cut, Record
from fairlead.model.events import Decided, Event, Started
from fairlead.model.standings import Standings
from fairlead.service.engine import Engine

SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a replay found: how many runs and decisions there were, and a sentence for each one that differs."""

    runs: int
    decisions: int
    differing: int
    differences: tuple[str, ...]


def referenced(rows: Iterable[tuple[str, Record]]) -> set[str]:
    """Return the ids of facts that a later run was told again; `replay` must be given those."""
    return {record.fact for _, record in rows if isinstance(record, Again)}


def replay(rows: Iterable[tuple[str, Record]], again: set[str]) -> Replay:
    """Go through the (id, record) rows of a journal in order.

    `again` are the ids that `referenced` found; only those facts are kept in memory. Stops comparing a run at its
    first difference, because everything after it may follow from that one.
    """
    engine: Engine | None = None
    kept: dict[str, Event] = {}
    expected: deque[Event] = deque()
    runs = decisions = differing = 0
    found: list[str] = []

    def differs(text: str) -> None:
        nonlocal differing, engine
        differing += 1
        engine = None
        expected.clear()
        if len(found) < SHOWN:
            found.append(text)

    for row, (fact_id, record) in enumerate(rows, start=1):
        if isinstance(record, Cut | Standings):
            continue
        if isinstance(record, Started):
            engine, expected = Engine(record.rules), deque()
            runs += 1
            continue
        fact = kept.get(record.fact) if isinstance(record, Again) else record
        if fact is None:
            differs(f"record {row}: it repeats fact {fact_id}, which the journal does not have before it")
            continue
        if fact_id in again:
            kept[fact_id] = fact
        if engine is None:
            continue
        if expected:
            if (intended := expected.popleft()) != fact:
                differs(f"record {row}: the journal has {_short(fact)}, the replay intends {_short(intended)}")
        elif isinstance(fact, Decided):
            decisions += 1
            decided = engine.cycle(fact.at_ms).facts
            if not decided or decided[0] != fact:
                differs(f"record {row}: at {fact.at_ms} another plan is made than the one with digest {fact.digest}")
            else:
                expected.extend(decided[1:])
        else:
            engine.take([fact])
    return Replay(runs=runs, decisions=decisions, differing=differing, differences=tuple(found))


def _short(fact: Event) -> str:
    return repr(fact)[:200]
