"""Who could yield, and what that would free on each node: kept from cycle to cycle, brought up to date by what changed.

`Victims` holds every attempt that somebody might have a right to. `Yield` columns say what a whole group of them (a
queue's, or a queue's below some priority) would free together. Both are caches: the same World gives the same values.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, GangId, Member
from fairlead.placement.amounts import FIXED
from fairlead.world.attempts import AttemptLog
from fairlead.world.fleet import IntColumn, Inventory
from fairlead.world.overlay import Taking, taking_of, uses_of
from fairlead.world.snapshot import Running, World
from fairlead.world.use import use_of

RESTART_COST_MS = 60_000
"""What losing an attempt costs beside the time since it started: images, start-up, warm caches."""
NOT_STARTED = 1 << 60
NOBODY = 1 << 40
"""More devices than any attempt has."""
YIELD_BYTES = 64 << 20
"""What the columns of all groups may take up in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a victim holds on one row.

    mask, parts devices, as bits, that it holds whole, or lies on with shares or MIG instances
    amounts     those of `FIXED`, then extended resources by name
    plain       it holds no part of a device and no host port, so amounts and bits say all
    """

    row: int
    mask: int
    parts: int
    amounts: tuple[int, ...]
    cpus: int
    nics: int
    plain: bool


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """An attempt that may be taken from, row by row. `started_ms` is NOT_STARTED as long as nothing is lost."""

    attempt: Running
    gang: GangId
    priority: int
    gpus: int
    started_ms: int
    nodes: int
    held: tuple[Held, ...]

    @property
    def queue(self) -> str:
        """The queue that is charged for it."""
        return self.attempt.queue

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU that its end gives back."""
        return self.attempt.gpu_milli

    @property
    def plain(self) -> bool:
        """Whether bits and amounts say all that it holds."""
        return all(held.plain for held in self.held)

    def lost(self, now_ms: int) -> int:
        """GPU-ms that stopping it throws away, restart included."""
        return self.gpus * (max(0, now_ms - self.started_ms) + RESTART_COST_MS)

    def price_on_a_row(self, now_ms: int) -> int:
        """Its price, shared among its rows: one that must go anyway costs little on the next row."""
        return self.lost(now_ms) // self.nodes


def lost_work(victim: Running, now_ms: int) -> int:
    """GPU-ms that stopping this attempt throws away, restart included. There are no checkpoints yet to save any."""
    started = victim.all_running_ms if victim.all_running_ms is not None else now_ms
    return victim.gpus * (max(0, now_ms - started) + RESTART_COST_MS)


