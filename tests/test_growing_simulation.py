"""Elastic gangs beside short urgent work on a fleet that fails: they shrink, grow, and never keep anybody waiting."""

from __future__ import annotations

import random
from collections import Counter

import builders
import pytest

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.rules import Rules
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import Behaviour, Run
from fairlead.simulation.checkers import all_checkers
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet

MINUTE = 60_000
HOUR = 60 * MINUTE
BOUTS = 12


def story(seed: int) -> tuple[Counter[str], Driver]:
    """Three elastic gangs fill four nodes; every hour urgent jobs come for some minutes; a node is lost for an hour."""
    rng = random.Random(f"{seed}/elastic")
    nodes = [builders.node(f"n{at}", "8") for at in range(1, 5)]
    behaviour = Behaviour(conflict_permille=150, member_fails_permille=0)
    fleet = Fleet(nodes, seed=seed, behaviour=behaviour)
    counts: Counter[str] = Counter()

    def count(now_ms, facts):
        counts.update(type(fact).__name__ for fact in facts)

    engine = Engine(Rules(grow_after_ms=5 * MINUTE))
    start = builders.T0
    driver = Driver(engine, fleet, start_ms=start, checkers=all_checkers(), listeners=(count,))
    driver.put(ev.PoolSeen(pool=builders.pool(), at_ms=start), ev.QueueSeen(queue=builders.queue("team"), at_ms=start))
    for at in range(3):
        gang = builders.gang(f"wide{at}", f"{rng.choice([8, 10, 12])}x1 min=2 elastic restarts=99", start + at)
        fleet.declare(gang.id, Run())
        fleet.schedule(start + at, ev.GangSeen(gang=gang, at_ms=start + at))
    for bout in range(BOUTS):
        at_ms = start + HOUR + bout * HOUR + rng.randrange(MINUTE)
        for job in range(rng.randint(1, 3)):
            gang = builders.gang(f"urgent{bout}-{job}", f"1x{rng.choice([2, 4, 8])} priority=9", at_ms)
            fleet.declare(gang.id, Run(run_ms=rng.randint(MINUTE, 10 * MINUTE)))
            fleet.schedule(at_ms, ev.GangSeen(gang=gang, at_ms=at_ms))
    lost_ms = start + rng.randrange(BOUTS) * HOUR
    fleet.lose_node("n1", lost_ms, back_ms=lost_ms + HOUR)
    driver.run(until_ms=start + (BOUTS + 3) * HOUR)
    return counts, driver


@pytest.mark.parametrize("seed", range(6))
def test_elastic_gangs_shrink_for_urgent_work_and_grow_back_in_the_quiet(seed: int) -> None:
    """And not for ever: each setback doubles the wait, so in half a day nobody grows more than a few times."""
    counts, driver = story(seed)
    assert counts["ShrinkIntended"] >= 3
    assert 3 <= counts["GrowIntended"] <= 3 * BOUTS
    gangs = driver.engine.state.gangs
    assert all(r.phase is Phase.SUCCEEDED for name, r in gangs.items() if name.startswith("urgent"))
    held = {(key, rank) for holders in driver.fleet.holders.values() for key, rank in holders}
    known = {
        ((gang, record.current.number), rank)
        for gang, record in gangs.items()
        if record.current is not None
        for rank in record.current.holding
    }
    assert held == known


def test_the_same_seed_gives_the_same_story() -> None:
    assert story(9)[0] == story(9)[0]
