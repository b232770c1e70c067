"""Packing MIG instances on GPUs, and planning how idle GPUs are cut anew."""

from __future__ import annotations

import csv
import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mig_grids import A100_80, HOUR, PLAIN, cut_grid, grid
from mig_packings import choose_device, pack_offline, pack_online
from topology_files import data_file

from fairlead.discovery.mig_tables import profiles_of
from fairlead.placement.mig_plan import WHOLE, Demand, PlanDevice, plan_recuts, stranded_milli

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


def test_offline_packing_is_as_small_as_dynamic_programming_says() -> None:
    names = (*PLAIN, "1g.20gb")
    found = grid(only=names)
    full = {tuple(Counter(n for n, _ in found.layout(s))[name] for name in names) for s in found.full().tolist()}
    box = [range(n) for n in (7, 6, 5, 4, 2, 7)]
    fewest = {}
    for demand in itertools.product(*box):  # in an order in which everything smaller comes first
        options = (tuple(max(0, a - b) for a, b in zip(demand, kind, strict=True)) for kind in full)
        fewest[demand] = 1 + min(fewest[left] for left in options if left != demand) if any(demand) else 0
    for demand in random.Random(5).sample(sorted(fewest), 500):
        packing = pack_offline(found, dict(zip(names, demand, strict=True)))
        assert (len(packing.devices), packing.exact) == (fewest[demand], True)


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


def test_what_one_proposal_takes_away_is_gone_for_the_next() -> None:
    devices = [idle("gpu-0", ("7g.80gb", 0)), idle("gpu-1", ("7g.80gb", 0))]
    demand = [wants("7g.80gb", 1, 8 * HOUR), wants("1g.10gb", 14)]
    plan = plan_recuts(devices, demand, {})
    assert [p.device for p in plan.proposals] == ["gpu-0"], "the other one is worth more as it is"
    assert plan.unserved == (("1g.10gb", 7),)


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
