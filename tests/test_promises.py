"""Promises P1 to P10 of the design, and the tests that hold us to them. A promise without a test is a wish.

Where the test lives elsewhere its id stands here, and this page checks that it exists and would be collected.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import builders
import pytest
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.effects import Phase, Place
from fairlead.model.gang import GangId
from fairlead.model.reasons import Kind

TESTS = Path(__file__).parent
PROMISES: dict[str, tuple[str, ...]] = {
    "P1": (
        "test_promises.py::test_p1_a_gang_is_placed_whole_torn_down_whole_and_requeued_or_failed_by_policy",
        "test_kube_cluster.py::test_a_gang_is_bound_whole_and_every_claim_was_allocated_before",
        "test_kube_cluster.py::test_a_refused_binding_in_the_middle_takes_the_bound_ones_along",
        "test_kube_cluster.py::test_an_outage_in_mid_flight_is_undone_after_it",
        "test_recover.py::test_a_half_bound_gang_is_undone_whole",
        "test_simulation.py::test_promises_hold_in_a_random_world_with_faults",
        "cluster/test_gangs.py::test_the_whole_history_keeps_p1_and_p2",
        "cluster/test_crash.py::test_killed_twice_while_it_places_forty_gangs",
    ),
    "P2": (
        "test_properties.py::test_no_device_is_held_twice_and_no_plan_breaks_a_promise",
        "test_verify.py::test_two_gangs_with_one_device_are_seen_across_effects",
        "test_recover.py::test_of_two_gangs_with_one_device_the_younger_goes",
        "cluster/test_gangs.py::test_the_whole_history_keeps_p1_and_p2",
        "cluster/test_foreign.py::test_in_a_race_nobodys_pod_lands_on_a_device_of_somebody_else",
    ),
    "P3": (
        "test_promises.py::test_p3_no_decision_raises_usage_above_a_limit",
        "test_fair_share.py::test_a_limit_counts_what_is_leaving_and_a_right_does_not",
        "test_verify.py::test_a_placement_without_the_right_is_seen",
        "test_simulation.py::test_use_above_a_limit_is_seen_by_its_checker",
    ),
    "P4": (
        "test_ledger.py::test_the_auditor_agrees_on_any_stream",
        "test_ledger.py::test_states_and_their_precedence",
        "test_simulation.py::test_the_books_of_a_random_world_verify",
    ),
    "P5": (
        "test_ledger.py::test_any_changed_entry_is_named",
        "test_tamper.py::test_any_changed_value_is_found_in_its_row",
        "test_books_crash.py::test_one_byte_of_an_amount_in_the_file",
    ),
    "P6": (
        "test_books_crash.py::test_killed_anywhere_the_books_come_out_the_same",
        "test_books_crash.py::test_a_commit_whose_answer_was_lost_is_not_written_twice",
        "test_ledger.py::test_an_estimated_release_is_marked_with_its_width",
    ),
    "P7": (
        "test_replay.py::test_p7_a_world_full_of_faults_replays_byte_for_byte",
        "test_replay.py::test_p7_facts_that_a_restarted_process_is_told_again_are_in_its_replay_too",
        "test_promises.py::test_p7_the_journal_replayed_gives_the_same_decisions",
        "test_properties.py::test_the_same_world_gives_the_same_plan_and_verify_agrees",
        "test_simulation.py::test_the_journal_is_the_same_in_another_process_with_other_hashes",
    ),
    "P8": (
        "test_promises.py::test_p8_a_reason_names_no_other_tenant",
        "test_kube_stops.py::test_victims_of_other_namespaces_are_not_named",
        "cluster/test_rights.py::test_p8_a_tenant_never_sees_another_tenants_names_or_numbers",
        "cluster/test_api_rights.py::test_a_tenant_reads_queue_views_and_nothing_of_the_fleet",
    ),
    "P9": (
        "test_promises.py::test_p9_whatever_waits_says_why_and_mending_it_helps",
        "test_placement_properties.py::test_never_is_said_only_where_no_state_of_the_cluster_would_do",
        "test_properties.py::test_whatever_happened_the_system_settles",
        "test_simulation.py::test_promises_hold_in_a_random_world_with_faults",
    ),
    "P10": (
        "test_leader.py::test_cut_off_it_stops_writing_before_a_rival_can_take_over",
        "test_leader.py::test_a_process_that_was_stopped_finds_its_time_over",
        "cluster/test_leader_policy.py::test_p10_only_the_pod_that_holds_the_lease_writes_and_a_patch_of_the_lease_flips_it",
    ),
}


@cache
def found_in(name: str) -> frozenset[str]:
    """Functions of a test module that pytest would collect and that are not skipped or expected to fail as such."""
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    return frozenset(
        item.name
        for item in tree.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        and item.name.startswith("test_")
        and not any(re.search(r"\b(skip|xfail)\b", ast.unparse(mark)) for mark in item.decorator_list)
    )


def test_there_is_a_test_for_each_promise() -> None:
    assert list(PROMISES) == [f"P{number}" for number in range(1, 11)]
    assert all(PROMISES.values())


@pytest.mark.parametrize("test_id", sorted({test_id for ids in PROMISES.values() for test_id in ids}))
def test_a_test_that_a_promise_names_exists(test_id: str) -> None:
    name, _, function = test_id.partition("::")
    assert function in found_in(name), f"{test_id} is not there (any more)"


# --- those that live here ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [0, 1])
def test_p1_a_gang_is_placed_whole_torn_down_whole_and_requeued_or_failed_by_policy(restarts: int) -> None:
    """The part of P1 that is the core's: plans are whole, and one member's failure or a late start ends them whole."""
    for spoil in ("fails", "late"):
        stage = Stage([builders.node("n1"), builders.node("n2")], [builders.queue("team")])
        stage.submit("a", f"2x8 restarts={restarts} startdeadline=10m")
        (placed,) = stage.settle()
        assert isinstance(placed, Place)
        assert len(placed.placement.members) == 2
        stage.bind("a")
        stage.take(stage.member(ev.MemberRunning, "a", 0))
        if spoil == "fails":
            stage.end("a", 1, succeeded=False)
        else:
            stage.now_ms += 600_000
        (stop,) = stage.settle()
        assert (stop.gang, stop.attempt, stop.requeue) == ("a", 1, restarts > 0)
        stage.release("a", 0)
        assert stage.state.gangs[GangId("a")].phase is Phase.STOPPING, "half released is not over"
        stage.release("a", 1)
        assert stage.state.gangs[GangId("a")].phase is (Phase.PENDING if restarts else Phase.FAILED)
        assert stage.state.holds == {}


def test_p3_no_decision_raises_usage_above_a_limit() -> None:
    """Usage is looked at after every slice, in a tree whose limits bind at both levels, with takings in between."""
    queues = {"org": "limit=24", "a": "parent=org guaranteed=8 limit=16", "b": "parent=org limit=20", "c": "limit=4"}
    stage = Stage([builders.node(f"n{i}") for i in range(5)], [builders.queue(n, t) for n, t in queues.items()])
    limits = {"org": 24, "a": 16, "b": 20, "c": 4}
    most = {"org": 0, "c": 0}
    for i in range(40):
        owner = "abc"[i % 3]
        stage.submit(f"g{i}", f"1x{(1, 2, 4, 8)[i % 4]} queue={owner} priority={i % 5}")
        more = True
        while more:
            cycle = stage.engine.cycle(stage.now_ms)
            assert cycle.violations == ()
            more = cycle.more
            used = dict(stage.state.queue_gpu_milli)
            used["org"] = used.get("a", 0) + used.get("b", 0)
            assert all(used.get(name, 0) <= 1000 * limit for name, limit in limits.items()), used
            most = {name: max(gpus, used.get(name, 0)) for name, gpus in most.items()}
        for name, record in sorted(stage.state.gangs.items()):
            if record.phase is Phase.PLACING:
                stage.run(name)
            elif record.phase is Phase.STOPPING and i % 3 == 0:
                stage.release(name)
    assert most == {"org": 24_000, "c": 4_000}, "limits that nothing came near to were not tested"


def test_p7_the_journal_replayed_gives_the_same_decisions() -> None:
    """Facts from outside, in journal order, with cycles at the same moments: the same plans, to the last device."""
    stage = Stage(
        [builders.node("n1", "hgx rack=r1"), builders.node("n2", "l40s rack=r1"), builders.node("n3", "8 rack=r2")],
        [builders.queue("team", "guaranteed=8"), builders.queue("other", "")],
    )
    script: list[tuple[int, list[ev.Event]]] = [(stage.now_ms, list(stage.facts))]
    plans = []

    def slice_with(*facts: ev.Event) -> None:
        stage.now_ms += 1_000
        script.append((stage.now_ms, list(facts)))
        stage.take(*facts)
        plans.append(stage.engine.cycle(stage.now_ms).plan)

    for i in range(12):
        text = f"{1 + i % 2}x{(1, 2, 4)[i % 3]} queue={('team', 'other')[i % 2]} priority={i % 4}"
        slice_with(ev.GangSeen(gang=builders.gang(f"g{i}", text, stage.now_ms), at_ms=stage.now_ms))
        for name, record in sorted(stage.state.gangs.items()):
            if record.phase is Phase.PLACING:
                slice_with(ev.Bound(gang=name, attempt=record.attempts, at_ms=stage.now_ms))
            elif record.phase is Phase.STOPPING and record.current is not None:
                held = sorted(record.current.holding)
                slice_with(
                    *(
                        ev.MemberReleased(gang=name, attempt=record.attempts, rank=rank, at_ms=stage.now_ms)
                        for rank in held
                    )
                )
    replayed = builders.Engine()
    (_, first), *rest = script
    replayed.take(first)
    again = []
    for now_ms, facts in rest:
        replayed.take(facts)
        again.append(replayed.cycle(now_ms).plan)
    assert again == plans
    assert sum(len(plan.effects) for plan in plans) > 20


def test_p8_a_reason_names_no_other_tenant() -> None:
    """The part of P8 that is the core's: what a tenant's gang says never has another's names in it."""
    stage = Stage(
        [builders.node("n1"), builders.node("n2")],
        [builders.queue("mine", "guaranteed=8 limit=12"), builders.queue("secretive", "guaranteed=4")],
    )
    for i, gpus in enumerate((8, 4)):
        stage.submit(f"hushhush{i}", f"1x{gpus} queue=secretive")
    stage.settle()
    stage.run("hushhush0", "hushhush1")
    stage.submit("fits", "1x8 queue=mine")
    stage.submit("waits", "1x4 queue=mine priority=-1")
    stage.submit("too-wide", "9x8 queue=mine")
    stage.submit("limited", "1x5 queue=mine priority=-2")
    effects = stage.settle()
    assert effects, "a taking is part of the story"
    for view in stage.engine.gang_views(stage.now_ms):
        if view.namespace == "mine":
            assert view.refusal is not None
            assert "hushhush" not in view.refusal.message
            assert "secretive" not in view.refusal.message
    stage.release(next(e.gang for e in effects if hasattr(e, "by")))
    stage.settle()
    for view in stage.engine.gang_views(stage.now_ms):
        if view.namespace == "secretive" and view.refusal is not None:
            assert "mine" not in view.refusal.message
            assert "fits" not in view.refusal.message.split()


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param("1x8 queue=nowhere", ev.QueueSeen(queue=builders.queue("nowhere"), at_ms=0), id="the queue"),
        pytest.param("1x8 ns=other", ev.QueueSeen(queue=builders.queue("team", "ns=other"), at_ms=0), id="namespace"),
        pytest.param("2x8", ev.NodeSeen(node=builders.node("n2"), at_ms=0), id="a node"),
        pytest.param("1x8 within=rack", ev.NodeSeen(node=builders.node("n1", "8 rack=r1"), at_ms=0), id="a level"),
        pytest.param("1x8 select=a:b", ev.NodeSeen(node=builders.node("n1", "8 label=a:b"), at_ms=0), id="a label"),
        pytest.param("1x8 model=B200", ev.NodeSeen(node=builders.node("n2", "8 model=B200"), at_ms=0), id="a model"),
        pytest.param("1x8 cpu=500", ev.NodeSeen(node=builders.node("n1", "8 cpu=512"), at_ms=0), id="CPU"),
    ],
)
def test_p9_whatever_waits_says_why_and_mending_it_helps(text: str, mend: ev.Event) -> None:
    stage = Stage([builders.node("n1")], [builders.queue("team")])
    stage.submit("a", text)
    assert stage.settle() == []
    refusal = stage.view("a").refusal
    assert refusal is not None
    assert refusal.reason.kind in (Kind.INVALID, Kind.NEVER, Kind.NOT_NOW)
    assert "{" not in refusal.message
    stage.take(mend)
    assert [type(effect) for effect in stage.settle()] == [Place]
