"""How a meter begins, and when it is written down so that the next one begins sooner."""

from __future__ import annotations

import logging

from fairlead.errors import FairleadError
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.meter import Meter
from fairlead.model.codec import Cut
from fairlead.service.batches import Batch
from fairlead.store import engine as database
from fairlead.store import snapshots

SNAPSHOT_AFTER = 50_000
"""Records and entries that a start would have to replay: about ten seconds."""

_log = logging.getLogger("fairlead.books")


class SnapshotWriter:
    """Writes a snapshot after a cut, once `after` records and entries came since the last one."""

    def __init__(self, engine: database.Engine, after: int = SNAPSHOT_AFTER) -> None:
        """Nothing is read yet."""
        self._engine = engine
        self._after = after
        self._since = 0

    def begin(self, connection: database.Connection, ledger: Head) -> tuple[Meter, Head]:
        """Return the meter as of the journal's end, and the head of the entries that it made; `ledger` is the books'.

        Where these differ, what a snapshot says is not believed, and the whole journal is replayed.
        """
        start = snapshots.start(connection)
        meter, head = self._replay(connection, start)
        if head != ledger and start.number:
            _log.warning(
                "event=snapshot_not_used record=%d detail='what follows it is not what is booked'", start.number
            )
            meter, head = self._replay(connection, snapshots.start(connection, anew=True))
        return meter, head

    def committed(self, batch: Batch, meter: Meter) -> None:
        """Hear that a batch is in the books, all that the meter knows; write a snapshot where it is time.

        Where that fails it is done without until the next cut: nothing is lost but time.
        """
        self._since += len(batch.rows) + len(batch.sealed)
        if self._since < self._after or not any(row.kind == Cut.__name__ for row in batch.rows):
            return
        try:
            with database.writing(self._engine) as connection:
                snapshots.keep(connection, meter, batch.journal_head, batch.ledger_head)
            self._since = 0
        except FairleadError as error:
            _log.warning("event=snapshot_not_written error=%r", str(error))

    def _replay(self, connection: database.Connection, start: snapshots.Start) -> tuple[Meter, Head]:
        head, self._since = start.head, 0
        for outcome in snapshots.replayed(connection, start):
            head = seal(head, outcome.entries)[1]
            self._since += 1 + len(outcome.entries)
        return start.meter, head
