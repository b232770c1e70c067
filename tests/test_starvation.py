"""A large gang in a stream that never ends: it starts by its promised time, and what that costs is known."""

from __future__ import annotations

import pytest

from fairlead.bench.starvation import run, study


@pytest.mark.parametrize("undeclared", [0, 30])
def test_a_large_gang_in_a_stream_that_never_ends_starts_by_its_promised_time(undeclared: int) -> None:
    found = run(7, undeclared_percent=undeclared)
    assert found.in_time, found
    assert found.alone_started_min is None, "without promises it starves: else the stream shows nothing"
    assert found.done_gpu_min > 0


def test_the_study_counts_seeds_and_prints_the_loss_against_no_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.bench import starvation

    row = {"promised_min": 30, "started_min": 20, "broken": 0, "alone_started_min": None}
    seeds = {
        1: starvation.Seed(seed=1, done_gpu_min=90, alone_done_gpu_min=100, **row),
        2: starvation.Seed(seed=2, done_gpu_min=100, alone_done_gpu_min=100, **{**row, "started_min": 31}),
        3: starvation.Seed(seed=3, done_gpu_min=110, alone_done_gpu_min=100, **{**row, "broken": 1}),
    }
    monkeypatch.setattr(starvation, "run", lambda seed, undeclared_percent: seeds[seed])
    found = study([1, 2, 3])
    assert (found["seeds"], found["in_time"], found["late"]) == (3, 1, [2, 3])
    assert (found["throughput_loss_percent"], found["throughput_loss_percent_worst"]) == (0.0, 10.0)
