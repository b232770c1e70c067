"""`bench starvation`: one gang of 64 GPUs in a stream of single GPUs that never ends, with promises and without.

The stream asks for a little more than the whole fleet, so something always waits, and is of the gang's own queue and
priority, so that nothing but a promise speaks for the gang. Production engine, simulated fleet with the times of a real
one, virtual time. Jobs declare what they may run and run for a part of it; a part of them declares nothing, and may be
stopped. The same seed is run twice: with promises, and with none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.clock import monotonic_ms
from fairlead.model.events import Event, GangSeen, Intended, MemberEnded, PoolSeen, QueueSeen
from fairlead.model.gang import Gang, GangId, Role
from fairlead.model.promises import PromiseBroken, Promised
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import Run
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet
from fairlead.topology.fleets import build

START_MS = 1_800_000_000_000
MINUTE_MS = 60_000
NODES = 12  # of 8 GPUs each: the gang needs two thirds of them
GANG_PODS, GANG_GPUS = 8, 8
GANG_AT_MS = START_MS + 60 * MINUTE_MS  # by then the fleet has been full for a while
GANG_RUN_MS = 30 * MINUTE_MS
END_MS = START_MS + 150 * MINUTE_MS
DECLARED_MINUTES = (10, 60)
LOAD_PERCENT = 110
BIG = GangId("big")
POOL, QUEUE = Pool(name="fleet", node_selector=()), Queue(name="team", namespaces=("team",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What came of one seed. Minutes from the gang's submission; None where it did not start before the end.

    `promised_min` is the latest start of its last promise that was not broken, `broken` how many of its promises were.
    `done_gpu_min` is what jobs that finished within the time had run for, `alone_done_gpu_min` the same without
    promises.
    """

    seed: int
    promised_min: int | None
    started_min: int | None
    broken: int
    done_gpu_min: int
    alone_started_min: int | None
    alone_done_gpu_min: int

    @property
    def in_time(self) -> bool:
        """Whether it was promised a start, no promise was broken, and it started by then."""
        promised, started = self.promised_min, self.started_min
        return not self.broken and promised is not None and started is not None and started <= promised


class _Listener:
    """Notes what concerns the gang, and the work that was done."""

    def __init__(self, runs: dict[GangId, int]) -> None:
        self._runs = runs
        self.promised_ms: int | None = None
        self.started_ms: int | None = None
        self.broken = 0
        self.done_ms = 0

    def __call__(self, now_ms: int, facts: Sequence[Event]) -> None:
        for fact in facts:
            match fact:
                case Promised(gang=gang) if gang == BIG:
                    self.promised_ms = fact.latest_start_ms
                case PromiseBroken(gang=gang) if gang == BIG:
                    self.broken += 1
                case Intended(gang=gang) if gang == BIG and self.started_ms is None:
                    self.started_ms = fact.at_ms
                case MemberEnded(gang=gang, succeeded=True) if now_ms <= END_MS:
                    self.done_ms += self._runs[gang] * (GANG_GPUS if gang == BIG else 1)
                case _:
                    pass


def run(seed: int, *, undeclared_percent: int = 0) -> Seed:
    """Run one seed with promises and without."""
    rules = Rules(patience_ms=10 * MINUTE_MS, notice_ms=60 * MINUTE_MS)
    heard = _play(seed, rules, undeclared_percent)
    alone = _play(seed, Rules(promises=0), undeclared_percent)
    return Seed(
        seed=seed,
        promised_min=_minutes(heard.promised_ms),
        started_min=_minutes(heard.started_ms),
        broken=heard.broken,
        done_gpu_min=heard.done_ms // MINUTE_MS,
        alone_started_min=_minutes(alone.started_ms),
        alone_done_gpu_min=alone.done_ms // MINUTE_MS,
    )


