"""Limits, rights and divisions of quotas against plain sums over every queue, made anew for each question."""

from __future__ import annotations

from fractions import Fraction

import builders
import pytest
import quota_words
from hypothesis import given, settings
from hypothesis import strategies as st
from quotas_by_hand import NAMES, ByHand, trees

from fairlead.model.fairness import ROOT_POLICY
from fairlead.model.quota import FIXED, GPU
from fairlead.model.tenancy import ancestors
from fairlead.ordering.accounts import Account, LimitHit
from fairlead.ordering.fair_share import Claim, divide, fill, gpu_entitlements
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Counted, Standing

LOOKS = settings(max_examples=250, deadline=None, derandomize=True)
moves = st.lists(
    st.tuples(
        st.sampled_from(["charge", "charge", "leave", "hope", "back"]), st.sampled_from(NAMES), st.integers(0, 3000)
    ),
    max_size=6,
)


@given(trees(), st.integers(0, 20), moves, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 6000)), moves)
@settings(LOOKS, max_examples=100)
def test_an_account_says_what_plain_sums_say(texts, capacity, first, entitled, later) -> None:
    queues = {name: builders.queue(name, text) for name, text in texts.items()}
    hand = ByHand(queues, 1000 * capacity, entitled)
    hand.held["used"] = [(queue, amount) for _, queue, amount in first]
    used = {name: hand.sum("used", name) for name in NAMES} | {"nobody": 7}
    account = Account(QueueTree(queues), GPU, 1000 * capacity, used)
    account.entitle(entitled)
    for kind, queue, most in later:
        amount = most
        if kind in ("leave", "back"):
            amount = min(amount, hand.sum("used", queue) - hand.sum("hoped", queue))
        if kind == "charge":
            account.charge(queue, amount)
        elif kind == "back":
            account.charge(queue, -amount)
        else:
            (account.leave if kind == "leave" else account.hope)(queue, amount)
        hand.held["used"].append((queue, -amount if kind in ("leave", "back") else amount))
        if kind in ("leave", "hope"):
            hand.held["leaving" if kind == "leave" else "hoped"].append((queue, amount))
    keeps = any(hand.kept(name) for name in NAMES)
    for queue in NAMES:
        chain = ancestors(queue, queues)
        bounds = {name: bound for name in chain if (bound := hand.bound(name)) is not None}
        rooms = [b[0] - hand.inside("used", n) - hand.inside("leaving", n) for n, b in bounds.items()]
        rooms += [hand.lent_room(queue)] if keeps else []
        assert account.room(queue) == min(rooms, default=None)
        for amount in {0, 1, 2500, *(room + more for room in rooms for more in (0, 1))}:
            for after in (False, True):
                assert account.hit(queue, amount, after_stops=after) == hand.hit(queue, amount, after_stops=after)
            above = [LimitHit(n, 0, b[0], GPU, b[1]) for n, b in bounds.items() if amount > b[0]]
            assert account.never(queue, amount) == next(iter(above), None)
        mine, held = hand.bound(queue), hand.inside("used", queue)
        broken = mine is not None and held > mine[0]
        assert account.over(queue) == (LimitHit(queue, held, mine[0], GPU, mine[1]) if broken else None)
        assert account.excess(queue) == hand.excess(queue, hoped=False)
        assert account.room_in_entitlement(queue) == -hand.excess(queue, hoped=True)
        alone = entitled.get(queue, 0) - hand.sum("used", queue)
        assert account.room_in_entitlement(queue, alone=True) == alone
        touched = hand.head(queue) or queue
        moved = {hand.head(name) or name for name in (*account.used,)}
        assert account.lends(queue) == (touched in moved and hand.excess(queue, hoped=False) > 0)
        for other in NAMES:
            left = [
                hand.inside("used", name) - hand.inside("hoped", name) - hand.guaranteed(name)
                for name in chain
                if name not in ancestors(other, queues)
            ]
            assert account.left_above_guarantees(queue, other) == min(left, default=hand.sum("used", queue))
            for amount in (0, 1, 700):
                owed = [
                    hand.inside("used", name) + amount <= hand.guaranteed(name)
                    for name in chain
                    if name not in ancestors(other, queues)
                ]
                assert account.is_owed(queue, amount, other) == any(owed)
    assert account.hit("alone", 0) == account.hit("alone", 0, after_stops=False)
    assert account.hit("nobody", 1) is account.never("nobody", 1) is account.over("nobody") is None


