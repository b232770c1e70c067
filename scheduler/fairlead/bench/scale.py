"""`bench scale`: how fast the engine decides about a backlog, on fleets of several sizes.

Order, place, verify and effects are inside the clock, and so is everything that state does with what comes back:
placements are answered at once, 2 % of the running gangs end per 1,000 decisions, and for every gang that is placed
another one comes, so that the backlog stays. What the engine keeps between cycles is empty when the clock starts; only
the fleet itself was taken up. A decision is a gang that was placed, or one for which a place was looked for in vain;
gangs that share its answer are not counted.
"""

from __future__ import annotations

import gc
import random
import resource
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fairlead.bench import scale_world
from fairlead.bench.scale_world import T0, URGENT, Submitters
from fairlead.model import events as ev
from fairlead.model.effects import Place, Refuse, Stop
from fairlead.model.gang import GangId
from fairlead.model.rules import Rules
from fairlead.ordering.backlog import Walk
from fairlead.placement.placer import Placer
from fairlead.planning import decide as deciding
from fairlead.planning import memo as memos
from fairlead.planning import quota_places
from fairlead.service import engine as engines
from fairlead.service.engine import Cycle, Engine
from fairlead.service.memory import calm_collector
from fairlead.world.snapshot import Photographer
from fairlead.world.state import ClusterState

ENDS_PER_DECISION = 0.02 / 1_000
"""Of the running gangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size's figures. `profile` is ms per decision by stage, empty unless asked for."""

    nodes: int
    gangs: int
    decisions: int
    placed: int
    seconds: float
    decisions_per_second: int
    new_gangs: int
    new_gang_ms_p50: float
    new_gang_ms_p99: float
    cycles: int
    cycle_ms_p50: float
    cycle_ms_p99: float
    violations: int
    rss_mib: int
    profile: dict[str, float] = field(default_factory=dict[str, float])


def run(nodes: int, gangs: int, *, seed: int = 42, rules: Rules | None = None, profiled: bool = False) -> Row:
    """Decide about a backlog of `gangs` until as many decisions are made, on a fleet of `nodes`."""
    stage = _Stage(nodes, gangs, seed, rules)
    spent: dict[str, float] = {}
    with stopwatch(spent) if profiled else _nothing():
        stage.work(gangs)
    per_decision = {name: round(1_000 * seconds / stage.decisions, 4) for name, seconds in spent.items()}
    if profiled:
        per_decision["apply"] = round(1_000 * stage.applying / stage.decisions, 4)
        per_decision["all"] = round(1_000 * stage.seconds / stage.decisions, 4)
    return Row(
        nodes=nodes,
        gangs=gangs,
        decisions=stage.decisions,
        placed=stage.placed,
        seconds=round(stage.seconds, 3),
        decisions_per_second=int(stage.decisions / stage.seconds),
        new_gangs=len(stage.first_answers),
        new_gang_ms_p50=quantile(stage.first_answers, 50),
        new_gang_ms_p99=quantile(stage.first_answers, 99),
        cycles=len(stage.cycles_ms),
        cycle_ms_p50=quantile(stage.cycles_ms, 50),
        cycle_ms_p99=quantile(stage.cycles_ms, 99),
        violations=stage.violations,
        rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        profile=per_decision,
    )


