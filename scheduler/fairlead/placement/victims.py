"""Who could yield, and what that would free on each node: kept from cycle to cycle, brought up to date by what changed.

`Victims` holds every attempt that somebody might have a right to. `Yield` columns say what a whole group of them (a
queue's, or a queue's below some priority) would free together. Both are caches: the same World gives the same values.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from fairlead.model.gang import GangId
from fairlead.model.rules import Unsaving
from fairlead.placement.amounts import FIXED
from fairlead.placement.lost_work import NOT_STARTED
from fairlead.placement.victim import DEAR, Held, Kind, Victim, may_yield, parts_of
from fairlead.world.attempts import AttemptLog
from fairlead.world.fleet import IntColumn, Inventory
from fairlead.world.snapshot import World

NOBODY = 1 << 40
"""More devices than any attempt has."""
YIELD_BYTES = 64 << 20
"""What the columns of all groups may take up in memory."""


class Yield:
    """What all victims of a queue (`below`: of less than that priority) up to a kind would free together.

    mask, parts shape (nodes,): devices that would be free again; devices on which a part would go
    amounts     shape (4 + extended, nodes)
    youngest    shape (nodes,): since when the one on each row that has the least to lose has been at work, put back by
                what its new start costs; -1 where none is
    flat        shape (nodes,): what one device costs at most of those on each row whose price is bounded; else DEAR
    smallest    shape (nodes,): devices, on all its nodes, of the smallest one that has any on the row; else NOBODY
    stamp       shape (nodes,): the tick of the Victims at which the row changed last
    """

    def __init__(self, queue: str, below: int | None, kind: Kind, nodes: int, amounts: int, serial: int) -> None:
        """Nobody yields. `serial` is of no other Yield of the same Victims."""
        self.serial = serial
        self.queue = queue
        self.below = below
        self.kind = kind
        self.mask: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.parts: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.amounts: IntColumn = np.zeros((amounts, nodes), dtype=np.int64)
        self.youngest: IntColumn = np.full(nodes, -1, dtype=np.int64)
        self.flat: IntColumn = np.full(nodes, DEAR, dtype=np.int64)
        self.smallest: IntColumn = np.full(nodes, NOBODY, dtype=np.int64)
        self.stamp: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.tick = 0

    def is_of(self, victim: Victim) -> bool:
        """Whether the victim is one of the group."""
        if victim.queue != self.queue or victim.kind > self.kind:
            return False
        return self.below is None or victim.priority < self.below

    def count(self, rows: Sequence[int], on_row: Sequence[dict[str, tuple[Victim, Held]]], tick: int) -> None:
        """Count some rows anew."""
        if not rows:
            return
        at = np.array(rows, dtype=np.int64)
        self.mask[at] = self.parts[at] = 0
        self.amounts[:, at] = 0
        self.youngest[at] = -1
        self.flat[at] = DEAR
        self.smallest[at] = NOBODY
        self.stamp[at] = self.tick = tick
        found = [(v, h) for row in rows for v, h in on_row[row].values() if self.is_of(v)]
        if not found:
            return
        where = np.array([held.row for _, held in found], dtype=np.int64)
        np.bitwise_or.at(self.mask, where, np.array([held.mask for _, held in found], dtype=np.int64))
        np.bitwise_or.at(self.parts, where, np.array([held.parts for _, held in found], dtype=np.int64))
        amounts = np.array([held.amounts for _, held in found], dtype=np.int64).T
        for column, amount in zip(self.amounts, amounts, strict=True):
            np.add.at(column, where, amount)
        prices = [v.price for v, _ in found]
        since = [-1 if p.safe_ms == NOT_STARTED else max(0, p.safe_ms - p.restart_ms) for p in prices]
        np.maximum.at(self.youngest, where, np.array(since, dtype=np.int64))
        flat = [DEAR if p.flat_ms is None else p.flat_ms for p in prices]
        np.minimum.at(self.flat, where, np.array(flat, dtype=np.int64))
        gpus = [v.gpus if held.mask or held.parts else NOBODY for v, held in found]
        np.minimum.at(self.smallest, where, np.array(gpus, dtype=np.int64))


class Victims:
    """Everybody who may be taken from, by gang, by row and by queue."""

    def __init__(self, inventory: Inventory) -> None:
        """Nobody is known yet."""
        self.inventory = inventory
        self.now_ms = -1
        self.tick = self._serial = 0
        self.extended: tuple[str, ...] = ()
        self.on_row: list[dict[str, tuple[Victim, Held]]] = []
        self.milli: dict[str, dict[int, list[int]]] = {}
        self._kinds: dict[str, list[int]] = {}
        self.protected = 0
        self._everyone: dict[GangId, tuple[Victim, ...]] = {}
        self._of_queue: dict[str, dict[str, Victim]] = {}
        self._unripe: list[tuple[int, GangId]] = []
        self._yields: dict[tuple[str, int | None, Kind], Yield] = {}
        self._world: World | None = None
        self._log: AttemptLog | None = None
        self._revision = -1
        self._spared: frozenset[GangId] | set[GangId] = frozenset()
        self._spared_count = 0
        self._settled: frozenset[GangId] = frozenset()
        self._unsaving = Unsaving.LAST

    def follow(self, world: World, inventory: Inventory, spared: Iterable[GangId]) -> None:
        """Become what fresh Victims over `world` would be, without those who are `spared`."""
        spared = spared if isinstance(spared, set | frozenset) else frozenset(spared)
        if world is self._world and len(spared) == self._spared_count and inventory is self.inventory:
            return  # inside one cycle the spared only become more
        changed = world.running.changed_since(self._log, self._revision)
        same_rows = inventory is self.inventory or inventory.patched == self.inventory.version
        extended = tuple(sorted(world.free.extended))
        if changed is None or not same_rows or extended != self.extended or world.now_ms < self.now_ms:
            self._start_over(inventory, extended)
            changed = {attempt.gang for attempt in world.running}
        elif inventory is not self.inventory:
            changed = changed | {v.gang for row in inventory.patched_rows for v, _ in self.on_row[row].values()}
        while self._unripe and self._unripe[0][0] <= world.now_ms:
            changed.add(heapq.heappop(self._unripe)[1])
        changed |= spared ^ self._spared
        changed |= world.takings.settled ^ self._settled
        self._settled, self._unsaving = world.takings.settled, world.rules.unsaving
        self.inventory, self.now_ms = inventory, world.now_ms
        self._world, self._log, self._revision = world, world.running.log, world.running.revision
        self._spared, self._spared_count = frozenset(spared), len(spared)
        self._file_all(changed, world)

    def yield_of(self, queue: str, below: int | None, kind: Kind = Kind.ANY) -> Yield:
        """Return the columns of a group. Not to be modified."""
        key = (queue, below, kind)
        known = self._yields.pop(key, None)
        if known is None:
            nodes, amounts = len(self.on_row), len(FIXED) + len(self.extended)
            if len(self._yields) >= max(8, YIELD_BYTES // (8 * (amounts + 5) * max(1, nodes))):
                del self._yields[next(iter(self._yields))]  # the one that was asked for the longest time ago
            self._serial += 1
            known = Yield(queue, below, kind, nodes, amounts, self._serial)
            victims = self._of_queue.get(queue, {}).values()
            rows = {held.row for victim in victims if known.is_of(victim) for held in victim.held}
            known.count(sorted(rows), self.on_row, self.tick)
        self._yields[key] = known
        return known

    def milli_of(self, queue: str, below: int | None) -> int | None:
        """Return thousandths of GPUs that a group holds, None where nobody is in it."""
        found = [milli for priority, milli in self.milli.get(queue, {}).items() if below is None or priority < below]
        return sum(milli for _, milli in found) if found else None

    def kinds_of(self, queues: Iterable[str]) -> list[Kind]:
        """Return the kinds by which victims of some queues are to be asked; one that adds nobody is left out."""
        found = [self._kinds.get(queue, [0] * len(Kind)) for queue in queues]
        spare, saves, others = (any(counts[kind] for counts in found) for kind in (Kind.SPARE, Kind.SAVES, Kind.ANY))
        ranked = saves and others and self._unsaving == Unsaving.LAST
        kinds = [Kind.SPARE] * spare + [Kind.SAVES] * ranked
        return [*kinds, Kind.ANY] if saves or others else kinds[:1]

    def protects(self, queues: Iterable[str]) -> bool:
        """Whether somebody of these queues may not be taken from for now."""
        return any(queue in self._kinds and self._kinds[queue][Kind.PROTECTED] for queue in queues)

    def parts_of(self, victims: Iterable[Victim]) -> list[Victim]:
        """Return victims and whoever goes with them, each once: units before others of their gang that go later."""
        found: dict[str, Victim] = {}
        for victim in victims:
            parts = self._everyone[victim.gang]
            if len(parts) == 1:
                found[victim.key] = victim
            else:
                found |= {part.key: part for part in parts if part.goes_with(victim)}
        return list(found.values())

    def _start_over(self, inventory: Inventory, extended: tuple[str, ...]) -> None:
        self.extended = extended
        self.on_row = [{} for _ in inventory.nodes]
        self.milli, self._everyone, self._of_queue, self._yields, self._unripe = {}, {}, {}, {}, []
        self._kinds, self.protected = {}, 0
        self._spared = frozenset()

    def _file_all(self, changed: set[GangId], world: World) -> None:
        """Take up what these gangs' attempts hold now, and count again the rows on which that is something else."""
        rows: dict[str, set[int]] = {}
        everyone = world.running.everyone
        for gang in changed:
            for before in self._everyone.pop(gang, ()):
                self._count(before, -1)
                del self._of_queue[before.queue][before.key]
                for held in before.held:
                    del self.on_row[held.row][before.key]
                rows.setdefault(before.queue, set()).update(held.row for held in before.held)
            attempt = everyone.get(gang)
            if attempt is None or gang in self._spared or not may_yield(attempt, world.rules):
                continue
            protected = attempt.ripe_ms > world.now_ms
            if protected:
                heapq.heappush(self._unripe, (attempt.ripe_ms, gang))
            protected = protected or gang in world.takings.settled
            self._everyone[gang] = parts_of(attempt, self.inventory, self.extended, world.counted, protected=protected)
            for after in self._everyone[gang]:
                self._count(after, 1)
                self._of_queue.setdefault(after.queue, {})[after.key] = after
                for held in after.held:
                    self.on_row[held.row][after.key] = (after, held)
                rows.setdefault(after.queue, set()).update(held.row for held in after.held)
        if rows:
            self.tick += 1
            for known in self._yields.values():
                if known.queue in rows:
                    known.count(sorted(rows[known.queue]), self.on_row, self.tick)

    def _count(self, victim: Victim, sign: int) -> None:
        self._kinds.setdefault(victim.queue, [0] * len(Kind))[victim.kind] += sign
        if victim.kind is Kind.PROTECTED:
            self.protected += sign
            return
        by_priority = self.milli.setdefault(victim.queue, {})
        found = by_priority.setdefault(victim.priority, [0, 0])
        found[0] += sign
        found[1] += sign * victim.gpu_milli
        if not found[0]:
            del by_priority[victim.priority]
