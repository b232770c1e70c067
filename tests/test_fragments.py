"""The fragmentation score against a slow one in exact fractions, and what must hold of any score."""

from __future__ import annotations

import random
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.placement.fragments import (
    NEVER,
    WEIGHTS_SUM,
    NodeRows,
    build,
    domain_cost,
    largest_gang,
)
from fairlead.world.demand import Kind, Mix

getcontext().prec = 40
CAPACITY = {"A100-80GB": 64_000, "H100": 32_000, "T4": 4_000}
NAMES = sorted(CAPACITY)
SIZES = (100, 190, 250, 470, 500, 810, 1000)


def mix_of(*counted):
    ranked = sorted(sorted(counted, reverse=True), key=lambda item: -item[1])
    return Mix(1, tuple(kind for kind, _ in ranked), tuple(count for _, count in ranked))


def rows_of(*nodes):
    """Nodes as (model, cpu_milli, [free milli of each device])."""
    wide = max(len(devices) for _, _, devices in nodes)
    return NodeRows(
        np.array([NAMES.index(model) if model in CAPACITY else -1 for model, _, _ in nodes]),
        np.array([cpu for _, cpu, _ in nodes]),
        np.array([[*devices, *[0] * (wide - len(devices))] for _, _, devices in nodes]),
    )


# --- the slow reference: one node, one class at a time, exact ---


def slow_usable(kind, model, cpu, devices):
    if kind.models and not any(part in model.casefold() for part in kind.models):
        return Fraction(0)
    if cpu < kind.cpu_milli:
        return Fraction(0)
    if kind.gpu_milli == 1000:
        idle = sum(1 for milli in devices if milli == 1000)
        room = 1000 * idle if idle >= kind.gpus else 0
    else:
        room = sum(milli for milli in devices if milli >= kind.gpu_milli)
    fed = Fraction(kind.gpus * kind.gpu_milli * cpu, kind.cpu_milli) if kind.cpu_milli else Fraction(room)
    return Fraction(6, 10) * room + Fraction(4, 10) * min(Fraction(room), fed)


def slow_fragment(classes, weights, model, cpu, devices):
    return sum(
        weight * (sum(devices) - slow_usable(kind, model, cpu, devices))
        for kind, weight in zip(classes, weights, strict=True)
    )


def slow_classes(mix):
    """Classes that cover 95 % of the pods, with weights as fractions."""
    covered, raw = 0, {}
    for kind, count in zip(mix.kinds, mix.pods, strict=True):
        if 100 * covered >= 95 * sum(mix.pods):
            break
        covered += count
        if kind.gpus:
            single = Kind(kind.cpu_milli, kind.gpu_milli, kind.gpus, kind.models)
            raw[single] = raw.get(single, 0) + count / (Decimal(kind.gpus * kind.gpu_milli) / 1000).sqrt()
    return {kind: Fraction(value) / Fraction(sum(raw.values())) for kind, value in raw.items()}


def slow_scarcity(mix, model):
    """Square of the scarcity of a model."""
    if model not in CAPACITY:
        return Fraction(1)
    bound = seen = Fraction(0)
    for kind, count in zip(mix.kinds, mix.pods, strict=True):
        milli = count * kind.gpus * kind.gpu_milli
        seen += milli
        fitting = [name for name in NAMES if any(part in name.casefold() for part in kind.models)]
        if model in fitting:
            bound += Fraction(milli * CAPACITY[model], sum(CAPACITY[name] for name in fitting))
    part = (bound + Fraction(30_000, len(NAMES))) / (seen + 30_000)
    return min(Fraction(2), part / Fraction(CAPACITY[model], sum(CAPACITY.values()))) ** 2


def slow_cost(tables, mix, node, *, cpu, milli, taken):
    """Cost in milli of taking `milli` on each of the `taken` devices."""
    model, free_cpu, devices = node
    weights = [Fraction(int(weight), WEIGHTS_SUM) for weight in tables.weights]
    left = [have - milli if device in taken else have for device, have in enumerate(devices)]
    grows = slow_fragment(tables.classes, weights, model, free_cpu - cpu, left) - slow_fragment(
        tables.classes, weights, model, free_cpu, devices
    )
    price = sum(int(tables.worth[devices[d]] - tables.worth[left[d]]) for d in taken) if milli < 1000 else 0
    dear = len(taken) * milli * slow_scarcity(mix, model)
    return grows + dear + Fraction(price, 10**7) + Fraction(sum(devices), 100)


