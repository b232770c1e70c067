"""What became of held time at the very moment, told late or in another order, and how far back it reaches."""

from __future__ import annotations

import dataclasses

import pytest
from ledger_books import Books, attempt, grow, hold, release, stop
from ledger_facts import NAMED, node

from fairlead.ledger.entry import OUTCOMES
from fairlead.model.codec import Cut
from fairlead.model.events import DevicesCounted, MemberRunning, NodeSeen

HOUR = 3_600_000
FLEET = (*NAMED, NodeSeen(node=node(), at_ms=0))
HELD = "held:lab:vision:in-quota"
RESTART = "waste:restart:lab:vision"


def test_a_stop_wastes_of_each_member_what_it_did_not_save_since_it_held_anything() -> None:
    """All was booked before the stop is told; one of two on a node joined after the last checkpoint."""
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), grow(5_000, ("n1", (0,)), ("n1", (1,))))
    books.take(DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 1_000), ("gpu-1", 1_000)), at_ms=7_000))
    books.take(Cut(at_ms=8_000), stop(9_000, by="g2", safe_ms=2_000), release(9_000), release(9_000, rank=1))
    found = books.take(Cut(at_ms=10_000)).gpu_ms()
    assert found["waste:preempted:lab:vision"] == 7_000 + 4_000
    assert found["use:lab:vision:used"] == 1_000


def test_a_stop_reaches_no_further_back_on_a_node_than_its_first_hold_there() -> None:
    books = Books().take(*FLEET, NodeSeen(node=node("n2"), at_ms=0), hold(2_000, ("n1", (0,)), ("n2", (0,))))
    books.take(grow(5_000, ("n1", (0,)), ("n2", (0,)), ("n1", (1,))))
    touched = books.meter._attempts.touched
    assert dict(touched("g1", 1, 1_000)) == {"n1": 2_000, "n2": 2_000}
    assert dict(touched("g1", 1, 3_000)) == {"n1": 3_000, "n2": 3_000}
    assert touched("g1", 2, 0) == []


def test_books_that_begin_with_a_stop_know_of_no_time_before_that_is_safe() -> None:
    books = Books().take(stop(9_000, by="g2"), *FLEET, hold(1_000, ("n1", (0,))), release(9_000), Cut(at_ms=10_000))
    found = books.gpu_ms()
    assert found["waste:preempted:lab:vision"] == found[HELD] == 8_000


def test_who_is_named_by_a_growth_before_the_attempt_is_told_is_not_waited_for() -> None:
    again = attempt(2, hold(5_000, ("n1", (0,))))
    grown = dataclasses.replace(grow(6_000, ("n1", (0,)), ("n1", (1,))), attempt=2)
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000), grown, again)
    books.take(MemberRunning(gang="g1", attempt=2, rank=0, at_ms=7_000), Cut(at_ms=9_000))
    assert books.gpu_ms()[RESTART] == 2_000 + 1_000, "rank 1 joins at 6 s and has only rank 0 to wait for"


def test_a_restart_is_over_at_the_moment_that_the_last_member_runs() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000))
    books.take(attempt(2, hold(5_000, ("n1", (0,)), ("n1", (1,)))))
    for rank, at_ms in ((0, 6_000), (1, 8_000), (1, 9_000)):
        books.take(MemberRunning(gang="g1", attempt=2, rank=rank, at_ms=at_ms))
    books.take(DevicesCounted(name="n1", from_ms=8_000, busy=(("gpu-0", 500), ("gpu-1", 500)), at_ms=10_000))
    found = books.take(Cut(at_ms=10_000)).gpu_ms()
    assert (found[RESTART], found["use:lab:vision:used"], found["use:lab:vision:idle"]) == (6_000, 2_000, 2_000)


@pytest.mark.parametrize("first", [False, True])
def test_all_run_since_the_earliest_moment_at_which_each_was_said_to(first: bool) -> None:
    told = [MemberRunning(gang="g1", attempt=2, rank=0, at_ms=at_ms) for at_ms in (6_000, 8_000)]
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000))
    books.take(attempt(2, hold(5_000, ("n1", (0,)))), *(told if first else reversed(told)), Cut(at_ms=9_000))
    assert books.gpu_ms()[RESTART] == 1_000


