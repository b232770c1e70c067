"""Statuses of Queues, Pools and QueueViews as values: a view and what stands against the object become a merge patch.

A Queue or Pool that was never taken over has no view; its conditions are written all the same, so that its owner sees
why. No time of writing is in these values: they are compared with what was written last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.ledger.anomalies import Finding
from fairlead.model.fairness import FairnessPolicy
from fairlead.model.hardware import Node
from fairlead.model.queue_tree import TreeProblem
from fairlead.model.quota_exception import QuotaException
from fairlead.model.reasons import Reason
from fairlead.model.tenancy import Pool
from fairlead.world.views import GangView, PoolView, QueueView
from fairlead_operator.cluster_events import Told
from fairlead_operator.decode_nodes import overlap_sentence, pools_of
from fairlead_operator.statuses import MESSAGE_MAX, Condition, rfc3339

POSITIONS_MAX = 200
EXCEPTIONS_MAX = 64
NAMES_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An object as its owner wrote it: its generation, the conditions it has, and what is wrong with it, or ""."""

    uid: str = ""
    generation: int = 0
    conditions: tuple[Condition, ...] = ()
    problem: str = ""
    misplaced: TreeProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTroubles:
    """Nodes of a pool with something to say: node -> names of the other pools, and node -> sentences."""

    overlaps: Mapping[str, tuple[str, ...]]
    mismatches: Mapping[str, tuple[str, ...]]


def pool_troubles(nodes: Iterable[Node], pools: Sequence[Pool]) -> dict[str, PoolTroubles]:
    """Find, for each pool, nodes that another pool selects as well, and nodes whose sources contradict each other."""
    overlaps: dict[str, dict[str, tuple[str, ...]]] = {pool.name: {} for pool in pools}
    mismatches: dict[str, dict[str, tuple[str, ...]]] = {pool.name: {} for pool in pools}
    for node in sorted(nodes, key=lambda node: node.name):
        chosen = pools_of(dict(node.labels), pools)
        names = [pool.name for pool in chosen]
        for name in names if len(names) > 1 else ():
            overlaps[name][node.name] = tuple(other for other in names if other != name)
        doubts = tuple(text for text in node.conflicts if text != overlap_sentence(chosen))
        if names and doubts:
            mismatches[names[0]][node.name] = doubts
    return {name: PoolTroubles(overlaps=overlaps[name], mismatches=mismatches[name]) for name in sorted(overlaps)}


def queue_status(
    view: QueueView | None,
    standing: Standing,
    gpu_ms: int | None,
    before: Mapping[str, Condition],
    now_ms: int,
    alarm: str | None = None,
) -> tuple[dict[str, Any], dict[str, Condition]]:
    """Return the merge patch of a Queue's status, and its conditions for the next time.

    `alarm` says what of its costs alarms, "" for nothing; None where nobody has looked yet.
    """
    facts = {"Accepted": _accepted(standing, known=view is not None)}
    status: dict[str, Any] = {}
    if view is not None:
        over = f"holds {view.used_gpus} GPUs; the limit is {view.limit_gpus}" if view.over_limit else ""
        facts["OverLimit"] = (view.over_limit, "AboveLimit" if view.over_limit else "WithinLimit", over)
        said = cost_text(view, alarm)
        if said is not None:
            held = "Held" if view.cost_hold else "Alarm"
            facts["CostAnomaly"] = (bool(said), held if said else "AsUsual", said)
        status = {
            "guaranteed": view.guaranteed_gpus,
            "limit": view.limit_gpus,
            "used": view.used_gpus,
            "borrowed": view.borrowed_gpus,
            "pending": view.pending_gangs,
            "pendingGpus": view.pending_gpus,
            "running": view.running_gangs,
            "exceptions": [one.text for one in view.exceptions[:EXCEPTIONS_MAX]],
            "resources": _resources(view),
        }
        if gpu_ms is not None:
            status["usageGpuMs"] = gpu_ms
    return _with_conditions(status, facts, standing, before, now_ms)


def cost_text(view: QueueView, alarm: str | None) -> str | None:
    """Return what is said of a queue's costs: what alarms and what is held for it; None where nobody has looked."""
    if alarm is None and not view.cost_hold:
        return None
    return ". ".join(filter(None, (alarm, view.cost_hold)))


def cost_event(one: Finding, uid: str, note: str) -> Told:
    """Return the Event of a cost that alarms."""
    mark = f"{one.queue}/{one.currency}/{one.day.name}/{one.kind}"
    return Told(
        kind="Queue", name=one.queue, uid=uid, action="Alarm", reason="CostAnomaly", note=note, mark=mark, bad=True
    )


def pool_status(
    view: PoolView | None,
    standing: Standing,
    troubles: PoolTroubles | None,
    before: Mapping[str, Condition],
    now_ms: int,
) -> tuple[dict[str, Any], dict[str, Condition]]:
    """Return the merge patch of a Pool's status, and its conditions for the next time."""
    facts = {"Accepted": _accepted(standing, known=view is not None)}
    status: dict[str, Any] = {}
    if view is not None:
        told = (
            f"{view.foreign} GPUs are allocated by somebody else; they are booked as unmanaged" if view.foreign else ""
        )
        facts["ForeignAllocation"] = (bool(view.foreign), "AllocatedByOthers" if view.foreign else "None", told)
        status = {
            "nodes": view.nodes,
            "gpus": view.gpus,
            "free": view.free,
            "unmanaged": view.foreign,
            "down": view.down,
        }
    if troubles is not None:
        facts["Overlap"] = _overlap(troubles.overlaps)
        facts["TopologyMismatch"] = _mismatch(troubles.mismatches)
    return _with_conditions(status, facts, standing, before, now_ms)


