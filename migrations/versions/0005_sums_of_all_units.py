"""Sums of entries in all units by hour and by day; indexes that find long entries, and the newest record.

The sums of what is there already are made by the first who opens the books to write.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of sums anew with what is told apart now; add the indexes."""
    _make_anew(("kind", "account", "unit", "pool", "actor", "reason"), "amount")
    long = sa.text("to_ms - from_ms >= 86400000")
    op.create_index("entry_long", "entry", ["from_ms", "to_ms"], sqlite_where=long, postgresql_where=long)
    op.create_index("journal_time", "journal", ["at_ms"])


def downgrade() -> None:
    """Put the earlier table in its place; it is filled as the later one was."""
    op.drop_index("journal_time", "journal")
    op.drop_index("entry_long", "entry")
    _make_anew(("account", "pool"), "ticks")


def _make_anew(names: tuple[str, ...], amount: str) -> None:
    op.drop_table("rollup")
    op.execute("DELETE FROM meta WHERE name = 'rollups'")
    op.create_table(
        "rollup",
        *[sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in ("length_ms", "start_ms")],
        *[sa.Column(name, sa.Text, primary_key=True) for name in names],
        sa.Column(amount, sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
