"""What a job would take and cost before it is submitted: device time, what goes wrong on top of it, and its prices.

How much goes wrong is what the books measured of the job's queue lately: time that was wasted, for whatever cause, for
each that was not. A queue whose jobs are stopped or fail more has to plan for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger.accounts import Kind
from fairlead.ledger.prices import PriceList, Terms
from fairlead.ledger.pricing import tiers_for
from fairlead.model.gang import Gang, Role
from fairlead.model.prices import PriceTier
from fairlead.model.tenancy import Queue, ancestors
from fairlead.reports.booked import booked, in_ticks, span_of
from fairlead.store import engine as database
from fairlead.units import TICKS_PER_GPU_MS
from fairlead.world.demand import is_of, models_of

MEASURED_MS = 30 * 86_400_000
"""How long ago what went wrong still counts."""
PERMILLE_MAX = 10_000
"""The most headroom that is planned for, in thousandths: eleven times the job's own time."""
_TIERS = (PriceTier.IN_QUOTA, PriceTier.BORROWED, PriceTier.OPPORTUNISTIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """Thousandths of the job's own time that are planned on top. `basis`: ``measured``, ``given``, or ``none``."""

    permille: int
    basis: str

    def on(self, amount: int) -> int:
        """Return an amount with what comes on top, rounded up."""
        return amount - (-amount * self.permille // 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What all replicas of a role cost in a tier on a model; `nanos` None where a part of the time has no price."""

    role: str
    model: str
    tier: str
    currency: str
    nanos: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What the whole job costs in a tier: on the cheapest and on the dearest devices that it accepts."""

    tier: str
    currency: str
    lowest_nanos: int
    highest_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A job's own device time, what is to be planned for on top, and what that time costs without it."""

    job: str
    queue: str
    duration_ms: int
    declared: bool
    gpu_ms: int
    headroom: Headroom
    costs: tuple[Cost, ...]
    totals: tuple[Total, ...]


def estimate(
    gang: Gang, queues: dict[str, Queue], prices: PriceList, headroom: Headroom, now_ms: int, given_ms: int | None
) -> Estimate:
    """Estimate a job that starts at `now_ms` and runs for what it declares, or for `given_ms`.

    Raises
    ------
    UnreadableInput
        It declares no duration and none is given.
    """
    duration_ms = gang.duration_ms if given_ms is None else given_ms
    if duration_ms is None:
        raise UnreadableInput(
            f"GangJob {gang.full_name}: spec.duration: is not declared; declare it, or give --duration"
        )
    chain = ancestors(gang.queue, queues) or (gang.queue,)
    tiers = (PriceTier.OPPORTUNISTIC,) if gang.is_spare else _TIERS
    roles = [role for role in gang.roles if role.gpu_milli]
    span = (now_ms, now_ms + duration_ms)
    costs = tuple(cost for tier in tiers for role in roles for cost in _costs(role, chain, prices, tier, span))
    return Estimate(
        job=gang.full_name,
        queue=gang.queue,
        duration_ms=duration_ms,
        declared=given_ms is None,
        gpu_ms=gang.gpu_milli * duration_ms // 1_000,
        headroom=headroom,
        costs=costs,
        totals=tuple(_totals(costs, {role.name for role in roles})),
    )


def measured(engine: database.Engine, queue: str, now_ms: int) -> Headroom:
    """Return what went wrong in a queue in the last `MEASURED_MS`; ``none`` where the books have nothing of it."""
    try:
        found = booked(engine, span_of(now_ms - MEASURED_MS, None), jobs=False)
    except NotFound:
        return Headroom(permille=0, basis="none")
    sums = {Kind.HELD: 0, Kind.WASTE: 0}
    for account, line in in_ticks(found.of(Kind.HELD, Kind.WASTE)):
        if account.queue == queue:
            sums[account.kind] += line.amount
    good = sums[Kind.HELD] - sums[Kind.WASTE]
    if not sums[Kind.HELD]:
        return Headroom(permille=0, basis="none")
    permille = PERMILLE_MAX if good <= 0 else -(-1_000 * sums[Kind.WASTE] // good)
    return Headroom(permille=min(permille, PERMILLE_MAX), basis="measured")


def _costs(
    role: Role, chain: tuple[str, ...], prices: PriceList, tier: PriceTier, span: tuple[int, int]
) -> Iterator[Cost]:
    """Yield what a role costs on each model that has a price somewhere and that it accepts."""
    accepted = models_of(role.gpu_model)
    ticks = -(-role.gpu_milli * TICKS_PER_GPU_MS // 1_000)
    currencies = {(price.model, book.currency) for book in prices.books for price in book.prices}
    for model, currency in sorted(currencies):
        if not is_of(accepted, model):
            continue
        terms = Terms(model=model, mig=role.mig, chain=chain, tiers=tiers_for(tier), ticks=ticks)
        pieces = list(prices.rates(terms, *span))
        if any(rate is not None and rate.currency != currency for _, _, rate in pieces):
            continue
        amounts = [None if rate is None else rate.nanos(begin, end) for begin, end, rate in pieces]
        known = [amount for amount in amounts if amount is not None]
        yield Cost(
            role=role.name,
            model=model,
            tier=tier.value,
            currency=currency,
            nanos=role.replicas * sum(known) if len(known) == len(amounts) else None,
        )


def _totals(costs: Iterable[Cost], roles: set[str]) -> Iterator[Total]:
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for cost in costs:
        if cost.nanos is not None:
            found.setdefault((cost.tier, cost.currency), {}).setdefault(cost.role, []).append(cost.nanos)
    for (tier, currency), of_role in found.items():
        if of_role.keys() == roles:
            yield Total(
                tier=tier,
                currency=currency,
                lowest_nanos=sum(min(amounts) for amounts in of_role.values()),
                highest_nanos=sum(max(amounts) for amounts in of_role.values()),
            )