class Yield:
    """What all victims of a queue (`below`: of less than that priority) would free together.

    mask, parts shape (nodes,): devices that would be free again; devices on which a part would go
    amounts     shape (4 + extended, nodes)
    youngest    shape (nodes,): start of the one on each row that has run for the shortest time, -1 where none is
    smallest    shape (nodes,): devices, on all its nodes, of the smallest one that has any on the row; else NOBODY
    stamp       shape (nodes,): the tick of the Victims at which the row changed last
    """

    def __init__(self, queue: str, below: int | None, nodes: int, amounts: int, serial: int) -> None:
        """Nobody yields. `serial` is of no other Yield of the same Victims."""
        self.serial = serial
        self.queue = queue
        self.below = below
        self.mask: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.parts: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.amounts: IntColumn = np.zeros((amounts, nodes), dtype=np.int64)
        self.youngest: IntColumn = np.full(nodes, -1, dtype=np.int64)
        self.smallest: IntColumn = np.full(nodes, NOBODY, dtype=np.int64)
        self.stamp: IntColumn = np.zeros(nodes, dtype=np.int64)
        self.tick = 0

    def is_of(self, victim: Victim) -> bool:
        """Whether the victim is one of the group."""
        return victim.queue == self.queue and (self.below is None or victim.priority < self.below)

    def count(self, rows: Sequence[int], on_row: Sequence[dict[GangId, tuple[Victim, Held]]], tick: int) -> None:
        """Count some rows anew."""
        if not rows:
            return
        at = np.array(rows, dtype=np.int64)
        self.mask[at] = self.parts[at] = 0
        self.amounts[:, at] = 0
        self.youngest[at] = -1
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
        np.maximum.at(self.youngest, where, np.array([v.started_ms for v, _ in found], dtype=np.int64))
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
        self.on_row: list[dict[GangId, tuple[Victim, Held]]] = []
        self.milli: dict[str, dict[int, list[int]]] = {}
        self._everyone: dict[GangId, Victim] = {}
        self._of_queue: dict[str, dict[GangId, Victim]] = {}
        self._unripe: list[tuple[int, GangId]] = []
        self._yields: dict[tuple[str, int | None], Yield] = {}
        self._world: World | None = None
        self._log: AttemptLog | None = None
        self._revision = -1
        self._spared: frozenset[GangId] | set[GangId] = frozenset()
        self._spared_count = 0

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
            changed = changed | {gang for row in inventory.patched_rows for gang in self.on_row[row]}
        while self._unripe and self._unripe[0][0] <= world.now_ms:
            changed.add(heapq.heappop(self._unripe)[1])
        changed |= spared ^ self._spared
        self.inventory, self.now_ms = inventory, world.now_ms
        self._world, self._log, self._revision = world, world.running.log, world.running.revision
        self._spared, self._spared_count = frozenset(spared), len(spared)
        self._file_all(changed, world)

    def yield_of(self, queue: str, below: int | None) -> Yield:
        """Return the columns of a group. Not to be modified."""
        key = (queue, below)
        known = self._yields.pop(key, None)
        if known is None:
            nodes, amounts = len(self.on_row), len(FIXED) + len(self.extended)
            if len(self._yields) >= max(8, YIELD_BYTES // (8 * (amounts + 4) * max(1, nodes))):
                del self._yields[next(iter(self._yields))]  # the one that was asked for the longest time ago
            self._serial += 1
            known = Yield(queue, below, nodes, amounts, self._serial)
            victims = self._of_queue.get(queue, {}).values()
            rows = {held.row for victim in victims if known.is_of(victim) for held in victim.held}
            known.count(sorted(rows), self.on_row, self.tick)
        self._yields[key] = known
        return known

    def milli_of(self, queue: str, below: int | None) -> int | None:
        """Return thousandths of GPUs that a group holds, None where nobody is in it."""
        found = [milli for priority, milli in self.milli.get(queue, {}).items() if below is None or priority < below]
        return sum(milli for _, milli in found) if found else None

    def _start_over(self, inventory: Inventory, extended: tuple[str, ...]) -> None:
        self.extended = extended
        self.on_row = [{} for _ in inventory.nodes]
        self.milli, self._everyone, self._of_queue, self._yields, self._unripe = {}, {}, {}, {}, []
        self._spared = frozenset()

    def _file_all(self, changed: set[GangId], world: World) -> None:
        """Take up what these gangs' attempts hold now, and count again the rows on which that is something else."""
        rows: dict[str, set[int]] = {}
        everyone = world.running.everyone
        for gang in changed:
            before = self._everyone.pop(gang, None)
            if before is not None:
                self._count(before, -1)
                del self._of_queue[before.queue][gang]
                for held in before.held:
                    del self.on_row[held.row][gang]
                rows.setdefault(before.queue, set()).update(held.row for held in before.held)
            attempt = everyone.get(gang)
            if attempt is None or gang in self._spared or not _may_yield(attempt):
                continue
            if attempt.ripe_ms > world.now_ms:
                heapq.heappush(self._unripe, (attempt.ripe_ms, gang))
                continue
            after = self._everyone[gang] = self._victim(attempt)
            self._count(after, 1)
            self._of_queue.setdefault(after.queue, {})[gang] = after
            for held in after.held:
                self.on_row[held.row][gang] = (after, held)
            rows.setdefault(after.queue, set()).update(held.row for held in after.held)
        if rows:
            self.tick += 1
            for known in self._yields.values():
                if known.queue in rows:
                    known.count(sorted(rows[known.queue]), self.on_row, self.tick)

    def _count(self, victim: Victim, sign: int) -> None:
        by_priority = self.milli.setdefault(victim.queue, {})
        found = by_priority.setdefault(victim.priority, [0, 0])
        found[0] += sign
        found[1] += sign * victim.gpu_milli
        if not found[0]:
            del by_priority[victim.priority]

    def _victim(self, attempt: Running) -> Victim:
        spec, started = attempt.spec, attempt.all_running_ms
        assert spec is not None, attempt
        members, row_of = attempt.placement.members, self.inventory.row
        by_row: dict[int, list[Member]] = {}
        for rank in sorted(attempt.holding):
            row = row_of.get(members[rank].node)
            if row is not None:
                by_row.setdefault(row, []).append(members[rank])
        return Victim(
            attempt=attempt,
            gang=attempt.gang,
            priority=spec.priority,
            gpus=attempt.gpus,
            started_ms=NOT_STARTED if started is None else started,
            nodes=len({member.node for member in members}) or 1,
            held=tuple([self._held(row, on_row, spec) for row, on_row in by_row.items()]),
        )

    def _held(self, row: int, members: Sequence[Member], spec: Gang) -> Held:
        mask = parts = cpus = nics = 0
        amounts = [0] * (len(FIXED) + len(self.extended))
        plain, inventory = True, self.inventory
        for member in members:
            use = use_of(spec, member)
            devices, asked = inventory.mask(row, use.devices), use.shape.requests
            if use.share is not None or use.mig:
                parts |= devices
            else:
                mask |= devices
            if use.cpus or use.nics:
                cpus ^= use.cpu_bits
                nics ^= inventory.nic_mask(row, use.nics)
            amounts[0] += asked.cpu_milli
            amounts[1] += asked.memory_bytes
            amounts[2] += asked.ephemeral_bytes
            amounts[3] += asked.pods
            for name, amount in asked.extended:
                if name in self.extended:
                    amounts[len(FIXED) + self.extended.index(name)] += amount
            plain = plain and use.share is None and not use.mig and not use.shape.host_ports
        healthy = int(inventory.healthy_mask[row])
        in_parts = parts & (healthy | int(inventory.mig_mask[row]))
        return Held(row, mask & healthy, in_parts, tuple(amounts), cpus, nics, plain)


def takings_on(victim: Victim, row: int, inventory: Inventory) -> list[Taking]:
    """Return what a victim's members took of one row, one by one."""
    return [taking_of(inventory, at, use) for at, use in uses_of(victim.attempt, inventory) if at == row]


def _may_yield(attempt: Running) -> bool:
    """Whether anybody may have a right to it as soon as it is ripe."""
    spec = attempt.spec
    running = attempt.phase in (Phase.STARTING, Phase.RUNNING)
    return running and spec is not None and spec.preemptible and bool(attempt.holding) and not attempt.gone
