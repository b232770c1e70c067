"""Jobs that hold devices and do not use them: the second opinion, what people are told, and many seeds."""

from __future__ import annotations

import io
import random

import builders
import pytest
import queue_words
from builders import Stage, node, queue
from cap_worlds import NOW, above, running, world_of
from prometheus_client import CollectorRegistry

from fairlead.cli import render
from fairlead.model.codec import decode, encode
from fairlead.model.effects import Effect, Place, Retier, Stop
from fairlead.model.events import DevicesCounted, NodeGone, NodeLost, QueueSeen, TierChanged
from fairlead.model.gang import GangId, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.planning import verify_idle
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations
from fairlead.service.metrics import IdleGauges
from fairlead.service.standing_views import gang_views
from fairlead.service.view_json import gang_doc

HOUR, MINUTE = 3_600_000, 60_000
NOTHING = "0=0 1=0 2=0 3=0"


def stage(words: str = "idle=1h/demote", *, idle: bool = True) -> Stage:
    """Two jobs of 4 GPUs run for an hour, in which `a` did nothing if it is `idle`."""
    found = Stage([node("n1", "4"), node("n2", "4")], [queue("team", words)], Rules())
    for name in "ab":
        found.submit(name, "1x4")
        found.settle()
        found.run(name)
    found.now_ms += HOUR
    for name in "ab":
        home = found.attempt(name).placement.members[0].node
        busy = NOTHING if idle and name == "a" else "0=1 1=0 2=0 3=0"
        found.take(queue_words.counted(home, f"{busy} over=1h", found.now_ms))
    return found


def objections(found: Stage, *effects: Effect) -> str:
    world = found.engine.world(found.now_ms)
    plan = Plan(version=world.version, effects=effects, more=False)
    return "; ".join(violation.text for violation in violations(plan, world))


def stop(gang: str, *, requeue: bool = False) -> Stop:
    return Stop(gang=GangId(gang), attempt=1, cause=refuse(Reason.IDLE, queue="team", idle="1h"), requeue=requeue)


NO_RULE = "stopped for being idle although no rule says so"


@pytest.mark.parametrize(
    ("words", "effect", "said"),
    [
        ("idle=1h/checkpoint-and-stop", stop("a"), ""),
        ("idle=1h/checkpoint-and-stop/training", stop("a"), ""),
        ("idle=1h/checkpoint-and-stop", stop("a", requeue=True), "a: stopped for being idle, and would be idle again"),
        ("idle=1h/checkpoint-and-stop", stop("b"), f"b: {NO_RULE}"),
        ("idle=1h/demote", stop("a"), f"a: {NO_RULE}"),
        ("idle=1h", stop("a"), f"a: {NO_RULE}"),
        ("idle=61m/checkpoint-and-stop", stop("a"), f"a: {NO_RULE}"),
        ("idle=1h/checkpoint-and-stop/batch", stop("a"), f"a: {NO_RULE}"),
        ("", stop("a"), f"a: {NO_RULE}"),
    ],
)
def test_nobody_is_stopped_for_being_idle_whom_no_rule_names(words: str, effect: Stop, said: str) -> None:
    assert objections(stage(words), effect) == said


@pytest.mark.parametrize(("began_ms", "is_idle"), [(NOW - HOUR, True), (NOW - HOUR + 1, False), (None, False)])
def test_nobody_is_idle_for_longer_than_all_of_it_runs(began_ms: int | None, is_idle: bool) -> None:
    attempt = running(builders.gang("a", "1x4"), 4_000, all_running_ms=began_ms, idle_ms=NOW - HOUR)
    world = world_of([attempt], {"team": queue_words.caps([], {"idle": "1h/demote"})})
    assert verify_idle.idles(attempt, world, above, "demote") is is_idle


@pytest.mark.parametrize(
    ("words", "gang", "is_fine"),
    [("idle=1h/demote", "a", True), ("idle=1h/demote", "b", False), ("idle=61m/demote", "a", False),
     ("idle=1h/checkpoint-and-stop", "a", False), ("idle=1h", "a", False)],
)  # fmt: skip
def test_nobody_is_demoted_for_being_idle_whom_no_rule_names(words: str, gang: str, is_fine: bool) -> None:
    found = objections(stage(words), Retier(gang=GangId(gang), attempt=1, tier=Tier.OPPORTUNISTIC))
    assert (found == "") is is_fine, found


