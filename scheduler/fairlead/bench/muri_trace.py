"""Reading a trace of training jobs as Muri (Zhao et al., SIGCOMM'22) published it, and what its starts cost.

The files are those of the authors' simulator: virtual clusters of Microsoft's Philly trace with models assigned to the
jobs. They are not part of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairlead.bench.csv_lines import csv_lines
from fairlead.errors import UnreadableInput

PROFILING_PERMILLE = 1_015
"""What the authors' profiler costs: every iteration takes 1.5 % longer than the file says. ms × this are µs."""
COLUMNS = ("job_id", "num_gpu", "submit_time", "iterations", "model_name", "iteration_time")
NUMBER_MAX = 10**13

OVERHEAD_S: dict[str, tuple[int, ...]] = {
    "vgg16": (7, 7, 8, 9, 9, 10),
    "vgg19": (7, 7, 8, 9, 10, 10),
    "resnet18": (4, 5, 5, 7, 7, 7),
    "shufflenet_v2_x1_0": (4, 4, 5, 5, 7, 8),
    "a2c": (38, 39, 39, 46, 46, 46),
    "dqn": (5, 5, 6, 6, 8, 8),
}
"""model -> seconds that a start costs, on 1, 2, 4, 8, 16 and 32 GPUs. Any other model takes `OVERHEAD_ELSE_S`."""
OVERHEAD_GPUS = (1, 2, 4, 8, 16, 32)
OVERHEAD_ELSE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One line. `work_us` is how long all its iterations take on its `gpus`, all at once; `line` counts from 1."""

    line: int
    name: str
    gpus: int
    submit_ms: int
    work_us: int
    model: str

    @property
    def overhead_ms(self) -> int:
        """What a start of it costs by the authors' profile; a size between theirs costs what the next larger does."""
        known = OVERHEAD_S.get(self.model)
        if known is None:
            return 1_000 * OVERHEAD_ELSE_S
        at = next((at for at, gpus in enumerate(OVERHEAD_GPUS) if self.gpus <= gpus), len(OVERHEAD_GPUS) - 1)
        return 1_000 * known[at]


def read_trace(path: Path) -> tuple[TraceJob, ...]:
    """Read a trace with columns job_id, num_gpu, submit_time (ms), iterations, model_name, iteration_time (ms).

    Raises
    ------
    UnreadableInput
        The text names the file, the line and the column.
    """
    jobs: list[TraceJob] = []
    seen: dict[str, int] = {}
    for number, cells in csv_lines(path, COLUMNS, of="jobs"):
        job = _job(path, number, cells)
        if job.name in seen:
            raise UnreadableInput(f"{path}, line {number}: column job_id repeats {job.name} of line {seen[job.name]}")
        seen[job.name] = number
        jobs.append(job)
    return tuple(jobs)


def _job(path: Path, line: int, cells: dict[str, str]) -> TraceJob:
    def number(column: str, *, least: int = 1) -> int:
        text = cells[column].strip()
        whole = text.removesuffix(".0")
        if not (whole.isascii() and whole.isdigit()) or len(whole) > 14 or not least <= int(whole) <= NUMBER_MAX:
            raise UnreadableInput(
                f"{path}, line {line}: column {column} is {text!r}; give a whole number from {least} to {NUMBER_MAX}"
            )
        return int(whole)

    name = cells["job_id"].strip()
    if not name:
        raise UnreadableInput(f"{path}, line {line}: column job_id is empty")
    return TraceJob(
        line=line,
        name=name,
        gpus=number("num_gpu"),
        submit_ms=number("submit_time", least=0),
        work_us=number("iterations") * number("iteration_time") * PROFILING_PERMILLE,
        model=cells["model_name"].strip(),
    )
