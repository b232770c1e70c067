"""One column per kind of request: how many pods of it each node takes, and what one there costs.

Only what changed is computed again. A kind (`PodClass`) is what makes two pods equal to the scheduler. Its `room` and
`cost` are kept from cycle to cycle; the overlay stamps rows as they change, and a class looks again at the rows stamped
since it looked last. Sums over the domains of a level follow the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fairlead.model.gang import Gang, Role
from fairlead.placement.amounts import fixed_asked, fixed_columns
from fairlead.placement.feasible import Feasibility, Fit, slots_on
from fairlead.placement.parts import nics_room
from fairlead.placement.score import NEVER, Score
from fairlead.placement.wishes import is_plain, takes_devices
from fairlead.world.fleet import IntColumn, Level
from fairlead.world.overlay import Overlay
from fairlead.world.use import share_group


@dataclass(slots=True, eq=False)
class PodClass:
    """The columns of one kind of request.

    room   shape (nodes,): pods that fit on top of what is there
    cost   shape (nodes,): the score of one more pod, lower is better; NEVER where there is no room
    sums   level name -> shape (domains + 1,): room summed over each domain, the last is of nodes in none; `total` is
           over all, `most` on one node
    model  the one GPU model that is allowed, "" for any that the role accepts
    wants  whether its pods get devices: then only nodes with acceptable ones are ever looked at
    asked  what a pod takes of `FIXED`
    above  whether amounts above the nodes count, so that every change may be one of all nodes
    wider  the class without `model`, where its columns are right for every node that has a device of the model
    known  state of a node -> (room, cost): nodes that are alike need not be looked at twice
    """

    role: Role
    fit: Fit
    group: int
    model: str
    room: IntColumn
    cost: IntColumn
    wants: bool
    asked: tuple[int, int, int, int]
    above: bool
    wider: PodClass | None = None
    total: int = 0
    tick: int = -1
    score_version: int = -1
    sums: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])
    known: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict[tuple[int, ...], tuple[int, int]])
    _most: int | None = None
    _least: int | None = None

    @property
    def most(self) -> int:
        """The room of the node that has the most of it."""
        if self._most is None:
            self._most = int(self.room.max())
        return self._most

    def holds(self, count: int) -> bool:
        """Whether some node has room for so many."""
        return (self.wider is None or self.wider.most >= count) and self.most >= count

    @property
    def least(self) -> int:
        """The lowest cost there is, NEVER where no node has room."""
        if self._least is None:
            self._least = int(self.cost.min())
        return self._least

    def put(self, rows: IntColumn, room: IntColumn, cost: IntColumn) -> IntColumn:
        """Set the columns of some rows; returns by how much their room grew."""
        change = room - self.room[rows]
        self.cost[rows], self._least = cost, None
        if change.any():
            self.room[rows], self._most = room, None
            self.total += int(change.sum())
        return change


class ClassColumns:
    """All classes over one overlay; none is older than the last change of it when it is handed out."""

    def __init__(self, overlay: Overlay, feasibility: Feasibility, score: Score) -> None:
        """Nothing is computed yet."""
        self.overlay = overlay
        self.feasibility = feasibility
        self.score = score
        self._classes: dict[tuple[object, ...], PodClass] = {}
        self._changed: tuple[tuple[int, int, int], IntColumn] = (-1, -1, -1), np.zeros(0, dtype=np.int64)

    def of(self, gang: Gang, role: Role, model: str = "") -> PodClass:
        """Return the fresh columns of a role's pods; `model` narrows them to one GPU model."""
        kind = self.known(gang, role, model)
        self.refresh(kind)
        return kind

    def known(self, gang: Gang, role: Role, model: str = "") -> PodClass:
        """Return a role's class, its columns as old as they are."""
        group = share_group(gang, role)
        key = (_asked(role), gang.service_class, group, model)
        known = self._classes.get(key)
        if known is None:
            if len(self._classes) >= CLASSES_KEPT:
                self._classes.clear()
            known = self._classes[key] = self._new(gang, role, group, model)
        return known

    def sums(self, kind: PodClass, level: Level) -> IntColumn:
        """Return the room of a class summed over the domains of a level. Shape (domains,). Not to be modified."""
        known = kind.sums.get(level.name)
        if known is None:
            known = kind.sums[level.name] = np.zeros(len(level.names) + 1, dtype=np.int64)
            np.add.at(known, level.domain_of, kind.room)
        return known[:-1]

    def _new(self, gang: Gang, role: Role, group: str, model: str) -> PodClass:
        nodes = len(self.overlay.inventory.nodes)
        fit = self.feasibility.fit(role, gang.service_class, model=model)
        wider = self.known(gang, role) if model else None
        if wider is not None and bool(((fit.devices != 0) & (fit.devices != wider.fit.devices)).any()):
            wider = None  # some node has devices of several models
        return PodClass(
            role=role,
            fit=fit,
            group=self.overlay.columns.group_number(group),
            model=model,
            room=np.zeros(nodes, dtype=np.int64),
            cost=np.full(nodes, NEVER, dtype=np.int64),
            wants=takes_devices(role),
            asked=fixed_asked(role.pod),
            above=not self.feasibility.budgets.keys().isdisjoint(name for name, _ in role.pod.requests.extended),
            wider=wider,
        )

    def refresh(self, kind: PodClass) -> None:
        """Bring the columns of a class up to the last change of the overlay."""
        overlay = self.overlay
        if kind.tick == overlay.tick and kind.score_version == self.score.version:
            return
        if kind.wider is not None:
            self.refresh(kind.wider)
        rows = self._stale(kind)
        kind.tick, kind.score_version = overlay.tick, self.score.version
        if kind.wants and len(rows):
            rows = rows[kind.fit.devices[rows] != 0]
        if not len(rows):
            return
        if kind.wider is not None:
            change = kind.put(rows, kind.wider.room[rows], kind.wider.cost[rows])
        else:
            change = kind.put(rows, *self._looked_up(kind, rows))
        if kind.sums and change.any():
            moved = np.flatnonzero(change)
            rows, change = rows[moved], change[moved]
            for name, sums in kind.sums.items():
                np.add.at(sums, overlay.inventory.levels[name].domain_of[rows], change)

    def _stale(self, kind: PodClass) -> IntColumn:
        """Return the rows that a class must look at again."""
        if kind.score_version != self.score.version:
            kind.known.clear()
        if kind.tick < 0 or kind.score_version != self.score.version:
            return np.arange(len(kind.room))
        return np.arange(len(kind.room)) if kind.above else self._changed_since(kind.tick)

    def _looked_up(self, kind: PodClass, rows: IntColumn) -> tuple[IntColumn, IntColumn]:
        """Return room and cost of rows; of a few, what is known of nodes in the same state. Shape (rows,) each."""
        role, overlay = kind.role, self.overlay
        beside = self.score.states(role, overlay, rows) if len(rows) <= _FEW and is_plain(role) else None
        if beside is None:
            return self._computed(kind, rows)
        columns = overlay.columns
        seen = [kind.fit.allowed, kind.fit.devices, overlay.inventory.table_of, columns.free_mask]
        seen += [column for column, asked in zip(fixed_columns(columns), kind.asked, strict=True) if asked]
        states = list(zip(*(column[rows].tolist() for column in seen), *beside, strict=True))
        known = kind.known
        missing = [at for at, state in enumerate(states) if state not in known]
        if missing:
            if len(known) > STATES_KEPT:
                known.clear()
                missing = list(range(len(states)))
            room, cost = self._computed(kind, rows[missing])
            for at, found in zip(missing, zip(room.tolist(), cost.tolist(), strict=True), strict=True):
                known[states[at]] = found
        both = np.array([known[state] for state in states], dtype=np.int64)
        return both[:, 0], both[:, 1]

    def _computed(self, kind: PodClass, rows: IntColumn) -> tuple[IntColumn, IntColumn]:
        """Return room and cost of rows, looked at anew. Shape (rows,) each."""
        role, overlay = kind.role, self.overlay
        room = slots_on(role, kind.fit, kind.group, overlay, rows)
        if role.nics_per_gpu and role.gpus:
            room = np.minimum(room, nics_room(role, self.feasibility.nics, overlay.columns.nics, rows))
        for name, caps in self.feasibility.caps_above(role, overlay.columns).items():
            domains = overlay.inventory.levels[name].domain_of[rows]
            room = np.where(domains >= 0, np.minimum(room, caps[domains]), room)
        return room, self.score.costs(role, kind.fit, kind.group, room, overlay, rows)

    def _changed_since(self, tick: int) -> IntColumn:
        """Return the rows whose room or cost may be another since a tick; classes of one age share the answer."""
        key = (tick, self.overlay.tick, self.score.version)
        if self._changed[0] != key:
            self._changed = key, self.score.beside(self.overlay.changed_since(tick), tick)
        return self._changed[1]


CLASSES_KEPT = 512
"""Kinds of request remembered at once: about 0.3 MB each at 10,000 nodes."""
STATES_KEPT = 16_384
"""States of nodes remembered for each kind of request."""
_FEW = 64  # rows up to which looking each of them up is faster than computing all of them


def _asked(role: Role) -> tuple[object, ...]:
    return (role.gpus, role.gpu_model, role.gpu_memory_bytes, role.share, role.mig, role.nics_per_gpu, role.pod)
