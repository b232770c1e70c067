"""What a part of a GPU is worth, on demands whose ideal packing is plain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.placement.device_prices import GRID, device_worth, grid_steps


def shares_of_a_device(worth):
    return [round(value / 10_000) for value in worth]


def test_halves_are_worth_half_and_less_than_half_nothing():
    worth = shares_of_a_device(device_worth({500: 70, 1000: 30}))
    assert worth[49] == 0
    assert worth[50] == worth[99] == 50
    assert worth[100] == 100


def test_what_nobody_is_small_enough_for_is_worth_nothing():
    worth = shares_of_a_device(device_worth({810: 50, 470: 50}))
    assert worth[46] == 0
    assert worth[47] == pytest.approx(50, abs=3), "two of them fill a device"
    assert worth[81] > 90


def test_a_remainder_is_worth_what_the_small_pods_for_it_are_rare_by():
    many = shares_of_a_device(device_worth({810: 50, 190: 400}))
    few = shares_of_a_device(device_worth({810: 50, 190: 5}))
    assert few[19] < 3, "more is left than small pods will come"
    assert many[19] == pytest.approx(20, abs=2), "every remainder will be filled"


@pytest.mark.parametrize("parts", range(2, 11))
def test_so_many_equal_parts_fit_on_the_grid_as_on_a_device(parts):
    milli = 1000 // parts
    assert GRID // grid_steps(milli) == 1000 // milli
    worth = device_worth({milli: 10, 1000: 1})
    assert worth[GRID // parts] == pytest.approx(1_000_000 / parts, rel=0.02)


@given(st.dictionaries(st.integers(1, 1000), st.integers(1, 10_000), max_size=30))
def test_worth_never_falls_and_a_whole_device_is_worth_one(pods):
    worth = device_worth(pods)
    assert list(worth) == sorted(worth)
    assert worth[0] == 0
    assert worth[GRID] in (0, 1_000_000)


def test_whole_devices_alone_have_no_prices():
    assert set(device_worth({1000: 5})) == set(device_worth({})) == {0}
