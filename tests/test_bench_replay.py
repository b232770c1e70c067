"""The published replay: every figure of a small trace by hand, and the published means on the public ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from topology_files import data_file
from typer.testing import CliRunner

from fairlead.bench import muri_rule
from fairlead.bench.muri_trace import TraceJob, read_trace
from fairlead.bench.replay import Cluster, Result, replay
from fairlead.cli.main import app
from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, Member
from fairlead.simulation.driver import PromiseBroken
from fairlead.world.snapshot import World

HEAD = "job_id,num_gpu,submit_time,iterations,model_name,batch_size,duration,iteration_time"


def job(line: int, gpus: int, submit_s: int, seconds: int, model: str = "dqn") -> TraceJob:
    """A job whose iterations of one second take 1.5 % longer than `seconds`."""
    return TraceJob(
        line=line, name=f"j{line}", gpus=gpus, submit_ms=1_000 * submit_s, work_us=seconds * 1_015_000, model=model
    )


def run(jobs: list[TraceJob], policy: str, *, overhead: bool = False, nodes: int = 1, gpus: int = 2) -> Result:
    return replay(jobs, Cluster(nodes=nodes, gpus=gpus), policy=policy, overhead=overhead, known=True)


# Two GPUs. The wide job holds both until the narrow one comes at 10 s, with 20.3 s to run against its 91.5 s.
WIDE_THEN_SHORT = [job(2, 2, 0, 100), job(3, 1, 10, 20)]
# Here the narrow job has longer to run, but fewer GPU-seconds: 152.25 against 2 x 91.5.
WIDE_THEN_LONG = [job(2, 2, 0, 100), job(3, 1, 10, 150)]


def test_srtf_stops_what_has_longer_to_run_and_lets_it_go_on_from_there() -> None:
    found = run(WIDE_THEN_SHORT, "srtf")
    assert found.avg_jct_s == (121.8 + 20.3) / 2
    assert (found.makespan_s, found.p99_jct_s) == (121.8, 121.8)
    assert (found.stops, found.preemptions) == (1, 1)
    assert (found.held_gpu_s, found.lost_gpu_s) == (223.3, 0)
    assert found.avg_wait_s == 0


def test_a_run_that_is_stopped_has_lost_the_seconds_of_its_start() -> None:
    found = run(WIDE_THEN_SHORT, "srtf", overhead=True)
    assert found.makespan_s == 126.8, "5 of its first 10 s are work; a job that is not stopped is not charged"
    assert found.lost_gpu_s == 2 * 5


def test_more_seconds_for_a_start_than_the_run_was_long_take_no_work_back() -> None:
    jobs = [job(2, 1, 0, 100, "a2c"), job(3, 2, 10, 20)]
    found = run(jobs, "srtf", overhead=True)
    assert found.makespan_s == pytest.approx(10 + 20.3 + 101.5)
    assert found.lost_gpu_s == 10


def test_srsf_weighs_the_time_by_gpus() -> None:
    assert run(WIDE_THEN_LONG, "srtf").avg_jct_s == (101.5 + 243.75) / 2
    assert run(WIDE_THEN_LONG, "srsf").avg_jct_s == (152.25 + 253.75) / 2


def test_our_own_policy_starts_a_job_and_lets_it_run() -> None:
    found = run(WIDE_THEN_LONG, "default", overhead=True)
    assert (found.stops, found.preemptions) == (0, 0)
    assert found.avg_jct_s == (106.5 + (106.5 - 10 + 5 + 152.25)) / 2
    assert found.lost_gpu_s == 2 * 5 + 5
    assert run(WIDE_THEN_LONG, "default").avg_jct_s == (101.5 + 243.75) / 2


def test_jobs_start_again_where_they_ran_and_count_as_stopped_not_as_preempted() -> None:
    found = run([job(2, 1, 0, 100), job(3, 1, 10, 100)], "srtf")
    assert (found.stops, found.preemptions) == (2, 0), "once at the arrival, once at the first end"


def test_a_job_wider_than_a_node_takes_wholly_idle_nodes_and_what_does_not_fit_is_skipped() -> None:
    jobs = [job(2, 1, 0, 30), job(3, 4, 1, 10), job(4, 1, 2, 50)]
    found = run(jobs, "srtf", nodes=2)
    # The wide one has the least to run (10.15 s) and takes all at 1 s; the first goes on at 11.15 s.
    assert found.makespan_s == pytest.approx(11.15 + 50.75)
    assert found.preemptions == 1
    crowded = run([job(2, 1, 0, 5), job(3, 4, 1, 10)], "srtf", nodes=2)
    assert crowded.makespan_s == pytest.approx(5.075 + 10.15), "one busy GPU: no two idle nodes before"


def test_every_placement_of_the_rule_has_its_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(gang: Gang, free: list[int], world: World) -> tuple[Member, ...]:
        return seats(gang, list(free), world)

    seats = muri_rule._seats
    monkeypatch.setattr(muri_rule, "_seats", twice)
    with pytest.raises(PromiseBroken, match="is not free"):
        run([job(2, 1, 0, 5), job(3, 1, 0, 5)], "srtf")


def test_jobs_that_the_cluster_can_never_hold_are_named() -> None:
    with pytest.raises(UnreadableInput, match="line 3: job j3 asks for 6 GPUs; --cluster has 4"):
        run([job(2, 1, 0, 5), job(3, 6, 0, 5)], "srtf", nodes=2)
    with pytest.raises(UnreadableInput, match="line 2: job j2 asks for 3 GPUs, no whole number of nodes of 2"):
        run([job(2, 3, 0, 5)], "default", nodes=4)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7,1,0,10,dqn,1,1,0", "line 3: column iteration_time is '0'"),
        ("7,one,0,10,dqn,1,1,490", "line 3: column num_gpu is 'one'"),
        ("7,1,-5,10,dqn,1,1,490", "line 3: column submit_time is '-5'"),
        ("7,1,0,10,dqn,1,1", "line 3: 7 cells for 8 columns"),
        ("0,1,0,10,dqn,1,1,490", "line 3: column job_id repeats 0 of line 2"),
        (",1,0,10,dqn,1,1,490", "line 3: column job_id is empty"),
    ],
)
def test_a_wrong_line_is_told_with_its_column(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"{HEAD}\n0,1,0,10,dqn,1,1,490\n{line}\n", encoding="utf-8")
    with pytest.raises(UnreadableInput, match=problem):
        read_trace(file)


def test_the_command_prints_one_document_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"{HEAD}\n0,1,0,10,dqn,1,1,1000\n1,1,1000,10,unheard-of,1,1,1000\n", encoding="utf-8")
    shown = CliRunner().invoke(app, ["bench", "replay", "--trace", str(file), "--cluster", "1x1", "--json"])
    found = json.loads(shown.output)
    assert {"avg_jct_s", "p99_jct_s", "makespan_s", "lost_gpu_s"} <= found.keys()
    assert (found["policy"], found["overhead"], found["durations"]) == ("default", "paper", "known")
    assert found["lost_gpu_s"] == 5 + 10, "an unknown model's start takes ten seconds"
    for words, problem in (
        (["--policy", "fifo"], "one of srtf, srsf, default"),
        (["--cluster", "8"], "nodes x GPUs"),
        (["--cluster", "8x64"], "1 to 63 GPUs"),
        (["--overhead", "some"], "one of paper, none"),
        (["--policy", "srtf", "--durations", "unknown"], "use --policy default"),
    ):
        refused = CliRunner().invoke(app, ["bench", "replay", "--trace", str(file), *words])
        assert isinstance(refused.exception, UnreadableInput), "main turns it into exit code 2"
        assert problem in str(refused.exception)


PUBLISHED_S = {("trace3", "srtf"): 193081.796, ("trace3", "srsf"): 185021.8802}
PUBLISHED_SLOW_S = {("trace1", "srtf"): 1370603.198, ("trace1", "srsf"): 980140.5699}


def check_published(trace: str, policy: str, jct_s: float) -> None:
    jobs = read_trace(data_file(f"muri-sigcomm22/traces/{trace}.csv"))
    found = run(jobs, policy, overhead=True, nodes=8, gpus=8)
    assert found.avg_jct_s == pytest.approx(jct_s, rel=1e-3)


@pytest.mark.parametrize(("trace", "policy"), PUBLISHED_S)
def test_the_published_mean_is_reached(trace: str, policy: str) -> None:
    check_published(trace, policy, PUBLISHED_S[trace, policy])


@pytest.mark.slow
@pytest.mark.parametrize(("trace", "policy"), PUBLISHED_SLOW_S)
def test_the_published_mean_is_reached_on_the_long_trace(trace: str, policy: str) -> None:
    check_published(trace, policy, PUBLISHED_SLOW_S[trace, policy])
