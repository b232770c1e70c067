"""The commands of docs/how-to/close-a-month.md do what the page says, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from months import BEGIN, Months
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.cli.main import app
from fairlead.ledger.periods import PeriodState

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "close-a-month.md"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Priced(Months):
    """Months whose devices have a price."""

    def tell_first(self) -> None:
        self.at(BEGIN, priced(price("inQuota=2.50"), at_ms=BEGIN))


def test_the_commands_close_and_archive_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    months = Priced(tmp_path).pass_to("2026-10-05T00:00Z")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRLEAD_DATABASE_URL", months.url)
    monkeypatch.setenv("FAIRLEAD_ACTOR", "finance")
    said: dict[str, str] = {}
    for line in commands():
        words, _, into = line.partition(" > ")
        done = CliRunner().invoke(app, shlex.split(words)[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        said[line] = done.stdout
        if into:
            (tmp_path / into).write_text(done.stdout, encoding="utf-8")
    assert [step.state for step in months.steps()] == [
        PeriodState.CLOSING,
        PeriodState.CLOSED,
        PeriodState.ARCHIVED,
    ]
    assert "credit:outage" in (tmp_path / "2026-09.jsonl").read_text(encoding="utf-8")
    assert len(said) == len(commands()) >= 9


def test_on_the_fourth_one_call_takes_both_steps_and_a_second_one_does_nothing(tmp_path: Path) -> None:
    months = Months(tmp_path).pass_to("2026-10-04T00:30Z")
    command = ["ledger", "close", "2026-09", "--time-zone", "Europe/Berlin", "--actor", "finance"]
    first, second = (CliRunner().invoke(app, [*command, "--database", months.url]) for _ in range(2))
    assert (first.exit_code, str(second.exception)[:25]) == (0, "period 2026-09 is closed;")
    assert [step.state for step in months.steps()] == [PeriodState.CLOSING, PeriodState.CLOSED]
