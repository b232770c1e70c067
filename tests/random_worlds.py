"""Random worlds for property tests, and a long life in one: what hypothesis draws, and what must hold after each step.

`FAIRLEAD_EXAMPLES=20` looks at twenty times as many worlds, each time others.
"""

from __future__ import annotations

import os
from dataclasses import replace

import builders
from builders import T0, Stage, tell
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, GangId
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.placement.refusals import unknown_level, why_never
from fairlead.placement.score import Score
from fairlead.world.overlay import Overlay
from fairlead.world.takings import OUTSIDE as OF_THE_WORLD

MORE = int(os.environ.get("FAIRLEAD_EXAMPLES", "0"))


def examples(count: int):
    return settings(
        max_examples=count * max(1, MORE),
        deadline=None,
        derandomize=not MORE,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


# --- what worlds look like --------------------------------------------------------------------------------------------

QUEUES = {
    "org": "guaranteed=8",
    "kid": "parent=org guaranteed=4 ns=ns",
    "sis": "parent=org limit=6 ns=ns",
    "solo": "guaranteed=2 weight=3 ns=ns",
    "poor": "ns=ns",
}
OWNERS = sorted(set(QUEUES) - {"org"})


@st.composite
def node_texts(draw, *, small: bool = False) -> str:
    gpus = draw(st.sampled_from([1, 2, 3] if small else [2, 4, 8]))
    text = f"{gpus} rack={draw(st.sampled_from(['r1', 'r2']))} cpu={draw(st.sampled_from([2, 4, 64]))}"
    if draw(st.integers(0, 3)) == 0:
        text += f" clique={draw(st.sampled_from(['c1', 'c2']))}"
    if draw(st.integers(0, 5)) == 0:
        text += " unhealthy=0"
    if draw(st.integers(0, 7)) == 0:
        text += " taint=keep:off"
    return text


@st.composite
def node_lists(draw, *, small: bool = False):
    texts = draw(st.lists(node_texts(small=small), min_size=1, max_size=3 if small else 5))
    return [builders.node(f"n{i}", text) for i, text in enumerate(texts)]


@st.composite
def gang_texts(draw, *, roles: int = 2, largest: int = 8) -> str:
    parts = []
    for role in ("worker", "ps")[: draw(st.integers(1, roles))]:
        parts.append(
            f"{role}:{draw(st.integers(1, 3))}x{draw(st.sampled_from([g for g in (0, 1, 2, 4, 8) if g <= largest]))}"
        )
    parts.append(f"queue={draw(st.sampled_from(OWNERS))} ns=ns cpu={draw(st.sampled_from([0, 1, 2]))}")
    parts.append(f"priority={draw(st.integers(0, 2))}")
    parts.append(draw(st.sampled_from(["", "", "within=rack", "near=rack", "within=island", "within=node"])))
    parts.append(draw(st.sampled_from(["", "", "", "fixed", "tolerate=keep", "port=80", "restarts=1"])))
    return " ".join(parts)


def a_stage(nodes, queues=QUEUES) -> Stage:
    return Stage(nodes, [builders.queue(name, text) for name, text in queues.items()])


def ask(nodes, spec: Gang, busy: dict[str, tuple[str, ...]] | None = None):
    """Ask the placement alone; returns (placement or None, why never or None, world)."""
    engine = Stage(nodes).engine
    for name, devices in (busy or {}).items():
        engine.take([ev.ForeignDevices(name=NodeName(name), devices=devices, at_ms=T0)])
    world = engine.world(T0)
    feasibility = Feasibility(world.inventory, world.pools)
    if unknown_level(spec, world.inventory) is not None:
        return None, unknown_level(spec, world.inventory), world
    found = Placer(Overlay(world), feasibility, Score()).place(spec).placement
    return found, why_never(spec, world.offered, world.inventory, feasibility), world


# --- long random lives ------------------------------------------------------------------------------------------------

OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit"] * 6
            + ["answer"] * 5
            + ["fail", "lose", "back", "gone", "join", "foreign", "used", "limit", "suspend", "resume", "delete"]
            + ["again", "again", "wait", "conflict", "sick", "refuse"]
        ),
        st.integers(0, 10_000),
        gang_texts(),
    ),
    min_size=5,
    max_size=40,
)
OUTSIDE = (
    ev.NodeSeen, ev.NodeUsed, ev.ForeignDevices, ev.QueueSeen, ev.GangSeen, ev.Bound, ev.PlaceFailed,
    ev.MemberRunning, ev.MemberEnded, ev.MemberReleased,
)  # fmt: skip