def quantile(values: list[float], percent: int) -> float:
    """Return the smallest value that so many percent do not exceed, to a hundredth; 0 of none."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2) if ordered else 0.0


class _Stage:
    """One engine, the gangs that run, and hands for the world outside."""

    def __init__(self, nodes: int, gangs: int, seed: int, rules: Rules | None) -> None:
        self.engine = Engine(rules)
        self._random = random.Random(f"{seed}/ends")
        self._moments = random.Random(f"{seed}/moments")
        self._submitters = Submitters(seed)
        fleet = list(scale_world.nodes(nodes))
        self.engine.take(scale_world.tenants())
        self.engine.take(ev.NodeSeen(node=node, at_ms=T0) for node in fleet)
        self.engine.take(scale_world.already_running(fleet, self._submitters, seed))
        self._running: list[GangId] = [r.id for r in self.engine.state.gangs.values() if r.current is not None]
        self.engine.world(T0)
        self.engine.take(ev.GangSeen(gang=self._submitters.gang(T0 + i), at_ms=T0 + i) for i in range(gangs))
        self._now_ms = T0 + gangs
        self._due = 0.0
        self._asked: dict[GangId, float] = {}
        self.decisions = self.placed = self.violations = 0
        self.seconds = self.applying = 0.0
        self.first_answers: list[float] = []
        self.cycles_ms: list[float] = []
        del fleet
        gc.collect()
        calm_collector()
        gc.freeze()  # what was there before the clock started is not looked through again and again

    def work(self, decisions: int) -> None:
        """Go on until so many decisions are made."""
        while self.decisions < decisions:
            self._now_ms += 1
            began = time.perf_counter()
            cycle = self.engine.cycle(self._now_ms)
            ended = time.perf_counter()
            self._note(cycle, began, ended)
            facts = list(self._answers(cycle))
            submitted = self._arrivals(sum(isinstance(effect, Place) for effect in cycle.effects), began, ended)
            outside = time.perf_counter()
            self.engine.take(facts)
            self.engine.take(submitted)
            applied = time.perf_counter() - outside
            self.applying += applied
            self.seconds += ended - began + applied

    def _note(self, cycle: Cycle, began: float, ended: float) -> None:
        """Count what a cycle decided, and how long it took for those who had come since the last one."""
        answered = {effect.gang for effect in cycle.plan.effects if isinstance(effect, Place | Refuse)}
        self.cycles_ms.append(1_000 * (ended - began))
        self.violations += len(cycle.violations)
        self.decisions += cycle.plan.looked
        for gang in [gang for gang in self._asked if gang in answered or self._is_told(gang)]:
            self.first_answers.append(1_000 * (ended - self._asked.pop(gang)))

    def _is_told(self, gang: GangId) -> bool:
        return self.engine.state.gangs[gang].refusal is not None

    def _answers(self, cycle: Cycle) -> Iterator[ev.Event]:
        """Yield what a cluster that is never late would say to the effects, and the ends of some gangs."""
        now_ms, running = self._now_ms, self._running
        for effect in cycle.effects:
            match effect:
                case Place(gang=gang, attempt=attempt):
                    self.placed += 1
                    running.append(gang)
                    yield ev.Bound(gang=gang, attempt=attempt, at_ms=now_ms)
                    for member in effect.placement.members:
                        yield ev.MemberRunning(gang=gang, attempt=attempt, rank=member.rank, at_ms=now_ms)
                case Stop(gang=gang, attempt=attempt):
                    for rank in sorted(self._held(gang)):
                        yield ev.MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=now_ms)
                case _:
                    pass
        self._due += ENDS_PER_DECISION * len(running) * cycle.plan.looked
        if not cycle.plan.looked and not cycle.more:  # everybody has an answer; time passes until somebody ends
            self._due = max(self._due, 1.0)
        while self._due >= 1 and running:
            self._due -= 1
            at = self._random.randrange(len(running))
            running[at], running[-1] = running[-1], running[at]
            yield from self._end(running.pop())

    def _held(self, gang: GangId) -> Iterable[int]:
        attempt = self.engine.state.gangs[gang].current
        return () if attempt is None else attempt.holding

    def _end(self, gang: GangId) -> Iterator[ev.Event]:
        record = self.engine.state.gangs.get(gang)
        attempt = None if record is None else record.current
        if attempt is not None and attempt.stop is None:
            for rank in sorted(attempt.holding):
                yield ev.MemberEnded(
                    gang=gang, attempt=attempt.number, rank=rank, succeeded=True, detail="", at_ms=self._now_ms
                )

    def _arrivals(self, count: int, began: float, ended: float) -> list[ev.Event]:
        """Return new gangs for those that were placed; one of each batch is urgent, and its first answer is timed.

        It came at some moment while the last cycle was at work.
        """
        facts: list[ev.Event] = []
        for position in range(count):
            gang = self._submitters.gang(self._now_ms, priority=None if position else URGENT)
            if not position:
                self._asked[gang.id] = began + self._moments.random() * (ended - began)
            facts.append(ev.GangSeen(gang=gang, at_ms=self._now_ms))
        return facts


# --- where the time goes ----------------------------------------------------------------------------------------------


@contextmanager
def _nothing() -> Generator[None]:
    yield


@contextmanager
def stopwatch(spent: dict[str, float]) -> Generator[None]:
    """Add the seconds of each stage to `spent`; stages inside others are taken off those."""
    nested: list[float] = []

    def timed(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **more: object) -> object:
            began = time.perf_counter()
            nested.append(0.0)
            try:
                return call(*args, **more)
            finally:
                took = time.perf_counter() - began
                spent[name] = spent.get(name, 0.0) + took - nested.pop()
                if nested:
                    nested[-1] += took

        return wrapper

    stages: list[tuple[str, object, str]] = [
        ("snapshot", Photographer, "take"),
        ("care", deciding, "care"),
        ("order", quota_places, "Standing"),
        ("order", Walk, "step"),
        ("follow", deciding.Memo, "placer_for"),
        ("place", Placer, "place"),
        ("make room", deciding, "look_for_room_by_excess"),
        ("why not", memos, "why_never"),
        ("why not", deciding, "why_not_now"),
        ("decide (rest)", engines, "decide"),
        ("verify", engines, "violations"),
        ("state", ClusterState, "apply_all"),
        ("views", Engine, "touched"),
        ("cycle (rest)", Engine, "cycle"),
    ]
    before = [(owner, attribute, getattr(owner, attribute)) for _, owner, attribute in stages]
    for name, owner, attribute in stages:
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
    try:
        yield
    finally:
        for owner, attribute, call in before:
            setattr(owner, attribute, call)
