"""One consistent, read-only picture of the state: all that a cycle may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.events import CostAlarmed, QueueSpent
from fairlead.model.fairness import FairnessPolicy
from fairlead.model.gang import GangId
from fairlead.model.hardware import NodeName
from fairlead.model.keeping import KeptFree
from fairlead.model.promises import Promised
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.topology.mig_table import parts_of
from fairlead.topology.tables import TableCache
from fairlead.world.attempts import AttemptIndex, Attempts
from fairlead.world.backlog import Backlog, Lines
from fairlead.world.capacity import above_nodes, amounts_above, free_of, left_of_instances, left_of_parts
from fairlead.world.demand import Mix
from fairlead.world.doors import Doors
from fairlead.world.durations import Durations
from fairlead.world.fleet import WHOLE, Columns, IntColumn, Inventory
from fairlead.world.gangs import Hold, HoldKey
from fairlead.world.in_force import ForceKeeper, InForce
from fairlead.world.inventory import build_inventory, free_columns, patch_inventory
from fairlead.world.job_counts import JobCounts, JobsHeld
from fairlead.world.past_usage import Past
from fairlead.world.pictures import HostPorts, Running, Waiting
from fairlead.world.reservations import Reserved
from fairlead.world.reserves import Calendar, Reserve
from fairlead.world.ripeness import NO_CAPS, Caps, caps_of
from fairlead.world.state import ClusterState
from fairlead.world.takings import Taken
from fairlead.world.use import TENANT

__all__ = ["HostPorts", "Photographer", "Running", "Waiting", "World"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class World:
    """What one cycle may know. Columns are read-only; records are values.

    free        what is free on each row, nothing nominated taken off
    part_free_milli shape (nodes,): thousandths of GPUs that are left of devices which somebody has a part of
    offered     what each row offers with nothing on it
    changed_in  shape (nodes,): the picture, by number, in which the row was last counted anew; `picture` is this one's
    waiting     every gang in a queue
    running     every attempt that holds something
    queue_gpu_milli thousandths of a GPU charged to each queue
    counted     what is counted beside GPUs, by name: `running.used` says what queues hold of it
    policies    how queues share, by name; `past` is what each queue has used, decayed
    unready     (node, since) of nodes that hold something, are not ready and not yet held for lost, by name
    takings     what was taken of whom in the last hour
    mix         what was asked for lately, for the score of what placements leave behind
    force       what is in force of queues and exceptions now, and how long; `queues` are its queues
    spent       what queues have used of their budgets, as last told
    alarms      queue -> its last day of which the costs alarm, as last told
    books_full  whether too much waits for the books' database: nobody knows what is used by now
    jobs        how many jobs queues, users and groups have running; empty where no queue caps that
    promises    what gangs that wait were promised, the earliest first
    reserves    what pools keep free now, as their calendars say
    turned_ms   the last moment at which a calendar changed what pools keep free; `next_turn_ms` the next, None for none
    kept        what rules keep free, as was said last, by keeper
    reserved    reservations that hold, now or from later on, by start
    durations   how long runs took; not to be changed
    cut_version the version at which the last walk over the queues was cut short, None where it came to its end
    freed_ms    when a node came, changed or had something come free; not to be changed
    """

    version: int
    epoch: int
    picture: int
    now_ms: int
    rules: Rules
    inventory: Inventory
    free: Columns
    part_free_milli: IntColumn
    offered: Columns
    changed_in: IntColumn
    ports: Mapping[int, HostPorts]
    queues: Mapping[str, Queue]
    pools: Mapping[str, Pool]
    waiting: Backlog
    running: Attempts
    queue_gpu_milli: Mapping[str, int]
    counted: tuple[str, ...]
    policies: Mapping[str, FairnessPolicy]
    past: Mapping[str, Past]
    lost: frozenset[NodeName]
    unready: tuple[tuple[NodeName, int], ...]
    cut_version: int | None
    mix: Mix
    force: InForce
    jobs: JobsHeld
    takings: Taken
    spent: Mapping[str, QueueSpent] = field(default_factory=dict[str, QueueSpent])
    alarms: Mapping[str, CostAlarmed] = field(default_factory=dict[str, CostAlarmed])
    books_full: bool = False
    promises: tuple[Promised, ...] = ()
    durations: Durations
    reserved: tuple[Reserved, ...] = ()
    turned_ms: int = 0
    next_turn_ms: int | None = None
    reserves: tuple[Reserve, ...] = ()
    freed_ms: Mapping[NodeName, int] = field(default_factory=dict[NodeName, int])
    kept: Mapping[str, KeptFree] = field(default_factory=dict[str, KeptFree])

    @property
    def capacity_milli(self) -> int:
        """Thousandths of GPUs that queues hold or could hold: free ones on usable nodes, and all that is charged."""
        usable = self.inventory.usable
        whole = int(np.bitwise_count(np.where(usable, self.free.free_mask, 0)).sum())
        parts = int(np.where(usable, self.part_free_milli, 0).sum())
        return 1000 * whole + parts + sum(self.queue_gpu_milli.values())

    def capacity_of(self, resource: str) -> int:
        """Return what queues hold or could hold of something that is counted beside GPUs, as it is counted."""
        domains = {name: len(level.names) for name, level in self.inventory.levels.items()}
        above = above_nodes(resource, self.pools.values(), domains)
        if above is not None:
            return above
        held = sum(self.running.used.get(resource, {}).values())
        return held + free_of(resource, self.free, self.part_free_milli, self.inventory)


_NOTHING: Mapping[HoldKey, Hold] = {}


class Photographer:
    """Takes Worlds of one state; keeps what has not changed since the last one."""

    def __init__(self, state: ClusterState) -> None:
        """Look at `state`; nothing is read yet."""
        self._state = state
        self._cache = TableCache()
        self._doors = Doors()
        self._lines = Lines(state.tenants.aging_of, self._doors)
        self._attempts = AttemptIndex()
        self._picture = 0
        self._now_ms = 0
        self._inventory: Inventory | None = None
        self._rows: _Rows | None = None
        self._policies: tuple[int, Mapping[str, FairnessPolicy]] = (-1, {})
        self._counts: tuple[tuple[str, ...], int] = ((), -1)
        self._built = -1
        self._calendar = Calendar()
        self._force = ForceKeeper()
        self._jobs = JobCounts()
        self._caps: Caps = NO_CAPS
        self._capped = False

    @property
    def somebody_outside(self) -> bool:
        """Whether anybody waits who may not stand in line."""
        return self._lines.somebody_outside

    def take(self, now_ms: int) -> World:
        """Return the picture at `now_ms`, or at the latest moment so far. O(changes), and copies of columns."""
        state, now_ms = self._state, max(now_ms, self._now_ms)
        self._now_ms, self._picture = now_ms, self._picture + 1
        inventory, rows = self._count_rows()
        shown = rows.frozen()
        if self._policies[0] != state.tenants.version:
            self._policies = state.tenants.version, dict(state.tenants.policies)
            self._cap(caps_of(state.queues))
            self._capped = any(queue.taking_caps.is_capped for queue in state.queues.values())
        force = self._force.at(state.tenants, now_ms)
        self._file(now_ms, force)
        running, takings = self._attempts.picture(now_ms), state.takings.picture(now_ms, capped=self._capped)
        self._calendar.turn(state.tenants, now_ms)
        reserved = state.reservations.standing(inventory, now_ms)
        turned_ms = max(self._calendar.turned_ms, state.reservations.turned_ms)
        moments = (running.ripened_ms, force.since_ms, turned_ms, takings.ripened_ms)
        waiting = self._lines.picture(state.epoch, moments, cut=state.cut_version is not None)
        unready = [name for name in state.unready if name in state.holds_on and name not in state.lost]
        return World(
            version=state.version,
            epoch=state.epoch,
            picture=self._picture,
            now_ms=now_ms,
            rules=state.rules,
            inventory=inventory,
            free=shown.free,
            part_free_milli=shown.part_free_milli,
            offered=shown.offered,
            changed_in=shown.changed_in,
            ports=shown.ports,
            queues=force.queues,
            pools=self._calendar.pools,
            waiting=waiting,
            running=running,
            queue_gpu_milli=dict(state.queue_gpu_milli),
            counted=state.tenants.counted,
            policies=self._policies[1],
            past=dict(state.past.by_queue),
            lost=frozenset(state.lost),
            unready=tuple((name, state.unready[name]) for name in sorted(unready)),
            cut_version=state.cut_version,
            mix=state.arrivals.mix,
            force=force,
            jobs=self._jobs.picture() if force.capped else JobsHeld(),
            spent=state.tenants.spent,
            alarms=state.tenants.alarms,
            books_full=state.tenants.books_full,
            promises=state.promises.picture(),
            turned_ms=self._calendar.turned_ms,
            next_turn_ms=self._calendar.next_turn_ms,
            reserved=reserved,
            durations=state.durations,
            reserves=self._calendar.reserves,
            takings=takings,
            freed_ms=state.freed_ms,
            kept=state.takings.kept,
        )

    def _cap(self, caps: Caps) -> None:
        """Take up what queues say of minimum run times and caps of one job: all attempts are looked at anew."""
        if caps != self._caps:
            self._caps = caps
            self._state.changed |= dict.fromkeys(self._state.gangs)

    def _file(self, now_ms: int, force: InForce) -> None:
        """Take up every record that has changed, and what lines were told."""
        state, lines = self._state, self._lines
        counts = (state.tenants.counted, self._built if state.tenants.counted else -1)
        if counts != self._counts:
            self._counts = counts
            self._attempts.count(counts[0], state.nodes.get)
            lines.count(counts[0])
            state.changed |= {gang: None for gang, record in state.gangs.items() if record.current is not None}
        if self._doors.follow(force.queues):
            state.changed |= dict.fromkeys(state.gangs)
        self._move(state.changed)
        for gang in state.changed:
            record = state.gangs.get(gang)
            if record is None:
                lines.forget(gang)
                self._attempts.forget(gang)
                self._jobs.forget(gang)
            else:
                lines.file(record, promised=gang in state.promises.standing)
                self._attempts.file(record, state.lost, state.rules, self._caps)
                self._jobs.file(record)
        for line in state.answered:
            lines.refused(line)
        self._move({waiting.gang.id: None for line in state.answered for waiting in line.ready}, lines)
        state.changed, state.answered = {}, []
        lines.tick(now_ms)

    def _move(self, gangs: dict[GangId, None], lines: Lines | None = None) -> None:
        """Find out where gangs stand, by the caps on who waits; whom they move is added to them, or filed anew."""
        if not self._doors.on:
            return
        moved: set[GangId] = set()
        for gang in gangs:
            record = self._state.gangs.get(gang)
            moved |= self._doors.forget(gang) if record is None else self._doors.file(record)
        if lines is None:
            gangs |= dict.fromkeys(sorted(moved - gangs.keys()))
            return
        moved |= {gang for gang in gangs if self._doors.full(gang) is not None}
        for gang in sorted(moved):
            if gang in self._state.gangs:
                lines.file(self._state.gangs[gang])

    def _count_rows(self) -> tuple[Inventory, _Rows]:
        """Count the rows anew on which something has changed."""
        state, inventory = self._state, self._inventory
        above = amounts_above(state.pools)
        if self._rows is not None and self._rows.above != above:
            self._rows = inventory = None
        if inventory is None or inventory.version != state.inventory_version:
            version, cache = state.inventory_version, self._cache
            patched = None
            if inventory is not None:
                patched = patch_inventory(inventory, state.nodes, state.changed_nodes, version, cache)
            if patched is None or self._rows is None:
                inventory, self._built = build_inventory(state.nodes, version, cache), version
                self._rows = _Rows(inventory, above)
                state.dirty_nodes = set(state.nodes)
            else:
                inventory = patched
                self._rows.offer(patched)
                state.dirty_nodes |= state.changed_nodes
            self._inventory = inventory
            state.changed_nodes = set()
        assert self._rows is not None, inventory
        dirty = sorted(inventory.row[name] for name in state.dirty_nodes if name in inventory.row)
        if dirty:
            self._rows.count(inventory, dirty, state, self._picture)
        state.dirty_nodes = set()
        return inventory, self._rows


class _Rows:
    """The columns that pictures copy."""

    def __init__(self, inventory: Inventory, above: Mapping[str, int]) -> None:
        """Nothing is on any row; `above` are the amounts that live above the nodes."""
        self.offered = free_columns(inventory, above).freeze()
        self.above = above
        self.free = self.offered.copy()
        self.part_free_milli = np.zeros(len(inventory.nodes), dtype=np.int64)
        self.changed_in = np.zeros(len(inventory.nodes), dtype=np.int64)
        self.ports: dict[int, HostPorts] = {}
        self._frozen: _Rows | None = None
        self._last: Columns | None = None
        self._in_parts: set[int] = set()

    def frozen(self) -> _Rows:
        """Return copies that nobody edits; the same ones until a row changes."""
        if self._frozen is None:
            shown = copy(self)
            shown.free = self._last = self.free.copy(self._last).freeze()
            shown.part_free_milli, shown.changed_in = _readonly(self.part_free_milli), _readonly(self.changed_in)
            shown.ports = dict(self.ports)
            self._frozen = shown
        return self._frozen

    def offer(self, inventory: Inventory) -> None:
        """Take over what the patched rows of an inventory offer now."""
        offered = self.offered.copy()
        for row in inventory.patched_rows:
            amount = inventory.nodes[row].allocatable
            offered.free_mask[row] = inventory.healthy_mask[row]
            offered.cpu_milli[row] = amount.cpu_milli
            offered.memory_bytes[row] = amount.memory_bytes
            offered.ephemeral_bytes[row] = amount.ephemeral_bytes
            offered.pods[row] = amount.pods
            for name, column in offered.extended.items():
                column[row] = self.above.get(name, dict(amount.extended).get(name, 0))
        self.offered, self._frozen, self._last = offered.freeze(), None, None

    def count(self, inventory: Inventory, rows: list[int], state: ClusterState, picture: int) -> None:
        """Count some rows anew from everything that is on them."""
        self._frozen = None
        self.free.reset_rows(rows, [row for row in rows if row in self._in_parts], self.offered)
        self.changed_in[rows] = picture
        for row, grids in zip(rows, inventory.mig.grid_of[rows].tolist(), strict=True):
            if self._count_holds(inventory, row, state) or max(grids, default=-1) >= 0 or row in self._in_parts:
                self._last = None  # else the columns over devices are as they were
                self._in_parts.add(row)

    def _count_holds(self, inventory: Inventory, row: int, state: ClusterState) -> bool:
        """Lay all that is there on an empty row; returns whether devices are held in parts, or may be."""
        name = inventory.nodes[row].name
        ports: set[tuple[str, str, int]] = set()
        parts: list[Hold] = []
        for hold in state.holds_on.get(name, _NOTHING).values():
            use = hold.use
            self.free.take_use(row, use, inventory)
            if use.shape.host_ports:
                ports.update(use.shape.host_ports)
            if use.gpu_milli < WHOLE * len(use.devices):
                parts.append(hold)
        used = state.used.get(name)
        if used is not None:
            self.free.take(row, used.taken)
            ports.update(used.host_ports)
        self._count_foreign(inventory, row, state.foreign.get(name, ()))
        self.part_free_milli[row] = left_of_parts(parts) + left_of_instances(inventory, row, self.free)
        self.ports.pop(row, None)
        if ports:
            self.ports[row] = frozenset(ports)
        return bool(parts) or name in state.foreign

    def _count_foreign(self, inventory: Inventory, row: int, devices: Sequence[str]) -> None:
        """Take what others hold: whole GPUs, and of MIG devices just the instance."""
        mask = inventory.mask(row, devices)
        if mask:
            self.free.take_whole(row, mask)
        if devices and inventory.mig.grids:
            for bit, profile, start in parts_of(inventory.nodes[row].machine.gpus, devices):
                self.free.take_part(row, bit, (profile, start), TENANT, inventory)


def _readonly(column: IntColumn) -> IntColumn:
    copied = column.copy()
    copied.flags.writeable = False
    return copied
