"""Tell a state again, as facts: an engine that takes them stands where this one does.

For what-if: the copy decides about the same nodes, queues, jobs and holdings. What time alone would bring back is left
out: backoffs are over, and what queues have used in the past counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.world.gangs import GangRecord
from fairlead.world.lifecycle import FINAL
from fairlead.world.state import ClusterState


def facts_of(state: ClusterState, at_ms: int) -> Iterator[ev.Event]:
    """Yield the facts, in the order in which they depend on each other. The state is not changed."""
    yield from _tenancy(state, at_ms)
    for name in sorted(state.nodes):
        yield ev.NodeSeen(node=state.nodes[name], at_ms=at_ms)
        if name in state.used:
            yield state.used[name]
        if state.foreign.get(name):
            yield ev.ForeignDevices(name=name, devices=state.foreign[name], at_ms=at_ms)
    for record in sorted(state.gangs.values(), key=_came):
        if record.phase not in FINAL:
            yield from _gang(record, at_ms)
    for name in sorted(state.lost & state.nodes.keys()):
        yield ev.NodeLost(name=name, at_ms=at_ms)
    yield from state.promises.picture()


def _came(record: GangRecord) -> tuple[int, str]:
    return record.arrived, record.id


def _tenancy(state: ClusterState, at_ms: int) -> Iterator[ev.Event]:
    tenants = state.tenants
    for pool in sorted(tenants.pools):
        yield ev.PoolSeen(pool=tenants.pools[pool], at_ms=at_ms)
    for policy in sorted(tenants.policies):
        yield ev.PolicySeen(policy=tenants.policies[policy], at_ms=at_ms)
    for queue in sorted(tenants.queues):
        yield ev.QueueSeen(queue=tenants.queues[queue], at_ms=at_ms)
    for name in sorted(tenants.exceptions):
        yield ev.ExceptionSeen(exception=tenants.exceptions[name], at_ms=at_ms)
    yield ev.SwitchesSet(switches=tenants.switches, at_ms=at_ms)
    if tenants.books_full:
        yield ev.BooksFull(is_full=True, at_ms=at_ms)
    for name in sorted(tenants.spent):
        yield tenants.spent[name]
    for name in sorted(tenants.alarms):
        yield tenants.alarms[name]


def _gang(record: GangRecord, at_ms: int) -> Iterator[ev.Event]:
    attempt = record.current
    if record.gang is not None:
        yield ev.GangSeen(gang=record.gang, at_ms=at_ms)
        yield ev.Remembered(
            gang=record.id,
            attempts=record.attempts,
            restarts=record.restarts,
            at_ms=at_ms,
            past_gpu_ms=record.past_gpu_ms,
            lost_gpu_ms=record.lost_gpu_ms,
            started_ms=record.started_ms,
            failures=tuple(sorted(record.failures.items())),
            saved=record.saved,
        )
    if record.phase is Phase.REFUSED and record.refusal is not None:
        said = {"namespace": record.namespace, "name": record.name, "queue": record.queue}
        yield ev.GangRefused(gang=record.id, refusal=record.refusal, at_ms=at_ms, **said)
    if attempt is not None:
        yield ev.Recovered(
            gang=record.id,
            attempt=attempt.number,
            placement=attempt.placement,
            tier=attempt.tier,
            since_ms=attempt.since_ms,
            bound=attempt.bound_ms is not None,
            holding=tuple(sorted(attempt.holding)),
            running=tuple(sorted(attempt.running)),
            at_ms=at_ms,
            restarts=record.restarts,
            all_running_ms=attempt.all_running_ms,
            saved_ms=attempt.saved_ms,
            left=tuple(sorted(attempt.left | attempt.leaving.keys())),
            joining=tuple(sorted(attempt.joining)),
        )
        for rank in sorted(attempt.succeeded):
            yield ev.MemberEnded(gang=record.id, attempt=attempt.number, rank=rank, succeeded=True, at_ms=at_ms)
        for rank, detail in sorted(attempt.failed.items()):
            yield ev.MemberEnded(
                gang=record.id, attempt=attempt.number, rank=rank, succeeded=False, at_ms=at_ms, detail=detail
            )
        if attempt.stop is not None:
            yield attempt.stop
    elif record.nomination is not None:
        yield record.nomination
    if record.gone:
        yield ev.GangGone(gang=record.id, at_ms=at_ms)
