"""Postings of other units than ticks, and who decided on an entry, why, and which one it mends.

No row is written anew: what is there keeps its bytes, its hash and its triggers. The way back is refused where rows say
what the older schema has no words for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOTES = ("actor", "reason", "refers")


def upgrade() -> None:
    """Add the columns; old rows are ticks, and nobody decided on them."""
    for name in NOTES:
        op.add_column("entry", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.execute("ALTER TABLE posting RENAME COLUMN ticks TO amount")
    op.add_column("posting", sa.Column("unit", sa.Text, nullable=False, server_default="ticks"))


def downgrade() -> None:
    """Take the columns away, unless something stands in them."""
    said = " OR ".join(f"{name} <> ''" for name in NOTES)
    for query in (f"SELECT 1 FROM entry WHERE {said} LIMIT 1", "SELECT 1 FROM posting WHERE unit <> 'ticks' LIMIT 1"):
        if not op.get_context().as_sql and op.get_bind().execute(sa.text(query)).first() is not None:
            raise RuntimeError("the books have entries that version 0001 cannot hold; they stay at 0002")
    op.drop_column("posting", "unit")
    op.execute("ALTER TABLE posting RENAME COLUMN amount TO ticks")
    for name in NOTES:
        op.drop_column("entry", name)
