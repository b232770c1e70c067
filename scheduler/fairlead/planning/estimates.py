"""When a gang that waits will start: a range from the ends of what runs, who is ahead, and what was promised.

The half of the range rests on how long runs like these took, the whole of it on what they declared. What nobody knows
the end of never ends, and then the range is unknown. An estimate decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, GangId
from fairlead.ordering.backlog import inside_queue
from fairlead.world.durations import HALF, MOST
from fairlead.world.ends import latest_end
from fairlead.world.fleet import IntColumn, Level
from fairlead.world.snapshot import Running, World
from fairlead.world.views import UNKNOWN_START, StartRange

BASIS_PROMISE = "a promised latest start"
BASIS_ENDS = "the ends of running jobs and the jobs ahead in the queue"
BASIS_FREE = "free devices and the jobs ahead in the queue"


@dataclass(slots=True)
class _Ends:
    """When how many GPUs come free, where. Shape (pieces,) each: one piece is what one attempt holds on one row."""

    at_ms: IntColumn
    gpus: IntColumn
    rows: IntColumn

    def reached(self, wanted: int) -> int | None:
        """Return the moment by which so many GPUs have come free, None where they never will."""
        return _reached(self.at_ms, self.gpus, wanted)


class Estimates:
    """Estimates about one World. Building it is O(running + waiting); each answer O(running)."""

    def __init__(self, world: World) -> None:
        """Count what comes free when, and how much stands ahead of everybody."""
        self._world = world
        free = np.bitwise_count(world.free.free_mask).astype(np.int64)
        self._free: IntColumn = np.where(world.inventory.usable, free, 0)
        self._half, self._most = self._ends(HALF), self._ends(MOST)
        self._promised = {one.gang: one for one in world.promises}
        self._ahead: dict[GangId, int] = {}
        ranked = sorted(world.waiting.everyone, key=lambda item: (item.gang.queue, *inside_queue(item)))
        promised_of: dict[str, int] = {}
        for item in ranked:
            if item.gang.id in self._promised:
                promised_of[item.gang.queue] = promised_of.get(item.gang.queue, 0) + item.gang.gpus
        everything, queue, ahead = sum(promised_of.values()), "", 0
        for item in ranked:
            if item.gang.queue != queue:
                queue, ahead = item.gang.queue, 0
            self._ahead[item.gang.id] = ahead + everything - promised_of.get(queue, 0)
            ahead += item.gang.gpus

    def of(self, gang: Gang) -> StartRange:
        """Return when a gang that waits will start: p50 never after p90, both unknown or none."""
        now = self._world.now_ms
        promise = self._promised.get(gang.id)
        half, most = self._by(gang, self._half), self._by(gang, self._most)
        if promise is not None:
            latest = max(now, promise.latest_start_ms)
            return StartRange(p50_ms=min(latest, latest if half is None else half), p90_ms=latest, basis=BASIS_PROMISE)
        if half is None or most is None:
            return UNKNOWN_START
        basis = BASIS_FREE if most <= now else BASIS_ENDS
        return StartRange(p50_ms=min(half, most), p90_ms=most, basis=basis)

    def _by(self, gang: Gang, ends: _Ends) -> int | None:
        """Return by when enough is free for those ahead and the gang, and for it in one domain that it asks for."""
        free, now = int(self._free.sum()), self._world.now_ms
        wanted = self._ahead.get(gang.id, 0) + gang.gpus
        overall = now if wanted <= free else ends.reached(wanted - free)
        level = self._level(gang)
        if overall is None or level is None:
            return overall if level is not None or not _asks(gang) else None
        inside = self._in_a_domain(gang.gpus, level, ends)
        return None if inside is None else max(overall, inside)

    def _level(self, gang: Gang) -> Level | None:
        name = gang.topology.within if gang.topology is not None and gang.topology.required else "cluster"
        return self._world.inventory.levels.get(name)

    def _in_a_domain(self, gpus: int, level: Level, ends: _Ends) -> int | None:
        """Return by when some domain of a level has so many GPUs free."""
        inside = level.domain_of >= 0
        free = np.zeros(len(level.names), dtype=np.int64)
        np.add.at(free, level.domain_of[inside], self._free[inside])
        if len(free) and int(free.max()) >= gpus:
            return self._world.now_ms
        of_piece = level.domain_of[ends.rows] if len(ends.rows) else ends.rows
        found: list[int] = []
        for domain in range(len(level.names)):
            chosen = of_piece == domain
            moment = _reached(ends.at_ms[chosen], ends.gpus[chosen], gpus - int(free[domain]))
            if moment is not None:
                found.append(moment)
        return min(found, default=None)

    def _ends(self, permille: int) -> _Ends:
        pieces: list[tuple[int, int, int]] = []
        for attempt in self._world.running:
            end_ms = self._end_of(attempt, permille)
            if end_ms is None:
                continue
            on_row: dict[int, int] = {}
            for rank in attempt.holding:
                member = attempt.placement.members[rank]
                row = self._world.inventory.row.get(member.node)
                if row is not None and not member.share_milli:
                    on_row[row] = on_row.get(row, 0) + len(member.devices)
            pieces += [(end_ms, gpus, row) for row, gpus in on_row.items()]
        pieces.sort()
        columns = np.array(pieces, dtype=np.int64).reshape(len(pieces), 3)
        return _Ends(columns[:, 0], columns[:, 1], columns[:, 2])

    def _end_of(self, attempt: Running, permille: int) -> int | None:
        """Return when an attempt ends by what it declared, or earlier by what is learned of runs like it."""
        world, spec = self._world, attempt.spec
        declared = latest_end(attempt, world.rules, world.now_ms)
        if spec is None or attempt.all_running_ms is None:
            return declared
        learned = world.durations.quantile(spec, permille)
        if learned is None or attempt.all_running_ms + learned <= world.now_ms:
            return declared  # it runs for longer than most: what was learned says no more
        end_ms = attempt.all_running_ms + learned
        return end_ms if declared is None else min(end_ms, declared)


def _asks(gang: Gang) -> bool:
    return gang.topology is not None and gang.topology.required


def _reached(at_ms: IntColumn, gpus: IntColumn, wanted: int) -> int | None:
    """Return the first of sorted moments by which so many have come free."""
    if wanted <= 0:
        return int(at_ms[0]) if len(at_ms) else None
    at = int(np.searchsorted(np.cumsum(gpus), wanted))
    return int(at_ms[at]) if at < len(at_ms) else None
