"""Entitlements: guarantees first, the rest by weight, never above demand or limit, down the tree alike."""

from __future__ import annotations

import builders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.model.tenancy import Queue, ancestors, tenant_of
from fairlead.ordering.fair_share import Claim, divide, entitlements
from fairlead.ordering.standing import Standing

CLAIMS = st.lists(st.builds(Claim, st.integers(0, 40), st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6)
LOOKS = settings(max_examples=300, deadline=None, derandomize=True)


def shares(capacity: int, queues: dict[str, str], demand: dict[str, int]) -> dict[str, int]:
    return whole_entitlements(capacity, {name: builders.queue(name, text) for name, text in queues.items()}, demand)


def milli(gpus: dict[str, int]) -> dict[str, int]:
    return {name: 1000 * count for name, count in gpus.items()}


def whole_entitlements(capacity: int, queues: dict[str, Queue], demand: dict[str, int]) -> dict[str, int]:
    """In whole GPUs; of whole demands every entitlement is whole."""
    found = entitlements(1000 * capacity, queues, milli(demand))
    assert all(share % 1000 == 0 for share in found.values()), found
    return {name: share // 1000 for name, share in found.items()}


@pytest.mark.parametrize(
    ("capacity", "queues", "demand", "expected"),
    [
        pytest.param(16, {"a": "", "b": ""}, {"a": 20, "b": 20}, {"a": 8, "b": 8}, id="equal weights halve"),
        pytest.param(16, {"a": "", "b": ""}, {"a": 3, "b": 20}, {"a": 3, "b": 13}, id="what one leaves goes to others"),
        pytest.param(16, {"a": "weight=3", "b": ""}, {"a": 20, "b": 20}, {"a": 12, "b": 4}, id="by weight"),
        pytest.param(16, {"a": "guaranteed=12", "b": ""}, {"a": 20, "b": 20}, {"a": 14, "b": 2}, id="guarantee first"),
        pytest.param(16, {"a": "guaranteed=12", "b": ""}, {"a": 2, "b": 20}, {"a": 2, "b": 14}, id="idle is lent"),
        pytest.param(
            8, {"a": "guaranteed=8", "b": "guaranteed=8"}, {"a": 9, "b": 9}, {"a": 4, "b": 4}, id="too little"
        ),
        pytest.param(16, {"a": "limit=4", "b": ""}, {"a": 20, "b": 20}, {"a": 4, "b": 12}, id="a limit caps"),
        pytest.param(3, {"a": "", "b": ""}, {"a": 9, "b": 9}, {"a": 2, "b": 1}, id="the odd one goes to the first"),
        pytest.param(
            16,
            {"org": "", "a": "parent=org", "b": "parent=org", "c": ""},
            {"a": 20, "b": 20, "c": 20},
            {"org": 0, "a": 4, "b": 4, "c": 8},
            id="more queues below one root win nothing",
        ),
        pytest.param(
            16,
            {"org": "limit=6", "a": "parent=org", "c": ""},
            {"a": 20, "c": 20},
            {"org": 0, "a": 6, "c": 10},
            id="the parent's limit caps the child",
        ),
        pytest.param(
            16,
            {"org": "", "a": "parent=org guaranteed=10", "c": ""},
            {"a": 20, "c": 20},
            {"org": 0, "a": 13, "c": 3},
            id="a child's guarantee holds although its parent promises nothing",
        ),
        pytest.param(
            16, {"org": "guaranteed=8", "a": "parent=org"}, {"org": 8, "a": 8}, {"org": 8, "a": 8}, id="own jobs count"
        ),
        pytest.param(0, {"a": "guaranteed=4"}, {"a": 4}, {"a": 0}, id="nothing to share"),
        pytest.param(9, {"a": "weight=0", "b": "weight=0"}, {"a": 9, "b": 9}, {"a": 5, "b": 4}, id="no weights at all"),
        pytest.param(
            9, {"a": "weight=0", "b": ""}, {"a": 9, "b": 4}, {"a": 5, "b": 4}, id="who weighs nothing is last"
        ),
        pytest.param(9, {"a": "parent=b", "b": "parent=a"}, {"a": 9, "b": 9}, {"a": 0, "b": 0}, id="a circle"),
        pytest.param(9, {"a": "parent=a"}, {"a": 9}, {"a": 9}, id="its own parent"),
        pytest.param(9, {"a": "parent=gone"}, {"a": 9}, {"a": 9}, id="a parent that is not there"),
        pytest.param(9, {}, {"a": 9}, {}, id="no queues"),
    ],
)
def test_entitlement(capacity, queues, demand, expected) -> None:
    assert shares(capacity, queues, demand) == expected


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_a_division_gives_out_all_that_is_wanted_and_no_more(amount: int, claims: list[Claim]) -> None:
    parts = divide(amount, claims)
    assert sum(parts) == min(amount, sum(claim.demand for claim in claims))
    for part, claim in zip(parts, claims, strict=True):
        assert 0 <= part <= claim.demand


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_guarantees_come_first(amount: int, claims: list[Claim]) -> None:
    wanted = [min(claim.guaranteed, claim.demand) for claim in claims]
    parts = divide(amount, claims)
    if sum(wanted) <= amount:
        assert all(part >= sure for part, sure in zip(parts, wanted, strict=True))
    else:
        assert all(part <= sure for part, sure in zip(parts, wanted, strict=True))


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_more_capacity_never_costs_anybody_more_than_a_rounding(amount: int, claims: list[Claim]) -> None:
    less, more = divide(amount, claims), divide(amount + 1, claims)
    assert all(after >= before - 1 for before, after in zip(less, more, strict=True))


@given(st.integers(0, 200), CLAIMS, st.integers(0, 5))
@LOOKS
def test_asking_for_more_never_gives_others_more_nor_oneself_less(amount: int, claims: list[Claim], who: int) -> None:
    who %= len(claims)
    eager = list(claims)
    eager[who] = Claim(claims[who].guaranteed, claims[who].demand + 7, claims[who].weight)
    before, after = divide(amount, claims), divide(amount, eager)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new >= old - 1 if i == who else new <= old + 1


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6))
@LOOKS
def test_nobody_with_unmet_demand_has_less_per_weight_than_another(amount: int, pairs: list[tuple[int, int]]) -> None:
    """Max-min: whoever is not satisfied is at the water level, to within the rounding of one GPU."""
    claims = [Claim(0, demand, weight) for demand, weight in pairs]
    parts = divide(amount, claims)
    for i, claim in enumerate(claims):
        if parts[i] < claim.demand:
            for k, other in enumerate(claims):
                assert (parts[i] + 1) * other.weight >= (parts[k] - 1) * claim.weight, (parts, claims)