cpus = st.sampled_from([0, 1000, 3000, 6000, 7333, 16_000, 64_000])
kinds = st.builds(
    Kind,
    cpu_milli=cpus,
    gpu_milli=st.sampled_from(SIZES[:-1]),
    gpus=st.just(1),
    models=st.sampled_from([(), ("h100",), ("a100", "t4"), ("none-such",)]),
) | st.builds(
    Kind,
    cpu_milli=cpus,
    gpu_milli=st.just(1000),
    gpus=st.integers(1, 4),
    models=st.sampled_from([(), ("h100",), ("a100", "t4")]),
    replicas=st.sampled_from([1, 1, 4]),
    within=st.sampled_from(["", "rack"]),
)
cpu_only = st.builds(Kind, cpu_milli=cpus, gpu_milli=st.just(0), gpus=st.just(0))
mixes = st.dictionaries(kinds | cpu_only, st.integers(1, 500), max_size=12).map(lambda found: mix_of(*found.items()))
nodes = st.tuples(
    st.sampled_from([*NAMES, "unheard-of"]),
    st.sampled_from([0, 2500, 6000, 15_999, 48_000, 96_000]),
    st.lists(st.sampled_from([0, 190, 250, 340, 500, 530, 1000, 1000]), min_size=4, max_size=4),
)
fleets = st.lists(nodes, min_size=1, max_size=6)
ROUNDING = Fraction(9, 10)  # two floors of the CPU's cap at 0.4 of a milli each, and the scarcity's last digit


@given(mixes)
def test_weights_are_pods_over_the_root_of_their_gpus(mix):
    tables = build(mix, CAPACITY)
    exact = slow_classes(mix)
    assert set(tables.classes) == set(exact)
    assert sum(tables.weights.tolist()) == (WEIGHTS_SUM if exact else 0)
    for kind, weight in zip(tables.classes, tables.weights.tolist(), strict=True):
        assert abs(Fraction(weight, WEIGHTS_SUM) - exact[kind]) <= Fraction(3, WEIGHTS_SUM)


@given(mixes, fleets, cpus, st.sampled_from(SIZES[:-1]))
def test_a_share_costs_what_the_formula_says(mix, fleet, cpu, milli):
    tables = build(mix, CAPACITY)
    found = tables.share_cost(rows_of(*fleet), cpu_milli=cpu, gpu_milli=milli)
    for row, node in enumerate(fleet):
        for device, have in enumerate(node[2]):
            if have < milli:
                assert found[row, device] == NEVER
            else:
                exact = slow_cost(tables, mix, node, cpu=cpu, milli=milli, taken={device})
                assert abs(Fraction(int(found[row, device]), 10**7) - exact) <= ROUNDING


@given(mixes, fleets, cpus, st.integers(0, 4))
def test_whole_gpus_cost_what_the_formula_says(mix, fleet, cpu, gpus):
    tables = build(mix, CAPACITY)
    found = tables.whole_cost(rows_of(*fleet), cpu_milli=cpu, gpus=gpus)
    for row, node in enumerate(fleet):
        idle = [device for device, have in enumerate(node[2]) if have == 1000]
        if len(idle) < gpus:
            assert found[row] == NEVER
        else:
            exact = slow_cost(tables, mix, node, cpu=cpu, milli=1000, taken=set(idle[:gpus]))
            assert abs(Fraction(int(found[row]), 10**7) - exact) <= ROUNDING * max(1, gpus)


@given(mixes, fleets)
def test_a_fragment_is_never_negative_nor_more_than_what_is_free(mix, fleet):
    tables = build(mix, CAPACITY)
    rows = rows_of(*fleet)
    fragment = tables.fragment(rows)
    assert (fragment >= 0).all()
    assert (fragment <= 10 * WEIGHTS_SUM * rows.free_milli.sum(axis=1)).all()