def study(seeds: Sequence[int], *, undeclared_percent: int = 0) -> dict[str, object]:
    """Run all seeds and return what `--json` prints."""
    began = monotonic_ms()
    found = [run(seed, undeclared_percent=undeclared_percent) for seed in seeds]
    waits = sorted(one.started_min for one in found if one.started_min is not None)
    done, alone = sum(one.done_gpu_min for one in found), sum(one.alone_done_gpu_min for one in found)
    losses = sorted(_loss_permille(one.alone_done_gpu_min, one.done_gpu_min) for one in found)
    return {
        "nodes": NODES,
        "gang_gpus": GANG_PODS * GANG_GPUS,
        "load_percent": LOAD_PERCENT,
        "undeclared_percent": undeclared_percent,
        "seeds": len(found),
        "in_time": sum(one.in_time for one in found),
        "promises_broken": sum(one.broken for one in found),
        "wait_min_median": waits[len(waits) // 2] if waits else None,
        "wait_min_max": waits[-1] if waits else None,
        "started_without_promises": sum(one.alone_started_min is not None for one in found),
        "throughput_loss_percent": round(100 * (alone - done) / alone, 2) if alone else None,
        "throughput_loss_percent_worst": losses[-1] / 10 if losses else None,
        "late": [one.seed for one in found if not one.in_time],
        "seconds": round((monotonic_ms() - began) / 1_000, 1),
    }


def _play(seed: int, rules: Rules, undeclared_percent: int) -> _Listener:
    fleet = Fleet(build("hgx-h100", NODES, pool=POOL.name), seed=seed)
    runs: dict[GangId, int] = {BIG: GANG_RUN_MS}
    heard = _Listener(runs)
    driver = Driver(Engine(rules), fleet, start_ms=START_MS, listeners=(heard,))
    driver.put(PoolSeen(pool=POOL, at_ms=START_MS), QueueSeen(queue=QUEUE, at_ms=START_MS))
    for at_ms, gang, run_ms in _stream(seed, undeclared_percent):
        runs[gang.id] = run_ms
        fleet.declare(gang.id, Run(run_ms=run_ms))
        fleet.schedule(at_ms, GangSeen(gang=gang, at_ms=at_ms))
    big = _gang(BIG, GANG_PODS, GANG_GPUS, GANG_AT_MS, 2 * GANG_RUN_MS)
    fleet.declare(BIG, Run(run_ms=GANG_RUN_MS))
    fleet.schedule(GANG_AT_MS, GangSeen(gang=big, at_ms=GANG_AT_MS))
    driver.run(until_ms=END_MS)
    return heard


def _stream(seed: int, undeclared_percent: int) -> list[tuple[int, Gang, int]]:
    """Return (arrival, gang, how long it runs) until the end; a full fleet's worth comes at the beginning."""
    arrivals, runs = random.Random(f"{seed}/arrivals"), random.Random(f"{seed}/runs")
    low, high = DECLARED_MINUTES
    mean_run_ms = (low + high) * MINUTE_MS * 65 // 200  # declared on average half of both, run 30 to 100 % of it
    gpus = NODES * GANG_GPUS
    gap_ms = mean_run_ms * 100 // (gpus * LOAD_PERCENT)
    found: list[tuple[int, Gang, int]] = []
    at_ms = START_MS + 1
    while at_ms < END_MS:
        declared_ms = runs.randint(low * MINUTE_MS, high * MINUTE_MS)
        run_ms = declared_ms * runs.randint(30, 100) // 100
        silent = runs.randrange(100) < undeclared_percent
        name = GangId(f"job-{len(found)}")
        found.append((at_ms, _gang(name, 1, 1, at_ms, None if silent else declared_ms), run_ms))
        at_ms += 0 if len(found) < gpus else arrivals.randint(0, 2 * gap_ms)
    return found


def _gang(name: GangId, pods: int, gpus: int, at_ms: int, duration_ms: int | None) -> Gang:
    return Gang(
        id=name,
        namespace="team",
        name=name,
        queue=QUEUE.name,
        roles=(Role(name="worker", replicas=pods, gpus=gpus),),
        submitted_ms=at_ms,
        duration_ms=duration_ms,
        preemptible=duration_ms is None,
    )


def _minutes(moment_ms: int | None) -> int | None:
    return None if moment_ms is None else (moment_ms - GANG_AT_MS) // MINUTE_MS


def _loss_permille(alone: int, done: int) -> int:
    return 1_000 * (alone - done) // alone if alone else 0
