"""What is kept an eye on beside the loop: the published head of the chain, drift, and sums of usage."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from ledger_facts import NAMED, node, placement
from months import Months

from fairlead.errors import Unreachable
from fairlead.ledger.chain import Head
from fairlead.ledger.published import NAME, Published
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.reports.queue_usage import month_start_ms
from fairlead.reports.usage import By
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.drift import Differences, DriftWatch, differences
from fairlead.service.metrics import Metrics
from fairlead.store import engine as database
from fairlead.world.gangs import Hold
from fairlead.world.use import Use
from fairlead_operator import upkeep
from fairlead_operator.chain_head import ChainHead
from fairlead_operator.device_objects import Claim
from fairlead_operator.member_facts import allocated_members
from fairlead_operator.release import HOLDER, depose

from .fake_kube import FakeKube, api_error

NOW = 1_767_225_700_000
HOUR = 3_600_000
KEY = ("configmaps", "system", NAME)


# --- the head of the chain --------------------------------------------------------------------------------------------


@pytest.fixture
def api():
    return FakeKube()


def publish(api, metrics, *heads):
    chain = ChainHead(api, "system", metrics)

    async def go():
        for number, head in enumerate(heads):
            said = head if isinstance(head, Published) else Published(head)
            await chain.publish(said, NOW + number * 60_000)

    asyncio.run(go())


def replaced(metrics, kind="chain-head"):
    return metrics.registry.get_sample_value("fairlead_drift_total", {"kind": kind})


def both(entries, steps, period="2026-10 closed"):
    return Published(entries, steps, period)


def test_the_head_is_written_once_for_each_change(api):
    metrics = Metrics()
    publish(api, metrics, Head(1, "aa"), Head(1, "aa"), Head(3, "bb"))
    assert api.objects[KEY]["data"] == {"number": "3", "hash": "bb", "at": "2026-01-01T00:03:40Z"}
    assert len([method for method, _ in api.log if method in ("POST", "PATCH")]) == 2
    assert metrics.registry.get_sample_value("fairlead_ledger_head_number") == 3
    publish(api, metrics, Head(3, "bb"))
    assert "replaced" not in api.objects[KEY]["data"]
    assert replaced(metrics) is None


@pytest.mark.parametrize("head", [Head(2, "cc"), Head(3, "cc"), Head()])
def test_books_behind_their_published_head_are_told_and_the_old_head_is_kept(api, head, caplog):
    metrics = Metrics()
    publish(api, metrics, Head(3, "bb"))
    publish(api, metrics, head, Head(9, "dd"))
    assert api.objects[KEY]["data"]["replaced"] == "3 bb 2026-01-01T00:01:40Z"
    assert api.objects[KEY]["data"]["number"] == "9"
    assert replaced(metrics) == 1
    assert "event=books_are_behind published=3" in caplog.text


def test_a_head_that_could_not_be_written_is_written_the_next_time(api):
    metrics = Metrics()
    chain = ChainHead(api, "system", metrics)
    api.fault = lambda method, path, body: api_error(403, "Forbidden")
    with pytest.raises(Exception, match="Forbidden"):
        asyncio.run(chain.publish(Published(Head(1, "aa")), NOW))
    api.fault = lambda method, path, body: None
    asyncio.run(chain.publish(Published(Head(1, "aa")), NOW))
    assert api.objects[KEY]["data"]["number"] == "1"


def test_a_head_of_which_the_answer_was_lost_is_asked_for_again(api):
    """It was made all the same: to make it again would be refused for ever."""
    chain = ChainHead(api, "system", Metrics())

    async def go():
        assert await chain.published() is None
        api.fault = lambda method, path, body: "lost" if method == "POST" else None
        with pytest.raises(Unreachable):
            await chain.publish(Published(Head(1, "aa")), NOW)
        api.fault = lambda method, path, body: None
        await chain.publish(Published(Head(2, "bb")), NOW)

    asyncio.run(go())
    assert api.objects[KEY]["data"]["number"] == "2"


def test_the_last_step_of_periods_stands_beside_it(api):
    metrics = Metrics()
    publish(api, metrics, Head(1, "aa"))  # as a version without it has left it
    publish(api, metrics, both(Head(1, "aa"), Head(), ""), both(Head(1, "aa"), Head(2, "pp")))
    entries = {"number": "1", "hash": "aa", "at": "2026-01-01T00:02:40Z"}
    steps = {"periodNumber": "2", "periodHash": "pp", "period": "2026-10 closed"}
    assert api.objects[KEY]["data"] == entries | steps
    assert metrics.registry.get_sample_value("fairlead_ledger_period_number") == 2
    publish(api, metrics, Head(3, "bb"))  # by a process that cannot ask the database
    assert api.objects[KEY]["data"] == entries | steps | {"number": "3", "hash": "bb", "at": "2026-01-01T00:01:40Z"}
    assert (replaced(metrics), replaced(metrics, "period-head")) == (None, None)


@pytest.mark.parametrize("steps", [Head(1, "oo"), Head(2, "qq"), Head()])
@pytest.mark.parametrize("first", [(), (Head(5, "ee"),)], ids=["at once", "once the database answers"])
def test_periods_behind_their_published_step_are_told_and_the_old_one_is_kept(api, first, steps, caplog):
    metrics = Metrics()
    publish(api, metrics, both(Head(3, "bb"), Head(2, "pp")))
    publish(api, metrics, *first, both(Head(5, "ee"), steps, "2026-11 closing"), both(Head(6, "ff"), Head(9, "rr")))
    data = api.objects[KEY]["data"]
    assert data["periodReplaced"].startswith("2 pp 2026-01-01T00:01:40Z 2026-10 closed")
    assert (data["number"], data["periodNumber"], "replaced" in data) == ("6", "9", False)
    assert (replaced(metrics), replaced(metrics, "period-head")) == (None, 1)
    assert "event=periods_are_behind published=2" in caplog.text


def test_books_that_go_back_while_we_run_are_told_too(api):
    metrics = Metrics()
    publish(api, metrics, both(Head(3, "bb"), Head(2, "pp")), both(Head(3, "bb"), Head(1, "oo")))
    assert replaced(metrics, "period-head") == 1
    publish(api, metrics, both(Head(3, "bb"), Head(1, "oo")))
    assert replaced(metrics, "period-head") == 1


def test_a_head_that_somebody_took_away_comes_back_whole(api):
    chain = ChainHead(api, "system", Metrics())
    asyncio.run(chain.publish(both(Head(3, "bb"), Head(2, "pp")), NOW))
    del api.objects[KEY]
    asyncio.run(chain.publish(Published(Head(4, "cc")), NOW))
    data = api.objects[KEY]["data"]
    assert (data["number"], data["periodNumber"], data["period"]) == ("4", "2", "2026-10 closed")


def tending(api, books, metrics):
    """An upkeep of which only the heads are looked after."""
    none = object()
    return upkeep.Upkeep(
        api, none, none, books, none, none, {}, none,
        now_ms=lambda: NOW, namespace="system", metrics=metrics, writes_per_s=10,
    )  # fmt: skip


def test_steps_of_another_process_are_published_and_a_database_that_is_away_keeps_back_only_them(api, tmp_path):
    months, metrics = Months(tmp_path), Metrics()
    tended = tending(api, months.books, metrics)
    asyncio.run(tended._publish_head())
    assert api.objects[KEY]["data"]["periodNumber"] == "0"
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    asyncio.run(tended._publish_head())
    data, step, head = api.objects[KEY]["data"], months.steps()[-1], months.books.head
    assert (data["periodNumber"], data["periodHash"], data["period"]) == ("2", step.hash, "2026-09 closed")
    assert (data["number"], data["hash"]) == (str(head.number), head.hash)
    (tmp_path / "b.sqlite").rename(tmp_path / "away.sqlite")
    months.books._engine.dispose()
    months.books._ledger_head = Head(head.number + 1, "ab")  # committed just before it went
    (tmp_path / "b.sqlite").mkdir()
    with pytest.raises(Unreachable):
        asyncio.run(tended._publish_head())
    assert api.objects[KEY]["data"] == data | {"number": str(head.number + 1), "hash": "ab"}


REWRITTEN = {
    "entry": "UPDATE entry SET hash = '{}' WHERE number = (SELECT max(number) FROM entry)",
    "period": "UPDATE period SET hash = '{}' WHERE number = 2",
    "journal": "UPDATE journal SET hash = '{}' WHERE number = (SELECT max(number) FROM journal)",
}
TOLD_AS = {
    "entry": ("replaced", "hash", "chain-head"),
    "period": ("periodReplaced", "periodHash", "period-head"),
    "journal": ("journalReplaced", "journalHash", "journal-head"),
}


@pytest.mark.parametrize("table", REWRITTEN)
def test_books_that_were_written_anew_below_what_was_published_are_told_though_they_grew(api, tmp_path, table, caplog):
    """Who changes what was published and then lets the books grow past it is found at the next minute."""
    months, metrics = Months(tmp_path), Metrics()
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    tended = tending(api, months.books, metrics)
    asyncio.run(tended._publish_head())
    published = dict(api.objects[KEY]["data"])
    with database.writing(months.engine) as connection:
        connection.exec_driver_sql(f"DROP TRIGGER {table}_no_update")
        connection.exec_driver_sql(REWRITTEN[table].format("f" * 64))
    months.pass_to("2026-10-06T00:00Z")
    asyncio.run(tending(api, months.books, metrics)._publish_head())  # a process of its own, which knows nothing
    data = api.objects[KEY]["data"]
    kept, hash_, kind = TOLD_AS[table]
    assert data[kept].split()[1] == published[hash_]
    assert int(data["number"]) > int(published["number"])
    assert {one for _, _, one in TOLD_AS.values() if replaced(metrics, one)} == {kind}
    assert replaced(metrics, kind) == 1
    assert "was written anew" in caplog.text


def test_what_was_published_and_is_as_it_was_raises_no_alarm(api, tmp_path):
    months, metrics = Months(tmp_path), Metrics()
    months.pass_to("2026-10-05T00:00Z").close("2026-09")
    for day in (6, 7, 8):
        asyncio.run(tending(api, months.books, metrics)._publish_head())
        months.pass_to(f"2026-10-0{day}T00:00Z")
    assert {replaced(metrics, kind) for _, _, kind in TOLD_AS.values()} == {None}
    assert not {kept for kept, _, _ in TOLD_AS.values()} & api.objects[KEY]["data"].keys()


def test_a_published_head_that_nobody_can_read_is_said_and_replaced(api, caplog):
    publish(api, Metrics(), Head(3, "b" * 64))
    api.objects[KEY]["data"]["number"] = "three"
    chain = ChainHead(api, "system", Metrics())
    assert asyncio.run(chain.published()) is None
    assert "event=published_head_unreadable" in caplog.text
    asyncio.run(chain.publish(Published(Head(4, "c" * 64)), NOW))
    assert api.objects[KEY]["data"]["number"] == "4"


# --- drift ------------------------------------------------------------------------------------------------------------


def hold(node="n1", devices=("gpu-0",)):
    return Hold(node=node, use=Use(devices=devices), queue="research", since_ms=0)


def claim(gang="g", attempt=1, rank=0, allocated=True, owner=None):
    labels = {"fairlead.dev/gang-uid": gang, "fairlead.dev/attempt": str(attempt), "fairlead.dev/rank": str(rank)}
    owners = [{"kind": "GangJob", "uid": owner or gang, "name": "x"}]
    status = {"allocation": {"devices": {"results": []}}} if allocated else {}
    return msgspec.convert({"metadata": {"labels": labels, "ownerReferences": owners}, "status": status}, Claim)


def test_claims_count_that_are_ours_and_hold_something():
    found = allocated_members([claim(), claim(rank=1, allocated=False), claim(rank=2, owner="somebody")])
    assert found == {("g", 1, 0)}


def test_each_kind_of_difference_is_found():
    a, b, c, d = (("g", 1, rank) for rank in range(4))
    held = {a: hold(), b: hold(devices=()), c: hold("gone")}
    assert len(differences(held, ["n1"], [a, b], frozenset({a}))) == 0
    found = differences(held, ["n1"], [a, d], frozenset({d}))
    assert found.only_books == {d}
    assert found.only_scheduler == {b}  # not c: its node is gone, and with it what the books knew of it
    assert found.claims_of_nobody == {d}
    assert found.holds_without_claim == {a}
    assert len(found) == 3
    behind = differences(held, ["n1"], None, frozenset({a}))
    assert len(behind) == 0


def test_a_difference_counts_when_it_stays(caplog):
    watch = DriftWatch()
    one, two = ("g", 1, 0), ("g", 1, 1)
    assert len(watch.look(Differences(only_books=frozenset({one})))) == 0
    assert len(watch.look(Differences(only_books=frozenset({two}), only_scheduler=frozenset({one})))) == 0
    assert not caplog.records
    stayed = watch.look(Differences(only_books=frozenset({one, two})))
    assert stayed.only_books == {two}
    assert "event=drift kind=only_books holds=1 such_as=g/1/1" in caplog.text
    assert len(watch.look(Differences())) == 0


def test_what_only_the_books_hold_open_is_ended_there_with_evidence_and_how_wide_it_is():
    watch, one, two = DriftWatch(), ("g", 1, 0), ("g", 1, 1)
    looks = ((60_000, ()), (120_000, (one, two)), (180_000, (one, two)))
    for now_ms, only in looks[:2]:
        assert watch.mend(watch.look(Differences(only_books=frozenset(only))), frozenset(), now_ms) == []
    now_ms, only = looks[2]
    said, ended = watch.mend(watch.look(Differences(only_books=frozenset(only))), frozenset({two}), now_ms)
    assert ((ended.gang, ended.attempt, ended.rank), ended.at_ms, ended.estimated_ms) == (one, 180_000, 120_000)
    assert (said.holds, said.at_ms) == ((one,), 180_000), "whose claim has devices still is left alone"
    assert "no claim" in said.evidence
    assert watch.mend(watch.look(Differences(only_scheduler=frozenset({one}))), frozenset(), 240_000) == []


# --- usage by queue ---------------------------------------------------------------------------------------------------


def held(uid, attempt, at_ms, devices=(0, 1)):
    on = placement(("n1", devices))
    return Intended(gang=uid, attempt=attempt, placement=on, tier=Tier.BORROWED, at_ms=at_ms, deadline_ms=at_ms + 9)


def freed(uid, attempt, at_ms):
    return MemberReleased(gang=uid, attempt=attempt, rank=0, at_ms=at_ms)


@pytest.mark.parametrize("url", ["sqlite:///{}/books.sqlite", "sqlite://"])
def test_sums_that_are_carried_on_are_those_of_the_whole_report(tmp_path, url):
    books = Bookkeeper(url.format(tmp_path))
    month = month_start_ms(NOW + 40 * 24 * HOUR)
    assert month % HOUR == 0
    start = month - 3 * HOUR
    books.record([*NAMED, NodeSeen(node=node("n1"), at_ms=start)], start)
    steps = [
        [held("g1", 1, start + 1_000), held("g2", 1, start + 2_000, (2,))],
        [freed("g2", 1, month - HOUR)],
        [],
        [freed("g1", 1, month + 90_000), held("g2", 2, month + 95_000, (2, 3))],
        [],
        [freed("g2", 2, month + 2 * HOUR)],
    ]
    times = [start + HOUR, month - 1, month + 1, month + 100_000, month + HOUR + 1, month + 2 * HOUR + 5]
    for facts, now in zip(steps, times, strict=True):
        books.record(facts, now)
        found = books.queue_usage(now)
        assert not books.trouble
        assert found.period_start_ms == month_start_ms(now)
        for sums, since in ((found.total, None), (found.period, found.period_start_ms)):
            report = books.usage(now, since_ms=since, by=By.QUEUE)
            assert {q: ms for q, ms in sums.items() if ms} == {row.queue: row.gpu_ms for row in report.rows}
    assert found.total != found.period
    assert sum(found.total.values()) > sum(found.period.values()) > 0
    books.close()


def test_usage_is_not_told_while_the_books_are_behind(tmp_path):
    books = Bookkeeper(f"sqlite:///{tmp_path}/no/such/folder/books.sqlite")
    books.record([held("g1", 1, 0)], 0)
    with pytest.raises(Unreachable):
        books.queue_usage(1)


# --- rhythm -----------------------------------------------------------------------------------------------------------


def test_work_that_fails_outside_is_done_again_and_a_bug_is_not_hidden():
    calls = []

    async def work():
        calls.append(1)
        if len(calls) < 3:
            raise Unreachable("away")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(upkeep._every("work", 0.001, work))
    assert len(calls) == 3


# --- the lease before an uninstall ------------------------------------------------------------------------------------

LEASE = ("leases", "system", "fairlead-operator")


def leased(api, holder):
    api._store(
        LEASE, {"metadata": {"name": "fairlead-operator", "namespace": "system"}, "spec": {"holderIdentity": holder}}
    )
    return asyncio.run(depose(api, "system", "fairlead-operator"))


def test_the_lease_is_taken_from_whoever_has_it(api):
    assert leased(api, "operator-0")
    assert api.objects[LEASE]["spec"]["holderIdentity"] == HOLDER
    assert api.objects[LEASE]["spec"]["leaseDurationSeconds"] == 600
    assert not leased(api, "")
    assert api.objects[LEASE]["spec"]["holderIdentity"] == HOLDER


def test_a_renewal_in_between_and_a_missing_right_stop_no_release(api):
    conflicts = [api_error(409, "Conflict"), api_error(409, "Conflict")]
    api.fault = lambda method, path, body: conflicts.pop() if method == "PUT" and conflicts else None
    assert leased(api, "operator-0")
    api.fault = lambda method, path, body: api_error(403, "Forbidden") if method == "PUT" else None
    assert not leased(api, "operator-0")
    assert not asyncio.run(depose(api, "system", "none"))
