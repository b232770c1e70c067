"""The fleet in memory behaves like a cluster: it takes time, fails, and tells late; and workloads come out as asked."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from fairlead.errors import NotFound, UnreadableInput
from fairlead.model.effects import Place, Stop
from fairlead.model.events import (
    Bound,
    ForeignDevices,
    MemberEnded,
    MemberReleased,
    MemberRunning,
    NodeGone,
    NodeSeen,
    PlaceFailed,
)
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.simulation.behaviour import Behaviour, Run
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.workload import MIX, TRACE, Owner, draw, from_trace, trace_path
from fairlead.topology.fleets import build

GANG = GangId("g")
CAUSE = refuse(Reason.DELETED)
OWNERS = [Owner(namespace="a", queue="a"), Owner(namespace="b", queue="b")]


def a_fleet(**rates: int) -> Fleet:
    return Fleet(build("hgx-h100", 2, pool="fleet"), seed=1, behaviour=Behaviour(**rates))


def names(fleet: Fleet) -> list[NodeName]:
    return sorted(fleet.nodes)


def place(fleet: Fleet, gang: GangId = GANG, *, attempt: int = 1, gpus: int = 2, deadline_ms: int = 30_000) -> Place:
    devices = tuple(f"gpu-{n}" for n in range(gpus))
    members = tuple(
        Member(role="worker", index=i, rank=i, node=node, devices=devices) for i, node in enumerate(names(fleet))
    )
    return Place(
        gang=gang, attempt=attempt, placement=Placement(members=members), tier=Tier.IN_QUOTA, deadline_ms=deadline_ms
    )


def until(fleet: Fleet, end_ms: int) -> list[object]:
    facts: list[object] = []
    while (at_ms := fleet.next_ms()) is not None and at_ms <= end_ms:
        facts += fleet.due(at_ms)
    return facts


def kinds(facts: list[object]) -> Counter[str]:
    return Counter(type(fact).__name__ for fact in facts)


def test_a_gang_is_bound_runs_ends_and_gives_its_devices_back():
    fleet = a_fleet()
    fleet.declare(GANG, Run(run_ms=60_000))
    fleet.perform(place(fleet), 0)
    assert len(fleet.holders) == 4
    facts = until(fleet, 10**9)
    assert kinds(facts) == {"Bound": 1, "MemberRunning": 2, "MemberEnded": 2, "MemberReleased": 2}
    bound, ends = facts[0], [fact for fact in facts if isinstance(fact, MemberEnded)]
    assert isinstance(bound, Bound)
    assert 20 <= bound.at_ms <= 400
    last_start = max(fact.at_ms for fact in facts if isinstance(fact, MemberRunning))
    assert all(end.succeeded and end.at_ms >= last_start + 60_000 for end in ends)
    assert not fleet.holders
    assert not fleet.pods


def test_placing_twice_changes_nothing():
    fleet = a_fleet()
    effect = place(fleet)
    fleet.perform(effect, 0)
    fleet.perform(effect, 0)
    assert all(len(holders) == 1 for holders in fleet.holders.values())
    assert kinds(until(fleet, 10**9))["Bound"] == 1


def test_a_stop_takes_a_grace_time_and_only_then_are_devices_free():
    fleet = a_fleet()
    fleet.perform(place(fleet), 0)
    until(fleet, 60_000)
    fleet.perform(Stop(gang=GANG, attempt=1, cause=CAUSE, requeue=False), 60_000)
    assert len(fleet.holders) == 4
    released = until(fleet, 10**9)
    assert kinds(released) == {"MemberReleased": 2}
    assert all(fact.at_ms >= 60_500 for fact in released)
    assert not fleet.holders


def test_a_stop_before_the_binding_answers_with_releases_alone():
    fleet = a_fleet()
    fleet.perform(place(fleet), 0)
    fleet.perform(Stop(gang=GANG, attempt=1, cause=CAUSE, requeue=True), 5)
    assert kinds(until(fleet, 10**9)) == {"MemberReleased": 2}


def test_a_conflict_undoes_what_was_bound():
    fleet = a_fleet(conflict_permille=1_000)
    fleet.perform(place(fleet), 0)
    facts = until(fleet, 10**9)
    failed = next(fact for fact in facts if isinstance(fact, PlaceFailed))
    later = [fact.rank for fact in facts if isinstance(fact, MemberReleased)]
    assert sorted([*failed.released, *later]) == [0, 1]
    assert "409" in failed.cause.message
    assert not fleet.holders


def test_a_lost_reply_fails_at_the_deadline():
    fleet = a_fleet(lost_reply_permille=1_000)
    fleet.perform(place(fleet, deadline_ms=30_000), 0)
    failed = until(fleet, 10**9)[0]
    assert isinstance(failed, PlaceFailed)
    assert failed.at_ms == 30_000


def test_a_device_that_another_client_took_first_is_never_bound():
    fleet = a_fleet()
    node = names(fleet)[0]
    fleet.take_foreign(node, 1, 0)
    fleet.due(0)
    fleet.perform(place(fleet), 0)
    facts = until(fleet, 10**9)
    assert kinds(facts) == {"ForeignDevices": 1, "PlaceFailed": 1}
    assert "gpu-0" in next(fact for fact in facts if isinstance(fact, PlaceFailed)).cause.message


def test_foreign_clients_never_take_what_we_hold():
    fleet = a_fleet()
    fleet.perform(place(fleet, gpus=8), 0)
    fleet.take_foreign(names(fleet)[0], 3, 1)
    seen = [fact for fact in until(fleet, 5_000) if isinstance(fact, ForeignDevices)]
    assert [fact.devices for fact in seen] == [()]


def test_a_dead_node_is_silent_until_it_is_back():
    fleet = a_fleet()
    fleet.declare(GANG, Run(run_ms=1_000))
    fleet.perform(place(fleet), 0)
    until(fleet, 400)
    dead = names(fleet)[1]
    fleet.lose_node(dead, 401, back_ms=600_000)
    facts = until(fleet, 599_999)
    assert {fact.rank for fact in facts if isinstance(fact, MemberRunning)} == {0}
    seen = next(fact for fact in facts if isinstance(fact, NodeSeen))
    assert seen.node.not_ready_since_ms == 401
    after = until(fleet, 10**9)
    assert isinstance(after[0], NodeSeen)
    assert after[0].node.ready
    assert kinds(after)["MemberReleased"] == 2


def test_pods_of_a_stopped_gang_stay_on_a_dead_node_until_it_is_removed():
    fleet = a_fleet()
    fleet.perform(place(fleet), 0)
    until(fleet, 60_000)
    dead = names(fleet)[1]
    fleet.lose_node(dead, 60_001, removed_ms=900_000)
    until(fleet, 80_000)
    fleet.perform(Stop(gang=GANG, attempt=1, cause=CAUSE, requeue=True), 80_000)
    assert {fact.rank for fact in until(fleet, 899_999) if isinstance(fact, MemberReleased)} == {0}
    assert {node for node, _ in fleet.holders} == {dead}
    facts = until(fleet, 10**9)
    assert isinstance(facts[0], NodeGone)
    assert [fact.rank for fact in facts if isinstance(fact, MemberReleased)] == [1]


def test_a_removed_node_ends_the_members_that_ran_on_it():
    fleet = a_fleet()
    fleet.perform(place(fleet), 0)
    until(fleet, 60_000)
    fleet.lose_node(names(fleet)[0], 60_001, removed_ms=60_002)
    ended = [fact for fact in until(fleet, 10**9) if isinstance(fact, MemberEnded)]
    assert [(fact.rank, fact.succeeded) for fact in ended] == [(0, False)]
    assert "removed" in ended[0].detail


def test_a_short_blip_is_never_told():
    fleet = a_fleet()
    fleet.lose_node(names(fleet)[0], 10, back_ms=20)
    assert until(fleet, 10**9) == []


def test_more_faults_do_not_move_other_times():
    quiet, noisy = a_fleet(), a_fleet()
    noisy.lose_node(names(noisy)[0], 10, back_ms=20)
    for fleet in (quiet, noisy):
        fleet.perform(place(fleet), 100)
    bound = [next(f for f in until(fleet, 10**9) if isinstance(f, Bound)).at_ms for fleet in (quiet, noisy)]
    assert bound[0] == bound[1]


def test_drawn_jobs_have_the_mix_and_the_same_seed_gives_the_same_jobs():
    jobs = list(draw(3, count=2_000, owners=OWNERS, start_ms=0, gap_ms=10))
    assert jobs == list(draw(3, count=2_000, owners=OWNERS, start_ms=0, gap_ms=10))
    shapes = Counter((job.gang.roles[0].replicas, job.gang.roles[0].gpus) for job in jobs)
    for shape in MIX:
        assert shapes[shape.replicas, shape.gpus] == pytest.approx(20 * shape.percent, rel=0.3)
    runs = sorted(job.run.run_ms for job in jobs)
    assert 500_000 < runs[1_000] < 800_000  # the trace's median is 655 s
    assert len({job.gang.id for job in jobs}) == 2_000
    assert [job.at_ms for job in jobs] == sorted(job.at_ms for job in jobs)


def test_a_trace_is_read_in_the_order_of_its_times(tmp_path: Path):
    head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time,scheduled_time"
    rows = ["late,1,1,8,1000,70,100,80", "cpu,1,1,0,0,0,9,1", "early,1,1,1,460,10,40,10"]
    path = tmp_path / "pods.csv"
    path.write_text("\n".join([head, *rows]))
    jobs = list(from_trace(path, owners=OWNERS, start_ms=1_000))
    assert [(job.gang.name, job.at_ms, job.gang.gpus, job.run.run_ms) for job in jobs] == [
        ("early", 1_000, 1, 30_000),
        ("late", 61_000, 8, 20_000),
    ]
    path.write_text("\n".join([head, "x,1,1,many,1,1,2,1"]))
    with pytest.raises(UnreadableInput, match=r"pods\.csv"):
        list(from_trace(path, owners=OWNERS, start_ms=0))
    with pytest.raises(UnreadableInput, match="nowhere"):
        list(from_trace(tmp_path / "nowhere", owners=OWNERS, start_ms=0))


def test_the_public_trace_reads_whole(monkeypatch: pytest.MonkeyPatch):
    data = Path(os.environ.get("FAIRLEAD_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")
    if not (data / TRACE).is_file() and not os.environ.get("CI"):
        pytest.skip(f"no trace at {data / TRACE}")
    monkeypatch.setenv("FAIRLEAD_DATA", str(data))
    jobs = list(from_trace(trace_path(), owners=OWNERS, start_ms=0))
    gpus = Counter(job.gang.gpus for job in jobs)
    assert (gpus[2], gpus[4], gpus[8]) == (15, 15, 44)  # one of the 16 pods of two was never scheduled
    assert gpus[1] > 6_000
    monkeypatch.delenv("FAIRLEAD_DATA")
    with pytest.raises(NotFound, match="FAIRLEAD_DATA"):
        trace_path()


def test_no_device_is_ever_lost_or_doubled_by_the_fleet_itself():
    chance = random.Random(5)
    fleet = a_fleet(conflict_permille=200, member_fails_permille=200)
    now_ms = 0
    for number in range(200):
        gang = GangId(f"g{number}")
        fleet.declare(gang, Run(run_ms=1_000))
        fleet.perform(place(fleet, gang, gpus=8), now_ms)
        if chance.random() < 0.3:
            fleet.perform(Stop(gang=gang, attempt=1, cause=CAUSE, requeue=False), now_ms + 1)
        now_ms += 100_000
        until(fleet, now_ms)
        if fleet.pods:  # a member failed and nobody stopped its siblings
            fleet.perform(Stop(gang=gang, attempt=1, cause=CAUSE, requeue=False), now_ms)
            now_ms += 100_000
            until(fleet, now_ms)
        assert not fleet.holders
