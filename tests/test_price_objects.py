"""PriceBooks of a cluster: read, refused by field, told once, and back in when what they overlapped with is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from mig_grids import A100_80
from price_words import book, price
from test_money_commands import BOOK

from fairlead.errors import UnreadableInput
from fairlead.model.events import PriceBookGone, PriceBookSeen
from fairlead.model.prices import Price, PriceTier
from fairlead.simulation import gangjob_yaml
from fairlead_operator.overviews import in_force_status
from fairlead_operator.price_objects import PriceBookObject, PriceFacts, decode_book
from fairlead_operator.watch import Change


def seen(name: str = "eur", *prices: dict[str, Any], currency: str = "EUR") -> PriceBookObject:
    body = {"metadata": {"name": name, "uid": name}, "spec": {"currency": currency, "prices": list(prices)}}
    return msgspec.json.decode(msgspec.json.encode(body), type=PriceBookObject)


def one(amount: str = "3.60", **more: Any) -> dict[str, Any]:
    return {"model": A100_80, "perHour": {"inQuota": amount}, **more}


def test_an_object_and_a_document_say_the_same() -> None:
    document = gangjob_yaml.read(BOOK, now_ms=0, new_id=lambda *_: "x").books[0]
    assert decode_book(seen("eur", one(**{"from": "2026-01-01T00:00:00Z"}))) == document
    words = {"inQuota": "1", "borrowed": "2", "reserved": "3", "reservedIdle": "4", "opportunistic": "5"}
    (full,) = decode_book(seen("eur", one(mig="1g.10gb", queue="lab", perHour=words))).prices
    assert full == Price(
        model=A100_80,
        mig="1g.10gb",
        queue="lab",
        per_hour=tuple((tier, (at + 1) * 10**10) for at, tier in enumerate(PriceTier)),
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (one("3,60"), r"spec.prices\[0\].perHour.inQuota: '3,60' is no price"),
        (one("1", **{"from": "today"}), r"spec.prices\[0\].from: 'today' is not a time"),
        (one("1", **{"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}), r"prices\[0\].to: is not after"),
        ({"model": A100_80}, r"prices\[0\].perHour: says no tier"),
        (one(model=""), r"prices\[0\].model"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_field(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableInput, match=f"^PriceBook eur: .*{message}"):
        decode_book(seen("eur", said))


def test_facts_are_told_once_and_a_refused_book_comes_in_when_there_is_room() -> None:
    told: list[Any] = []
    problems: dict[tuple[str, str], str] = {}
    facts = PriceFacts(told.append, lambda: 5, problems)
    facts.on_price_book(Change.ADDED, None, seen("eur", one()))
    facts.on_price_book(Change.MODIFIED, None, seen("eur", one()))
    assert told == [PriceBookSeen(book=book(price("inQuota=3.60")), at_ms=5)]
    second = seen("a-second", one("9"), currency="USD")
    facts.on_price_book(Change.ADDED, None, second)
    assert len(told) == 1
    assert "another of book eur ever to ever" in problems["PriceBook", "a-second"]
    assert in_force_status(problems["PriceBook", "a-second"], 2)["state"] == "Refused"
    facts.on_price_book(Change.MODIFIED, None, seen("eur", one("bad")))
    assert set(problems) == {("PriceBook", "eur"), ("PriceBook", "a-second")}
    facts.on_price_book(Change.DELETED, seen("eur", one("bad")), None)
    assert problems == {}
    assert [type(fact) for fact in told[1:]] == [PriceBookGone, PriceBookSeen]
    assert in_force_status("", 3) == {"observedGeneration": 3, "state": "InForce", "message": None}
