"""The way of a stop: notice, checkpoint, committed, stop; and how notices that come together are spread.

Theory of operation. Whoever decides that an attempt ends says `Stop`. `in_steps` turns that into a `Notice` where the
gang can save when it is asked and there is something to save; `after_notice` makes the `Stop` of it later, once a
checkpoint that began after the notice is committed, or its time is over, or the attempt has come to an end by itself.
Its devices stay charged meanwhile, and the room that is being made waits for them.

Checkpoints that are written at the same time share their pool's storage. Each takes size / pause of it, or all of it
where nothing says how long it takes. Notices are given in the order in which they were decided, each as early as its
checkpoint fits beside those before it, and at the latest after `rules.stagger_max_ms`: then more is written than the
storage was said to take, because whoever has a right to the room must not wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from fairlead.model.effects import Effect, Nominate, Notice, Phase, Stop
from fairlead.model.gang import GangId
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason
from fairlead.world.snapshot import Running, World

BROKEN = frozenset(
    {
        Reason.DELETED,
        Reason.FINISHED,
        Reason.NODE_LOST,
        Reason.MEMBER_FAILED,
        Reason.START_DEADLINE,
        Reason.RESTARTS_EXHAUSTED,
        Reason.RETRIES_EXHAUSTED,
        Reason.HUNG,
        Reason.PLACE_CONFLICT,
        Reason.RESOLVED_DOUBLE,
    }
)
"""Why an attempt ends that cannot save any more, or whose state nobody wants."""

MOMENT_MS = 5_000
"""How long before its turn an attempt counts as asked: nobody can tell which comes first."""


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint being written: at `bytes_per_s` from `begins_ms` until before `ends_ms`."""

    begins_ms: int
    ends_ms: int
    bytes_per_s: int


class Storage:
    """What is written where, as far as notices have been given."""

    def __init__(self, world: World) -> None:
        """Count the checkpoints of those that were asked already and have not answered."""
        self._world = world
        self._saves: dict[str, list[Save]] = {}
        for attempt in world.running.noticed:
            if attempt.notice is not None and not attempt.answered:
                self._add(attempt, attempt.notice.begins_ms)

    def turn_of(self, attempt: Running) -> int:
        """Return when it is the attempt's turn to save, UTC ms, and count it from now on."""
        now_ms, latest_ms = self._world.now_ms, self._world.now_ms + self._world.rules.stagger_max_ms
        pool, budget = self._budget_of(attempt)
        begins_ms = now_ms
        if budget is not None:
            write_ms, bytes_per_s = rate_of(attempt, budget)
            known = self._saves.get(pool, [])
            begins_ms = min(latest_ms, _first_fit(known, now_ms, write_ms, budget - bytes_per_s))
        self._add(attempt, begins_ms)
        return begins_ms

    def _add(self, attempt: Running, begins_ms: int) -> None:
        pool, budget = self._budget_of(attempt)
        if budget is not None:
            write_ms, bytes_per_s = rate_of(attempt, budget)
            self._saves.setdefault(pool, []).append(Save(begins_ms, begins_ms + write_ms, bytes_per_s))

    def _budget_of(self, attempt: Running) -> tuple[str, int | None]:
        """Return the pool of an attempt's first member and what its storage takes in bytes/s."""
        row = self._world.inventory.row.get(attempt.placement.members[0].node)
        name = "" if row is None else self._world.inventory.nodes[row].pool
        pool = self._world.pools.get(name)
        return name, None if pool is None else pool.checkpoint_bytes_per_s