@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.integers(-1, 4), st.integers(0, 20), st.integers(0, 40), st.integers(1, 4), st.integers(0, 40)),
        min_size=1,
        max_size=6,
    ),
)
@LOOKS
def test_a_tree_gives_out_no_more_than_there_is_and_keeps_every_limit(capacity, rows) -> None:
    queues: dict[str, Queue] = {}
    for i, (parent, guaranteed, limit, weight, _) in enumerate(rows):
        above = f"q{parent}" if 0 <= parent < i else ""
        queues[f"q{i}"] = Queue(
            name=f"q{i}", parent=above, guaranteed_gpus=guaranteed, limit_gpus=limit or None, weight=weight
        )
    demand = {f"q{i}": row[4] for i, row in enumerate(rows)}
    found = whole_entitlements(capacity, queues, demand)
    assert sum(found.values()) <= capacity
    for name, queue in queues.items():
        assert 0 <= found[name] <= demand[name]
        inside = sum(gpus for below, gpus in found.items() if name in ancestors(below, queues))
        assert queue.limit_gpus is None or inside <= queue.limit_gpus
    if all(queue.limit_gpus is None for queue in queues.values()):
        assert sum(found.values()) == min(capacity, sum(demand.values()))


# --- standing: the same numbers as a cycle moves along --------------------------------------------------------------


