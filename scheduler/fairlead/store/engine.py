"""Open the database, bring its schema up to date, and run transactions whose failures have our names.

SQLite: WAL, ``synchronous=FULL``, and every writing transaction begins IMMEDIATE, so that two writers queue instead of
failing in the middle. PostgreSQL: by psycopg, with bounds on how long connecting and a statement may take.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

import fairlead
from fairlead.errors import BooksDoNotVerify, Unreachable, UnreadableInput
from fairlead.store import tables

if TYPE_CHECKING:
    from alembic.config import Config

Engine = sa.Engine
Connection = sa.Connection
"""What the other layers pass around without importing SQLAlchemy."""
BUSY_MS = 5_000  # how long SQLite waits for another writer
CONNECT_S = 5
STATEMENT_MS = 60_000
PATIENT_MS = 3_600_000
"""How long a statement may take that somebody asked for by hand and can end: a report over a year by job."""
_READING = "fairlead_reading"


def connect(url: str, *, statement_ms: int = STATEMENT_MS) -> sa.Engine:
    """Return an engine for a SQLAlchemy URL; ``postgresql://`` takes psycopg, a plain path is a SQLite file.

    PostgreSQL ends a statement that takes longer than `statement_ms`.

    Raises
    ------
    UnreadableInput
        The URL cannot be read or names a database other than SQLite and PostgreSQL.
    """
    try:
        parsed = sa.make_url(url if "://" in url else f"sqlite:///{url}")
    except exc.ArgumentError:
        raise UnreadableInput("--database: not a database URL; write sqlite:///FILE or postgresql://…") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed)
    if backend != "postgresql":
        raise UnreadableInput(f"--database: {backend} is not supported; use sqlite:///FILE or postgresql://…")
    options = (f"-c statement_timeout={statement_ms}", *parsed.normalized_query.get("options", ()))
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": CONNECT_S, "options": " ".join(options)},
        pool_pre_ping=True,
    )


def _sqlite(url: sa.URL) -> sa.Engine:
    in_memory = not url.database or url.database == ":memory:"
    options: dict[str, Any] = {"poolclass": sa.StaticPool} if in_memory else {}
    engine = sa.create_engine(
        url, connect_args={"check_same_thread": False, "timeout": BUSY_MS // 1_000}, **options
    )  # fmt: skip

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


@contextmanager
def translated() -> Generator[None]:
    """Turn what a database may do to us into our exceptions; the texts hold no credentials.

    Raises
    ------
    Unreachable
        It does not answer, is locked, full, read-only, or lacks the tables.
    BooksDoNotVerify
        A row contradicts one that is there, or the file is malformed.
    """
    try:
        yield
    except exc.IntegrityError as error:
        raise BooksDoNotVerify(f"the database refuses a row that contradicts one it has: {error.orig}") from error
    except exc.DBAPIError as error:
        text = " ".join(str(error.orig).split())
        if "malformed" in text or "not a database" in text:
            raise BooksDoNotVerify(f"the database file is damaged: {text}") from error
        raise Unreachable(f"the database does not do what is asked: {text}") from error


@contextmanager
def writing(engine: sa.Engine) -> Generator[sa.Connection]:
    """Run one transaction that writes; committed at the end, rolled back by an exception."""
    with translated(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Generator[sa.Connection]:
    """Run one transaction that only reads, all of it from one state of the database.

    PostgreSQL takes that state with the first query. Whoever waits in it for tables that are just being written anew
    would find the new ones empty, so the waiting is done before it.
    """
    with _looking(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(t.name for t in tables.BIG)} IN ACCESS SHARE MODE")
        yield connection


@contextmanager
def _looking(engine: sa.Engine) -> Generator[sa.Connection]:
    """Do as `reading`, also where the tables are not there yet."""
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    with translated(), engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def is_shared(engine: sa.Engine) -> bool:
    """Whether all threads share one connection, as in memory: then nobody may read while somebody writes."""
    return isinstance(engine.pool, sa.StaticPool)


def file_of(engine: sa.Engine) -> Path | None:
    """Return the file of a SQLite database, None where there is none."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


def migrations_folder() -> Path:
    """Return where the migrations lie: in the repository, else inside the installed wheel."""
    package = Path(fairlead.__file__).parent
    in_repository = package.parents[1] / "migrations"
    if (in_repository / "env.py").is_file() and (package.parents[1] / "pyproject.toml").is_file():
        return in_repository
    return package / "_migrations"


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the newest version; does nothing where it is."""
    from alembic import command

    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":  # an index over large books may take its time
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        command.upgrade(_config(connection), "head")


def versions(engine: sa.Engine) -> tuple[str, str]:
    """Return the schema's version ("" where there is none) and the newest that this program knows."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with _looking(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        newest = ScriptDirectory.from_config(_config(connection)).get_current_head()
    return current or "", newest or ""


def findings(engine: sa.Engine) -> tuple[str, ...]:
    """Return how the schema differs from what this version needs, a sentence each; empty where it does not."""
    from alembic import autogenerate
    from alembic.runtime.migration import MigrationContext

    current, newest = versions(engine)
    with _looking(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found: list[str] = []
        if current != newest:
            found.append(f"the schema is at version {current or 'none'}, not {newest}: run `fairlead db upgrade`")
        else:
            found += [f"differs from tables.py: {change}" for change in autogenerate.compare_metadata(
                context, tables.metadata)]  # fmt: skip
            missing = set(_wanted_triggers()) - set(_triggers(connection))
            found += [f"trigger {name} is missing: rows could be changed" for name in sorted(missing)]
        return tuple(found)


def _wanted_triggers() -> Iterator[str]:
    for table in tables.APPEND_ONLY:
        yield f"{table}_no_update"
        yield f"{table}_no_delete"


def _triggers(connection: sa.Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        return list(connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")))
    here = "JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = current_schema()::regnamespace"
    return list(connection.scalars(sa.text(f"SELECT tgname FROM pg_trigger {here} AND NOT tgisinternal")))


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    return config
