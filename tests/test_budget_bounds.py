"""Budgets and caps at their bounds: what is just enough, and what is a thousandth of a GPU or a GPU-ms too little.

Of every rule both opinions are asked: the plan's own, and the one that refuses plans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pytest
from cap_worlds import CHAINS, HOUR, MINUTE, NOW, QUEUES, above, running, spent, world_of

from fairlead.model.effects import Retier, Stop
from fairlead.model.gang import Tier
from fairlead.model.queue_caps import Budget, NamedCap, OnExhausted, QueueCaps
from fairlead.model.reasons import Reason, refuse
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Standing
from fairlead.planning import budgets, verify_budgets
from fairlead.planning.caps import Caps
from fairlead.planning.verify_caps import CapTally, check_admission, check_caps, starting_nothing

SOFT = {"soft_percent": 100}


def complaints(world: Any, gang: Any, milli: int, *, grows: bool = False) -> list[str]:
    return [text.partition(": ")[2] for text in check_caps(gang, milli, world, above, CapTally(), grows=grows)]


# --- what starts is covered beside what runs -------------------------------------------------------------------------


@pytest.mark.parametrize("ago", [0, 1, 58 * MINUTE, 59 * MINUTE, 59 * MINUTE + 30_000, HOUR - 1])
@pytest.mark.parametrize("told_ago", [0, 10 * MINUTE])
def test_a_gang_starts_where_its_hour_is_left_beside_the_holds_to_the_ms(ago: int, told_ago: int) -> None:
    """Holds that have just been renewed, a minute before their hour is over, last longer than an hour."""
    runs = running(builders.gang("runs"), 4_000, since_ms=NOW - ago)
    hold_ms = HOUR - ago if ago < 59 * MINUTE else 2 * HOUR - ago
    due = 7 + 4 * told_ago + 4 * hold_ms + 2 * HOUR  # used before, used since, held, and an hour of two GPUs
    told = [spent("team", 7, ago=told_ago)]
    new = builders.gang("new", "1x2")
    for budget, starts in ((due, True), (due - 1, False)):
        world = world_of([runs], {"team": Budget(gpu_ms=budget, **SOFT)}, told)
        refusal = Caps(world, CHAINS).refusal(new, 2_000)
        assert (refusal.reason if refusal else None) is (None if starts else Reason.BUDGET_HELD)
        assert Caps(world, CHAINS).may_grow(new, 2_000) is starts
    world = world_of([runs], {"team": Budget(gpu_ms=due - 2, **SOFT)}, told)
    assert complaints(world, new, 2_000) == ["started although the budget of queue team does not cover it"]


@pytest.mark.parametrize(("milli", "wrong"), [(2_000, False), (2_001, True)])
def test_the_second_opinion_lets_a_gpu_ms_pass_that_was_rounded_and_no_more(milli: int, wrong: bool) -> None:
    """One GPU-ms is left of ten, in a period that ends in a ms."""
    world = world_of([], {"team": Budget(gpu_ms=10)}, [spent("team", 9, left=1)])
    found = complaints(world, builders.gang("new"), milli)
    assert found == (["started although the budget of queue team does not cover it"] if wrong else [])


@pytest.mark.parametrize(
    ("used", "left", "says"),
    [(9, 2, []), (10, 2, ["is used up"]), (10, 1, ["is used up"]), (10, 0, []), (10, -1, [])],
)
def test_a_budget_is_used_up_at_its_amount_and_until_its_period_ends(used: int, left: int, says: list[str]) -> None:
    world = world_of([], {"team": Budget(gpu_ms=10)}, [spent("team", used, left=left)])
    gang = builders.gang("new")
    found = list(check_admission(gang, 1_000, world, above))
    assert [text.rpartition("queue team ")[2] for text in found] == says
    refusal = Caps(world, CHAINS).refusal(gang, 1_000)
    assert (refusal is not None and refusal.reason is Reason.BUDGET_EXHAUSTED) == bool(says)
    assert list(check_admission(gang, 0, world, above)) == [], "what needs no GPU starts"
    assert Caps(world, CHAINS).refusal(gang, 0) is None


@pytest.mark.parametrize(
    ("used", "ago", "over"), [(4, 3, True), (4, 2, False), (3, 3, False), (10, 0, True), (10, -3, True), (9, -3, False)]
)
def test_what_was_held_since_the_books_last_told_counts_as_used(used: int, ago: int, over: bool) -> None:
    """Two GPUs run, of a budget of ten GPU-ms; books that are ahead of our clock take nothing back."""
    runs = [running(builders.gang(f"g{at}", f"1x1 queue={at}"), 1_000) for at in ("team", "lab")]
    world = world_of(runs, {"org": Budget(gpu_ms=10)}, [spent("org", used, ago=ago)])
    caps = Caps(world, CHAINS)
    closed = {"org", "team", "lab"} if over else set()
    assert {name for name in QUEUES if caps.starts_nothing(name)} == closed
    assert starting_nothing(world) == closed


@pytest.mark.parametrize(
    ("budget", "worth"),
    [(Budget(gpu_ms=10, hard=False), None), (Budget(nanos=1, currency="EUR"), None), (None, None)],
)
def test_a_budget_that_bounds_nothing_is_never_used_up(budget: Budget | None, worth: int | None) -> None:
    caps = {} if budget is None else {"team": budget}
    world = world_of([], caps, [spent("team", 99, worth_gpu_ms=worth)])
    assert complaints(world, builders.gang("new"), 1_000) == []
    assert Caps(world, CHAINS).refusal(builders.gang("new"), 1_000) is None


@pytest.mark.parametrize("policy", [OnExhausted.STOP, OnExhausted.DEMOTE])
@pytest.mark.parametrize("words", [{"gpu_ms": 1, "hard": False}, {"nanos": 1, "currency": "EUR"}])
def test_a_budget_that_bounds_nothing_takes_nobodys_hour(policy: OnExhausted, words: Any) -> None:
    attempt = running(builders.gang("g"), 1_000, since_ms=NOW - HOUR + 1)
    world = world_of([attempt], {"team": Budget(on_exhausted=policy, **words)}, [spent("team", 99)])
    accounts, standing = Caps(world, CHAINS).renewing(), Standing(9_000, QueueTree(world.queues), {"team": 1_000}, [])
    assert len(accounts) == 1
    assert budgets.over_budget(world, accounts, standing, set(), 9) == []
    assert budgets.demotions(world, accounts, CHAINS) == []


def test_a_budget_of_money_bounds_the_gpu_time_that_it_comes_to() -> None:
    for used, starts in ((8, True), (9, False)):
        world = world_of([], {"team": Budget(nanos=1, currency="EUR", **SOFT)},
                         [spent("team", used, left=1, worth_gpu_ms=9)])  # fmt: skip
        assert (Caps(world, CHAINS).refusal(builders.gang("new"), 1_000) is None) is starts
        assert (complaints(world, builders.gang("new"), 1_000) == []) is starts


@pytest.mark.parametrize(
    ("later", "words", "refused"),
    [
        (-1, "1x8", False), (0, "1x8", True), (HOUR - 1, "1x8", True), (HOUR, "1x8", False), (0, "1x7", False),
        (0, "2x4", True), (0, "1x8 class=training", False),
    ],
)  # fmt: skip
def test_in_a_peak_period_nothing_large_of_its_class_starts(later: int, words: str, refused: bool) -> None:
    """From 04:00, which it is now, to before 05:00; from 8 GPUs on."""
    caps = builders.queue("org", "peak=batch:8/04:00/05:00").caps
    world = world_of([], {"org": caps})
    world.now_ms += later
    found = list(check_admission(builders.gang("new", f"class=batch {words}"), 8_000, world, above))
    assert found == (["team/new: started in a peak period of queue org"] if refused else [])


def test_who_cannot_be_done_by_its_deadline_does_not_start() -> None:
    for later, refused in ((0, False), (1, True)):
        world = world_of()
        world.now_ms += later
        for words in ("duration=1h", ""):
            gang = builders.gang("new", words or "1x1")
            gang = replace(gang, deadline_ms=NOW + (gang.duration_ms or 0))
            assert bool(list(check_admission(gang, 1_000, world, above))) == refused


# --- who loses its right, and has it back ----------------------------------------------------------------------------

DEMOTES = {"gpu_ms": 10, "on_exhausted": OnExhausted.DEMOTE, **SOFT}


def demoted(milli: int) -> Any:
    return running(builders.gang("spare"), milli, tier=Tier.OPPORTUNISTIC, since_ms=NOW - MINUTE, demoted=True)


@pytest.mark.parametrize(
    ("left", "milli", "back", "wrong"),
    [
        (1, 1_000, True, False), (1, 1_001, False, False), (1, 2_000, False, False), (1, 2_001, False, True),
        (2, 500, True, False), (2, 501, False, False), (2, 1_001, False, True), (0, 9_000, True, False),
    ],
)  # fmt: skip
def test_a_demoted_job_has_its_right_back_when_an_hour_of_it_is_covered(left, milli, back, wrong) -> None:
    """One GPU-ms is left of ten; of the last hour of a period only what is left of it counts."""
    attempt = demoted(milli)
    world = world_of([attempt], {"team": Budget(**DEMOTES)}, [spent("team", 9, left=left)])
    effect = Retier(gang=attempt.gang, attempt=1, tier=Tier.BORROWED)
    assert budgets.demotions(world, Caps(world, CHAINS).renewing(), CHAINS) == ([effect] if back else [])
    found = list(verify_budgets.check_retier(effect, attempt, world, above))
    said = ["spare: has its right back although the budget of queue team does not cover an hour"]
    assert found == (said if wrong else [])


def test_two_demoted_jobs_do_not_have_the_same_hour_back() -> None:
    """Three GPU-ms are left, for the last ms: enough for either of two, or for both of those with less."""
    for first, second, back in ((2_000, 2_000, 1), (2_000, 1_000, 2), (2_000, 1_001, 1), (3_001, 3_000, 1)):
        one, two = demoted(first), demoted(second)
        two = running(builders.gang("tail"), second, tier=Tier.OPPORTUNISTIC, demoted=True)
        world = world_of([one, two], {"org": Budget(**DEMOTES)}, [spent("org", 7, left=1)])
        assert len(budgets.demotions(world, Caps(world, CHAINS).renewing(), CHAINS)) == back


@pytest.mark.parametrize(
    ("used", "left", "enough"), [(8, 2, True), (9, 2, False), (9, 1, True), (10, 1, True), (99, 1, True), (9, 9, False)]
)
@pytest.mark.parametrize("policy", [OnExhausted.STOP, OnExhausted.DEMOTE])
def test_nobody_loses_his_hour_while_the_budget_comes_to_all_that_is_held(used, left, enough, policy) -> None:
    """Of ten GPU-ms; the hour is over in a ms, and where the period is over by then nothing is to be renewed."""
    attempt = running(builders.gang("g"), 1_000, since_ms=NOW - HOUR + 1)
    caps = Budget(gpu_ms=10, on_exhausted=policy)
    world = world_of([attempt], {"team": caps}, [spent("team", used, left=left)])
    says = ["although there is enough"] if enough else []
    accounts = Caps(world, CHAINS).renewing()
    standing = Standing(9_000, QueueTree(world.queues), world.queue_gpu_milli, [])
    losing = budgets.over_budget(world, accounts, standing, set(), 9) + budgets.demotions(world, accounts, CHAINS)
    assert bool(losing) == (not enough)
    if policy is OnExhausted.STOP:
        stop = Stop(gang=attempt.gang, attempt=1, cause=refuse(Reason.BUDGET_NOT_RENEWED), requeue=True)
        found = list(verify_budgets.check_not_renewed(stop, attempt, world, above))
    else:
        effect = Retier(gang=attempt.gang, attempt=1, tier=Tier.OPPORTUNISTIC)
        found = list(verify_budgets.check_retier(effect, attempt, world, above))
    assert [text.partition("want of budget ")[2] for text in found] == says


def test_a_tier_is_told_once_and_only_spare_work_is_opportunistic_without_a_budget() -> None:
    world = world_of([], {}, [])
    plain, spare = builders.gang("g"), builders.gang("s", "1x1 class=opportunistic")
    holds = running(plain, 1_000)
    for tier, attempt, says in (
        (Tier.BORROWED, holds, ["g: of tier borrowed without another one before"]),
        (Tier.BORROWED, None, ["g: of tier borrowed without another one before"]),
        (Tier.IN_QUOTA, holds, []),
        (Tier.OPPORTUNISTIC, running(spare, 1_000), []),
        (
            Tier.OPPORTUNISTIC, holds,
            [f"g: demoted for want of budget {why}" for why in ("before its hour is over", "although there is enough")],
        ),
    ):  # fmt: skip
        effect = Retier(gang=plain.id, attempt=1, tier=tier)
        assert list(verify_budgets.check_retier(effect, attempt, world, above)) == says


# --- what one user, or one group, may have ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "need", "says"),
    [
        (0, 2_000, {}), (0, 2_001, {"need": "2.001", "limit": 2}), (500, 1_500, {}),
        (500, 1_501, {"used": "0.5", "need": "1.501", "limit": 2, "what": "GPUs"}),
        (500, 2_000, {"used": "0.5", "need": 2, "limit": 2, "what": "GPUs"}),
        (500, 2_001, {"need": "2.001", "limit": 2}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("words", "cap"), [("user=ann", "users"), ("user=bob groups=ann", "groups")])
def test_a_cap_on_gpus_is_kept_to_the_thousandth(words: str, cap: str, held: int, need: int, says: Any) -> None:
    caps = {"org": QueueCaps(**{cap: (NamedCap(name="ann", max_gpus=2),)})}
    world = world_of([running(builders.gang("old", f"1x1 {words}"), held)], caps)
    new = builders.gang("new", f"1x1 {words}")
    refusal = Caps(world, CHAINS).refusal(new, need)
    assert (refusal is None) == (not says)
    if refusal is not None:
        assert refusal.reason is (Reason.USER_AT_CAP if "used" in says else Reason.ABOVE_CAP)
        who = "user ann" if cap == "users" else "group ann"
        assert dict(refusal.details) == says | {"who": who, "queue": "org"}
    assert Caps(world, CHAINS).may_grow(new, need) == (held + need <= 2_000)
    for grows in (False, True):
        assert bool(complaints(world, new, need, grows=grows)) == (held + need > 2_000)


@pytest.mark.parametrize(("most", "full"), [(2, True), (3, False)])
def test_a_job_that_grows_is_no_job_more(most: int, full: bool) -> None:
    for caps in (QueueCaps(max_jobs=most), QueueCaps(users=(NamedCap(name="ann", max_jobs=most),))):
        old = [running(builders.gang(f"old{at}", "1x1 user=ann"), 1_000) for at in range(2)]
        world, new = world_of(old, {"team": caps}), builders.gang("new", "1x1 user=ann")
        assert (Caps(world, CHAINS).refusal(new, 1_000) is not None) == full == bool(complaints(world, new, 1_000))
        assert Caps(world, CHAINS).may_grow(new, 1_000)
        assert complaints(world, new, 1_000, grows=True) == []
        counted = Caps(world, CHAINS)
        counted.charge(new, 1_000, jobs=0)
        assert (counted.refusal(new, 1_000) is not None) == full
        counted.charge(new, 1_000)
        assert counted.refusal(new, 1_000) is not None


def test_who_has_as_many_jobs_as_he_may_hears_how_many_that_is() -> None:
    old = [running(builders.gang(f"old{at}", "1x1 user=ann"), 1_000) for at in range(2)]
    world = world_of(old, {"org": QueueCaps(users=(NamedCap(name="*", max_jobs=2),))})
    refusal = Caps(world, CHAINS).refusal(builders.gang("new", "1x1 user=ann"), 1_000)
    assert refusal is not None
    said = {"who": "user ann", "queue": "org", "what": "jobs", "used": 2, "need": 1, "limit": 2}
    assert dict(refusal.details) == said
    world = world_of(old, {"org": QueueCaps(max_jobs=2)})
    refusal = Caps(world, CHAINS).refusal(builders.gang("new", "1x1 user=bob"), 1_000)
    assert refusal is not None
    assert dict(refusal.details) == {"queue": "org", "used": 2, "limit": 2}


def test_while_the_books_are_behind_nothing_that_a_hard_budget_pays_for_starts_or_grows() -> None:
    for budget, held_back in ((Budget(gpu_ms=HOUR), True), (Budget(gpu_ms=HOUR, hard=False), False)):
        world = world_of([], {"org": budget}, [], books_full=True)
        caps, new = Caps(world, CHAINS), builders.gang("new")
        assert (caps.refusal(new, 1) is not None) == caps.starts_nothing("team") == held_back
        assert caps.may_grow(new, 1) == (not held_back)
        assert caps.refusal(new, 0) is None
        assert bool(complaints(world, new, 1)) == held_back
        assert complaints(world, new, 0) == []
