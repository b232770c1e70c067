"""Closed periods leave the database: exported with their chain's head, and dropped; an archive is verified in place."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from fairlead.errors import BooksDoNotVerify, UnreadableInput
from fairlead.ledger.archive import FORMAT, Heading
from fairlead.ledger.chain import GENESIS, Head, Sealed
from fairlead.ledger.periods import (
    PeriodState,
    Step,
    closed,
    digest,
    line_text,
    merged,
    problems,
    seal_step,
    state_of,
    stated,
    summed,
)
from fairlead.model.calendars import Grain
from fairlead.reports.queue_usage import month_start_ms
from fairlead.reports.statements import calendar_of, lines_of
from fairlead.store import archive_file, entries, journal, periods, rollups, usage
from fairlead.store import engine as database

KEEP_MONTHS = 13
"""How many whole months before the present one stay in the database at least."""


def archive(engine: database.Engine, name: str, path: Path, *, actor: str) -> Step:
    """Write the entries that a closed period ends with to a file, and say so in the books; return that step.

    They are those after the archive before, so archives follow each other without a gap.

    Raises
    ------
    UnreadableInput
        It is not closed, archived already, or not the next one.
    Unreachable
        The file cannot be written, or is there.
    """
    with database.reading(engine) as connection:
        steps = periods.steps(connection)
        at = _archivable(steps, name)
        before = [step for step in steps if step.state is PeriodState.ARCHIVED]
        after = Head(before[-1].entries_to, before[-1].entries_hash) if before else Head(0, GENESIS)
        heading = Heading(
            format=FORMAT,
            cluster=journal.get_meta(connection, "cluster"),
            period=name,
            after=after,
            head=Head(at.entries_to, at.entries_hash),
        )
        now_ms = usage.newest_ms(connection) or 0
        rows = entries.read(connection, after=after.number, up_to=at.entries_to)
        lines, sha256 = archive_file.write(path, heading, rows)
        carried = periods.sums(connection, usage.EVER, (after.number, at.entries_to), name)
        latest_ms = periods.latest_ms(connection, at.entries_to)
    if lines != at.entries_to - after.number:
        raise BooksDoNotVerify(f"period {name}: {lines} entries are there, {at.entries_to - after.number} were closed")
    step = replace(
        at,
        number=steps[-1].number + 1,
        state=PeriodState.ARCHIVED,
        at_ms=now_ms,
        actor=actor,
        latest_ms=latest_ms,
        lines=lines,
        sha256=sha256,
    )
    sealed = seal_step(steps[-1], step)
    with database.writing(engine) as connection:
        periods.append(connection, [sealed])
        periods.freeze(connection, periods.carried_name(name), [line_text(line) for line in carried])
    return sealed


def _archivable(steps: Sequence[Step], name: str) -> Step:
    """Return the step that closed a period; raise where it cannot be archived now."""
    state, done = state_of(steps, name), closed(steps)
    if state is PeriodState.ARCHIVED:
        raise UnreadableInput(f"period {name} is archived already")
    if state is not PeriodState.CLOSED:
        raise UnreadableInput(f"period {name} is {state}; close it first: `fairlead ledger close {name}`")
    due = next(step for step in done if state_of(steps, step.period) is PeriodState.CLOSED)
    if due.period != name:
        raise UnreadableInput(f"period {name}: {due.period} comes first; run `fairlead ledger archive {due.period}`")
    return due


def drop(engine: database.Engine, name: str, path: Path, *, keep_months: int = KEEP_MONTHS) -> int:
    """Delete the entries of an archived period from the database; return how many there were.

    `path` must be its archive: it is read again first. The statement stays, and so does the journal.

    Raises
    ------
    UnreadableInput
        It is not archived, too young, or the database's last entries; or some of them speak of a time that no statement
        has yet.
    BooksDoNotVerify
        The file is not what was archived.
    """
    with database.reading(engine) as connection:
        steps, calendar = periods.steps(connection), calendar_of(connection)
        at = next((step for step in steps if step.period == name and step.state is PeriodState.ARCHIVED), None)
        if at is None:
            raise UnreadableInput(f"period {name} is {state_of(steps, name)}; archive it first")
        kept_ms = calendar.at(Grain.MONTH, usage.newest_ms(connection) or 0).from_ms
        for _ in range(keep_months):
            kept_ms = calendar.at(Grain.MONTH, kept_ms - 1).from_ms
        if at.to_ms > kept_ms:
            raise UnreadableInput(f"period {name} is younger than {keep_months} months; name fewer with --keep-months")
        if entries.head(connection).number <= at.entries_to:
            raise UnreadableInput(f"period {name} has the last entry there is; try again after the next full hour")
        told = closed(steps)[-1].to_ms
        if at.latest_ms > told:
            due = calendar.at(Grain.MONTH, told).name
            raise UnreadableInput(f"period {name}: some entries speak of a later time; close {due} first")
        if at.latest_ms > month_start_ms(usage.newest_ms(connection) or 0):
            raise UnreadableInput(f"period {name}: some entries speak of this month; try again in the next")
    if archive_file.digest(path) != at.sha256:
        raise BooksDoNotVerify(f"{path} is not the archive of {name}: its SHA-256 is not {at.sha256}")
    with database.writing(engine) as connection:
        rollups.take_out(connection, at.entries_to)
        return periods.drop(connection, at.entries_to)


def earlier(connection: database.Connection, files: Sequence[Path]) -> Iterator[Sealed]:
    """Yield the entries that the database has no more, in order, from the archives that have them.

    Raises
    ------
    UnreadableInput
        Archives are needed and not named; the text says which.
    BooksDoNotVerify
        A file is damaged.
    """
    with archived(connection, files) as rows:
        yield from rows


@contextmanager
def archived(
    connection: database.Connection, files: Sequence[Path], only: Step | None = None
) -> Generator[Iterator[Sealed]]:
    """Give the entries that the database has no more, or those of one archive, from the files that have them.

    Raises as `earlier` does.
    """
    wanted = periods.dropped(connection) if only is None else [only]
    known = {archive_file.digest(path): path for path in files}
    missing = [f"{step.period} ({step.sha256})" for step in wanted if step.sha256 not in known]
    if missing:
        raise UnreadableInput(f"entries are in archives; name with --archive those of {', '.join(missing)}")
    with ExitStack() as stack:
        parts = [stack.enter_context(archive_file.opened(known[step.sha256])) for step in wanted]
        yield chain.from_iterable(rows for _, rows in parts)


def findings(connection: database.Connection, files: Sequence[Path] = ()) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the periods and their statements, the first step first.

    A statement is worked out again from its entries, those in archives too. Raises as `earlier` does.
    """
    steps = periods.steps(connection)
    for number, field, message in problems(steps):
        yield f"period step {number}: {field}: {message}"
        return
    for step in periods.dropped(connection):
        with archived(connection, files, step) as rows:
            there = [line_text(line) for line in summed(rows, step.period)]
        if there != list(periods.frozen(connection, periods.carried_name(step.period))):
            yield f"period step {step.number}: the sums of the entries that were dropped were changed"
    with archived(connection, files) as rows:
        told = stated(rows, closed(steps))
    done: list[Step] = []
    for step in closed(steps):
        texts = list(periods.frozen(connection, step.period))
        if (len(texts), digest(texts)) != (step.lines, step.sha256):
            yield f"period step {step.number}: sha256: the statement of {step.period} was changed"
        else:
            lines = merged(lines_of(connection, step.span, done, step.entries_to), told.get(step.period, {}))
            if digest(line_text(line) for line in lines) != step.sha256:
                yield f"period step {step.number}: sha256: the entries say something else than the statement"
        done.append(step)
