"""Which domains are worth a try, and which victims there should do: ranked by a price, walked node by node.

A domain of one node has an estimate that is never above its price, so the search there ends as soon as none can be
cheaper. Wider ones are ranked by the cheapest nodes they have; the best few are walked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang
from fairlead.placement.placer import Placer
from fairlead.placement.room_bounds import Bound
from fairlead.placement.row_steps import Demand, Rights, RowSteps, Step, demand_of
from fairlead.placement.victim import DEAR, Victim
from fairlead.placement.victims import NOBODY, Victims, Yield
from fairlead.world.fleet import BoolColumn, IntColumn, Level

SINGLE_ROWS_TRIED = 48
"""Domains of one node whose victims are counted exactly for one gang and model, of each level."""
WIDE_DOMAINS_TRIED = 12
"""Domains of more nodes, of all levels and models."""
ROWS_WALKED = 256
"""Nodes whose victims are counted exactly for one gang and model, beside those that a gang of many pods needs."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Victims in one domain that should do, and what they cost.

    Without victims it is a domain to be tried with everybody gone, and `price` an estimate. `position` is that of the
    level among those looked at; `demands` are those of the gang's roles.
    """

    price: int
    position: int
    domain: int
    demands: tuple[Demand, ...]
    victims: tuple[Victim, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Priced:
    """Rows by price. Shape (rows,) each: pods that fit now and that more would fit, and what one of those costs."""

    rows: IntColumn
    now: IntColumn
    gain: IntColumn
    pod: IntColumn


class Offers:
    """What domains offer a gang whose devices are of one model, or of any."""

    def __init__(
        self,
        gang: Gang,
        placer: Placer,
        victims: Victims,
        rights: Rights,
        yields: Sequence[Yield],
        bounds: Sequence[Bound],
    ) -> None:
        """`bounds` are those of the gang's roles, `yields` the groups that it has a right to."""
        self._gang = gang
        self._placer = placer
        self._overlay = placer.overlay
        self._bounds = bounds
        self._victims = victims
        self._now_ms = victims.now_ms
        self._demands: tuple[Demand, ...] = tuple(
            demand_of(gang, role, bound.kind, self._overlay, placer.feasibility, victims.extended)
            for role, bound in zip(gang.roles, bounds, strict=True)
        )
        self._steps = [
            RowSteps(demand, demand.role.replicas, victims, rights, self._overlay) for demand in self._demands
        ]
        self._main = max(range(len(gang.roles)), key=lambda i: (gang.roles[i].gpus, gang.roles[i].replicas))
        self._yields = yields
        self._walks_left = ROWS_WALKED + sum(2 * role.replicas for role in gang.roles)
        self._rows: _Priced | None = None
        self.wide: list[tuple[int, int, int, IntColumn]] = []
        self.offers: list[Offer] = []
        self.everyones: list[Offer] = []
        self.cut = False

    def look(self, levels: Sequence[Level]) -> None:
        """Fill `offers` with domains of one node, and `wide` with others: (estimate, level, domain, rows to walk).

        `cut` says afterwards that there were more domains than are looked at.
        """
        for position, level in enumerate(levels):
            enough = self._placer.feasibility.inside(level, self._gang)
            for role, bound in zip(self._gang.roles, self._bounds, strict=True):
                enough = enough & (bound.sums_of(level) >= role.replicas)
            domains = np.flatnonzero(enough)
            if not len(domains):
                continue
            if level.name in self._placer.lone:
                self._single_rows(position, level, domains)
            else:
                self._wide(position, level, enough)

    def _price_of_device(self, rows: IntColumn) -> IntColumn:
        """Return the least that one device costs on each row, in GPU-ms; DEAR where there is nobody to take from."""
        youngest, flat = self._yields[0].youngest[rows], self._yields[0].flat[rows]
        for group in self._yields[1:]:
            youngest = np.maximum(youngest, group.youngest[rows])
            flat = np.minimum(flat, group.flat[rows])
        since = np.where(youngest < 0, DEAR, np.maximum(0, self._now_ms - youngest))
        least: IntColumn = np.minimum(since, flat)
        return least

    def _free(self, rows: IntColumn) -> IntColumn:
        """Count the devices on each row that the main role could have now."""
        devices = self._bounds[self._main].kind.fit.devices[rows]
        free: IntColumn = np.bitwise_count(self._overlay.columns.free_mask[rows] & devices).astype(np.int64)
        return free

    def _smallest(self, rows: IntColumn) -> IntColumn:
        """Return the devices of the smallest attempt on each row that has any there."""
        smallest = self._yields[0].smallest[rows]
        for group in self._yields[1:]:
            smallest = np.minimum(smallest, group.smallest[rows])
        found: IntColumn = np.where(smallest == NOBODY, 0, smallest)
        return found

    def _single_rows(self, position: int, level: Level, domains: IntColumn) -> None:
        """Look at domains of one node, the one of the lowest estimate first, until none can be cheaper than the best.

        The estimate is never above the price: a device costs at least what the youngest one on the node does, and an
        attempt goes whole.
        """
        rows = level.order[level.starts[domains]]
        wanted = sum(role.gpus * role.replicas for role in self._gang.roles)
        short = np.maximum(0, wanted - self._free(rows))
        short = np.where(short > 0, np.maximum(short, self._smallest(rows)), 0)
        least = short * self._price_of_device(rows)
        if len(rows) > SINGLE_ROWS_TRIED:
            edge = np.partition(least, SINGLE_ROWS_TRIED - 1)[SINGLE_ROWS_TRIED - 1]
            self.cut = True
            near = np.flatnonzero(least <= edge)
            ranked = near[np.argsort(least[near], kind="stable")][:SINGLE_ROWS_TRIED]
        else:
            ranked = np.argsort(least, kind="stable")
        cheapest = DEAR * DEAR
        for at in ranked.tolist():
            if self._walks_left <= 0 or cheapest <= int(least[at]):
                self.cut = self.cut or self._walks_left <= 0
                break
            self._walks_left -= 1
            found = self._offer(position, level, int(domains[at]), [int(rows[at])], int(least[at]))
            cheapest = cheapest if found is None else min(cheapest, found)

    def _priced(self) -> _Priced:
        """Return the rows with any room, the cheapest for one more pod of the main role first."""
        if self._rows is None:
            bound, role = self._bounds[self._main], self._gang.roles[self._main]
            rows = np.flatnonzero(bound.room)
            now = np.minimum(bound.kind.room[rows], bound.room[rows])
            gain = bound.room[rows] - now
            short = np.maximum(0, role.gpus * bound.room[rows] - self._free(rows))
            pod = short * self._price_of_device(rows) // np.maximum(1, gain)
            order = np.argsort(pod, kind="stable")
            self._rows = _Priced(rows[order], np.minimum(now, role.replicas)[order], gain[order], pod[order])
        return self._rows

    def _wide(self, position: int, level: Level, enough: BoolColumn) -> None:
        """Rank the domains of a level by what the pods of the main role cost on their cheapest nodes, at about."""
        priced, wanted = self._priced(), self._gang.roles[self._main].replicas
        domain = level.domain_of[priced.rows]
        at = np.flatnonzero((domain >= 0) & enough[domain])
        at = at[np.argsort(domain[at], kind="stable")]
        domain, gain = domain[at], priced.gain[at]
        starts = np.flatnonzero(np.concatenate(([True], domain[1:] != domain[:-1])))
        ends = np.append(starts[1:], len(domain))
        missing = wanted - np.add.reduceat(priced.now[at], starts)
        so_far = np.cumsum(gain) - gain
        so_far -= np.repeat(so_far[starts], ends - starts)
        taken = np.clip(np.repeat(missing, ends - starts) - so_far, 0, gain)
        prices = np.add.reduceat(taken * priced.pod[at], starts)
        self.cut = self.cut or len(prices) > WIDE_DOMAINS_TRIED
        for which in np.argsort(prices, kind="stable")[:WIDE_DOMAINS_TRIED].tolist():
            first, last = int(starts[which]), int(ends[which])
            more = max(0, int(missing[which]))
            rows = priced.rows[at[first:last]][so_far[first:last] < more + more // 4 + 16]
            self.wide.append((int(prices[which]), position, int(domain[first]), rows))

    def walk(self, level: Level, position: int, domain: int, rows: IntColumn, estimate: int) -> None:
        """Count the victims on the cheapest rows of a wide domain exactly."""
        self.cut = self.cut or self._walks_left <= 0
        if self._walks_left > 0:
            self._walks_left -= len(rows)
            self._offer(position, level, domain, rows.tolist(), estimate)

    def _offer(self, position: int, level: Level, domain: int, rows: Sequence[int], estimate: int) -> int | None:
        """Choose victims on some rows of a domain; returns their price, None where that does not do."""
        self.everyones.append(Offer(estimate, position, domain, self._demands, ()))
        everywhere = level.order[level.starts[domain] : level.starts[domain + 1]]
        chosen: dict[str, Victim] = {}
        for at in range(len(self._gang.roles)):
            chosen |= self._choose(at, rows, everywhere)
        if not chosen:
            return None
        going = self._victims.parts_of(chosen.values())
        price = sum(victim.lost(self._now_ms) for victim in going)
        self.offers.append(Offer(price, position, domain, self._demands, tuple(going)))
        return price

    def _choose(self, at: int, rows: Sequence[int], everywhere: IntColumn) -> dict[str, Victim]:
        """Take rows by the price of one more pod of a role until all its replicas have a place in the domain."""
        wanted = self._gang.roles[at].replicas
        have = int(np.minimum(self._bounds[at].kind.room[everywhere], wanted).sum())
        chosen: dict[str, Victim] = {}
        if have >= wanted:
            return chosen
        steps: list[tuple[int, int, int, Step]] = []
        for row in rows:
            dearest = 0
            for number, step in enumerate(self._steps[at].on(row)):
                dearest = max(dearest, step.price // step.gain)  # a later step on a row needs those before it
                steps.append((dearest, row, number, step))
        steps.sort(key=lambda offer: offer[:3])
        for _, _, _, step in steps:
            chosen |= {victim.key: victim for victim in step.victims}
            have += step.gain
            if have >= wanted:
                break
        return chosen


def offers_of(found: Sequence[Offers], levels: Sequence[Level]) -> tuple[list[Offer], list[Offer]]:
    """Return what domains offer for any of some models; and domains to be tried with everybody gone if none holds."""
    wide: list[tuple[int, int, int, int, IntColumn]] = []
    for at, offers in enumerate(found):
        offers.look(levels)
        wide += [(price, position, domain, at, rows) for price, position, domain, rows in offers.wide]
    wide.sort(key=lambda item: item[:4])
    for price, position, domain, at, rows in wide[:WIDE_DOMAINS_TRIED]:
        found[at].walk(levels[position], position, domain, rows, price)
    return [o for one in found for o in one.offers], [o for one in found for o in one.everyones]
