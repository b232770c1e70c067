"""MIG instances and shares in the engine: columns against a count by hand, planted bugs, published packings."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import T0, Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import Life, examples
from test_mig_pack import parvagpu

from fairlead.model import events as ev
from fairlead.model.effects import Place
from fairlead.model.gang import Isolation
from fairlead.model.hardware import NodeName
from fairlead.planning.decide import decide
from fairlead.planning.verify import violations
from fairlead.service.engine import Engine
from fairlead.world.fleet import may_join
from fairlead.world.overlay import Overlay

NODES = {
    "n0": "2 mig=dynamic",
    "n1": "2 mig=3g.40gb@0,1g.10gb@4,1g.10gb@5",
    "n2": "2 mig=7g.80gb@0/-",
    "n3": "1 mig=4g.40gb@0,2g.20gb@4,1g.10gb+me@6",
}
PROFILES = ("1g.10gb", "1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "1g.10gb+me")
QUEUES = {"team": "ns=ns", "bank": "ns=ns guaranteed=1", "poor": "ns=ns limit=2"}


@st.composite
def part_texts(draw) -> str:
    ask = draw(st.sampled_from([f"{n}x0 mig={p}" for n in (1, 2, 3) for p in PROFILES] + ["1x1", "2x0 share=400"]))
    words = draw(st.sampled_from(["", "", "strict", "priority=1", "priority=2"]))
    return f"{ask} {words} ns=ns cpu=0 queue={draw(st.sampled_from(sorted(QUEUES)))}"


OPS = st.lists(
    st.tuples(
        st.sampled_from(["submit"] * 6 + ["answer"] * 6 + ["fail"] * 3 + ["lose", "back", "sick", "foreign", "wait"]),
        st.integers(0, 10_000),
        part_texts(),
    ),
    min_size=5,
    max_size=30,
)
THEIRS = ((), ("gpu-0",), ("gpu-0-mig-1g10gb-19-4",), ("gpu-1-mig-3g40gb-9-0", "gpu-1-mig-4g40gb-5-0"), ("gpu-9",))


class PartLife(Life):
    """A life in which everybody asks for parts."""

    def __init__(self) -> None:
        nodes = [builders.node(name, text) for name, text in NODES.items()]
        self.stage = Stage(nodes, [builders.queue(name, text) for name, text in QUEUES.items()])
        self.first = {node.name: node for node in nodes}
        self.count = 0

    def do(self, op: str, number: int, text: str) -> None:
        if op == "foreign":
            name = sorted(self.first)[number % len(self.first)]
            theirs = THEIRS[number % len(THEIRS)]
            self.stage.take(ev.ForeignDevices(name=NodeName(name), devices=theirs, at_ms=self.stage.now_ms))
        else:
            super().do(op, number, text)


def laid(stage: Stage):
    """(node, device) -> (profile, start, queue, strict) of every instance that somebody holds, from the holds alone."""
    found: dict[tuple[str, str], list] = {}
    for (gang, attempt, rank), hold in stage.state.holds.items():
        spec = stage.specs[gang]
        record = stage.state.gangs[gang]
        member = record.current.placement.members[rank]
        assert record.current.number == attempt
        role = next(r for r in spec.roles if r.name == member.role)
        if role.mig:
            strict = spec.isolation is Isolation.STRICT
            found.setdefault((hold.node, member.devices[0]), []).append(
                (role.mig, member.mig_start, spec.queue, strict)
            )
    return found


def check_columns(stage: Stage) -> None:
    world = stage.engine.world(stage.now_ms)
    here = laid(stage)
    for row, node in enumerate(world.inventory.nodes):
        for bit, gpu in enumerate(node.machine.gpus):
            state, mine = int(world.free.mig_state[row, bit]), here.pop((node.name, gpu.device), [])
            free = int(world.free.free_mask[row]) >> bit & 1
            assert not (mine and free), "a GPU with instances is not free whole"
            tenants = {queue for _, _, queue, _ in mine}
            assert len(tenants) < 2 or not any(strict for *_, strict in mine), mine
            if state < 0:  # who contradicts: no grid, or others hold it whole beside instances
                assert gpu.mig is None or stage.state.foreign.get(node.name)
                continue
            grid = world.inventory.mig.grid(row, bit)
            layout = Counter(grid.layout(state))
            ours = Counter((profile, start) for profile, start, _, _ in mine)
            assert not ours - layout, "what we hold is taken"
            assert stage.state.foreign.get(node.name) or layout == ours
            if mine and not stage.state.foreign.get(node.name):
                group = np.array([int(world.free.group[row, bit])])
                for queue in ("team", "bank", "poor"):
                    for strict in (False, True):
                        prefix = "/strict-mig:" if strict else "/mig:"
                        alone = all(q == queue for q in tenants)
                        quiet = not any(s for _, _, q, s in mine if q != queue)
                        number = world.free.group_number(prefix + queue)
                        assert bool(may_join(number, group)[0]) == (alone if strict else quiet)
    assert not here, "somebody holds what is not there"
    anew = Engine(stage.engine.state.rules)
    anew.take(stage.facts)
    other = anew.world(stage.now_ms)
    for mine, theirs in zip(world.free.arrays(), other.free.arrays(), strict=True):
        same = mine == theirs
        assert same.all() or mine is world.free.group  # numbers of groups depend on who came first
    assert world.free.residents.keys() == other.free.residents.keys()
    assert (world.part_free_milli == other.part_free_milli).all()
    assert world.capacity_milli == other.capacity_milli


@given(OPS)
@examples(60)
def test_columns_equal_a_count_by_hand_through_a_long_life(ops) -> None:
    life = PartLife()
    for op, number, text in ops:
        life.do(op, number, text)
        life.stage.settle()  # asserts that the second opinion finds nothing
        check_columns(life.stage)
        world = life.stage.engine.world(life.stage.now_ms)
        assert decide(world, life.stage.engine._memo).effects == decide(world).effects
    life.quiet()


@given(OPS, st.data())
@examples(40)
def test_what_if_is_undone_exactly(ops, data) -> None:
    life = PartLife()
    for op, number, text in ops:
        life.do(op, number, text)
        life.stage.settle()
    world = life.stage.engine.world(life.stage.now_ms)
    overlay = Overlay(world)
    mark = overlay.checkpoint()
    running = sorted(world.running, key=lambda attempt: attempt.gang)
    for attempt in data.draw(st.permutations(running)) if running else ():
        overlay.release([attempt])
    overlay.roll_back(mark)
    for mine, theirs in zip(overlay.columns.arrays(), world.free.arrays(), strict=True):
        assert (mine == theirs).all()
    assert overlay.columns.residents == world.free.residents


# --- the second opinion -----------------------------------------------------------------------------------------------


def a_plan(text: str, before: str = ""):
    stage = Stage(
        [builders.node("n1", "2 mig=3g.40gb@0,1g.10gb@4,1g.10gb@5"), builders.node("n2", "2 mig=dynamic")],
        [builders.queue("team"), builders.queue("bank")],
    )
    if before:
        stage.submit("before", before)
        stage.settle()
    stage.submit("a", text)
    world = stage.engine.world(stage.now_ms)
    plan = decide(world)
    assert [type(effect) for effect in plan.effects] == [Place], plan
    assert violations(plan, world) == []
    return world, plan


def moved(**fields):
    def change(effect: Place) -> Place:
        members = (replace(effect.placement.members[0], **fields), *effect.placement.members[1:])
        return replace(effect, placement=replace(effect.placement, members=members))

    return change


PLANTED = [
    ("1x0 mig=1g.10gb", "", moved(mig_start=0), "is not cut into a 1g.10gb at 0"),
    ("1x0 mig=3g.40gb", "", moved(mig_start=2), "has no 3g.40gb at 2"),
    ("1x0 mig=1g.10gb", "", moved(share_milli=143), "1 of 8 units, 143 are charged"),
    ("1x0 mig=3g.40gb", "1x0 mig=3g.40gb", moved(devices=("gpu-0",)), "overlaps the 3g.40gb at 0"),
    ("2x0 mig=1g.10gb", "", moved(mig_start=5), "overlaps the 1g.10gb at 5"),
    ("1x0 mig=1g.10gb strict queue=bank", "1x0 mig=1g.10gb", moved(devices=("gpu-0",), mig_start=5), "is strict"),
    ("1x0 mig=1g.10gb", "1x0 mig=1g.10gb strict queue=bank", moved(devices=("gpu-0",), mig_start=5), "is strict"),
    ("1x0 mig=1g.10gb", "1x1", moved(node="n2", devices=("gpu-0",)), "is not free"),
    ("1x1", "1x0 mig=4g.40gb", moved(devices=("gpu-0",)), "is not free"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "before", "change", "said"), PLANTED)
def test_a_planted_bug_with_instances_is_named(text, before, change, said) -> None:
    world, plan = a_plan(text, before)
    spoilt = replace(plan, effects=tuple(change(effect) for effect in plan.effects))
    assert any(said in violation.text for violation in violations(spoilt, world)), violations(spoilt, world)


def test_instances_and_a_whole_gpu_in_one_plan_are_seen() -> None:
    stage = Stage(
        [builders.node("n1", "1 mig=dynamic"), builders.node("n2", "1 mig=dynamic")], [builders.queue("team")]
    )
    stage.submit("a", "1x0 mig=1g.10gb")
    stage.submit("b", "1x1")
    world = stage.engine.world(stage.now_ms)
    plan = decide(world)
    to = {e.gang: e.placement.members[0].node for e in plan.effects}
    assert to["a"] != to["b"]
    for gang in ("a", "b"):
        spoilt = replace(
            plan,
            effects=tuple(
                moved(node=to["b" if gang == "a" else "a"])(e) if e.gang == gang else e for e in plan.effects
            ),
        )
        assert violations(spoilt, world)


def test_a_pool_that_does_not_allow_instances_is_seen() -> None:
    world, plan = a_plan("1x0 mig=1g.10gb")
    strict = replace(world, pools={name: replace(pool, sharing=()) for name, pool in world.pools.items()})
    assert any("does not allow mig" in violation.text for violation in violations(plan, strict))


# --- packing, one job after another -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "published"), [(1, 2), (3, 5), (5, 13)])
def test_parvagpu_deployments_come_one_by_one_through_the_engine(number, published) -> None:
    wanted = parvagpu(number)
    for seed in range(5):
        stage = Stage(
            [builders.node(f"n{i:02}", "1 mig=dynamic") for i in range(published + 3)], [builders.queue("team")]
        )
        used = set()
        for at, profile in enumerate(random.Random(f"{number}/{seed}").sample(wanted, len(wanted))):
            stage.submit(f"g{at}", f"1x0 mig={profile} cpu=0")
            stage.settle()
            used.add(stage.attempt(f"g{at}").placement.members[0].node)
        assert published <= len(used) <= published + (1 if published <= 7 else 2), seed


def test_the_mix_of_profiles_is_learned_from_arrivals() -> None:
    stage = Stage([builders.node("n1", "1 mig=dynamic")], [builders.queue("team")])
    for at in range(8):
        stage.submit(f"g{at}", "1x0 mig=3g.40gb" if at < 6 else "1x0 mig=1g.10gb")
    assert stage.engine.world(T0).mix.profiles == (("3g.40gb", 6), ("1g.10gb", 2))


def test_an_instance_goes_where_what_is_asked_for_still_fits() -> None:
    starts = {}
    for asked in ("3g.40gb", "4g.40gb"):
        stage = Stage([builders.node("n1", "1 mig=dynamic")], [builders.queue("team", "limit=8")])
        for at in range(8):
            stage.submit(f"w{at}", f"9x0 mig={asked}")
        stage.submit("a", "1x0 mig=1g.10gb")
        stage.settle()
        starts[asked] = stage.attempt("a").placement.members[0].mig_start
    assert starts["3g.40gb"] not in range(4) or starts["4g.40gb"] not in range(4)
    assert starts["4g.40gb"] >= 4, "four slices begin at 0 only"


def test_several_instances_on_one_gpu_all_fit_even_where_the_best_start_of_one_would_cost_another() -> None:
    for profile, count in (("1g.20gb", 4), ("2g.20gb", 3), ("3g.40gb", 2), ("1g.10gb", 7)):
        for others in PROFILES:
            stage = Stage([builders.node("n1", "1 mig=dynamic")], [builders.queue("team")])
            for at in range(8):
                stage.submit(f"w{at}", f"99x0 mig={others}")
            stage.submit("a", f"{count}x0 mig={profile}")
            stage.settle()
            assert len(stage.attempt("a").placement.members) == count, (profile, others)


def test_a_gpu_that_is_given_in_instances_only_is_free_or_held_and_not_down() -> None:
    stage = Stage([builders.node("n1", "2 mig=3g.40gb@0/- unhealthy=1")], [builders.queue("team")])
    assert [(v.free, v.held, v.down) for v in stage.engine.node_views()] == [(1, 0, 1)]
    stage.submit("a", "1x0 mig=3g.40gb")
    stage.settle()
    assert [(v.free, v.held, v.down) for v in stage.engine.node_views()] == [(0, 1, 1)]
