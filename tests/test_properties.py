"""What no list of cases covers: safety, monotony, idempotence and an end to it, on random worlds.

`FAIRLEAD_EXAMPLES=20` looks at twenty times as many worlds, each time others.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import builders
import pytest
from builders import GIB, T0, Stage, tell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.model import events as ev
from fairlead.model.effects import Nominate, Phase, Place, Stop
from fairlead.model.gang import Gang, GangId
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Kind, Reason
from fairlead.ordering.fair_share import entitlements
from fairlead.placement.feasible import Feasibility
from fairlead.placement.pack_gang import place, unknown_level, why_never
from fairlead.planning.verify import violations
from fairlead.service.engine import Engine
from fairlead.world.overlay import Overlay

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
    found = place(spec, Overlay(world), feasibility)
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

    def __init__(self, nodes) -> None:
        self.stage = a_stage(nodes)
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
                charged[hold.queue] = charged.get(hold.queue, 0) + len(hold.devices)
    assert {q: n for q, n in state.queue_gpus.items() if n} == {q: n for q, n in charged.items() if n}
    assert all(n >= 0 for n in state.queue_gpus.values())
    world = stage.engine.world(stage.now_ms)
    for row, node in enumerate(world.inventory.nodes):
        free = set(world.inventory.devices(row, int(world.free.free_mask[row])))
        assert not free & {device for name, device in held if name == node.name}
        assert not free & set(state.foreign.get(node.name, ()))
        assert free <= {gpu.device for gpu in node.machine.gpus if gpu.healthy}


@given(node_lists(), OPS)
@examples(60)
def test_no_device_is_held_twice_and_no_plan_breaks_a_promise(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()  # asserts that verify had nothing to say
        sound(life.stage)


@given(node_lists(), OPS)
@examples(50)
def test_whatever_happened_the_system_settles(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        if op[1] % 2:
            life.stage.settle()
    life.stage.now_ms += 10_000_000  # past every backoff, deadline and nomination
    life.quiet()
    sound(life.stage)
    for view in life.stage.engine.gang_views(life.stage.now_ms):
        if view.phase in (Phase.PENDING, Phase.REFUSED, Phase.SUSPENDED, Phase.FAILED):
            assert view.refusal is not None, view
            assert view.refusal.reason is not Reason.AWAITING_CYCLE, view
            assert "{" not in view.refusal.message


@given(node_lists(), OPS)
@examples(40)
def test_a_fact_that_is_told_twice_changes_nothing(nodes, ops) -> None:
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()
    once, twice = Engine(), Engine()
    for fact in life.stage.facts:
        once.take([fact])
        twice.take([fact, fact])
        assert dump(once) == dump(twice), fact


def dump(engine: Engine) -> object:
    """Everything in state but counters and what is only remembered for speed."""
    state = engine.state
    gangs = {
        name: (
            record.gang, record.queue, record.phase, record.attempts, record.restarts, record.failures_in_row,
            record.refusal, record.retry_at_ms, record.nomination, record.gone, record.started_ms, record.finished_ms,
            record.past_gpu_ms, record.lost_gpu_ms, record.current and repr(record.current),
        )
        for name, record in state.gangs.items()
    }  # fmt: skip
    used = {name: (fact.taken, fact.host_ports) for name, fact in state.used.items()}
    return (
        gangs, dict(state.nodes), set(state.lost), used, dict(state.foreign), dict(state.queues), dict(state.pools),
        dict(state.holds), {q: n for q, n in state.queue_gpus.items() if n},
    )  # fmt: skip


@given(node_lists(), OPS, st.randoms(use_true_random=False))
@examples(40)
def test_facts_in_any_order_do_not_bring_the_state_down(nodes, ops, shuffler) -> None:
    """The watch of one kind of object may be far behind another's; our own intentions always come first."""
    life = Life(nodes)
    for op in ops:
        life.do(*op)
        life.stage.settle()
    late = [fact for fact in life.stage.facts if isinstance(fact, OUTSIDE)]
    shuffler.shuffle(late)
    for fact in late:
        if not isinstance(fact, ev.GangSeen) or fact.gang.id in life.stage.state.gangs:
            life.stage.take(fact)
            sound(life.stage)
    life.stage.settle()


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=12), gang_texts())
@examples(150)
def test_every_taking_is_rightful_and_improves_the_potential(nodes, texts, last) -> None:
    life = Life(nodes)
    for i, text in enumerate(texts):
        life.stage.submit(f"g{i}", text)
        life.quiet()
    stage = life.stage
    used = dict(stage.state.queue_gpus)
    quotas = stage.state.queues
    hopeful = [r for r in stage.state.gangs.values() if r.phase is Phase.PENDING and r.refusal is not None]
    demand = dict(used)
    for record in hopeful:
        if record.refusal.reason.kind is Kind.NOT_NOW:
            demand[record.queue] = demand.get(record.queue, 0) + record.gang.gpus
    spec = stage.submit("last", last)
    demand[spec.queue] = demand.get(spec.queue, 0) + spec.gpus
    world = stage.engine.world(stage.now_ms)
    free = sum(int(m).bit_count() for m, ok in zip(world.free.free_mask, world.inventory.usable, strict=True) if ok)
    entitled = entitlements(free + sum(used.values()), quotas, demand)
    running = {record.id: record for record in stage.state.gangs.values()}
    effects = stage.settle()
    for nomination in [e for e in effects if isinstance(e, Nominate) and e.gang == "last"]:
        after = dict(used)
        foreign = False
        for victim, _ in nomination.victims:
            record = running[victim]
            assert record.gang.preemptible
            after[record.queue] -= record.gang.gpus
            if record.queue == spec.queue:
                assert record.gang.priority < spec.priority
            else:
                foreign = True
        after[spec.queue] = after.get(spec.queue, 0) + spec.gpus
        if foreign:
            assert excess(after, entitled) < excess(used, entitled)
            assert used.get(spec.queue, 0) + spec.gpus <= entitled[spec.queue]
    life.quiet()


