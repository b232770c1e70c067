"""Tiers over time: what the scheduler says of them, and what the books make of it."""

from __future__ import annotations

from typing import Any

from builders import Stage, node, queue
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import Books, hold, release
from ledger_facts import NAMED
from ledger_facts import node as ledger_node

from fairlead.model import events as ev
from fairlead.model.codec import Cut
from fairlead.model.events import NodeSeen, TierChanged
from fairlead.model.gang import Tier


def test_a_hold_is_split_where_its_tier_is_another_and_a_late_word_of_it_corrects_what_is_booked() -> None:
    books = Books().take(*NAMED, NodeSeen(node=ledger_node(), at_ms=0), hold(1_000, ("n1", (0, 1)), ("n1", (2,))))
    books.take(Cut(at_ms=5_000), TierChanged(gang="g1", attempt=1, tier=Tier.BORROWED, at_ms=6_000), release(9_000))
    books.take(Cut(at_ms=10_000))
    held = {name: ms for name, ms in books.gpu_ms().items() if name.startswith("held")}
    assert held == {"held:lab:vision:in-quota": 15_000, "held:lab:vision:borrowed": 10_000}
    books.take(TierChanged(gang="g1", attempt=1, tier=Tier.OPPORTUNISTIC, at_ms=2_000))
    assert {name: ms for name, ms in books.gpu_ms().items() if name.startswith("held")} == {
        "held:lab:vision:in-quota": 3_000,
        "held:lab:vision:opportunistic": 12_000,
        "held:lab:vision:borrowed": 10_000,
    }


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["1x1", "1x2", "1x4", "2x4", "1x2 class=opportunistic"])),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("guarantee"), st.integers(0, 16)),
    ),
    max_size=14,
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_in_quota_is_what_the_guarantee_covers_and_no_borrowed_one_would_fit_beside_it(todo: Any) -> None:
    stage = Stage([node(f"n{i}", "8") for i in range(3)], [queue("team")])
    guarantee, facts = 0, 0
    for at, (kind, what) in enumerate(todo):
        if kind == "submit":
            stage.submit(f"j{at}", what)
        elif kind == "guarantee":
            guarantee = what
            stage.take(ev.QueueSeen(queue=queue("team", f"guaranteed={what}"), at_ms=stage.now_ms))
        else:
            holders = [record for record in stage.state.gangs.values() if record.current is not None]
            if holders:
                record = holders[what % len(holders)]
                stage.delete(record.id)
                stage.settle()
                stage.release(record.id)
        stage.now_ms += 1_000
        stage.settle()
        attempts = [record.current for record in stage.state.gangs.values() if record.current is not None]
        gpus: dict[Tier, list[int]] = {}
        for attempt in attempts:
            gpus.setdefault(attempt.tier, []).append(attempt.placement.gpus)
        used = sum(gpus.get(Tier.IN_QUOTA, []))
        assert used <= guarantee
        assert all(used + borrowed > guarantee for borrowed in gpus.get(Tier.BORROWED, []))
        said = [fact for fact in stage.facts if isinstance(fact, TierChanged)]
        assert len(said) - facts <= len(attempts), "a fact per attempt that changed, at most"
        facts = len(said)
        cycles = len(stage.cycles)
        stage.settle()
        assert not any(fact for cycle in stage.cycles[cycles:] for fact in cycle.facts), "and none while nothing does"
