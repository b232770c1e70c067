"""The same books in PostgreSQL: the same chain, the same refusals. Skips where there is no server to start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from books_story import story

from fairlead.errors import BooksDoNotVerify, Unreachable
from fairlead.ledger.audit import audit
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, journal, tables

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own on a free loopback port; it refuses to run as root, so then it runs as `nobody`."""
    # Debian keeps the server's programs off PATH, a folder a version.
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    places = os.pathsep.join([os.environ.get("PATH", ""), *debian])
    initdb, postgres = shutil.which("initdb", path=places), shutil.which("postgres", path=places)
    if not initdb or not postgres:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL's server is needed with CI=true; make test installs it")
        pytest.skip("there is no PostgreSQL server to start (initdb, postgres)")
    folder = Path("/tmp") / f"fairlead-pg-{os.getpid()}"
    folder.mkdir(mode=0o700)
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", str(data), "-U", "fairlead", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
        check=True, user=user, capture_output=True, timeout=120,
    )  # fmt: skip
    command = [postgres, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-c", "fsync=off"], user=user, stdout=log, stderr=log)
    url = f"postgresql://fairlead@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 60
        engine = database.connect(url)
        while True:
            try:
                with database.reading(engine):
                    break
            except Unreachable:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        engine.dispose()
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: does not wait for connections
        process.wait(30)
        shutil.rmtree(folder)


def test_the_same_facts_make_the_same_chain(server: str, tmp_path: Path) -> None:
    heads, reports = [], []
    for url in (server, f"sqlite:///{tmp_path}/b.sqlite"):
        books = Bookkeeper(url)
        for now_ms, facts in story():
            books.record(facts, now_ms)
            carried_on = books.queue_usage(now_ms)
        assert books.trouble == ""
        heads.append(books.head)
        late = 1_700_000_000_000
        reports.append((carried_on, books.usage(2 * late, since_ms=5_000, until_ms=late), books.usage(4 * 3_600_000)))
        books.close()
    assert heads[0] == heads[1]
    assert reports[0] == reports[1]
    engine = database.connect(server)
    assert database.findings(engine) == ()
    with database.reading(engine) as connection:
        found = audit(journal.get_meta(connection, "cluster"), journal.read(connection), entries.read(connection))
    assert found.verified
    assert found.head == heads[0]
    for table in tables.APPEND_ONLY:
        for statement in (f"UPDATE {table} SET number = 0", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
            with pytest.raises((BooksDoNotVerify, Unreachable), match="append-only"), database.writing(engine) as open_:
                open_.exec_driver_sql(statement)
    engine.dispose()
