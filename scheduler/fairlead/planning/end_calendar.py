"""When what is held comes free: the enforced ends of everything that runs, kept from cycle to cycle.

The calendar follows a World by what has changed since the last one. Its rows say who holds something on a node, its
`stock` all that will be given back, as columns: what comes free by some moment is one comparison over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.placement.amounts import FIXED, amounts_asked
from fairlead.world.attempts import AttemptLog
from fairlead.world.ends import latest_end, lead_ms
from fairlead.world.fleet import IntColumn, Inventory
from fairlead.world.overlay import Lot, Overlay, Taking, taking_of, uses_of
from fairlead.world.snapshot import Running, World
from fairlead.world.use import use_of

NEVER = 1 << 62
"""An end that nobody can promise."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What is held until `end_ms` (`NEVER` where nothing ends it). `owner` is the gang, `plain` that sums say all."""

    owner: GangId
    queue: str
    end_ms: int
    milli: int
    takings: tuple[Taking, ...]
    plain: bool
    attempt: Running | None = None

    @property
    def rows(self) -> set[int]:
        """The rows on which something is held."""
        return {taking.row for taking in self.takings}


def entry_of(
    owner: GangId, queue: str, end_ms: int | None, takings: Iterable[Taking], attempt: Running | None = None
) -> Entry:
    """Return what is held by `takings` until `end_ms`, None for never."""
    held = tuple(takings)
    plain = all(taking.share is None and taking.part is None and not taking.pod.host_ports for taking in held)
    milli = 0 if attempt is None else attempt.gpu_milli
    return Entry(owner, queue, NEVER if end_ms is None else end_ms, milli, held, plain, attempt)


def placed_entry(gang: Gang, placement: Placement, end_ms: int | None, inventory: Inventory) -> Entry:
    """Return what a placement would hold until `end_ms`, None for never."""
    rows = [(inventory.row.get(member.node), member) for member in placement.members]
    takings = [taking_of(inventory, row, use_of(gang, member)) for row, member in rows if row is not None]
    return entry_of(gang.id, gang.queue, end_ms, takings)


class Stock:
    """Plain entries as columns, one place a taking: row, devices, amounts (`FIXED`, then extended), until when."""

    def __init__(self, entries: Sequence[Entry], extended: Sequence[str]) -> None:
        """Sum nothing up yet."""
        takings = [(entry.end_ms, taking) for entry in entries if entry.plain for taking in entry.takings]
        self.names = (*FIXED, *extended)
        self.ends: IntColumn = np.array([end for end, _ in takings], dtype=np.int64)
        self._rows: IntColumn = np.array([taking.row for _, taking in takings], dtype=np.int64)
        self._masks: IntColumn = np.array([taking.mask for _, taking in takings], dtype=np.int64)
        amounts = [[t.pods * amount for amount in amounts_asked(t.pod, extended)] for _, t in takings]
        self._amounts: IntColumn = np.array(amounts, dtype=np.int64).reshape(len(takings), len(self.names))
        self._bits = [(at, t.row, t.cpus, t.nics) for at, (_, t) in enumerate(takings) if t.cpus or t.nics]

    def lot(self, chosen: IntColumn, overlay: Overlay, *, back: bool) -> Lot | None:
        """Return what the chosen places give `back` to an overlay, or take from it; None where that is nothing."""
        if not len(chosen):
            return None
        rows, at = np.unique(self._rows[chosen], return_inverse=True)
        masks = np.zeros(len(rows), dtype=np.int64)
        np.bitwise_or.at(masks, at, self._masks[chosen])
        free = overlay.columns.free_mask[rows]
        masks &= overlay.inventory.healthy_mask[rows] & ~free if back else free
        sums = np.zeros((len(rows), len(self.names)), dtype=np.int64)
        np.add.at(sums, at, self._amounts[chosen])
        used = {name: sums[:, i] for i, name in enumerate(self.names) if sums[:, i].any()}
        used = {name: amounts for name, amounts in used.items() if name in FIXED or name in overlay.columns.extended}
        cpus, nics = self._held(set(chosen.tolist()), overlay, back=back)
        return Lot(rows, masks, used, tuple(cpus.items()), tuple(nics.items()))

    def _held(self, chosen: set[int], overlay: Overlay, *, back: bool) -> tuple[dict[int, int], dict[int, int]]:
        """Return row -> CPUs and NICs that change hands."""
        found: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for at, row, *held in self._bits:
            if at in chosen:
                for bits, more in zip(found, held, strict=True):
                    bits[row] = bits.get(row, 0) | more
        for bits, columns in zip(found, (overlay.columns.cpus, overlay.columns.nics), strict=True):
            for row, mask in bits.items():
                taken = columns.get(row, 0)
                bits[row] = mask & taken if back else mask & ~taken
        return found


