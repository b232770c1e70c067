"""What a GangJob's status says of its checkpoints."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from fairlead.model.checkpoints import Saved
from fairlead.model.retries import Failure, Failures
from fairlead.world.views import CheckpointView, GangView
from fairlead_operator.gangjob_status import GangJobStatus

REQUESTED, REFUSED = "CheckpointRequested", "CheckpointMarkerRefused"


def checkpoint_status(view: CheckpointView | None) -> dict[str, Any] | None:
    """Return status.checkpoint; null takes away what does not hold any more."""
    if view is None:
        return None
    saved, measured = view.saved, view.measured
    found = {
        "attempt": saved.attempt if saved else None,
        "step": saved.step if saved else None,
        "beganAtMs": saved.began_ms if saved else None,
        "path": saved.path if saved else None,
        "digest": saved.digest if saved else None,
        "format": (saved.format or None) if saved else None,
        "code": (saved.code or None) if saved else None,
        "members": dict(saved.members) if saved else None,
        "falseClaims": view.false_claims,
        "problem": view.problem[:1_024] or None,
        "saveMs": measured.save_ms,
        "intervalMs": measured.interval_ms,
        "restartMs": measured.restart_ms,
        "recommendedIntervalMs": view.recommended_ms,
    }
    return found


def saving_conditions(view: GangView, before: Container[str]) -> dict[str, tuple[bool, str, str]]:
    """Return (holds, reason, message) of the conditions about checkpoints: where they hold, or have held before."""
    found, facts = view.checkpoint, dict[str, tuple[bool, str, str]]()
    asked = found is not None and found.until_ms is not None
    if asked or REQUESTED in before:
        why = view.refusal.reason.token if view.refusal else view.phase.value
        told = "asked to save; it is stopped once it has, at the latest when its grace is over" if asked else ""
        facts[REQUESTED] = (asked, why if asked else "NotRequested", told)
    refused = found is not None and bool(found.problem)
    if refused or REFUSED in before:
        told = f"the last marker does not count: {found.problem}"[:1_024] if found is not None and refused else ""
        facts[REFUSED] = (refused, "FalseMarker" if refused else "NoFalseMarker", told)
    return facts


def saved_of(status: GangJobStatus) -> Saved | None:
    """Read back the last checkpoint that counts."""
    found = status.checkpoint
    if found is None or not found.began_at_ms or not found.attempt:
        return None
    return Saved(
        attempt=found.attempt,
        began_ms=found.began_at_ms,
        step=found.step,
        path=found.path,
        digest=found.digest,
        format=found.format,
        code=found.code,
        members=tuple((role, int(count)) for role, count in found.members.items()),
    )


def failures_of(status: GangJobStatus) -> Failures:
    """Read back how often the gang has failed in which way; of a later version's words, nothing."""
    known = {failure.value: failure for failure in Failure}
    return tuple(sorted((known[name], count) for name, count in status.failures.items() if name in known))
