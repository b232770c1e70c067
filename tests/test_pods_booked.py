"""What pods have beside devices: cores, memory and NICs, in units of their own, held and taken back like devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from ledger_books import Books, hold, release
from ledger_facts import NAMED, gang, node, streams
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import UnreadableInput
from fairlead.ledger.accounts import BESIDE, CORES, MEMORY, NICS
from fairlead.ledger.audit_pods import beside_in
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import PODS, Entry, EntryKind, Posting, id_of
from fairlead.ledger.pods import beside_of
from fairlead.model.codec import Cut, decode, encode
from fairlead.model.events import GangSeen, Intended, NodeGone, NodeSeen, Recovered, Started, TierChanged
from fairlead.model.gang import PodShape, Tier
from fairlead.model.hardware import Resources
from fairlead.model.rules import Rules
from fairlead.reports import charges
from fairlead.reports.beside import from_database
from fairlead.reports.booked import By, booked
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database

ON = Started(rules=Rules(), at_ms=0, meter=1)
FLEET = (ON, *NAMED, NodeSeen(node=node(), at_ms=0))
HOUR = 3_600_000
HELD = "held:lab:vision:in-quota"
MIB = 1_024  # a pod of g1 asks for one core and 1 GiB


def beside(books: Books) -> dict[str, dict[str, int]]:
    found = books.audit()
    assert found.verified, [finding.sentence for finding in found.findings]
    return {unit: {name: n for name, n in sums.items() if n} for unit, sums in found.beside.items()}


def with_nics(fact: Intended, *nics: str) -> Intended:
    members = tuple(dataclasses.replace(member, nics=nics) for member in fact.placement.members)
    return dataclasses.replace(fact, placement=dataclasses.replace(fact.placement, members=members))


def test_a_pod_has_its_cores_memory_and_nics_for_as_long_as_its_devices() -> None:
    books = Books().take(*FLEET, with_nics(hold(1_000, ("n1", (0, 1)), ("n1", (2,))), "NIC0", "NIC1"))
    books.take(release(3_000), release(6_000, rank=1))
    time = 2_000 + 5_000
    assert beside(books) == {
        CORES: {HELD: 1_000 * time, "capacity:main": -1_000 * time},
        MEMORY: {HELD: MIB * time, "capacity:main": -MIB * time},
        NICS: {HELD: 2 * time, "capacity:main": -2 * time},
    }
    assert books.gpu_ms()[HELD] == 2 * 2_000 + 5_000, "devices are as they were"


def test_it_is_cut_with_the_books_and_only_where_something_of_its_own_changes() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,)), ("n1", (1,))), release(2_000, rank=1), Cut(at_ms=5_000))
    books.take(TierChanged(gang="g1", attempt=1, tier=Tier.BORROWED, at_ms=6_000), release(8_000))
    found = [s.entry for s in books.sealed if s.entry.kind in PODS]
    assert [(e.rank, e.from_ms, e.to_ms) for e in found] == [
        (1, 1_000, 2_000), (0, 1_000, 5_000), (0, 5_000, 6_000), (0, 6_000, 8_000),
    ]  # fmt: skip
    assert beside(books)[CORES]["held:lab:vision:borrowed"] == 1_000 * 2_000


def test_a_lost_node_and_a_node_that_is_away_give_nothing() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), Cut(at_ms=9_000))
    books.take(NodeSeen(node=node(not_ready_since_ms=5_000), at_ms=10_000), Cut(at_ms=12_000))
    assert beside(books)[CORES][HELD] == 1_000 * 4_000
    back = [s.entry for s in books.sealed if s.entry.kind is EntryKind.UNPOD]
    assert [(e.from_ms, e.to_ms, e.postings[1].amount) for e in back] == [(5_000, 9_000, -1_000 * 4_000)]
    books.take(NodeSeen(node=node(), at_ms=13_000), NodeGone(name="n1", at_ms=14_000), Cut(at_ms=20_000))
    assert beside(books)[CORES][HELD] == 1_000 * (4_000 + 1_000)


def test_a_hold_that_turns_out_to_be_older_is_booked_from_then() -> None:
    books = Books().take(*FLEET, hold(3_000, ("n1", (0,))), Cut(at_ms=4_000))
    again = Recovered(
        gang="g1", attempt=1, placement=hold(0, ("n1", (0,))).placement, tier=Tier.IN_QUOTA, since_ms=1_000, bound=True,
        holding=(0,), running=(), at_ms=5_000,
    )  # fmt: skip
    books.take(again, Cut(at_ms=6_000))
    assert beside(books)[CORES][HELD] == 1_000 * 5_000


def test_journals_from_before_make_the_entries_that_they_made() -> None:
    old = encode(dataclasses.replace(ON, meter=0)).replace(b'"meter":0,', b"")
    assert b"meter" not in old
    assert decode(old).meter == 0
    books = Books().take(decode(old), *FLEET[1:], hold(1_000, ("n1", (0,))), Cut(at_ms=2_000))
    assert beside(books) == {}
    books.take(Started(rules=Rules(), at_ms=3_000, meter=1), release(5_000))
    assert beside(books)[CORES][HELD] == 1_000 * 2_000, "from when an engine says so"


def forged(books: Books, at: int, **changes: Any) -> str:
    """Rewrite one entry and the chain after it; return what the auditor says first."""
    entries = [sealed.entry for sealed in books.sealed]
    changed = dataclasses.replace(entries[at], **changes)
    books.sealed = list(seal(Head(), [*entries[:at], changed, *entries[at + 1 :]])[0])
    found = books.audit()
    assert not found.verified
    return found.findings[0].sentence


def test_what_is_no_entry_about_a_pod_is_found_by_itself() -> None:
    def pods() -> tuple[Books, int, Any]:
        books = Books().take(*FLEET, with_nics(hold(0, ("n1", (0,))), "NIC0"), Cut(at_ms=1_000))
        at = next(at for at, sealed in enumerate(books.sealed) if sealed.entry.kind in PODS)
        return books, at, books.sealed[at].entry

    books, at, entry = pods()
    one, two = entry.postings[2:4]
    other = dataclasses.replace(two, account="held:lab:speech:in-quota")
    lines = (*entry.postings[:3], other, *entry.postings[4:])
    assert "postings[3].account" in forged(books, at, postings=lines)
    books, at, entry = pods()
    less = (dataclasses.replace(one, amount=one.amount + 1), dataclasses.replace(two, amount=two.amount - 1))
    assert "amount" in forged(books, at, postings=(*entry.postings[:2], *less, *entry.postings[4:]))
    books, at, entry = pods()
    assert "id: is not made" in forged(books, at, postings=(*entry.postings[:2], *entry.postings[4:]))
    books, at, entry = pods()
    assert "postings" in forged(books, at, postings=(*entry.postings[2:4], *entry.postings[:2], *entry.postings[4:]))
    books, at, entry = pods()
    assert "device" in forged(books, at, device="gpu-0")
    books, at, entry = pods()
    device = books.sealed[0].entry
    assert device.kind is EntryKind.SEGMENT
    assert "unit" in forged(books, 0, postings=(*device.postings, *entry.postings[:2]))


ACCOUNTS = ("capacity:main", HELD)


def paired(*amounts: tuple[str, int], accounts: tuple[str, str] = ACCOUNTS) -> tuple[Posting, ...]:
    """Two postings of each (unit, amount), from the first account to the second."""
    return tuple(
        Posting(account=account, amount=sign * amount, unit=unit)
        for unit, amount in amounts
        for account, sign in zip(accounts, (-1, 1), strict=True)
    )


GOOD = ((CORES, 1_000_000), (MEMORY, MIB * 1_000), (NICS, 1_000))
NO_POD: dict[str, tuple[dict[str, Any], str]] = {
    "of no time": ({"to_ms": 0}, "to_ms: is 0, not after from_ms 0"),
    "of less than no time": ({"to_ms": -5}, "to_ms: is -5, not after from_ms 0"),
    "of a device": (
        {"device": "gpu-0"},
        "device: is 'gpu-0' of gang 'g1'; an entry about a pod is of a gang and no de",
    ),
    "of no gang": ({"gang": ""}, "device: is '' of gang ''; an entry about a pod is of a gang and no device"),
    "without lines": ({"postings": ()}, "postings[1].account:  does not belong on this line"),
    "with one line": ({"postings": paired(GOOD[0])[:1]}, "postings: are in core-us; they come in pairs of one unit"),
    "with a line left over": ({"postings": paired(*GOOD)[:5]}, "postings: are in core-us, core-us, mib-ms, mib-ms, ni"),
    "in pairs of two units": (
        {"postings": (paired(GOOD[0])[0], paired(GOOD[1])[1], paired(GOOD[0])[1], paired(GOOD[1])[0])},
        "postings: are in core-us, mib-ms, core-us, mib-ms; they come in pairs of one unit, each unit once and in its",
    ),
    "out of order": ({"postings": paired(GOOD[1], GOOD[0])}, "postings: are in mib-ms, mib-ms, core-us, core-us; they"),
    "of one unit twice": (
        {"postings": paired(GOOD[0], GOOD[0])},
        "postings: are in core-us, core-us, core-us, core-us",
    ),
    "in ticks": ({"postings": paired(("ticks", 840_000))}, "postings: are in ticks, ticks; they come in pairs of one"),
    "of nothing": ({"postings": paired((CORES, 0))}, "postings[0].amount: is 0 core-us, must be more than nothing"),
    "of no whole amount a ms": (
        {"postings": paired(GOOD[0], (MEMORY, 1_001))},
        "postings[2].amount: is -1001 mib-ms, must be more than nothing",
    ),
    "of what nobody holds": (
        {"postings": paired(*GOOD, accounts=("capacity:main", "free:main"))},
        "postings[1].account: free:main does not belong on this line",
    ),
    "from another pool": (
        {"postings": (*paired(GOOD[0]), *paired(GOOD[1], accounts=("capacity:side", HELD)))},
        "postings[2].account: is capacity:side, must be capacity:main",
    ),
    "to two queues": (
        {"postings": (*paired(*GOOD[:2]), *paired(GOOD[2], accounts=("capacity:main", "held:a:b:in-quota")))},
        "postings[5].account: is held:a:b:in-quota, must be held:lab:vision:in-quota",
    ),
    "the wrong way round": (
        {"postings": paired(*((unit, -amount) for unit, amount in GOOD))},
        "postings[0].amount: is 1000000 core-us, must be -1000000",
    ),
    "that takes back what it books": (
        {"kind": EntryKind.UNPOD},
        "postings[0].amount: is -1000000 core-us, must be 1000000",
    ),
    "with more on one side": (
        {"postings": (*paired(*GOOD)[:5], dataclasses.replace(paired(*GOOD)[5], amount=2_000))},
        "postings[4].amount: is -1000 nic-ms, must be -2000",
    ),
    "of text": (
        {"postings": (*paired(GOOD[0])[:1], dataclasses.replace(paired(GOOD[0])[1], amount="7"))},
        "postings[1]: is 'held:lab:vision:in-quota', '7', 'core-us'",
    ),
}


@pytest.mark.parametrize("name", NO_POD)
def test_an_entry_is_none_about_a_pod(name: str) -> None:
    changes, said = NO_POD[name]
    books = Books().take(*FLEET, with_nics(hold(0, ("n1", (0,))), "NIC0"), Cut(at_ms=1_000))
    at = next(at for at, sealed in enumerate(books.sealed) if sealed.entry.kind in PODS)
    assert books.sealed[at].entry.postings == paired(*GOOD)
    assert forged(books, at, **changes).startswith(f"entry {at + 1}: {said}")


def resealed(books: Books, change: Callable[[Entry], Entry]) -> list[str]:
    """Change entries about pods, each with an id made anew, and the chain; return all that the auditor says."""
    made = []
    for entry in (sealed.entry for sealed in books.sealed):
        new = change(entry) if entry.kind in PODS else entry
        made.append(new if new == entry else dataclasses.replace(new, id=id_of("c", new, 0, beside_in(new))))
    books.sealed = list(seal(Head(), made)[0])
    return [finding.sentence for finding in books.audit().findings]


def pod_books() -> Books:
    return Books().take(*FLEET, hold(1_000, ("n1", (0,))), release(3_000), Cut(at_ms=5_000))


def test_a_pod_that_is_booked_longer_or_shorter_or_to_another_than_the_journal_says_is_found() -> None:
    def lasting(from_ms: int, to_ms: int) -> Callable[[Entry], Entry]:
        amounts = ((CORES, 1_000 * (to_ms - from_ms)), (MEMORY, MIB * (to_ms - from_ms)))
        return lambda entry: dataclasses.replace(entry, from_ms=from_ms, to_ms=to_ms, postings=paired(*amounts))

    entry = next(number for number, s in enumerate(pod_books().sealed, 1) if s.entry.kind in PODS)
    of_pod = "account: pod 0 of g1 on n1 from"
    said = f"{HELD} by ns/job-g1 attempt 1 rank 0 for 0 of 840 ticks for nobody by 1000 core-us 1024 mib-ms"
    assert resealed(pod_books(), lambda entry: entry) == []
    for span, wrong in (
        ((1_000, 2_000), f"the ledger: {of_pod} 2000 to 3000: booked nothing; the journal says {said}"),
        ((2_000, 3_000), f"the ledger: {of_pod} 1000 to 2000: booked nothing; the journal says {said}"),
        ((1_000, 4_000), f"entry {entry}: {of_pod} 3000 to 4000: booked 1 × {said}; the journal says that it was not"),
        ((1_000, 5_001), f"entry {entry}: to_ms: is 5001, after the newest record"),
    ):
        found = resealed(pod_books(), lasting(*span))
        assert found[0].startswith(wrong), found
    (other,) = resealed(pod_books(), lambda entry: dataclasses.replace(entry, name="x"))
    assert other.startswith(f"entry {entry}: {of_pod} 1000 to 3000: booked 1 × {HELD} by ns/x attempt 1 rank 0")
    stray = resealed(pod_books(), lambda entry: dataclasses.replace(entry, rank=3))
    assert [sentence.partition(": booked")[0] for sentence in stray] == [
        f"entry {entry}: account: pod 3 of g1 on n1 from 1000 to 3000",
        f"the ledger: {of_pod} 1000 to 3000",
    ]


def test_an_open_pod_must_be_booked_up_to_the_last_cut() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), Cut(at_ms=2_000), Cut(at_ms=5_000))
    books.sealed = list(seal(Head(), [s.entry for s in books.sealed if s.entry.to_ms < 5_000 or not s.entry.gang])[0])
    found = [finding.sentence for finding in books.audit().findings]
    assert any("pod 0 of g1 on n1 from 2000 to 5000: booked nothing" in sentence for sentence in found), found


def test_memory_is_booked_in_mebibytes_rounded_up_and_what_a_pod_does_not_ask_for_not_at_all() -> None:
    assert beside_of(Resources(cpu_milli=0, memory_bytes=2**20 + 1, pods=1), 0) == ((MEMORY, 2),)
    assert beside_of(Resources(cpu_milli=1, memory_bytes=2**20, pods=1), 0) == ((CORES, 1), (MEMORY, 1))
    assert beside_of(Resources(pods=1), 2) == ((NICS, 2),)
    assert beside_of(Resources(pods=1), 0) == ()
    odd = gang("g1")
    role = dataclasses.replace(odd.roles[0], pod=PodShape(requests=Resources(memory_bytes=2**20 + 1, pods=1)))
    named = GangSeen(gang=dataclasses.replace(odd, roles=(role,)), at_ms=0)
    books = Books().take(*FLEET, named, hold(0, ("n1", (0,))), Cut(at_ms=1_000))
    assert beside(books) == {MEMORY: {HELD: 2_000, "capacity:main": -2_000}}


def test_what_pods_have_now_is_shown_since_it_was_posted() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,)), ("n1", (1,))), release(2_000, rank=1), Cut(at_ms=4_000))
    (open_now,) = books.meter.open_pods()
    assert (open_now.node, open_now.device, open_now.from_ms) == ("n1", "", 4_000)
    assert (open_now.state.rank, open_now.state.beside) == (0, ((CORES, 1_000), (MEMORY, MIB)))
    books.take(hold(5_000, ("n1", (2,)), uid="g2"))
    assert sorted((o.state.gang, o.from_ms) for o in books.meter.open_pods()) == [("g1", 4_000), ("g2", 5_000)]


def test_an_engine_of_before_that_begins_again_ends_nothing_and_the_first_that_books_pods_counts() -> None:
    books = Books().take(*FLEET[1:], hold(1_000, ("n1", (0,))), Started(rules=Rules(), at_ms=2_000, meter=1))
    books.take(Started(rules=Rules(), at_ms=4_000, meter=1), Started(rules=Rules(), at_ms=5_000, meter=0))
    books.take(Cut(at_ms=6_000))
    assert beside(books)[CORES][HELD] == 1_000 * 4_000
    books.take(Started(rules=Rules(), at_ms=500, meter=1), Cut(at_ms=7_000))
    assert beside(books)[CORES][HELD] == 1_000 * 6_000, "one that was told late began even before"


def test_an_entry_too_few_is_found_against_the_journal() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), Cut(at_ms=1_000))
    books.sealed = list(seal(Head(), [s.entry for s in books.sealed if s.entry.kind not in PODS])[0])
    (finding,) = books.audit().findings
    assert "pod 0 of g1 on n1 from 0 to 1000: booked nothing" in finding.sentence


@pytest.fixture
def engine(tmp_path: Path) -> database.Engine:
    """An hour of two pods, of which one goes on; a line is drawn at half an hour."""
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([*FLEET, with_nics(hold(0, ("n1", (0,)), ("n1", (1,))), "NIC0")], 0)
    books.cut(HOUR // 2)
    books.record([release(HOUR, rank=1)], HOUR // 2)
    books.close()
    return database.connect(f"sqlite:///{tmp_path}/b.sqlite")


def test_usage_by_queue_in_other_units(engine: database.Engine) -> None:
    found = from_database(engine, "cpu", by=By.QUEUE)
    assert dict(zip(found.columns, found.rows[0], strict=True)) == {
        "tenant": "lab", "queue": "vision", "in_quota_core_us": 2 * HOUR * 1_000, "borrowed_core_us": 0,
        "reserved_core_us": 0, "opportunistic_core_us": 0, "held_core_us": 2 * HOUR * 1_000,
    }  # fmt: skip
    part = from_database(engine, "memory", since_ms=HOUR // 4, until_ms=HOUR // 2, by=By.JOB)
    assert part.rows[0][-1] == 2 * HOUR // 4 * MIB
    assert from_database(engine, "nic", by=By.TENANT).rows == (("lab", 2 * HOUR, 0, 0, 0, 2 * HOUR),)
    with pytest.raises(UnreadableInput, match="--unit: 'gold' is none of gpu, cpu, memory, nic"):
        from_database(engine, "gold")
    words = ["usage", "--database", str(engine.url), "--by", "queue", "--unit"]
    assert "2.000" in CliRunner().invoke(app, [*words, "memory"]).stdout
    assert json.loads(CliRunner().invoke(app, [*words, "cpu", "--json"]).stdout)["unit"] == "core-us"


def test_reports_about_devices_and_bills_do_not_count_them(engine: database.Engine) -> None:
    books = booked(engine)
    assert books.capacity_gpu_ms == 4 * HOUR // 2
    shown = charges.showback(books, By.QUEUE)
    assert dict(zip(shown.columns, shown.rows[0], strict=True))["held_gpu_ms"] == 2 * HOUR // 2
    with database.reading(engine) as connection:
        assert verify(connection).verified


@settings(max_examples=60, deadline=None)
@given(streams)
def test_any_stream_of_facts_is_booked_as_the_auditor_reads_it(stream: list[Any]) -> None:
    books = Books().take(dataclasses.replace(ON, at_ms=100), *NAMED, *stream, Cut(at_ms=500))
    for unit, sums in beside(books).items():
        assert unit in BESIDE
        assert sum(sums.values()) == 0


@settings(max_examples=20, deadline=None)
@given(streams)
def test_pods_and_devices_do_not_mind_each_other(stream: list[Any]) -> None:
    facts = [dataclasses.replace(fact, meter=0) if isinstance(fact, Started) else fact for fact in stream]
    with_pods, without = (Books().take(*first, *NAMED, *facts, Cut(at_ms=500)) for first in ((ON,), ()))
    kept = [s.entry for s in with_pods.sealed if s.entry.kind not in PODS]
    assert {e.id for e in kept} == {s.entry.id for s in without.sealed}
