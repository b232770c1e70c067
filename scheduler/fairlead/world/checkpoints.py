"""Which claims of checkpoints count.

A claim comes from the gang's own program, so it is taken as far as it can be true and no further: it must be of an
attempt that runs, begin after that attempt ran and after the last one, leave its program the time that it says it needs
to write one, and not come from the future. Whatever a program claims, at least the work since the last claim that
counts is at stake when it is stopped, and never more than the work since its start.
"""

from __future__ import annotations

from fairlead.model.events import CheckpointCommitted
from fairlead.units import duration_text
from fairlead.world.gangs import Attempt, GangRecord

AHEAD_MS = 5_000
"""How far a node's clock may be ahead of ours before what it says counts as a lie."""


def take_claim(record: GangRecord, attempt: Attempt, claim: CheckpointCommitted) -> None:
    """Remember a checkpoint that counts; count one that does not. The same claim again changes nothing."""
    began_ms = min(claim.began_ms, claim.at_ms) if claim.began_ms <= claim.at_ms + AHEAD_MS else claim.began_ms
    notice = attempt.notice
    asked = notice is not None and not attempt.answered and claim.notice_ms == notice.begins_ms
    if asked and notice is not None:  # it has seen the notice, so it began after that, whatever its clock says
        began_ms = max(notice.at_ms, min(began_ms, claim.at_ms))
    if began_ms == attempt.saved_ms:
        return
    problem = why_false(record, attempt, began_ms, claim.at_ms, asked=asked)
    if problem:
        record.false_claims += 1
        record.false_claim = problem
        return
    attempt.saved_ms = began_ms
    attempt.answered = notice is not None and began_ms >= notice.at_ms
    record.false_claim = ""


def why_false(record: GangRecord, attempt: Attempt, began_ms: int, at_ms: int, *, asked: bool = False) -> str:
    """Return what is wrong with the claim that the state of `began_ms` is saved at `at_ms`; "" for nothing.

    One that answers a notice (`asked`) may follow the last one as soon as it will.
    """
    if began_ms > at_ms:
        return f"it began {duration_text(began_ms - at_ms)} in the future"
    if attempt.all_running_ms is None:
        return "not all members of the attempt have run yet"
    if began_ms < attempt.all_running_ms:
        return f"it began {duration_text(attempt.all_running_ms - began_ms)} before all members of the attempt ran"
    if attempt.saved_ms is None:
        return ""
    if began_ms < attempt.saved_ms:
        return f"it began {duration_text(attempt.saved_ms - began_ms)} before the last one"
    pause_ms = record.gang.checkpoint.pause_ms if record.gang is not None and record.gang.checkpoint else 0
    if not asked and began_ms - attempt.saved_ms < pause_ms:
        after, pause = duration_text(began_ms - attempt.saved_ms), duration_text(pause_ms)
        return f"it began {after} after the last one, and spec.checkpoint.pause is {pause}"
    return ""