@given(trees(), st.dictionaries(st.sampled_from(NAMES), st.integers(1, 8)))
@LOOKS
def test_a_book_has_what_queues_say_and_what_follows_for_those_above(texts, weights) -> None:
    queues = {
        name: builders.queue(name, text + (f" weight={weights[name]}" if name in weights else "") + " need=2")
        for name, text in texts.items()
    }
    hand = ByHand(queues, 0, {})
    book = QueueTree(queues).book(GPU)
    for name in NAMES:
        assert book.guaranteed.get(name, 0) == hand.guaranteed(name)
        assert book.promised.get(name, 0) == hand.promised(name)
        assert book.kept.get(name, 0) == hand.kept(name)
        assert book.weight(name) == weights.get(name, 1)
        assert book.needed[name] == 2000
        bound = book.most.get(name)
        assert (None if bound is None else (bound.amount, bound.word)) == hand.bound(name)
    for name in ("", *NAMES):
        below = hand.children(name)
        assert book.promised_below.get(name, 0) == sum(hand.promised(child) for child in below)
        assert book.kept_below.get(name, 0) == sum(hand.kept(child) for child in below)
        assert sorted(book.keepers.get(name, [])) == sorted(child for child in below if hand.kept(child))


# --- one division -----------------------------------------------------------------------------------------------------


def poured(amount: int, caps: list[int], weights: list[int], floor: list[int]) -> list[int]:
    """Water into vessels as wide as their weights, in fractions; then whole units, the largest fractions first."""
    share = [Fraction(low) for low in floor]
    left = Fraction(amount - sum(floor))
    for widths in (weights, [1] * len(caps)):  # who weighs nothing comes last, and then equally
        while left > 0:
            open_ = [i for i in range(len(caps)) if widths[i] and share[i] < caps[i]]
            if not open_:
                break
            rise = min((caps[i] - share[i]) / widths[i] for i in open_)
            rise = min(rise, left / sum(widths[i] for i in open_))
            for i in open_:
                share[i] += rise * widths[i]
            left -= rise * sum(widths[i] for i in open_)
    whole = [int(part) for part in share]
    by_fraction = sorted(range(len(caps)), key=lambda i: (-(share[i] - whole[i]), i))
    for i in by_fraction[: int(sum(share)) - sum(whole)]:
        whole[i] += 1
    return whole


vessels = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=5
)


@given(st.integers(0, 120), vessels)
@LOOKS
def test_filling_is_pouring_water(amount, rows) -> None:
    floor, more, weights = ([row[at] for row in rows] for at in range(3))
    caps = [low + extra for low, extra in zip(floor, more, strict=True)]
    found = fill(amount, caps, weights, floor)
    if amount >= sum(floor):
        assert found == poured(amount, caps, weights, floor)
        assert fill(10**6 * amount, [10**6 * c for c in caps], weights, [10**6 * low for low in floor]) == poured(
            10**6 * amount, [10**6 * c for c in caps], weights, [10**6 * low for low in floor]
        )
    else:
        assert found == floor


@given(st.integers(0, 120), vessels)
@LOOKS
def test_a_division_pours_guarantees_then_what_comes_first_then_the_rest(amount, rows) -> None:
    claims = [Claim(guaranteed=sure, demand=demand, weight=w, first=first) for sure, demand, w, first in rows]
    weights = [claim.weight for claim in claims]
    sure = [min(claim.guaranteed, claim.demand) for claim in claims]
    expected = poured(amount, sure, weights, [0] * len(claims))
    if sum(sure) < amount:
        first = [max(s, min(claim.first, claim.demand)) for s, claim in zip(sure, claims, strict=True)]
        expected = poured(amount, first, weights, sure)
        expected = poured(amount, [claim.demand for claim in claims], weights, expected)
    assert divide(amount, claims) == expected


