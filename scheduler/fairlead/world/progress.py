"""What facts say of a live attempt, as long as they change nothing but it and its gang's record."""

from __future__ import annotations

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.world.checkpoints import take_claim
from fairlead.world.gangs import Attempt, GangRecord
from fairlead.world.lifecycle import Step

Progress = ev.Bound | ev.MemberRunning | ev.MemberEnded | ev.CheckpointCommitted


def note_progress(record: GangRecord, attempt: Attempt, fact: Progress) -> None:
    """Remember what a fact says of the gang's current attempt; twice is once."""
    match fact:
        case ev.Bound(at_ms=at_ms):
            if record.phase is Phase.PLACING:
                attempt.bound_ms = at_ms
                record.failures_in_row = 0
                record.step(Step.BOUND)
        case ev.MemberRunning(rank=rank):
            if rank not in attempt.succeeded and rank not in attempt.failed:
                attempt.running.add(rank)
        case ev.MemberEnded(rank=rank):
            attempt.running.discard(rank)
            if fact.succeeded:
                attempt.succeeded.add(rank)
            elif rank not in attempt.succeeded:
                attempt.failed.setdefault(rank, fact.detail)
        case ev.CheckpointCommitted():
            take_claim(record, attempt, fact)


def note_notice(record: GangRecord, attempt: Attempt, fact: ev.NoticeIntended) -> None:
    """Remember that an attempt is to save and then to end; its devices are still its own."""
    if attempt.notice is None and attempt.stop is None and record.phase is Phase.RUNNING:
        attempt.notice = fact
        record.refusal = fact.cause
        record.step(Step.STOP)


def note_all_running(record: GangRecord, attempt: Attempt, at_ms: int) -> None:
    """Remember when all members ran, once they do."""
    everyone = len(attempt.placement.members)
    if record.phase is Phase.STARTING and len(attempt.running | attempt.succeeded) == everyone:
        attempt.all_running_ms = at_ms if attempt.all_running_ms is None else attempt.all_running_ms
        record.started_ms = at_ms if record.started_ms is None else record.started_ms
        record.step(Step.ALL_RUNNING)
