"""QuotaExceptions and the Switchboard: read by both doors, told once, refused by name, shown, counted, replayed."""

from __future__ import annotations

import io

import msgspec
import pytest
from builders import T0, Stage, node, queue

from fairlead.cli import render
from fairlead.errors import UnreadableInput
from fairlead.model import events as ev
from fairlead.model.effects import Place
from fairlead.model.fairness import FairnessPolicy
from fairlead.model.quota_exception import MoreOf, QuotaException
from fairlead.model.rules import Rules
from fairlead.model.switches import ALL_ON, Switches, switched
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations
from fairlead.service.metrics import Metrics
from fairlead.service.replay import replay
from fairlead.service.view_json import queue_doc
from fairlead.simulation import gangjob_yaml
from fairlead.world.views import ResourceView
from fairlead_operator.overviews import exception_status, fairness_status, in_force_status
from fairlead_operator.policy_facts import PolicyFacts
from fairlead_operator.policy_objects import (
    QuotaExceptionObject,
    SwitchboardObject,
    decode_exception,
    decode_switches,
)
from fairlead_operator.watch import Change

EXCEPTION = {
    "queue": "team",
    "change": {
        "limit": 8,
        "guaranteed": 4,
        "maxJobs": 2,
        "budget": 50,
        "resources": [{"name": "memory", "limit": 2}, {"name": "gpu/H100", "limit": 3, "guaranteed": 1}],
    },
    "owner": "ops",
    "reason": "a launch",
    "starts": "2027-01-15T08:00:00Z",
    "expires": "2027-01-15T10:00:00+01:00",
}
MADE = QuotaException(
    name="more",
    queue="team",
    owner="ops",
    reason="a launch",
    starts_ms=1_800_000_000_000,
    expires_ms=1_800_003_600_000,
    more_limit_gpus=8,
    more_guaranteed_gpus=4,
    more_jobs=2,
    more_budget=50,
    more_of=(MoreOf(resource="gpu/H100", limit=3_000, guaranteed=1_000), MoreOf(resource="memory", limit=2 << 30)),
)


def document(kind: str, name: str, spec: dict) -> dict:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def read(kind: str, name: str, spec: dict) -> gangjob_yaml.Documents:
    text = msgspec.json.encode(document(kind, name, spec)).decode()
    return gangjob_yaml.read(text, now_ms=0, new_id=lambda _, name: name)


def exception_by_watch(spec: dict) -> QuotaException:
    return decode_exception(msgspec.convert(document("QuotaException", "more", spec), QuotaExceptionObject))


def exception_by_file(spec: dict) -> QuotaException:
    return read("QuotaException", "more", spec).exceptions[0]


def switches_by_watch(spec: dict) -> Switches:
    return decode_switches(msgspec.convert(document("Switchboard", "cluster", spec), SwitchboardObject))


def switches_by_file(spec: dict) -> Switches | None:
    return read("Switchboard", "cluster", spec).switches


@pytest.mark.parametrize("door", [exception_by_watch, exception_by_file])
def test_both_doors_read_an_exception(door) -> None:
    assert door(EXCEPTION) == MADE


@pytest.mark.parametrize("door", [exception_by_watch, exception_by_file])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"owner": " "}, "owner"),
        ({"reason": ""}, "reason"),
        ({"queue": ""}, "queue"),
        ({"expires": "soon"}, "expires"),
        ({"expires": "2027-01-15T10:00:00"}, "expires"),
        ({"expires": "2027-01-15T08:00:00Z"}, "expires"),
        ({"starts": "tomorrow"}, "starts"),
        ({"change": {}}, "change"),
        ({"change": {"limit": -1}}, "change"),
        ({"change": {"resources": [{"name": "gpu", "limit": 1}]}}, r"change\.resources.*gpu has fields of its own"),
        ({"change": {"resources": [{"name": "Tea pots", "limit": 1}]}}, r"change\.resources.*is no resource"),
        ({"change": {"resources": [{"name": "cpu"}]}}, r"change\.resources.*gives nothing"),
        ({"change": {"resources": [{"name": "cpu", "limit": -1}]}}, r"change\.resources"),
        ({"change": {"resources": [{"name": "cpu", "limit": 1}] * 2}}, r"change\.resources.*stands there twice"),
    ],
)
def test_an_exception_that_lacks_something_is_refused_by_its_field(door, change, field) -> None:
    with pytest.raises(UnreadableInput, match=rf"spec\.{field}"):
        door({**EXCEPTION, **change})


