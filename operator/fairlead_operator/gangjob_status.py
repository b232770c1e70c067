"""What the operator writes into a GangJob's status, as it reads it back after a restart."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

from fairlead_operator.objects import Condition, Record


class AllocatedNode(Record, frozen=True, kw_only=True):
    """The members on one node: ``worker-0=gpu-[0-7]`` each, in rank order (`allocations` has the whole syntax)."""

    node: str = ""
    pods: list[str] = []


class PlacementStatus(Record, frozen=True, kw_only=True):
    """Where the members of a gang are, or are to be."""

    domain: str = ""
    level: str = "cluster"
    pace: int = 0
    span: dict[str, int] = {}
    penalties: list[str] = []
    cpu_sets: list[str] = []
    members: list[AllocatedNode] = []


class Allocation(PlacementStatus, frozen=True, kw_only=True):
    """status.allocation: the devices of the current attempt, the books' open segments."""

    attempt: int = 0
    placed_at_ms: int = 0
    left: list[int] = []


class NominationStatus(PlacementStatus, frozen=True, kw_only=True):
    """status.nomination: the hole that is being opened for a gang, exact enough to be kept through a restart."""

    victims: list[str] = []
    until: str | None = None


class PromiseStatus(PlacementStatus, frozen=True, kw_only=True):
    """status.promise: where and when a gang starts at the latest, exact enough to be kept through a restart."""

    stops: list[str] = []
    asked: bool = False
    latest_start: str | None = None


class NoticeStatus(Record, frozen=True, kw_only=True):
    """status.notice: an attempt that was asked to save before it is stopped, exact enough to go on after a restart."""

    attempt: int = 0
    begins_at_ms: int = 0
    until_ms: int = 0
    reason: str = ""
    details: dict[str, str | int] = {}
    requeue: bool = True
    by: str = ""


class CheckpointStatus(Record, frozen=True, kw_only=True):
    """status.checkpoint: the last one that counts, as far as it is read back."""

    attempt: int = 0
    step: str = ""
    began_at_ms: int = 0
    path: str = ""
    digest: str = ""
    format: str = ""
    code: str = ""
    members: dict[str, int] = {}


class StartEstimate(Record, frozen=True, kw_only=True):
    """status.startEstimate; `basis` says what the range rests on."""

    p50: str | None = None
    p90: str | None = None
    basis: str = ""


class UsageStatus(Record, frozen=True, kw_only=True):
    """status.usage in GPU-milliseconds."""

    gpu_ms: int = 0
    as_of: str | None = None


class GangJobStatus(Record, frozen=True, kw_only=True):
    """What the operator wrote of a GangJob."""

    observed_generation: int = 0
    phase: str = ""
    gpus: int | None = None
    conditions: list[Condition] = []
    attempt: int = 0
    restarts: int = 0
    reason: str = ""
    message: str = ""
    position: int | None = None
    start_estimate: StartEstimate | None = None
    as_of: str | None = None
    nomination: NominationStatus | None = None
    promise: PromiseStatus | None = None
    notice: NoticeStatus | None = None
    checkpoint: CheckpointStatus | None = None
    failures: dict[str, int] = {}
    allocation: Allocation | None = None
    usage: UsageStatus | None = None
    lost_gpu_ms: int = 0
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