def exception_status(found: QuotaException | None, problem: str, generation: int, now_ms: int) -> dict[str, Any]:
    """Return a QuotaException's status; `found` is None where it was never taken over."""
    state = "Refused" if problem else found.state_at(now_ms) if found is not None else "Pending"
    return {"observedGeneration": generation, "state": state, "message": problem[:MESSAGE_MAX] or None}


def in_force_status(problem: str, generation: int) -> dict[str, Any]:
    """Return the status of what is in force as it was last written without fault: a Switchboard, a PriceBook."""
    state = "Refused" if problem else "InForce"
    return {"observedGeneration": generation, "state": state, "message": problem[:MESSAGE_MAX] or None}


def fairness_status(
    known: FairnessPolicy | None, sharing: Iterable[str], problem: str, generation: int
) -> dict[str, Any]:
    """Return a FairnessPolicy's status; `known` is what decisions go by, `sharing` the queues whose children do.

    The roots share by the one named ``default``; they are not in `sharing`.
    """
    names = sorted(sharing)
    return {
        **in_force_status(problem, generation),
        "version": None if known is None else known.version,
        "queues": len(names),
        "names": names[:NAMES_MAX],
    }


def queue_view_status(view: QueueView, own: Sequence[GangView]) -> dict[str, Any]:
    """Return a QueueView's status: numbers of the queue, places of the gangs in `own` (one namespace's) only."""
    waiting = sorted((gang for gang in own if gang.position is not None), key=lambda gang: gang.position or 0)
    return {
        "guaranteed": view.guaranteed_gpus,
        "limit": view.limit_gpus,
        "used": view.used_gpus,
        "borrowed": view.borrowed_gpus,
        "pending": view.pending_gangs,
        "resources": _resources(view),
        "positions": [
            {
                "gangJob": gang.name,
                "position": gang.position,
                **({"reason": gang.refusal.reason.token} if gang.refusal else {}),
            }
            for gang in waiting[:POSITIONS_MAX]
        ],
    }


def _resources(view: QueueView) -> list[dict[str, Any]]:
    """Return what a queue may have and has of each resource; no limit is left out."""
    return [
        {
            "name": one.name,
            "guaranteed": one.guaranteed,
            **({} if one.limit is None else {"limit": one.limit}),
            "used": one.used,
            "borrowed": one.borrowed,
        }
        for one in view.resources
    ]


def _accepted(standing: Standing, *, known: bool) -> tuple[bool, str, str]:
    if standing.misplaced is not None and not standing.problem:
        closed = standing.misplaced.closed
        reason = Reason.QUEUE_MISPLACED.token if closed else "GuaranteeCut"
        return False, reason, standing.misplaced.text + ("; until then it takes nobody in" if closed else "")
    if not standing.problem:
        return True, "Accepted", ""
    goes_on = "; what it said before goes on" if known else ""
    return False, Reason.INVALID_SPEC.token, f"{standing.problem}{goes_on}"


def _overlap(overlaps: Mapping[str, tuple[str, ...]]) -> tuple[bool, str, str]:
    if not overlaps:
        return False, "None", ""
    node, others = min(overlaps.items())
    told = (
        f"{len(overlaps)} nodes are selected by another pool too, such as {node} by {', '.join(others)}; the pool that "
        "is first by name has them: mend spec.nodeSelector"
    )
    return True, "SelectedTwice", told


def _mismatch(mismatches: Mapping[str, tuple[str, ...]]) -> tuple[bool, str, str]:
    if not mismatches:
        return False, "None", ""
    node, sentences = min(mismatches.items())
    more = f"; {len(mismatches) - 1} more nodes have others" if len(mismatches) > 1 else ""
    return True, "SourcesDiffer", f"node {node}: {'; '.join(sentences)}{more}"


def _with_conditions(
    status: dict[str, Any],
    facts: Mapping[str, tuple[bool, str, str]],
    standing: Standing,
    before: Mapping[str, Condition],
    now_ms: int,
) -> tuple[dict[str, Any], dict[str, Condition]]:
    """Add the conditions; one that holds as before keeps its time."""
    old_ones = {condition.type: condition for condition in standing.conditions} | dict(before)
    made: dict[str, Condition] = {}
    for kind, (holds, reason, message) in facts.items():
        value, old = ("True" if holds else "False"), old_ones.get(kind)
        since = old.since if old and old.status == value and old.since else rfc3339(now_ms)
        made[kind] = Condition(kind, value, reason, message[:MESSAGE_MAX], since)
    whole = {"conditions": [condition.as_json(standing.generation) for condition in made.values()], **status}
    return ({"observedGeneration": standing.generation, **whole} if standing.generation else whole), made