def standing(queues: dict[str, str], used: dict[str, int], capacity: int = 16, **more) -> Standing:
    found = {name: builders.queue(name, text) for name, text in queues.items()}
    pending, leaving = ([(n, 1000 * gpus) for n, gpus in more.get(key, [])] for key in ("pending", "leaving"))
    return Standing(1000 * capacity, found, milli(used), pending, leaving)


def test_a_limit_counts_what_is_leaving_and_a_right_does_not() -> None:
    place = standing({"a": "limit=8"}, {"a": 8}, leaving=[("a", 8)])
    assert place.used["a"] == 0
    assert place.limit_hit("a", 1000) is not None
    assert place.limit_hit("a", 8000, after_stops=True) is None


def test_what_is_hoped_for_is_used_but_nobody_loses_on_the_strength_of_it() -> None:
    place = standing({"a": "", "b": ""}, {"a": 8}, pending=[("a", 8), ("b", 8)])
    assert not place.may_lose("a", 8000, "b")
    place.hope("a", 8000)
    assert not place.within_entitlement("a", 1000)
    assert not place.may_lose("a", 8000, "b")
    place.charge("a", 1000)
    assert place.may_lose("a", 1000, "b")


def test_a_guarantee_above_both_is_not_in_the_way() -> None:
    queues = {"org": "guaranteed=16", "a": "parent=org guaranteed=8", "b": "parent=org guaranteed=8", "x": ""}
    place = standing(queues, {"a": 16}, pending=[("b", 8), ("x", 8)])
    assert place.may_lose("a", 8000, "b")
    assert not place.may_lose("a", 8000, "x")
    assert not place.may_lose("a", 16000, "b")


def test_the_order_is_below_guarantee_first_then_by_share_then_by_name() -> None:
    queues = {"far": "guaranteed=8", "near": "guaranteed=8", "big": "", "low": "", "same": ""}
    used = {"far": 0, "near": 4, "big": 4, "low": 1, "same": 1}
    place = standing(queues, used, capacity=32, pending=[(name, 20) for name in queues])
    assert sorted(queues, key=place.order_key) == ["far", "near", "low", "same", "big"]
    assert place.order_key("unknown")[0] == 2


def test_who_is_above_whom_ends_at_a_circle_and_at_a_missing_parent() -> None:
    queues = {
        name: builders.queue(name, text) for name, text in {"a": "parent=b", "b": "parent=a", "c": "parent=x"}.items()
    }
    assert ancestors("a", queues) == ("a", "b")
    assert ancestors("c", queues) == ("c",)
    assert ancestors("nobody", queues) == ()
    assert tenant_of("nobody", queues) == "nobody"


def test_parts_of_a_gpu_are_divided_finer_than_whole_ones() -> None:
    queues = {name: builders.queue(name) for name in ("a", "b", "c")}
    assert entitlements(8000, queues, dict.fromkeys(queues, 8000)) == {"a": 3000, "b": 3000, "c": 2000}
    assert entitlements(8000, queues, {"a": 8000, "b": 8000, "c": 500}) == {"a": 3750, "b": 3750, "c": 500}
    assert entitlements(1, queues, {"b": 1, "c": 1}) == {"a": 0, "b": 1, "c": 0}, "guaranteed is nothing unless said"
    sure = queues | {"c": builders.queue("c", "guaranteed=1")}
    assert entitlements(1001, sure, {"b": 501, "c": 2000}) == {"a": 0, "b": 1, "c": 1000}
    place = Standing(1000, queues, {"a": 500}, [("b", 500)])
    assert place.within_entitlement("b", 500)
    assert not place.within_entitlement("b", 501)
    assert place.limit_hit("a", 10_000) is None


def test_the_worked_example_of_the_page_on_fairness() -> None:
    queues = {"a": "guaranteed=6", "b": "weight=2", "c": "", "c1": "parent=c", "c2": "parent=c"}
    found = shares(16, queues, {"a": 8, "b": 8, "c1": 8, "c2": 8})
    assert found == {"a": 8, "b": 5, "c": 0, "c1": 2, "c2": 1}
