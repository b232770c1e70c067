"""What YAML says of checkpoints, retries, heartbeat and the end of a job; for GangJobs and for scenario files."""

from __future__ import annotations

from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Checkpoint
from fairlead.model.retries import Retries
from fairlead.model.saving_rules import RETRIES_MAX, default_grace_ms
from fairlead.simulation.behaviour import Run, Saves
from fairlead.simulation.fields import Fields
from fairlead.units import duration_ms

SAVES_ANNOTATION = "simulation.fairlead.dev/saves"
WAYS = ("none", "file", "command", "signal")
BEHAVIOURS = ("honest", "lies", "silent")


def saving_words(spec: Fields) -> dict[str, Any]:
    """Read spec.checkpoint, retryPolicy, heartbeat and ttl: the fields of a `Gang` that they become.

    Raises
    ------
    UnreadableInput
        A field is unknown or wrong; the text names it.
    """
    checkpoint, grace_ms = checkpoint_words(spec.inner("checkpoint")) if spec.has("checkpoint") else (None, 0)
    spec.ignore("checkpoint")
    retry = spec.inner("retryPolicy")
    retries = Retries(
        member_failed=_count(retry, "memberFailed"),
        start_deadline=_count(retry, "startDeadline"),
        hung=_count(retry, "hung"),
        node_lost=_count(retry, "nodeLost"),
        backoff_ms=retry.duration_ms("backoff") or 0,
        backoff_max_ms=retry.duration_ms("backoffMax") or 0,
    )
    retry.done()
    heartbeat_ms: int | None = None
    if spec.has("heartbeat"):
        heartbeat = spec.inner("heartbeat")
        if not heartbeat.has("timeout"):
            heartbeat.fail("timeout", "is required")
        heartbeat_ms = heartbeat.duration_ms("timeout")
        heartbeat.done()
    spec.ignore("heartbeat")
    ttl_ms = duration_ms(spec.text("ttl"), field=f"{spec.path}.ttl") if spec.has("ttl") else None
    spec.ignore("ttl")
    return {
        "checkpoint": checkpoint,
        "grace_ms": grace_ms,
        "retries": retries,
        "heartbeat_ms": heartbeat_ms,
        "ttl_ms": ttl_ms,
    }


def checkpoint_words(item: Fields) -> tuple[Checkpoint, int]:
    """Read a checkpoint and its grace. A scenario file's ``every`` is the same as ``interval``."""
    command = item.texts("command") or ()
    signal = item.text("signal", "")
    way = item.choice("notify", WAYS, "command" if command else "signal" if signal else "none")
    for name, said in (("command", command), ("signal", signal)):
        if said and way != name:
            item.fail(name, f"has no meaning with notify {way}; remove one of them")
    if way == "command" and not command:
        item.fail("command", "is required with notify command")
    interval_ms = item.duration_ms("interval")
    if item.has("every"):
        if interval_ms is not None:
            item.fail("every", "is the same as interval; remove one of them")
        interval_ms = item.duration_ms("every")
    item.ignore("every")
    plain = Checkpoint()
    found = Checkpoint(
        interval_ms=interval_ms or 0,
        pause_ms=item.duration_ms("pause") or 0,
        size_bytes=item.quantity("size"),
        restart_ms=item.duration_ms("restart", plain.restart_ms) or 0,
        command=command,
        signal=(signal or "SIGTERM") if way == "signal" else "",
        watches=way == "file",
        path=item.text("path", ""),
        reshards=item.boolean("reshard", False),
        reads=tuple(sorted(set(item.texts("reads") or ()))),
    )
    grace_ms = item.duration_ms("grace") or default_grace_ms(found)
    item.done()
    return found, grace_ms


def with_saves(run: Run | None, checkpoint: Checkpoint | None, notes: Fields) -> Run | None:
    """Return what a program does with its checkpoints too: as declared, unless an annotation says that it lies."""
    said = notes.text(SAVES_ANNOTATION, BEHAVIOURS[0])
    if said not in BEHAVIOURS:
        raise UnreadableInput(f"{notes.path}.{SAVES_ANNOTATION}: {said!r} is not one of: {', '.join(BEHAVIOURS)}")
    if checkpoint is None or run is None:
        return run
    saves = Saves(
        every_ms=checkpoint.interval_ms,
        pause_ms=checkpoint.pause_ms or 1_000,
        lies=said == "lies",
        silent=said == "silent",
        ends=checkpoint.on_notice and not checkpoint.watches,
    )
    return Run(run_ms=run.run_ms, fails=run.fails, fails_after_ms=run.fails_after_ms, saves=saves)


def _count(item: Fields, name: str) -> int | None:
    found = item.integer(name, low=0, high=RETRIES_MAX) if item.has(name) else None
    item.ignore(name)
    return found
