"""`bench replay`: a published trace of jobs through the production engine on virtual time, and what comes of it.

Engine, state, facts, second opinion and the simulated fleet are those of the product; the fleet answers at once, so
that a policy is compared and not a container's start. Policies ``srtf`` and ``srsf`` replace the decision by the
published rule, ``default`` is the decision of production.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fairlead.bench.muri_progress import Progress
from fairlead.bench.muri_rule import EmptyAndRefill
from fairlead.bench.muri_trace import TraceJob
from fairlead.clock import monotonic_ms
from fairlead.errors import UnreadableInput
from fairlead.model.effects import Phase
from fairlead.model.events import Event, GangSeen, PoolSeen, QueueSeen
from fairlead.model.gang import Gang, GangId, Role
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import AT_ONCE
from fairlead.simulation.driver import Driver, PromiseBroken
from fairlead.simulation.fleet import Fleet
from fairlead.world.gangs import GangRecord

POLICIES = ("srtf", "srsf", "default")
START_MS = 1_800_000_000_000
POOL, QUEUE, NAMESPACE = "trace", "trace", "trace"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """So many nodes with so many GPUs each."""

    nodes: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a replay. Seconds of the trace, but for `seconds`, which the replay took.

    `held_gpu_s` is what all attempts held, `work_gpu_s` what the iterations take, `lost_gpu_s` the difference. `stops`
    counts attempts that were ended before they finished, `preemptions` those of them that had to wait before they ran
    again.
    """

    jobs: int
    avg_jct_s: float
    p99_jct_s: float
    makespan_s: float
    avg_wait_s: float
    lost_gpu_s: float
    held_gpu_s: float
    work_gpu_s: float
    stops: int
    preemptions: int
    facts: int
    seconds: float


def replay(jobs: Sequence[TraceJob], cluster: Cluster, *, policy: str, overhead: bool, known: bool) -> Result:
    """Run every job to its end. `known` declares each job's duration to the default policy.

    Raises
    ------
    UnreadableInput
        A job does not fit the empty cluster; the text names its line.
    PromiseBroken
        Verify refused a plan, or a job did not come to its end.
    """
    began_ms = monotonic_ms()
    by_id = {GangId(f"{at:08d}"): job for at, job in enumerate(jobs)}
    fleet = Fleet(_nodes(cluster), behaviour=AT_ONCE)
    published = policy != "default"
    progress = Progress(fleet, by_id, overhead=overhead, charged_at_start=not published)
    engine = Engine(Rules())
    if published:
        engine = Engine(Rules(), decider=EmptyAndRefill(progress.remaining_us, times_gpus=policy == "srsf"))
    counts: Counter[str] = Counter()

    def count(now_ms: int, facts: Sequence[Event]) -> None:
        counts.update(type(fact).__name__ for fact in facts)

    driver = Driver(engine, fleet, start_ms=START_MS, listeners=(progress, count))
    pool, queue = Pool(name=POOL, node_selector=()), _queue(cluster)
    driver.put(PoolSeen(pool=pool, at_ms=START_MS), QueueSeen(queue=queue, at_ms=START_MS))
    for gang_id, job in by_id.items():
        at_ms = START_MS + job.submit_ms
        gang = _gang(gang_id, job, cluster, known=known, overhead=overhead)
        fleet.schedule(at_ms, GangSeen(gang=gang, at_ms=at_ms))
    driver.run(max_steps=100 * len(jobs) + 1_000)
    return _result(jobs, engine, progress, sum(counts.values()), (monotonic_ms() - began_ms) / 1_000)


def _result(jobs: Sequence[TraceJob], engine: Engine, progress: Progress, facts: int, seconds: float) -> Result:
    records = [engine.state.gangs[GangId(f"{at:08d}")] for at in range(len(jobs))]
    jct_ms = [_finished_ms(record) - START_MS - job.submit_ms for job, record in zip(jobs, records, strict=True)]
    wait_ms = [(record.started_ms or 0) - START_MS - job.submit_ms for job, record in zip(jobs, records, strict=True)]
    held_ms = sum(record.past_gpu_ms for record in records)
    work_us = sum(job.work_us * job.gpus for job in jobs)
    first_ms = START_MS + min(job.submit_ms for job in jobs)
    return Result(
        jobs=len(jobs),
        avg_jct_s=_seconds(Fraction(sum(jct_ms), len(jobs))),
        p99_jct_s=_seconds(Fraction(sorted(jct_ms)[99 * len(jobs) // 100])),
        makespan_s=_seconds(Fraction(max(_finished_ms(record) for record in records) - first_ms)),
        avg_wait_s=_seconds(Fraction(sum(wait_ms), len(jobs))),
        lost_gpu_s=_seconds(held_ms - Fraction(work_us, 1_000)),
        held_gpu_s=_seconds(Fraction(held_ms)),
        work_gpu_s=_seconds(Fraction(work_us, 1_000)),
        stops=progress.stops,
        preemptions=progress.preemptions,
        facts=facts,
        seconds=round(seconds, 2),
    )


def _finished_ms(record: GangRecord) -> int:
    if record.phase is not Phase.SUCCEEDED or record.finished_ms is None:
        why = record.refusal.message if record.refusal else "no reason"
        raise PromiseBroken(f"job {record.name} is {record.phase} in a quiet world: {why}")
    return record.finished_ms


def _seconds(ms: Fraction) -> float:
    return round(float(ms / 1_000), 3)


def _queue(cluster: Cluster) -> Queue:
    return Queue(name=QUEUE, guaranteed_gpus=cluster.nodes * cluster.gpus, namespaces=(NAMESPACE,))


def _nodes(cluster: Cluster) -> list[Node]:
    """Return nodes alike, named so that their order by name is their order by number; GPUs without links."""
    gpus = tuple(
        Gpu(id=str(at), index=at, device=f"gpu-{at:02d}", model="GPU", memory_bytes=80 * _GIB)
        for at in range(cluster.gpus)
    )
    allocatable = Resources(cpu_milli=92_000, memory_bytes=5_208 * _GIB, ephemeral_bytes=1_000 * _GIB, pods=110)
    return [
        Node(name=NodeName(f"n{at:05d}"), machine=Machine(gpus=gpus), pool=POOL, allocatable=allocatable)
        for at in range(cluster.nodes)
    ]


def _gang(gang: GangId, job: TraceJob, cluster: Cluster, *, known: bool, overhead: bool) -> Gang:
    """Return a job as a gang: one pod, or as many pods of a whole node as it needs."""
    pods, rest = divmod(job.gpus, cluster.gpus)
    if pods > cluster.nodes or (pods == cluster.nodes and rest):
        total = cluster.nodes * cluster.gpus
        raise UnreadableInput(f"line {job.line}: job {job.name} asks for {job.gpus} GPUs; --cluster has {total}")
    if pods and rest:
        raise UnreadableInput(
            f"line {job.line}: job {job.name} asks for {job.gpus} GPUs, no whole number of nodes of {cluster.gpus}"
        )
    started_ms = job.overhead_ms if overhead else 0
    return Gang(
        id=gang,
        namespace=NAMESPACE,
        name=job.name,
        queue=QUEUE,
        roles=(Role(name="worker", replicas=max(1, pods), gpus=job.gpus if not pods else cluster.gpus),),
        submitted_ms=START_MS + job.submit_ms,
        duration_ms=started_ms - (-job.work_us // 1_000) if known else None,
    )
