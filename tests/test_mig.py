"""MIG grids of real products: their states counted, and what holds in every one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mig_grids import A100_80, PLAIN, PRODUCTS, RTX, cut_grid, grid

from fairlead.model.partitions import MigGeometry, MigProfile
from fairlead.topology.mig_grid import full_grid, grid_milli, grid_of

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


def test_no_profile_has_more_instances_than_its_most_and_none_has_media_engines_twice() -> None:
    few = MigProfile(id=1, name="few", size=1, starts=(0, 1, 2, 3), most=2)
    found = full_grid((few,))
    assert found is not None
    assert (found.states, found.room("few")[0]) == (11, 2)
    pair = tuple(replace(few, id=at, name=f"1g.{at}gb+me", most=1) for at in range(2))
    media = full_grid((*pair, replace(few, id=2, name="4g.9gb", size=4, starts=(0,), most=1)))
    assert media is not None
    assert media.states == 10, "of some products no engines are known, but this rule is"


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
    assert grid_milli(found, "2g.20gb") == grid_milli(grid(), "2g.20gb"), "a part of the whole GPU, not of what is cut"
    wide = cut_grid(RTX, ("1g.24gb+me.all", 0), ("1g.24gb", 3))
    assert wide is not None
    assert wide.states == 4, "what the driver has made goes together"


def test_what_instances_count_for() -> None:
    found = grid()
    assert {name: grid_milli(found, name) for name in PLAIN} == {
        "1g.10gb": 125, "2g.20gb": 250, "3g.40gb": 500, "4g.40gb": 500, "7g.80gb": 1000,
    }  # fmt: skip
    assert grid_milli(grid("NVIDIA A30"), "2g.12gb+me") == 500
    assert grid_milli(found, "9g.90gb") == 0


@pytest.mark.parametrize("product", [A100_80, RTX])
def test_a_start_that_keeps_room_is_found_in_every_state(product) -> None:
    found = grid(product)
    for name in [p.name for p in found.profiles]:
        room = found.room(name)
        for state in np.flatnonzero(room).tolist()[::3]:
            after = found.put(state, name, found.best_start(state, name, keep=int(room[state]) - 1))
            assert room[after] == room[state] - 1


def test_the_best_start_for_others_gives_way_to_more_of_the_same() -> None:
    wide = MigProfile(id=1, name="wide", size=2, starts=(0, 1, 2), most=2)
    edge = MigProfile(id=2, name="edge", size=1, starts=(0, 3), most=2)
    found = full_grid((wide, edge))
    mix = (("edge", 9),)
    assert found.best_start(0, "wide", mix) == 1, "both edges stay free"
    assert found.best_start(0, "wide", mix, keep=1) in (0, 2)
    assert found.best_start(0, "wide", mix, keep=2) == -1
