"""What became of held time: waste by its cause and whose it is, used and idle as counted, and what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from ledger_books import Books, hold, release
from ledger_facts import NAMED, node, placement, streams

from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.entry import OUTCOMES
from fairlead.model.codec import Cut
from fairlead.model.events import (
    DevicesCounted,
    Intended,
    MemberRunning,
    NodeSeen,
    PlaceFailed,
    Recovered,
    Started,
    StopIntended,
    StopRefused,
)
from fairlead.model.gang import Tier
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules

FLEET = (*NAMED, NodeSeen(node=node(), at_ms=0))
HOUR = 3_600_000


def stop(at_ms: int, cause: Refusal, by: str = "", safe_ms: int | None = None, attempt: int = 1) -> StopIntended:
    return StopIntended(
        gang="g1", attempt=attempt, cause=cause, requeue=True, at_ms=at_ms, by=by, safe_ms=safe_ms
    )  # fmt: skip


def became(books: Books) -> dict[str, int]:
    """GPU-ms by account, of what became of held time; the rest is unmeasured."""
    found = {name: ms for name, ms in books.gpu_ms().items() if name.startswith(("use", "waste")) and ms}
    return {name: ms for name, ms in found.items() if not name.endswith("unmeasured")}


def said(books: Books) -> set[tuple[str, str]]:
    return {(sealed.entry.actor, sealed.entry.reason) for sealed in books.sealed if sealed.entry.kind in OUTCOMES}


def test_what_is_lost_is_what_is_in_no_checkpoint_and_whose_who_gained() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0, 1)), ("n1", (2,))))
    books.take(Cut(at_ms=5_000), stop(8_000, refuse(Reason.RECLAIMED), by="g2", safe_ms=4_000))
    books.take(release(9_000), release(10_000, rank=1), Cut(at_ms=20_000))
    assert books.gpu_ms()["held:lab:vision:in-quota"] == 2 * 8_000 + 9_000
    assert became(books) == {"waste:reclaimed:lab:vision": 2 * 5_000 + 6_000}
    assert said(books) == {("speech", "Reclaimed")}
    assert books.gpu_ms()["use:lab:vision:unmeasured"] == -16_000, "the rest is held less this"


@pytest.mark.parametrize(
    ("cause", "account", "actor"),
    [
        (refuse(Reason.PREEMPTED), "waste:preempted:lab:vision", "platform"),
        (refuse(Reason.NODE_LOST, node="n1"), "waste:node-lost:lab:vision", "platform"),
        (refuse(Reason.MEMBER_FAILED, member="a", detail="exit 1"), "waste:failed:lab:vision", "vision"),
        (refuse(Reason.HUNG, limit="5m"), "waste:hung:lab:vision", "vision"),
        (refuse(Reason.OVERRUN), "waste:overrun:lab:vision", "vision"),
        (refuse(Reason.IDLE, queue="vision", idle="2h"), "waste:idle-stopped:lab:vision", "vision"),
    ],
)
def test_each_cause_has_its_account_and_whose_it_is(cause: Refusal, account: str, actor: str) -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(3_000, cause), release(4_000), Cut(at_ms=5_000))
    assert became(books) == {account: 4_000}
    assert said(books) == {(actor, cause.reason.token)}


@pytest.mark.parametrize(
    ("cause", "account", "actor"),
    [
        (refuse(Reason.BUDGET_NOT_RENEWED, queue="lab", budget="9"), "waste:budget:lab:vision", "vision"),
        (refuse(Reason.HOLE_ENDED), "waste:hole-ended:lab:vision", "platform"),
        (refuse(Reason.RESOLVED_DOUBLE), "waste:double-allocation:lab:vision", "platform"),
    ],
)
def test_what_older_books_did_not_call_waste_is_none_in_them_and_is_since_an_engine_says_so(
    cause: Refusal, account: str, actor: str
) -> None:
    facts = hold(0, ("n1", (0,))), stop(3_000, cause), release(4_000)
    for meters, wasted in (((), {}), ((1,), {}), ((2,), {account: 4_000}), ((2, 1), {account: 4_000})):
        books = Books().take(*FLEET, *(Started(rules=Rules(), at_ms=0, meter=meter) for meter in meters), *facts)
        assert became(books.take(Cut(at_ms=5_000))) == wasted, meters
    assert said(books) == {(actor, cause.reason.token)}
    late = Books().take(*FLEET, *facts, Started(rules=Rules(), at_ms=0, meter=2), Cut(at_ms=5_000))
    assert became(late) == {}, "what was told before stays as it was"


@pytest.mark.parametrize("reason", [Reason.FINISHED, Reason.DELETED])
def test_who_finishes_or_is_deleted_wastes_nothing(reason: Reason) -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(3_000, refuse(reason)), release(4_000), Cut(at_ms=5_000))
    assert became(books) == {}


def test_a_stop_that_was_refused_takes_the_waste_back() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(3_000, refuse(Reason.PREEMPTED), by="g2"))
    books.take(Cut(at_ms=4_000))
    assert became(books) == {"waste:preempted:lab:vision": 4_000}
    refused = refuse(Reason.PLACE_CONFLICT, detail="a disruption budget")
    books.take(StopRefused(gang="g1", attempt=1, cause=refused, at_ms=4_500), release(6_000), Cut(at_ms=7_000))
    assert became(books) == {}


def test_beginning_again_is_waste_of_whoever_ended_the_attempt_before_until_all_run() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, refuse(Reason.PREEMPTED), by="g2"), release(2_000))
    again = hold(5_000, ("n1", (0,)), ("n1", (1,)))
    books.take(Intended(**{f: getattr(again, f) for f in again.__slots__} | {"attempt": 2}))
    for rank, at_ms in ((1, 7_000), (0, 9_000)):
        books.take(MemberRunning(gang="g1", attempt=2, rank=rank, at_ms=at_ms))
    books.take(Cut(at_ms=20_000))
    assert became(books) == {"waste:preempted:lab:vision": 2_000, "waste:restart:lab:vision": 2 * 4_000}
    assert said(books) == {("speech", "Preempted")}


@pytest.mark.parametrize(("runs_ms", "lost"), [(7_000, 2_000), (9_500, 3_000), (None, 5_000)])
def test_one_that_is_found_running_has_begun_when_it_says_and_at_the_latest_when_it_is_found(runs_ms, lost) -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, refuse(Reason.PREEMPTED), by="g2"), release(1_000))
    found = Recovered(
        gang="g1", attempt=2, placement=placement(("n1", (0,))), tier=Tier.IN_QUOTA, since_ms=5_000, bound=True,
        holding=(0,), running=(0,), at_ms=8_000, all_running_ms=runs_ms,
    )  # fmt: skip
    wasted = {"waste:preempted:lab:vision": 1_000, "waste:restart:lab:vision": lost}
    assert became(books.take(found, Cut(at_ms=10_000))) == wasted


def test_an_attempt_that_could_not_be_bound_is_waste_of_the_platform() -> None:
    cause = refuse(Reason.PLACE_CONFLICT, detail="409")
    failed = PlaceFailed(gang="g1", attempt=1, cause=cause, released=(0,), at_ms=700)
    assert became(Books().take(*FLEET, hold(0, ("n1", (0,))), failed)) == {"waste:placement-failed:lab:vision": 700}


def test_used_and_idle_are_as_counted_exact_inside_a_hold_and_estimated_where_it_ends_within() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0, 1))))
    books.take(
        DevicesCounted(name="n1", from_ms=0, busy=(("gpu-0", 250), ("gpu-1", 1_000), ("gpu-3", 900)), at_ms=HOUR)
    )
    assert became(books) == {
        "use:lab:vision:used": HOUR // 4 + HOUR,
        "use:lab:vision:idle": 3 * HOUR // 4,
    }, "nobody holds gpu-3"
    assert said(books) == {("", "exact")}
    books.take(DevicesCounted(name="n1", from_ms=HOUR, busy=(("gpu-0", 500),), at_ms=2 * HOUR), release(HOUR + 1_000))
    assert became(books)["use:lab:vision:used"] == HOUR // 4 + HOUR + 500
    last = [s.entry for s in books.sealed if s.entry.kind in OUTCOMES][-2:]
    assert [entry.reason for entry in last] == ["estimated", "estimated"]


def test_a_share_cannot_be_told_from_its_neighbours_and_a_window_of_more_than_an_hour_says_nothing() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,), 500)))
    books.take(DevicesCounted(name="n1", from_ms=0, busy=(("gpu-0", 250),), at_ms=1_000))
    assert became(books) == {"use:lab:vision:unattributable": 500}
    books.take(
        DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 250),), at_ms=1_001 + HOUR), Cut(at_ms=2 * HOUR)
    )
    assert became(books) == {"use:lab:vision:unattributable": 500}


def test_waste_takes_back_what_was_counted_as_used() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    books.take(DevicesCounted(name="n1", from_ms=0, busy=(("gpu-0", 1_000),), at_ms=2_000), Cut(at_ms=3_000))
    books.take(stop(4_000, refuse(Reason.PREEMPTED), by="g2", safe_ms=1_000), release(5_000))
    assert became(books) == {"use:lab:vision:used": 1_000, "waste:preempted:lab:vision": 4_000}


@settings(max_examples=80, deadline=None)
@given(streams)
def test_measured_and_unmeasured_are_what_was_held(stream: list[Any]) -> None:
    found = Books().take(*NAMED, *stream, Cut(at_ms=500)).audit()
    assert found.verified, [f.sentence for f in found.findings]
    held: dict[tuple[str, str], int] = {}
    split: dict[tuple[str, str], int] = {}
    for name, ticks in found.balances.items():
        account = accounts.parse(name)
        if account.kind is Kind.HELD:
            held[account.tenant, account.queue] = held.get((account.tenant, account.queue), 0) + ticks
        elif account.kind in (Kind.USE, Kind.WASTE):
            key = (account.tenant, account.queue)
            part = -ticks if account.use == "unmeasured" else 0
            split[key] = split.get(key, 0) + part
            assert part >= 0
    assert all(0 <= measured <= held.get(key, 0) for key, measured in split.items())


def test_tiers_do_not_cut_what_became_of_it() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,)), tier=Tier.BORROWED))
    books.take(stop(3_000, refuse(Reason.PREEMPTED), by="g2", safe_ms=1_000), release(4_000))
    assert became(books) == {"waste:preempted:lab:vision": 3_000}
