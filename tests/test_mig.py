"""MIG: the grids of real products counted, what holds in every state, packing, planning, and how GPUs are found cut."""

from __future__ import annotations

import csv
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fake_machines import A100_40_MIG, H100_80_MIG, RTX6000_MIG, dgx_a100, hgx_h100
from hypothesis import given
from hypothesis import strategies as st
from topology_files import as_bytes, data_file, gpu_device, resource_slice

from fairlead.discovery.inventory import SliceDevice, join
from fairlead.discovery.mig_slices import slice_part
from fairlead.discovery.mig_tables import assumed, completed, profiles_of
from fairlead.discovery.nvml import Library
from fairlead.discovery.nvml_node import read_node
from fairlead.discovery.sources import read_bytes
from fairlead.model import codec
from fairlead.model import events as ev
from fairlead.model.hardware import Gpu, Machine, Node, NodeName
from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile, parse_device
from fairlead.placement.mig_devices import device_name, grid_of_gpu, part_of, taken_state
from fairlead.placement.mig_grid import full_grid, grid_milli, grid_of, mig_milli
from fairlead.placement.mig_pack import choose_device, pack_offline, pack_online
from fairlead.placement.mig_plan import WHOLE, Demand, PlanDevice, demand_mix, plan_recuts, stranded_milli
from fairlead.topology import fleets

A100_40, A100_80 = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"
RTX = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
PRODUCTS = (
    A100_40,
    A100_80,
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H100 NVL",
    "NVIDIA B200",
    "NVIDIA GB300",
    "NVIDIA A30",
    RTX,
)
PLAIN = ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
HOUR = 3_600_000


def read(data):
    return read_bytes(data, name="slices", machine="n1")


def whats(inventory):
    return "\n".join(warning.what for warning in inventory.warnings)


def plain_gpu(model):
    return Gpu(id="GPU0", index=0, device="gpu-0", model=model)


def grid(model=A100_80, only=()):
    """The grid of a product, with some of its profiles."""
    found = full_grid(tuple(p for p in profiles_of(model) if not only or p.name in only))
    assert found is not None
    return found


def cut_grid(model, *layout):
    """The grid of a GPU in static mode, cut like this."""
    profiles = profiles_of(model)
    number = {p.name: p for p in profiles}
    instances = tuple(
        MigInstance(id=at, profile=number[name].id, start=start, size=number[name].size)
        for at, (name, start) in enumerate(layout)
    )
    return grid_of(MigGeometry(enabled=True, pending=True, profiles=profiles, instances=instances))


# --- counts that are published, or that brute force over placements gives


@pytest.mark.parametrize(
    ("model", "only", "states", "full"),
    [
        (A100_80, PLAIN, 298, 19),
        (A100_80, PLAIN[:-1], 297, 18),
        (A100_80, (*PLAIN, "1g.20gb"), 723, 78),
        (A100_80, (), 2319, 239),
        ("NVIDIA H100 80GB HBM3", (), 2319, 239),
        ("NVIDIA A30", ("1g.6gb", "2g.12gb", "4g.24gb"), 26, 5),
        ("NVIDIA A30", (), 76, 17),
        (RTX, ("1g.24gb", "2g.48gb", "4g.96gb"), 26, 5),
    ],
)
def test_a_grid_has_as_many_states_as_are_known(model, only, states, full) -> None:
    found = grid(model, only)
    assert (found.states, len(found.full())) == (states, full)


def test_the_multisets_of_an_a100() -> None:
    found = grid(only=PLAIN)
    multisets = {tuple(sorted(name for name, _ in found.layout(state))) for state in range(found.states)}
    assert len(multisets - {()}) == 37
    assert found.futures[0] == 38, "all of them still fit on an empty GPU, and nothing does too"
    assert len({tuple(sorted(name for name, _ in found.layout(s))) for s in found.full().tolist()}) == 14
    counts = [Counter(m) for m in multisets]
    largest = [m for m in counts if not any(m < other for other in counts)]
    sizes = {tuple(sorted((int(name[0]) for name in m.elements()), reverse=True)) for m in largest}
    assert sizes == {
        (7,), (4, 3), (4, 2, 1), (4, 1, 1, 1), (3, 3), (3, 2, 2), (3, 2, 1, 1), (3, 1, 1, 1, 1), (2, 2, 2, 1),
        (2, 2, 1, 1, 1), (2, 1, 1, 1, 1, 1), (1,) * 7,
    }  # fmt: skip


