"""Which claims of checkpoints count, and what is learnt from those that do.

A claim comes from the gang's own program, so it is taken as far as it can be true and no further: it must be of an
attempt that runs, begin after that attempt ran and after the last one, leave its program the time that it says it needs
to write one, and not come from the future. Whatever a program claims, at least the work since the last claim that
counts is at stake when it is stopped, and never more than the work since its start.
"""

from __future__ import annotations

from dataclasses import replace

from fairlead.model.checkpoints import Measured, Saved, smoothed
from fairlead.model.events import CheckpointCommitted
from fairlead.model.gang import Gang, Placement
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
        note_false_claim(record, problem)
        return
    _learn(record, attempt, began_ms, claim)
    attempt.saved_ms = began_ms
    attempt.beat_ms = max(attempt.beat_ms, claim.at_ms)
    attempt.answered = notice is not None and began_ms >= notice.at_ms
    record.false_claim = ""
    checkpoint = record.gang.checkpoint if record.gang is not None else None
    record.saved = Saved(
        attempt=attempt.number,
        began_ms=began_ms,
        step=claim.step,
        path=claim.path or (checkpoint.path if checkpoint is not None else ""),
        digest=claim.digest,
        members=shape_of(attempt.at_work),
        format=claim.format,
        code=claim.code,
    )


def note_false_claim(record: GangRecord, problem: str) -> None:
    """Count a claim that does not count, and keep what was wrong with it."""
    record.false_claims += 1
    record.false_claim = problem


def _learn(record: GangRecord, attempt: Attempt, began_ms: int, claim: CheckpointCommitted) -> None:
    known = record.measured
    before_ms = attempt.saved_ms if attempt.saved_ms is not None else attempt.all_running_ms
    record.measured = Measured(
        save_ms=smoothed(known.save_ms, max(1, claim.at_ms - began_ms)),
        interval_ms=known.interval_ms if claim.notice_ms else smoothed(known.interval_ms, began_ms - (before_ms or 0)),
        restart_ms=known.restart_ms,
    )


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


def shape_of(placement: Placement) -> tuple[tuple[str, int], ...]:
    """Return (role, members) of a placement, in the order of the ranks."""
    found: dict[str, int] = {}
    for member in placement.members:
        found[member.role] = found.get(member.role, 0) + 1
    return tuple(found.items())


def held_to_checkpoint(gang: Gang, saved: Saved | None) -> Gang:
    """Return the gang as its last checkpoint lets it begin again.

    It has as many members as wrote the checkpoint, unless another number can read it; one that can't read its format at
    all says so in `checkpoint.unreadable`.
    """
    if saved is None or gang.checkpoint is None:
        return gang
    if saved.format and gang.checkpoint.reads and saved.format not in gang.checkpoint.reads:
        gang = replace(gang, checkpoint=replace(gang.checkpoint, unreadable=saved.format))
    return gang if gang.checkpoint is not None and gang.checkpoint.reshards else _with_members(gang, saved)


def _with_members(gang: Gang, saved: Saved) -> Gang:
    if not saved.members:
        return gang
    if all(role.fewest == role.replicas for role in gang.roles):
        return gang
    wrote = dict(saved.members)
    if any(not role.fewest <= wrote.get(role.name, 0) <= role.replicas for role in gang.roles):
        return gang  # its owner has changed what it asks for: another gang in all but name
    roles = (
        replace(role, replicas=wrote[role.name], min_replicas=None)
        for role in gang.roles
        if wrote.get(role.name, 0) > 0
    )
    return replace(gang, roles=tuple(roles))
