"""What facts say of a live attempt, as long as they change nothing but it and its gang's record."""

from __future__ import annotations

from dataclasses import replace

from fairlead.model import events as ev
from fairlead.model.checkpoints import smoothed
from fairlead.model.effects import Phase
from fairlead.model.reasons import Reason
from fairlead.model.retries import NO_RETRIES, Failure, backoff_ms
from fairlead.model.rules import Rules
from fairlead.world.checkpoints import note_false_claim, take_claim
from fairlead.world.gangs import Attempt, GangRecord
from fairlead.world.lifecycle import LIVE, Step

Progress = ev.Bound | ev.MemberRunning | ev.MemberEnded | ev.CheckpointCommitted | ev.LifeSign | ev.TierChanged

FAILURE_OF = {
    Reason.MEMBER_FAILED: Failure.MEMBER,
    Reason.RESTARTS_EXHAUSTED: Failure.MEMBER,
    Reason.START_DEADLINE: Failure.START,
    Reason.HUNG: Failure.HANG,
    Reason.NODE_LOST: Failure.NODE,
}
"""Stops that are failures. Whatever the last one was, a gang that is out of restarts begins no more."""


def note_progress(record: GangRecord, attempt: Attempt, fact: Progress) -> None:
    """Remember what a fact says of the gang's current attempt; twice is once."""
    match fact:
        case ev.Bound(at_ms=at_ms):
            if record.phase is Phase.PLACING:
                attempt.bound_ms = at_ms
                record.failures_in_row = 0
                record.step(Step.BOUND)
        case ev.MemberRunning(rank=rank) | ev.MemberEnded(rank=rank) if rank in attempt.leaving or rank in attempt.left:
            pass  # nothing that a member does while it leaves is about the gang any more
        case ev.MemberEnded(rank=rank, succeeded=False) if rank in attempt.joining:
            attempt.stray.setdefault(rank, fact.detail)
        case ev.MemberRunning(rank=rank):
            attempt.joining.pop(rank, None)
            if rank not in attempt.succeeded and rank not in attempt.failed:
                attempt.running.add(rank)
        case ev.MemberEnded(rank=rank):
            attempt.running.discard(rank)
            attempt.joining.pop(rank, None)
            if fact.succeeded:
                attempt.succeeded.add(rank)
            elif rank not in attempt.succeeded:
                attempt.failed.setdefault(rank, fact.detail)
        case ev.TierChanged(tier=tier):
            attempt.tier = tier
        case ev.CheckpointCommitted():
            take_claim(record, attempt, fact)
        case ev.LifeSign(problem=problem):
            if problem:
                note_false_claim(record, problem)
            else:
                _note_beat(record, attempt, fact.at_ms)


def _note_beat(record: GangRecord, attempt: Attempt, at_ms: int) -> None:
    """Remember a heartbeat; the first one of an attempt says how long it took to come to work."""
    if not attempt.beat_ms and attempt.all_running_ms is not None:
        took_ms = max(1, at_ms - attempt.since_ms)
        record.measured = replace(record.measured, restart_ms=smoothed(record.measured.restart_ms, took_ms))
    attempt.beat_ms = max(attempt.beat_ms, at_ms)


def note_failure(record: GangRecord, fact: ev.StopIntended, rules: Rules) -> None:
    """Count what a stop says of a failure, and until when the gang waits before it begins again."""
    failure = FAILURE_OF.get(fact.cause.reason)
    if failure is None:
        return
    record.failures[failure] = record.failures.get(failure, 0) + 1
    retries = record.gang.retries if record.gang is not None else NO_RETRIES
    if failure is not Failure.NODE:
        record.restarts += 1
    elif retries.node_lost is None:
        return  # that nodes are lost is nobody's fault: it begins elsewhere at once
    if fact.requeue:
        count = record.restarts if failure is not Failure.NODE else record.failures[failure]
        record.retry_at_ms = fact.at_ms + backoff_ms(retries, count, rules.backoff_ms, rules.backoff_max_ms)


def stop_of(fact: ev.PlaceFailed) -> ev.StopIntended:
    """Return the end of an attempt that could not be bound."""
    return ev.StopIntended(gang=fact.gang, attempt=fact.attempt, cause=fact.cause, requeue=True, at_ms=fact.at_ms)


def note_taking(record: GangRecord, attempt: Attempt, fact: ev.NoticeIntended | ev.ShrinkIntended) -> bool:
    """Remember that an attempt is to save and end, or that members are to leave it; returns whether it is news."""
    if isinstance(fact, ev.ShrinkIntended):
        return record.phase in LIVE and attempt.shrink(fact)
    return note_notice(record, attempt, fact)


def note_notice(record: GangRecord, attempt: Attempt, fact: ev.NoticeIntended) -> bool:
    """Remember that an attempt is to save and then to end, its devices still its own; returns whether it is news."""
    if attempt.notice is not None or attempt.stop is not None or record.phase is not Phase.RUNNING:
        return False
    attempt.notice = fact
    record.refusal = fact.cause
    record.step(Step.STOP)
    return True


def note_all_running(record: GangRecord, attempt: Attempt, at_ms: int) -> None:
    """Remember when all members ran, once they do."""
    if record.phase is Phase.STARTING and len(attempt.running | attempt.succeeded) == attempt.present:
        attempt.all_running_ms = at_ms if attempt.all_running_ms is None else attempt.all_running_ms
        record.started_ms = at_ms if record.started_ms is None else record.started_ms
        record.step(Step.ALL_RUNNING)
