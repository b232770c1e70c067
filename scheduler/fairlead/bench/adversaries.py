"""`bench adversaries`: what a tenant gains by cheating, against what it holds when it is honest.

Eight nodes of 8 GPUs and four queues of equal weight, a quarter of the fleet guaranteed to each; a queue's jobs that
may not be stopped stay inside its guarantee. Two honest tenants always have more work than there is room for, the third
comes and goes every two hours. The attacker has the same kind of work as they, and cheats in one way a run. Everything
is the same otherwise: the fleet, the engine, the seed, the others' jobs. What counts is the part of the fleet that it
holds, averaged over the hours in which everybody wants more than there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fairlead.bench.hgx_fleet import hgx_nodes
from fairlead.bench.scale_world import GIB, T0
from fairlead.model import events as ev
from fairlead.model.gang import Checkpoint, Gang, GangId, Overrun, PodShape, Role, ServiceClass
from fairlead.model.hardware import Resources
from fairlead.model.rules import Rules
from fairlead.model.saving_rules import GRACE_MAX_MS, RESTART_MAX_MS
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import Run, Saves
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet

NODES, GPUS = 8, 64
ATTACKER = "mallory"
STEADY, COMING = ("alice", "bob"), "carol"
QUEUES = (ATTACKER, *STEADY, COMING)
HOUR_MS, MINUTE_MS = 3_600_000, 60_000
BURST_MS = 2 * HOUR_MS
EARLY_MS = 2 * HOUR_MS
SIZES = (1, 1, 2, 2, 4)
RUN_MINUTES = (20, 60)
BOUND_PERCENT = 1.0
"""What no attack may gain, in percent of the fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A gang and what its program does."""

    gang: Gang
    run: Run


@dataclass(slots=True)
class Stage:
    """One run's world as an attack may use it: `begins_ms` is when the others come, `ends_ms` the end."""

    driver: Driver
    stream: random.Random
    begins_ms: int
    ends_ms: int
    jobs: list[Job] = field(default_factory=list[Job])

    def come(self, job: Job) -> None:
        """Let a job be submitted when it says."""
        self.driver.fleet.declare(job.gang.id, job.run)
        self.driver.fleet.schedule(job.gang.submitted_ms, ev.GangSeen(gang=job.gang, at_ms=job.gang.submitted_ms))


Attack = Callable[[Stage], None]
"""Submits the attacker's `jobs`, its honest work, in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack over all runs, in percent of the fleet: what the attacker held beyond what it holds honestly."""

    attack: str
    runs: int
    honest_mean: float
    attack_mean: float
    gain_mean: float
    gain_worst: float
    worst_seed: int
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the gain stays below the bound, on average and in the worst run."""
        return self.gain_worst < self.bound


def run(attacks: Sequence[str], runs: int, *, hours: int = 12, first_seed: int = 1) -> Iterator[Row]:
    """Run every attack once a seed beside the honest run of that seed; yield its row as soon as it is done.

    Raises
    ------
    PromiseBroken
        The engine's own check refused a plan.
    """
    seeds = range(first_seed, first_seed + runs)
    honest = {seed: share(seed, _honest, hours=hours) for seed in seeds}
    for name in attacks:
        yield _row(name, {seed: share(seed, ATTACKS[name], hours=hours) for seed in seeds}, honest)


def _row(name: str, found: Mapping[int, float], honest: Mapping[int, float]) -> Row:
    gains = {seed: found[seed] - honest[seed] for seed in found}
    worst = max(gains, key=lambda seed: gains[seed])
    return Row(
        attack=name,
        runs=len(found),
        honest_mean=round(sum(honest.values()) / len(honest), 3),
        attack_mean=round(sum(found.values()) / len(found), 3),
        gain_mean=round(sum(gains.values()) / len(gains), 3),
        gain_worst=round(gains[worst], 3),
        worst_seed=worst,
        bound=BOUND_PERCENT,
    )


def share(seed: int, attack: Attack, *, hours: int = 12) -> float:
    """Return the percentage of the fleet that the attacker holds while everybody contends, in one run."""
    begins_ms = T0 + EARLY_MS
    ends_ms = begins_ms + hours * HOUR_MS
    meter = _Meter(begins_ms, ends_ms)
    engine = Engine(Rules())
    driver = Driver(engine, Fleet(hgx_nodes(NODES), seed=seed), start_ms=T0, checkers=[meter.look])
    driver.put(*_tenants())
    for queue in (*STEADY, COMING):
        stream = random.Random(f"{seed}/{queue}")
        for job in _work(queue, stream, begins_ms, hours):
            Stage(driver, stream, begins_ms, ends_ms).come(job)
    own = random.Random(f"{seed}/{ATTACKER}")
    attack(Stage(driver, own, begins_ms, ends_ms, list(_work(ATTACKER, own, begins_ms, hours))))
    driver.run(until_ms=ends_ms)
    return 100 * meter.held_ms(engine) / (GPUS * 1_000 * (ends_ms - begins_ms))


class _Meter:
    """Adds up what the attacker's queue is charged for, in thousandths of a GPU × ms, inside the contention."""

    def __init__(self, begins_ms: int, ends_ms: int) -> None:
        self._begins_ms, self._ends_ms = begins_ms, ends_ms
        self._at_ms = self._milli = self._sum = 0

    def look(self, driver: Driver) -> Sequence[str]:
        """Look after each step; what was held since the last one is what was held then."""
        self._add(driver.now_ms)
        self._milli = driver.engine.state.queue_gpu_milli.get(ATTACKER, 0)
        return ()

    def _add(self, now_ms: int) -> None:
        since, until = max(self._at_ms, self._begins_ms), min(now_ms, self._ends_ms)
        self._sum += self._milli * max(0, until - since)
        self._at_ms = now_ms

    def held_ms(self, engine: Engine) -> int:
        """Return the sum until the end."""
        self._add(self._ends_ms)
        return self._sum


