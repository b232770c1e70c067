"""Who is demoted for want of budget, as the second opinion sees it, over a restart, and among many queues and seeds."""

from __future__ import annotations

import random

import pytest
import queue_words
from builders import Stage, node, queue

from fairlead.model.effects import Place, Retier, Stop
from fairlead.model.events import TierChanged
from fairlead.model.gang import GangId, ServiceClass, Tier
from fairlead.model.rules import Rules
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations
from fairlead.world.retell import facts_of

HOUR = 3_600_000
MINUTE = 60_000


def stage(words: str = "budget=13 soft=100 exhausted=demote guaranteed=16") -> Stage:
    """Two jobs of 4 GPUs run; the budget covers two hours of one and one hour of the other."""
    found = Stage([node("n1", "8"), node("n2", "8")], [queue("team", words)], Rules())
    found.take(queue_words.spent("team", "gpuh=0 for=100h", found.now_ms))
    found.submit("a", "1x4")
    found.submit("b", "1x4 priority=5")
    found.settle()
    found.run("a")
    found.run("b")
    return found


def objections(found: Stage, gang: str, tier: Tier) -> str:
    world = found.engine.world(found.now_ms)
    effect = Retier(gang=GangId(gang), attempt=found.attempt(gang).number, tier=tier)
    plan = Plan(version=world.version, effects=(effect,), more=False)
    return "; ".join(violation.text for violation in violations(plan, world))


@pytest.mark.parametrize(
    ("words", "minutes", "said"),
    [
        (
            "budget=9 soft=100 exhausted=demote",
            30,
            "a: demoted for want of budget before its hour is over; a: demoted for"
            " want of budget although there is enough",
        ),
        ("budget=17 soft=100 exhausted=demote", 59, "a: demoted for want of budget although there is enough"),
        ("budget=13 soft=100", 59, "a: demoted for want of budget although there is enough"),
        ("budget=13 soft=100 exhausted=demote", 59, ""),
    ],
)
def test_nobody_is_demoted_without_need(words: str, minutes: int, said: str) -> None:
    found = stage(words)
    found.now_ms += minutes * MINUTE
    assert objections(found, "a", Tier.OPPORTUNISTIC) == said


def test_nobody_has_its_right_back_before_the_budget_covers_an_hour() -> None:
    found = stage()
    found.now_ms += 59 * MINUTE
    found.settle()
    assert found.attempt("a").tier is Tier.OPPORTUNISTIC
    assert "a: has its right back although the budget of queue team does not" in objections(found, "a", Tier.BORROWED)
    assert "without another one before" in objections(found, "a", Tier.OPPORTUNISTIC)
    found.take(queue_words.spent("team", "gpuh=1 for=90h", found.now_ms))
    assert objections(found, "a", Tier.BORROWED) == ""
    found.settle()
    assert found.attempt("a").tier is Tier.IN_QUOTA


def test_a_demoted_job_is_spare_work_without_a_hold_and_is_that_after_a_restart_too() -> None:
    found = stage()
    found.now_ms += 59 * MINUTE
    found.settle()
    again = Stage([], [], Rules())
    again.now_ms = found.now_ms
    again.take(*facts_of(found.state, found.now_ms), queue_words.spent("team", "gpuh=8 for=99h", found.now_ms))
    for one in (found, again):
        pictures = {attempt.gang: attempt for attempt in one.engine.world(one.now_ms).running}
        assert [pictures[GangId(name)].demoted for name in "ab"] == [True, False]
        spec = pictures[GangId("a")].spec
        assert spec is not None
        assert (spec.service_class, spec.preemptible) == (ServiceClass.OPPORTUNISTIC, True)
        assert one.state.gangs[GangId("a")].gang.service_class is ServiceClass.TRAINING, "the job says what it said"
        assert one.settle() == []


def test_who_was_demoted_for_one_budget_is_not_held_by_the_one_above_it() -> None:
    words = {"kid": "parent=all budget=5", "all": "budget=13", "sis": "parent=all budget=99"}
    found = Stage([node("n1", "8")], [queue(name, f"{text} soft=100 exhausted=demote") for name, text in words.items()])
    found.take(*(queue_words.spent(name, "gpuh=0 for=100h", found.now_ms) for name in words))
    found.submit("low", "1x4 queue=sis")
    found.submit("high", "1x4 queue=kid priority=5")
    found.settle()
    found.run("low")
    found.run("high")
    found.now_ms += 59 * MINUTE
    found.settle()
    changed = [(fact.gang, fact.tier) for fact in found.facts if isinstance(fact, TierChanged)]
    assert changed == [("high", Tier.OPPORTUNISTIC)], "nobody else is, not even for a moment"


def test_no_plan_breaks_a_promise_whatever_is_told_of_budgets() -> None:
    assert sum(demoted_in(seed) for seed in (0, 4, 5)) > 10


def demoted_in(seed: int) -> int:
    """Play an hour or five in which anything is told; returns in how many steps somebody was demoted."""
    rng, count = random.Random(seed), 0
    words = {
        "org": "budget=60 soft=100 exhausted=demote",
        "kid": "parent=org budget=25 soft=100 exhausted=demote guaranteed=8",
        "sis": "parent=org budget=20 soft=100 exhausted=checkpoint-and-stop",
        "out": "guaranteed=8",
    }
    found = Stage([node(f"n{number}", "8") for number in range(4)], [queue(*one) for one in words.items()], Rules())
    for step in range(60):
        found.now_ms += rng.choice((1, 5, 9, 20)) * MINUTE
        told = f"gpuh={rng.randrange(30)} for={rng.randint(1, 9)}h"
        found.take(queue_words.spent(rng.choice(("org", "kid", "sis")), told, found.now_ms))
        more = rng.choice(("", " fixed", " priority=3", " class=opportunistic", " duration=50m"))
        found.submit(f"g{step}", f"1x{rng.choice((1, 2, 4, 8))} queue={rng.choice(('kid', 'sis', 'out'))}{more}")
        for effect in found.settle():  # asserts that the second opinion has nothing to say
            if isinstance(effect, Place):
                found.run(effect.gang)
            elif isinstance(effect, Stop):
                found.release(effect.gang)
        count += bool(found.engine.world(found.now_ms).running.demoted)
    return count
