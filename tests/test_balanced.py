"""What cannot be together is shared out evenly, over as few nodes and domains as hold it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import builders
import numpy as np
import pytest
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st

from fairlead.placement.tree import even, few

CAPS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def least_maximum(rooms: tuple[int, ...], count: int) -> int:
    """The smallest number that the fullest can have, by trying."""
    return next(most for most in range(count + 1) if sum(min(room, most) for room in rooms) >= count)


@given(CAPS, st.integers(1, 3), st.data())
def test_an_even_share_uses_as_few_as_packing_and_its_fullest_is_as_empty_as_can_be(caps, unit, data):
    rooms = [cap * unit for cap in caps]
    count = data.draw(st.integers(1, max(1, sum(caps)))) * unit
    if count > sum(rooms):
        return
    column = np.array(rooms)
    packed, shared = few(column, count, None), even(column, count, unit, None, over_all=False)
    assert (
        len(shared)
        == len(packed)
        == min(size for size in range(1, len(rooms) + 1) if sum(sorted(rooms)[-size:]) >= count)
    )
    assert sum(number for _, number in shared) == count
    assert all(0 < number <= rooms[child] and number % unit == 0 for child, number in shared)
    sets = [chosen for chosen in combinations(caps, len(shared)) if sum(chosen) * unit >= count]
    assert max(number for _, number in shared) == unit * min(least_maximum(s, count // unit) for s in sets)


def test_a_set_with_more_room_is_taken_where_the_tightest_one_would_fill_its_largest() -> None:
    shared = even(np.array([4, 4, 5, 6, 6]), 19, 1, None, over_all=False)
    assert sorted(number for _, number in shared) == [4, 5, 5, 5]


@given(CAPS, st.data())
def test_a_spread_goes_over_all_that_hold_any(caps, data):
    count = data.draw(st.integers(1, max(1, sum(caps))))
    if count > sum(caps):
        return
    shared = dict(even(np.array(caps), count, 1, None, over_all=True))
    fullest = max(shared.values())
    assert fullest == least_maximum(tuple(caps), count)
    assert all(shared.get(child, 0) >= min(cap, fullest - 1) for child, cap in enumerate(caps))


@given(CAPS, st.lists(st.integers(0, 2), min_size=6, max_size=6), st.data())
def test_of_equal_children_the_cheapest_come_first(caps, costs, data):
    count = data.draw(st.integers(1, max(1, max(caps))))
    if count > max(caps):
        return
    ((child, _),) = even(np.array(caps), count, 1, np.array(costs[: len(caps)]), over_all=False)
    tightest = min(cap for cap in caps if cap >= count)
    assert caps[child] == tightest
    assert costs[child] == min(cost for cap, cost in zip(caps, costs, strict=False) if cap == tightest)


RACKS = {"a": "8 rack=r1", "b": "8 rack=r1", "c": "8 rack=r2", "d": "8 rack=r2"}


@pytest.mark.parametrize(
    ("nodes", "job", "held"),
    [
        pytest.param(RACKS, "12x1 near=rack", [6, 6], id="two nodes of one rack"),
        pytest.param(RACKS, "12x1", [4, 8], id="who wishes for nothing is packed"),
        pytest.param(RACKS, "12x1 within=rack", [4, 8], id="a required rack says nothing about its nodes"),
        pytest.param(RACKS, "20x1 near=rack", [4, 8, 8], id="10 and 10 would take a fourth node"),
        pytest.param(RACKS, "26x1 near=rack", [6, 6, 7, 7], id="13 and 13 take no more than 16 and 10"),
        pytest.param(RACKS, "28x1 near=rack", [7, 7, 7, 7], id="two racks evenly"),
        pytest.param({"a": "8 rack=r1", "b": "4"}, "12x1 near=rack", [4, 8], id="a node in no rack is used"),
    ],
)
def test_a_gang_that_prefers_a_level_has_as_many_members_on_each_of_its_nodes(nodes, job, held):
    stage = Stage([builders.node(name, text) for name, text in nodes.items()], [builders.queue("team")])
    stage.submit("team/a", job)
    stage.settle()
    members = stage.attempt("team/a").placement.members
    assert sorted(Counter(member.node for member in members).values()) == held
