"""The books as the loop sees them: facts in, committed holds out, one transaction a batch.

Theory of operation. Facts wait in an outbox (`outbox.py`) until a transaction takes them. Inside it, what the journal
has already is skipped, the rest goes through the meter, and journal rows and entries are written together; so after a
crash anywhere the database holds a fact with all that follows from it, or neither, and facts that are delivered again
change nothing. If the commit fails, the batch is kept as it is and written again, unless the database has it after all.
At the start the meter is taken from its newest snapshot and what the journal has after it, what an earlier process left
in the outbox is written, and a cut is drawn; another follows at every full hour.

Placement never waits for the database: while it is away `record` only queues, and tries again after a growing, jittered
wait. Nothing queued is ever dropped; `behind_ms` and `full` say how bad it is. When `record` returns, its facts are in
the database or in the outbox's file, unless that cannot be written either, and then `trouble` says so.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TypeVar

from fairlead.errors import BooksDoNotVerify, FairleadError, Unreachable, UnreadableInput
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import Entry
from fairlead.ledger.meter import HOUR_MS, Meter
from fairlead.ledger.timeline import HoldKey
from fairlead.model import codec
from fairlead.model.codec import Cut
from fairlead.model.events import EndedUnseen, Event, MemberReleased
from fairlead.model.prices import Decision
from fairlead.model.standings import Standings
from fairlead.model.tenancy import Queue
from fairlead.reports import usage as usage_report
from fairlead.reports.budgets import BudgetStanding, BudgetTally, Now
from fairlead.reports.prices import correction
from fairlead.reports.queue_usage import QueueTally, QueueUsage
from fairlead.reports.usage import By, UsageReport
from fairlead.service.batches import Batch, ended_by, known
from fairlead.service.outbox import Outbox, Queued
from fairlead.service.snapshot_writer import SNAPSHOT_AFTER, SnapshotWriter
from fairlead.store import engine as database
from fairlead.store import entries, journal, rollups, usage
from fairlead.units import TICKS_PER_GPU_MS

OUTBOX_BYTES = 256 * 2**20
OUTBOX_MS = 3_600_000
BATCH = 1_000  # facts a transaction
RETRY_MS = 200
RETRY_MAX_MS = 30_000

T = TypeVar("T")
_log = logging.getLogger("fairlead.books")


def _pass(_name: str) -> None:
    """Do nothing at a failpoint."""


class Bookkeeper:
    """`ports.Books` over SQLite or PostgreSQL. One writer; every method may be called from any thread."""

    def __init__(
        self,
        url: str,
        *,
        cluster: str = "embedded",
        outbox: Path | None = None,
        jitter: random.Random | None = None,
        failpoint: Callable[[str], None] = _pass,
        snapshot_after: int = SNAPSHOT_AFTER,
    ) -> None:
        """Nothing is opened yet; `open` does it and raises, or the first `record` does it and retries.

        `cluster` becomes part of every entry's id and must stay the same for one database. `outbox` is the file of what
        the database does not take; without one it lies beside a SQLite file, and for PostgreSQL there is none.
        `failpoint` is called with the name of each step of a transaction (tests kill the process there).
        `snapshot_after` is the `SnapshotWriter`'s.
        """
        self.url = url
        self.cluster = cluster
        self._away = ""
        self._fault = ""
        self._unkept = ""
        self._engine = database.connect(url)
        self._jitter = jitter or random.Random()
        self._failpoint = failpoint
        self._lock = threading.RLock()
        self._tally, self._budgets = QueueTally(), BudgetTally()
        self._tally_lock = threading.Lock()  # taken before the other where both are
        beside = database.file_of(self._engine)
        self._outbox = Outbox(outbox or (beside and beside.with_name(f"{beside.name}-outbox")))
        self._snapshots = SnapshotWriter(self._engine, snapshot_after)
        self._batch: Batch | None = None
        self._meter: Meter | None = None
        self._resuming = False  # a cut is to be drawn at the newest moment the journal knew, before anything new
        self._asked_ms = -1  # the last hour for which a cut was put into the outbox
        self._journal_head = Head()
        self._ledger_head = Head()
        self._began_at: int | None = None  # the journal's last number before this process wrote
        self._retry_at_ms = 0
        self._failures = 0

    def open(self) -> None:
        """Make or upgrade the tables and rebuild the meter from its snapshot and the journal.

        Raises
        ------
        Unreachable
            The database does not answer.
        BooksDoNotVerify
            They are another cluster's books, or the journal cannot be read.
        """
        with self._lock:
            if self._meter is None:
                self._start()

    def close(self) -> None:
        """Close the database's connections and the outbox; what waits there is the next process's."""
        with self._lock:
            self._keep()
            self._outbox.close()
            self._engine.dispose()

    def record(self, facts: Sequence[Event | Standings], now_ms: int) -> Sequence[HoldKey]:
        """Take facts in order and write what waits; return the holds whose closing entries are committed now.

        Call it with no facts every few seconds too: that retries after a failure and draws the hourly cut. Never
        raises for what the database does; `trouble` has the sentence.
        """
        with self._lock:
            for fact in facts:
                self._outbox.put(fact, now_ms)
            closed: list[HoldKey] = []
            if not now_ms < self._retry_at_ms <= now_ms + RETRY_MAX_MS:
                try:
                    self._drain(now_ms, closed)
                except FairleadError as error:
                    self._failed(error, now_ms)
            self._keep()
            return tuple(dict.fromkeys(closed))

    def cut(self, now_ms: int) -> None:
        """Post every open segment up to `now_ms` and commit.

        Raises
        ------
        Unreachable
            The database is away; what waits is kept.
        """
        with self._lock:
            self._outbox.put(Cut(at_ms=now_ms), now_ms)
            try:
                self._drain(now_ms, [])
            finally:
                self._keep()

    def decide(self, facts: Sequence[Decision | EndedUnseen | MemberReleased], now_ms: int) -> None:
        """Commit what somebody decided, beside whoever keeps the fleet's books; no cut is drawn. Raises as `open` does,
        and BooksDoNotVerify where somebody else wrote at the same moment; then nothing was written."""
        with self._lock:
            self.open()
            self._resuming = False
            for fact in facts:
                self._outbox.put(fact, now_ms)
            try:
                self._drain(now_ms, [], draw_cut=False)
            except FairleadError:
                self._outbox.forget()
                self._batch = self._meter = None
                raise

    def committed(self, hold: HoldKey) -> bool:
        """Return whether a hold has ended in these books and that is committed."""
        with self._lock:
            if self._meter is None or not self._meter.is_over(hold):
                return False
            return self._batch is None or hold not in self._batch.closed

    def open_holds(self) -> tuple[HoldKey, ...]:
        """Return the holds that no fact has ended yet. At start, those the cluster no longer has were released
        unseen: say so with `MemberReleased` and its `estimated_ms`."""
        with self._lock:
            return () if self._meter is None else self._meter.open_holds()

    def priced_by(self, now_ms: int) -> tuple[str, ...]:
        """Return the names of the price books that hold now or later."""
        with self._lock:
            return () if self._meter is None else self._meter.pricing.holding(now_ms)

    @property
    def trouble(self) -> str:
        """What is wrong, as a sentence: the last failure while facts wait, or books that do not replay, and where what
        waits cannot be put on disk; else ""."""
        with self._lock:
            return "; ".join(filter(None, (self._away or self._fault, self._unkept)))

    @property
    def newest_ms(self) -> int | None:
        """The time of the newest record, None where there is none: the last moment the books know of."""
        with self._lock:
            return None if self._meter is None else self._meter.newest_ms

    @property
    def head(self) -> Head:
        """The last committed entry's number and hash, to be published outside the database."""
        with self._lock:
            return self._ledger_head

    def behind_ms(self, now_ms: int) -> int:
        """Return for how long the oldest fact has been waiting for the database, 0 where none waits."""
        with self._lock:
            oldest_ms = self._outbox.oldest_ms
            return 0 if oldest_ms is None else max(0, now_ms - oldest_ms)

    def full(self, now_ms: int) -> bool:
        """Return whether the outbox is over its limit; nothing is dropped, but somebody must act."""
        with self._lock:
            return self._outbox.bytes >= OUTBOX_BYTES or self.behind_ms(now_ms) >= OUTBOX_MS

    def usage(
        self, now_ms: int, *, since_ms: int | None = None, until_ms: int | None = None, by: By = By.JOB
    ) -> UsageReport:
        """Report usage with open segments up to `now_ms`; nothing is posted for it. Raises as `_read` does."""
        with self._lock:
            meter = self._up_to_date()
            with database.reading(self._engine) as connection:
                amounts = usage.amounts(connection, since_ms, until_ms, jobs=by is By.JOB)
            return usage_report.report(
                amounts, meter.open_segments(), as_of_ms=now_ms, since_ms=since_ms, until_ms=until_ms, by=by
            )

    def queue_usage(self, now_ms: int) -> QueueUsage:
        """Sum what each queue has held, open segments up to `now_ms` included. Raises as `_read` does."""
        return self._read(lambda connection, now: self._tally.read(connection, now.number, now.segments, now_ms))

    def budgets(self, queues: Mapping[str, Queue], now_ms: int) -> tuple[BudgetStanding, ...]:
        """Say how each budget stands, open segments up to `now_ms` included. Raises as `_read` does."""
        return self._read(lambda connection, now: self._budgets.read(connection, now, queues, now_ms))

    def _read(self, take: Callable[[database.Connection, Now], T]) -> T:
        """Read as of one moment, one reader at a time; writing goes on. Raises Unreachable: it is away, or behind."""
        with self._tally_lock:
            with self._lock:
                meter = self._up_to_date()
                now = Now(self._ledger_head.number, tuple(meter.open_segments()), meter.pricing)
            return self._look(lambda connection: take(connection, now))

    def ask(self, take: Callable[[database.Connection], T]) -> T:
        """Read what others write, or what was committed long ago. Raises as `_read` does."""
        with self._lock:
            self._up_to_date()
        return self._look(take)

    def _up_to_date(self) -> Meter:
        """Return the meter of books in which nothing waits. Raises Unreachable."""
        self.open()
        if self._meter is None or self._outbox:
            raise Unreachable("the books are behind: the database did not take the last facts")
        return self._meter

    def _look(self, take: Callable[[database.Connection], T]) -> T:
        alone = self._lock if database.is_shared(self._engine) else nullcontext()
        with alone, database.reading(self._engine) as connection:
            return take(connection)

    def _start(self) -> None:
        """Open the outbox and the database and replay its journal; the meter is set only when all of it is read."""
        self._outbox.open()
        database.upgrade(self._engine)
        with database.writing(self._engine) as connection:
            cluster = journal.set_meta(connection, "cluster", self.cluster)
            unit = journal.set_meta(connection, "ticks_per_gpu_ms", str(TICKS_PER_GPU_MS))
        if cluster != self.cluster or unit != str(TICKS_PER_GPU_MS):
            mine = f"not of {self.cluster!r} in {TICKS_PER_GPU_MS}"
            raise BooksDoNotVerify(f"these are the books of cluster {cluster!r} in {unit} ticks a GPU-ms, {mine}")
        with database.writing(self._engine) as connection:
            rollups.catch_up(connection)
        with database.reading(self._engine) as connection:
            self._journal_head, self._ledger_head = journal.head(connection), entries.head(connection)
            meter, head = self._snapshots.begin(connection, self._ledger_head)
        if self._began_at is None:
            self._began_at = self._journal_head.number
        self._fault = ""
        if head != self._ledger_head:
            self._fault = (
                f"a replay of the journal ends at entry {head.number}, the ledger at {self._ledger_head.number}: "
                "run `fairlead ledger verify`"
            )
            _log.error("books do not replay: %s", self._fault)
        self._meter = meter
        self._resuming = True

    def _drain(self, now_ms: int, closed: list[HoldKey], *, draw_cut: bool = True) -> None:
        """Write everything that waits, a transaction a batch; `closed` grows with each commit."""
        if self._meter is None:
            self._start()
        assert self._meter is not None
        hour = now_ms // HOUR_MS * HOUR_MS
        known_ms = self._meter.cut_ms or self._meter.newest_ms
        if draw_cut and known_ms is not None and max(known_ms, self._asked_ms) < hour:
            self._outbox.put(Cut(at_ms=hour), now_ms)
            self._asked_ms = hour
        while self._outbox or self._correct_late_prices(now_ms):
            retried = self._batch is not None
            with database.writing(self._engine) as connection:
                self._failpoint("begun")
                batch = self._batch = self._batch or self._prepare(connection, now_ms)
                if batch.rows and not (retried and journal.known(connection, [batch.rows[0].id])):
                    journal.append(connection, batch.rows)
                    self._failpoint("journal")
                    entries.append(connection, batch.sealed)
                    self._failpoint("entries")
                    rollups.add(connection, batch.sealed)
                    self._failpoint("rollups")
            self._failpoint("committed")
            self._journal_head, self._ledger_head = batch.journal_head, batch.ledger_head
            if self._outbox.restored:
                self._began_at = batch.journal_head.number  # an earlier process wrote these, so to say
            self._outbox.done()
            self._batch = None
            closed += batch.closed
            self._snapshots.committed(batch, self._meter)
        self._failures = self._retry_at_ms = 0
        self._away = ""

    def _correct_late_prices(self, now_ms: int) -> bool:
        """Queue what prices that came late change of what is posted; returns whether there are any."""
        assert self._meter is not None
        fact = correction(self._engine, self._meter.pricing)
        if fact is not None:
            self._outbox.put(fact, now_ms)
        return fact is not None

    def _prepare(self, connection: database.Connection, now_ms: int) -> Batch:
        """Take facts from the outbox through the meter; what the journal has already is not taken twice."""
        assert self._meter is not None
        assert self._began_at is not None
        with ExitStack() as undo:
            taken = self._outbox.take(BATCH)
            undo.callback(self._outbox.give_back)
            queued = [*self._resumed(now_ms), *taken]
            ids, there, news = known(connection, queued, self._began_at)
            undo.pop_all()
        self._resuming = self._resuming and self._outbox.restored > 0
        rows: list[journal.Row] = []
        posted: list[Entry] = []
        closed: list[HoldKey] = []
        head = self._journal_head
        for item, fact in zip(queued, ids, strict=True):
            record = item.record
            if fact in there:
                closed += [hold for hold in ended_by(record) if self._meter.is_over(hold)]
                if fact not in news:
                    continue
                record = news.pop(fact)
            data = item.data if record is item.record else codec.encode(record)
            row, head = journal.make_row(head, record, data, item.since_ms)
            there[fact] = row.number
            outcome = self._meter.apply(record, row.id)
            rows.append(row)
            posted += outcome.entries
            closed += outcome.closed
        sealed, ledger_head = seal(self._ledger_head, posted)
        return Batch(tuple(rows), tuple(sealed), tuple(closed), head, ledger_head)

    def _resumed(self, now_ms: int) -> list[Queued]:
        """Return the cut that comes after all that an earlier process knew, where it is not drawn yet."""
        assert self._meter is not None
        if not self._resuming or self._outbox.restored or self._meter.newest_ms is None:
            return []
        record = Cut(at_ms=self._meter.newest_ms)
        return [Queued(record, codec.encode(record), now_ms)]

    def _keep(self) -> None:
        """Put what waits on disk; placement goes on where that cannot be done either."""
        unkept = ""
        try:
            self._outbox.keep()
        except FairleadError as error:
            unkept = f"{error}: {len(self._outbox)} facts are in memory only"
        if unkept and not self._unkept:
            _log.error("facts are not on disk: %s", unkept)
        self._unkept = unkept

    def _failed(self, error: FairleadError, now_ms: int) -> None:
        """Say so, and wait longer each time. Where a row contradicts the database, somebody else has written: begin
        again from what is there."""
        if isinstance(error, (BooksDoNotVerify, UnreadableInput)) and self._meter is not None:
            self._outbox.give_back()
            self._batch = self._meter = None
        self._failures += 1
        wait = min(RETRY_MAX_MS, RETRY_MS << min(self._failures, 10))
        self._retry_at_ms = now_ms + self._jitter.randint(wait // 2, wait)
        self._away = str(error)
        _log.warning("books behind by %d facts, next try in %d ms: %s", len(self._outbox), wait, error)
