"""Several resources divided by dominant share, against the same rule in fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import builders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.model.fairness import BUILT_IN
from fairlead.ordering.dominant import VectorClaim, divide_vectors, entitlements_of_all, scale_of
from fairlead.ordering.fair_share import fill, gpu_entitlements
from fairlead.ordering.queue_tree import QueueTree

LOOKS = settings(max_examples=200, deadline=None, derandomize=True)
FINE = Fraction(1, 1 << 20)
"""Levels are rounded, too."""


def raised(
    amounts: Sequence[int], floor: Any, caps: Any, claims: Sequence[VectorClaim], scale: Sequence[int], scarce: set[int]
) -> list[list[Fraction]]:
    """Everybody rises along what he lacks, all at one level; a resource that is used up stops growing for everybody."""
    full = []
    for mine, cap, claim in zip(floor, caps, claims, strict=True):
        lacks = [(high - low, s * w) for low, high, s, w in zip(mine, cap, scale, claim.weight, strict=True)]
        full.append(max((Fraction(lack, by) for lack, by in lacks if lack > 0), default=Fraction(0)))
    share = [[Fraction(low) for low in mine] for mine in floor]
    for r, there_is in enumerate(amounts):
        if r in scarce:
            continue

        def at(level: Fraction, r: int = r) -> list[Fraction]:
            rows = zip(floor, caps, full, strict=True)
            return [low[r] + (cap[r] - low[r]) * min(Fraction(1), level / top if top else 1) for low, cap, top in rows]

        level = max(full, default=Fraction(0))
        if sum(at(level)) > there_is:
            knees = sorted({Fraction(0), *full})
            low = max(knee for knee in knees if sum(at(knee)) <= there_is)
            high = min(knee for knee in knees if sum(at(knee)) > there_is)
            below, beyond = sum(at(low)), sum(at(high))
            level = low + (high - low) * (there_is - below) / (beyond - below)
        for mine, value in zip(share, at(level), strict=True):
            mine[r] = value
    return share


vectors = st.lists(st.integers(0, 30), min_size=2, max_size=2)
claims_of_two = st.lists(
    st.builds(
        VectorClaim, vectors, vectors, st.one_of(st.just([0, 0]), vectors),
        st.lists(st.integers(1, 4), min_size=2, max_size=2),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@given(
    st.lists(st.integers(0, 80), min_size=2, max_size=2), claims_of_two, st.sampled_from([(100, 50), (1, 1), (7, 90)])
)
@LOOKS
def test_a_division_of_two_resources_is_that_in_fractions_to_within_a_unit(amounts, claims, scale) -> None:
    found = divide_vectors(amounts, claims, scale)
    sure = [[min(g, d) for g, d in zip(claim.guaranteed, claim.demand, strict=True)] for claim in claims]
    scarce = set()
    for r in range(2):
        column = [mine[r] for mine in sure]
        if sum(column) >= amounts[r]:
            scarce.add(r)
            column = fill(amounts[r], column, [claim.weight[r] for claim in claims], [0] * len(claims))
        for mine, value in zip(sure, column, strict=True):
            mine[r] = value
    for r in range(2):
        assert sum(mine[r] for mine in found) <= min(amounts[r], sum(claim.demand[r] for claim in claims))
        if r in scarce:
            assert [mine[r] for mine in found] == [mine[r] for mine in sure]
    if any(any(claim.first) for claim in claims):
        for mine, low, claim in zip(found, sure, claims, strict=True):
            assert all(low[r] <= mine[r] <= claim.demand[r] for r in range(2))
        first = [
            [max(low[r], min(claim.first[r], claim.demand[r])) for r in range(2)]
            for low, claim in zip(sure, claims, strict=True)
        ]
        if all(r in scarce or sum(mine[r] for mine in first) <= amounts[r] for r in range(2)):
            sure = [
                [low[r] if r in scarce else high[r] for r in range(2)] for low, high in zip(sure, first, strict=True)
            ]
        else:
            return  # two roundings after another
    exact = raised(amounts, sure, [claim.demand for claim in claims], claims, scale, scarce)
    for mine, due in zip(found, exact, strict=True):
        assert all(due[r] - 1 - FINE <= mine[r] <= due[r] for r in range(2)), (found, exact)


@pytest.mark.parametrize(
    ("weights", "scale"),
    [
        ((), [10, 20, 30]),  # every resource counts alike
        ((("cpu", 500),), [10, 40, 0]),  # GPUs always, what is named by its weight, nothing else
        ((("gpu", 2_000), ("memory", 1)), [5, 0, 30_000]),
        ((("gpu", 0),), [0, 0, 0]),
    ],
)
def test_what_a_dominant_share_is_a_part_of(weights, scale) -> None:
    policy = replace(BUILT_IN, resources=weights)
    assert scale_of(policy, ("gpu", "cpu", "memory"), (10, 20, 30)) == scale


TREE = {"org": "guaranteed=2", "a": "parent=org cpu.guaranteed=4", "b": "parent=org cpu.limit=6", "c": "weight=3"}


@given(
    st.integers(1, 12), st.dictionaries(st.sampled_from(sorted(TREE)), st.integers(0, 8), min_size=1),
    st.dictionaries(st.sampled_from(sorted(TREE)), st.integers(0, 8)),
)  # fmt: skip
@LOOKS
def test_where_only_gpus_are_wanted_it_is_what_gpus_alone_are_divided_into(capacity, wanted, held) -> None:
    """To within a rounding of each of the queues; and a resource of which there is none changes nothing."""
    tree = QueueTree({name: builders.queue(name, text) for name, text in TREE.items()})
    demand = {name: 1000 * max(gpus, held.get(name, 0)) for name, gpus in wanted.items()} | {"nobody": 1000}
    holds = {name: 1000 * gpus for name, gpus in held.items() if name in wanted}
    alone = gpu_entitlements(tree, 1000 * capacity, demand | {"c": demand.get("c", 0) + 1}, holds)
    found = entitlements_of_all(
        tree, {"gpu": 1000 * capacity, "cpu": 0}, {"gpu": demand, "cpu": {}}, {"gpu": holds, "cpu": {}}
    )
    assert not any(found["cpu"].values())
    for name in TREE:
        assert abs(found["gpu"].get(name, 0) - alone.get(name, 0)) <= len(TREE) + 1


def test_two_resources_go_down_the_tree_by_hand() -> None:
    """Ten GPUs and 40 cores. `c` asks for GPUs, `a` and `b` for cores; `b` has a limit of 6, `a` is guaranteed 4."""
    tree = QueueTree({name: builders.queue(name, text) for name, text in TREE.items()})
    found = entitlements_of_all(
        tree,
        {"gpu": 10_000, "cpu": 40_000},
        {"gpu": {"c": 20_000, "org": 1_000}, "cpu": {"a": 50_000, "b": 9_000}},
        {},
    )
    due = {"gpu": {"c": 9_000, "org": 1_000, "a": 0, "b": 0}, "cpu": {"a": 34_000, "b": 6_000, "c": 0, "org": 0}}
    assert found.keys() == due.keys()
    for kind, parts in due.items():
        assert found[kind] == pytest.approx(parts, abs=2), "less by fewer units than there are claims"


@pytest.mark.parametrize("names", ["a", "ab", "abc", "abcdefgh"])
def test_a_backlog_of_many_times_the_fleet_is_divided_like_any_other(names) -> None:
    """Of three licences no more than three are given out, however many GPUs those who want them wait for."""
    tree = QueueTree({name: builders.queue(name) for name in names})
    demand = {"gpu": dict.fromkeys(names, 100_000), "a.b/licence": dict.fromkeys(names, 2)}
    found = entitlements_of_all(tree, {"gpu": 8_000, "a.b/licence": 3}, demand, {})
    assert 8_000 - len(names) < sum(found["gpu"].values()) <= 8_000
    assert min(3, 2 * len(names)) - len(names) <= sum(found["a.b/licence"].values()) <= 3
