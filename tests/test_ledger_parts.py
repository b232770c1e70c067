"""Shares and MIG instances in the books: every tick of a GPU is in one state, split among its holders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ledger_facts import NAMED, node
from mig_grids import A100_80, cut_gpu
from test_ledger import Books, hold, release

from fairlead.ledger.entry import State
from fairlead.ledger.timeline import split
from fairlead.model.codec import Cut
from fairlead.model.events import ForeignDevices, NodeSeen, Started
from fairlead.model.hardware import Gpu, Machine
from fairlead.model.rules import Rules
from fairlead.service.bookkeeper import Bookkeeper


def test_parts_of_a_gpu_are_booked_to_their_holders_and_the_rest_is_free() -> None:
    books = Books().take(
        *NAMED,
        NodeSeen(node=node(gpus=1), at_ms=0),
        hold(1_000, ("n1", (0,), 300), uid="g1"),
        hold(3_000, ("n1", (0,), 500), uid="g3"),
        release(6_000, uid="g1"),
        Cut(at_ms=10_000),
    )
    found = books.audit()
    assert found.verified, found.findings
    assert {name: ticks for name, ticks in found.balances.items() if ticks} == {
        "capacity:main": -840 * 10_000,
        "held:lab:vision:in-quota": 252 * 5_000,  # 0.3 of 840 ticks, for 5 s
        "held:nobody-described:nobody-described:in-quota": 420 * 7_000,
        "free:main": 840 * 1_000 + 588 * 2_000 + 168 * 3_000 + 420 * 4_000,
    }


def test_an_instance_that_others_hold_is_unmanaged_and_the_rest_of_its_gpu_is_ours() -> None:
    books = Books().take(
        NodeSeen(node=node(gpus=1, cut="3g.40gb@0,1g.10gb@4"), at_ms=0),
        ForeignDevices(name="n1", devices=("gpu-0-mig-3g40gb-9-0",), at_ms=1_000),
        hold(1_000, ("n1", (0,), 125)),
        Cut(at_ms=2_000),
    )
    found = books.audit()
    assert found.verified, found.findings
    balances = {name: ticks for name, ticks in found.balances.items() if ticks}
    assert balances.pop("unmanaged:main") == 420 * 1_000
    assert balances.pop("free:main") == 840 * 1_000 + 315 * 1_000
    assert balances == {"capacity:main": -840 * 2_000, "held:unknown:unknown:in-quota": 105 * 1_000}


def test_a_gpu_that_is_cut_anew_gives_nothing_of_its_old_instances_from_then_on() -> None:
    facts = (
        NodeSeen(node=node(gpus=1, cut="3g.40gb@0,1g.10gb@4"), at_ms=0),
        hold(0, ("n1", (0,), 500, 0), ("n1", (0,), 125, 4)),
        NodeSeen(node=node(gpus=1, cut="1g.10gb@0,1g.10gb@4"), at_ms=1_000),
        hold(1_500, ("n1", (0,), 125, 0), uid="g2"),
        Cut(at_ms=4_000),
    )
    books = Books().take(Started(rules=Rules(), at_ms=0, meter=1), *facts)
    found = books.audit()
    assert found.verified, found.findings
    held = [(s.entry.gang, s.entry.rank, s.entry.postings[1].amount // 105) for s in books.sealed if s.entry.gang]
    sums = {of: sum(eighths for gang, rank, eighths in held if (gang, rank) == of) for of in {one[:2] for one in held}}
    assert sums == {("g1", 0): 4 * 1_000, ("g1", 1): 4_000, ("g2", 0): 2_500}
    old = Books().take(*facts)
    assert old.audit().verified
    older = sum(s.entry.postings[1].amount for s in old.sealed if (s.entry.gang, s.entry.rank) == ("g1", 0))
    assert older == 420 * 4_000, "journals from before make the entries that they made"


@pytest.mark.parametrize(("milli", "count"), [(500, 2), (333, 3), (250, 4), (142, 7), (125, 8), (83, 12), (1, 1000)])
def test_equal_parts_that_fill_a_gpu_leave_nothing_of_it(milli: int, count: int) -> None:
    rest = State(account="free:main", pool="main")
    parts = split([(milli, State(account="held", pool="main", rank=rank)) for rank in range(count)], rest)
    assert sum(part.ticks for part in parts) == 840
    assert all(part.account == "held" for part in parts)
    assert max(part.ticks for part in parts) - min(part.ticks for part in parts) <= (count > 12)


def test_who_comes_late_to_a_gpu_that_is_given_out_gets_nothing_of_it() -> None:
    a, b, c = (State(account=name, pool="main") for name in "abc")
    rest = State(account="free:main", pool="main")
    assert [(p.account, p.ticks) for p in split([(600, a), (500, b), (400, c)], rest)] == [("a", 504), ("c", 336)]
    assert split([(1000, a), (1, b)], rest) == (a,)
    assert [(p.account, p.ticks) for p in split([(1, a), (1000, b)], rest)] == [("a", 1), ("free:main", 839)]


@pytest.mark.parametrize(("milli", "count"), [(500, 2), (333, 3), (250, 4), (142, 7), (125, 8), (83, 12), (7, 30)])
def test_the_auditor_deals_a_gpu_out_to_equal_parts_as_the_books_do(milli: int, count: int) -> None:
    books = Books().take(*NAMED, NodeSeen(node=node(gpus=1), at_ms=0))
    books.take(hold(0, *[("n1", (0,), milli)] * count), Cut(at_ms=1_000))
    found = books.audit()
    assert found.verified, [finding.sentence for finding in found.findings]


@pytest.mark.parametrize(
    "parts",
    [
        (974, 26),
        (26, 974),
        (26, 474, 500),
        (3, 7, 990),
        (999, 1),
        (1, 999),
        (501, 499),
        (600, 500, 400),
        (600, 401),
        (143, 857),
        (1_000, 1),
    ],
)
def test_the_auditor_deals_a_gpu_out_to_unlike_parts_as_the_books_do(parts: tuple[int, ...]) -> None:
    books = Books().take(*NAMED, NodeSeen(node=node(gpus=1), at_ms=0))
    books.take(hold(0, *[("n1", (0,), milli) for milli in parts]), Cut(at_ms=1_000))
    found = books.audit()
    assert found.verified, [finding.sentence for finding in found.findings]
    assert found.balances["capacity:main"] == -840 * 1_000


@pytest.mark.parametrize(
    ("cut", "name", "theirs"),
    [
        ("dynamic", "3g40gb-9-0", 500),
        ("dynamic", "1g10gb-19-4", 125),
        ("dynamic", "7g80gb-0-0", 1_000),
        ("3g.40gb@0,1g.10gb@4", "3g40gb-9-0", 500),
        ("3g.40gb@0,1g.10gb@4", "1g10gb-19-4", 125),
        ("7g.80gb@0", "7g80gb-0-0", 1_000),
        ("3g.40gb@0", "1g10gb-19-4", 0),
    ],
)
def test_an_instance_that_others_hold_takes_its_part_of_its_own_gpu_however_that_is_cut(
    cut: str, name: str, theirs: int
) -> None:
    both = tuple(cut_gpu(Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", model=A100_80), cut) for i in (0, 1))
    books = Books().take(NodeSeen(node=dataclasses.replace(node(), machine=Machine(gpus=both)), at_ms=0))
    books.take(ForeignDevices(name="n1", devices=(f"gpu-1-mig-{name}", f"gpu-7-mig-{name}", "gpu-1-x"), at_ms=0))
    found = books.take(Cut(at_ms=1_000)).gpu_ms()
    assert found.pop("capacity:main") == -2_000
    assert found == {name: ms for name, ms in (("unmanaged:main", theirs), ("free:main", 2_000 - theirs)) if ms}


def test_an_instance_that_is_all_of_its_gpu_is_held_whole() -> None:
    books = Books().take(Started(rules=Rules(), at_ms=0, meter=1), *NAMED)
    books.take(NodeSeen(node=node(gpus=1, cut="7g.80gb@0"), at_ms=0), hold(0, ("n1", (0,), 1_000, 0)))
    books.take(Cut(at_ms=1_000))
    assert books.gpu_ms() == {"capacity:main": -1_000, "held:lab:vision:in-quota": 1_000}


def test_what_was_cut_anew_counts_from_the_moment_that_an_engine_begins_whose_books_know_of_it() -> None:
    books = Books().take(
        *NAMED,
        NodeSeen(node=node(gpus=1, cut="3g.40gb@0,1g.10gb@4"), at_ms=0),
        hold(0, ("n1", (0,), 500, 0)),
        NodeSeen(node=node(gpus=1, cut="1g.10gb@0,1g.10gb@4"), at_ms=1_000),
        Started(rules=Rules(), at_ms=2_000, meter=1),
        Cut(at_ms=4_000),
    )
    assert books.gpu_ms()["held:lab:vision:in-quota"] == 2_000 // 2


def test_a_report_deals_out_what_is_whole_of_parts(tmp_path: Path) -> None:
    """A seventh and the rest for one ms: floors alone would leave the pool a GPU-ms short."""
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    facts = [
        NodeSeen(node=node(gpus=1), at_ms=0),
        hold(0, ("n1", (0,), 142), uid="g1"),
        hold(0, ("n1", (0,), 300), uid="g3"),
    ]
    books.record([*NAMED, *facts], 1)
    found = books.usage(5)
    assert found.balanced
    pool = found.fleet[0]
    assert (pool.capacity_gpu_ms, pool.held_gpu_ms, pool.free_gpu_ms) == (5, 2, 3)
    assert [(row.queue, row.gpu_ms) for row in found.rows] == [("nobody-described", 1)]
    books.close()
