"""The second opinion on stops in steps: who can save is asked first, and nobody is stopped while he does.

Written from the promises of `docs/explanation/checkpoints.md`, without a look at `notices`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.effects import Notice, Phase, Stop, Withdraw
from fairlead.model.reasons import Reason
from fairlead.world.snapshot import Running, World

YIELDING = frozenset(
    {
        Reason.RECLAIMED,
        Reason.PREEMPTED,
        Reason.SUSPENDED,
        Reason.OVERRUN,
        Reason.LENT_RETURNED,
        Reason.IDLE,
    }
)
"""Why somebody is stopped whose state is still good."""


def check_withdrawn(effect: Withdraw, world: World) -> Iterator[str]:
    """Yield why a notice must stand: it was not given for somebody, room is still made for them, or it is too late."""
    attempt = world.running.get(effect.gang, effect.attempt)
    notice = attempt.notice if attempt is not None else None
    if attempt is None or notice is None or not notice.by or attempt.spec is None or attempt.spec.checkpoint is None:
        yield f"{effect.gang}: a notice is withdrawn that was not given for somebody"
        return
    for waiting in world.waiting.nominated:
        room = waiting.nomination
        if waiting.gang.id == notice.by and room is not None and (effect.gang, effect.attempt) in room.victims:
            yield f"{effect.gang}: goes on although {notice.by} waits for its devices"
    if not attempt.spec.checkpoint.watches and world.now_ms >= notice.begins_ms:
        yield f"{effect.gang}: goes on although its pods are on their way out"


def check_patience(effect: Stop | Notice, attempt: Running, world: World) -> Iterator[str]:
    """Yield what is wrong with the moment of a stop or notice."""
    if isinstance(effect, Notice):
        yield from _check_notice(effect, attempt, world)
    elif attempt.phase is Phase.STOPPING:
        yield from _check_stop_after_notice(effect, attempt, world)
    elif effect.cause.reason in YIELDING and _owed_notice(attempt, world):
        yield f"{attempt.gang}: {effect.cause.reason.token} without being asked to save first"


def _owed_notice(attempt: Running, world: World) -> bool:
    spec = attempt.spec
    if spec is None or spec.checkpoint is None or attempt.phase is not Phase.RUNNING or attempt.all_running_ms is None:
        return False
    can = spec.checkpoint.watches or bool(spec.checkpoint.command) or bool(spec.checkpoint.signal)
    takes_ms = attempt.measured.save_ms or spec.checkpoint.pause_ms
    worked_ms = world.now_ms - attempt.all_running_ms
    if attempt.saved_ms is not None:
        worked_ms = min(worked_ms, world.now_ms - attempt.saved_ms - takes_ms)
    return can and spec.grace_ms > 0 and worked_ms > takes_ms


def _check_notice(effect: Notice, attempt: Running, world: World) -> Iterator[str]:
    spec = attempt.spec
    if spec is None or spec.checkpoint is None or attempt.phase is not Phase.RUNNING:
        yield f"{attempt.gang}: asked to save although it cannot"
        return
    if attempt.notice is not None:
        yield f"{attempt.gang}: asked to save twice"
    if not world.now_ms <= effect.begins_ms <= world.now_ms + world.rules.stagger_max_ms:
        yield f"{attempt.gang}: its turn to save is not within {world.rules.stagger_max_ms} ms"
    if not effect.begins_ms <= effect.until_ms <= effect.begins_ms + spec.grace_ms:
        yield f"{attempt.gang}: its time to save is not what it asked for"
    if spec.duration_ms is not None and attempt.all_running_ms is not None:
        ends_ms = max(world.now_ms, attempt.all_running_ms + spec.duration_ms)
        if effect.until_ms > ends_ms:
            yield f"{attempt.gang}: it may save {effect.until_ms - ends_ms} ms longer than it may run"


def _check_stop_after_notice(effect: Stop, attempt: Running, world: World) -> Iterator[str]:
    """Saved, out of time, or past saving."""
    notice = attempt.notice
    if notice is None:
        yield f"{attempt.gang}: stopped a second time"
        return
    spec = attempt.spec
    saved = attempt.answered and attempt.saved_ms is not None and attempt.saved_ms >= notice.at_ms
    on_lost = any(attempt.placement.members[rank].node in world.lost for rank in attempt.holding)
    broken = attempt.gone or spec is None or bool(attempt.failed) or bool(attempt.succeeded) or not attempt.holding
    if not (saved or broken or on_lost or world.now_ms >= notice.until_ms):
        yield f"{attempt.gang}: stopped while it was saving"
    if effect.cause.reason not in (Reason.DELETED, Reason.FINISHED) and effect.cause != notice.cause:
        yield f"{attempt.gang}: stopped for another reason than it was told"
