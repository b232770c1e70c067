"""What the auditor says of books that were spoilt by somebody who could seal them anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from ledger_books import Books, hold, release
from ledger_facts import NAMED, node

from fairlead.ledger.audit import MAX_FINDINGS, audit, explain
from fairlead.ledger.chain import Head, Sealed, seal
from fairlead.ledger.entry import Entry, EntryKind, Posting, id_of
from fairlead.ledger.records import Finding
from fairlead.model.codec import Cut
from fairlead.model.events import DevicesCounted, KeptFree, NodeSeen

Spoil = Callable[[list[Entry]], None]


def example() -> Books:
    """Two GPUs for ten seconds: one is held from 2 s to 6 s and counted from 3 s to 5 s, the other is kept free."""
    return Books().take(
        *NAMED,
        NodeSeen(node=node(gpus=2), at_ms=1_000),
        KeptFree(keeper="promise/g9", queue="vision", devices=(("n1", ("gpu-1",)),), at_ms=1_000),
        hold(2_000, ("n1", (0,))),
        DevicesCounted(name="n1", from_ms=3_000, busy=(("gpu-0", 250),), at_ms=5_000),
        release(6_000),
        Cut(at_ms=11_000),
    )


def spoilt(change: Spoil) -> list[str]:
    """The findings on the example after a change of its entries, numbered and sealed as if they had always been so."""
    books = example()
    entries = [sealed.entry for sealed in books.sealed]
    change(entries)
    sealed, _ = seal(Head(), entries)
    return [finding.sentence for finding in audit("c", books.rows, sealed).findings]


def at(which: int, *, honest: bool = True, **fields: Any) -> Spoil:
    """Change fields of one entry; `honest` makes its id anew."""

    def change(entries: list[Entry]) -> None:
        entry = dataclasses.replace(entries[which], **fields)
        if honest:
            ticks = abs(entry.postings[1].amount) // (entry.to_ms - entry.from_ms)
            entry = dataclasses.replace(entry, id=id_of("c", entry, ticks))
        entries[which] = entry

    return change


def lines(which: int, *postings: tuple[Any, ...], **fields: Any) -> Spoil:
    """Give one entry other postings: (account, amount) in ticks, or with a unit."""
    made = tuple(Posting(account=p[0], amount=p[1], unit=p[2] if len(p) > 2 else "ticks") for p in postings)
    return at(which, postings=made, honest=bool(fields.pop("honest", False)), **fields)


def twice(entries: list[Entry]) -> None:
    entries.append(entries[FREE])


def left_out(which: int) -> Spoil:
    return lambda entries: entries.__delitem__(which)


FREE, USED, IDLE, HELD, AFTER, KEPT = range(6)
EXAMPLE = [
    ("gpu-0", "free:main", 1_000, 2_000),
    ("gpu-0", "use:lab:vision:used", 3_000, 5_000),
    ("gpu-0", "use:lab:vision:idle", 3_000, 5_000),
    ("gpu-0", "held:lab:vision:in-quota", 2_000, 6_000),
    ("gpu-0", "free:main", 6_000, 11_000),
    ("gpu-1", "reserved-idle:main", 1_000, 11_000),
]


def test_the_example_is_what_it_says() -> None:
    books = example()
    assert audit("c", books.rows, books.sealed).verified
    assert [(s.entry.device, s.entry.account, s.entry.from_ms, s.entry.to_ms) for s in books.sealed] == EXAMPLE


BY = " by ns/job-g1 attempt 1 rank 0"
USED_PART = f"use:lab:vision:used{BY} for 210 of 840 ticks for nobody by exact"
IDLE_PART = f"use:lab:vision:idle{BY} for 630 of 840 ticks for nobody by exact"


def differs(where: str, device: str, span: tuple[int, int], booked: str, due: str) -> str:
    return f"{where}: account: n1/{device} from {span[0]} to {span[1]}: booked {booked}; the journal says {due}"


def balance(account: str, booked: int, due: int) -> str:
    return f"the ledger: {account}: its balance is {booked} ticks; the journal says {due}"


SPOILT: dict[str, tuple[Spoil, list[str]]] = {
    "no integer": (at(FREE, at_ms="x"), ["entry 1: at_ms: is 'x', which is no integer"]),
    "no integer width": (at(FREE, estimated_ms=None), ["entry 1: estimated_ms: is None, which is no integer"]),
    "no text": (at(FREE, node=7), ["entry 1: node: is 7, which is no text"]),
    "no kind": (at(FREE, kind="odd", honest=False), ["entry 1: kind: is 'odd'"]),
    "no time": (at(FREE, to_ms=1_000, honest=False), ["entry 1: to_ms: is 1000, not after from_ms 1000"]),
    "no facts": (
        at(FREE, fact="f" * 64),
        ["entry 1: fact: the journal has no record ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"],
    ),
    "another time of its fact": (at(FREE, at_ms=2_001), ["entry 1: at_ms: is 2001, its fact says 2000"]),
    "another id": (at(FREE, honest=False, id="i"), ["entry 1: id: is not made from what the entry says"]),
    "one line": (lines(FREE, ("capacity:main", 0)), ["entry 1: postings: there are 1 in ticks, not the first 2"]),
    "no line": (lines(FREE), ["entry 1: postings: there are 0 in ticks, not the first 2"]),
    "three lines of ticks": (
        lines(FREE, ("capacity:main", -840_000), ("free:main", 839_999), ("free:main", 1)),
        ["entry 1: postings: there are 3 in ticks, not the first 2"],
    ),
    "money first": (
        lines(FREE, ("capacity:main", -840_000), ("rounding", 0, "money:EUR"), ("free:main", 840_000)),
        ["entry 1: postings: there are 2 in ticks, not the first 2"],
    ),
    "money that does not balance": (
        lines(FREE, ("capacity:main", -840_000), ("free:main", 840_000), ("rounding", 5, "money:EUR"), honest=True),
        ["entry 1: postings: money:EUR sum to 5, not to zero"],
    ),
    "money in ticks": (
        lines(FREE, ("capacity:main", -840_000), ("free:main", 840_000), ("free:main", 0, "money:EUR"), honest=True),
        ["entry 1: postings[2].unit: free:main has no money:EUR"],
    ),
    "an amount that is text": (
        lines(FREE, ("capacity:main", "5"), ("free:main", 840_000)),
        ["entry 1: postings[0].amount: is '5', must be -840000"],
    ),
    "other amounts": (
        lines(FREE, ("capacity:main", -840_001), ("free:main", 840_001)),
        ["entry 1: postings[0].amount: is -840001, must be -840000"],
    ),
    "amounts that do not balance": (
        lines(FREE, ("capacity:main", -840_000), ("free:main", 840_840)),
        ["entry 1: postings[1].amount: is 840840, must be 840000"],
    ),
    "more ticks than there are": (
        lines(FREE, ("capacity:main", -841_000), ("free:main", 841_000)),
        ["entry 1: postings[0].amount: is -841000, must be -840000"],
    ),
    "no account": (
        lines(FREE, ("capacity:main", -840_000), ("fee:main", 840_000)),
        ["entry 1: postings[1].account: account 'fee:main': there is no kind 'fee'"],
    ),
    "both of capacity": (
        lines(FREE, ("capacity:main", -840_000), ("capacity:main", 840_000)),
        ["entry 1: postings[1].account: capacity:main does not belong on this line"],
    ),
    "the wrong way round": (
        lines(FREE, ("free:main", -840_000), ("capacity:main", 840_000)),
        ["entry 1: postings[0].account: free:main does not belong on this line"],
    ),
    "a use in the timeline": (
        lines(FREE, ("capacity:main", -840_000), ("use:a:b:idle", 840_000)),
        ["entry 1: postings[1].account: use:a:b:idle does not belong on this line"],
    ),
    "a waste in the timeline": (
        lines(FREE, ("capacity:main", -840_000), ("waste:x:a:b", 840_000)),
        ["entry 1: postings[1].account: waste:x:a:b does not belong on this line"],
    ),
    "another pool": (
        lines(FREE, ("capacity:side", -840_000), ("free:main", 840_000)),
        ["entry 1: postings[0].account: capacity:side is not of pool main"],
    ),
    "another pool on the second line": (
        lines(FREE, ("capacity:main", -840_000), ("free:side", 840_000)),
        ["entry 1: postings[1].account: free:side is not of pool main"],
    ),
    "a split off something else": (
        lines(USED, ("use:lab:vision:idle", -420_000), ("use:lab:vision:used", 420_000)),
        ["entry 2: postings[0].account: use:lab:vision:idle does not belong on this line"],
    ),
    "a split off a device": (
        lines(USED, ("capacity:main", -420_000), ("use:lab:vision:used", 420_000)),
        ["entry 2: postings[0].account: capacity:main does not belong on this line"],
    ),
    "a split of what is unmeasured": (
        lines(USED, ("use:lab:vision:unmeasured", -420_000), ("use:lab:vision:unmeasured", 420_000)),
        ["entry 2: postings[1].account: use:lab:vision:unmeasured does not belong on this line"],
    ),
    "a reversal of the wrong sign": (
        at(FREE, kind=EntryKind.REVERSAL),
        ["entry 1: postings[0].amount: is -840000, must be 840000"],
    ),
    "booked twice": (
        twice,
        [
            differs("entry 7", "gpu-0", (1_000, 2_000), "2 × free:main", "free:main"),
            balance("capacity:main", -17_640_000, -16_800_000),
            balance("free:main", 5_880_000, 5_040_000),
        ],
    ),
    "left out": (
        left_out(FREE),
        [
            differs("the ledger", "gpu-0", (1_000, 2_000), "nothing", "free:main"),
            balance("capacity:main", -15_960_000, -16_800_000),
            balance("free:main", 4_200_000, 5_040_000),
        ],
    ),
    "left out at the end": (
        left_out(AFTER),
        [
            differs("the ledger", "gpu-0", (6_000, 11_000), "nothing", "free:main"),
            balance("capacity:main", -12_600_000, -16_800_000),
            balance("free:main", 840_000, 5_040_000),
        ],
    ),
    "an idle part left out": (
        left_out(IDLE),
        [
            differs(
                "entry 2",
                "gpu-0",
                (3_000, 5_000),
                f"1 × {USED_PART}",
                f"{USED_PART} and {IDLE_PART}",
            ),
            balance("use:lab:vision:idle", 0, 1_260_000),
            balance("use:lab:vision:unmeasured", -420_000, -1_680_000),
        ],
    ),
    "held by another": (
        at(HELD, gang="g2"),
        [
            differs(
                "entry 4", "gpu-0", (2_000, 6_000), f"1 × held:lab:vision:in-quota{BY}", f"held:lab:vision:in-quota{BY}"
            )
        ],
    ),
    "held by another attempt and rank": (
        at(HELD, attempt=2, rank=1),
        [
            differs(
                "entry 4",
                "gpu-0",
                (2_000, 6_000),
                "1 × held:lab:vision:in-quota by ns/job-g1 attempt 2 rank 1",
                f"held:lab:vision:in-quota{BY}",
            )
        ],
    ),
    "under another name": (
        at(HELD, name="x"),
        [
            differs(
                "entry 4",
                "gpu-0",
                (2_000, 6_000),
                "1 × held:lab:vision:in-quota by ns/x attempt 1 rank 0",
                f"held:lab:vision:in-quota{BY}",
            )
        ],
    ),
    "kept for nobody": (
        at(KEPT, actor=""),
        [
            differs(
                "entry 6",
                "gpu-1",
                (1_000, 11_000),
                "1 × reserved-idle:main for nobody by promise/g9",
                "reserved-idle:main for vision by promise/g9",
            )
        ],
    ),
    "kept by another rule": (
        at(KEPT, reason="pool/x"),
        [
            differs(
                "entry 6",
                "gpu-1",
                (1_000, 11_000),
                "1 × reserved-idle:main for vision by pool/x",
                "reserved-idle:main for vision by promise/g9",
            )
        ],
    ),
    "another measure": (
        at(USED, reason="estimated"),
        [
            differs(
                "entry 2",
                "gpu-0",
                (3_000, 5_000),
                f"1 × {IDLE_PART}, 1 × {USED_PART.replace('exact', 'estimated')}",
                f"{USED_PART} and {IDLE_PART}",
            )
        ],
    ),
    "a device that nobody named": (
        at(FREE, device="gpu-9"),
        [
            "entry 1: device: no fact ever named n1/gpu-9",
            differs("the ledger", "gpu-0", (1_000, 2_000), "nothing", "free:main"),
        ],
    ),
    "longer than anything is known": (
        at(
            AFTER,
            to_ms=11_001,
            postings=(
                Posting(account="capacity:main", amount=-5_001 * 840),
                Posting(account="free:main", amount=5_001 * 840),
            ),
        ),
        ["entry 5: to_ms: is 11001, after the newest record"],
    ),
    "too early": (
        at(
            FREE,
            from_ms=0,
            postings=(
                Posting(account="capacity:main", amount=-2_000 * 840),
                Posting(account="free:main", amount=2_000 * 840),
            ),
        ),
        [
            differs("entry 1", "gpu-0", (0, 1_000), "1 × free:main", "that it was not in the fleet"),
            balance("capacity:main", -17_640_000, -16_800_000),
            balance("free:main", 5_880_000, 5_040_000),
        ],
    ),
    "half a device": (
        lines(FREE, ("capacity:main", -420_000), ("free:main", 420_000), honest=True),
        [
            differs("entry 1", "gpu-0", (1_000, 2_000), "1 × free:main for 420 of 840 ticks", "free:main"),
            balance("capacity:main", -16_380_000, -16_800_000),
            balance("free:main", 4_620_000, 5_040_000),
        ],
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_is_said(name: str) -> None:
    change, said = SPOILT[name]
    assert spoilt(change) == said


def test_only_so_many_findings_are_said_and_those_of_entries_come_first() -> None:
    books = example()
    sealed, _ = seal(Head(), [dataclasses.replace(books.sealed[0].entry, id="i")] * (MAX_FINDINGS + 5))
    found = audit("c", books.rows, sealed)
    assert [finding.entry for finding in found.findings] == list(range(1, MAX_FINDINGS + 1))
    assert (found.entries, found.head.number, found.records, found.journal_head.number) == (25, 25, 12, 12)
    assert not found.verified
    assert found.to_data()["findings"][0]["field"] == "id"


def test_of_entries_that_were_not_sealed_anew_the_first_that_does_not_follow_is_named() -> None:
    books = example()
    good = books.sealed
    facts = {row.id: (row.number, row.at_ms) for row in books.rows}
    cases = {
        "removed": [good[0], good[2]],
        "swapped": [good[1], good[0]],
        "changed": [dataclasses.replace(good[0], hash="0" * 64)],
        "renumbered": [dataclasses.replace(good[0], number=7)],
    }
    assert {name: audit("c", books.rows, list_).findings[0].sentence for name, list_ in cases.items()} == {
        "removed": "entry 3: number: 2 should come here: entries are missing",
        "swapped": "entry 1: number: 3 should come here: entries are missing",
        "changed": "entry 1: hash: the chain breaks: this entry or its place was changed",
        "renumbered": "entry 7: number: 1 should come here: entries are missing",
    }
    head = Head(good[0].number, good[0].hash)
    assert explain("c", good[2], head, facts).sentence == "entry 3: number: 2 should come here: entries are missing"
    swapped = Sealed(2, good[2].hash, good[2].entry)
    assert explain("c", swapped, head, facts).field == "hash"
    assert explain("c", good[1], head, facts) == Finding(
        entry=2, field="hash", message="the chain breaks: this entry or its place was changed"
    )


def test_an_entry_of_a_broken_record_is_named_with_it() -> None:
    books = example()
    broken = [dataclasses.replace(row, hash="0" * 64) if row.number == 7 else row for row in books.rows]
    found = audit("c", broken, books.sealed)
    sentences = [finding.sentence for finding in found.findings]
    assert sentences[-2:] == [f"journal record {n}: hash: the journal's chain breaks here" for n in (7, 8)]
    made = [sealed.number for sealed in books.sealed if sealed.entry.fact == books.rows[6].id]
    assert sentences[:-2] == [f"entry {number}: fact: journal record 7 below it is broken" for number in made]
