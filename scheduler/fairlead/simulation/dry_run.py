"""What a change of policy would do to a world: decided on two copies of it, one with the change, and compared.

Both copies go on in the same way: whatever the engine decides is done at once and without fault, a second a round,
until nothing is left to do or `ROUNDS` are over. What only the changed one does is the change's doing. The world itself
is not touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fairlead.errors import UnreadableInput
from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.model.rules import Rules
from fairlead.service.engine import Engine
from fairlead.simulation.gangjob_yaml import Documents
from fairlead.simulation.scenario_run import Outcome, Stage
from fairlead.world.state import ClusterState
from fairlead.world.views import QueueView

ROUNDS = 200
"""Rounds that each copy goes on for, at most: shorter than any deadline of a job that is starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How one copy came out: its queues before the first decision, what happened, and the names of its jobs."""

    queues: Mapping[str, QueueView]
    outcome: Outcome
    names: Mapping[GangId, str]


def changes_of(documents: Documents, deleted: Sequence[str], state: ClusterState, at_ms: int) -> list[ev.Event]:
    """Return the facts that a watch would tell of these changes.

    `documents` may hold Queues, Pools, FairnessPolicies, QuotaExceptions and a Switchboard; `deleted` names objects as
    ``Queue/team``.

    Raises
    ------
    UnreadableInput
        There is a job among them, nothing at all, or something to delete that is not there.
    """
    if documents.gangs:
        raise UnreadableInput("kind: a dry run takes changes of policy, and no GangJobs; remove them")
    facts = list(documents.facts(at_ms))
    for pool in documents.pools:
        wanted = set(pool.node_selector)
        facts += [
            ev.NodeSeen(node=replace(node, pool=pool.name), at_ms=at_ms)
            for node in state.nodes.values()
            if wanted <= set(node.labels) and node.pool != pool.name
        ]
    for name in deleted:
        facts.append(_deleted(name, state, at_ms))
    if not facts:
        raise UnreadableInput("the change is empty: write a Queue, Pool, QuotaException or Switchboard")
    return facts


def _deleted(text: str, state: ClusterState, at_ms: int) -> ev.Event:
    kind, _, name = text.partition("/")
    known: dict[str, Collection[str]] = {
        "Queue": state.queues,
        "Pool": state.pools,
        "QuotaException": state.tenants.exceptions,
    }
    if kind not in known:
        raise UnreadableInput(f"delete: {text!r} names nothing; write {' or '.join(f'{one}/NAME' for one in known)}")
    if name not in known[kind]:
        raise UnreadableInput(f"delete: there is no {kind} {name!r}")
    match kind:
        case "Queue":
            return ev.QueueGone(name=name, at_ms=at_ms)
        case "Pool":
            return ev.PoolGone(name=name, at_ms=at_ms)
        case _:
            return ev.ExceptionGone(name=name, at_ms=at_ms)


def dry_run(
    world: Iterable[ev.Event], changes: Iterable[ev.Event], rules: Rules, now_ms: int, *, rounds: int = ROUNDS
) -> dict[str, object]:
    """Return what the changes would do to a world, as plain values; `docs/reference/dry-run.md` names every key.

    `world` are the facts of the world as it is, `rules` those that its scheduler was started with.
    """
    facts, more = list(world), list(changes)
    before, after = (_go_on(told, rules, now_ms, rounds) for told in (facts, [*facts, *more]))
    return _compared(before, after)


def _go_on(facts: Iterable[ev.Event], rules: Rules, now_ms: int, rounds: int) -> Ran:
    engine = Engine(rules)
    engine.take(facts)
    engine.take(_arrivals(engine.state, now_ms))
    engine.world(now_ms)
    queues = {view.name: view for view in engine.queue_views()}
    stage = Stage(engine, now_ms)
    quiet = False
    while not quiet and stage.round < rounds:
        quiet = stage.step()
    names = {gang: f"{record.namespace}/{record.name}" for gang, record in engine.state.gangs.items()}
    return Ran(queues=queues, outcome=stage.outcome(quiet, stage.round), names=names)


def _arrivals(state: ClusterState, now_ms: int) -> list[ev.Event]:
    """Return the facts by which everybody who is on the way has arrived: nobody else will tell them here."""
    facts: list[ev.Event] = []
    for gang, record in sorted(state.gangs.items()):
        attempt = record.current
        if attempt is None or record.phase not in (Phase.PLACING, Phase.STARTING):
            continue
        if record.phase is Phase.PLACING:
            facts.append(ev.Bound(gang=gang, attempt=attempt.number, at_ms=now_ms))
        facts += [
            ev.MemberRunning(gang=gang, attempt=attempt.number, rank=rank, at_ms=now_ms)
            for rank in range(len(attempt.placement.members))
        ]
    return facts


def _compared(before: Ran, after: Ran) -> dict[str, object]:
    was, now = before.outcome, after.outcome
    names = {**before.names, **after.names}
    stopped_before = {(one.gang, one.attempt) for one in was.victims}
    stopped_after = {(one.gang, one.attempt) for one in now.victims}
    runs_before, runs_after = {one.gang for one in was.placed}, {one.gang for one in now.placed}
    told_before = {one.gang: one.refusal for one in was.waiting}
    refused = [one for one in now.waiting if one.gang not in told_before or told_before[one.gang] != one.refusal]
    return {
        "settled": was.rounds < ROUNDS and now.rounds < ROUNDS,
        "stopped": [
            {
                "job": names.get(one.gang, one.gang),
                "reason": one.cause.reason.token,
                "message": one.cause.message,
                "by": names.get(GangId(one.by), one.by),
            }
            for one in now.victims
            if (one.gang, one.attempt) not in stopped_before
        ],
        "spared": [
            names.get(one.gang, one.gang) for one in was.victims if (one.gang, one.attempt) not in stopped_after
        ],
        "placed": sorted(names.get(gang, gang) for gang in runs_after - runs_before),
        "displaced": sorted(names.get(gang, gang) for gang in runs_before - runs_after),
        "refused": [
            {
                "job": names.get(one.gang, one.gang),
                "phase": one.phase.value,
                "reason": one.refusal.reason.token,
                "message": one.refusal.message,
            }
            for one in refused
            if one.refusal is not None and one.phase in (Phase.PENDING, Phase.REFUSED)
        ],
        "queues": [
            _queue(name, before.queues.get(name), after.queues.get(name))
            for name in sorted({*before.queues, *after.queues})
        ],
        "problems": [view.problem for _, view in sorted(after.queues.items()) if view.problem],
        "violations": [*now.violations],
    }


def _queue(name: str, was: QueueView | None, now: QueueView | None) -> dict[str, object]:
    said: dict[str, object] = {"queue": name}
    for word, view in (("before", was), ("after", now)):
        said[word] = view and {
            "guaranteed": view.guaranteed_gpus,
            "limit": view.limit_gpus,
            "entitled": view.entitled_gpus,
            "used": view.used_gpus,
        }
    return said