@pytest.mark.parametrize("door", [switches_by_watch, switches_by_file])
def test_both_doors_read_switches(door) -> None:
    assert door({}) == ALL_ON
    spec = {"preemption": "Off", "stopsPerCycle": 0, "owner": "ops", "reason": "a storm"}
    assert door(spec) == Switches(preemption_on=False, stops_per_cycle=0, owner="ops", reason="a storm")


@pytest.mark.parametrize("door", [switches_by_watch, switches_by_file])
@pytest.mark.parametrize(("spec", "field"), [({"placement": "Maybe"}, "placement"), ({"stopsPerCycle": -1}, "stops")])
def test_a_switch_that_is_neither_on_nor_off_is_refused(door, spec, field) -> None:
    with pytest.raises(UnreadableInput, match=rf"spec\.{field}"):
        door(spec)


def test_there_is_one_switchboard() -> None:
    with pytest.raises(UnreadableInput, match=r"metadata\.name: must be cluster"):
        read("Switchboard", "mine", {})


def test_switches_only_take_away() -> None:
    rules = Rules(placement_on=False, stops_per_cycle=4)
    assert switched(rules, ALL_ON) == rules
    assert switched(rules, Switches(stops_per_cycle=9)).stops_per_cycle == 4
    assert switched(rules, Switches(stops_per_cycle=1, reclaim_on=False)) == Rules(
        placement_on=False, stops_per_cycle=1, reclaim_on=False
    )


# --- the operator -----------------------------------------------------------------------------------------------------


def test_the_watches_tell_each_state_once_and_keep_the_last_good_one() -> None:
    told: list[ev.Event] = []
    problems: dict[tuple[str, str], str] = {}
    facts = PolicyFacts(told.append, lambda: T0, problems)
    good = msgspec.convert(document("QuotaException", "more", EXCEPTION), QuotaExceptionObject)
    bad = msgspec.convert(document("QuotaException", "more", {**EXCEPTION, "owner": ""}), QuotaExceptionObject)
    facts.on_exception(Change.ADDED, None, good)
    facts.on_exception(Change.MODIFIED, good, good)
    facts.on_exception(Change.MODIFIED, good, bad)
    assert told == [ev.ExceptionSeen(exception=MADE, at_ms=T0)]
    assert "spec.owner" in problems["QuotaException", "more"]
    facts.on_exception(Change.DELETED, bad, None)
    assert told[1:] == [ev.ExceptionGone(name="more", at_ms=T0)]
    assert problems == {}


def test_deleting_the_switchboard_switches_all_on_and_another_name_counts_for_nothing() -> None:
    told: list[ev.Event] = []
    facts = PolicyFacts(told.append, lambda: T0, {})
    board = msgspec.convert(document("Switchboard", "cluster", {"reclaim": "Off"}), SwitchboardObject)
    other = msgspec.convert(document("Switchboard", "other", {"placement": "Off"}), SwitchboardObject)
    facts.on_switchboard(Change.ADDED, None, other)
    facts.on_switchboard(Change.ADDED, None, board)
    facts.on_switchboard(Change.DELETED, board, None)
    assert [fact.switches for fact in told] == [Switches(reclaim_on=False), ALL_ON]


def test_statuses_say_whether_it_acts_or_why_not() -> None:
    assert exception_status(MADE, "", 3, T0) == {"observedGeneration": 3, "state": "Active", "message": None}
    assert exception_status(MADE, "", 3, MADE.expires_ms)["state"] == "Expired"
    assert exception_status(MADE, "", 3, T0 - 1)["state"] == "Pending"
    assert exception_status(None, "mend it", 3, T0) == {
        "observedGeneration": 3,
        "state": "Refused",
        "message": "mend it",
    }
    assert in_force_status("", 1)["state"] == "InForce"


def test_a_fairness_policy_says_which_version_is_in_force_and_for_whom() -> None:
    known = FairnessPolicy(name="research", version=3)
    told = fairness_status(known, ["b", "a"], "", 7)
    assert told == {
        "observedGeneration": 7,
        "state": "InForce",
        "message": None,
        "version": 3,
        "queues": 2,
        "names": ["a", "b"],
    }
    refused = fairness_status(known, [f"q{at:03}" for at in range(100)], "spec.kind: mend it", 8)
    assert (refused["state"], refused["message"], refused["version"]) == ("Refused", "spec.kind: mend it", 3)
    assert (refused["queues"], len(refused["names"])) == (100, 64)
    assert fairness_status(None, [], "no", 1)["version"] is None