class Life:
    """Plays random operations on a stage; what the cluster answers is drawn too."""

    def __init__(self, nodes, queues=QUEUES) -> None:
        self.stage = a_stage(nodes, queues)
        self.first = {node.name: node for node in nodes}
        self.count = 0

    def pick(self, number: int, phases: set[Phase]) -> str | None:
        found = sorted(name for name, record in self.stage.state.gangs.items() if record.phase in phases)
        return found[number % len(found)] if found else None

    def do(self, op: str, number: int, text: str) -> None:
        stage = self.stage
        node = sorted(self.first)[number % len(self.first)]
        match op:
            case "submit":
                self.count += 1
                stage.submit(f"g{self.count}", text)
            case "answer":
                self.answer(number)
            case "fail" if name := self.pick(number, {Phase.STARTING, Phase.RUNNING}):
                stage.end(name, 0, succeeded=number % 3 == 0)
            case "conflict" if name := self.pick(number, {Phase.PLACING}):
                members = len(stage.attempt(name).placement.members)
                stage.fail_place(name, released=tuple(range(number % (members + 1))))
            case "lose" if node in stage.state.nodes:
                stage.change_node(node, not_ready_since_ms=stage.now_ms)
            case "back" | "join":
                stage.take(ev.NodeSeen(node=self.first[node], at_ms=stage.now_ms))
            case "gone":
                stage.take(ev.NodeGone(name=node, at_ms=stage.now_ms))
            case "sick" if node in stage.state.nodes:
                machine = stage.state.nodes[node].machine
                gpus = (replace(machine.gpus[0], healthy=not machine.gpus[0].healthy), *machine.gpus[1:])
                stage.change_node(node, machine=replace(machine, gpus=gpus))
            case "foreign":
                devices = tuple(f"gpu-{i}" for i in range(number % 3))
                stage.take(ev.ForeignDevices(name=node, devices=devices, at_ms=stage.now_ms))
            case "used":
                taken = replace(builders.node("x", "1").allocatable, cpu_milli=number % 4000, memory_bytes=0, pods=1)
                stage.take(ev.NodeUsed(name=node, taken=replace(taken, ephemeral_bytes=0), at_ms=stage.now_ms))
            case "limit":
                name = sorted(QUEUES)[number % len(QUEUES)]
                spec = replace(builders.queue(name, QUEUES[name]), limit_gpus=number % 12 or None)
                stage.take(ev.QueueSeen(queue=spec, at_ms=stage.now_ms))
            case "suspend" | "resume" if stage.specs:
                name = sorted(stage.specs)[number % len(stage.specs)]
                if GangId(name) in stage.state.gangs:
                    stage.change(name, suspended=op == "suspend")
            case "refuse" if name := self.pick(number, {Phase.PENDING, Phase.SUSPENDED}):
                spec = stage.specs[name]
                cause = builders.refuse(Reason.UNSUPPORTED_FIELD, field="spec.x", mend="remove it")
                stage.take(
                    ev.GangRefused(
                        gang=spec.id, namespace="ns", name=name, queue=spec.queue, refusal=cause, at_ms=stage.now_ms
                    )
                )
            case "delete" if stage.specs:
                stage.delete(sorted(stage.specs)[number % len(stage.specs)])
            case "again":
                old = [fact for fact in stage.facts if isinstance(fact, OUTSIDE)]
                live = [f for f in old if not isinstance(f, ev.GangSeen) or f.gang.id in stage.state.gangs]
                stage.take(live[number % len(live)])
            case "wait":
                stage.now_ms += number * 7

    def answer(self, number: int) -> None:
        """Let the cluster do one thing that it owes us."""
        stage = self.stage
        name = self.pick(number, {Phase.PLACING, Phase.STARTING, Phase.STOPPING})
        if name is None:
            return
        attempt = stage.attempt(name)
        match stage.state.gangs[name].phase:
            case Phase.PLACING:
                stage.bind(name)
            case Phase.STARTING:
                for rank in range(len(attempt.placement.members)):
                    stage.take(stage.member(ev.MemberRunning, name, rank))
            case _:
                held = sorted(attempt.holding)
                living = [r for r in held if attempt.member(r).node in stage.state.nodes]
                if living:
                    stage.release(name, living[number % len(living)])

    def quiet(self, rounds: int = 60) -> int:
        """Answer everything until nothing more happens; returns how many rounds that took."""
        for done in range(rounds):
            before = len(self.stage.effects)
            self.stage.settle()
            owed = 0
            for name in sorted(self.stage.state.gangs):
                record = self.stage.state.gangs[name]
                if record.phase is Phase.PLACING:
                    self.stage.run(name)
                    owed += 1
                elif record.phase is Phase.STOPPING:
                    self.stage.release(name)
                    owed += 1
            if len(self.stage.effects) == before and not owed:
                return done
        last = "\n".join(tell(effect) for effect in self.stage.effects[-12:])
        raise AssertionError(f"not quiet after {rounds} rounds:\n{last}")


def takings_between_facts_from_outside(stage: Stage) -> list[list[str]]:
    """Return who was given room, in order, between one fact from outside and the next."""
    bouts: list[list[str]] = [[]]
    for fact in stage.facts:
        if type(fact) in OF_THE_WORLD:
            bouts.append([])
        elif isinstance(fact, ev.Nominated):
            bouts[-1].append(fact.gang)
    return bouts


def sound(stage: Stage) -> None:
    """What must hold of the state after every fact."""
    state = stage.state
    held: dict[tuple[str, str], object] = {}
    for key, hold in state.holds.items():
        for device in hold.devices:
            other = held.setdefault((hold.node, device), key)
            assert other == key, f"{hold.node}/{device} is held by {other} and {key}"
        assert state.holds_on[hold.node][key] is hold
    assert sum(len(on) for on in state.holds_on.values()) == len(state.holds)
    charged: dict[str, int] = {}
    for record in state.gangs.values():
        if record.current is not None:
            for rank in record.current.holding:
                hold = state.holds[record.id, record.current.number, rank]
                charged[hold.queue] = charged.get(hold.queue, 0) + 1000 * len(hold.devices)
    assert {q: n for q, n in state.queue_gpu_milli.items() if n} == {q: n for q, n in charged.items() if n}
    assert all(n >= 0 for n in state.queue_gpu_milli.values())
    world = stage.engine.world(stage.now_ms)
    for row, node in enumerate(world.inventory.nodes):
        free = set(world.inventory.devices(row, int(world.free.free_mask[row])))
        assert not free & {device for name, device in held if name == node.name}
        assert not free & set(state.foreign.get(node.name, ()))
        assert free <= {gpu.device for gpu in node.machine.gpus if gpu.healthy}
