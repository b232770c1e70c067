"""P6: kill -9 at every named step of a transaction, deliver the facts again, and the totals are the oracle's.

Also what else may happen to a database: away, another writer, a commit whose answer is lost, and changed bytes.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from books_oracle import gpu_ms
from books_story import run_story, story
from hypothesis import HealthCheck, given, settings
from ledger_books import posted
from ledger_facts import NAMED, node, placement, streams
from typer.testing import CliRunner

from fairlead.cli import db, ledger, report
from fairlead.errors import BooksDoNotVerify, NotFound, Unreachable, UnreadableInput
from fairlead.ledger.audit import Audit
from fairlead.model.codec import Cut
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.reports.usage import By, from_database
from fairlead.reports.verification import verify
from fairlead.service import bookkeeper
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import usage

END_MS = 4 * 3_600_000
STEPS = ("begun", "journal", "entries", "rollups", "committed")


def verified(url: str) -> Audit:
    engine = database.connect(url)
    with database.reading(engine) as connection:
        found = verify(connection)
    engine.dispose()
    assert found.verified, [f.sentence for f in found.findings]
    return found


def oracle(until_ms: int) -> dict[str, int]:
    return gpu_ms([fact for _, facts in story() for fact in facts], until_ms)


def totals(url: str, until_ms: int = END_MS) -> dict[str, int]:
    books = Bookkeeper(url)
    books.open()
    books.cut(until_ms)
    books.close()
    return posted(verified(url))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("times", range(1, 21) if "FAIRLEAD_EVERY_KILL" in os.environ else [1, 9, 20])
def test_killed_anywhere_the_books_come_out_the_same(tmp_path: Path, step: str, times: int) -> None:
    url = f"sqlite:///{tmp_path}/books.sqlite"
    assert run_story(url, step, times) == -signal.SIGKILL
    verified(url)
    assert run_story(url) == 0
    assert totals(url) == oracle(END_MS)
    verified(url)


def test_without_a_crash_every_hold_is_let_go(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/books.sqlite")
    let_go = [hold for now, facts in story() for hold in books.record(facts, now)]
    assert len(let_go) == len(set(let_go)) == 24
    assert all(books.committed(hold) for hold in let_go)
    assert books.open_holds() == ()
    assert not books.committed(("g1", 99, 0))
    # Asked again after a restart, with the same facts, they are let go again; only the cut of the start is new.
    again = Bookkeeper(books.url)
    assert {h for now, facts in story() for h in again.record(facts, now)} == set(let_go)
    assert again.trouble == ""
    held = {name: ms for name, ms in posted(verified(books.url)).items() if name.startswith("held")}
    assert held == {name: ms for name, ms in oracle(END_MS).items() if name.startswith("held")}
    third = Bookkeeper(books.url)
    assert [h for now, facts in story() for h in third.record(facts, now)]
    assert third.head == again.head


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams)
def test_any_stream_twice_and_restarted_verifies(tmp_path: Path, stream: list[Any]) -> None:
    path = tmp_path / "books.sqlite"
    for leftover in tmp_path.glob("books.sqlite*"):
        leftover.unlink()
    books = Bookkeeper(f"sqlite:///{path}", snapshot_after=1)
    books.record([*NAMED, *stream[:10], *stream[:5]], 500)
    books.close()
    books = Bookkeeper(f"sqlite:///{path}")
    books.record([*stream[5:], *stream], 500)
    assert books.trouble == ""
    found = verified(books.url)
    assert books.head == found.head
    live = books.usage(found.newest_ms or 0)
    assert live.balanced
    engine = database.connect(books.url)
    assert from_database(engine) == live
    engine.dispose()
    books.close()


def small_books(path: Path) -> Bookkeeper:
    books = Bookkeeper(f"sqlite:///{path}")
    hold = Intended(
        gang="g1", attempt=1, placement=placement(("n1", (0, 1))), tier=Tier.IN_QUOTA, at_ms=1_000, deadline_ms=2_000
    )  # fmt: skip
    books.record([*NAMED, NodeSeen(node=node(), at_ms=0), hold], 1_000)
    books.record([MemberReleased(gang="g1", attempt=1, rank=0, at_ms=5_000)], 5_000)
    books.record([Cut(at_ms=6_000)], 6_000)  # type: ignore[list-item]
    assert books.trouble == ""
    return books


class Flaky:
    """A failpoint that fails as a database would, as often as it is told."""

    def __init__(self) -> None:
        self.at, self.left = "", 0

    def __call__(self, name: str) -> None:
        if name == self.at and self.left:
            self.left -= 1
            raise Unreachable("the database is away")


def test_while_the_database_is_away_facts_wait_and_nothing_is_lost(tmp_path: Path) -> None:
    flaky = Flaky()
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite", failpoint=flaky, jitter=random.Random(1))
    batches = story()
    for number, (now_ms, facts) in enumerate(batches):
        if number == 4:
            flaky.at, flaky.left = "entries", 3
        closed = books.record(facts, now_ms)
        if number == 5:
            assert closed == ()
            assert "away" in books.trouble
            assert books.behind_ms(now_ms) > 0
            with pytest.raises(Unreachable):
                books.usage(now_ms)
    assert books.behind_ms(END_MS) == 0
    assert totals(books.url) == oracle(END_MS)
    verified(books.url)


def test_retries_wait_longer_each_time_and_the_limit_is_said(tmp_path: Path) -> None:
    flaky = Flaky()
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite", failpoint=flaky, jitter=random.Random(1))
    flaky.at, flaky.left = "begun", 10_000
    now = 0
    for _ in range(400):
        books.record([NodeSeen(node=node(), at_ms=now)], now)
        now += 500
    tries = 10_000 - flaky.left
    assert 8 <= tries <= 30  # 200 s: doubling from 0.2 s, then every 15 to 30 s
    assert not books.full(now)
    assert books.full(bookkeeper.OUTBOX_MS)
    flaky.left = 0
    books.record((), now + bookkeeper.RETRY_MAX_MS)
    assert books.behind_ms(now + bookkeeper.RETRY_MAX_MS) == 0
    assert verified(books.url).records == 400


def test_a_commit_whose_answer_was_lost_is_not_written_twice(tmp_path: Path) -> None:
    flaky = Flaky()
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite", failpoint=flaky)
    books.open()
    flaky.at, flaky.left = "committed", 1
    assert books.record([*NAMED, NodeSeen(node=node(), at_ms=0)], 0) == ()
    books.record([NodeSeen(node=node(sick=(1,)), at_ms=60_000)], 60_000)
    assert books.trouble == ""
    assert verified(books.url).records == len(NAMED) + 2


def test_a_database_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    books = Bookkeeper(f"sqlite:///{folder}/b.sqlite")
    with pytest.raises(Unreachable):
        books.open()
    assert books.record([NodeSeen(node=node(), at_ms=0)], 0) == ()
    folder.mkdir()
    books.record((), 60_000)
    assert books.trouble == ""
    assert verified(books.url).records >= 1


def test_what_another_writer_wrote_is_taken_up(tmp_path: Path) -> None:
    """A leader that lost its lease wrote once more: the new one begins again from what is there."""
    one, two = small_books(tmp_path / "b.sqlite"), Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    two.open()
    one.record([NodeSeen(node=node(sick=(2,)), at_ms=7_000)], 7_000)
    two.record([NodeSeen(node=node(sick=(3,)), at_ms=8_000)], 8_000)
    assert "contradicts" in two.trouble
    two.record((), 60_000)
    assert two.behind_ms(60_000) == 0
    assert verified(two.url).findings == []
    assert totals(two.url, 9_000)["down:main:unhealthy"] == 2_000


def test_books_of_another_cluster_are_refused(tmp_path: Path) -> None:
    small_books(tmp_path / "b.sqlite").close()
    with pytest.raises(BooksDoNotVerify, match="cluster 'embedded'"):
        Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite", cluster="prod").open()


def test_usage_over_a_window_and_open_segments(tmp_path: Path) -> None:
    books = small_books(tmp_path / "b.sqlite")
    assert [(r.tenant, r.queue, r.name, r.gpu_ms) for r in books.usage(8_000).rows] == [
        ("lab", "vision", "job-g1", 8_000)
    ]
    window = books.usage(8_000, since_ms=2_500, until_ms=7_000, by=By.TENANT)
    assert [(r.tenant, r.in_quota_gpu_ms, r.gpu_ms) for r in window.rows] == [("lab", 5_000, 5_000)]
    pool = window.fleet[0]
    assert (pool.capacity_gpu_ms, pool.held_gpu_ms, pool.free_gpu_ms) == (18_000, 5_000, 13_000)
    assert window.balanced
    with pytest.raises(UnreadableInput, match="--since"):
        books.usage(8_000, since_ms=5, until_ms=5)
    engine = database.connect(books.url)
    with database.reading(engine) as connection:
        parts = [usage.amounts(connection, at, at + 700) for at in range(0, 7_000, 700)]
        whole = usage.amounts(connection)
    assert sum(a.ticks for part in parts for a in part if a.account.startswith("held")) == sum(
        a.ticks for a in whole if a.account.startswith("held")
    )


def verify_file(path: Path, *more: str) -> Any:
    return CliRunner().invoke(ledger.app, ["verify", "--file", str(path), *more])


def test_one_byte_of_an_amount_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    books = small_books(path)
    ticks = 4_000 * 840  # held for four seconds
    books.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    amount = ticks.to_bytes(3, "big")
    at = data.index(b"held:lab:vision:in-quota" + amount) + 24 + 2
    data[at] ^= 1
    path.write_bytes(bytes(data))
    bad = verify_file(path)
    assert bad.exit_code == 7
    assert re.search(r"WRONG  entry [34]: postings\[1\]\.amount: is 3360001, must be 3360000", bad.output)
    assert verify_file(path, "--json").exit_code == 7


def test_a_damaged_file_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        CliRunner().invoke(ledger.app, ["verify", "--file", str(tmp_path / "no.sqlite")], catch_exceptions=False)
    assert not (tmp_path / "no.sqlite").exists()
    (tmp_path / "text.sqlite").write_text("this is no database, and long enough to be one " * 50)
    with pytest.raises(BooksDoNotVerify):
        CliRunner().invoke(ledger.app, ["verify", "--file", str(tmp_path / "text.sqlite")], catch_exceptions=False)
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE x (y)")
    with pytest.raises(UnreadableInput, match="fairlead db upgrade"):
        CliRunner().invoke(ledger.app, ["verify", "--file", str(tmp_path / "empty.sqlite")], catch_exceptions=False)


def test_the_command_lines_show_and_report(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    small_books(path).close()
    run = CliRunner()
    shown = run.invoke(ledger.app, ["show", "ns/job-g1", "--file", str(path)])
    assert shown.exit_code == 0
    assert "n1/gpu-0" in shown.output
    assert "held:lab:vision:in-quota" in shown.output
    with pytest.raises(NotFound):
        run.invoke(ledger.app, ["show", "ns/nobody", "--file", str(path)], catch_exceptions=False)
    for by, words in (("queue", "lab     vision"), ("tenant", "lab"), ("job", "job-g1")):
        done = run.invoke(report.app, ["usage", "--by", by, "--file", str(path)])
        assert done.exit_code == 0, done.output
        assert words in done.output
    asked = ["usage", "--json", "--since", "1970-01-01T00:00:02", "--until", "3000", "--file", str(path)]
    assert '"gpu_ms": 2000' in run.invoke(report.app, asked).output
    for wrong in (["--by", "moon"], ["--since", "yesterday"]):
        with pytest.raises(UnreadableInput):
            run.invoke(report.app, ["usage", *wrong, "--file", str(path)], catch_exceptions=False)
    assert run.invoke(db.app, ["check", "--file", str(path)]).exit_code == 0


def test_a_password_is_never_shown() -> None:
    run = ["verify", "--database", "postgresql://me:secret@127.0.0.1:1/books"]
    with pytest.raises(Unreachable) as caught:
        CliRunner().invoke(ledger.app, run, catch_exceptions=False)
    assert "secret" not in str(caught.value)
