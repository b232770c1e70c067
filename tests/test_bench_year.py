"""The year's bench runs every job to its end, and says of what it measured."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fairlead.bench import year
from fairlead.cli.main import app
from fairlead.errors import UnreadableInput


def test_every_job_is_run_and_the_same_ones_twice() -> None:
    found = year.run(60, 12)
    assert (found.jobs, found.nodes) == (60, 12)
    assert 340 < found.days < 390, "sixty jobs are spread over a year"
    assert 0 < found.busy_percent < 100
    assert found.facts > 60 * 6
    again = year.run(60, 12)
    assert (again.facts, again.days, again.avg_wait_s) == (found.facts, found.days, found.avg_wait_s)


def test_the_verb_prints_one_document_and_names_what_is_out_of_range() -> None:
    done = CliRunner().invoke(app, ["bench", "year", "--jobs", "20", "--nodes", "8", "--json"])
    assert json.loads(done.stdout)["jobs"] == 20
    for words in (["--jobs", "0"], ["--nodes", "0"], ["--seed", "-1"]):
        refused = CliRunner().invoke(app, ["bench", "year", *words])
        assert isinstance(refused.exception, UnreadableInput)
        assert words[0] in str(refused.exception)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_short_year_on_a_small_fleet_waits(seed: int) -> None:
    assert year.run(40, 2, seed=seed).avg_wait_s >= 0