def test_who_is_idle_has_its_right_back_when_it_works() -> None:
    found = stage()
    found.settle()
    assert found.attempt("a").tier is Tier.OPPORTUNISTIC
    back = Retier(gang=GangId("a"), attempt=1, tier=Tier.BORROWED)
    assert "a: has its right back although it is idle" in objections(found, back)
    found.now_ms += MINUTE
    found.take(queue_words.counted(found.attempt("a").placement.members[0].node, "0=0.05", found.now_ms))
    assert objections(found, back) == ""
    found.settle()
    assert found.attempt("a").tier is Tier.BORROWED


def test_who_is_demoted_for_being_idle_stays_so_by_a_rule_for_its_class() -> None:
    """Once demoted it is spare work to everybody else; the rule asks what it was."""
    found = stage("idle=1h/demote/training")
    for _ in range(3):
        found.now_ms += 1_000
        found.settle()
    changed = [fact.tier for fact in found.facts if isinstance(fact, TierChanged) and fact.gang == "a"]
    assert changed == [Tier.OPPORTUNISTIC]
    back = Retier(gang=GangId("a"), attempt=1, tier=Tier.BORROWED)
    assert "a: has its right back although it is idle" in objections(found, back)


def test_a_rule_that_was_changed_since_counts_as_it_is_now() -> None:
    found = stage("idle=1h/checkpoint-and-stop")
    found.take(QueueSeen(queue=queue("team", "idle=61m/checkpoint-and-stop"), at_ms=found.now_ms))
    assert found.settle() == []
    for words in ("idle=1h/checkpoint-and-stop/batch", "idle=1h", "", "idle=61m/checkpoint-and-stop"):
        found.take(QueueSeen(queue=queue("team", words), at_ms=found.now_ms))
        assert found.settle() == [], words
    found.now_ms += MINUTE
    assert [effect.gang for effect in found.settle()] == ["a"], "it was told to be idle, and nothing says otherwise"


def test_who_was_idle_by_an_older_rule_is_not_by_a_longer_one() -> None:
    found = stage("idle=1h")
    assert found.attempt("a").idle_ms == found.now_ms - HOUR
    for words, is_idle in (("idle=2h", False), ("idle=1h", True), ("", False)):
        found.take(QueueSeen(queue=queue("team", words), at_ms=found.now_ms))
        found.take(queue_words.counted(found.attempt("a").placement.members[0].node, f"{NOTHING}", found.now_ms))
        assert (found.attempt("a").idle_ms is not None) is is_idle, words


def test_counts_that_come_late_or_twice_change_nothing() -> None:
    found = stage("idle=1h")
    home = found.attempt("a").placement.members[0].node
    late = DevicesCounted(name=home, from_ms=found.now_ms - HOUR, busy=(("gpu-0", 0),), at_ms=found.now_ms - MINUTE)
    for fact in (late, late):
        found.take(fact)
        assert found.attempt("a").idle_ms == found.now_ms - HOUR
    worked = DevicesCounted(
        name=home, from_ms=found.now_ms - 2 * MINUTE, busy=(("gpu-0", 900),), at_ms=found.now_ms - MINUTE
    )
    found.take(worked)
    assert found.attempt("a").idle_ms is None, "one that was late says that it worked a minute ago"
    earlier = DevicesCounted(
        name=home, from_ms=found.now_ms - 9 * MINUTE, busy=worked.busy, at_ms=found.now_ms - 8 * MINUTE
    )
    found.take(earlier)
    found.now_ms += 59 * MINUTE
    found.take(queue_words.counted(home, f"{NOTHING} over=59m", found.now_ms))
    assert found.attempt("a").idle_ms == found.now_ms - HOUR, "and a later one that it did not work since"


def test_what_was_counted_of_a_node_is_forgotten_with_it() -> None:
    found = stage()
    assert set(found.state.idleness.spans) == {"n1", "n2"}
    found.take(NodeGone(name=NodeName("n1"), at_ms=found.now_ms))
    assert set(found.state.idleness.spans) == {"n2"}