# --- how queues stand -------------------------------------------------------------------------------------------------


@given(
    trees(), st.integers(1, 20), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5000)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5000)),
)  # fmt: skip
@LOOKS
def test_how_queues_stand_follows_from_plain_sums(texts, capacity, used, pending) -> None:
    queues = {name: builders.queue(name, text) for name, text in texts.items()}
    tree = QueueTree(queues)
    standing = Standing(1000 * capacity, tree, used, pending.items())
    demand = {name: used.get(name, 0) + pending.get(name, 0) for name in NAMES}
    entitled = gpu_entitlements(tree, 1000 * capacity, demand, used)
    assert dict(standing.entitled) == entitled
    hand = ByHand(queues, 1000 * capacity, entitled)
    hand.held["used"] = list(used.items())
    excess = {name: hand.excess(name, hoped=False) for name in NAMES}
    lending = [name for name in NAMES if excess[name] > 0 and (hand.head(name) or used.get(name))]
    lending = [name for name in lending if used.get(name)]
    lending.sort(key=lambda name: (-(excess[name] * 10**6 // (1000 * capacity)), hand.head(name) or name, name))
    assert list(standing.lenders()) == lending
    for name in NAMES:
        guaranteed, own = hand.guaranteed(name), used.get(name, 0)
        lacks = own < min(guaranteed, demand[name])
        key = standing.order_key(name, 3)
        share = own * 10**6 // (entitled.get(name, 0) or 1000)
        if lacks:
            assert key == (0, -((guaranteed - own) * 10**6 // guaranteed), 0, 0, 0, 0, name)
        elif not hand.head(name):
            assert key == (1, 0, share, 0, 0, 0, name)
        else:
            mates = [one for one in NAMES if hand.head(one) == hand.head(name)]
            of_all = sum(used.get(one, 0) for one in mates)
            to_all = sum(entitled.get(one, 0) for one in mates)
            assert key == (1, 0, of_all * 10**6 // (to_all or 1000), 0, -3, share, name)
        for other in NAMES:
            same = bool(hand.head(name)) and hand.head(name) == hand.head(other)
            left = standing.above_guarantees(name, other)
            most = standing.most_to_lose(name, other)
            assert most == (-1 if same or excess[name] <= 0 else max(-1, left))
            owed = standing.is_owed(other, 700) and any(
                hand.inside("used", above) + 700 <= hand.guaranteed(above)
                for above in ancestors(other, queues)
                if above not in ancestors(name, queues)
            )
            assert standing.due(name, other, 700) == (left if owed and left > 0 else -1)
            assert standing.may_yield(name, 700, other) == (same and left >= 700)
    assert standing.order_key("nobody") == (2, 0, 0, 0, 0, 0, "nobody")
    assert standing.most_to_lose("nobody", "org") == standing.due("nobody", "org", 1) == -1
    assert standing.due("org", "nobody", 1) == -1
    assert not standing.is_owed("org", 0)
    assert not standing.within_entitlement("nobody", 0)


COUNTED = {"a": "guaranteed=2 cpu.guaranteed=8 cpu.limit=12", "b": "cpu.limit=64", "c": "fixed=in-quota guaranteed=1"}


def counted(asked: int = 0) -> Standing:
    """Ten GPUs and 32 cores; `a` holds 4 GPUs and 4 cores, `b` 2 GPUs and 24 cores, `c` a GPU that may not be taken."""
    queues = {name: builders.queue(name, text) for name, text in COUNTED.items()}
    more = Counted(
        capacity={"cpu": 32_000, FIXED: 0},
        used={"cpu": {"a": 4_000, "b": 24_000}, FIXED: {"c": 1_000}},
        asked={"cpu": {"a": asked}} if asked else {},
    )
    return Standing(10_000, queues, {"a": 4_000, "b": 2_000, "c": 1_000}, [("a", 1_000)], counted=more)


def test_every_resource_has_limits_of_its_own_and_the_first_that_is_hit_is_named() -> None:
    place = counted()
    assert place.limit_hit("a", 1_000, (("cpu", 8_000),)) is None
    assert place.limit_hit("a", 1_000, (("cpu", 8_001),)) == LimitHit("a", 4_000, 12_000, "cpu", "limit")
    assert place.limit_hit("c", 1_000, ((FIXED, 1),)) == LimitHit("c", 1_000, 1_000, FIXED, "nonPreemptible")
    assert place.never_within_limit("a", 1_000, (("cpu", 12_001),)) == LimitHit("a", 0, 12_000, "cpu", "limit")
    assert place.never_within_limit("a", 1_000, (("cpu", 12_000),)) is None
    assert (place.room_within_limits("a", "cpu"), place.room_within_limits("a")) == (8_000, None)
    place.charge("a", 0, (("cpu", 9_000),))
    assert place.over("a") == [LimitHit("a", 13_000, 12_000, "cpu", "limit")]
    place.leave("a", 1_000, (("cpu", 9_000),))
    assert (place.over("a"), place.used["a"]) == ([], 3_000)
    assert place.limit_hit("a", 0, (("cpu", 1),)) == LimitHit("a", 13_000, 12_000, "cpu", "limit")
    assert place.limit_hit("a", 0, (("cpu", 8_000),), after_stops=True) is None
    place.give_back("a", 3_000, (("cpu", 4_000),))
    assert place.limit_hit("a", 0, (("cpu", 12_000),), after_stops=True) is None
    assert place.used["a"] == 0


def test_what_is_lent_is_looked_at_in_every_resource_that_the_taker_wants() -> None:
    place = counted(asked=12_000)
    assert place.kinds(1_000, (("cpu", 0), (FIXED, 5))) == {GPU}
    assert place.kinds(0, (("cpu", 5),)) == {"cpu"}
    assert place.lenders() == ("b",), "it has more cores than it is entitled to"
    assert place.most_to_lose("b", "a", wants=frozenset({"cpu"})) == 2_000
    assert place.most_to_lose("b", "a", wants=frozenset({GPU})) == -1
    assert place.may_lose("b", 2_000, "a")
    assert not place.may_lose("b", 2_001, "a")
    assert place.excess("b") == (24_000 - 20_000) * 10**6 // 32_000, "in millionths of what there is, where it is most"
    place.hope("a", 1_000, (("cpu", 4_000),))
    assert place.used["a"] == 5_000
    assert not place.may_lose("a", 5_000, "b")


def test_a_change_is_only_supposed_while_it_is_asked_about() -> None:
    queues = {"org": builders.queue("org", "limit=8"), "a": builders.queue("a", "parent=org"), "b": builders.queue("b")}
    place = Standing(16_000, queues, {"a": 8_000}, [])
    assert place.hit_after([("a", -2_000)], "a", 2_000) is None
    assert place.hit_after([("a", -2_000)], "a", 2_001) == LimitHit("org", 6_000, 8_000)
    assert place.hit_after([("a", 500)], "a", 0) == LimitHit("org", 8_500, 8_000)
    assert place.used["a"] == 8_000


@pytest.mark.parametrize(
    ("policy", "a", "b"),
    [("weighted", 6, 2), ("equal", 4, 4), ("slo", 2, 6), ("work-conserving", 8, 0)],
)
def test_a_policy_says_what_comes_before_the_rest(policy, a, b) -> None:
    """Eight GPUs that both want all of; `a` weighs three times as much, `b` needs five, `a` holds seven."""
    queues = {"a": builders.queue("a", "weight=3"), "b": builders.queue("b", "need=5")}
    tree = QueueTree(queues, {ROOT_POLICY: quota_words.policy(ROOT_POLICY, policy)})
    held = {"a": 7_000}
    found = gpu_entitlements(tree, 8_000, {"a": 8_000, "b": 8_000}, held)
    assert found == {"a": 1000 * a, "b": 1000 * b}
