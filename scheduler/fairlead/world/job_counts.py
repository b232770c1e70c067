"""How many jobs hold devices in each queue, and how much its users and groups have: counted as records change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.model.gang import GangId
from fairlead.world.gangs import GangRecord
from fairlead.world.lifecycle import HOLDING

Who = tuple[str, str]
"""(queue, name of a user or group)."""
Had = tuple[int, int]
"""Jobs, and thousandths of a GPU."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class JobsHeld:
    """Jobs that hold devices or are being placed: per queue, those below it not included, and by user and by group."""

    of_queue: Mapping[str, int] = field(default_factory=dict[str, int])
    of_user: Mapping[Who, Had] = field(default_factory=dict[Who, Had])
    of_group: Mapping[Who, Had] = field(default_factory=dict[Who, Had])


@dataclass(frozen=True, slots=True)
class _Share:
    queue: str
    user: str
    groups: tuple[str, ...]
    gpu_milli: int


class JobCounts:
    """The counts of one state, filed one record at a time."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._of: dict[GangId, _Share] = {}
        self._queues: dict[str, int] = {}
        self._users: dict[Who, Had] = {}
        self._groups: dict[Who, Had] = {}
        self._picture: JobsHeld | None = JobsHeld()

    def file(self, record: GangRecord) -> None:
        """Count a gang as it is now."""
        attempt, gang = record.current, record.gang
        if attempt is None or record.phase not in HOLDING:
            self.forget(record.id)
            return
        milli = sum(attempt.member(rank).gpu_milli for rank in attempt.holding)
        who = ("", ()) if gang is None else (gang.user, gang.groups)
        share = _Share(record.queue, *who, milli)
        before = self._of.get(record.id)
        if before != share:
            if before is not None:
                self._count(before, -1)
            self._of[record.id] = share
            self._count(share, 1)

    def forget(self, gang: GangId) -> None:
        """Count a gang no more; one that was not counted is no matter."""
        share = self._of.pop(gang, None)
        if share is not None:
            self._count(share, -1)

    def picture(self) -> JobsHeld:
        """Return the counts; the same value until they change."""
        if self._picture is None:
            self._picture = JobsHeld(
                of_queue=dict(self._queues), of_user=dict(self._users), of_group=dict(self._groups)
            )
        return self._picture

    def _count(self, share: _Share, sign: int) -> None:
        self._picture = None
        jobs = self._queues.get(share.queue, 0) + sign
        if jobs:
            self._queues[share.queue] = jobs
        else:
            self._queues.pop(share.queue, None)
        _add(self._users, (share.queue, share.user), sign, share.gpu_milli)
        for group in share.groups:
            _add(self._groups, (share.queue, group), sign, share.gpu_milli)


def _add(counts: dict[Who, Had], who: Who, sign: int, gpu_milli: int) -> None:
    jobs, milli = counts.get(who, (0, 0))
    if jobs + sign:
        counts[who] = jobs + sign, milli + sign * gpu_milli
    else:
        counts.pop(who, None)
