"""`bench waste`: work that preemption throws away, against victims in Kueue's order, the newest first.

One queue on 16 nodes of 8 GPUs, 24 hours at 95 % load. A quarter of the jobs are urgent and take from the others by
priority. How many GPUs a job wants is drawn from the first public trace of Muri (SIGCOMM'22). In the mixed world a
third of the jobs save every 10 to 30 minutes, a third every 1 to 4 hours and a third never; in the others all are of
one kind. Both runs of a seed have the same jobs and the same engine; only who yields is another. Counted is what was
truly lost: GPUs x (time since the last checkpoint, or since the start), and one minute for the new start.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from fairlead.bench.reclaim import NODES_PER_RACK
from fairlead.bench.scale_world import GIB, T0
from fairlead.model import events as ev
from fairlead.model.effects import Place, Stop
from fairlead.model.gang import Checkpoint, Gang, GangId, Placement, PodShape, Role
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.ordering.standing import Standing
from fairlead.placement.lost_work import RESTART_COST_MS
from fairlead.placement.placer import Placer
from fairlead.placement.preempt import RoomAnswer, RoomMemo
from fairlead.placement.release import release
from fairlead.placement.room_search import Room, Taken
from fairlead.placement.shields import Shields
from fairlead.placement.victim import Kind, Victim
from fairlead.planning import decide as deciding
from fairlead.service.engine import Engine
from fairlead.topology import fleet_machines
from fairlead.world.snapshot import World

NODES, GPUS = 16, 128
MINUTE, HOUR = 60_000, 3_600_000
SPAN_MS = 24 * HOUR
LOAD_PERCENT = 95
SIZES = ((1, 536), (2, 5), (4, 423), (8, 465), (16, 40), (32, 25))
"""(GPUs, jobs) of the trace."""
WORLDS = ("mixed", "often", "seldom", "never")
WORST = 1.02


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the bench: its gang, the work that it has to do, and when it comes."""

    gang: Gang
    work_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One seed of one world: GPU-seconds lost, stops, and the ratio of ours to the newest first."""

    world: str
    seed: int
    ours_gpu_s: int
    newest_gpu_s: int
    ours_stops: int
    newest_stops: int
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One world over all seeds."""

    world: str
    seeds: int
    median_ratio: float
    worst_ratio: float
    total_ratio: float


def run(world: str, seed: int) -> Row:
    """Play one seed twice."""
    jobs = list(_jobs(world, seed))
    ours, ours_stops = _Play(jobs).lost()
    with newest_first():
        newest, newest_stops = _Play(jobs).lost()
    ratio = ours / newest if newest else 1.0
    return Row(
        world=world,
        seed=seed,
        ours_gpu_s=ours // 1000,
        newest_gpu_s=newest // 1000,
        ours_stops=ours_stops,
        newest_stops=newest_stops,
        ratio=round(ratio, 4),
    )


def summary(rows: list[Row]) -> Summary:
    """Sum up the seeds of one world."""
    newest = sum(row.newest_gpu_s for row in rows)
    return Summary(
        world=rows[0].world,
        seeds=len(rows),
        median_ratio=round(median(row.ratio for row in rows), 4),
        worst_ratio=max(row.ratio for row in rows),
        total_ratio=round(sum(row.ours_gpu_s for row in rows) / newest, 4) if newest else 1.0,
    )


def _jobs(world: str, seed: int) -> Iterator[Job]:
    stream = random.Random(f"{seed}/{world}/waste")
    at_ms, offered, count = T0, 0, 0
    while offered < GPUS * SPAN_MS * LOAD_PERCENT // 100:
        urgent = stream.random() < 0.25
        ((gpus, _),) = stream.choices(SIZES, [jobs for _, jobs in SIZES])
        hours = stream.lognormvariate(0.0, 0.8) * (0.5 if urgent else 4.0)
        work_ms = int(min(24.0, max(0.1, hours)) * HOUR)
        offered += gpus * work_ms
        count += 1
        yield Job(_gang(f"j{count:05}", gpus, urgent, _checkpoint(world, stream), at_ms), work_ms, at_ms)
        at_ms = T0 + SPAN_MS * offered // (GPUS * SPAN_MS * LOAD_PERCENT // 100)


