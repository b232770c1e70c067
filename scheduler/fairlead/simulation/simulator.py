"""Run a random world from one seed through the real engine, with faults, and check every promise after every step.

When the faults are over, the work must finish: a gang that still waits in a quiet world must have a reason that no
waiting can mend. The digest covers every fact in journal order; it is equal across processes and PYTHONHASHSEED.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fairlead.model.effects import Phase
from fairlead.model.events import Event, GangGone, GangSeen, PoolSeen, QueueSeen
from fairlead.model.gang import Checkpoint, Gang, ServiceClass
from fairlead.model.reasons import Kind
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine
from fairlead.service.ports import Books
from fairlead.simulation.behaviour import Behaviour, Run, Saves
from fairlead.simulation.checkers import all_checkers
from fairlead.simulation.driver import Driver, PromiseBroken
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.workload import MIX, Owner, Shape, draw
from fairlead.topology.fleets import build

START_MS = 1_800_000_000_000
_FLEETS = ("dgx-a100", "hgx-h100", "pcie-l40s", "mixed", "gb200-nvl72")
_HOUR_MS = 3_600_000
GROW_AFTER_MS = 20_000
"""Shorter than in production, so that short runs see gangs grow."""
POOL = Pool(name="fleet", node_selector=(("fairlead.dev/fleet", "yes"),), checkpoint_bytes_per_s=1 << 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run. `phases` counts gangs by their last phase, `facts` journal entries by type name."""

    seed: int
    digest: str
    steps: int
    end_ms: int
    phases: dict[str, int]
    facts: dict[str, int]


