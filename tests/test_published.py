"""`fairlead ledger verify --head`: the books against the ends of their chains that were published outside of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_facts import node
from months import Months
from typer.testing import CliRunner

from fairlead.cli.ledger import app
from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger.chain import GENESIS, Head
from fairlead.ledger.periods import seal_step
from fairlead.ledger.published import Published, read_config_map, with_step
from fairlead.model.events import NodeSeen
from fairlead.reports import archives
from fairlead.reports.published import compare
from fairlead.store import engine as database
from fairlead.store import entries, journal, periods

A, B = "a" * 64, "b" * 64


@pytest.fixture
def months(tmp_path: Path) -> Months:
    return Months(tmp_path).pass_to("2026-10-05T00:00Z")


def now_published(months: Months) -> Published:
    return with_step(months.books.head, months.books.ask(periods.last), months.books.ask(journal.head))


def written(said: Published, **more: str) -> str:
    return json.dumps({"kind": "ConfigMap", "data": said.to_data() | {"at": "2026-10-05T00:00:00Z"} | more})


def run(months: Months, said: Published, *more: str) -> Any:
    command = ["verify", "--database", months.url, "--head", "-", *more]
    return CliRunner().invoke(app, command, input=written(said))


def sentences(months: Months, said: Published, *files: Path) -> list[str]:
    with database.reading(months.engine) as connection:
        return [finding.sentence for finding in compare(connection, said, files).findings]


def untied(months: Months, *statements: str) -> None:
    """Do what somebody does who may do anything with the database."""
    with database.writing(months.engine) as connection:
        for table in ("entry", "posting", "period"):
            for verb in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}")
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_books_that_went_on_have_what_was_published(months: Months) -> None:
    early = now_published(months)
    assert early == Published(months.books.head, Head(), "", months.books.ask(journal.head))
    months.close("2026-09")
    late = now_published(months)
    assert (late.steps, late.period) == (Head(2, months.steps()[-1].hash), "2026-09 closed")
    months.pass_to("2026-11-05T00:00Z").close("2026-10")
    for said in (early, late, now_published(months), Published(Head())):
        assert sentences(months, said) == []
    found = run(months, late)
    assert found.exit_code == 0, found.output
    assert f"published: entry {late.entries.number} in the books, period step 2 in the books" in found.stdout
    assert "in the books, no period step" in run(months, Published(late.entries)).stdout
    told = json.loads(run(months, late, "--json").stdout)
    assert told["published"] == {"entry": late.entries.number, "archive": "", "step": 2, "record": late.journal.number}
    assert told["verified"]
    bare = CliRunner().invoke(app, ["verify", "--database", months.url, "--json"])
    assert json.loads(bare.stdout)["published"] is None


def test_books_of_an_earlier_day_verify_by_themselves_but_not_against_the_head(months: Months, tmp_path: Path) -> None:
    months.close("2026-09", wait=False)
    (tmp_path / "copy").mkdir()
    Months(tmp_path / "copy").books.close()  # the same story up to its beginning, and no period closed
    older = Months(tmp_path / "copy")
    said = now_published(months)
    found = run(older, said, "--json")
    assert found.exit_code == 7
    told = json.loads(found.stdout)
    end = older.books.head.number
    assert (told["verified"], told["published"]["entry"]) == (False, said.entries.number)
    assert [(f["entry"], f["record"], f["field"]) for f in told["findings"]] == [
        (said.entries.number, None, "number"),
        (None, None, "periods"),
        (None, said.journal.number, "hash"),
    ]
    assert f"published with the hash {said.entries.hash}; the last one here is {end}:" in told["findings"][0]["message"]
    assert told["findings"][1]["message"].startswith("period step 2 (2026-09 closed): number: was published with")
    text = run(older, said)
    assert (text.exit_code, text.stdout.count("WRONG"), "published:" in text.stdout) == (7, 3, False)


def test_a_record_that_no_entry_shows_cannot_be_written_anew(months: Months) -> None:
    """How everybody stood is in no entry: whoever changes such a fact, and the journal's chain after it, is found."""
    said = now_published(months)
    assert said.journal is not None
    number, true = said.journal.number, said.journal.hash
    with database.writing(months.engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER journal_no_update")
        connection.exec_driver_sql(f"UPDATE journal SET hash = '{A}' WHERE number = {number}")
    found = (
        f"journal record {number}: hash: is {A}; published was {true}: it, or what comes before it, was written anew"
    )
    assert sentences(months, said) == [found]
    assert sentences(months, Published(said.entries)) == []
    cut_off = Published(said.entries, journal=Head(number + 5, B))
    assert sentences(months, cut_off)[0].startswith(f"journal record {number + 5}: number: was published with the hash")


def test_a_tail_that_was_written_anew_is_found(months: Months, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Months(tmp_path / "other").pass_to("2026-10-04T00:00Z").pass_to("2026-10-05T00:00Z")
    said = now_published(months)
    other.pass_to("2026-10-06T00:00Z")
    assert other.books.head.number > said.entries.number
    with database.reading(other.engine) as connection:
        there = entries.hash_of(connection, said.entries.number)
    assert run(other, now_published(other)).exit_code == 0
    found = run(other, said)
    assert found.exit_code == 7
    assert f"WRONG  entry {said.entries.number}: hash: is {there}; published was {said.entries.hash}" in found.stdout


def test_a_newest_step_that_was_written_anew_or_taken_away_is_found(months: Months) -> None:
    months.close("2026-09")
    said = now_published(months)
    first, last = months.steps()
    untied(months, "DELETE FROM period WHERE number = 2")
    assert ["period step 2 (2026-09 closed): number" in s for s in sentences(months, said)] == [True]
    forged = seal_step(first, type(last)(**{**{f: getattr(last, f) for f in last.__slots__}, "actor": "bob"}))
    with database.writing(months.engine) as connection:
        periods.append(connection, [forged])
    assert months.findings() == []  # by themselves they hold
    assert sentences(months, said) == [
        f"the ledger: periods: period step 2 (2026-09 closed): hash: is {forged.hash}; published was {last.hash}: "
        "it, or what comes before it, was written anew"
    ]


def test_findings_of_the_books_come_before_those_of_the_head(months: Months) -> None:
    said = Published(Head(months.books.head.number + 5, A), Head(1, B), "2026-09 closing")
    untied(months, "UPDATE posting SET amount = amount * 2 WHERE number = 1")
    found = json.loads(run(months, said, "--json").stdout)["findings"]
    assert [finding["entry"] for finding in found] == [1, said.entries.number, None]


def test_an_entry_that_was_dropped_is_compared_with_its_archive(months: Months, tmp_path: Path) -> None:
    months.close("2026-09")
    said, path = now_published(months), tmp_path / "2026-09.gz"
    step = archives.archive(months.engine, "2026-09", path, actor="ann")
    months.pass_to("2026-11-05T00:00Z").close("2026-10")
    at_ms = months.books.newest_ms
    months.at(at_ms + 1, NodeSeen(node=node(sick=(1,)), at_ms=at_ms + 1)).pass_to("2026-11-07T00:00Z")
    archives.drop(months.engine, "2026-09", path, keep_months=0)
    assert said.entries.number <= step.entries_to
    with pytest.raises(UnreadableInput, match="name with --archive those of 2026-09"):
        sentences(months, said)
    found = run(months, said, "--archive", str(path))
    assert found.exit_code == 0, found.output
    where = "in the archive of 2026-09, period step 2 in the books"
    assert f"published: entry {said.entries.number} {where}" in found.stdout
    assert json.loads(run(months, said, "--archive", str(path), "--json").stdout)["published"]["archive"] == "2026-09"
    (told,) = sentences(months, Published(Head(said.entries.number, A), said.steps), path)
    assert told.startswith(f"entry {said.entries.number}: hash: is {said.entries.hash}; published was {A}")
    assert told.endswith("(in the archive of 2026-09)")
    with database.reading(months.engine) as connection:  # the first that is not dropped
        first = Head(step.entries_to + 1, entries.hash_of(connection, step.entries_to + 1) or "")
    assert sentences(months, Published(first), path) == []


def test_what_is_published_reads_back() -> None:
    for said in (
        Published(Head()),
        Published(Head(), Head()),
        Published(Head(12, A), Head(3, B), "2026-10 archived"),
    ):
        assert read_config_map(written(said, replaced="9 x y").encode(), name="f") == said
    assert GENESIS in written(Published(Head()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Input data was truncated"),
        (b"number: 3", "invalid character"),
        (b"\xff\xfe", "invalid"),
        (b"[" * 100_000, "Expected `object`|recursion"),
        (b'{"items": []}', "missing required field `data`"),
        (b'{"data": {"number": 3}}', r"Expected `str`, got `int` - at `\$.data"),
        (b'{"data": {}}', "data.number is missing"),
        (b'{"data": {"number": "3"}}', "data.hash is missing"),
        ({"number": "x"}, "data.number: 'x' is no decimal number"),
        ({"number": "-1"}, "data.number: '-1' is no decimal number"),
        ({"number": "٣"}, "data.number: '٣' is no decimal number"),
        ({"number": "9" * 5000}, "is no decimal number"),
        ({"hash": "A" * 64}, "data.hash: 'A+' is no SHA-256 of 64 hex digits"),
        ({"hash": f"{A}\n"}, "data.hash: .* is no SHA-256"),
        ({"periodNumber": "1"}, "data.periodHash is missing"),
        ({"periodHash": A}, "data.periodNumber is missing"),
        ({"periodHash": A, "periodNumber": "1.0"}, "data.periodNumber: '1.0' is no decimal number"),
    ],
)
def test_a_file_that_is_no_published_head_is_refused_with_its_field_and_the_mend(content: Any, message: str) -> None:
    if isinstance(content, dict):
        content = json.dumps({"data": {"number": "3", "hash": A} | content}).encode()
    with pytest.raises(UnreadableInput, match=message) as caught:
        read_config_map(content, name="--head f")
    assert "`kubectl get configmap fairlead-chain-head -o json`" in str(caught.value)


def test_a_file_that_is_not_there_is_told(months: Months, tmp_path: Path) -> None:
    command = ["verify", "--database", months.url, "--head", str(tmp_path / "no")]
    with pytest.raises(NotFound, match=r"--head: .*no: No such file"):
        CliRunner().invoke(app, command, catch_exceptions=False)
