"""What a GangJob says of checkpoints, retries, heartbeat and its end, as the scheduler's nouns. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Checkpoint
from fairlead.model.retries import Retries
from fairlead.model.saving_rules import SIZE_MAX_BYTES, default_grace_ms
from fairlead.units import duration_ms, quantity
from fairlead_operator.custom_objects import GangJobSpec, PoolSpec
from fairlead_operator.saving_spec import CheckpointSpec

RESTART_DEFAULT_MS = Checkpoint().restart_ms


def saving_of(spec: GangJobSpec) -> dict[str, Any]:
    """Return the fields of a `Gang` that these become; for values that `bad_saving` has passed."""
    return {
        "checkpoint": checkpoint_of(spec),
        "grace_ms": grace_of(spec),
        "retries": retries_of(spec),
        "heartbeat_ms": duration_ms(spec.heartbeat.timeout) if spec.heartbeat is not None else None,
        "ttl_ms": duration_ms(spec.ttl) if spec.ttl else None,
    }


def checkpoint_of(spec: GangJobSpec) -> Checkpoint | None:
    """Return what is declared of checkpoints, None where nothing is; for values that `bad_saving` has passed."""
    found = spec.checkpoint
    if found is None:
        return None
    way = way_of(found)
    return Checkpoint(
        interval_ms=_ms(found.interval),
        pause_ms=_ms(found.pause),
        size_bytes=quantity(str(found.size)) if found.size else 0,
        restart_ms=_ms(found.restart, RESTART_DEFAULT_MS),
        command=tuple(found.command) if way == "command" else (),
        signal=(found.signal or "SIGTERM") if way == "signal" else "",
        watches=way == "file",
        path=found.path,
        reshards=found.reshard,
        reads=tuple(sorted(set(found.reads))),
    )


def way_of(found: CheckpointSpec) -> str:
    """Return how the program is told: what `notify` says, else what is there to tell it by."""
    return found.notify or ("command" if found.command else "signal" if found.signal else "none")


def grace_of(spec: GangJobSpec) -> int:
    """Return how long a stop waits for a checkpoint, in ms."""
    checkpoint = checkpoint_of(spec)
    if checkpoint is None or spec.checkpoint is None:
        return 0
    return _ms(spec.checkpoint.grace) or default_grace_ms(checkpoint)


def retries_of(spec: GangJobSpec) -> Retries:
    """Return the bounds per kind of failure."""
    found = spec.retry_policy
    return Retries(
        member_failed=found.member_failed,
        start_deadline=found.start_deadline,
        hung=found.hung,
        node_lost=found.node_lost,
        backoff_ms=_ms(found.backoff),
        backoff_max_ms=_ms(found.backoff_max),
    )


def bad_saving(spec: GangJobSpec) -> Iterator[tuple[str, str, str]]:
    """Yield (field, problem, mend) of values that cannot be read."""
    texts = [
        ("retryPolicy.backoff", spec.retry_policy.backoff),
        ("retryPolicy.backoffMax", spec.retry_policy.backoff_max),
    ]
    found = spec.checkpoint
    if found is not None:
        for name, text in (
            ("interval", found.interval),
            ("pause", found.pause),
            ("restart", found.restart),
            ("grace", found.grace),
        ):
            texts.append((f"checkpoint.{name}", text))
        yield from _bad_checkpoint(found)
    if spec.heartbeat is not None:
        texts.append(("heartbeat.timeout", spec.heartbeat.timeout or "missing"))
    for name, text in texts:
        if not text:
            continue
        try:
            if duration_ms(text) <= 0:
                yield f"spec.{name}", "is zero", 'give a time such as "10m", or remove it'
        except UnreadableInput:
            yield f"spec.{name}", f"{text!r} is not a duration", "write for example 90s, 10m or 1h30m"
    if spec.ttl:
        try:
            duration_ms(spec.ttl)
        except UnreadableInput:
            yield "spec.ttl", f"{spec.ttl!r} is not a duration", "write for example 0s, 10m or 1h30m"


def _bad_checkpoint(found: CheckpointSpec) -> Iterator[tuple[str, str, str]]:
    at = "spec.checkpoint"
    ways = ("", "none", "file", "command", "signal")
    if found.notify not in ways:
        yield f"{at}.notify", f"{found.notify!r} is not known", f"use one of: {', '.join(ways[1:])}"
    way = way_of(found)
    if way == "command" and not found.command:
        yield f"{at}.command", "is missing, but notify is command", "write the command that saves"
    if found.command and way != "command":
        yield f"{at}.command", f"is never run with notify {way}", "set notify to command, or remove it"
    if found.signal and way != "signal":
        yield f"{at}.signal", f"is never sent with notify {way}", "set notify to signal, or remove it"
    if found.size:
        try:
            quantity(str(found.size))
        except UnreadableInput:
            yield f"{at}.size", f"{found.size!r} is no quantity", "write for example 200Gi"


def checkpoint_bandwidth(pool: str, spec: PoolSpec) -> int | None:
    """Return what a pool's storage takes of checkpoints in bytes/s, None for no bound. Raises `UnreadableInput`."""
    if spec.checkpoint_bandwidth == "":
        return None
    field = f"Pool {pool}: spec.checkpointBandwidth"
    found = quantity(str(spec.checkpoint_bandwidth), field=field)
    if not 1_000_000 <= found <= SIZE_MAX_BYTES:
        raise UnreadableInput(f"{field}: {found} bytes/s is not between 1M and 1Pi; write for example 20Gi")
    return found


def _ms(text: str, default: int = 0) -> int:
    return duration_ms(text) if text else default