def rate_of(attempt: Running, budget: int) -> tuple[int, int]:
    """Return how long, in ms, and how fast, in bytes/s, an attempt writes into storage that takes `budget` bytes/s."""
    declared = attempt.spec.checkpoint if attempt.spec is not None else None
    size = declared.size_bytes if declared is not None else 0
    if declared is None or not size:
        return 0, 0
    shortest_ms = -(-1_000 * size // budget)
    write_ms = max(shortest_ms, attempt.save_ms)
    return write_ms, min(budget, -(-1_000 * size // write_ms))


def _first_fit(known: Sequence[Save], from_ms: int, write_ms: int, room: int) -> int:
    """Return the first moment from which, for `write_ms`, others never write more than `room` bytes/s together."""
    for begins_ms in sorted({from_ms, *(save.ends_ms for save in known if save.ends_ms > from_ms)}):
        beside = [save for save in known if save.begins_ms < begins_ms + write_ms and save.ends_ms > begins_ms]
        moments = {begins_ms, *(save.begins_ms for save in beside if save.begins_ms > begins_ms)}
        peaks = (sum(s.bytes_per_s for s in beside if s.begins_ms <= at < s.ends_ms) for at in moments)
        if max(peaks) <= room:
            return begins_ms
    raise AssertionError("after the last of them nobody writes")


def in_steps(effects: Sequence[Effect], world: World) -> list[Effect]:
    """Return the effects with notices in the place of stops that are to wait for a checkpoint.

    Room that is being made is kept until those who yield have had their time.
    """
    kept_until: dict[str, int] = {}
    told: list[Effect] = []
    storage: Storage | None = None
    for effect in effects:
        attempt = world.running.get(effect.gang, effect.attempt) if isinstance(effect, Stop) else None
        if (
            not isinstance(effect, Stop)
            or attempt is None
            or not saves_first(attempt, effect.cause.reason, world.now_ms)
        ):
            told.append(effect)
            continue
        storage = storage or Storage(world)
        notice = _notice(effect, attempt, storage, world)
        told.append(notice)
        if notice.by:
            kept_until[notice.by] = max(kept_until.get(notice.by, 0), notice.until_ms + world.rules.nomination_ms)
    if not kept_until:
        return told
    return [
        replace(effect, until_ms=max(effect.until_ms, kept_until.get(effect.gang, 0)))
        if isinstance(effect, Nominate)
        else effect
        for effect in told
    ]


def saves_first(attempt: Running, cause: Reason, now_ms: int) -> bool:
    """Whether an attempt is to save before it is stopped: it can, it runs, and it has done more than saving costs."""
    spec = attempt.spec
    if spec is None or spec.checkpoint is None or not spec.checkpoint.on_notice or spec.grace_ms <= 0:
        return False
    if attempt.phase is not Phase.RUNNING or attempt.all_running_ms is None or cause in BROKEN:
        return False
    ready_ms = 0 if attempt.saved_ms is None else attempt.saved_ms + attempt.save_ms
    return now_ms - max(attempt.all_running_ms, ready_ms) > attempt.save_ms


def _notice(stop: Stop, attempt: Running, storage: Storage, world: World) -> Notice:
    spec = attempt.spec
    assert spec is not None, attempt
    begins_ms = storage.turn_of(attempt)
    grace_ms = spec.grace_ms
    if stop.cause.reason is Reason.RECLAIMED:  # else whoever asks for long graces keeps what it borrowed longer
        grace_ms = min(grace_ms, world.rules.reclaim_grace_ms)
    until_ms = begins_ms + grace_ms
    if spec.duration_ms is not None and attempt.all_running_ms is not None:
        # Others were promised what it holds from the end of its duration on, whatever it is asked to do meanwhile.
        ends_ms = max(world.now_ms, attempt.all_running_ms + spec.duration_ms)
        begins_ms, until_ms = min(begins_ms, ends_ms), min(until_ms, ends_ms)
    return Notice(
        gang=stop.gang,
        attempt=stop.attempt,
        cause=stop.cause,
        requeue=stop.requeue,
        begins_ms=begins_ms,
        until_ms=until_ms,
        by=stop.by,
        lost_gpu_ms=stop.lost_gpu_ms,
    )


def after_notice(attempt: Running, world: World) -> Stop | None:
    """Return the stop of an attempt that was asked to save and has, or will not; None while it is waited for."""
    notice = attempt.notice
    assert notice is not None, attempt
    if attempt.answered or world.now_ms >= notice.until_ms or cannot_save(attempt, world.lost):
        return Stop(
            gang=attempt.gang, attempt=attempt.attempt, cause=notice.cause, requeue=notice.requeue, by=notice.by
        )
    return None


def is_moot(attempt: Running, world: World) -> bool:
    """Whether an attempt may go on that was asked to save for somebody: nobody gains by its stop any more.

    That is so once the room it was to make is kept for nobody. Not where its pods are on their way out already, to tell
    its program, or will be in a moment.
    """
    notice, spec = attempt.notice, attempt.spec
    if notice is None or not notice.by or spec is None or spec.checkpoint is None or spec.suspended:
        return False
    if cannot_save(attempt, world.lost):
        return False
    if not spec.checkpoint.watches and world.now_ms + MOMENT_MS >= notice.begins_ms:
        return False
    taker = world.waiting.get(GangId(notice.by))
    room = taker.nomination if taker is not None else None
    return room is None or (attempt.gang, attempt.attempt) not in room.victims


def cannot_save(attempt: Running, lost: Set[NodeName]) -> bool:
    """Whether an attempt that was asked to save will not do so any more."""
    spec = attempt.spec
    if attempt.gone or spec is None or not attempt.holding:
        return True
    told_by_deletion = spec.checkpoint is not None and not spec.checkpoint.watches
    if attempt.failed and not told_by_deletion:  # a pod that is being deleted counts as failed, and saves all the same
        return True
    return any(attempt.placement.members[rank].node in lost for rank in attempt.holding)
