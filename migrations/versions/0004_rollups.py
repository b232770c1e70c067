"""Sums of the timeline by quarter and by day; in PostgreSQL the index over times becomes one of block ranges.

The sums of what is there already are made by the first who opens the books to write. Entries come in order of time, so
block ranges find a window as well as a tree does, and cost next to nothing when rows are appended.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; change the index."""
    op.create_table(
        "rollup",
        *[sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in ("length_ms", "start_ms")],
        *[sa.Column(name, sa.Text, primary_key=True) for name in ("account", "pool")],
        sa.Column("ticks", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_context().dialect.name == "postgresql":
        op.drop_index("entry_time", "entry")
        op.create_index("entry_time", "entry", ["to_ms", "from_ms"], postgresql_using="brin")


def downgrade() -> None:
    """Drop the sums, and that they were made."""
    op.drop_table("rollup")
    op.execute("DELETE FROM meta WHERE name = 'rollups'")
    if op.get_context().dialect.name == "postgresql":
        op.drop_index("entry_time", "entry")
        op.create_index("entry_time", "entry", ["to_ms", "from_ms"])