class _Journal:
    """Digests facts in order and counts them."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.counts: Counter[str] = Counter()

    def __call__(self, now_ms: int, facts: Sequence[Event]) -> None:
        for fact in facts:
            self.hash.update(f"{now_ms} {fact!r}\n".encode())
            self.counts[type(fact).__name__] += 1


def run(seed: int, *, gangs: int = 40, nodes: int = 12, faults: bool = True, books: Books | None = None) -> Outcome:
    """Run the world of `seed` to its end.

    Raises
    ------
    PromiseBroken
        A promise was broken, or work that could have finished did not; the text begins with the seed.
    """
    world = random.Random(f"{seed}/world")
    fleet_nodes = build(_FLEETS[seed % len(_FLEETS)], nodes, pool=POOL.name)
    behaviour = Behaviour(
        conflict_permille=60 if faults else 0,
        lost_reply_permille=20 if faults else 0,
        never_starts_permille=10 if faults else 0,
        member_fails_permille=40 if faults else 0,
    )
    fleet = Fleet(fleet_nodes, seed=seed, behaviour=behaviour)
    engine, journal = Engine(Rules(grow_after_ms=GROW_AFTER_MS)), _Journal()
    driver = Driver(engine, fleet, start_ms=START_MS, books=books, checkers=all_checkers(), listeners=(journal,))
    queues = _queues(world, sum(len(node.machine.gpus) for node in fleet_nodes))
    largest = max(len(node.machine.gpus) for node in fleet_nodes)
    mix = [replace(shape, gpus=min(shape.gpus, largest)) for shape in MIX]
    driver.put(PoolSeen(pool=POOL, at_ms=START_MS), *(QueueSeen(queue=queue, at_ms=START_MS) for queue in queues))
    _submit(driver, world, seed, mix, gangs)
    if faults:
        _faults(driver, world, queues)
    try:
        driver.run(max_steps=50_000)
        _work_is_done(driver)
    except PromiseBroken as broken:
        raise PromiseBroken(f"seed {seed}: {broken}") from broken
    phases = Counter(str(view.phase) for view in engine.gang_views(driver.now_ms))
    return Outcome(
        seed=seed,
        digest=journal.hash.hexdigest(),
        steps=driver.steps,
        end_ms=driver.now_ms,
        phases=dict(sorted(phases.items())),
        facts=dict(sorted(journal.counts.items())),
    )


def _queues(world: random.Random, gpus: int) -> list[Queue]:
    """Three tenants, one of them with two queues below its root; guarantees never exceed the fleet."""
    share = gpus // 4
    queues: list[Queue] = []
    for tenant in ("research", "vision", "speech"):
        guaranteed = world.randint(0, share)
        limit = world.choice([None, None, max(guaranteed, gpus // 2), gpus])
        queues.append(
            Queue(
                name=tenant,
                guaranteed_gpus=guaranteed,
                limit_gpus=limit,
                weight=world.randint(1, 3),
                namespaces=(tenant,),
            )
        )
    root = queues[0]
    for name in ("research-a", "research-b"):
        queues.append(
            Queue(name=name, parent="research", guaranteed_gpus=root.guaranteed_gpus // 2, namespaces=(name,))
        )
    return queues


def _submit(driver: Driver, world: random.Random, seed: int, mix: Sequence[Shape], count: int) -> None:
    """Let jobs arrive; some have a priority, a duration, or may not be preempted; some are suspended or deleted."""
    owners = [Owner(namespace=name, queue=name) for name in ("research-a", "research-b", "vision", "speech")]
    saving, sizes = random.Random(f"{seed}/saving"), random.Random(f"{seed}/sizes")
    gap_ms = world.choice([1_000, 20_000, 120_000])
    longest_ms = 2 * _HOUR_MS
    for arrival in draw(
        seed, count=count, owners=owners, start_ms=START_MS + 1, gap_ms=gap_ms, longest_ms=longest_ms, mix=mix
    ):
        gang, job = _saving(_elastic(_vary(arrival.gang, world), sizes), arrival.run, saving)
        driver.fleet.declare(gang.id, job)
        driver.fleet.schedule(arrival.at_ms, GangSeen(gang=gang, at_ms=arrival.at_ms))
        later_ms = arrival.at_ms + world.randint(1, _HOUR_MS)
        fate = world.randrange(20)
        if fate == 0:
            driver.fleet.schedule(later_ms, GangGone(gang=gang.id, at_ms=later_ms))
        elif fate == 1:
            resume_ms = later_ms + 600_000
            driver.fleet.schedule(later_ms, GangSeen(gang=replace(gang, suspended=True), at_ms=later_ms))
            driver.fleet.schedule(resume_ms, GangSeen(gang=gang, at_ms=resume_ms))


def _elastic(gang: Gang, sizes: random.Random) -> Gang:
    """Half the gangs start with fewer members where there is no room for all, and most of those change their size."""
    if sizes.randrange(2):
        return gang
    roles = tuple(replace(role, min_replicas=sizes.randint(1, role.replicas)) for role in gang.roles)
    return replace(gang, roles=roles, resizable=sizes.randrange(4) > 0)


def _saving(gang: Gang, job: Run, saving: random.Random) -> tuple[Gang, Run]:
    """A third of the jobs save, when they are asked or only by themselves; a few lie about it, or are silent."""
    if saving.randrange(3):
        return gang, job
    way, kind = saving.choice(["file", "file", "signal", "none"]), saving.randrange(8)
    pause_ms = saving.choice([1_000, 20_000, 120_000])
    declared = Checkpoint(
        interval_ms=saving.choice([0, 600_000, 1_800_000]),
        pause_ms=pause_ms,
        size_bytes=saving.choice([0, 1 << 34, 1 << 38]),
        watches=way == "file",
        signal="SIGTERM" if way == "signal" else "",
        reshards=saving.randrange(2) == 0,
    )
    saves = Saves(
        every_ms=declared.interval_ms,
        pause_ms=pause_ms,
        restart_ms=saving.choice([0, 60_000]),
        lies=kind == 0,
        silent=kind == 1,
        ends=way == "signal",
    )
    grace_ms = 0 if way == "none" else saving.choice([2 * pause_ms, 300_000])
    return replace(gang, checkpoint=declared, grace_ms=grace_ms), replace(job, saves=saves)


def _vary(gang: Gang, world: random.Random) -> Gang:
    serving = world.randrange(10) == 0
    return replace(
        gang,
        priority=world.choice([0, 0, 100]),
        service_class=ServiceClass.SERVING if serving else gang.service_class,
        preemptible=not serving,
        duration_ms=world.choice([None, None, _HOUR_MS]),
        max_restarts=world.choice([0, 3, 10]),
        restart_on_failure=world.randrange(10) > 0,
    )


def _faults(driver: Driver, world: random.Random, queues: list[Queue]) -> None:
    """Kill nodes, let others allocate, lower a limit. All of it ends: nodes are back or removed, devices given back."""
    names = sorted(driver.fleet.nodes)
    for name in world.sample(names, k=min(3, len(names) - 1)):
        at_ms = START_MS + world.randint(1_000, 2 * _HOUR_MS)
        after_ms = at_ms + world.choice([2_000, 60_000, 1_800_000])
        if world.randrange(3) == 0:
            driver.fleet.lose_node(name, at_ms, removed_ms=after_ms)
        else:
            driver.fleet.lose_node(name, at_ms, back_ms=after_ms)
    for _ in range(4):
        at_ms = START_MS + world.randint(0, 2 * _HOUR_MS)
        driver.fleet.take_foreign(world.choice(names), world.randint(1, 4), at_ms, at_ms + world.randint(1, _HOUR_MS))
    at_ms = START_MS + world.randint(1_000, _HOUR_MS)
    lowered = replace(queues[1], limit_gpus=max(queues[1].guaranteed_gpus, 8))
    driver.fleet.schedule(at_ms, QueueSeen(queue=lowered, at_ms=at_ms))


def _work_is_done(driver: Driver) -> None:
    """After the faults every gang has come to an end, or waits for a reason that no waiting can mend."""
    for view in driver.engine.gang_views(driver.now_ms):
        if view.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.REFUSED):
            continue
        final = view.refusal is not None and view.refusal.reason.kind in (Kind.NEVER, Kind.INVALID)
        if view.phase is not Phase.PENDING or not final:
            why = view.refusal.message if view.refusal else "no reason"
            raise PromiseBroken(f"the world is quiet and {view.namespace}/{view.name} is {view.phase}: {why}")
    if driver.fleet.pods:
        raise PromiseBroken(f"the world is quiet and pods are left: {sorted(driver.fleet.pods)}")