@pytest.mark.parametrize("is_deleted", [True, False])
def test_what_holds_a_lost_node_and_runs_no_more_is_not_idle(is_deleted: bool) -> None:
    """The hold stays until the node is back, of a gang that waits again or that nobody knows any more."""
    found = stage("idle=1h")
    home = found.attempt("a").placement.members[0].node
    if is_deleted:
        found.delete("a")
    found.take(NodeLost(name=home, at_ms=found.now_ms))
    found.settle()
    assert ("a" in found.state.gangs) is not is_deleted
    assert [key[0] for key in found.state.holds_on[home]] == ["a"]
    found.take(queue_words.counted(home, NOTHING, found.now_ms))
    assert found.engine.world(found.now_ms).running.idle == ()


def test_people_are_told() -> None:
    found = stage("idle=1h")
    assert found.settle() == []
    idle, busy = gang_views(found.state, found.now_ms, found.engine.world(found.now_ms))
    assert (idle.idle_ms, busy.idle_ms) == (found.now_ms - HOUR, None)
    out = io.StringIO()
    render.explain(gang_doc(idle), found.now_ms, out=out)
    assert "idle       all its devices, for 1h; spec.idle of the Queue says what comes of that" in out.getvalue()
    out = io.StringIO()
    render.explain(gang_doc(busy), found.now_ms, out=out)
    assert " idle " not in out.getvalue()
    registry = CollectorRegistry()
    IdleGauges(registry).observe([idle, busy])
    assert [registry.get_sample_value(f"fairlead_idle_{what}") for what in ("gangs", "gpus")] == [1, 4]


def test_a_queue_without_a_rule_is_written_to_the_journal_as_before() -> None:
    for words in ("", "idle=1h/demote/batch"):
        fact = QueueSeen(queue=queue("team", words), at_ms=0)
        data = encode(fact)
        assert (b"idle" in data) is bool(words)
        assert decode(data) == fact


@pytest.mark.parametrize("seed", range(4))
def test_no_plan_breaks_a_promise_whatever_is_counted(seed: int) -> None:
    """Anything is counted of anybody for hours; nobody keeps his right while he is idle, or is stopped who is not."""
    rng = random.Random(seed)
    words = {
        "org": "idle=30m/demote",
        "kid": "parent=org guaranteed=8",
        "sis": "parent=org idle=20m/checkpoint-and-stop budget=60 soft=100 exhausted=demote",
        "out": "guaranteed=8",
    }
    found = Stage([node(f"n{number}", "8") for number in range(4)], [queue(*one) for one in words.items()], Rules())
    stopped = demoted = 0
    for step in range(60):
        over = rng.choice((1, 4, 9, 20))
        found.now_ms += over * MINUTE
        found.take(queue_words.spent("sis", f"gpuh={rng.randrange(60)} for=9h", found.now_ms))
        for name in range(4):
            busy = " ".join(f"{device}={int(rng.random() < 0.02)}" for device in range(8))
            told = f"{busy} over={over - rng.choice((0, 0, 1))}m"
            if rng.random() < 0.95:
                found.take(queue_words.counted(f"n{name}", told, found.now_ms))
        more = rng.choice(("", " fixed", " priority=3", " class=opportunistic", " saves=file grace=2m"))
        found.submit(f"g{step}", f"1x{rng.choice((1, 2, 4, 8))} queue={rng.choice(('kid', 'sis', 'out'))}{more}")
        for effect in found.settle():  # asserts that the second opinion has nothing to say
            if isinstance(effect, Place):
                found.run(effect.gang)
            elif isinstance(effect, Stop):
                stopped += effect.cause.reason is Reason.IDLE
                found.release(effect.gang)
        world = found.engine.world(found.now_ms)
        demoted += len(world.running.demoted)
        for attempt in world.running.idle:
            assert attempt.queue != "out", "it has no rule"
            assert attempt.queue == "sis" or attempt.tier is Tier.OPPORTUNISTIC
    assert stopped > 3
    assert demoted > 3
