"""Jobs to run: drawn by seed with a fixed mix, or taken from the public trace of Alibaba's openb cluster (FGD, ATC'23).

The drawn shapes are those of our benches; the drawn run times follow the trace's quantiles. The trace has single pods
only, no gangs and no tenants: namespaces and queues are dealt out in turn. Pods that share a GPU get a whole one.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fairlead.errors import NotFound, UnreadableInput
from fairlead.model.gang import Gang, GangId, Role, ServiceClass, TopologyRequest
from fairlead.simulation.behaviour import Run

TRACE = Path("fgd-atc23", "csv", "openb_pod_list_default.csv")

# Seconds between the start and the end of whole-GPU pods in the trace, at the fractions beside them (in percent).
_RUN_QUANTILES = ((0, 10), (10, 67), (25, 183), (50, 655), (75, 2_303), (90, 7_389), (99, 147_608), (100, 200_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`replicas` pods of `gpus` GPUs, drawn in `percent` of all jobs; `within` "" asks for no level."""

    percent: int
    replicas: int
    gpus: int
    within: str = ""
    required: bool = True


MIX = (
    Shape(percent=60, replicas=1, gpus=1),
    Shape(percent=15, replicas=1, gpus=8),
    Shape(percent=10, replicas=2, gpus=8),
    Shape(percent=10, replicas=4, gpus=8, within="rack"),
    Shape(percent=5, replicas=16, gpus=8, within="block", required=False),
)
"""The mix that `bench scale` uses; percents add up to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who submits: a namespace and the queue that it uses."""

    namespace: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A job that comes at `at_ms` and what its program will do."""

    at_ms: int
    gang: Gang
    run: Run


def draw(
    seed: int,
    *,
    count: int,
    owners: Sequence[Owner],
    start_ms: int,
    gap_ms: int,
    mix: Sequence[Shape] = MIX,
    largest_gpus: int | None = None,
    longest_ms: int | None = None,
    prefix: str = "job",
) -> Iterator[Arrival]:
    """Draw `count` jobs, on average `gap_ms` apart. No shape above `largest_gpus`, no run above `longest_ms`."""
    possible = [shape for shape in mix if largest_gpus is None or shape.replicas * shape.gpus <= largest_gpus]
    assert possible, "no shape of the mix is small enough"
    shapes, runs, gaps = (random.Random(f"{seed}/{name}") for name in ("shapes", "runs", "gaps"))
    at_ms = start_ms
    for number in range(count):
        shape = shapes.choices(possible, weights=[shape.percent for shape in possible])[0]
        run_ms = _draw_run_ms(runs)
        owner = owners[number % len(owners)]
        yield _arrival(
            f"{prefix}-{number}", owner, shape, at_ms, run_ms if longest_ms is None else min(run_ms, longest_ms)
        )
        at_ms += gaps.randint(0, 2 * gap_ms)


def from_trace(path: Path, *, owners: Sequence[Owner], start_ms: int, count: int | None = None) -> Iterator[Arrival]:
    """Read the GPU jobs of a pod list in the order of their creation, spaced as in the trace.

    Raises
    ------
    UnreadableInput
        The file is not there or a row is not as expected; the text names file and row.
    """
    rows: list[tuple[int, int, int, str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                gpus = int(row["num_gpu"])
                if gpus and row.get("deletion_time") and row.get("scheduled_time"):
                    run_s = int(row["deletion_time"]) - int(row["scheduled_time"])
                    rows.append((int(row["creation_time"]), run_s, gpus, row["name"]))
    except OSError as problem:
        raise UnreadableInput(f"cannot read {path}: {problem.strerror}") from problem
    except (KeyError, TypeError, ValueError) as problem:
        where = f"{path}: after {len(rows)} good rows"
        raise UnreadableInput(f"{where}: not a pod of the trace: {problem!r}") from problem
    rows.sort()
    first_s = rows[0][0] if rows else 0
    for index, (created_s, run_s, gpus, name) in enumerate(rows[:count]):
        shape = Shape(percent=100, replicas=1, gpus=gpus)
        at_ms = start_ms + (created_s - first_s) * 1_000
        yield _arrival(name, owners[index % len(owners)], shape, at_ms, max(1, run_s) * 1_000)


def trace_path() -> Path:
    """Return where the trace lies: below ``FAIRLEAD_DATA``.

    Raises
    ------
    NotFound
        The variable is not set or the trace is not there; the drawn mix needs neither.
    """
    folder = os.environ.get("FAIRLEAD_DATA")
    if not folder:
        raise NotFound("the public trace is looked for below FAIRLEAD_DATA, which is not set; use the drawn mix")
    path = Path(folder) / TRACE
    if not path.is_file():
        raise NotFound(f"there is no trace at {path}; use the drawn mix")
    return path


def _draw_run_ms(stream: random.Random) -> int:
    """Draw a run time by the trace's quantiles, evenly between two of them."""
    at = stream.randint(0, 99_999)
    for (low_percent, low_s), (high_percent, high_s) in pairwise(_RUN_QUANTILES):
        if at < high_percent * 1_000:
            into, width = at - low_percent * 1_000, (high_percent - low_percent) * 1_000
            return (low_s * 1_000) + (high_s - low_s) * 1_000 * into // width
    raise AssertionError(at)


def _arrival(name: str, owner: Owner, shape: Shape, at_ms: int, run_ms: int) -> Arrival:
    gang = Gang(
        id=GangId(f"{owner.namespace}.{name}.{at_ms}"),
        namespace=owner.namespace,
        name=name,
        queue=owner.queue,
        roles=(Role(name="worker", replicas=shape.replicas, gpus=shape.gpus),),
        service_class=ServiceClass.TRAINING,
        topology=TopologyRequest(within=shape.within, required=shape.required) if shape.within else None,
        submitted_ms=at_ms,
    )
    return Arrival(at_ms=at_ms, gang=gang, run=Run(run_ms=run_ms))
