"""Periods and their frozen statements; entries of an archived period may go, all others still may not."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("period", "statement")
ARCHIVABLE = ("entry", "posting")
_ARCHIVED = "(SELECT coalesce(max(entries_to), 0) FROM period WHERE state = 'archived')"


def upgrade() -> None:
    """Make the two tables with their triggers; let archived entries be deleted."""
    op.create_table(
        "period",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("period", "state")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("from_ms", "to_ms")],
        sa.Column("zone", sa.Text, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("month_starts_on", "at_ms")],
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("entries_to", sa.BigInteger, nullable=False),
        sa.Column("entries_hash", sa.Text, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("latest_ms", "lines")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("sha256", "hash")],
        sa.UniqueConstraint("period", "state", name="period_once"),
    )
    op.create_table(
        "statement",
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    if _is_sqlite():
        for table in APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                _refuse(table, verb)
        for table in ARCHIVABLE:
            op.execute(f"DROP TRIGGER {table}_no_delete")
            _refuse(table, "DELETE", f"WHEN OLD.number > {_ARCHIVED} ")
        return
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            _refuse(table, verb)
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION fairlead_append_only()"
        )
    op.execute(
        "CREATE FUNCTION fairlead_archived_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF OLD.number > {_ARCHIVED} THEN "
        "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END IF; RETURN OLD; END $$"
    )
    for table in ARCHIVABLE:
        op.execute(f"DROP TRIGGER {table}_no_delete ON {table}")
        _refuse(table, "DELETE", function="fairlead_archived_only")


def downgrade() -> None:
    """Take the tables away, unless a period was closed; put the triggers back as they were."""
    query = sa.text("SELECT 1 FROM period LIMIT 1")
    if not op.get_context().as_sql and op.get_bind().execute(query).first() is not None:
        raise RuntimeError("the books have periods that version 0002 cannot hold; they stay at 0003")
    for table in ARCHIVABLE:
        op.execute(f"DROP TRIGGER {table}_no_delete" + ("" if _is_sqlite() else f" ON {table}"))
        _refuse(table, "DELETE")
    for table in APPEND_ONLY:
        op.drop_table(table)
    if not _is_sqlite():
        op.execute("DROP FUNCTION fairlead_archived_only()")


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _refuse(table: str, verb: str, when: str = "", function: str = "fairlead_append_only") -> None:
    """Make UPDATE or DELETE fail; in SQLite where `when` holds, in PostgreSQL where the function says so."""
    name = f"{table}_no_{verb.lower()}"
    if _is_sqlite():
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {verb} ON {table} {when}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    else:
        op.execute(f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()")
