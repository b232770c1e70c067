"""Which books a command line opens, and opening them to read: a file that is not there is not made by looking."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.errors import NotFound, UnreadableInput

if TYPE_CHECKING:
    from fairlead.model.events import EndedUnseen, MemberReleased
    from fairlead.model.prices import Decision
    from fairlead.store.engine import Engine

DEFAULT_URL = "sqlite:///fairlead.sqlite"

DatabaseOption = Annotated[
    str, typer.Option("--database", envvar="FAIRLEAD_DATABASE_URL", help="URL of the books' database.")
]
FileOption = Annotated[Path | None, typer.Option("--file", help="SQLite file of the books, instead of --database.")]
ActorOption = Annotated[str, typer.Option("--actor", envvar="FAIRLEAD_ACTOR", help="Who does it: a role or pseudonym.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def url_of(url: str, file: Path | None) -> str:
    """Return the URL that the two options name together."""
    return url if file is None else f"sqlite:///{file}"


@contextmanager
def to_read(url: str) -> Generator[Engine]:
    """Open existing books whose schema is this version's.

    Raises
    ------
    NotFound
        There is no such file.
    UnreadableInput
        The database has no books, or those of another version; the text has the command that mends it.
    """
    from fairlead.store import engine as database

    engine = existing(url)
    try:
        current, newest = database.versions(engine)
        if current != newest:
            what = f"books of schema version {current}" if current else "no books"
            raise UnreadableInput(f"{shown(engine)} has {what}; run `fairlead db upgrade` (version {newest})")
        yield engine
    finally:
        engine.dispose()


def decided(url: str, facts: Sequence[Decision | EndedUnseen | MemberReleased]) -> None:
    """Write what somebody decided into books that are there, and what follows from it, in one transaction or more.

    Raises
    ------
    NotFound, UnreadableInput, Unreachable, BooksDoNotVerify
        There are no such books, or they do not take it.
    """
    from fairlead.service.bookkeeper import Bookkeeper
    from fairlead.store import engine as database
    from fairlead.store import journal

    with to_read(url) as engine, database.reading(engine) as connection:
        cluster = journal.get_meta(connection, "cluster")
    books = Bookkeeper(url, cluster=cluster)
    try:
        books.decide(facts, max(fact.at_ms for fact in facts))
    finally:
        books.close()


def existing(url: str) -> Engine:
    """Return an engine, after a look whether a SQLite file is there at all. Raises NotFound."""
    from fairlead.service.memory import calm_collector
    from fairlead.store import engine as database

    calm_collector()  # a large fleet's meter is millions of objects
    engine = database.connect(url, statement_ms=database.PATIENT_MS)
    file = database.file_of(engine)
    if file is not None and not file.is_file():
        raise NotFound(f"there is no file {file}; name the books with --database or --file")
    return engine


def shown(engine: Engine) -> str:
    """Return the database's address without its password."""
    return engine.url.render_as_string(hide_password=True)
