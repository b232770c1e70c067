"""What the bench of wasted work compares: the same days, and never more lost than with the newest first."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fairlead.bench import waste
from fairlead.cli.main import app
from fairlead.errors import UnreadableInput
from fairlead.placement.lenders_first import look_for_room_by_excess
from fairlead.planning import decide as deciding


def test_the_same_seed_is_the_same_day_and_the_search_is_put_back() -> None:
    assert waste.run("mixed", 3) == waste.run("mixed", 3)
    assert deciding.look_for_room_by_excess is look_for_room_by_excess


@pytest.mark.parametrize("world", waste.WORLDS)
def test_over_some_days_no_more_is_lost_than_with_the_newest_first(world: str) -> None:
    rows = [waste.run(world, seed) for seed in range(2)]
    assert sum(row.newest_stops for row in rows) > 0, "a world without stops compares nothing"
    assert waste.summary(rows).total_ratio <= waste.WORST


def test_the_command_prints_a_row_for_each_world() -> None:
    done = CliRunner().invoke(app, ["bench", "waste", "--seeds", "1", "--worlds", "often", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["world"] for row in json.loads(done.output)["worlds"]] == ["often"]
    refused = CliRunner().invoke(app, ["bench", "waste", "--worlds", "sometimes"])
    assert isinstance(refused.exception, UnreadableInput), "main turns it into exit code 2"
