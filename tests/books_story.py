"""A story of facts, and a child process that keeps books of it and is killed with -9 at a named step."""

from __future__ import annotations

import multiprocessing
import os
import signal

from ledger_facts import NAMED, node, placement

from fairlead.model.events import Event, Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.service.bookkeeper import Bookkeeper


def story() -> list[tuple[int, list[Event]]]:
    """(now_ms, facts) a batch: holds that come and go over three hours, and a node that is lost and returns."""
    hour = 3_600_000
    batches: list[tuple[int, list[Event]]] = [(0, [*NAMED, NodeSeen(node=node("n1"), at_ms=0)])]
    batches.append((1, [NodeSeen(node=node("n2"), at_ms=1)]))
    for step in range(12):
        at = 1_000 + step * hour // 4
        uid, devices = f"g{step % 3 + 1}", (step % 3, 3)
        on = placement(("n1", devices), ("n2", devices))
        attempt = step // 3 + 1
        batches.append(
            (at, [Intended(gang=uid, attempt=attempt, placement=on, tier=Tier.BORROWED, at_ms=at, deadline_ms=at + 9)])
        )
        batches.append(
            (at + 60_000, [MemberReleased(gang=uid, attempt=attempt, rank=r, at_ms=at + 59_000 + r) for r in (0, 1)])
        )
    lost = 3 * hour + 500_000
    batches.append((lost + 40_000, [NodeSeen(node=node("n2", not_ready_since_ms=lost), at_ms=lost + 40_000)]))
    batches.append((lost + 90_000, [NodeSeen(node=node("n2"), at_ms=lost + 90_000)]))
    return batches


def run_story(url: str, step: str = "-", times: int = -1) -> int | None:
    """Record the story in a child that dies when it passes `step` for the `times`-th time; return its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_record, args=(url, step, times))
    child.start()
    child.join(120)
    return child.exitcode


def _record(url: str, step: str, times: int) -> None:
    passed = 0

    def die(name: str) -> None:
        nonlocal passed
        passed += name == step
        if passed == times:
            os.kill(os.getpid(), signal.SIGKILL)

    books = Bookkeeper(url, failpoint=die, snapshot_after=3)
    books.open()
    for now_ms, facts in story():
        books.record(facts, now_ms)
        assert not books.trouble, books.trouble
    books.close()
