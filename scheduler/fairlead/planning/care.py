"""What becomes of attempts that hold devices: success, failure, deadlines, suspension, lost nodes."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.effects import DeclareLost, Effect, Phase, Shrink, Stop, Withdraw
from fairlead.model.gang import Overrun
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.retries import Failure, may_retry
from fairlead.planning.notices import after_notice, is_moot, saves_first
from fairlead.units import duration_text
from fairlead.world.pictures import deadlines, hang_ms, joins_by, own_deadlines
from fairlead.world.snapshot import Running, World


def care(world: World) -> tuple[list[Effect], int | None]:
    """Return what must end now, and the next moment at which time alone ends something.

    Looks only at attempts of which the World says that they may end.
    """
    effects: list[Effect] = []
    wake: list[int] = [] if world.running.next_due_ms is None else [world.running.next_due_ms]
    for node, since_ms in world.unready:
        due = since_ms + world.rules.node_lost_after_ms
        if world.now_ms >= due:
            effects.append(DeclareLost(node=node))
        else:
            wake.append(due)
    for attempt in world.running.doubtful:
        ending = _ending(attempt, world)
        if ending is not None:
            cause, requeue = ending
            effects.append(Stop(gang=attempt.gang, attempt=attempt.attempt, cause=cause, requeue=requeue))
        else:
            effects += _turned_back(attempt, world)
            wake += [due for due in deadlines(attempt, world.rules) if due > world.now_ms]
    for attempt in world.running.noticed:
        assert attempt.notice is not None, attempt
        stop = _ending_after_notice(attempt, world)
        if (stop is None or stop.by) and is_moot(attempt, world):
            effects.append(Withdraw(gang=attempt.gang, attempt=attempt.attempt))
        elif stop is not None:
            effects.append(stop)
        else:
            wake.append(attempt.notice.until_ms)
    return effects, min(wake, default=None)


def _turned_back(attempt: Running, world: World) -> Iterator[Shrink]:
    """Yield that members go which were to join and have failed, are late, or are on a lost node; the gang goes on."""
    members, spec = attempt.placement.members, attempt.spec
    late = {rank for rank, due_ms in joins_by(attempt, world.rules) if due_ms <= world.now_ms}
    stray = dict(attempt.stray)
    lost = {rank for rank, _ in attempt.joining if members[rank].node in world.lost}
    ranks = tuple(sorted((late | lost | stray.keys()) & attempt.staying))
    if not ranks or spec is None:
        return
    first, limit = members[ranks[0]], duration_text(spec.start_deadline_ms)
    detail = stray.get(ranks[0]) or ("its node was lost" if ranks[0] in lost else f"it did not run after {limit}")
    cause = refuse(Reason.MEMBER_FAILED, member=f"{first.role}-{first.index}", detail=detail)
    yield Shrink(gang=attempt.gang, attempt=attempt.attempt, ranks=ranks, cause=cause, by="")


def _ending_after_notice(attempt: Running, world: World) -> Stop | None:
    """Return the stop of an attempt that was asked to save; one that finished before it had saved has succeeded."""
    if attempt.gone or attempt.spec is None:
        return Stop(gang=attempt.gang, attempt=attempt.attempt, cause=refuse(Reason.DELETED), requeue=False)
    if _has_succeeded(attempt) and not attempt.answered:
        return Stop(gang=attempt.gang, attempt=attempt.attempt, cause=refuse(Reason.FINISHED), requeue=False)
    return after_notice(attempt, world)


def _ending(attempt: Running, world: World) -> tuple[Refusal, bool] | None:
    """Return (cause, requeue) of the first rule that ends this attempt."""
    spec = attempt.spec
    if attempt.gone or spec is None:
        return refuse(Reason.DELETED), False
    if _has_succeeded(attempt):
        return refuse(Reason.FINISHED), False
    if spec.suspended:
        return refuse(Reason.SUSPENDED), True
    lost = sorted(m.node for m in attempt.placement.members if m.rank in attempt.at_work and m.node in world.lost)
    if lost:
        return _failed(attempt, Failure.NODE, refuse(Reason.NODE_LOST, node=lost[0]))
    # While it is being written to the cluster, members end because their undoing has begun: Bound or PlaceFailed says.
    failed = [*attempt.failed, *_robbed(attempt, world)]
    if failed and attempt.phase is not Phase.PLACING:
        rank, detail = failed[0]
        name = f"{attempt.placement.members[rank].role}-{attempt.placement.members[rank].index}"
        cause = refuse(Reason.MEMBER_FAILED, member=name, detail=detail)
        if not spec.restart_on_failure:
            return cause, False
        return _failed(attempt, Failure.MEMBER, cause, f"member {name}: {detail}")
    if not _is_due(attempt, world):
        return None
    if attempt.phase is Phase.STARTING:
        up, members = len(attempt.running | attempt.succeeded), attempt.present
        limit = duration_text(spec.start_deadline_ms)
        cause = refuse(Reason.START_DEADLINE, running=up, members=members, limit=limit)
        return _failed(attempt, Failure.START, cause, f"{up} of {members} members were running after {limit}")
    if attempt.phase is Phase.RUNNING:
        return _overrun(attempt, world) or _hung(attempt, world)
    return refuse(Reason.PLACE_CONFLICT, detail="no answer within the deadline"), True


def _overrun(attempt: Running, world: World) -> tuple[Refusal, bool] | None:
    """Return the end of an attempt whose duration is over, or is over when it has saved."""
    spec = attempt.spec
    if spec is None or spec.duration_ms is None or attempt.all_running_ms is None:
        return None
    ends_ms = attempt.all_running_ms + spec.duration_ms
    saving = world.now_ms >= ends_ms - min(spec.grace_ms, spec.duration_ms // 2)
    if world.now_ms < ends_ms and not (saving and saves_first(attempt, Reason.OVERRUN, world.now_ms)):
        return None
    return refuse(Reason.OVERRUN), spec.overrun is Overrun.REQUEUE


def _hung(attempt: Running, world: World) -> tuple[Refusal, bool] | None:
    """Return the end of an attempt that has shown nothing for too long."""
    hangs_ms, spec = hang_ms(attempt), attempt.spec
    if spec is None or spec.heartbeat_ms is None or hangs_ms is None or world.now_ms < hangs_ms:
        return None
    cause = refuse(Reason.HUNG, limit=duration_text(spec.heartbeat_ms))
    return (cause, False) if not spec.restart_on_failure else _failed(attempt, Failure.HANG, cause)


def _failed(attempt: Running, failure: Failure, cause: Refusal, detail: str = "") -> tuple[Refusal, bool]:
    """Return the end of an attempt that has failed: it begins again, unless that has happened too often."""
    spec = attempt.spec
    assert spec is not None, attempt
    if may_retry(attempt.failures, failure, spec.retries, spec.max_restarts):
        return cause, True
    detail, most = detail or cause.reason.sentence.format_map(dict(cause.details)), spec.retries.most(failure)
    if most is None:
        return _exhausted(attempt, detail), False
    count = dict(attempt.failures).get(failure, 0) + 1
    reason = Reason.RETRIES_EXHAUSTED
    return refuse(reason, count=count, failure=failure.value, limit=most, detail=detail), False


def _robbed(attempt: Running, world: World) -> Iterator[tuple[int, str]]:
    """Yield members that have been without their devices for too long to believe that only their end is late."""
    for rank, since_ms in attempt.robbed:
        if world.now_ms >= since_ms + world.rules.robbed_after_ms:
            yield rank, "its devices were taken from it"


def _is_due(attempt: Running, world: World) -> bool:
    """Whether a deadline of the attempt itself has passed."""
    return any(due <= world.now_ms for due in own_deadlines(attempt, world.rules))


def _exhausted(attempt: Running, detail: str) -> Refusal:
    limit = attempt.spec.max_restarts if attempt.spec is not None else 0
    return refuse(Reason.RESTARTS_EXHAUSTED, restarts=attempt.restarts + 1, limit=limit, detail=detail)


def _has_succeeded(attempt: Running) -> bool:
    """Whether the success policy is met: all members of the roles that count, or any of them."""
    spec = attempt.spec
    if spec is None or not attempt.succeeded:
        return False
    roles = spec.success_roles or tuple(role.name for role in spec.roles)
    counting = {member.rank for member in attempt.placement.members if member.role in roles}
    counting -= attempt.leaving | attempt.left | {rank for rank, _ in attempt.joining}
    done = counting & attempt.succeeded
    return bool(done) if spec.success_any else done == counting