@given(mixes, fleets, cpus, st.sampled_from(SIZES[:-1]), st.randoms(use_true_random=False))
def test_many_rows_cost_what_each_costs_alone_in_any_order(mix, fleet, cpu, milli, rng):
    tables = build(mix, CAPACITY)
    many = [rng.choice(fleet) for _ in range(120)]
    rows = rows_of(*many)
    shares = tables.share_cost(rows, cpu_milli=cpu, gpu_milli=milli)
    wholes = tables.whole_cost(rows, cpu_milli=cpu, gpus=2, before=tables.fragment(rows))
    for row in rng.sample(range(120), 5):
        alone = rows_of(many[row])
        assert (tables.share_cost(alone, cpu_milli=cpu, gpu_milli=milli)[0] == shares[row]).all()
        assert tables.whole_cost(alone, cpu_milli=cpu, gpus=2)[0] == wholes[row]


@given(mixes, fleets, cpus)
def test_named_devices_cost_what_any_idle_ones_do(mix, fleet, cpu):
    tables = build(mix, CAPACITY)
    rows = rows_of(*fleet)
    last = [[d for d, have in enumerate(devices) if have == 1000][-2:] for _, _, devices in fleet]
    masks = np.array([sum(1 << device for device in devices) for devices in last])
    by_default = tables.whole_cost(rows, cpu_milli=cpu, gpus=2)
    assert (tables.whole_cost(rows, cpu_milli=cpu, gpus=2, devices=masks) == by_default).all()


def test_columns_kept_up_to_date_row_by_row_equal_those_computed_at_once():
    rng = random.Random(7)
    mix = mix_of((Kind(6000, 470, 1), 50), (Kind(3000, 250, 1), 30), (Kind(12_000, 1000, 1), 40), (Kind(0, 1000, 4), 9))
    tables = build(mix, CAPACITY)
    cpu, free = np.full(60, 64_000), np.full((60, 4), 1000)
    model = np.array([rng.randrange(3) for _ in range(60)])
    column = tables.share_cost(NodeRows(model, cpu, free), cpu_milli=6000, gpu_milli=470)
    for _ in range(100):
        row, device = rng.randrange(60), rng.randrange(4)
        if free[row, device] >= 250 and cpu[row] >= 3000:
            free[row, device] -= 250
            cpu[row] -= 3000
            one = NodeRows(model[[row]], cpu[[row]], free[[row]])
            column[row] = tables.share_cost(one, cpu_milli=6000, gpu_milli=470)[0]
    assert (column == tables.share_cost(NodeRows(model, cpu, free), cpu_milli=6000, gpu_milli=470)).all()


# --- what the score is for ---


def cheapest(costs):
    return int(costs.argmin())


def test_a_share_goes_where_it_leaves_nothing_useless():
    tables = build(mix_of((Kind(0, 500, 1), 100), (Kind(0, 1000, 1), 40)), CAPACITY)
    rows = rows_of(("H100", 9000, [1000, 530, 500, 600]))
    assert cheapest(tables.share_cost(rows, cpu_milli=0, gpu_milli=500)[0]) == 2


def test_a_single_gpu_does_not_break_the_last_node_that_holds_four():
    tables = build(mix_of((Kind(0, 1000, 1), 60), (Kind(0, 1000, 4), 40)), CAPACITY)
    rows = rows_of(("H100", 9000, [1000, 1000, 1000, 1000]), ("H100", 9000, [0, 1000, 1000, 1000]))
    assert cheapest(tables.whole_cost(rows, cpu_milli=0, gpus=1)) == 1


def test_work_that_needs_much_cpu_stays_off_the_gpus_that_the_cpu_has_to_feed():
    tables = build(mix_of((Kind(8000, 1000, 1), 100)), CAPACITY)
    rows = rows_of(("H100", 32_000, [1000] * 4), ("H100", 64_000, [1000] * 4))
    assert cheapest(tables.whole_cost(rows, cpu_milli=8000, gpus=0)) == 1


