"""What pools keep free at a moment, and when that is something else next: what their calendars say, no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fairlead.model.gang import ServiceClass
from fairlead.model.protection import Protection
from fairlead.model.tenancy import Pool
from fairlead.model.windows import current_or_next
from fairlead.world.tenants import Tenants


class Purpose(StrEnum):
    """What GPUs are kept free for."""

    HOT_SPARE = "hot spare"
    WARM_SPARE = "warm spare"
    CEILING = "ceiling"
    PROTECTED = "protected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """One amount that a pool keeps, as it is at one moment.

    gpus        how many, in multiples of `unit_gpus` a node; whole `nodes` for hot spares; `percent` of the pool's GPUs
                for a ceiling
    service_class for whom, None for jobs whose node was lost
    lend_gpus   what others may have of them all the same, back within `return_within_ms`
    start_ms, end_ms the window that is meant, both None where there are no windows
    closes_ms   when nobody else may come any more, and who may be stopped is
    """

    pool: str
    purpose: Purpose
    service_class: ServiceClass | None
    gpus: int = 0
    nodes: int = 0
    percent: int = 0
    unit_gpus: int = 1
    lend_gpus: int = 0
    return_within_ms: int = 0
    start_ms: int | None = None
    end_ms: int | None = None
    closes_ms: int | None = None
    zone: str = ""
    local_start_ms: int = 0
    local_end_ms: int = 0

    def is_closed(self, now_ms: int) -> bool:
        """Whether the amount is kept for its purpose now; else it may be lent until it is."""
        return self.closes_ms is None or now_ms >= self.closes_ms


class Calendar:
    """The pools that pictures show, and the moments at which what they keep changes, followed from one to the next.

    reserves     what they keep until `next_turn_ms`, the next of those moments, None where there is none
    turned_ms    the last of them
    """

    def __init__(self) -> None:
        """Know no pool."""
        self.pools: Mapping[str, Pool] = {}
        self.reserves: tuple[Reserve, ...] = ()
        self.turned_ms = 0
        self.next_turn_ms: int | None = None
        self._version = -1

    def turn(self, tenants: Tenants, now_ms: int) -> None:
        """Take up pools where they changed, and what their calendars say by now."""
        if self._version != tenants.version:
            self._version, self.pools = tenants.version, dict(tenants.pools)
        elif self.next_turn_ms is not None and now_ms >= self.next_turn_ms:
            self.turned_ms = self.next_turn_ms
        else:
            return
        self.reserves = reserves_of(self.pools, now_ms)
        self.next_turn_ms = next_turn_ms(self.reserves, now_ms)


def reserves_of(pools: Mapping[str, Pool], now_ms: int) -> tuple[Reserve, ...]:
    """Return what pools keep, spares first, then ceilings, then protected amounts; by pool inside each."""
    found: list[Reserve] = []
    for name in sorted(pools):
        found += _of_pool(pools[name], now_ms)
    order = tuple(Purpose)
    return tuple(sorted(found, key=lambda reserve: order.index(reserve.purpose)))


def next_turn_ms(reserves: Iterable[Reserve], now_ms: int) -> int | None:
    """Return the next moment after `now_ms` at which a calendar changes what is kept, None where none ever does."""
    moments = [moment for reserve in reserves for moment in (reserve.closes_ms, reserve.end_ms)]
    return min((moment for moment in moments if moment is not None and moment > now_ms), default=None)


def _of_pool(pool: Pool, now_ms: int) -> Iterator[Reserve]:
    if pool.spares is not None and pool.spares.hot_nodes:
        yield Reserve(pool=pool.name, purpose=Purpose.HOT_SPARE, service_class=None, nodes=pool.spares.hot_nodes)
    if pool.spares is not None and pool.spares.warm_gpus:
        warm = pool.spares
        yield Reserve(pool=pool.name, purpose=Purpose.WARM_SPARE, service_class=warm.service_class, gpus=warm.warm_gpus)
    if pool.ceiling_percent is not None:
        yield Reserve(
            pool=pool.name,
            purpose=Purpose.CEILING,
            service_class=pool.latency_class,
            percent=100 - pool.ceiling_percent,
        )
    for protection in pool.protected:
        found = _protected(pool.name, protection, now_ms)
        if found is not None:
            yield found


def _protected(pool: str, said: Protection, now_ms: int) -> Reserve | None:
    span = current_or_next(said.windows, now_ms, said.lead_ms)
    if said.windows and span is None:
        return None
    start_ms, end_ms = span or (None, None)
    zone = said.windows[0].zone if said.windows else None
    return Reserve(
        pool=pool,
        purpose=Purpose.PROTECTED,
        service_class=said.service_class,
        gpus=said.amount,
        unit_gpus=said.unit_gpus,
        lend_gpus=said.lend_gpus,
        return_within_ms=said.return_within_ms,
        start_ms=start_ms,
        end_ms=end_ms,
        closes_ms=None if start_ms is None else start_ms - said.lead_ms,
        zone="" if zone is None else zone.name,
        local_start_ms=0 if zone is None or start_ms is None else zone.local_ms(start_ms),
        local_end_ms=0 if zone is None or end_ms is None else zone.local_ms(end_ms),
    )
