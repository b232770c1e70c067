"""Write the big tables anew, row by row inside the database, where a migration must change what a row looks like.

Rows only ever come in order, so whoever wants another type, another layout or fresh pages builds new tables beside the
old ones. They are filled in order of number, compared with the old ones row by row, and take their place together with
all that protected them. It is one transaction: a process that dies anywhere in it leaves the old tables. Whoever wants
to read or write meanwhile waits, or is told that the database is busy; the books put facts into their outbox.

An Alembic migration calls `rewrite(op.get_bind(), tables, values)`, with the tables as *it* makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateTable

from fairlead.errors import BooksDoNotVerify
from fairlead.store import protection
from fairlead.store.tables import BIG

LOCK_MS = 5_000
"""How long PostgreSQL waits for whoever uses the tables; SQLite waits for another writer as long."""
CACHE_KIB = 1_048_576
"""Pages that SQLite may keep meanwhile: an index over ids, which come in no order, is written once if it fits."""

_PATIENT = (
    "statement_timeout = 0",
    "maintenance_work_mem = '256MB'",
    "enable_nestloop = off",  # new tables have neither keys nor statistics yet: whatever is guessed, join them whole
)

Values = Mapping[str, Mapping[str, str]]
"""table -> column -> an SQL expression over the old row: what stands there, where it is not what stood there."""


def _pass(_name: str) -> None:
    """Do nothing at a failpoint."""


def rewrite(
    connection: sa.Connection,
    tables: Sequence[sa.Table] = BIG,
    values: Values | None = None,
    *,
    failpoint: Callable[[str], None] = _pass,
) -> dict[str, int]:
    """Write tables anew as they are given here, and return how many rows each has. The caller commits.

    What is in a column stays as it is, byte for byte, but for those that `values` names; a column that changes its
    type, or is new, must be named there, and none may go. Triggers, owner and grants are made again.

    Parameters
    ----------
    tables
        With all that a foreign key names, before the one that has it.
    failpoint
        Is called with the name of each step (tests kill the process there).

    Raises
    ------
    BooksDoNotVerify
        A row is not the same afterwards; or the tables have something that would be lost.
    sqlalchemy.exc.DBAPIError
        As any statement of the caller's transaction does: somebody else uses the tables, the disk is full.
    """
    names = [table.name for table in tables]
    expressions = values or {}
    with _prepared(connection, names):
        kept = {name: protection.of(connection, name) for name in names}
        olds = [_old(connection, table, expressions.get(table.name, {})) for table in tables]
        news = _beside(connection, tables)
        counts: dict[str, int] = {}
        for old, new, table in zip(olds, news, tables, strict=True):
            columns = [column.name for column in new.columns]
            query = old.order_by(*(sa.column(key.name) for key in table.primary_key))
            connection.execute(new.insert().from_select(columns, query))
            failpoint(f"copied {table.name}")
        for old, new, table in zip(olds, news, tables, strict=True):
            counts[table.name] = _compare(connection, old, new, table)
        failpoint("compared")
        for name in reversed(names):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        failpoint("dropped")
        for new, name in zip(news, names, strict=True):
            connection.exec_driver_sql(f"ALTER TABLE {new.name} RENAME TO {name}")
        failpoint("renamed")
        _finish(connection, tables)
        for name in names:
            protection.restore(connection, name, kept[name])
            assert protection.of(connection, name) == kept[name], name
        failpoint("protected")
    return counts


@contextmanager
def _prepared(connection: sa.Connection, names: Iterable[str]) -> Generator[None]:
    """Take the tables for ourselves, and let statements take the time and memory that such large ones need."""
    if connection.dialect.name == "postgresql":
        for setting in (f"lock_timeout = {LOCK_MS}", *_PATIENT):
            connection.exec_driver_sql(f"SET LOCAL {setting}")
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
        yield
        return
    before = connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
    connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = {before}")


def _old(connection: sa.Connection, table: sa.Table, values: Mapping[str, str]) -> sa.Select[*tuple[Any, ...]]:
    """Return what the new rows must be, as a query of the old ones. What would lose something is a caller's bug."""
    there = {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(table.name)}
    said = {*there, *values}
    assert said == {*table.columns.keys()}, f"{table.name} has {sorted(there)}, and {sorted(values)} are given"
    for column in table.columns:
        types = [kind.compile(connection.dialect) for kind in (there.get(column.name, column.type), column.type)]
        assert column.name in values or types[0] == types[1], (
            f"{table.name}.{column.name} was {types[0]}: say its value"
        )
    parts: list[sa.ColumnElement[object]] = [
        sa.literal_column(values[column.name]).label(column.name) if column.name in values else sa.column(column.name)
        for column in table.columns
    ]
    return sa.select(*parts).select_from(sa.table(table.name))


