"""One consistent, read-only picture of the state: all that a cycle may know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.model.effects import Phase
from fairlead.model.events import Nominated
from fairlead.model.gang import Gang, GangId, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.topology.tables import TableCache
from fairlead.world.fleet import Columns, Inventory, build_inventory, free_columns
from fairlead.world.gangs import GangRecord, is_hopeless, is_waiting
from fairlead.world.lifecycle import HOLDING
from fairlead.world.state import ClusterState

HostPorts = frozenset[tuple[str, str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A gang in its queue. `fresh` says that it may be answered differently than last time.

    `hopeless`: it was refused for good, so what it asks for is nobody's demand.
    """

    gang: Gang
    attempts: int
    retry_at_ms: int
    nomination: Nominated | None
    fresh: bool
    hopeless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt that holds devices, or is to be ended. Ranks in `holding` still hold theirs.

    `robbed` are (rank, since) of members that hold nothing any more, though nobody has told of their end.
    From `ripe_ms` on it may be taken from: its minimum run time is over, and the time for which a budget spared it.
    """

    gang: GangId
    spec: Gang | None
    queue: str
    attempt: int
    placement: Placement
    tier: Tier
    phase: Phase
    since_ms: int
    deadline_ms: int
    bound_ms: int | None
    all_running_ms: int | None
    holding: frozenset[int]
    running: frozenset[int]
    succeeded: frozenset[int]
    failed: tuple[tuple[int, str], ...]
    robbed: tuple[tuple[int, int], ...]
    restarts: int
    gone: bool
    ripe_ms: int

    @property
    def gpus(self) -> int:
        """Devices still held."""
        return sum(len(self.placement.members[rank].devices) for rank in self.holding)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class World:
    """What one cycle may know. Columns are read-only; records are values.

    free       what is free on each row, nothing nominated taken off
    offered    what each row offers with nothing on it
    waiting    every gang in a queue, fresh or not, in order of arrival
    running    every attempt that holds something
    queue_gpus GPUs charged to each queue
    ripened_ms the last moment at which an attempt became one that may be taken from; refusals before it are stale
    """

    version: int
    epoch: int
    now_ms: int
    rules: Rules
    inventory: Inventory
    free: Columns
    offered: Columns
    ports: Mapping[int, HostPorts]
    queues: Mapping[str, Queue]
    pools: Mapping[str, Pool]
    waiting: tuple[Waiting, ...]
    running: tuple[Running, ...]
    queue_gpus: Mapping[str, int]
    lost: frozenset[NodeName]
    ripened_ms: int


class Photographer:
    """Takes Worlds of one state; keeps what has not changed since the last one."""

    def __init__(self, state: ClusterState) -> None:
        """Look at `state`; nothing is read yet."""
        self._state = state
        self._cache = TableCache()
        self._inventory: Inventory | None = None
        self._offered: Columns | None = None
        self._free: Columns | None = None
        self._ports: dict[int, HostPorts] = {}
        self._pictures: dict[GangId, tuple[int, Running]] = {}

    def take(self, now_ms: int) -> World:
        """Return the picture at `now_ms`. O(changed nodes × pods + gangs)."""
        state = self._state
        inventory, free, offered = self._columns()
        gangs = sorted(state.gangs.values(), key=lambda r: (r.gang.submitted_ms if r.gang else 0, r.id))
        running = tuple(self._picture(r) for r in gangs if r.phase in HOLDING)
        ripened_ms = max((r.ripe_ms for r in running if r.ripe_ms <= now_ms), default=0)
        return World(
            version=state.version,
            epoch=state.epoch,
            now_ms=now_ms,
            rules=state.rules,
            inventory=inventory,
            free=free.copy().freeze(),
            offered=offered,
            ports=dict(self._ports),
            queues=dict(state.queues),
            pools=dict(state.pools),
            waiting=tuple(_waiting(r, state.epoch, ripened_ms) for r in gangs if is_waiting(r)),
            running=running,
            queue_gpus=dict(state.queue_gpus),
            lost=frozenset(state.lost),
            ripened_ms=ripened_ms,
        )

    def _picture(self, record: GangRecord) -> Running:
        """Return the attempt as it is, made anew only when its record has changed."""
        kept = self._pictures.get(record.id)
        if kept is None or kept[0] != record.revision:
            if len(self._pictures) > 2 * len(self._state.gangs) + 64:  # those that are gone
                self._pictures = {}
            kept = self._pictures[record.id] = (record.revision, _running(record, self._state.rules.min_run_ms))
        return kept[1]

    def _columns(self) -> tuple[Inventory, Columns, Columns]:
        state = self._state
        inventory = self._inventory
        if inventory is None or inventory.version != state.inventory_version:
            inventory = build_inventory(state.nodes, state.inventory_version, self._cache)
            self._inventory = inventory
            self._offered = free_columns(inventory).freeze()
            self._free = self._offered.copy()
            self._ports = {}
            state.dirty_nodes = set(state.nodes)
        assert self._offered is not None, inventory
        assert self._free is not None, inventory
        for name in sorted(state.dirty_nodes):
            row = inventory.row.get(name)
            if row is not None:
                self._refresh(inventory, row, name)
        state.dirty_nodes = set()
        return inventory, self._free, self._offered

    def _refresh(self, inventory: Inventory, row: int, name: NodeName) -> None:
        """Count one row anew from everything that is on it."""
        state, free, offered = self._state, self._free, self._offered
        assert free is not None, name
        assert offered is not None, name
        free.reset_row(row, offered)
        ports: set[tuple[str, str, int]] = set()
        for hold in state.holds_on.get(name, {}).values():
            free.take_use(row, hold.use, inventory)
            ports.update(hold.use.shape.host_ports)
        used = state.used.get(name)
        if used is not None:
            free.take(row, used.taken)
            ports.update(used.host_ports)
        free.free_mask[row] &= ~inventory.mask(row, state.foreign.get(name, ()))
        self._ports.pop(row, None)
        if ports:
            self._ports[row] = frozenset(ports)


def _waiting(record: GangRecord, epoch: int, ripened_ms: int) -> Waiting:
    assert record.gang is not None, record
    return Waiting(
        gang=record.gang,
        attempts=record.attempts,
        retry_at_ms=record.retry_at_ms,
        nomination=record.nomination,
        fresh=record.refused_epoch != epoch or record.refused_at_ms < ripened_ms,
        hopeless=is_hopeless(record),
    )


def _running(record: GangRecord, min_run_ms: int) -> Running:
    attempt = record.current
    assert attempt is not None, record
    began = attempt.all_running_ms
    return Running(
        gang=record.id,
        spec=record.gang,
        queue=record.queue,
        attempt=attempt.number,
        placement=attempt.placement,
        tier=attempt.tier,
        phase=record.phase,
        since_ms=attempt.since_ms,
        deadline_ms=attempt.deadline_ms,
        bound_ms=attempt.bound_ms,
        all_running_ms=attempt.all_running_ms,
        holding=frozenset(attempt.holding),
        running=frozenset(attempt.running),
        succeeded=frozenset(attempt.succeeded),
        failed=tuple(sorted(attempt.failed.items())),
        robbed=tuple(
            (rank, since)
            for rank, since in sorted(attempt.released.items())
            if rank not in attempt.succeeded and rank not in attempt.failed
        ),
        restarts=record.restarts,
        gone=record.gone,
        ripe_ms=max(attempt.spared_until_ms, began + min_run_ms if began is not None and min_run_ms else 0),
    )
