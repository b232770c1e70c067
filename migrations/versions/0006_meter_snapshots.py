"""Snapshots of the meter: a start replays what came after the newest one, not the whole journal."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; the first process that has replayed enough fills it."""
    op.create_table(
        "meter_snapshot",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("journal_hash", sa.Text, nullable=False),
        sa.Column("entries_to", sa.BigInteger, nullable=False),
        sa.Column("entries_hash", sa.Text, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop the table: nothing in it can't be made again from the journal."""
    op.drop_table("meter_snapshot")
