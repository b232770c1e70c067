"""The auditor's own reading of what became of held time. Written without a look at `outcomes.py` and `attempts.py`.

It takes what `Sweep` found a device to be in and cuts that wherever an attempt was stopped, came to run, or was looked
at; and says of each piece that somebody holds what it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fairlead.model import events as ev
from fairlead.model.codec import Record

What = tuple[str, str, str, int, int, str, str, int, str, str]
"""(account, pool, gang, attempt, rank, namespace, job, ticks a ms, for whom, by which rule): what an entry must say."""
Span = tuple[int, tuple[What, ...]]
"""(from_ms, all that was true of the device), until the next span's beginning; () where it was not in the fleet."""

HOUR = 3_600_000
FOREVER = 1 << 62
SELF, GAINER, NOBODY = "self", "gainer", "platform"
LOST: dict[str, tuple[str, str]] = {
    "Preempted": ("preempted", GAINER),
    "Reclaimed": ("reclaimed", GAINER),
    "ReservationBegins": ("reservation", GAINER),
    "LentReturned": ("lent-returned", NOBODY),
    "OverLimit": ("over-limit", NOBODY),
    "NodeLost": ("node-lost", NOBODY),
    "PlacementConflict": ("placement-failed", NOBODY),
    "MemberFailed": ("failed", SELF),
    "RestartsExhausted": ("failed", SELF),
    "RetriesExhausted": ("failed", SELF),
    "StartDeadlineExceeded": ("start-deadline", SELF),
    "Hung": ("hung", SELF),
    "DurationExceeded": ("overrun", SELF),
    "Suspended": ("suspended", SELF),
    "IdleTooLong": ("idle-stopped", SELF),
    "BudgetNotRenewed": ("budget", SELF),
    "HoleEnded": ("hole-ended", NOBODY),
    "DoubleAllocation": ("double-allocation", NOBODY),
}
"""Token of a stop -> (cause, whose it is)."""
SINCE = {"BudgetNotRenewed": 2, "HoleEnded": 2, "DoubleAllocation": 2}
"""Those that count once an engine has said to go by rules of at least this number."""

Tried = tuple[str, int]
"""(gang, attempt)."""
_Look = tuple[int, int, int, Mapping[str, int]]
"""(begin, end, order in the journal, device -> thousandths)."""


@dataclass(slots=True)
class _Lost:
    """A word that work from `since` on is lost, or (no cause) is not; `known` is the oldest moment it can speak of."""

    since: int
    known: int
    cause: str = ""
    actor: str = ""
    token: str = ""


@dataclass(slots=True)
class _Try:
    ranks: frozenset[int] = frozenset()
    gone: set[int] = field(default_factory=set[int])
    up: dict[int, int] = field(default_factory=dict[int, int])
    said: int | None = None
    lost: list[_Lost] = field(default_factory=list[_Lost])
    worse: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def worse_by(self, now: int) -> int:
        """Thousandths of its work that the placement told last by now was said to lose; none before all are up."""
        told = [one for one in self.worse if one[0] <= now]
        return max(told)[2] if told and now >= self.up_since() else 0

    def up_since(self) -> int:
        if self.said is not None:
            return self.said
        needed = self.ranks - self.gone
        return max(self.up.get(rank, FOREVER) for rank in needed) if needed else FOREVER


