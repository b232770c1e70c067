"""Statuses as values: a view becomes a merge patch; conditions of before are kept where they still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairlead.model.effects import Nominate, Phase
from fairlead.model.gang import GangId
from fairlead.model.promises import Promised
from fairlead.model.reasons import Kind
from fairlead.world.views import GangView, StartRange
from fairlead_operator.allocations import placement_status, ranks_text
from fairlead_operator.pods import JobSheet
from fairlead_operator.saving_status import checkpoint_status, saving_conditions

MESSAGE_MAX = 4_000
_BOUND = (Phase.STARTING, Phase.RUNNING)
_WAITING = (Phase.PENDING, Phase.SUSPENDED, Phase.REFUSED)
IDLE = "Idle"
"""The condition of a job that holds devices and does not use them."""
HOLDING = (Phase.PLACING, Phase.STARTING, Phase.RUNNING, Phase.STOPPING)
"""Phases in which an attempt has devices, or may have them any moment."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `since` is RFC 3339, the time at which `status` last changed."""

    type: str
    status: str
    reason: str
    message: str
    since: str

    def as_json(self, generation: int) -> dict[str, Any]:
        """Write it as metav1.Condition."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": self.since,
            **({"observedGeneration": generation} if generation else {}),
        }


def rfc3339(ms: int) -> str:
    """Write UTC ms as the API server's times are written, in whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(ms: int) -> str:
    """Write UTC ms as a MicroTime."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{ms % 1000:03d}000Z")


def idle_text(since_ms: int) -> str:
    """Return what the owner of an idle job is told."""
    return f"all its devices are idle since {rfc3339(since_ms)}; spec.idle of its Queue says what comes of that"


def conditions(view: GangView, before: Mapping[str, Condition], now_ms: int) -> dict[str, Condition]:
    """Return the four conditions of a GangJob, and more where something is to be said of its checkpoints or its use."""
    phase, why = view.phase, view.refusal
    token = why.reason.token if why else phase.value
    told = (why.message if why else "")[:MESSAGE_MAX]
    invalid = phase is Phase.REFUSED or (why is not None and why.reason.kind in (Kind.INVALID, Kind.NEVER))
    bound = phase in _BOUND
    finished = phase in (Phase.SUCCEEDED, Phase.FAILED)
    facts = {
        "Accepted": (not invalid, token if invalid else "Accepted", told if invalid else ""),
        "Placed": (bound, "Bound" if bound else token, "" if bound else told),
        "Running": (phase is Phase.RUNNING, token if phase is not Phase.RUNNING else "AllRunning", ""),
        "Finished": (finished, token if finished else "NotFinished", told if finished else ""),
    }
    facts |= saving_conditions(view, before)
    if view.idle_ms is not None:
        facts[IDLE] = (True, "AllDevicesIdle", idle_text(view.idle_ms))
    elif IDLE in before:
        facts[IDLE] = (False, "InUse" if phase is Phase.RUNNING else token, "")
    made: dict[str, Condition] = {}
    for kind, (holds, reason, message) in facts.items():
        status, old = ("True" if holds else "False"), before.get(kind)
        since = old.since if old and old.status == status and old.since else rfc3339(now_ms)
        made[kind] = Condition(kind, status, reason, message, since)
    return made


def gang_status(view: GangView, made: Mapping[str, Condition], generation: int, now_ms: int) -> dict[str, Any]:
    """Return the merge patch of a GangJob's status; null takes a field away. It leaves the allocation as it is."""
    waits = view.phase in _WAITING
    why = view.refusal
    status: dict[str, Any] = {
        "phase": view.phase.value,
        "gpus": view.gpus,
        "attempt": view.attempt,
        "restarts": view.restarts,
        "reason": why.reason.token if why else None,
        "message": why.message[:MESSAGE_MAX] if why else None,
        "position": view.position if waits else None,
        "startEstimate": _start(view.start) if view.phase is Phase.PENDING else None,
        "promise": None if view.promise is None else promise_status(view.promise),
        "conditions": [condition.as_json(generation) for condition in made.values()],
        "usage": {"gpuMs": view.gpu_ms, "asOf": rfc3339(now_ms)},
        "lostGpuMs": view.lost_gpu_ms,
        "idleSinceMs": view.idle_ms,
        "failures": {failure.value: count for failure, count in view.failures} or None,
        "checkpoint": checkpoint_status(view.checkpoint),
        "startedAtMs": view.started_ms,
        "finishedAtMs": view.finished_ms,
        "asOf": rfc3339(now_ms),
    }
    if generation:
        status["observedGeneration"] = generation
    if view.phase in _WAITING or view.phase in (Phase.SUCCEEDED, Phase.FAILED):
        status["notice"] = None
    if view.nomination is None and view.phase is not Phase.PENDING:
        status["nomination"] = None
    return status


def _start(start: StartRange) -> dict[str, Any]:
    p50, p90 = (None if at_ms is None else rfc3339(at_ms) for at_ms in (start.p50_ms, start.p90_ms))
    return {"p50": p50, "p90": p90, "basis": start.basis}


def promise_status(promise: Promised) -> dict[str, Any]:
    """Return status.promise, exact enough to be kept through a restart."""
    return {
        **placement_status(promise.placement),
        "stops": [f"{gang}#{attempt}" for gang, attempt in promise.stops],
        "asked": promise.hero,
        "latestStart": rfc3339_micro(promise.latest_start_ms),
    }


def nomination_status(effect: Nominate, sheets: Mapping[GangId, JobSheet | None]) -> dict[str, Any]:
    """Return status.nomination: the hole, exact enough to be kept through a restart.

    `sheets` has the gang itself and its victims; victims of its own namespace are named, others by uid.
    """
    own = sheets.get(effect.gang)
    victims: list[str] = []
    whole = ((gang, attempt, ()) for gang, attempt in effect.victims)
    for gang, attempt, ranks in (*whole, *effect.shrunk):
        sheet = sheets.get(gang)
        members = f":{ranks_text(ranks)}" if ranks else ""
        # Who reads this status may see no other tenant's names (P8); a uid is enough to go on after a restart.
        named = sheet is not None and own is not None and sheet.namespace == own.namespace
        who = f"{sheet.namespace}/{sheet.name}" if named and sheet else str(gang)
        victims.append(f"{who}#{attempt}{members}")
    return {
        **placement_status(effect.placement),
        "victims": victims,
        "until": rfc3339_micro(effect.until_ms),
    }
