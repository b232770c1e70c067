"""Who must go from one node, so that one more pod fits there, and then another: the cheapest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, Role
from fairlead.placement.amounts import amounts_asked, amounts_left
from fairlead.placement.columns import PodClass
from fairlead.placement.feasible import MANY, Feasibility, slots_on
from fairlead.placement.victim import Held, Kind, Victim, takings_on
from fairlead.placement.victims import Victims
from fairlead.world.fleet import Columns
from fairlead.world.overlay import Overlay

Holder = tuple[Victim, Held]


@dataclass(frozen=True, slots=True)
class Rights:
    """Whom a gang may take from, each alone: its own queue below its priority, and others up to what they may lose.

    Of queues `ranked`, which are in its scope of priority, only those of lower priority.
    `groups` are (queue, below which priority or None) of everybody who comes into question; `kind` is the last one
    that is asked. `owed` says that what is taken of others is due by a guarantee: see `Standing.due`.
    """

    queue: str
    priority: int
    most_milli: Mapping[str, int]
    groups: tuple[tuple[str, int | None], ...]
    kind: Kind = Kind.ANY
    owed: bool = False
    ranked: frozenset[str] = frozenset()

    def by_priority(self, queue: str) -> bool:
        """Whether what is taken of a queue is taken by priority, and not reclaimed."""
        return queue == self.queue or queue in self.ranked

    def cover(self, victim: Victim) -> bool:
        """Whether the gang has a right to a victim."""
        if victim.kind > self.kind:
            return False
        if self.by_priority(victim.queue) and victim.priority >= self.priority:
            return False
        if victim.queue == self.queue:
            return True
        return victim.whole_milli <= self.most_milli.get(victim.queue, -1)


@dataclass(frozen=True, slots=True)
class Step:
    """Once these victims are gone too, `gain` more pods fit on the row."""

    price: int
    gain: int
    victims: tuple[Victim, ...]


class Demand:
    """What pods of one role need of a row, to be counted in plain integers."""

    def __init__(self, role: Role, kind: PodClass, columns: Columns, extended: Sequence[str], plain: bool) -> None:
        """`extended` names what follows CPU, memory, storage and pods in the amounts of a `Held`."""
        self.role = role
        self.kind = kind
        self.plain = plain and all(
            name in columns.extended for name, amount in role.pod.requests.extended if amount > 0
        )
        self.amounts = amounts_asked(role.pod, extended)
        self.asked = [(at, amount) for at, amount in enumerate(self.amounts) if amount > 0]

    def slots(self, devices: int, free: int, amounts: Sequence[int]) -> int:
        """Return the pods that so many devices and amounts are enough for."""
        room = (free & devices).bit_count() // self.role.gpus if self.role.gpus else MANY
        for at, amount in self.asked:
            room = min(room, amounts[at] // amount)
        return max(0, room)


def demand_of(
    gang: Gang, role: Role, kind: PodClass, overlay: Overlay, feasibility: Feasibility, extended: Sequence[str]
) -> Demand:
    """Return what a role's pods need; plain where bits and amounts of a row say how many fit."""
    above = any(name in feasibility.budgets for name, _ in role.pod.requests.extended)
    plain = not (role.share or role.mig or role.nics_per_gpu or role.pod.host_ports or above)
    return Demand(role, kind, overlay.columns, extended, plain)


