"""`bench night`: batch by night, serving by day, every day of a month in which summer time begins.

Sixteen nodes of 8 GPUs in one pool. Serving needs 80 GPUs between 07:00 and 20:00 in Berlin, in pods of 4 that ramp up
until 09:30, and 16 by night. Batch comes from 18:00 on, more than there is room for: half may be stopped, half may
not and has an enforced duration of up to five hours. On every fifth morning a node dies at 08:00. The run with
protection has a Pool that holds 80 + 8 GPUs for serving in a window of 07:00 to 20:00; the run without has a Pool that
holds nothing. Queues, jobs and the seed are the same, and so are reclaim and its rights.

A serving pod is late when it runs later than the queue time of its class after it was asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fairlead.bench.hgx_fleet import hgx_nodes
from fairlead.bench.scale_world import GIB
from fairlead.model import events as ev
from fairlead.model.gang import Gang, GangId, PodShape, Role, ServiceClass
from fairlead.model.hardware import NodeName, Resources
from fairlead.model.protection import Protection
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules
from fairlead.model.service_classes import TERMS
from fairlead.model.tenancy import Pool, Queue
from fairlead.model.windows import DAY_MS, MINUTE_MS, Zone
from fairlead.service.engine import Engine
from fairlead.simulation.behaviour import Run
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet
from fairlead.timezones import window_of, zone_of

NODES = 16
PEAK_PODS, NIGHT_PODS, POD_GPUS = 20, 4, 4
REDUNDANCY = 8
ZONE = "Europe/Berlin"
FIRST_DAY = datetime(2027, 3, 1, tzinfo=UTC)
RAMP_FROM, RAMP_TO, CLOSES = 7 * 60, 9 * 60 + 30, 20 * 60
BATCH_FROM, BATCH_TO = 18 * 60, 30 * 60
BATCH_JOBS = 150
LOSS_EVERY = 5
_HOUR_MS = 60 * MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One morning. `worst_wait_s` is the longest of its serving pods, `late` how many of them came late or never."""

    date: str
    hours: int
    pods: int
    late: int
    worst_wait_s: int
    returned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A month. `batch_gpu_hours` is what batch jobs held, `returned` how many of them were told to give back."""

    protected: bool
    bound_s: int
    days: tuple[Day, ...]
    late_days: int
    batch_gpu_hours: int
    returned: int


def run(days: int, *, first: int = 0, protected: bool = True, seed: int = 1) -> Report:
    """Run `days` days from the `first` one after 2027-03-01 on, counted in Berlin.

    Raises
    ------
    PromiseBroken
        The engine's own check refused a plan.
    """
    zone = zone_of(ZONE, field="zone")
    first_day = (FIRST_DAY - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(days=1) + first
    start_ms = zone.moments(first_day * DAY_MS)[0]
    engine, watch = Engine(Rules()), _Watch(zone)
    driver = Driver(
        engine,
        Fleet(hgx_nodes(NODES, digits=2, nodes_per_rack=4), seed=seed),
        start_ms=start_ms,
        listeners=[watch.hear],
    )
    driver.put(*_tenants(start_ms, protected=protected))
    stream = random.Random(f"{seed}/night")
    for day in range(first_day, first_day + days):
        _submit(driver, zone, day, stream, first_night=day == first_day)
    end_ms = zone.moments((first_day + days) * DAY_MS)[0]
    driver.run(until_ms=end_ms)
    found = tuple(watch.day(day) for day in range(first_day, first_day + days))
    return Report(
        protected=protected,
        bound_s=_bound_ms() // 1000,
        days=found,
        late_days=sum(day.late > 0 for day in found),
        batch_gpu_hours=_held_ms(engine, "batch", end_ms) // _HOUR_MS,
        returned=sum(watch.returned.values()),
    )


def _held_ms(engine: Engine, queue: str, now_ms: int) -> int:
    """Return the GPU-ms that jobs of a queue have held."""
    records = [record for record in engine.state.gangs.values() if record.queue == queue]
    current = [record.current for record in records if record.current is not None]
    return sum(record.past_gpu_ms for record in records) + sum(
        (now_ms - attempt.since_ms) * attempt.placement.gpus for attempt in current
    )


class _Watch:
    """What the journal says of serving pods, and of who was told to give back; days are counted on Berlin's clocks."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._asked: dict[GangId, int] = {}
        self._waits: dict[int, list[int]] = {}
        self.returned: dict[int, int] = {}

    def hear(self, now_ms: int, facts: Sequence[ev.Event]) -> None:
        """Take up facts in the order of the journal."""
        for fact in facts:
            match fact:
                case ev.GangSeen(gang=gang) if gang.queue == "serving":
                    self._asked.setdefault(gang.id, gang.submitted_ms)
                case ev.MemberRunning(gang=gang_id) if gang_id in self._asked:
                    self._note(gang_id, now_ms)
                case ev.GangGone(gang=gang_id) if gang_id in self._asked:
                    self._note(gang_id, now_ms)
                case ev.StopIntended(cause=cause) if cause.reason is Reason.LENT_RETURNED:
                    day = self._day_of(now_ms)
                    self.returned[day] = self.returned.get(day, 0) + 1
                case _:
                    pass

    def _note(self, gang: GangId, now_ms: int) -> None:
        asked_ms = self._asked.pop(gang)
        self._waits.setdefault(self._day_of(asked_ms), []).append(now_ms - asked_ms)

    def _day_of(self, at_ms: int) -> int:
        return self._zone.local_ms(at_ms) // DAY_MS

    def day(self, day: int) -> Day:
        """Return one day's row."""
        waits = self._waits.get(day, [])
        hours = (self._zone.moments((day + 1) * DAY_MS)[0] - self._zone.moments(day * DAY_MS)[0]) // _HOUR_MS
        return Day(
            date=(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat(),
            hours=hours,
            pods=len(waits),
            late=sum(wait > _bound_ms() for wait in waits),
            worst_wait_s=max(waits, default=0) // 1000,
            returned=self.returned.get(day, 0),
        )


def _bound_ms() -> int:
    bound = TERMS[ServiceClass.SERVING].queue_time_ms
    assert bound is not None, "serving has a queue time"
    return bound


# --- the world --------------------------------------------------------------------------------------------------------


def _tenants(at_ms: int, *, protected: bool) -> list[ev.Event]:
    window = window_of(None, "07:00", "20:00", ZONE, field="window")
    held = Protection(
        gpus=PEAK_PODS * POD_GPUS, redundancy=REDUNDANCY, windows=(window,), unit_gpus=POD_GPUS, lead_ms=30 * MINUTE_MS
    )
    pool = Pool(name="fleet", node_selector=(), protected=(held,) if protected else ())
    gpus = PEAK_PODS * POD_GPUS
    return [
        ev.PoolSeen(pool=pool, at_ms=at_ms),
        ev.QueueSeen(queue=Queue(name="serving", namespaces=("serving",), guaranteed_gpus=gpus), at_ms=at_ms),
        ev.QueueSeen(queue=Queue(name="batch", namespaces=("batch",)), at_ms=at_ms),
    ]


def _submit(driver: Driver, zone: Zone, day: int, stream: random.Random, *, first_night: bool) -> None:
    """Let a day's serving pods and its evening's batch jobs come, and a node die every few days."""

    def moment(minute: int) -> int:
        return zone.moments(day * DAY_MS + minute * MINUTE_MS)[0]

    for pod in range(NIGHT_PODS if first_night else 0):
        _come(driver, _serving(f"serve-base-{pod}", moment(0)), Run())
    step = (RAMP_TO - RAMP_FROM) // (PEAK_PODS - NIGHT_PODS)
    for pod in range(PEAK_PODS - NIGHT_PODS):
        at_ms = moment(RAMP_FROM + pod * step)
        name = f"serve-{day}-{pod}"
        _come(driver, _serving(name, at_ms), Run())
        driver.fleet.schedule(moment(CLOSES + 2 * pod), ev.GangGone(gang=GangId(name), at_ms=moment(CLOSES + 2 * pod)))
    for job in range(BATCH_JOBS):
        at_ms = moment(stream.randint(BATCH_FROM, BATCH_TO)) + stream.randrange(MINUTE_MS)
        run_ms = stream.randint(30, 300) * MINUTE_MS
        fixed = job % 2 == 0
        duration_ms = (1 + run_ms // _HOUR_MS) * _HOUR_MS if fixed else None
        gang = Gang(
            id=GangId(f"batch-{day}-{job}"),
            namespace="batch",
            name=f"batch-{day}-{job}",
            queue="batch",
            roles=_roles(stream.choice((1, 2, 4, 8))),
            service_class=ServiceClass.BATCH,
            submitted_ms=at_ms,
            preemptible=not fixed,
            duration_ms=duration_ms,
        )
        _come(driver, gang, Run(run_ms=run_ms))
    if day % LOSS_EVERY == 0:
        node = NodeName(f"n{stream.randrange(NODES):02}")
        driver.fleet.lose_node(node, moment(8 * 60), back_ms=moment(11 * 60))


def _roles(gpus: int) -> tuple[Role, ...]:
    pod = PodShape(requests=Resources(cpu_milli=4_000 * gpus, memory_bytes=32 * GIB * gpus, pods=1))
    return (Role(name="worker", replicas=1, gpus=gpus, pod=pod),)


def _serving(name: str, at_ms: int) -> Gang:
    return Gang(
        id=GangId(name),
        namespace="serving",
        name=name,
        queue="serving",
        roles=_roles(POD_GPUS),
        service_class=ServiceClass.SERVING,
        submitted_ms=at_ms,
        preemptible=TERMS[ServiceClass.SERVING].preemptible,
    )


def _come(driver: Driver, gang: Gang, run: Run) -> None:
    driver.fleet.declare(gang.id, run)
    driver.fleet.schedule(gang.submitted_ms, ev.GangSeen(gang=gang, at_ms=gang.submitted_ms))
