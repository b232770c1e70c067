"""Holds and caps by numbers: against the rule as it is written, and against the second opinion on plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pytest
from cap_worlds import CHAINS, HOUR, MINUTE, NOW, QUEUES, above, running, spent, world_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairlead.model.effects import Phase, Stop
from fairlead.model.queue_caps import Budget, NamedCap, OnExhausted, QueueCaps
from fairlead.model.reasons import Reason, refuse
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Standing
from fairlead.planning import budgets, verify_budgets
from fairlead.planning.caps import Caps
from fairlead.planning.verify_caps import CapTally, check_caps, starting_nothing
from fairlead.units import gpu_hours_text, gpus_of, utc_text

LOOKS = settings(max_examples=150, deadline=None, derandomize=True)
NAMES = sorted(QUEUES)

# --- one gang and one budget, against the rule as the page of budgets has it ----------------------------------------


def rule(left: int, held: int, covered: int, need: int, need_ms: int, until: int, soft_reached: bool) -> str:
    """What of `left` thousandths of a GPU times ms a gang of `need` may not have, in a period that ends in `until`."""
    if left <= 0:
        return "BudgetExhausted"
    if covered + need * min(need_ms, HOUR, until) > left:
        return "BudgetHeld"
    return "BudgetPaced" if soft_reached and (held + need) * until > left else ""


amounts = st.integers(0, 12)


@given(
    budget=st.integers(1, 60), used=st.integers(0, 60), held=amounts, part=st.integers(0, 4), need=amounts,
    need_ms=st.integers(1, 30), until=st.integers(1, 30), soft=st.sampled_from([0, 50, 80, 100]),
)  # fmt: skip
@LOOKS
@example(budget=10, used=8, held=0, part=0, need=1, need_ms=1, until=2, soft=80)
@example(budget=10, used=8, held=0, part=0, need=1, need_ms=1, until=3, soft=80)
@example(budget=10, used=0, held=9, part=4, need=1, need_ms=10, until=10, soft=100)
def test_a_gang_starts_if_its_hold_is_covered_and_its_pace_lasts(
    budget, used, held, part, need, need_ms, until, soft
) -> None:
    """In whole GPUs and ms, so that everything can be tried out; what is held covers a part of its time to the end."""
    covered = 1000 * held * until * part // 4
    account = budgets.Account(
        queue="team",
        budget=Budget(gpu_ms=budget, soft_percent=soft),
        spent=spent("team", used, left=until),
        held_milli=1000 * held,
        covered=lambda: covered,
    )
    found = budgets.budget_refusal(account, 1000 * need, need_ms, NOW)
    left = 1000 * (budget - used)
    due = rule(left, 1000 * held, covered, 1000 * need, need_ms, until, used * 100 >= soft * budget) if need else ""
    assert (found.reason.token if found else "") == due
    assert account.is_exhausted(NOW) == (left <= 0)
    if found is None:
        return
    later = range(1, until + 1)
    eased = {
        "BudgetExhausted": until,
        "BudgetHeld": next((t for t in later if 1000 * need * (until - t) <= left), until),
        "BudgetPaced": next((t for t in later if 1000 * (held + need) * (until - t) <= left - 1000 * held * t), until),
    }[due]
    assert found.retry_at_ms == NOW + eased, "it may start then, if nothing else changes"
    assert dict(found.details)["retry_at"] == utc_text(NOW + eased)
    if due == "BudgetPaced":
        assert dict(found.details)["pays"] == gpus_of(left // until)
        assert (dict(found.details)["held"], dict(found.details)["need"]) == (
            gpus_of(1000 * held),
            gpus_of(1000 * need),
        )


def test_a_refused_hold_says_what_is_left_what_is_held_and_what_it_needs() -> None:
    account = budgets.Account(
        queue="team",
        budget=Budget(gpu_ms=10 * HOUR, soft_percent=100),
        spent=spent("team", 2 * HOUR, left=50 * HOUR),
        held_milli=4_000,
        covered=lambda: 3_000 * HOUR,
    )
    found = budgets.budget_refusal(account, 8_000, HOUR, NOW)
    assert found.reason is Reason.BUDGET_HELD
    said = {name: dict(found.details)[name] for name in ("left", "held", "need", "queue")}
    assert said == {"left": "8.000", "held": "3.000", "need": "8.000", "queue": "team"}
    assert found.retry_at_ms == NOW + 49 * HOUR


@pytest.mark.parametrize(
    ("budget", "told", "most", "over", "used"),
    [
        (Budget(gpu_ms=7), spent("team", 5), 7, False, 5),
        (Budget(gpu_ms=7), spent("team", 5, ago=3), 7, False, 5 + 6),  # two GPUs were held since
        (Budget(gpu_ms=7), spent("team", 5, ago=-3), 7, False, 5),  # the books are ahead of our clock
        (Budget(gpu_ms=7), spent("team", 9, left=0), 7, True, 9),
        (Budget(gpu_ms=7, hard=False), spent("team", 9), None, False, 9),
        (Budget(nanos=7, currency="EUR"), spent("team", 9), None, False, 9),
        (Budget(nanos=7, currency="EUR"), spent("team", 9, worth_gpu_ms=12), 12, False, 9),
    ],
)
def test_what_a_budget_comes_to_and_what_is_used_of_it(budget, told, most, over, used) -> None:
    account = budgets.Account(queue="team", budget=budget, spent=told, held_milli=2_000)
    assert (account.all_gpu_ms, account.is_over(NOW), account.used_gpu_ms(NOW)) == (most, over, used)
    assert account.is_exhausted(NOW) == (most is not None and not over and used >= most)
    assert (budgets.budget_refusal(account, 1, 1, NOW) is None) == (not account.is_exhausted(NOW))


# --- what holds of running work cover -------------------------------------------------------------------------------

minutes = st.integers(-1, 61) | st.integers(-190, 190)


@st.composite
def attempts(draw: Any, most: int = 4) -> list[Any]:
    """Attempts that began up to three hours ago, some with a duration, some of them stopping or asked to save."""
    found = []
    for at in range(draw(st.integers(0, most))):
        ago = draw(st.integers(0, 185)) * MINUTE + draw(st.sampled_from([0, 0, 1, -1]))
        words = f"1x1 queue={draw(st.sampled_from(NAMES))} priority={draw(st.integers(0, 1))}"
        words += f" user={draw(st.sampled_from(['ann', 'bob']))} groups={draw(st.sampled_from(['', 'x', 'x,y']))}"
        spec = builders.gang(f"g{at}", words)
        lasts = draw(st.none() | st.integers(1, 190))
        spec = replace(spec, duration_ms=None if lasts is None else lasts * MINUTE)
        since = NOW - max(0, ago)
        fields = {
            "since_ms": since,
            "all_running_ms": draw(st.sampled_from([None, since, min(NOW, since + 5 * MINUTE)])),
            "phase": draw(st.sampled_from([Phase.RUNNING, Phase.RUNNING, Phase.STARTING, Phase.STOPPING])),
            "notice": draw(st.sampled_from([None, None, None, "asked"])),
            "spec": draw(st.sampled_from([spec, spec, spec, None])),
        }
        found.append(running(spec, 1000 * draw(st.integers(0, 8)), **fields))
    return found


@given(attempts())
@LOOKS
def test_a_hold_lasts_to_the_end_of_its_hour_and_is_renewed_a_minute_before(found) -> None:
    for attempt in found:
        until = budgets.hold_until(attempt, NOW)
        assert until == verify_budgets._end(attempt, NOW, renewed=True)
        if attempt.phase is Phase.STOPPING or attempt.notice:
            assert until == NOW
            continue
        hours = [attempt.since_ms + number * HOUR for number in range(1, 6)]
        lasts = None if attempt.spec is None else attempt.spec.duration_ms
        begun = attempt.since_ms if attempt.all_running_ms is None else attempt.all_running_ms
        ends = begun + lasts if lasts is not None and begun + lasts > NOW else 1 << 62
        assert until == min(ends, next(hour for hour in hours if hour > NOW + MINUTE))
        renewed = [hour for hour in hours if NOW < hour <= NOW + MINUTE and ends > hour + MINUTE]
        assert budgets._renews_at(attempt, NOW) == next(iter(renewed), None)


@given(attempts(), st.integers(0, 90), st.integers(-1, 200))
@LOOKS
def test_what_is_used_and_what_holds_cover_is_what_the_second_opinion_counts(found, ago, left) -> None:
    told = [spent(name, 7 * HOUR, ago=ago * MINUTE + 1, left=left * MINUTE) for name in ("org", "team")]
    caps = {name: Budget(gpu_ms=100 * HOUR, on_exhausted=OnExhausted.STOP) for name in QUEUES}
    world = world_of(found, caps, told)
    covered = budgets.covered(world, CHAINS)
    assert covered.keys() <= {"org", "team"}
    held = {name: sum(a.gpu_milli for a in found if name in CHAINS[a.queue]) for name in QUEUES}
    for one in told:
        account = budgets.Account(queue=one.queue, budget=caps["org"], spent=one, held_milli=held[one.queue])
        counted = 1000 * account.used_gpu_ms(NOW) + covered.get(one.queue, 0)
        assert 0 <= verify_budgets._committed(one.queue, world, above) - counted < 1000


@given(attempts(6), st.integers(1, 40), st.integers(0, 40), st.integers(0, 3), st.integers(1, 200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_those_whose_hour_is_not_covered_are_stopped_and_no_more(found, budget, used, spare, left) -> None:
    """Lowest priority first, of equals the youngest; nobody before his hour is over; at most as many as allowed."""
    found = [
        a if a.spec is None else replace_spec(a, NOW - number * HOUR + MINUTE - number)
        for number, a in enumerate(found, 1)
    ]
    caps = {"org": Budget(gpu_ms=budget * HOUR, on_exhausted=OnExhausted.STOP), "team": Budget(gpu_ms=1)}
    world = world_of(found, caps, [spent("org", used * HOUR, left=left * MINUTE), spent("team", HOUR)])
    tree = QueueTree(world.queues)
    accounts = Caps(world, tree.chains).renewing()
    assert [one.queue for one in accounts] == ["org"]
    spared = {a.gang for a in found[:spare]}
    standing = Standing(99_000, tree, world.queue_gpu_milli, [])
    before = dict(standing.used)
    stops = budgets.over_budget(world, accounts, standing, set(spared), 99)
    gone = {stop.gang for stop in stops}
    by_name = {a.gang: a for a in found}
    assert not gone & spared
    for stop in stops:
        attempt = by_name[stop.gang]
        assert stop.requeue
        assert stop.cause == refuse(Reason.BUDGET_NOT_RENEWED, queue="org", budget=gpu_hours_text(budget * HOUR))
        assert list(verify_budgets.check_not_renewed(stop, attempt, world, above)) == []
    end = NOW + left * MINUTE
    due = [
        a for a in found
        if a.gang not in spared and a.spec and a.gpu_milli and "org" in CHAINS[a.queue]
        and (budgets._renews_at(a, NOW) or end) < end
    ]  # fmt: skip
    due.sort(key=lambda a: (a.spec.priority, -a.since_ms, a.gang))
    asked = verify_budgets._committed("org", world, above) - 1000 * budget * HOUR
    expected = []
    for attempt in due:
        if asked > 0:
            expected.append(attempt.gang)
            asked -= attempt.gpu_milli * (min(budgets.hold_until(attempt, NOW), end) - budgets._renews_at(attempt, NOW))
    assert [stop.gang for stop in stops] == expected
    for queue in QUEUES:
        held = sum(by_name[gang].gpu_milli for gang in gone if by_name[gang].queue == queue)
        assert standing.used.get(queue, 0) == before.get(queue, 0) - held
    again = Standing(99_000, tree, world.queue_gpu_milli, [])
    fewer = budgets.stops_over(world, accounts, again, set(spared), 1)
    assert [stop.gang for stop in fewer] == expected[:1]


def replace_spec(attempt: Any, since: int) -> Any:
    """The attempt with its hour ending within the next minute."""
    fields = {name: getattr(attempt, name) for name in ("phase", "notice", "all_running_ms")}
    return running(attempt.spec, attempt.gpu_milli, since_ms=since, **fields)


@given(attempts())
@LOOKS
def test_the_next_renewal_is_a_minute_before_an_hour_is_over(found) -> None:
    world = world_of(found, {"org": Budget(gpu_ms=HOUR, on_exhausted=OnExhausted.STOP)}, [spent("org", 0)])
    moments = sorted(budgets.renewals(world, Caps(world, CHAINS).renewing(), CHAINS))
    due = [
        next(a.since_ms + number * HOUR - MINUTE for number in range(1, 6) if a.since_ms + number * HOUR - MINUTE > NOW)
        for a in found
        if "org" in CHAINS[a.queue] and a.phase is not Phase.STOPPING and a.notice is None
    ]
    assert moments == sorted(due)
    assert list(budgets.renewals(world, (), CHAINS)) == []


@pytest.mark.parametrize(
    ("reason", "budget", "ago", "notice", "said"),
    [
        ("BudgetNotRenewed", 1, 59, None, []),
        ("BudgetNotRenewed", 1, 58, None, ["before its hour is over"]),
        ("BudgetNotRenewed", 99, 59, None, ["although there is enough"]),
        ("BudgetNotRenewed", 99, 58, None, ["before its hour is over", "although there is enough"]),
        ("BudgetNotRenewed", 99, 58, "asked", []),
        ("Reclaimed", 99, 58, None, []),
    ],
)
def test_a_stop_for_want_of_budget_that_is_none_is_named(reason, budget, ago, notice, said) -> None:
    attempt = running(builders.gang("g"), 1000, since_ms=NOW - ago * MINUTE, notice=notice)
    told = [spent("org", HOUR), spent("team", 9 * HOUR)]
    caps = {
        "org": Budget(gpu_ms=budget * HOUR, on_exhausted=OnExhausted.STOP),
        "team": Budget(gpu_ms=HOUR),  # used up, but it lets those who run finish
    }
    cause = refuse(Reason.BUDGET_NOT_RENEWED if reason == "BudgetNotRenewed" else Reason.RECLAIMED)
    stop = Stop(gang=attempt.gang, attempt=1, cause=cause, requeue=True)
    found = list(verify_budgets.check_not_renewed(stop, attempt, world_of([attempt], caps, told), above))
    assert [text.partition("budget ")[2] for text in found] == said


# --- caps: what lets a gang start and what checks that it may --------------------------------------------------------

few = st.none() | st.integers(0, 4)
named = st.builds(NamedCap, name=st.sampled_from(["ann", "bob", "*", "x", "y"]), max_jobs=few, max_gpus=few)
budget_words = st.builds(
    Budget, gpu_ms=st.integers(1, 8).map(lambda hours: hours * HOUR), hard=st.booleans(), soft_percent=st.just(100)
)
capped = st.builds(
    QueueCaps,
    max_jobs=few,
    users=st.lists(named, max_size=2, unique_by=lambda cap: cap.name).map(tuple),
    groups=st.lists(named, max_size=2, unique_by=lambda cap: cap.name).map(tuple),
    budget=st.none() | budget_words,
)
newcomer = st.builds(
    "1x1 queue={} user={} groups={} {}".format,
    st.sampled_from(NAMES), st.sampled_from(["ann", "bob", "zoe"]), st.sampled_from(["", "x", "y,x"]),
    st.sampled_from(["", "duration=20m"]),
)  # fmt: skip


@given(
    found=attempts(),
    caps=st.dictionaries(st.sampled_from(NAMES), capped, max_size=3),
    told=st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 9), st.integers(-1, 90), st.integers(0, 60))),
    gangs=st.lists(st.tuples(newcomer, st.integers(0, 4)), min_size=1, max_size=3),
    full=st.booleans(),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_may_start_is_what_the_second_opinion_lets_start(found, caps, told, gangs, full) -> None:
    found = [a for a in found if a.spec is not None]
    spending = [spent(n, h * HOUR, left=m * MINUTE, ago=ago * MINUTE) for n, (h, m, ago) in told.items()]
    world = world_of(found, caps, spending, books_full=full)
    counted, tally, placed = Caps(world, CHAINS), CapTally(), []
    assert {name for name in QUEUES if counted.starts_nothing(name)} == starting_nothing(world)
    for at, (words, gpus) in enumerate(gangs):
        gang, milli = builders.gang(f"new{at}", words), 1000 * gpus
        refusal = counted.refusal(gang, milli)
        held = None if tally.held is None else list(tally.held)
        covered = dict(tally.covered)
        complaints = list(check_caps(gang, milli, world, above, tally))
        assert (refusal is None) == (not complaints), (refusal, complaints)
        if refusal is None:
            counted.charge(gang, milli)
            placed.append((gang.queue, milli))
        else:
            tally = CapTally(held=held, covered=covered)
        for name in QUEUES:
            account = counted._account(world.queues[name])
            if account is not None:
                both = [(a.queue, a.gpu_milli) for a in found] + placed
                assert account.held_milli == sum(amount for queue, amount in both if name in CHAINS[queue])
        room = counted.room_milli(gang)
        bounds = [
            (name, cap, who)
            for name in CHAINS[gang.queue]
            for cap, who in caps_on(world.queues[name].caps, gang)
            if cap.max_gpus is not None
        ]
        assert (room is None) == (not bounds)
        if room is not None:
            held = tally.held or [(a.queue, a.spec.user, a.spec.groups, a.gpu_milli) for a in found]
            assert room == min(
                1000 * cap.max_gpus - sum(one[3] for one in held if name in CHAINS[one[0]] and who(one))
                for name, cap, who in bounds
            )


def caps_on(caps: QueueCaps, gang: Any) -> list[Any]:
    """Each cap on a user, or on a group that he is in, with who counts for it."""
    own = [cap for cap in caps.users if cap.name == gang.user] or [cap for cap in caps.users if cap.name == "*"]
    pairs = [(cap, lambda one: one[1] == gang.user) for cap in own]
    return pairs + [(cap, lambda one, name=cap.name: name in one[2]) for cap in caps.groups if cap.name in gang.groups]