def test_every_grid_is_small_and_is_one_object_for_all_gpus_of_a_geometry() -> None:
    for model in PRODUCTS:
        assert grid(model).states <= 2_400
        assert grid(model) is grid(model)
    assert cut_grid(A100_80, ("1g.10gb", 0)) is cut_grid(A100_80, ("1g.10gb", 0))


@pytest.mark.parametrize("model", PRODUCTS)
def test_the_room_of_every_state_is_what_a_search_finds(model) -> None:
    found = grid(model)
    rng = random.Random(model)
    for state in rng.sample(range(found.states), min(60, found.states)):
        for profile in found.profiles:
            frontier, most = {state}, 0
            while frontier := {
                found.put(s, profile.name, start) for s in frontier for start in found.starts(s, profile.name)
            }:
                most += 1
            assert found.room(profile.name)[state] == most


# --- what holds in every state


walks = st.tuples(st.sampled_from(PRODUCTS), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=24))


def walk(model, steps):
    """Make and remove instances at random; yields (grid, state, the instances there, what was done)."""
    found = grid(model)
    state, held = 0, set()
    for which, where in steps:
        if which % 4 == 3 and held:
            name, start = sorted(held)[where % len(held)]
            after = found.take_out(state, name, start)
            held.remove((name, start))
        else:
            name = found.profiles[which % len(found.profiles)].name
            starts = found.starts(state, name)
            assert bool(starts) == bool(found.room(name)[state])
            if not starts:
                continue
            start = starts[where % len(starts)]
            after = found.put(state, name, start)
            assert found.take_out(after, name, start) == state, "taking out undoes putting"
            assert found.put(found.take_out(after, name, start), name, start) == after
            held.add((name, start))
            for profile in found.profiles:
                more, less = int(found.room(profile.name)[state]), int(found.room(profile.name)[after])
                assert less <= more, "an instance more never makes room"
            assert found.room(name)[after] <= found.room(name)[state] - 1
        state = after
        yield found, state, held
    assert found.state_of(sorted(held)) == state


@given(walks)
def test_no_state_breaks_a_rule_of_the_driver(drawn) -> None:
    for found, state, held in walk(*drawn):
        assert set(found.layout(state)) == held
        profile = {p.name: p for p in found.profiles}
        units = [unit for name, start in held for unit in range(start, start + profile[name].size)]
        assert len(units) == len(set(units)), "instances overlap"
        assert all(start in profile[name].starts for name, start in held)
        assert found.free[state] == found.units - len(units)
        assert sum("+me" in name for name, _ in held) <= 1
        counts = Counter(name for name, _ in held)
        assert all(n <= profile[name].most for name, n in counts.items())
        assert sum(profile[name].slices for name, _ in held) <= (7 if found.units == 8 else 4)
        assert sum(grid_milli(found, name) for name, _ in held) <= 1000
        if found.units == 12:
            for engine in ("decoders", "encoders", "jpegs"):
                assert sum(getattr(profile[name], engine) for name, _ in held) <= 4
            assert sum(profile[name].ofas for name, _ in held) <= 1
        assert 0 <= found.stranded(PLAIN)[state] <= found.free[state]


@given(st.sampled_from(PRODUCTS), st.lists(st.integers(0, 99), max_size=12), st.booleans())
def test_the_best_start_is_the_one_that_leaves_most(model, steps, weighted) -> None:
    found = grid(model)
    mix = tuple(sorted((p.name, at + 1) for at, p in enumerate(found.profiles))) if weighted else ()
    score = found.score(mix)
    state = 0
    for which in steps:
        name = found.profiles[which % len(found.profiles)].name
        best = found.add(state, name, mix)
        starts = found.starts(state, name)
        assert (best is None) == (not starts)
        if best is None:
            continue
        kept = [int(score[found.put(state, name, start)]) for start in starts]
        assert best == (starts[kept.index(max(kept))], found.put(state, name, best[0]))
        assert found.choices(name, mix).loss[state] == score[state] - max(kept) >= 0
        state = best[1]