# --- the world --------------------------------------------------------------------------------------------------------


def _tenants() -> list[ev.Event]:
    queues = [
        Queue(name=name, namespaces=(name,), guaranteed_gpus=GPUS // len(QUEUES), non_preemptible="in-quota")
        for name in QUEUES
    ]
    facts: list[ev.Event] = [ev.PoolSeen(pool=Pool(name="fleet", node_selector=()), at_ms=T0)]
    return facts + [ev.QueueSeen(queue=queue, at_ms=T0) for queue in queues]


def _work(queue: str, stream: random.Random, begins_ms: int, hours: int) -> Iterator[Job]:
    """Yield jobs of a queue: at the beginning more than it will ever get done, or enough for every second burst."""
    if queue == COMING:
        for burst in range(0, hours * HOUR_MS, 2 * BURST_MS):
            yield from _jobs(queue, stream, begins_ms + burst, BURST_MS * GPUS // len(QUEUES), f"{burst // HOUR_MS}-")
    else:
        yield from _jobs(queue, stream, begins_ms, (hours * HOUR_MS // 2 + EARLY_MS) * GPUS, "")


def _jobs(queue: str, stream: random.Random, at_ms: int, gpu_ms: int, prefix: str) -> Iterator[Job]:
    """Yield jobs of so many GPU-ms together, all within half an hour."""
    number = 0
    while gpu_ms > 0:
        gpus, run_ms = stream.choice(SIZES), stream.randint(*RUN_MINUTES) * MINUTE_MS
        gpu_ms -= gpus * run_ms
        number += 1
        moment = at_ms + stream.randrange(1, 30 * MINUTE_MS) * (number > 24)
        yield Job(gang=gang_of(queue, f"{prefix}{number}", gpus, moment), run=Run(run_ms=run_ms))


def gang_of(queue: str, name: str, gpus: int, at_ms: int) -> Gang:
    """Return a gang of one pod that may be stopped."""
    pod = PodShape(requests=Resources(cpu_milli=4_000 * gpus, memory_bytes=32 * GIB * gpus, pods=1))
    return Gang(
        id=GangId(f"{queue}-{name}"),
        namespace=queue,
        name=name,
        queue=queue,
        roles=(Role(name="worker", replicas=1, gpus=gpus, pod=pod),),
        service_class=ServiceClass.TRAINING,
        submitted_ms=at_ms,
    )


# --- the attacks ------------------------------------------------------------------------------------------------------


def _honest(stage: Stage) -> None:
    for job in stage.jobs:
        stage.come(job)


def _split(stage: Stage) -> None:
    """Cut all work into jobs of one GPU and a few minutes, a thousand and more of them."""
    for job in stage.jobs:
        gpus, run_ms = job.gang.gpus, job.run.run_ms or 0
        parts = max(1, run_ms // (10 * MINUTE_MS))
        for part in range(gpus * parts):
            gang = gang_of(ATTACKER, f"{job.gang.name}-{part}", 1, job.gang.submitted_ms)
            stage.come(Job(gang=gang, run=Run(run_ms=run_ms // parts)))


def _early(stage: Stage) -> None:
    """Submit everything two hours before anybody else, and take the whole fleet meanwhile."""
    for job in stage.jobs:
        stage.come(replace(job, gang=replace(job.gang, submitted_ms=job.gang.submitted_ms - EARLY_MS)))


def _fixed(stage: Stage) -> None:
    """Come early, and allow nobody to stop anything."""
    for job in stage.jobs:
        gang = replace(job.gang, submitted_ms=job.gang.submitted_ms - EARLY_MS, preemptible=False)
        stage.come(replace(job, gang=gang))


def _durations(stage: Stage) -> None:
    """Declare five minutes of work that takes an hour, to slip into every hole, and queue again when they are over."""
    for job in stage.jobs:
        gang = replace(job.gang, duration_ms=5 * MINUTE_MS, overrun=Overrun.REQUEUE)
        stage.come(replace(job, gang=gang))


def _long_durations(stage: Stage) -> None:
    """Declare a thousand hours, so that nobody may be promised what these jobs hold."""
    for job in stage.jobs:
        stage.come(replace(job, gang=replace(job.gang, duration_ms=1_000 * HOUR_MS)))


def _priority(stage: Stage) -> None:
    """Give everything the highest priority that there is."""
    for job in stage.jobs:
        stage.come(replace(job, gang=replace(job.gang, priority=1_000_000_000)))


def _grief(stage: Stage) -> None:
    """Beside honest work, ask for room every five minutes with a job that takes it back, and drop the job at once."""
    _honest(stage)
    for number, at_ms in enumerate(range(stage.begins_ms, stage.ends_ms, 5 * MINUTE_MS)):
        gang = replace(gang_of(ATTACKER, f"grief-{number}", 8, at_ms), priority=1_000_000_000)
        stage.come(Job(gang=gang, run=Run()))
        stage.driver.fleet.schedule(at_ms + 2 * MINUTE_MS, ev.GangGone(gang=gang.id, at_ms=at_ms + 2 * MINUTE_MS))


def _crashes(stage: Stage) -> None:
    """Crash every three minutes and start again, as often as there are restarts."""
    for job in stage.jobs:
        gang = replace(job.gang, max_restarts=1_000)
        stage.come(Job(gang=gang, run=Run(run_ms=job.run.run_ms, fails=1_000, fails_after_ms=3 * MINUTE_MS)))


def _checkpoints(stage: Stage) -> None:
    """Say that a start costs an hour, ask for an hour to save before each stop, as much as may be, and never save."""
    said = Checkpoint(watches=True, restart_ms=RESTART_MAX_MS, pause_ms=MINUTE_MS)
    for job in stage.jobs:
        gang = replace(job.gang, checkpoint=said, grace_ms=GRACE_MAX_MS)
        stage.come(Job(gang=gang, run=replace(job.run, saves=Saves(silent=True))))


def _saved(stage: Stage) -> None:
    """Say all the time that everything was saved, so that stopping others looks dearer or one's own looks free."""
    said = Checkpoint(interval_ms=MINUTE_MS, watches=True, pause_ms=1_000)
    for job in stage.jobs:
        gang = replace(job.gang, checkpoint=said, grace_ms=2 * MINUTE_MS)
        stage.come(Job(gang=gang, run=replace(job.run, saves=Saves(every_ms=MINUTE_MS, lies=True))))


ATTACKS: Mapping[str, Attack] = {
    "split": _split,
    "early": _early,
    "fixed": _fixed,
    "durations": _durations,
    "long-durations": _long_durations,
    "priority": _priority,
    "grief": _grief,
    "crash-loop": _crashes,
    "fake-grace": _checkpoints,
    "fake-saves": _saved,
}
"""Name -> what the attacker does with its honest work."""
