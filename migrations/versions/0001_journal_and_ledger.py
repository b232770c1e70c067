"""The journal of facts and the ledger, and the triggers that keep both append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("journal", "entry", "posting")


def upgrade() -> None:
    """Make the four tables and two triggers on each of the three that only grow."""
    op.create_table(
        "meta",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "journal",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("recorded_ms", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_index("journal_subject", "journal", ["subject", "kind"])
    op.create_table(
        "entry",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("kind", "fact")],
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("node", "device", "pool")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("from_ms", "to_ms")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("gang", "namespace", "name")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("attempt", "rank", "estimated_ms")],
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_index("entry_gang", "entry", ["gang", "attempt", "rank"])
    op.create_index("entry_time", "entry", ["to_ms", "from_ms"])
    op.create_table(
        "posting",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("ticks", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["number"], ["entry.number"], name="posting_entry"),
    )
    for statement in _protect():
        op.execute(statement)


def downgrade() -> None:
    """Drop everything: there is nothing before this."""
    for table in ("posting", "entry", "journal", "meta"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION fairlead_append_only()")


def _protect() -> list[str]:
    """Return the statements that make UPDATE and DELETE fail."""
    if op.get_context().dialect.name == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for table in APPEND_ONLY
            for verb in ("UPDATE", "DELETE")
        ]
    function = (
        "CREATE FUNCTION fairlead_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    rows = [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION fairlead_append_only()"
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    ]
    truncates = [
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION fairlead_append_only()"
        for table in APPEND_ONLY
    ]
    return [function, *rows, *truncates]
