"""The real books around a fleet in memory: opened and closed in order, and verified at the end of the demo."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.model.events import Event, MemberReleased, NodeGone
from fairlead.model.hardware import NodeName
from fairlead.reports.usage import By, FleetRow
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.simulation.story import Story
from fairlead.store import engine as database
from fairlead.store import snapshots
from fairlead.units import gpu_hours_text


@dataclass(frozen=True, slots=True)
class Opened:
    """Books that are ready to be written. `start_ms` is not before anything that stands in them."""

    books: Bookkeeper
    start_ms: int


@contextmanager
def open_books(url: str, now_ms: int) -> Generator[Opened]:
    """Open books for a new fleet; what an earlier one left open, because its process was killed, is closed first.

    That fleet ended between the newest fact and now, so its end is booked now and marked with that width.

    Raises
    ------
    Unreachable, UnreadableInput, BooksDoNotVerify
        As `Bookkeeper.open` does.
    """
    books = Bookkeeper(url)
    books.open()
    try:
        newest_ms = books.newest_ms
        start_ms = now_ms if newest_ms is None else max(now_ms, newest_ms + 1)
        left = _left_open(books, start_ms)
        if left:
            books.record(left, start_ms)
        yield Opened(books, start_ms)
    finally:
        books.close()


def _left_open(books: Bookkeeper, at_ms: int) -> list[Event]:
    if books.newest_ms is None:
        return []
    width_ms = at_ms - books.newest_ms
    facts: list[Event] = [
        MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=at_ms, estimated_ms=width_ms)
        for gang, attempt, rank in sorted(books.open_holds())
    ]
    engine = database.connect(books.url)
    try:
        with database.reading(engine) as connection:
            meter = snapshots.current(connection)
    finally:
        engine.dispose()
    nodes = sorted({segment.node for segment in meter.open_segments()})
    return [*facts, *(NodeGone(name=NodeName(node), at_ms=at_ms) for node in nodes)]


def tell_with_books(fleet: str) -> dict[str, Any]:
    """Play the demo's story on real books in a temporary folder; add usage by tenant and what verifying them found."""
    with tempfile.TemporaryDirectory(prefix="fairlead-demo-") as folder:
        url = f"sqlite:///{Path(folder, 'books.sqlite')}"
        books = Bookkeeper(url)
        books.open()
        try:
            story = Story(fleet, books)
            data = story.tell()
            end_ms = story.driver.now_ms
            books.cut(end_ms)
            report = books.usage(end_ms, by=By.TENANT)
            fleet_rows = report.fleet
            data["usage"] = [
                {
                    "tenant": row.tenant,
                    "in_quota_gpu_ms": row.in_quota_gpu_ms,
                    "borrowed_gpu_ms": row.borrowed_gpu_ms,
                    "gpu_ms": row.gpu_ms,
                }
                for row in report.rows
            ]
            data["fleet_time"] = [
                {
                    "pool": row.pool,
                    "capacity_gpu_ms": row.capacity_gpu_ms,
                    "held_gpu_ms": row.held_gpu_ms,
                    "reserved_idle_gpu_ms": row.reserved_idle_gpu_ms,
                    "free_gpu_ms": row.free_gpu_ms,
                    "stranded_gpu_ms": row.stranded_gpu_ms,
                    "down_gpu_ms": row.down_gpu_ms,
                }
                for row in report.fleet
            ]
        finally:
            books.close()
        data["books"] = _verify(url, fleet_rows)
    return data


def _verify(url: str, rows: Sequence[FleetRow]) -> dict[str, Any]:
    """Recompute the timeline from the journal and compare it with the ledger, entry by entry."""
    engine = database.connect(url)
    try:
        with database.reading(engine) as connection:
            found = verify(connection)
    finally:
        engine.dispose()
    hours = sum(row.capacity_gpu_ms for row in rows)
    held = sum(row.held_gpu_ms for row in rows)
    down = sum(row.down_gpu_ms for row in rows)
    free = sum(row.free_gpu_ms + row.stranded_gpu_ms + row.reserved_idle_gpu_ms + row.unmanaged_gpu_ms for row in rows)
    balance = found.verified and hours == held + down + free
    summary = (
        f"{gpu_hours_text(hours)} GPU-hours of capacity = {gpu_hours_text(held)} held + {gpu_hours_text(free)} free "
        f"+ {gpu_hours_text(down)} down, {found.entries} entries for {found.devices} devices from {found.records} facts"
    )
    return {
        "balance": balance,
        "summary": summary if found.verified else found.findings[0].sentence,
        "capacity_gpu_ms": hours,
        "entries": found.entries,
        "facts": found.records,
        "devices": found.devices,
        "findings": [finding.sentence for finding in found.findings],
    }