def test_a_model_that_others_insist_on_is_dear():
    tables = build(mix_of((Kind(0, 1000, 1, ("h100",)), 60), (Kind(0, 1000, 1), 40)), CAPACITY)
    rows = rows_of(("H100", 9000, [1000]), ("A100-80GB", 9000, [1000]))
    assert cheapest(tables.whole_cost(rows, cpu_milli=0, gpus=1)) == 1


def test_before_anything_was_learned_the_fuller_node_of_the_commoner_model_is_taken():
    tables = build(Mix(), CAPACITY)
    rows = rows_of(("H100", 9000, [1000]), ("A100-80GB", 9000, [1000, 1000]), ("A100-80GB", 9000, [1000, 0]))
    assert cheapest(tables.whole_cost(rows, cpu_milli=0, gpus=1)) == 2
    assert tables.classes == ()
    assert tables.fragment(rows).tolist() == [0, 0, 0]
    assert tables.stranded_milli(rows).tolist() == [0, 0, 0]


def test_tables_do_not_let_themselves_be_changed():
    tables = build(mix_of((Kind(0, 500, 1), 100)), CAPACITY)
    with pytest.raises(ValueError, match="read-only"):
        tables.weights[0] = 1


# --- gangs and domains ---


def test_taking_the_slot_that_a_rack_needs_for_one_more_gang_costs_that_gang():
    cost = domain_cost(
        np.array([1, 1, 2]), np.array([0, 0, 1]), np.array([8, 11, 3]), replicas=4, milli=8000, weight=250_000
    )
    assert cost.tolist() == [10 * 250_000 * 4 * 8000, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 40)), min_size=1, max_size=8),
    st.integers(1, 6),
)
def test_a_domain_loses_as_many_gangs_as_it_can_hold_fewer(cases, replicas):
    before = np.array([max(x, y) for x, y, _ in cases])
    after = np.array([min(x, y) for x, y, _ in cases])
    domain = before + np.array([more for _, _, more in cases])
    cost = domain_cost(before, after, domain, replicas=replicas, milli=1000, weight=1)
    for row, (have, left, whole) in enumerate(zip(before.tolist(), after.tolist(), domain.tolist(), strict=True)):
        gangs_before = len(range(replicas, whole + 1, replicas))
        gangs_after = len(range(replicas, whole - have + left + 1, replicas))
        assert cost[row] == 10 * replicas * 1000 * (gangs_before - gangs_after)


def test_gang_kinds_weigh_as_one_request_of_their_whole_size():
    gang, single = Kind(0, 1000, 4, (), 4, "rack"), Kind(0, 1000, 4)
    tables = build(mix_of((gang, 80), (single, 80)), CAPACITY)
    assert tables.classes == (single,)
    assert tables.gangs == ((gang, WEIGHTS_SUM // 4),)  # half of the pods, and a root of 16 instead of 4


def test_a_gang_that_may_lie_anywhere_takes_no_domain():
    assert build(mix_of((Kind(0, 1000, 4, (), 4), 80)), CAPACITY).gangs == ()


# --- measures ---


def test_free_gpu_is_stranded_where_no_learned_class_can_use_it():
    tables = build(mix_of((Kind(4000, 500, 1), 60), (Kind(1000, 1000, 2, ("h100",)), 40)), CAPACITY)
    rows = rows_of(
        ("H100", 9000, [190, 500, 0]),  # 190 is too small
        ("H100", 3000, [1000, 500, 0]),  # no CPU for a share, and one idle GPU is not two
        ("H100", 3000, [1000, 1000, 400]),  # the pair is of use
        ("T4", 3000, [1000, 1000, 0]),  # not of the model that the pair wants
    )
    assert tables.stranded_milli(rows).tolist() == [190, 1500, 400, 2000]


def test_the_largest_gang_is_that_of_the_roomiest_domain():
    assert largest_gang(np.array([1, 2, 4, 8]), np.array([0, 0, 1, -1])) == 4
    assert largest_gang(np.array([1, 2, 2, 8]), np.array([0, 0, 0, 1])) == 8
    assert largest_gang(np.array([8]), np.array([-1])) == 0