def _beside(connection: sa.Connection, tables: Sequence[sa.Table]) -> list[sa.Table]:
    """Make empty tables for the new rows; PostgreSQL builds keys faster when all rows are there."""
    apart = sa.MetaData()
    for table in tables:
        columns = [
            sa.Column(
                column.name,
                column.type,
                nullable=column.nullable,
                autoincrement=False,
                server_default=_default(column),
            )
            for column in table.columns
        ]
        keys = _keys(table) if connection.dialect.name == "sqlite" else []
        new = sa.Table(_fresh(table), apart, *columns, *keys)
        connection.execute(CreateTable(new))
    return [apart.tables[_fresh(table)] for table in tables]


def _default(column: sa.Column[object]) -> Any:
    default = column.server_default
    if default is None:
        return None
    assert isinstance(default, sa.DefaultClause), f"{column}: {default} would be lost"
    return default.arg


def _keys(table: sa.Table) -> Iterator[sa.Constraint]:
    for constraint in table.constraints:
        name = constraint.name if isinstance(constraint.name, str) else None
        match constraint:
            case sa.PrimaryKeyConstraint():
                yield sa.PrimaryKeyConstraint(*constraint.columns.keys(), name=name)
            case sa.UniqueConstraint():
                yield sa.UniqueConstraint(*constraint.columns.keys(), name=name)
            case sa.ForeignKeyConstraint():
                parent = _fresh(constraint.referred_table)
                target = [f"{parent}.{element.column.name}" for element in constraint.elements]
                yield sa.ForeignKeyConstraint(constraint.columns.keys(), target, name=name)
            case _:
                raise AssertionError(f"{table.name}: {constraint} would be lost")


def _fresh(table: sa.Table) -> str:
    return f"{table.name}_rewritten"


def _compare(connection: sa.Connection, due: sa.Select[*tuple[Any, ...]], new: sa.Table, table: sa.Table) -> int:
    """Compare every value of every row; return how many rows there are.

    Raises
    ------
    BooksDoNotVerify
        They differ; the text names the first row and the column.
    """
    old = due.subquery("old_row")
    keys = [column.name for column in table.primary_key]
    same = sa.and_(*(old.c[key] == new.c[key] for key in keys))
    differs = {name: old.c[name].is_distinct_from(new.c[name]) for name in table.columns.keys()}  # noqa: SIM118
    query = (
        sa.select(*(old.c[key] for key in keys), *(flag.label(f"is_{name}") for name, flag in differs.items()))
        .select_from(old.outerjoin(new, same))
        .where(sa.or_(*differs.values()))
        .limit(1)
    )
    found = connection.execute(query).first()
    if found is not None:
        wrong = [name for name, flag in zip(differs, found[len(keys) :], strict=True) if flag]
        where = ", ".join(f"{key} {value}" for key, value in zip(keys, found, strict=False))
        raise BooksDoNotVerify(f"{table.name}, {where}: {', '.join(wrong)} would be another after the rewriting")
    counts = [connection.scalar(sa.select(sa.func.count()).select_from(rows)) for rows in (old, new)]
    if counts[0] != counts[1]:
        raise BooksDoNotVerify(f"{table.name} has {counts[0]} rows and would have {counts[1]} after the rewriting")
    return int(counts[1] or 0)


def _finish(connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """Build what waits until all rows are there; works on copies, because a constraint remembers how it was built."""
    apart = sa.MetaData()
    for table in [table.to_metadata(apart) for table in tables]:
        if connection.dialect.name == "postgresql":
            for constraint in sorted(table.constraints, key=lambda c: not isinstance(c, sa.PrimaryKeyConstraint)):
                connection.execute(AddConstraint(constraint))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.create(connection)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ANALYZE {table.name}")
