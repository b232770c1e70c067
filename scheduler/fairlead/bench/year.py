"""`bench year`: a year of jobs through the production engine on virtual time, and how long that takes.

Engine, state, second opinion and simulated fleet are those of the product; the fleet answers at once, nothing fails,
and nobody keeps books. Jobs come evenly over 365 days, in the mix and with the run times of `simulation.workload`, of
20 queues of equal weight. The clock runs over all decisions and over the fleet; drawing the jobs is outside.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.model.effects import Phase
from fairlead.model.events import Event, GangSeen, PoolSeen, QueueSeen
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import AT_ONCE
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.workload import Owner, draw
from fairlead.topology.fleets import build

START_MS = 1_800_000_000_000
YEAR_MS = 365 * 86_400_000
QUEUES = tuple(f"team-{at:02}" for at in range(20))
POOL, FLEET = "fleet", "hgx-h100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """What a run took and what came of it. `seconds` are of the wall, `days` and `avg_wait_s` of the virtual clock."""

    jobs: int
    nodes: int
    seconds: float
    jobs_per_second: float
    facts: int
    days: float
    busy_percent: float
    avg_wait_s: float


def run(jobs: int, nodes: int, *, seed: int = 42) -> Year:
    """Run `jobs` jobs, spread over a year, on `nodes` nodes of 8 GPUs.

    Raises
    ------
    PromiseBroken
        The second opinion refused a plan.
    """
    fleet = Fleet(build(FLEET, nodes, pool=POOL), behaviour=AT_ONCE)
    engine = Engine(Rules())
    facts = 0

    def count(now_ms: int, told: Sequence[Event]) -> None:
        nonlocal facts
        facts += len(told)

    driver = Driver(engine, fleet, start_ms=START_MS, listeners=(count,))
    driver.put(PoolSeen(pool=Pool(name=POOL, node_selector=()), at_ms=START_MS))
    driver.put(*(QueueSeen(queue=Queue(name=name, namespaces=(name,)), at_ms=START_MS) for name in QUEUES))
    owners = [Owner(namespace=name, queue=name) for name in QUEUES]
    gpus = sum(len(node.machine.gpus) for node in fleet.nodes.values())
    gap_ms = YEAR_MS // jobs
    for arrival in draw(seed, count=jobs, owners=owners, start_ms=START_MS + 1, gap_ms=gap_ms, largest_gpus=gpus):
        fleet.declare(arrival.gang.id, arrival.run)
        fleet.schedule(arrival.at_ms, GangSeen(gang=arrival.gang, at_ms=arrival.at_ms))
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    driver.run(max_steps=100 * jobs + 1_000)
    seconds = time.perf_counter() - began
    gc.unfreeze()
    records = list(engine.state.gangs.values())
    left = [record.name for record in records if record.phase is not Phase.SUCCEEDED]
    assert not left, f"the year is over and {len(left)} jobs are not done: {left[:3]}"
    end_ms = max(record.finished_ms or 0 for record in records)
    waits = [(record.started_ms or 0) - record.gang.submitted_ms for record in records if record.gang is not None]
    held_ms = sum(record.past_gpu_ms for record in records)
    return Year(
        jobs=jobs,
        nodes=nodes,
        seconds=round(seconds, 2),
        jobs_per_second=round(jobs / seconds, 1),
        facts=facts,
        days=round((end_ms - START_MS) / 86_400_000, 1),
        busy_percent=round(100 * held_ms / (gpus * (end_ms - START_MS)), 1),
        avg_wait_s=round(sum(waits) / len(waits) / 1_000, 1),
    )