def test_a_small_instance_leaves_the_large_places_free() -> None:
    found = grid()
    first = found.add(0, "1g.10gb")
    assert first is not None
    assert found.room("4g.40gb")[first[1]] + found.room("3g.40gb")[first[1]] >= 1
    state = found.put(0, "4g.40gb", 0)
    assert found.add(state, "1g.10gb") is not None
    only_halves = found.add(0, "1g.10gb", (("4g.40gb", 9),))
    assert only_halves is not None
    assert only_halves[0] >= 4, "where 4g is all that is asked for, its only place is kept"


def test_an_instance_with_all_engines_goes_only_with_those_without_any() -> None:
    found = grid(RTX)
    state = found.put(0, "1g.24gb+me.all", 3)
    assert [name for name in (p.name for p in found.profiles) if found.room(name)[state]] == [
        "2g.48gb-me",
        "1g.24gb-me",
    ]


def test_what_cannot_be_is_refused_and_what_is_unknown_has_no_room() -> None:
    found = grid()
    assert not found.room("9g.90gb").any()
    assert found.add(0, "9g.90gb") is None
    assert found.profile("9g.90gb") is None
    state = found.put(0, "7g.80gb", 0)
    with pytest.raises(ValueError, match="does not fit at 0"):
        found.put(state, "1g.10gb", 0)
    with pytest.raises(ValueError, match=r"there is no 1g\.10gb at 3"):
        found.take_out(state, "1g.10gb", 3)
    with pytest.raises(KeyError):
        found.put(0, "3g.40gb", 1)
    assert found.state_of([("3g.40gb", 0), ("4g.40gb", 0)]) is None
    assert found.state_of([("1g.10gb", 0), ("1g.10gb", 0)]) is None
    with pytest.raises(ValueError, match="read-only"):
        found.room("1g.10gb")[0] = 9


def test_a_geometry_out_of_this_world_is_no_grid() -> None:
    wild = MigProfile(id=1, name="1g.1gb", size=1, starts=tuple(range(40)), most=40)
    assert full_grid((wild,)) is None, "2^40 states"
    assert full_grid((replace(wild, starts=(1 << 40,), most=1),)) is None
    assert full_grid((replace(wild, starts=(-1,)),)) is None
    assert full_grid(()) is None
    assert grid_of(MigGeometry(enabled=True, pending=True)) is None


def test_in_static_mode_only_what_exists_is_given() -> None:
    found = cut_grid(A100_80, ("2g.20gb", 0), ("2g.20gb", 2), ("3g.40gb", 4))
    assert found is not None
    assert (found.states, found.dynamic, found.units) == (8, False, 8)
    assert [int(found.room(name)[0]) for name in PLAIN] == [0, 2, 1, 0, 0]
    assert found.add(0, "1g.10gb") is None
    first = found.add(0, "2g.20gb")
    assert first is not None
    assert first[0] == 0
    assert found.starts(first[1], "2g.20gb") == (2,)
    assert mig_milli(found, "2g.20gb") == mig_milli(grid(), "2g.20gb"), "a part of the whole GPU, not of what is cut"
    wide = cut_grid(RTX, ("1g.24gb+me.all", 0), ("1g.24gb", 3))
    assert wide is not None
    assert wide.states == 4, "what the driver has made goes together"


def test_what_instances_count_for() -> None:
    found = grid()
    assert {name: mig_milli(found, name) for name in PLAIN} == {
        "1g.10gb": 143, "2g.20gb": 286, "3g.40gb": 500, "4g.40gb": 572, "7g.80gb": 1000,
    }  # fmt: skip
    assert {name: grid_milli(found, name) for name in PLAIN} == {
        "1g.10gb": 125, "2g.20gb": 250, "3g.40gb": 500, "4g.40gb": 500, "7g.80gb": 1000,
    }  # fmt: skip
    assert mig_milli(grid("NVIDIA A30"), "2g.12gb+me") == 500
    assert mig_milli(found, "9g.90gb") == grid_milli(found, "9g.90gb") == 0


# --- packing