class RowSteps:
    """The steps of rows for one demand; each row is looked at once."""

    def __init__(self, demand: Demand, enough: int, victims: Victims, rights: Rights, overlay: Overlay) -> None:
        """Look no further on a row than `enough` pods."""
        self._demand = demand
        self._enough = enough
        self._victims = victims
        self._rights = rights
        self._overlay = overlay
        self._now_ms = victims.now_ms
        self._known: dict[int, list[Step]] = {}

    def on(self, row: int) -> list[Step]:
        """Return the steps on a row, in the order in which they must be taken."""
        known = self._known.get(row)
        if known is None:
            holders = self._holders(row)
            plain = self._demand.plain and all(held.plain for _, held in holders)
            known = self._known[row] = self._counted(row, holders) if plain else self._tried(row, holders)
        return known

    def _holders(self, row: int) -> list[Holder]:
        cover, now_ms = self._rights.cover, self._now_ms
        found = [holder for holder in self._victims.on_row[row].values() if cover(holder[0])]
        if len(found) > 1:
            found.sort(key=lambda holder: (holder[0].price_on_a_row(now_ms), holder[0].priority, holder[0].key))
        return found

    def _counted(self, row: int, waiting: list[Holder]) -> list[Step]:
        demand, columns = self._demand, self._overlay.columns
        if not demand.kind.fit.allowed[row]:
            return []
        devices = int(demand.kind.fit.devices[row])
        free = int(columns.free_mask[row])
        amounts = amounts_left(row, columns, self._victims.extended)
        before = demand.slots(devices, free, amounts)
        steps: list[Step] = []
        gained = 0
        while waiting and gained < self._enough:
            batch = _next_batch(demand, devices, free, amounts, before, waiting)
            if not batch:
                break
            batch = self._fewest(devices, free, amounts, before, batch, waiting)
            taken = {victim.key for victim, _ in batch}
            waiting = [holder for holder in waiting if holder[0].key not in taken]
            for _, held in batch:
                free |= held.mask
                amounts = [a + b for a, b in zip(amounts, held.amounts, strict=True)]
            now = demand.slots(devices, free, amounts)
            price = sum(victim.price_on_a_row(self._now_ms) for victim, _ in batch)
            steps.append(Step(price, now - before, tuple(victim for victim, _ in batch)))
            gained += now - before
            before = now
        return steps

    def _fewest(
        self, devices: int, free: int, amounts: Sequence[int], before: int, batch: list[Holder], waiting: list[Holder]
    ) -> list[Holder]:
        """Leave out whoever is not needed for one more pod, the dearest first; or take one who alone will do."""
        if len(batch) == 1:
            return batch
        demand, each = self._demand, self._demand.role.gpus
        least = each * (before + 1)
        everything = free
        for _, held in batch:
            everything |= held.mask
        slack = (everything & devices).bit_count() - least
        for spared in reversed(batch):
            if each and (spared[1].mask & devices).bit_count() > slack:
                continue
            fewer = [holder for holder in batch if holder is not spared]
            mask, sums = free, amounts
            for _, held in fewer:
                mask |= held.mask
                sums = [a + b for a, b in zip(sums, held.amounts, strict=True)]
            if demand.slots(devices, mask, sums) > before:
                batch = fewer
                slack -= (spared[1].mask & devices).bit_count()
        if len(batch) == 1:
            return batch
        price = sum(victim.price_on_a_row(self._now_ms) for victim, _ in batch)
        for victim, held in waiting:
            if ((free | held.mask) & devices).bit_count() < least:
                continue
            if victim.price_on_a_row(self._now_ms) >= price:
                break
            sums = [a + b for a, b in zip(amounts, held.amounts, strict=True)]
            if demand.slots(devices, free | held.mask, sums) > before:
                return [(victim, held)]
        return batch

    def _tried(self, row: int, holders: list[Holder]) -> list[Step]:
        """Let them go one by one: for shares, ports and whatever bits and amounts do not say."""
        mark = self._overlay.checkpoint()
        before = self._slots(row)
        steps: list[Step] = []
        batch: list[Victim] = []
        for victim, _ in holders:
            for taking in takings_on(victim, row, self._overlay.inventory):
                self._overlay.give(taking)
            batch.append(victim)
            now = self._slots(row)
            if now > before:
                price = sum(victim.price_on_a_row(self._now_ms) for victim in batch)
                steps.append(Step(price, now - before, tuple(batch)))
                before, batch = now, []
        self._overlay.roll_back(mark)
        return steps

    def _slots(self, row: int) -> int:
        kind = self._demand.kind
        return int(slots_on(self._demand.role, kind.fit, kind.group, self._overlay, np.array([row]))[0])


def _next_batch(
    demand: Demand, devices: int, free: int, amounts: Sequence[int], before: int, waiting: Sequence[Holder]
) -> list[Holder]:
    """Return the cheapest ones up to the one with whom another pod fits; nobody where all together do not help."""
    batch: list[Holder] = []
    for victim, held in waiting:
        free |= held.mask
        amounts = [a + b for a, b in zip(amounts, held.amounts, strict=True)]
        batch.append((victim, held))
        if demand.slots(devices, free, amounts) > before:
            return batch
    return []
