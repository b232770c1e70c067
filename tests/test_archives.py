"""A closed period leaves the database with its chain's head; whoever verifies takes the archive in its place (P5)."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from ledger_facts import node
from months import Months, ms
from postgres_server import PostgresServer
from typer.testing import CliRunner

from fairlead.cli.ledger import app
from fairlead.errors import BooksDoNotVerify, NotFound, Unreachable, UnreadableInput
from fairlead.ledger.archive import read_entries
from fairlead.ledger.audit import Audit
from fairlead.ledger.periods import PeriodState
from fairlead.model.events import NodeSeen
from fairlead.reports import archives, statements, usage
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries

REFUSED = (BooksDoNotVerify, Unreachable)


def three_months(where: Path | str) -> Months:
    """September closed early and corrected in October, October and November closed; December open."""
    months = Months(where).pass_to("2026-10-01T00:00Z")
    months.close("2026-09", wait=False)
    lost, back = ms("2026-09-30T21:30Z"), ms("2026-10-01T02:00Z")
    months.at(back, NodeSeen(node=node(not_ready_since_ms=lost), at_ms=back), NodeSeen(node=node(), at_ms=back + 1))
    months.pass_to("2026-11-03T00:00Z").close("2026-10")
    months.pass_to("2026-12-03T00:00Z").close("2026-11")
    return months.pass_to("2026-12-20T00:00Z")


def verified(months: Months, *files: Path) -> Audit:
    with database.reading(months.engine) as connection:
        return verify(connection, files)


@pytest.fixture
def months(tmp_path: Path) -> Months:
    return three_months(tmp_path)


def test_an_archive_stands_in_for_what_was_dropped(months: Months, tmp_path: Path) -> None:
    before, frozen = verified(months), statements.statement(months.engine, "2026-09")
    sums, queues = usage.from_database(months.engine), months.books.queue_usage(ms("2026-12-20T01:00Z")).total
    first, second = tmp_path / "2026-09.jsonl.gz", tmp_path / "2026-10.jsonl.gz"
    step = archives.archive(months.engine, "2026-09", first, actor="ann")
    assert step.lines == step.entries_to == frozen.entries_to
    assert archives.drop(months.engine, "2026-09", first, keep_months=0) == step.lines
    again = archives.archive(months.engine, "2026-10", second, actor="ann")
    assert again.lines == again.entries_to - step.entries_to
    assert archives.drop(months.engine, "2026-10", second, keep_months=0) == again.lines
    found = verified(months, second, first)  # in any order
    assert found == before
    assert found.verified
    assert statements.statement(months.engine, "2026-09").lines == frozen.lines
    with pytest.raises(UnreadableInput, match=f"name with --archive those of 2026-10 .{again.sha256}"):
        verified(months, first)
    # Sums over all time go on as before; a window that would cut what is gone is refused.
    assert usage.from_database(months.engine) == sums
    late = usage.from_database(months.engine, since_ms=ms("2026-12-01T00:00Z"))
    assert late.fleet[0].capacity_gpu_ms == 4 * (late.as_of_ms - ms("2026-12-01T00:00Z"))
    with pytest.raises(UnreadableInput, match="--since: entries before 2026-11-03T01:00:00Z are in archives"):
        usage.from_database(months.engine, since_ms=ms("2026-10-02T00:00Z"))
    assert Bookkeeper(months.url).queue_usage(late.as_of_ms).total == queues
    # The books go on, and start again, without the archive.
    months.at(ms("2026-12-21T00:00Z"), NodeSeen(node=node(sick=(1,)), at_ms=ms("2026-12-21T00:00Z")))
    reopened = Bookkeeper(months.url)
    reopened.open()
    assert reopened.trouble == ""
    assert verified(months, first, second).verified


def test_only_what_an_archive_has_may_be_deleted(months: Months, tmp_path: Path) -> None:
    path = tmp_path / "a"
    step = archives.archive(months.engine, "2026-09", path, actor="ann")
    for table in ("posting", "entry"):
        with pytest.raises(BooksDoNotVerify, match="append-only"), database.writing(months.engine) as connection:
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE number > {step.entries_to}")
    assert verified(months).verified


def test_a_statement_of_dropped_entries_is_worked_out_from_the_archive(months: Months, tmp_path: Path) -> None:
    path = tmp_path / "a"
    archives.archive(months.engine, "2026-09", path, actor="ann")
    archives.drop(months.engine, "2026-09", path, keep_months=0)
    with database.writing(months.engine) as connection:
        for verb in ("update", "delete"):
            connection.exec_driver_sql(f"DROP TRIGGER posting_no_{verb}")
        connection.exec_driver_sql("UPDATE posting SET amount = amount + 840 WHERE account LIKE 'held:%'")
    with database.reading(months.engine) as connection:
        assert "the entries say something else" in next(iter(archives.findings(connection, [path])))


def test_sums_of_dropped_entries_that_were_changed_are_found(months: Months, tmp_path: Path) -> None:
    path = tmp_path / "a"
    archives.archive(months.engine, "2026-09", path, actor="ann")
    archives.drop(months.engine, "2026-09", path, keep_months=0)
    with database.writing(months.engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER statement_no_delete")
        connection.exec_driver_sql("DELETE FROM statement WHERE period = '2026-09 archived' AND line = 1")
    with database.reading(months.engine) as connection:
        assert "the sums of the entries that were dropped" in next(iter(archives.findings(connection, [path])))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2026-12", "2026-12 is open; close it first: `fairlead ledger close 2026-12`"),
        ("2026-10", "2026-09 comes first; run `fairlead ledger archive 2026-09`"),
    ],
)
def test_what_cannot_be_archived_is_refused(months: Months, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        archives.archive(months.engine, name, tmp_path / "a", actor="ann")
    assert not (tmp_path / "a").exists()


def test_what_cannot_be_dropped_stays(months: Months, tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    with pytest.raises(UnreadableInput, match="2026-09 is closed; archive it first"):
        archives.drop(months.engine, "2026-09", path)
    archives.archive(months.engine, "2026-09", path, actor="ann")
    with pytest.raises(UnreadableInput, match="is archived already"):
        archives.archive(months.engine, "2026-09", other, actor="ann")
    with pytest.raises(UnreadableInput, match="younger than 13 months; name fewer with --keep-months"):
        archives.drop(months.engine, "2026-09", path)
    with pytest.raises(UnreadableInput, match="younger than 3 months"):
        archives.drop(months.engine, "2026-09", path, keep_months=3)
    with pytest.raises(NotFound, match="no file"):
        archives.drop(months.engine, "2026-09", other, keep_months=2)
    other.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"vision", b"speech")))
    with pytest.raises(BooksDoNotVerify, match="is not the archive of 2026-09"):
        archives.drop(months.engine, "2026-09", other, keep_months=2)
    other.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BooksDoNotVerify, match="the archive is damaged"):
        archives.drop(months.engine, "2026-09", other, keep_months=2)
    with pytest.raises(Unreachable, match="cannot be written"):
        archives.archive(months.engine, "2026-10", path, actor="ann")
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []
    assert archives.drop(months.engine, "2026-09", path, keep_months=2) > 0


def test_entries_of_a_time_that_has_no_statement_yet_are_not_dropped(tmp_path: Path) -> None:
    months = Months(tmp_path).pass_to("2026-10-20T00:00Z")
    months.close("2026-09")
    months.pass_to("2026-11-01T00:00Z")
    archives.archive(months.engine, "2026-09", tmp_path / "a", actor="ann")
    with pytest.raises(UnreadableInput, match="some entries speak of a later time; close 2026-10 first"):
        archives.drop(months.engine, "2026-09", tmp_path / "a", keep_months=0)


def test_the_last_entries_are_not_dropped(tmp_path: Path) -> None:
    months = Months(tmp_path)
    months.books.cut(ms("2026-09-30T22:00Z"))
    months.close("2026-09", wait=False)
    archives.archive(months.engine, "2026-09", tmp_path / "a", actor="ann")
    with pytest.raises(UnreadableInput, match="has the last entry there is"):
        archives.drop(months.engine, "2026-09", tmp_path / "a", keep_months=0)


@pytest.mark.parametrize("line", [b"x", b"{}", b'{"entry":{},"hash":"h","number":1}', b"[1]", b"\xff"])
def test_lines_that_are_no_entries_are_named(line: bytes) -> None:
    with pytest.raises(BooksDoNotVerify, match="file, line 2: is no entry"):
        list(read_entries([line], name="file"))


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b'{"format":"other","cluster":"c","period":"p","after":{},"head":{}}\n']
)
def test_files_that_are_no_archives_are_named(tmp_path: Path, content: bytes) -> None:
    from fairlead.store import archive_file

    (tmp_path / "a").write_bytes(gzip.compress(content))
    with (
        pytest.raises(BooksDoNotVerify, match=r"a is no archive of books|format: is 'other'"),
        archive_file.opened(tmp_path / "a"),
    ):
        pass


def test_the_commands(tmp_path: Path) -> None:
    months = Months(tmp_path).pass_to("2026-10-05T00:00Z")
    run = CliRunner().invoke
    books = ["--database", months.url]
    done = run(app, ["close", "2026-09", *books, "--actor", "ann", "--time-zone", "Europe/Berlin"])
    assert (done.exit_code, done.stdout.splitlines()[1][:20]) == (0, "2026-09 is closed: 4"), done.output
    shown = run(app, ["statement", "2026-09", *books]).stdout
    assert "held:lab:vision:in-quota  main  ns/job-g1" in shown
    lines = run(app, ["statement", "2026-09", *books, "--lines"]).stdout
    import hashlib

    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    assert "2026-09 is closed; 2026-09-30T" not in shown
    assert sha256 in shown
    listed = run(app, ["periods", *books]).stdout
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["closing", "closed"]
    assert sha256 in listed
    path = tmp_path / "2026-09.jsonl.gz"
    command = ["archive", "2026-09", *books, "--actor", "ann", "--to", str(path)]
    assert run(app, command).exit_code == 0
    months.pass_to("2026-11-05T00:00Z").close("2026-10")
    months.pass_to("2026-11-06T00:00Z")
    assert "entries were deleted" in run(app, [*command, "--drop", "--keep-months", "0"]).stdout
    assert isinstance(run(app, ["verify", *books]).exception, UnreadableInput)
    done = run(app, ["verify", *books, "--archive", str(path)])
    assert (done.exit_code, "the books balance" in done.stdout) == (0, True), done.output
    assert PeriodState.ARCHIVED.value in run(app, ["periods", *books, "--json"]).stdout


@pytest.mark.postgres
def test_the_same_in_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    found = []
    for number, where in enumerate((postgres.schema(), tmp_path)):
        months = three_months(where)
        path = tmp_path / f"{number}.gz"
        step = archives.archive(months.engine, "2026-09", path, actor="ann")
        with pytest.raises(REFUSED, match="append-only"), database.writing(months.engine) as connection:
            connection.exec_driver_sql("DELETE FROM posting")
        archives.drop(months.engine, "2026-09", path, keep_months=0)
        with pytest.raises(REFUSED, match="append-only"), database.writing(months.engine) as connection:
            connection.exec_driver_sql("DELETE FROM statement")
        assert verified(months, path).verified
        assert database.findings(months.engine) == ()
        with database.reading(months.engine) as connection:
            head = entries.head(connection)
        found.append((step, head, statements.statement(months.engine, "2026-10"), path.read_bytes()))
        months.books.close()
        months.engine.dispose()
    assert found[0] == found[1]
