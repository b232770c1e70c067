"""Facts as bytes: every kind survives, bytes stay as they are, and what cannot be read is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_facts import strategy_for

from fairlead.errors import UnreadableInput
from fairlead.model import codec
from fairlead.model.events import Intended, MemberReleased, PlaceFailed
from fairlead.model.gang import GangId, Placement, Tier
from fairlead.model.reasons import Reason, refuse


@settings(max_examples=400)
@given(st.data())
def test_every_kind_of_fact_survives_the_codec(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(codec.KINDS)))
    fact = data.draw(strategy_for(codec.KINDS[kind]))
    encoded = codec.encode(fact)
    assert codec.decode(encoded) == fact
    assert codec.encode(codec.decode(encoded)) == encoded
    assert isinstance(codec.subject(fact), str)


def test_bytes_are_canonical_and_stay_as_they_are() -> None:
    fact = MemberReleased(gang="g1", attempt=1, rank=2, at_ms=7, estimated_ms=1)
    assert codec.encode(fact) == (
        b'{"fact":{"at_ms":7,"attempt":1,"estimated_ms":1,"gang":"g1","rank":2},"kind":"MemberReleased"}'
    )
    failed = PlaceFailed(gang="g", attempt=1, cause=refuse(Reason.PLACE_CONFLICT, detail="x"), released=(), at_ms=1)
    assert b'"cause":{"details":[["detail","x"]],"reason":"PlacementConflict"}' in codec.encode(failed)


def test_a_field_that_came_later_is_unsaid_where_it_has_its_default() -> None:
    fact = Intended(
        gang=GangId("g"), attempt=1, placement=Placement(members=()), tier=Tier.IN_QUOTA, at_ms=1, deadline_ms=2
    )
    assert b"slowed_permille" not in codec.encode(fact)
    slowed = replace(fact, placement=replace(fact.placement, slowed_permille=7))
    assert codec.decode(codec.encode(slowed)) == slowed
    cause = refuse(Reason.PLACE_CONFLICT, detail='"slowed_permille":0,')
    said = PlaceFailed(gang="g", attempt=1, cause=cause, released=(), at_ms=1)
    assert codec.decode(codec.encode(said)) == said


def test_the_codec_says_what_it_cannot_read() -> None:
    for bad in (b"", b"{}", b'{"kind":"Wish","fact":{}}', b'{"kind":"Cut","fact":{"at_ms":"x"}}', b"\xff"):
        with pytest.raises(UnreadableInput):
            codec.decode(bad)
