"""A meter that was written down and read back goes on as if nothing had been: the same entries, ids and sums."""

from __future__ import annotations

import zlib
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from books_disorder import T0, told
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import Books, hold
from ledger_facts import NAMED, node, slowly, streams
from price_words import price, priced

from fairlead.errors import UnreadableInput
from fairlead.ledger import snapshot
from fairlead.ledger.attempts import SavedAttempt
from fairlead.ledger.meter import Meter
from fairlead.ledger.outcomes import AttemptBook, Windows
from fairlead.ledger.saved import SavedBook, SavedHold, SavedNode
from fairlead.ledger.snapshot import freeze, thaw
from fairlead.ledger.timeline import DeviceBook, MemberHold, NodeTrack
from fairlead.model import codec
from fairlead.model.codec import Cut
from fairlead.model.events import KeptFree, NodeSeen, PriceBookGone, StopIntended
from fairlead.model.reasons import Reason, refuse

HOUR = 3_600_000


def again(meter: Meter) -> Meter:
    return thaw(freeze(meter), meter.cluster)


def agree(records: list[Any], at: set[int]) -> Meter:
    """Give records to a meter, and to one that is read back before each of the places `at`."""
    whole, broken = Meter("c"), Meter("c")
    for place, record in enumerate(records):
        if place in at:
            broken = again(broken)
        fact = codec.fact_id(codec.encode(record))
        assert broken.apply(record, fact) == whole.apply(record, fact), (place, record)
    assert list(broken.open_segments()) == list(whole.open_segments())
    assert list(broken.open_pods()) == list(whole.open_pods())
    assert (broken.open_holds(), broken.newest_ms, broken.cut_ms) == (whole.open_holds(), whole.newest_ms, whole.cut_ms)
    assert broken.saved() == again(whole).saved() == whole.saved()
    return whole


