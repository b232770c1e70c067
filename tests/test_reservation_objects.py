"""Reservations as objects: read with their field named, told once, shown; and promises that are restored."""

from __future__ import annotations

import re
from types import SimpleNamespace

import builders
import msgspec
import pytest
from builders import T0, Stage

from fairlead.errors import UnreadableInput
from fairlead.model.gang import GangId
from fairlead.model.reservation import ReservationGone, ReservationSeen
from fairlead_operator.objects import Meta
from fairlead_operator.policy_facts import PolicyFacts
from fairlead_operator.pool_objects import WindowSpec
from fairlead_operator.recover_promises import restore_promise
from fairlead_operator.reservation_objects import (
    ReservationObject,
    ReservationSpec,
    decode_reservation,
    reservation_status,
)
from fairlead_operator.statuses import promise_status
from fairlead_operator.watch import Change

START, END = "2027-01-15T09:00:00Z", "2027-01-15T11:00:00Z"


def reservation(**spec: object) -> ReservationObject:
    fields = {"queue": "team", "nodes": ["n1"], "start": START, "end": END, **spec}
    if "recurring" in fields:  # as a client reads it
        fields["recurring"] = msgspec.convert(fields["recurring"], list[WindowSpec])
    return ReservationObject(metadata=Meta(name="exam", uid="u"), spec=ReservationSpec(**fields))


def test_a_reservation_is_read() -> None:
    found = decode_reservation(reservation(lendable=False, stop_all=True))
    assert found.span(T0) == (T0 + 3_600_000, T0 + 3 * 3_600_000)
    assert (found.queue, found.nodes, found.lendable, found.pre_drain, found.stop_all) == (
        "team",
        ("n1",),
        False,
        True,
        True,
    )
    nightly = [{"from": "22:00", "to": "06:00", "timeZone": "Europe/Berlin", "days": ["fri"]}]
    weekly = decode_reservation(reservation(queue="", recurring=nightly, start=None, end=None))
    assert weekly.is_maintenance
    assert weekly.span(T0) == (T0 + 13 * 3_600_000, T0 + 21 * 3_600_000)  # 22:00 in Berlin is 21:00 UTC in winter


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"nodes": []}, "spec.nodes: set one of nodes, domain and count"),
        ({"count": 2}, "spec.nodes: set one of"),
        ({"nodes": [], "domain": "r1"}, "spec.level: name the level"),
        ({"end": None}, "spec.start: set start and end"),
        ({"end": START}, "spec.end: is not after start"),
        ({"end": "2029-01-15T09:00:00Z"}, "spec.end: is more than 366 days"),
        ({"start": "tomorrow"}, "spec.start"),
        ({"recurring": [{"from": "25:00", "to": "06:00"}]}, "spec.recurring[0].from"),
        ({"recurring": [{"from": "22:00", "to": "06:00", "timeZone": "Mars/Base"}]}, "spec.recurring[0].timeZone"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(spec: dict[str, object], says: str) -> None:
    with pytest.raises(UnreadableInput, match=re.escape(f"Reservation exam: {says}")):
        decode_reservation(reservation(**spec))


def test_a_reservation_is_told_once_and_a_bad_one_keeps_its_last_good_state() -> None:
    told: list[object] = []
    problems: dict[tuple[str, str], str] = {}
    facts = PolicyFacts(told.append, lambda: T0, problems)
    facts.on_reservation(Change.ADDED, None, reservation())
    facts.on_reservation(Change.MODIFIED, None, reservation())
    facts.on_reservation(Change.MODIFIED, None, reservation(end=START))
    assert [type(fact) for fact in told] == [ReservationSeen]
    assert "spec.end" in problems["Reservation", "exam"]
    facts.on_reservation(Change.DELETED, reservation(), None)
    assert [type(fact) for fact in told] == [ReservationSeen, ReservationGone]
    assert not problems


def test_its_status_says_when_it_is_and_how_many_are_in_its_way() -> None:
    stage = Stage([builders.node("n1")], [builders.queue("team"), builders.queue("other")])
    stage.submit("guest", "1x4 queue=other fixed")
    stage.submit("mine", "1x4 fixed")
    stage.settle()
    stage.take(ReservationSeen(reservation=decode_reservation(reservation()), at_ms=T0))
    (one,) = stage.engine.world(stage.now_ms).reserved
    blockers = stage.engine.blockers(one)
    status = reservation_status(one, "", blockers, 3, stage.now_ms)
    assert (status["state"], status["begins"], status["nodes"], status["blockers"]) == ("Pending", START, 1, 1)
    assert reservation_status(one, "", 0, 3, one.start_ms)["state"] == "Active"
    assert reservation_status(None, "", 0, 3, one.end_ms)["state"] == "Over"
    refused = reservation_status(None, "spec.nodes: there is no node n9", 0, 3, T0)
    assert (refused["state"], refused["message"]) == ("Refused", "spec.nodes: there is no node n9")


def test_a_promise_survives_a_restart_through_the_status() -> None:
    from fairlead_operator.gangjob_status import PromiseStatus

    stage = Stage([builders.node("n1"), builders.node("n2")], [builders.queue("team")])
    stage.submit("a", "1x8 duration=1h fixed")
    stage.settle()
    stage.run("a")
    stage.submit("big", "2x8")
    stage.settle()
    (promise,) = stage.state.promises.standing.values()
    written = promise_status(promise)
    kept = PromiseStatus(
        members=_members(written),
        latest_start=written["latestStart"],
        asked=written["asked"],
        stops=written["stops"],
        level=written["level"],
        domain=written["domain"],
        span=written["span"],
    )
    facts: list[object] = []
    job = SimpleNamespace(status=SimpleNamespace(promise=kept, phase="Pending"), metadata=SimpleNamespace(uid="big"))
    restore_promise(facts, job, stage.now_ms)
    (found,) = facts
    assert found.gang == GangId("big")
    assert found.latest_start_ms == promise.latest_start_ms
    assert [m.node for m in found.placement.members] == [m.node for m in promise.placement.members]
    assert [m.devices for m in found.placement.members] == [m.devices for m in promise.placement.members]
    later: list[object] = []
    restore_promise(later, job, promise.latest_start_ms)
    assert later == []


def _members(written: dict[str, list[dict[str, object]]]) -> list[object]:
    from fairlead_operator.gangjob_status import AllocatedNode

    return [AllocatedNode(node=one["node"], pods=one["pods"]) for one in written["members"]]
