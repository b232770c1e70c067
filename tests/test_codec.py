"""Facts as bytes: every kind survives, bytes stay as they are, and what cannot be read is said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_facts import strategy_for

from fairlead.errors import UnreadableInput
from fairlead.model import codec
from fairlead.model.events import MemberReleased, PlaceFailed
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


def test_the_codec_says_what_it_cannot_read() -> None:
    for bad in (b"", b"{}", b'{"kind":"Wish","fact":{}}', b'{"kind":"Cut","fact":{"at_ms":"x"}}', b"\xff"):
        with pytest.raises(UnreadableInput):
            codec.decode(bad)