def excess(used: dict[str, int], entitled: dict[str, int]) -> int:
    return sum(max(0, gpus - entitled[name]) for name, gpus in used.items())


# --- placement --------------------------------------------------------------------------------------------------------


def cells(world, spec: Gang, *, everything: bool):
    """Per node what brute force may use: (name, free devices, cpu, levels)."""
    found = []
    for row, node in enumerate(world.inventory.nodes):
        healthy = {gpu.device for gpu in node.machine.gpus}
        devices = healthy if everything else set(world.inventory.devices(row, int(world.free.free_mask[row])))
        cpu = int((world.offered if everything else world.free).cpu_milli[row])
        levels = {name: int(level.domain_of[row]) for name, level in world.inventory.levels.items()}
        if any(t.key not in {x.key for x in spec.roles[0].pod.tolerations} for t in node.taints):
            devices, cpu = set(), -1
        found.append((devices, cpu, levels))
    return found


def brute_force(world, spec: Gang, *, everything: bool) -> bool:
    """Try every node for every member; devices of plain machines are all alike, so counting them is exact."""
    nodes = cells(world, spec, everything=everything)
    wish = spec.topology
    members = [role for role in spec.roles for _ in range(role.replicas)]
    for chosen in itertools.product(range(len(nodes)), repeat=len(members)):
        if wish is not None and wish.required:
            domains = {nodes[i][2].get(wish.within, -1) for i in chosen}
            if len(domains) > 1 or -1 in domains:
                continue
        fits = True
        for i, (devices, cpu, _) in enumerate(nodes):
            here = [members[k] for k, at in enumerate(chosen) if at == i]
            if not here:
                continue
            fits = fits and cpu >= 0
            fits = fits and sum(role.gpus for role in here) <= len(devices)
            fits = fits and sum(role.pod.requests.cpu_milli for role in here) <= cpu
            fits = fits and (len(here) <= 1 or not spec.roles[0].pod.host_ports)
        if fits:
            return True
    return False


@given(node_lists(small=True), gang_texts(roles=1, largest=2), st.integers(0, 7))
@examples(250)
def test_one_role_is_placed_whenever_brute_force_finds_a_way(nodes, text, taken) -> None:
    spec = builders.gang("g", text)
    busy = {"n0": tuple(f"gpu-{i}" for i in range(3) if taken >> i & 1)}
    found, never, world = ask(nodes, spec, busy)
    if never is not None and never.reason is Reason.UNKNOWN_LEVEL:
        return
    assert (found is not None) == brute_force(world, spec, everything=False)
    if never is not None:
        assert not brute_force(world, spec, everything=True)