class Calendar:
    """Everything that is held, by gang and by row. A cache: the same World gives the same answers.

    `savers` are gangs that must be told some time before they are stopped.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.entries: dict[GangId, Entry] = {}
        self.on_row: dict[int, set[GangId]] = {}
        self._inventory: Inventory | None = None
        self._log: AttemptLog | None = None
        self._revision = -1
        self._world: World | None = None
        self._soon: set[GangId] = set()
        self.savers: set[GangId] = set()
        self._bounded: list[Entry] | None = None

    def follow(self, world: World) -> None:
        """Become what a new calendar of `world` would be."""
        if world is self._world:
            return
        changed = world.running.changed_since(self._log, self._revision)
        if changed is None or self._inventory is not world.inventory:
            self.entries, self.on_row, self._soon, self.savers = {}, {}, set(), set()
            changed = {attempt.gang for attempt in world.running}
        self._world, self._inventory = world, world.inventory
        self._log, self._revision = world.running.log, world.running.revision
        everyone = world.running.everyone
        for gang in changed | self._soon:
            self._drop(gang)
            attempt = everyone.get(gang)
            if attempt is not None:
                self._file(attempt, world)
        self._bounded = None

    def bounded(self) -> list[Entry]:
        """Return entries that end some day, the first to end first."""
        if self._bounded is None:
            found = [entry for entry in self.entries.values() if entry.end_ms < NEVER]
            self._bounded = sorted(found, key=lambda entry: (entry.end_ms, entry.owner))
        return self._bounded

    def given_back(self, by_ms: int) -> list[tuple[str, int]]:
        """Return (queue, change of its GPUs) of all that ends by a moment; who is being stopped is not counted."""
        found: list[tuple[str, int]] = []
        for entry in self.bounded():
            if entry.end_ms > by_ms:
                break
            if entry.attempt is not None and entry.attempt.phase is not Phase.STOPPING:
                found.append((entry.queue, -entry.milli))
        return found

    def ending(self, stopped: Callable[[Running | None], bool], by_ms: int) -> list[Entry]:
        """Return entries that end some day if whoever is `stopped` is gone by a moment."""
        found: list[Entry] = []
        for entry in self.entries.values():
            if stopped(entry.attempt):
                entry = replace(entry, end_ms=min(entry.end_ms, by_ms))
            if entry.end_ms < NEVER:
                found.append(entry)
        return found

    def holders(self, row: int, mask: int) -> list[Entry]:
        """Return who holds one of the devices in `mask` on a row, whole or in part, by uid."""
        found = [self.entries[gang] for gang in sorted(self.on_row.get(row, ()))]
        return [e for e in found if any(t.row == row and devices_of(t) & mask for t in e.takings)]

    def _file(self, attempt: Running, world: World) -> None:
        end_ms = latest_end(attempt, world.rules, world.now_ms)
        takings = [taking_of(world.inventory, row, use) for row, use in uses_of(attempt, world.inventory)]
        entry = entry_of(attempt.gang, attempt.queue, end_ms, takings, attempt)
        self.entries[attempt.gang] = entry
        for row in entry.rows:
            self.on_row.setdefault(row, set()).add(attempt.gang)
        if attempt.spec is not None and lead_ms(attempt.spec, world.rules) > world.rules.stop_ms:
            self.savers.add(attempt.gang)
        if end_ms is not None and end_ms <= world.now_ms + world.rules.stop_ms:
            self._soon.add(attempt.gang)  # its end moves with the clock: it is late, or being stopped

    def _drop(self, gang: GangId) -> None:
        entry = self.entries.pop(gang, None)
        self._soon.discard(gang)
        self.savers.discard(gang)
        for row in () if entry is None else entry.rows:
            self.on_row[row].discard(gang)


def devices_of(taking: Taking) -> int:
    """Return the devices that something lies on, whole or in part, as bits."""
    return taking.mask | (1 << taking.bit if taking.bit >= 0 else 0)
