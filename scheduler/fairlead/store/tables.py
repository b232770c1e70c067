"""Every SQL table, on one page. Migrations build exactly these; a test compares.

Nothing is ever updated or deleted but `meta`, what can be made anew, and entries of an archived period: triggers
refuse it in both databases.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

meta = sa.Table(
    "meta",  # what these books are: the cluster they belong to, and their unit
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # dense, from 1
    sa.Column("id", sa.Text, nullable=False, unique=True),  # SHA-256 of payload
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),  # gang uid, or node, queue or pool
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("recorded_ms", sa.BigInteger, nullable=False),  # the one thing that no hash covers
    sa.Column("payload", sa.Text, nullable=False),  # canonical JSON
    sa.Column("hash", sa.Text, nullable=False),  # the journal's own chain
    sa.Index("journal_subject", "subject", "kind"),
    sa.Index("journal_time", "at_ms"),
)

entry = sa.Table(
    "entry",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # dense, from 1
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("fact", sa.Text, nullable=False),  # journal.id
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("to_ms", sa.BigInteger, nullable=False),
    sa.Column("gang", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("estimated_ms", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False, server_default=""),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("refers", sa.Text, nullable=False, server_default=""),  # entry.id of what it splits or mends
    sa.Index("entry_gang", "gang", "attempt", "rank"),
    sa.Index("entry_time", "to_ms", "from_ms", postgresql_using="brin"),
)

LONG = entry.c.to_ms - entry.c.from_ms >= sa.literal_column("86400000")
"""Which entries are of a day or more, in the words of the index that finds them."""
sa.Index("entry_long", entry.c.from_ms, entry.c.to_ms, sqlite_where=LONG, postgresql_where=LONG)

posting = sa.Table(
    "posting",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),  # 0 is capacity
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("unit", sa.Text, nullable=False, server_default="ticks"),  # or money:<currency>, in nano-units
    sa.ForeignKeyConstraint(["number"], ["entry.number"], name="posting_entry"),
)

period = sa.Table(
    "period",  # what became of periods, a row a step; see `ledger.periods.Step`
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # dense, from 1
    sa.Column("period", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("to_ms", sa.BigInteger, nullable=False),
    sa.Column("zone", sa.Text, nullable=False),
    sa.Column("month_starts_on", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("entries_to", sa.BigInteger, nullable=False),
    sa.Column("entries_hash", sa.Text, nullable=False),
    sa.Column("latest_ms", sa.BigInteger, nullable=False),
    sa.Column("lines", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.UniqueConstraint("period", "state", name="period_once"),
)

statement = sa.Table(
    "statement",  # frozen at close; see `ledger.periods.Line`
    metadata,
    sa.Column("period", sa.Text, primary_key=True),  # or what entries of an archive sum to, where they were dropped
    sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),  # canonical JSON
)

rollup = sa.Table(
    "rollup",  # sums of entries by hour and by day (ledger/rollup.py); can be made anew
    metadata,
    *(sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in ("length_ms", "start_ms")),
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("kind", "account", "unit", "pool", "actor", "reason")),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

meter_snapshot = sa.Table(
    "meter_snapshot",  # all that the meter knew after a record of the journal (store/snapshots.py); can be made anew
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # journal.number
    sa.Column("journal_hash", sa.Text, nullable=False),
    sa.Column("entries_to", sa.BigInteger, nullable=False),  # the last entry of then, entry.number
    sa.Column("entries_hash", sa.Text, nullable=False),
    sa.Column("form", sa.Text, nullable=False),  # how `content` is to be read
    sa.Column("sha256", sa.Text, nullable=False),  # of `content`
    sa.Column("content", sa.LargeBinary, nullable=False),
)

BIG = (journal, entry, posting)
"""The tables that grow with every fact, in the order in which who locks several does so."""

APPEND_ONLY = ("journal", "entry", "posting", "period", "statement")
"""The tables that triggers protect, each by ``<table>_no_update`` and ``<table>_no_delete``."""

_WIDE = 2**31


def wide_sum(amount: sa.ColumnElement[int]) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
    """Return two sums for `joined_sum`: a large fleet's year does not fit in the 64 bits that SQLite adds in."""
    return sa.func.sum(amount // _WIDE), sa.func.sum(amount % _WIDE)


def joined_sum(high: int, low: int) -> int:
    """Put the two sums of `wide_sum` together."""
    return int(high) * _WIDE + int(low)