def _checkpoint(world: str, stream: random.Random) -> Checkpoint | None:
    kind = stream.choice(WORLDS[1:]) if world == "mixed" else world
    often, seldom = stream.randint(10, 30) * MINUTE, stream.randint(60, 240) * MINUTE
    return {"often": Checkpoint(interval_ms=often), "seldom": Checkpoint(interval_ms=seldom)}.get(kind)


def _gang(name: str, gpus: int, urgent: bool, checkpoint: Checkpoint | None, at_ms: int) -> Gang:
    pod = PodShape(requests=Resources(cpu_milli=4_000 * min(8, gpus), memory_bytes=32 * GIB * min(8, gpus), pods=1))
    return Gang(
        id=GangId(name),
        namespace="team",
        name=name,
        queue="team",
        roles=(Role(name="worker", replicas=max(1, gpus // 8), gpus=min(8, gpus), pod=pod),),
        priority=int(urgent),
        submitted_ms=at_ms,
        checkpoint=checkpoint,
    )


class _Play:
    """One engine, and a cluster that does at once what it is told."""

    def __init__(self, jobs: list[Job]) -> None:
        self._engine = Engine(Rules(takings_per_job=32, promises=0))
        self._engine.take(_world())
        self._left = {job.gang.id: job.work_ms for job in jobs}
        self._gangs = {job.gang.id: job.gang for job in jobs}
        self._running: dict[GangId, tuple[int, int, int]] = {}  # attempt, start, saved
        self._heap: list[tuple[int, int, str, GangId, int]] = []
        self._count = self._stops = self._lost = 0
        for job in jobs:
            self._push(job.at_ms, "comes", job.gang.id, 0)

    def lost(self) -> tuple[int, int]:
        """Play to the end of the day; return GPU-ms that were lost, and stops."""
        while self._heap and self._heap[0][0] <= T0 + SPAN_MS:
            now_ms, _, what, gang, attempt = heapq.heappop(self._heap)
            if what != "comes" and self._running.get(gang, (0, 0, 0))[0] != attempt:
                continue
            self._happen(what, gang, attempt, now_ms)
            self._settle(now_ms)
        return self._lost, self._stops

    def _push(self, at_ms: int, what: str, gang: GangId, attempt: int) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ms, self._count, what, gang, attempt))

    def _happen(self, what: str, gang: GangId, attempt: int, now_ms: int) -> None:
        match what:
            case "comes":
                self._engine.take([ev.GangSeen(gang=self._gangs[gang], at_ms=now_ms)])
            case "saves":
                number, start, _ = self._running[gang]
                self._running[gang] = number, start, now_ms
                fact = ev.CheckpointCommitted(gang=gang, attempt=attempt, at_ms=now_ms, began_ms=now_ms)
                self._engine.take([fact])
                self._push_save(gang, attempt, now_ms)
            case _:
                del self._running[gang]
                for rank in range(self._gangs[gang].members):
                    end = ev.MemberEnded(gang=gang, attempt=attempt, rank=rank, succeeded=True, at_ms=now_ms)
                    self._engine.take([end])

    def _push_save(self, gang: GangId, attempt: int, now_ms: int) -> None:
        checkpoint = self._gangs[gang].checkpoint
        if checkpoint is not None:
            self._push(now_ms + checkpoint.interval_ms, "saves", gang, attempt)

    def _settle(self, now_ms: int) -> None:
        while True:
            cycle = self._engine.cycle(now_ms)
            assert cycle.violations == (), cycle.violations[:2]
            for effect in cycle.effects:
                match effect:
                    case Place(gang=gang, attempt=attempt):
                        self._running[gang] = attempt, now_ms, now_ms
                        self._engine.take([ev.Bound(gang=gang, attempt=attempt, at_ms=now_ms)])
                        self._tell(ev.MemberRunning, gang, attempt, now_ms)
                        self._push(now_ms + self._left[gang], "ends", gang, attempt)
                        self._push_save(gang, attempt, now_ms)
                    case Stop(gang=gang, attempt=attempt):
                        self._stop(gang, now_ms)
                        self._tell(ev.MemberReleased, gang, attempt, now_ms)
                    case _:
                        pass
            if not cycle.effects and not cycle.more:
                return

    def _tell(
        self, kind: type[ev.MemberRunning] | type[ev.MemberReleased], gang: GangId, attempt: int, now_ms: int
    ) -> None:
        ranks = range(self._gangs[gang].members)
        self._engine.take(kind(gang=gang, attempt=attempt, rank=rank, at_ms=now_ms) for rank in ranks)

    def _stop(self, gang: GangId, now_ms: int) -> None:
        """Count what a stop throws away; one that has come to its end by itself loses nothing."""
        found = self._running.pop(gang, None)
        if found is None:
            return
        _, start, saved = found
        self._left[gang] = max(1, self._left[gang] - (saved - start))
        self._stops += 1
        self._lost += self._gangs[gang].gpus * (now_ms - saved + RESTART_COST_MS)


def _world() -> Iterator[ev.Event]:
    yield ev.PoolSeen(pool=Pool(name="fleet", node_selector=()), at_ms=T0)
    yield ev.QueueSeen(queue=Queue(name="team", namespaces=("team",)), at_ms=T0)
    shape = fleet_machines.hgx_h100()
    for at in range(NODES):
        name = f"n{at:02}"
        node = Node(
            name=NodeName(name),
            machine=fleet_machines.identified(shape, name),
            pool="fleet",
            device_pool=name,
            allocatable=Resources(cpu_milli=190_000, memory_bytes=2000 * GIB, ephemeral_bytes=7000 * GIB, pods=110),
            levels=(("rack", f"r{at // NODES_PER_RACK}"),),
        )
        yield ev.NodeSeen(node=node, at_ms=T0)


# --- the newest first, as Kueue takes them ----------------------------------------------------------------------------


_SEARCH = "look_for_room_by_excess"
"""What `decide` asks; a stop-watch hears it by the same name."""


@contextmanager
def newest_first() -> Generator[None]:
    """Let `decide` find victims in Kueue's order while this lasts."""
    before = getattr(deciding, _SEARCH)
    setattr(deciding, _SEARCH, _newest_first)
    try:
        yield
    finally:
        setattr(deciding, _SEARCH, before)


def _newest_first(
    gang: Gang,
    world: World,
    placer: Placer,
    standing: Standing,
    spared: Collection[GangId],
    memo: RoomMemo | None = None,
    at_most: int | None = None,
    shields: Shields | None = None,
) -> RoomAnswer:
    """Take the lowest priority, and of it the newest, until the gang fits; then give back whoever is not needed."""
    victims, _ = (memo or RoomMemo()).of(placer)
    victims.follow(world, placer.inventory, spared)
    found = {key: victim for row in victims.on_row for key, (victim, _) in row.items()}
    rightful = [v for v in found.values() if v.priority < gang.priority and v.kind is not Kind.PROTECTED]
    rightful.sort(key=lambda v: (v.priority, -(v.attempt.all_running_ms or world.now_ms), v.key))
    taken: list[Victim] = []
    for victim in rightful:
        taken.append(victim)
        if _placed(gang, taken, placer, victims.extended) is not None:
            break
    else:
        return RoomAnswer()
    for victim in reversed(taken[:-1]):
        fewer = [other for other in taken if other is not victim]
        if _placed(gang, fewer, placer, victims.extended) is not None:
            taken = fewer
    placement = _placed(gang, taken, placer, victims.extended)
    assert placement is not None, gang
    now = world.now_ms
    parts = tuple(Taken(v.attempt, (), v.gpu_milli, v.also, v.lost(now), by_priority=True) for v in taken)
    return RoomAnswer(Room(placement, parts))


def _placed(gang: Gang, victims: list[Victim], placer: Placer, extended: tuple[str, ...]) -> Placement | None:
    mark = placer.overlay.checkpoint()
    release(placer.overlay, victims, extended)
    placement = placer.place(gang).placement
    placer.overlay.roll_back(mark)
    return placement
