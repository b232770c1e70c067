"""What a GangJob's spec says of checkpoints, retries and heartbeat, as it is written."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

from fairlead_operator.objects import Record


class CheckpointSpec(Record, frozen=True, kw_only=True):
    """spec.checkpoint; `notify` "" is what `command` or `signal` imply."""

    notify: str = ""
    command: list[str] = []
    signal: str = ""
    interval: str = ""
    pause: str = ""
    size: str | int = ""
    restart: str = ""
    grace: str = ""
    path: str = ""
    reshard: bool = False
    reads: list[str] = []


class RetryPolicy(Record, frozen=True, kw_only=True):
    """spec.retryPolicy: how often the gang may fail in which way; None leaves it to failurePolicy."""

    member_failed: int | None = None
    start_deadline: int | None = None
    hung: int | None = None
    node_lost: int | None = None
    backoff: str = ""
    backoff_max: str = ""


class HeartbeatSpec(Record, frozen=True, kw_only=True):
    """spec.heartbeat."""

    timeout: str = ""