def test_exceptions_are_counted_by_state() -> None:
    metrics = Metrics()
    metrics.observe_exceptions([MADE], T0)
    assert b'fairlead_quota_exceptions{state="Active"} 1.0' in metrics.exposition()
    assert b'fairlead_quota_exceptions{state="Expired"} 0.0' in metrics.exposition()


# --- the engine -------------------------------------------------------------------------------------------------------


def stage_of(text: str, *exceptions: QuotaException) -> Stage:
    stage = Stage([node("n1", "8"), node("n2", "8")], [queue("team", text)])
    stage.take(*(ev.ExceptionSeen(exception=one, at_ms=T0) for one in exceptions))
    return stage


def test_a_queue_shows_every_resource_that_it_has_a_quota_of() -> None:
    stage = stage_of("guaranteed=2 limit=8 cpu.guaranteed=1 cpu.limit=6 memory.limit=64")
    stage.submit("a", "1x4 cpu=4")
    stage.settle()
    (view,) = stage.engine.queue_views()
    assert view.resources == (
        ResourceView(name="gpu", guaranteed=2, limit=8, used=4, borrowed=2),
        ResourceView(name="cpu", guaranteed=1, limit=6, used=4, borrowed=3),
        ResourceView(name="memory", guaranteed=0, limit=64, used=0, borrowed=0),
    )
    out = io.StringIO()
    render.quotas([queue_doc(view)], out=out)
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["team", "team", "gpu", "2", "8", "4", "2"],
        ["team", "team", "cpu", "1", "6", "4", "3"],
        ["team", "team", "memory", "0", "64", "0", "0"],
    ]


def test_a_queue_shows_the_exceptions_that_act_and_the_quota_in_force() -> None:
    stage = stage_of("limit=4", MADE)
    stage.settle()
    (view,) = stage.engine.queue_views()
    assert (view.limit_gpus, view.guaranteed_gpus, view.exceptions) == (12, 4, (MADE,))
    assert "8 GPUs above its limit" in MADE.text
    assert "by ops: a launch" in MADE.text
    stage.now_ms = MADE.expires_ms
    stage.settle()
    (view,) = stage.engine.queue_views()
    assert (view.limit_gpus, view.guaranteed_gpus, view.exceptions) == (4, 0, ())


def test_the_end_of_an_exception_is_a_moment_to_wake_for() -> None:
    stage = stage_of("limit=4", MADE)
    stage.settle()
    assert stage.cycles[-1].wake_at_ms == MADE.expires_ms


@pytest.mark.parametrize(("after_ms", "broken"), [(0, False), (3_600_000, True)])
def test_no_plan_goes_above_a_limit_but_by_an_exception_that_acts(after_ms, broken) -> None:
    """P3: what is sound while the exception acts is refused once it has ended."""
    stage = stage_of("limit=4", MADE)
    stage.submit("a", "1x8")
    (placed,) = [effect for effect in stage.engine.cycle(stage.now_ms).effects if isinstance(effect, Place)]
    stage = stage_of("limit=4", MADE)
    stage.submit("a", "1x8")
    world = stage.engine.world(T0 + after_ms)
    found = violations(Plan(version=world.version, effects=(placed,)), world)
    assert [violation.text for violation in found] == (
        ["team/a: queue team would hold 8 GPUs, its limit is 4"] if broken else []
    )


def test_switches_and_exceptions_are_replayed() -> None:
    stage = stage_of("limit=4")
    stage.submit("low", "1x4")
    stage.settle()
    stage.run("low")
    stage.take(ev.SwitchesSet(switches=Switches(preemption_on=False), at_ms=stage.now_ms))
    stage.submit("high", "1x4 priority=1")
    stage.settle()
    stage.take(ev.ExceptionSeen(exception=MADE, at_ms=stage.now_ms))
    stage.settle()
    stage.run("high")
    stage.submit("higher", "1x8 priority=2")
    stage.settle()
    stage.now_ms = MADE.expires_ms
    stage.take(ev.SwitchesSet(switches=ALL_ON, at_ms=stage.now_ms))
    stage.settle()
    rows = [("", ev.Started(rules=Rules(), at_ms=T0)), *((str(at), fact) for at, fact in enumerate(stage.facts))]
    found = replay(rows, set())
    assert found.decisions >= 4
    assert found.differences == ()
    forgetful = [row for row in rows if not isinstance(row[1], ev.SwitchesSet)]
    assert replay(forgetful, set()).differing == 1