def test_no_stop_wastes_what_is_two_days_older_than_the_newest_fact() -> None:
    """Neither of its own attempt nor of the one after it, which was there when the stop was told at last."""
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), release(HOUR), attempt(2, hold(10 * HOUR, ("n1", (1,)))))
    books.take(Cut(at_ms=100 * HOUR), stop(HOUR, by="g2"), Cut(at_ms=101 * HOUR))
    found = books.gpu_ms()
    assert found[RESTART] == 49 * HOUR, "from 52 h on"
    assert "waste:preempted:lab:vision" not in found
    books.take(stop(101 * HOUR, by="g2", attempt=2), Cut(at_ms=102 * HOUR))
    assert books.gpu_ms()[RESTART] == 50 * HOUR, "it never ran"


def test_a_gang_that_grows_onto_another_node_loses_on_the_first_one_too_from_then_on() -> None:
    books = Books().take(*FLEET, NodeSeen(node=node("n2"), at_ms=0), hold(0, ("n1", (0,))))
    books.take(MemberRunning(gang="g1", attempt=1, rank=0, at_ms=1_000), Cut(at_ms=9_000))
    books.take(grow(5_000, ("n1", (0,)), ("n2", (0,)), slowed=250), Cut(at_ms=10_000))
    assert books.gpu_ms()["waste:topology:lab:vision"] == 2 * 5_000 // 4
    books.take(grow(7_000, ("n1", (0,)), ("n2", (0,)), ("n2", (1,)), slowed=1_200), Cut(at_ms=11_000))
    assert books.gpu_ms()["waste:topology:lab:vision"] == 2 * 2_000 // 4 + 3 * 4_000, "no more than all of it"


# Windows in which devices were counted.


def test_a_count_is_exact_where_the_hold_lasts_as_long_as_its_window_to_the_moment() -> None:
    def reasons(begin: int, end: int) -> set[str]:
        books = Books().take(*FLEET, hold(begin, ("n1", (0,))), release(end))
        books.take(DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 250),), at_ms=5_000), Cut(at_ms=9_000))
        assert books.audit().verified
        return {s.entry.reason for s in books.sealed if s.entry.kind in OUTCOMES}

    assert reasons(1_000, 5_000) == {"exact"}
    assert reasons(1_001, 5_000) == {"estimated"}
    assert reasons(1_000, 4_999) == {"estimated"}


def test_of_two_windows_around_a_moment_the_one_told_last_counts() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    for from_ms, busy, to_ms in ((2_000, 1_000, 6_000), (0, 500, 4_000)):
        books.take(DevicesCounted(name="n1", from_ms=from_ms, busy=(("gpu-0", busy),), at_ms=to_ms))
    found = books.take(Cut(at_ms=8_000)).gpu_ms()
    assert found["use:lab:vision:used"] == 2_000 + 2_000
    assert found["use:lab:vision:idle"] == 2_000


@pytest.mark.parametrize(("longer_ms", "used"), [(0, HOUR), (1, 0)])
def test_a_window_of_an_hour_counts_and_a_longer_one_does_not(longer_ms: int, used: int) -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    books.take(DevicesCounted(name="n1", from_ms=0, busy=(("gpu-0", 1_000),), at_ms=HOUR + longer_ms))
    assert books.take(Cut(at_ms=2 * HOUR)).gpu_ms().get("use:lab:vision:used", 0) == used


def test_a_window_that_came_days_ago_still_says_what_a_late_stop_leaves_of_it() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    for hour in range(6):
        counted = DevicesCounted(name="n1", from_ms=hour * HOUR, busy=(("gpu-0", 1_000),), at_ms=(hour + 1) * HOUR)
        books.take(counted, Cut(at_ms=(hour + 1) * HOUR))
    books.take(Cut(at_ms=40 * HOUR), stop(41 * HOUR, by="g2", safe_ms=2 * HOUR), Cut(at_ms=42 * HOUR))
    found = books.gpu_ms()
    assert found["use:lab:vision:used"] == 2 * HOUR
    assert found["waste:preempted:lab:vision"] == 40 * HOUR


def test_a_hold_that_is_told_after_it_was_counted_was_busy_in_that_window_and_in_no_other_time() -> None:
    books = Books().take(*FLEET, DevicesCounted(name="n1", from_ms=3_000, busy=(("gpu-0", 500),), at_ms=5_000))
    found = books.take(Cut(at_ms=6_000), hold(1_000, ("n1", (0,))), Cut(at_ms=8_000)).gpu_ms()
    assert (found["use:lab:vision:used"], found["use:lab:vision:idle"]) == (1_000, 1_000)
    assert found["use:lab:vision:unmeasured"] == -2_000