@given(node_lists(small=True), gang_texts(roles=2, largest=2))
@examples(150)
def test_never_is_said_only_where_no_state_of_the_cluster_would_do(nodes, text) -> None:
    spec = builders.gang("g", text)
    found, never, world = ask(nodes, spec)
    if never is None or never.reason is Reason.UNKNOWN_LEVEL:
        return
    assert found is None
    assert not brute_force(world, spec, everything=True)


@given(node_lists(), gang_texts(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=12), st.data())
@examples(200)
def test_more_free_devices_never_turn_yes_into_no(nodes, text, taken, data) -> None:
    spec = builders.gang("g", text)
    busy: dict[str, set[str]] = {}
    for row, device in taken:
        busy.setdefault(f"n{row % len(nodes)}", set()).add(f"gpu-{device}")
    some = data.draw(st.integers(0, len(taken)))
    freer: dict[str, set[str]] = {}
    for row, device in taken[:some]:
        freer.setdefault(f"n{row % len(nodes)}", set()).add(f"gpu-{device}")
    before, _, _ = ask(nodes, spec, {name: tuple(sorted(d)) for name, d in busy.items()})
    after, _, _ = ask(nodes, spec, {name: tuple(sorted(d)) for name, d in freer.items()})
    assert before is None or after is not None


@given(node_lists(), gang_texts(), st.permutations(range(5)))
@examples(150)
def test_the_names_of_equal_nodes_decide_nothing(nodes, text, order) -> None:
    spec = builders.gang("g", text)
    renamed = [replace(node, name=NodeName(f"n{order[i]}"), device_pool=f"n{order[i]}") for i, node in enumerate(nodes)]
    first, never, _ = ask(nodes, spec)
    second, never_too, _ = ask(renamed, spec)
    assert (first is None) == (second is None)
    assert (never is None) == (never_too is None)
    if first is not None and second is not None:
        assert first.level == second.level


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=8))
@examples(80)
def test_the_same_world_gives_the_same_plan_and_verify_agrees(nodes, texts) -> None:
    plans = []
    for _ in range(2):
        stage = a_stage(nodes)
        for i, text in enumerate(texts):
            stage.submit(f"g{i}", text)
        world = stage.engine.world(stage.now_ms)
        plan = stage.engine.cycle(stage.now_ms).plan
        assert violations(plan, world) == []
        plans.append(plan)
    assert plans[0] == plans[1]


@given(node_lists(), st.lists(gang_texts(), min_size=1, max_size=8), st.integers(1, 3))
@examples(60)
def test_slices_place_no_fewer_gangs_than_one_walk(nodes, texts, slice_size) -> None:
    """A cycle may be cut anywhere: nobody is forgotten, and nobody is placed twice."""
    stage = a_stage(nodes)
    stage.state.rules = replace(stage.state.rules, gangs_per_slice=slice_size)
    for i, text in enumerate(texts):
        stage.submit(f"g{i}", text)
    placed = [effect.gang for effect in stage.settle() if isinstance(effect, Place)]
    assert len(placed) == len(set(placed))
    for record in stage.state.gangs.values():
        waits = record.phase is Phase.PENDING
        assert not waits or record.refusal is not None, record.id


def test_a_stop_by_somebody_belongs_to_a_nomination() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("a", "guaranteed=8"), builders.queue("b")])
    stage.submit("victim", "1x8 queue=b")
    stage.settle()
    stage.run("victim")
    stage.submit("taker", "1x8 queue=a")
    effects = stage.settle()
    stops = [effect for effect in effects if isinstance(effect, Stop)]
    named = [victim for effect in effects if isinstance(effect, Nominate) for victim in effect.victims]
    assert [(stop.gang, stop.attempt) for stop in stops] == named
    assert {stop.by for stop in stops} == {"taker"}


@pytest.mark.parametrize("memory_gib", [0, 80, 81])
def test_memory_is_compared_in_bytes(memory_gib: int) -> None:
    spec = builders.gang("g", "1x1")
    spec = replace(spec, roles=(replace(spec.roles[0], gpu_memory_bytes=memory_gib * GIB),))
    found, _, _ = ask([builders.node("n0", "1 memory=80")], spec)
    assert (found is not None) == (memory_gib <= 80)