def parvagpu(number):
    file = data_file(f"mig/parvagpu/deployment/SLO{number}/SLO{number}_ParvaGPU_deploy.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    name = {1: "1g.10gb", 2: "2g.20gb", 3: "3g.40gb", 4: "4g.40gb", 7: "7g.80gb"}
    return [name[int(row["Instance size"])] for row in rows]


@pytest.mark.parametrize(("number", "published"), [(1, 2), (3, 5), (5, 13)])
def test_parvagpu_deployments_are_packed_as_published(number, published) -> None:
    wanted = parvagpu(number)
    allowed = published + (1 if published <= 7 else 2)
    offline = pack_offline(grid(), Counter(wanted))
    assert (len(offline.devices), offline.exact, offline.left) == (published, True, ())
    assert Counter(name for layout in offline.devices for name, _ in layout) == Counter(wanted)
    assert all(grid().state_of(layout) is not None for layout in offline.devices)
    orders = [wanted, sorted(wanted), sorted(wanted, reverse=True)]
    for seed in range(150):
        orders.append(random.Random(f"{number}/{seed}").sample(wanted, len(wanted)))
    for order in orders:
        online = pack_online(grid(), order)
        assert published <= len(online.devices) <= allowed
        assert Counter(name for layout in online.devices for name, _ in layout) == Counter(wanted)


@given(st.dictionaries(st.sampled_from(PLAIN), st.integers(0, 4), max_size=5))
def test_offline_packing_is_as_small_as_an_exhaustive_search(demand) -> None:
    found = grid(only=PLAIN)
    packing = pack_offline(found, demand)
    placed = Counter(name for layout in packing.devices for name, _ in layout)
    assert placed == Counter({name: n for name, n in demand.items() if n})
    assert all(found.state_of(layout) is not None for layout in packing.devices)
    assert packing.exact
    full = [Counter(name for name, _ in found.layout(s)) for s in found.full().tolist()]
    frontier = {tuple(sorted(Counter(demand).elements()))}
    used = 0
    while () not in frontier:  # all that can be left after one GPU more
        frontier = {tuple(sorted((Counter(left) - kind).elements())) for left in frontier for kind in full}
        used += 1
    assert len(packing.devices) == used


def test_a_search_that_runs_out_of_steps_says_so() -> None:
    demand = {p.name: 17 + 5 * at for at, p in enumerate(grid().profiles)}
    packing = pack_offline(grid(), demand, steps_most=50)
    assert not packing.exact
    assert Counter(name for layout in packing.devices for name, _ in layout) == Counter(demand)
    assert pack_offline(grid(), {"9g.90gb": 2, "7g.80gb": 1}).left == (("9g.90gb", 2),)
    assert pack_online(grid(), ["9g.90gb", "7g.80gb"]).left == (("9g.90gb", 1),)


def test_the_best_of_several_devices_is_one_that_is_in_use() -> None:
    found = grid()
    half = found.put(0, "4g.40gb", 0)
    choice = choose_device([None, found, found], [0, 0, half], "3g.40gb")
    assert choice is not None
    assert (choice.device, choice.start) == (2, 4)
    assert choose_device([None], [0], "3g.40gb") is None
    assert choose_device([found], [half], "7g.80gb") is None


# --- planning


def idle(name, *layout, **more):
    return PlanDevice(node="n1", device=name, profiles=profiles_of(A100_80), layout=layout, **more)


def wants(profile, count, gpu_ms=HOUR):
    return Demand(profile=profile, count=count, gpu_ms=gpu_ms)


def test_an_idle_gpu_is_cut_for_what_is_queued_and_the_cost_is_said() -> None:
    plan = plan_recuts([idle("gpu-0", ("7g.80gb", 0))], [wants("3g.40gb", 1), wants("1g.10gb", 9)], {"1g.10gb": 5})
    (found,) = plan.proposals
    assert (found.device, found.before, found.mode, found.reset) == ("gpu-0", (("7g.80gb", 0),), "", False)
    assert dict(found.serves) == {"3g.40gb": 1, "1g.10gb": 4}
    assert Counter(name for name, _ in found.after) == {"3g.40gb": 1, "1g.10gb": 4}
    assert found.cost_gpu_ms == 6_000, "one instance removed, five made"
    assert found.gain_gpu_ms == 5 * HOUR - 6_000
    assert (found.stranded_before, found.stranded_after) == (1000, 0)
    assert (plan.unserved, plan.ended_early) == ((), "")


def test_instances_that_are_wanted_stay_and_what_gains_too_little_is_left() -> None:
    kept = plan_recuts([idle("gpu-0", ("3g.40gb", 4))], [wants("3g.40gb", 1), wants("2g.20gb", 2)], {})
    assert ("3g.40gb", 4) in kept.proposals[0].after
    assert kept.proposals[0].cost_gpu_ms == 2_000
    assert plan_recuts([idle("gpu-0", ("7g.80gb", 0))], [wants("1g.10gb", 1, 1_999)], {}).proposals == ()
    assert plan_recuts([idle("gpu-0", ("7g.80gb", 0))], [wants("1g.10gb", 3)], {"1g.10gb": 3}).proposals == ()
    assert plan_recuts([idle("gpu-0", ("7g.80gb", 0))], [], {}).proposals == ()


def test_a_mode_changes_only_where_it_may_and_where_all_that_is_reset_is_idle() -> None:
    board = tuple(f"gpu-{n}" for n in range(2))
    ampere = [idle(name, enabled=False, mode_by_reset=True, resets_with=board) for name in board]
    demand = [wants("1g.10gb", 7)]
    assert plan_recuts(ampere, demand, {}).proposals == ()
    (found,) = plan_recuts(ampere, demand, {}, may_change_mode=True).proposals
    assert (found.mode, found.reset, found.cost_gpu_ms) == ("enable", True, 7_000 + 5_000 + 2 * 60_000)
    busy = [ampere[0], replace(ampere[1], used=True)]
    assert plan_recuts(busy, demand, {}, may_change_mode=True).proposals == ()
    hopper = [replace(device, mode_by_reset=False) for device in busy]
    (found,) = plan_recuts(hopper, demand, {}, may_change_mode=True).proposals
    assert (found.mode, found.reset, found.cost_gpu_ms) == ("enable", False, 12_000)
    whole = [wants(WHOLE, 2, 9 * HOUR), wants("1g.10gb", 7)]
    assert plan_recuts(ampere, whole, {}, may_change_mode=True).proposals == (), "whole GPUs are worth more here"
    back = plan_recuts([idle("gpu-0", ("1g.10gb", 0))], [wants(WHOLE, 1)], {}, may_change_mode=True)
    assert [(p.mode, p.after) for p in back.proposals] == [("disable", ())]


layouts = st.sampled_from([grid().layout(s) for s in range(0, grid().states, 7)])


@given(
    st.lists(st.tuples(layouts, st.booleans(), st.booleans()), max_size=6),
    st.lists(st.tuples(st.sampled_from((*PLAIN, WHOLE)), st.integers(0, 9), st.integers(0, HOUR)), max_size=6),
    st.booleans(),
)
def test_a_plan_leaves_busy_gpus_alone_and_always_serves_more_than_it_costs(drawn, asked, may_change) -> None:
    devices = [
        idle(f"gpu-{at}", *(layout if enabled else ()), enabled=enabled, used=used)
        for at, (layout, enabled, used) in enumerate(drawn)
    ]
    demand = [wants(*one) for one in asked]

    def served(shapes: Counter) -> int:
        total = 0
        for name in {d.profile for d in demand}:
            worths = sorted((d.gpu_ms for d in demand if d.profile == name for _ in range(d.count)), reverse=True)
            total += sum(worths[: shapes[name]])
        return total

    def shapes(layout, whole) -> Counter:
        return Counter({WHOLE: 1}) if whole else Counter(name for name, _ in layout)

    plan = plan_recuts(devices, demand, {}, may_change_mode=may_change)
    assert plan == plan_recuts(list(reversed(devices)), demand, {}, may_change_mode=may_change)
    before = {d.device: shapes(d.layout, not d.enabled) for d in devices if not d.used}
    after = dict(before)
    for proposal in plan.proposals:
        after[proposal.device] = shapes(proposal.after, proposal.mode == "disable")
        assert proposal.gain_gpu_ms > 0
        assert may_change or not proposal.mode
        assert 0 <= proposal.stranded_after <= 1000
    assert len({p.device for p in plan.proposals}) == len(plan.proposals), "a GPU is cut once"
    assert {p.device for p in plan.proposals} <= before.keys(), "busy GPUs are left alone"
    gained = served(sum(after.values(), Counter())) - served(sum(before.values(), Counter()))
    assert gained == sum(p.gain_gpu_ms + p.cost_gpu_ms for p in plan.proposals)


def test_a_long_search_ends_and_says_so() -> None:
    devices = [idle(f"gpu-{n}", ("7g.80gb", 0)) for n in range(9)]
    plan = plan_recuts(devices, [wants("1g.10gb", 50)], {}, looks_most=3)
    assert len(plan.proposals) == 3
    assert plan.ended_early == "the search ended after 3 proposals; another plan goes on from there"
    assert plan.unserved == (("1g.10gb", 29),)


def test_stranded_capacity_is_what_no_queued_shape_can_use() -> None:
    found = grid()
    state = found.put(found.put(0, "3g.40gb", 0), "1g.10gb", 4)
    assert found.stranded(["1g.10gb"])[state] == 1, "memory slice 7 is out of reach of 1g"
    assert found.stranded(["2g.20gb"])[state] == 3
    assert found.stranded(["1g.20gb"])[state] == 1
    assert found.stranded([])[state] == found.free[state] == 3
    assert stranded_milli(found, np.array([state, 0, 0]), ["7g.80gb"]) == 375
    cut = cut_grid(A100_80, ("2g.20gb", 0), ("3g.40gb", 4))
    assert cut is not None
    assert cut.stranded(["3g.40gb"])[0] == 4, "the 2g that nobody wants, and two units that are not cut"
    assert demand_mix([wants("1g.10gb", 2), wants(WHOLE, 3), wants("1g.10gb", 1)]) == (("1g.10gb", 3),)


# --- tables, and where GPUs are read from


@pytest.mark.parametrize(
    ("model", "rows"),
    [(A100_40, A100_40_MIG), ("NVIDIA H100 80GB HBM3", H100_80_MIG), (RTX, RTX6000_MIG)],
)
def test_the_tables_say_what_drivers_say(model, rows) -> None:
    table = {p.id: p for p in profiles_of(model)}
    for _, number, name, size, starts, most, multiprocessors, memory_mib in rows:
        found = table[number]
        assert (f"MIG {found.name}", found.size, found.starts, found.most) == (name, size, starts, most)
        assert found.multiprocessors == multiprocessors
        assert abs(found.memory_bytes - (memory_mib << 20)) < 16 << 20


def test_products_of_one_name_are_told_apart_by_memory_and_others_have_none() -> None:
    def largest(model, gib=0):
        return next((p.name for p in profiles_of(model, gib << 30)), "")

    assert largest("NVIDIA A100 80GB PCIe") == "7g.80gb"
    assert (largest("NVIDIA H100", 80), largest("NVIDIA H100", 94), largest("NVIDIA H100", 96)) == (
        "7g.80gb", "7g.94gb", "7g.96gb",
    )  # fmt: skip
    assert largest("NVIDIA H100") == "", "in doubt nothing is assumed"
    assert largest("NVIDIA GH200 480GB", 95) == "7g.96gb"
    assert largest("NVIDIA H200") == "7g.141gb"
    assert (largest("NVIDIA B200"), largest("NVIDIA GB200"), largest("NVIDIA B300")) == (
        "7g.180gb",
        "7g.186gb",
        "7g.269gb",
    )
    assert [largest(model) for model in ("NVIDIA L40S", "Tesla V100-SXM2-32GB", "NVIDIA A10", "")] == [""] * 4
    assert assumed(Gpu(id="a", index=0, device="gpu-0", model="NVIDIA L4"), enabled=True) is None


def test_the_driver_is_right_and_the_tables_fill_in_what_it_did_not_say() -> None:
    fake = hgx_h100()
    fake.cut(2, (9, 4), (19, 0))
    library = Library(fake)
    library.open()
    gpu = read_node(library).machine.gpus[2]
    assert gpu.mig is not None
    known = completed(gpu.mig, gpu)
    assert {p.id for p in known.profiles} == {p.id for p in gpu.mig.profiles}, "no profile is made up"
    seventh = known.profile(0)
    assert seventh is not None
    assert (seventh.decoders, seventh.ofas, seventh.multiprocessors) == (7, 1, 132)
    odd = replace(gpu.mig, profiles=(replace(gpu.mig.profiles[0], starts=(1,), multiprocessors=5),))
    assert completed(odd, gpu).profiles == odd.profiles, "what the driver places otherwise is another thing"
    grid_as_read = grid_of(replace(known, dynamic=True))
    assert grid_as_read is not None
    assert grid_as_read.states == 723


def test_an_a100_read_through_nvml_has_the_grid_of_its_table() -> None:
    library = Library(dgx_a100())
    library.open()
    gpu = read_node(library).machine.gpus[0]
    assert gpu.mig is not None
    found = full_grid(completed(gpu.mig, gpu).profiles)
    assert found is not None
    assert (found.states, found.futures[0]) == (2319, 128)


def static_part(index, name, start, number, units, **more):
    return {
        "name": f"gpu-{index}-mig-{name.replace('.', '')}-{number}-{start}",
        "attributes": {
            "type": {"string": "mig"},
            "profile": {"string": name},
            "uuid": {"string": f"MIG-{index}-{start}"},
            "parentUUID": {"string": f"GPU-{index:08x}-0000-0000-0000-000000000000"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "resource.kubernetes.io/pciBusID": {"string": f"0000:{0x65 + index:02x}:00.0"},
        },
        "capacity": {f"memorySlice{unit}": {"value": "1"} for unit in range(start, start + units)},
        **more,
    }


def test_slices_of_static_mig_name_the_instances_and_their_gpu_is_not_whole() -> None:
    devices = [gpu_device(0), static_part(1, "1g.10gb", 2, 19, 1), static_part(1, "3g.40gb", 4, 9, 4)]
    inventory = read(as_bytes(resource_slice("n1", devices)))
    plain, cut = inventory.machines[0].machine.gpus
    assert inventory.warnings == ()
    assert (plain.mig, plain.whole, cut.whole, cut.mig_enabled) == (None, True, False, True)
    assert (cut.device, cut.pci) == ("gpu-1", "0000:66:00.0")
    assert cut.mig is not None
    assert [(i.profile, i.start, i.size, i.device) for i in cut.mig.instances] == [
        (19, 2, 1, "gpu-1-mig-1g10gb-19-2"), (9, 4, 4, "gpu-1-mig-3g40gb-9-4"),
    ]  # fmt: skip
    found = grid_of_gpu(cut)
    assert found is not None
    assert found.states == 4
    assert device_name(cut, "3g.40gb", 4) == "gpu-1-mig-3g40gb-9-4"
    assert part_of([plain, cut], "gpu-1-mig-1g10gb-19-2") == (cut, "1g.10gb", 2)
    assert part_of([plain, cut], "gpu-1-mig-1g10gb-19-3") is None
    with pytest.raises(KeyError, match=r"gpu-1 has no 1g\.10gb at 3"):
        device_name(cut, "1g.10gb", 3)
    with pytest.raises(KeyError):
        device_name(plain, "1g.10gb", 0)
    assert grid_of_gpu(plain) is None
    assert taken_state(found, [("1g.10gb", 2)]) == found.put(0, "1g.10gb", 2)


def test_slices_of_dynamic_mig_name_placements_and_only_those_are_given() -> None:
    names = [f"gpu-0-mig-1g10gb-19-{start}" for start in range(7)] + ["gpu-0-mig-3g40gb-9-4", "gpu-0-mig-2g20gb-14-0"]
    parts = [
        {"name": name, "attributes": {"type": {"string": "mig"}}}
        for name in (*names, "gpu-0-mig-odd-9-0", "gpu-0-mig-x")
    ]
    inventory = read(as_bytes(resource_slice("n1", [gpu_device(0), *parts])))
    (gpu,) = inventory.machines[0].machine.gpus
    assert gpu.mig is not None
    assert (gpu.mig.dynamic, gpu.whole, gpu.mig.enabled) == (True, True, True)
    assert {p.name: p.starts for p in gpu.mig.profiles} == {
        "1g.10gb": tuple(range(7)), "3g.40gb": (4,), "2g.20gb": (0,),
    }  # fmt: skip
    assert whats(inventory).count("is no part that gpu-0 is known to have") == 2
    assert device_name(gpu, "3g.40gb", 4) == "gpu-0-mig-3g40gb-9-4"
    with pytest.raises(KeyError):
        device_name(gpu, "3g.40gb", 0)
    assert part_of([gpu], "gpu-0-mig-3g40gb-9-4") == (gpu, "3g.40gb", 4)


def test_what_the_agent_saw_and_the_slices_do_not_name_is_not_given_out() -> None:
    profiles = profiles_of("NVIDIA H100 80GB HBM3")
    seen = MigGeometry(
        enabled=True,
        pending=True,
        profiles=profiles,
        instances=(
            MigInstance(id=3, profile=19, start=0, size=1),
            MigInstance(id=5, profile=9, start=4, size=4),
        ),
    )
    topology = Machine(
        gpus=(Gpu(id="GPU0", index=0, device="gpu-0", uuid="GPU-a", model="NVIDIA H100 80GB HBM3", mig=seen),)
    )
    name = "gpu-0-mig-1g10gb-19-0"
    part = slice_part(name, profile="1g.10gb", parent="GPU-a", uuid="MIG-1", memory_slices=(0,))
    device = SliceDevice(name="gpu-0", uuid="GPU-a", parts=(part,), whole=False)
    machine, conflicts = join(topology, (device,))
    assert machine.gpus[0].mig is not None
    assert machine.gpus[0].mig.instances == (MigInstance(id=3, profile=19, start=0, size=1, device=name),)
    assert conflicts == ("device gpu-0 has 1 MIG instances that no ResourceSlice names; they are not given out",)
    _, conflicts = join(topology, (SliceDevice(name="gpu-0", uuid="GPU-a"),))
    assert "is in MIG mode by its driver, and whole in the ResourceSlices" in conflicts[0]
    unknown = replace(device, parts=(replace(part, number=77),))
    machine, conflicts = join(topology, (unknown,))
    assert f"device {name} is no part that gpu-0 is known to have; it is left out" in conflicts
    nameless, conflicts = join(None, (replace(device, name="gpu-0", model="", parts=(part,)),))
    assert (nameless.gpus[0].mig, nameless.gpus[0].whole) == (None, False)
    assert "nobody knows how its model is cut" in conflicts[0]


def test_names_of_mig_devices() -> None:
    assert parse_device("gpu-12-mig-1g24gb-me-67-9") == parse_device("gpu-12-mig-1g24gb-me-67-9")
    for name in ("gpu-0", "gpu-0-mig-1", "gpu-x-mig-1g-1-1", "mig-1g-1-1", ""):
        assert parse_device(name) is None
    gpu = Gpu(
        id="GPU0", index=0, device="gpu-2", model=RTX, mig=replace(assumed(plain_gpu(RTX), enabled=True), dynamic=True)
    )
    both = {device_name(gpu, "1g.24gb+me", 3), device_name(gpu, "1g.24gb-me", 3), device_name(gpu, "1g.24gb+me.all", 3)}
    assert both == {"gpu-2-mig-1g24gb-me-21-3", "gpu-2-mig-1g24gb-me-67-3", "gpu-2-mig-1g24gb-meall-65-3"}
    assert {part_of([gpu], name) for name in both} == {
        (gpu, "1g.24gb+me", 3), (gpu, "1g.24gb-me", 3), (gpu, "1g.24gb+me.all", 3),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a100-mig", "h100-mig"])
def test_fleets_with_mig_are_cut_and_their_nodes_survive_the_journal(name) -> None:
    node = fleets.build(name, 1)[0]
    fact = ev.NodeSeen(node=node, at_ms=1)
    assert codec.decode(codec.encode(fact)) == fact
    grids = [grid_of_gpu(gpu) for gpu in node.machine.gpus]
    if name == "h100-mig":
        assert all(found is grids[0] and found.states == 2319 for found in grids)
        assert all(gpu.whole for gpu in node.machine.gpus)
    else:
        assert [found is not None for found in grids] == [False] * 4 + [True] * 4
        assert [gpu.whole for gpu in node.machine.gpus] == [True] * 4 + [False] * 4
        assert [int(found.room("1g.10gb")[0]) for found in grids[4:]] == [7, 7, 0, 0]
        for gpu in node.machine.gpus[4:]:
            for instance in gpu.mig.instances:
                assert part_of(node.machine.gpus, instance.device)[0] is gpu


def test_a_journal_of_an_older_version_has_whole_gpus() -> None:
    fact = ev.NodeSeen(node=Node(name=NodeName("n"), machine=Machine(gpus=(plain_gpu("H100"),))), at_ms=1)
    old = codec.encode(fact).replace(b'"mig":null,', b"").replace(b',"whole":true', b"")
    assert old != codec.encode(fact)
    assert codec.decode(old) == fact
