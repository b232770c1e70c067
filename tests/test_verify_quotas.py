"""The second opinion on quotas, on small trees: it agrees with the first, and with plain sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import builders
import pytest
from cap_worlds import NOW, running
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quotas_by_hand import NAMES, ByHand, trees

from fairlead.model.gang import Member, Placement
from fairlead.model.quota import FIXED, GPU, amount_text
from fairlead.model.quota_exception import QuotaException
from fairlead.model.tenancy import ancestors
from fairlead.ordering.accounts import Account
from fairlead.ordering.queue_tree import QueueTree
from fairlead.planning.verify_quotas import Quotas

LOOKS = settings(max_examples=200, deadline=None, derandomize=True)
held_amounts = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 7).map(lambda halves: 500 * halves))


def quotas_of(queues: Mapping[str, Any], held: dict[str, int], capacity: int = 10_000, **words: Any) -> Quotas:
    """What a plan has charged so far where only so much is held, and nothing else is going on."""
    force = SimpleNamespace(plain=queues, exceptions=words.pop("exceptions", ()), capped=False)
    world = SimpleNamespace(
        queues=queues, force=force, counted=words.pop("counted", ()), capacity_milli=capacity, now_ms=NOW,
        capacity_of=lambda name: capacity, inventory=SimpleNamespace(row={}, nodes=[]),
    )  # fmt: skip
    also = words.pop("also", {})
    amounts = {GPU: held} | also
    entitled = words.pop("entitled", {})
    return Quotas(
        world, {kind: dict(of) for kind, of in amounts.items()}, {kind: dict(of) for kind, of in amounts.items()},
        _entitled=entitled if GPU in entitled else {GPU: entitled}, **words,
    )  # fmt: skip


def placed(milli: int) -> Placement:
    """A member that is charged for so much."""
    member = Member(role="worker", index=0, rank=0, node="n1", devices=(), share_milli=milli)
    return Placement(members=(member,) if milli else ())


def account_of(queues: Any, held: dict[str, int], entitled: dict[str, int]) -> Account:
    account = Account(QueueTree(queues), GPU, 10_000, held)
    account.entitle(entitled)
    return account


@given(trees(), held_amounts, st.sampled_from(NAMES), st.integers(0, 6), st.integers(0, 12))
@LOOKS
def test_every_limit_that_a_placement_breaks_is_named(texts, held, name, halves, capacity) -> None:
    queues = {queue: builders.queue(queue, text) for queue, text in texts.items()}
    hand, amount = ByHand(queues, 1000 * capacity, {}), 500 * halves
    quotas = quotas_of(queues, held, 1000 * capacity)
    gang = builders.gang("g", f"1x1 queue={name} ns=ns")
    hand.held["used"] = [*held.items(), (name, amount)]
    chain = ancestors(name, queues)
    expected = []
    for above in chain if amount else ():
        bound, used = hand.bound(above), hand.inside("used", above)
        if bound is not None and used > bound[0]:
            has, may = amount_text(GPU, used), amount_text(GPU, bound[0])
            expected.append(f"ns/g: queue {above} would hold {has} GPUs, its limit is {may}")
    own = {one: quota.guaranteed - quota.lend_limit for one in NAMES
           if (quota := queues[one].quota(GPU)).lend_limit is not None}  # fmt: skip
    keepers = [one for one in NAMES if own.get(one)]
    outside = [one for one in keepers if one not in chain]
    topmost = [one for one in outside if not set(ancestors(one, queues)[1:]) & set(outside)]
    idle = sum(max(0, own[one] - hand.inside("used", one)) for one in topmost)
    covered = any(hand.inside("used", above) <= hand.promised(above) for above in chain)
    if amount and keepers and not covered and sum(n for _, n in hand.held["used"]) + idle > 1000 * capacity:
        expected.append("ns/g: takes GPUs that guarantees keep and do not lend")
    assert list(quotas.place(gang, placed(amount))) == expected
    for amounts in (quotas.held, quotas.remaining):
        assert amounts[GPU].get(name, 0) == hand.sum("used", name)
    again = list(quotas.place(gang, placed(amount)))
    assert len(again) >= len(expected), "what was placed counts"


@given(trees(), held_amounts, st.sampled_from(NAMES), st.integers(0, 4))
@LOOKS
def test_what_the_first_opinion_refuses_for_a_limit_the_second_names(texts, held, name, halves) -> None:
    queues = {queue: builders.queue(queue, text) for queue, text in texts.items()}
    hit = account_of(queues, held, {}).hit(name, 500 * halves)
    found = list(quotas_of(queues, held).place(builders.gang("g", f"1x1 queue={name}"), placed(500 * halves)))
    if hit is None:
        assert found == []
    elif halves and hit.word != "lendLimit":
        assert found[0].startswith(f"{name}/g: queue {hit.queue} would hold")


@given(
    trees(), held_amounts, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4000)), st.sampled_from(NAMES),
    st.sampled_from(NAMES), st.integers(0, 5), st.integers(1, 5),
)  # fmt: skip
@LOOKS
@example(
    texts={"org": "", "team": "parent=org guaranteed=2", "lab": "parent=org", "kid": "", "alone": "guaranteed=3"},
    held={"team": 2_000}, entitled={"team": 2_000, "alone": 3_000}, loses="team", takes="alone", wants=2, gives=1,
)  # fmt: skip
def test_both_opinions_agree_on_who_may_reclaim_from_whom(texts, held, entitled, loses, takes, wants, gives) -> None:
    queues = {queue: builders.queue(queue, text) for queue, text in texts.items()}
    asked, given_up = 500 * wants, 500 * gives
    held = held | {loses: max(held.get(loses, 0), given_up)}
    account = account_of(queues, held, entitled)
    taker, victim = builders.gang("taker", f"1x1 queue={takes}"), builders.gang("victim", f"1x1 queue={loses}")
    quotas = quotas_of(queues, held, entitled=entitled)
    same = QueueTree(queues).same_scope(loses, takes)
    assert same == (quotas.scope(loses) == quotas.scope(takes) != "")
    quotas.hope(taker, placed(asked))
    expected = []
    if asked > max(0, account.room_in_entitlement(takes, alone=same)):
        expected.append(f"{takes}/taker: reclaims although {takes} would be above its entitlement")
    lent = asked > 0 and not same and account.lends(loses)
    shared = ancestors(takes, queues)
    hand = ByHand(queues, 0, {})
    hand.held["used"] = list(held.items())
    apart = [name for name in ancestors(loses, queues) if name not in shared]
    beyond = all(hand.inside("used", name) > hand.guaranteed(name) for name in apart)
    due = account.is_owed(takes, asked, loses) and beyond
    if not lent and not due:
        expected.append(f"it: taken although {loses} has borrowed nothing")
    hand.held["used"].append((loses, -given_up))
    expected += [
        f"it: taken across queues below the guarantee of {name}"
        for name in sorted(apart)
        if hand.guaranteed(name) and hand.inside("used", name) < hand.guaranteed(name)
    ]
    assert list(quotas.check_reclaim(running(victim, given_up), taker, "it")) == expected
    assert quotas.remaining[GPU][loses] == held[loses] - given_up, "two victims are counted together"


@given(trees(), held_amounts, st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 5), st.integers(-1, 1))
@LOOKS
def test_both_opinions_agree_on_who_may_take_by_priority(texts, held, loses, takes, gives, more) -> None:
    queues = {queue: builders.queue(queue, text) for queue, text in texts.items()}
    held = held | {loses: max(held.get(loses, 0), 500 * gives)}
    taker = builders.gang("taker", f"1x1 queue={takes} priority={5 + more}")
    victim = builders.gang("victim", f"1x1 queue={loses} priority=5")
    quotas, hand = quotas_of(queues, held), ByHand(queues, 0, {})
    expected = []
    if hand.head(loses) != hand.head(takes):
        expected.append(f"{loses}/victim: Preempted across queues that no scope of priority joins")
    if more <= 0:
        expected.append(f"{loses}/victim: taken by a job of no higher priority")
    hand.held["used"] = [*held.items(), (loses, -500 * gives)]
    expected += [
        f"{loses}/victim: taken by priority below the guarantee of {name}"
        for name in sorted(set(ancestors(loses, queues)) - set(ancestors(takes, queues)))
        if hand.inside("used", name) < hand.guaranteed(name)
    ]
    assert list(quotas.check_scope(running(victim, 500 * gives), taker, victim)) == expected


@given(
    trees(), held_amounts, st.sampled_from(NAMES), st.sampled_from(["", "1x1 fixed"]), st.sets(st.sampled_from(NAMES))
)
@LOOKS
def test_only_what_is_above_a_limit_whose_queue_asks_for_it_may_be_stopped(texts, held, name, words, asking) -> None:
    queues = {
        queue: builders.queue(queue, text + (" over=requeue" if queue in asking else ""))
        for queue, text in texts.items()
    }
    spec = builders.gang("g", f"1x1 queue={name} {words}")
    quotas, hand = quotas_of(queues, held), ByHand(queues, 0, {})
    hand.held["used"] = list(held.items())
    above = [
        one for one in ancestors(name, queues)
        if one in asking and (bound := hand.bound(one)) is not None and hand.inside("used", one) > bound[0]
    ]  # fmt: skip
    expected = [f"{name}/g: stopped for a limit although it may not be preempted"] if words else []
    expected += [] if above else [f"{name}/g: stopped for a limit that its queues keep"]
    assert list(quotas.check_over_limit(running(spec, 500))) == expected
    nobody = replace_spec(running(spec, 500))
    assert next(iter(quotas.check_over_limit(nobody))) == "g: stopped for a limit although it may not be preempted"


def replace_spec(attempt: Any) -> Any:
    """An attempt that nobody described."""
    return running(attempt.spec, attempt.gpu_milli, **{"spec": None})


@pytest.mark.parametrize(
    ("says", "held", "most"),
    [
        ("guaranteed=2 fixed=in-quota", 1_000, 1_000),
        ("guaranteed=2 fixed=in-quota", 1_500, 500),
        ("gpu/H100.guaranteed=2 guaranteed=1 fixed=in-quota", 1_500, 500),
        ("guaranteed=2", 1_500, 9_000),
    ],
)
def test_what_may_not_be_taken_is_within_the_guarantee(says, held, most) -> None:
    queues = {"team": builders.queue("team", says)}
    for milli in (most, most + 500):
        quotas = quotas_of(queues, {"team": held}, 99_000, counted=(FIXED,), also={FIXED: {"team": held}})
        found = list(quotas.place(builders.gang("g", "1x1 fixed"), placed(milli)))
        assert bool(found) == (milli > most and says != "guaranteed=2")


@pytest.mark.parametrize(("begins", "ends", "most"), [(0, 1, 6_000), (-1, 0, 4_000), (1, 2, 4_000), (-1, 1, 6_000)])
def test_an_exception_counts_while_it_acts(begins, ends, most) -> None:
    queues = {"team": builders.queue("team", "limit=4")}
    more = QuotaException(
        name="e", queue="team", owner="o", reason="r", starts_ms=NOW + begins, expires_ms=NOW + ends, more_limit_gpus=2
    )
    other = replace(more, name="f", queue="lab", starts_ms=0, expires_ms=2 * NOW)
    gang = builders.gang("g")
    for amount in (most, most + 500):
        quotas = quotas_of(queues, {}, exceptions=(more, other))
        assert bool(list(quotas.place(gang, placed(amount)))) == (amount > most)


def test_what_is_guaranteed_of_models_is_guaranteed_of_gpus_and_of_nothing_else() -> None:
    texts = [
        "guaranteed=1 gpu/H100.guaranteed=2 gpu/A100.guaranteed=1 cpu.guaranteed=1",
        "guaranteed=5 cpu.limit=3",
        "",
    ]
    queues = {f"q{at}": builders.queue(f"q{at}", text) for at, text in enumerate(texts)}
    quotas, tree = quotas_of(queues, {}), QueueTree(queues)
    for kind, due in {GPU: [3_000, 5_000, 0], "gpu/H100": [2_000, 0, 0], "cpu": [1_000, 0, 0]}.items():
        assert [quotas._guaranteed(name, kind) for name in queues] == due
        assert [tree.book(kind).guaranteed.get(name, 0) for name in queues] == due


@pytest.mark.parametrize(
    ("due", "wants", "has", "said"),
    [
        (0, 1, 1, ["team/taker: reclaims although team would be above its entitlement"]),
        (1, 1, 1, []),
        (1, 2, 1, ["team/taker: reclaims although team would be above its entitlement"]),
        (1, 1, 0, ["it: taken although lab has borrowed nothing"]),
    ],
)
def test_a_thousandth_of_a_gpu_decides_who_may_reclaim_from_whom(due, wants, has, said) -> None:
    """Who is named in no division is entitled to nothing."""
    queues = {name: builders.queue(name) for name in ("team", "lab")}
    quotas = quotas_of(queues, {"lab": has}, entitled={"team": due} if due else {})
    taker, victim = builders.gang("taker", "1x1 queue=team"), builders.gang("victim", "1x1 queue=lab")
    quotas.hope(taker, placed(wants))
    assert list(quotas.check_reclaim(running(victim, has), taker, "it")) == said


@pytest.mark.parametrize(("held", "wants", "may"), [(0, 2, True), (0, 3, False), (1, 1, True), (1, 2, False)])
def test_a_scope_of_priority_reclaims_up_to_what_all_in_it_are_entitled_to(held, wants, may) -> None:
    """Two thousandths; who holds and wants nothing changes nothing."""
    queues = {name: builders.queue(name, "parent=org") for name in ("team", "kid", "idle")}
    queues |= {"org": builders.queue("org", "scope=subtree"), "lab": builders.queue("lab")}
    quotas = quotas_of(queues, {"lab": 3, "kid": held}, entitled={"team": 1, "kid": 1})
    taker, victim = builders.gang("taker", "1x1 queue=team"), builders.gang("victim", "1x1 queue=lab")
    quotas.hope(taker, placed(wants))
    said = [] if may else ["team/taker: reclaims although team would be above its entitlement"]
    assert list(quotas.check_reclaim(running(victim, 3), taker, "it")) == said