class Became:
    """Reads records in journal order with `read`, then cuts spans with `spans`."""

    def __init__(self, queue_of: Callable[[str], str]) -> None:
        """Know nothing; `queue_of` a gang is "" where nobody has described it so far."""
        self._queue_of = queue_of
        self._tries: dict[Tried, _Try] = {}
        self._looks: dict[str, list[_Look]] = {}
        self._rules = 0

    def read(self, record: Record, at: int, count: int, oldest: int | None) -> None:
        """Take the next record, at the moment at which it counts; nothing counts before `oldest`."""
        known = -FOREVER if oldest is None else oldest
        if isinstance(record, ev.DevicesCounted):
            begin = max(record.from_ms, known)
            if begin < at <= begin + HOUR:
                self._looks.setdefault(record.name, []).append((begin, at, count, dict(record.busy)))
        elif isinstance(record, ev.Intended | ev.Recovered | ev.GrowIntended):
            tried, joining = self._try(record.gang, record.attempt), 0
            if isinstance(record, ev.GrowIntended):  # those who come later are not waited for
                joining = record.joining
            ranks = [member.rank for member in record.placement.members]
            tried.ranks = tried.ranks or frozenset(ranks[: len(ranks) - joining])
            if not isinstance(record, ev.Recovered):
                tried.worse.append((at, count, record.placement.slowed_permille))
            elif record.all_running_ms is not None and tried.said is None:
                tried.said = max(min(record.all_running_ms, at), known)
        elif isinstance(record, ev.MemberRunning) or (isinstance(record, ev.MemberEnded) and record.succeeded):
            self._up(record.gang, record.attempt, record.rank, at)
        elif isinstance(record, ev.ShrinkIntended):
            self._try(record.gang, record.attempt).gone.update(record.ranks)
        elif isinstance(record, ev.StopRefused):
            lost = self._try(record.gang, record.attempt).lost
            if lost and lost[-1].cause:
                lost.append(_Lost(max(lost[-1].since, known), known))
        elif isinstance(record, ev.StopIntended | ev.PlaceFailed):
            self._stop(record, at, known)
        elif isinstance(record, ev.Started):
            self._rules = max(self._rules, record.meter)

    def _try(self, gang: str, attempt: int) -> _Try:
        return self._tries.setdefault((gang, attempt), _Try())

    def _up(self, gang: str, attempt: int, rank: int, at: int) -> None:
        up = self._try(gang, attempt).up
        up[rank] = min(at, up.get(rank, at))

    def _stop(self, record: ev.StopIntended | ev.PlaceFailed, at: int, known: int) -> None:
        lost = self._try(record.gang, record.attempt).lost
        token = record.cause.reason.token
        if token not in LOST or SINCE.get(token, 0) > self._rules or (lost and lost[-1].cause):
            return
        cause, whose = LOST[token]
        by = record.by if isinstance(record, ev.StopIntended) else ""
        safe = record.safe_ms if isinstance(record, ev.StopIntended) else None
        actor = NOBODY
        if whose == SELF:
            actor = self._queue_of(record.gang) or "unknown"
        elif whose == GAINER and by:
            actor = self._queue_of(by) or "unknown"
        lost.append(_Lost(known if safe is None else max(min(safe, at), known), known, cause, actor, token))

    def spans(
        self, node: str, device: str, spans: list[Span], holds: Mapping[tuple[str, int, int], tuple[int, int]]
    ) -> list[Span]:
        """Cut what a device was in; `holds` are (begin, end) of those on its node, `FOREVER` while they last."""
        looks = sorted((look for look in self._looks.get(node, ()) if device in look[3]), key=lambda look: look[0])
        moments = {begin for begin, _ in spans} | {edge for begin, end, _, _ in looks for edge in (begin, end)}
        for gang, attempt in {(what[2], what[3]) for _, whats in spans for what in whats if what[2]}:
            moments |= self._moments(gang, attempt)
        first = spans[0][0] if spans else 0
        out: list[Span] = []
        at = -1
        for now in sorted(moment for moment in moments if first <= moment < FOREVER):
            while at + 1 < len(spans) and spans[at + 1][0] <= now:
                at += 1
            held = [what for what in spans[at][1] if what[2]]
            found: list[What] = []
            for what in held:
                found += self._became(what, _look_at(looks, device, now), holds[what[2], what[3], what[4]], now)
            if tuple(found) != (out[-1][1] if out else ()):
                out.append((now, tuple(found)))
        return out

    def _moments(self, gang: str, attempt: int) -> set[int]:
        mine, before = self._tries.get((gang, attempt)), self._tries.get((gang, attempt - 1))
        moments: set[int] = set()
        if mine is not None:
            moments |= {lost.since for lost in mine.lost} | {mine.up_since()} | {at for at, _, _ in mine.worse}
        if before is not None:
            moments |= {lost.known for lost in before.lost}
        return moments

    def _became(
        self, what: What, look: tuple[int, int, int] | None, hold: tuple[int, int], now: int
    ) -> tuple[What, ...]:
        _, tenant, queue, tier = what[0].split(":")
        mine = self._tries.get((what[2], what[3]), _Try())
        before = self._tries.get((what[2], what[3] - 1), _Try()).lost
        cause = actor = token = ""
        if before and before[-1].cause and before[-1].known <= now < mine.up_since():
            cause, actor, token = "restart", before[-1].actor, before[-1].token
        else:
            last = [lost for lost in mine.lost if lost.since <= now]
            if last:
                cause, actor, token = last[-1].cause, last[-1].actor, last[-1].token
        if cause:
            return ((f"waste:{cause}:{tenant}:{queue}", *what[1:8], actor, token),)
        if what[7] < 840:
            shared = (f"use:{tenant}:{queue}:unattributable", *what[1:8], "", "unattributable")
            return () if look is None else (shared,)
        work = 840 if look is None else max(0, min(840, 840 * look[2] // 1_000))
        slow = max(0, min(work, work * mine.worse_by(now) // 1_000))
        parts: list[What] = [(f"waste:topology:{tenant}:{queue}", *what[1:7], slow, NOBODY, f"estimated/{tier}")]
        if look is not None:
            sure = "exact" if hold[0] <= look[0] and look[1] <= hold[1] else "estimated"
            parts.append((f"use:{tenant}:{queue}:used", *what[1:7], work - slow, "", sure))
            parts.append((f"use:{tenant}:{queue}:idle", *what[1:7], 840 - work, "", sure))
        return tuple(part for part in parts if part[7])


def _look_at(looks: list[_Look], device: str, now: int) -> tuple[int, int, int] | None:
    first = bisect_left(looks, now - HOUR, key=lambda look: look[0])
    around = [look for look in looks[first:] if look[0] <= now < look[1]]
    if not around:
        return None
    begin, end, _, busy = max(around, key=lambda look: look[2])
    return begin, end, busy[device]