@settings(max_examples=150)
@given(streams, st.sets(st.integers(0, 30), max_size=4), st.sampled_from([1, HOUR // 6, HOUR]))
def test_any_stream_goes_on_the_same_after_any_break(stream: list[Any], breaks: set[int], step_ms: int) -> None:
    agree([*NAMED, *(slowly(fact, step_ms) for fact in stream), Cut(at_ms=step_ms * 500)], breaks)


@pytest.mark.parametrize("seed", range(12))
def test_facts_in_every_disorder_are_taken_the_same(seed: int) -> None:
    records = [fact for _, facts in told(seed) for fact in facts]
    end = Cut(at_ms=T0 + 400 * HOUR)
    agree([*records, end, *records[:40]], {len(records) // 3, len(records) // 2, len(records) + 1})


PRICED = [
    *NAMED,
    priced(price("inQuota=2 borrowed=1 reservedIdle=1")),
    NodeSeen(node=node(), at_ms=0),
    hold(HOUR, ("n1", (0,)), ("n1", (3,), 142, 4)),
    KeptFree(keeper="reservation/exam", queue="lab", devices=(("n1", ("gpu-1",)),), at_ms=HOUR),
    Cut(at_ms=3 * HOUR),
    priced(price("inQuota=3 borrowed=1 reservedIdle=2"), at_ms=2 * HOUR),
    StopIntended(
        gang="g1", attempt=1, cause=refuse(Reason.PREEMPTED), requeue=True, by="g2", safe_ms=HOUR, at_ms=4 * HOUR
    ),
    Cut(at_ms=5 * HOUR),
    PriceBookGone(name="eur", at_ms=6 * HOUR),
    Cut(at_ms=7 * HOUR),
]


def test_prices_and_those_that_came_late_are_kept() -> None:
    for place in range(len(PRICED)):
        meter = agree(PRICED, {place})
    assert [late.from_ms for late in again(meter).pricing.late] == [late.from_ms for late in meter.pricing.late] != []


def test_a_correction_of_late_prices_comes_out_the_same() -> None:
    books = Books().take(*PRICED[:12])
    posted = [sealed.entry for sealed in books.sealed]
    one, other = books.meter.pricing, again(books.meter).pricing
    assert one.correction(one.late[0], posted) == other.correction(other.late[0], posted)
    assert one.correction(one.late[0], posted).lines


def test_everything_that_a_meter_has_is_written_down() -> None:
    """A new field that nobody saves would be lost at a restart: here it is missed."""
    meter = agree(PRICED, set())
    derived = {"_nodes", "_holds", "_kept", "_attempts", "_queue_of", "pricing", "list", "late", "_on_node", "_members"}
    derived |= {"_gangs", "_ends", "_payers"}  # these share and pack what they have: what they say is compared below
    assert again(meter).saved() == meter.saved()
    for one, other in (
        (meter, again(meter)),
        (meter.pricing, again(meter).pricing),
        (meter._kept, again(meter)._kept),
        (meter._attempts, again(meter)._attempts),
    ):
        assert vars(one).keys() == vars(other).keys()
        assert {name for name in vars(one) if vars(one)[name] != vars(other)[name]} <= derived
    for kind, kept, more in (
        (NodeTrack, SavedNode, {"kept", "holds"}),
        (MemberHold, SavedHold, {"book"}),
        (DeviceBook, SavedBook, set[str]()),
    ):
        assert {field.name for field in fields(kind)} == {*kept.__struct_fields__} | more
    names = {field.name for field in fields(AttemptBook)} | {"gang", "attempt"}
    assert names == {field.name for field in fields(SavedAttempt)} | {"before", "marks"}
    assert [field.name for field in fields(Windows)] == ["known"]


def test_marks_of_an_attempt_are_those_that_the_next_one_began_after() -> None:
    """The two are one list: a stop that is told of later is still a restart of the next attempt."""
    meter = Meter("c")
    for record in PRICED[:10]:
        meter.apply(record, codec.fact_id(codec.encode(record)))
    meter._attempts.book("g1", 2)
    attempts = again(meter)._attempts
    assert attempts.book("g1", 2).before is attempts.book("g1", 1).marks
    assert next(iter(again(meter)._holds.values())).book.tiers == []


def test_a_state_that_many_devices_are_in_stands_once() -> None:
    meter = Meter("c")
    for number in range(200):
        meter.apply(NodeSeen(node=node(f"n{number}"), at_ms=0), f"f{number}")
    assert len(meter.saved().states) == 1
    assert len(freeze(meter)) < 200 * 150


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", zlib.compress(b"nonsense"), zlib.compress(msgspec.msgpack.encode({"sequence": 1}))]
)
def test_what_is_no_snapshot_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(UnreadableInput, match="not a snapshot of the books"):
        thaw(data, "c")


def test_a_place_of_a_state_that_is_not_there_is_said() -> None:
    meter = Meter("c")
    meter.apply(NodeSeen(node=node(), at_ms=0), "f")
    saved = msgspec.to_builtins(meter.saved())
    saved["states"] = []
    with pytest.raises(UnreadableInput):
        thaw(zlib.compress(msgspec.msgpack.encode(saved)), "c")


def test_the_form_follows_the_fields_and_not_the_words() -> None:
    assert snapshot._bare({"description": "x", "properties": [{"description": "y", "type": "int"}]}) == {
        "properties": [{"type": "int"}]
    }
    assert len(snapshot.FORM) == 64


def test_a_snapshot_from_before_books_had_costs_is_read() -> None:
    meter = agree(PRICED, set())
    saved = msgspec.to_builtins(meter.saved())
    late = [book for one in saved["pricing"]["late"] for book in (*one["before"], *one["after"])]
    for book in (*saved["pricing"]["books"].values(), *late):
        del book["costs"], book["fixed"]
    assert thaw(zlib.compress(msgspec.msgpack.encode(saved)), "c").saved() == meter.saved()
