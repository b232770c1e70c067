"""The chart of accounts. Names are built and read here and nowhere else.

In ticks, the timeline of devices::

    capacity:<pool>                  what there is; the source of everything below, so its balance is negative
    held:<tenant>:<queue>:<tier>     ours; tier is in-quota, borrowed, reserved or opportunistic, as it is at the time
    unmanaged:<pool>                 held by allocations that are not ours, or in no pool ("-")
    reserved-idle:<pool>             kept free for a promise
    stranded:<pool>                  idle, and no request could use it: the node's CPU, memory or pods are used up
    free:<pool>                      idle and usable
    down:<pool>:<cause>              node-lost, unhealthy or cordoned

In the units of `BESIDE`, what pods have of their nodes: held, with capacity as the other side.

In ticks, what became of what was held::

    use:<tenant>:<queue>:<how>       used, idle, unattributable; from unmeasured these and waste are split off
    waste:<cause>:<tenant>:<queue>   work that was lost

In nano-units of a currency::

    spend:<tenant>:<queue>:<tier>    what a queue has been charged; tier is one of `PRICE_TIERS`
    revenue:<sku>                    what a kind of device has earned, so its balance is negative
    credit:<reason>                  what was forgiven or charged by hand
    rounding                         what is left when an amount is split or written in whole cents

A part of a name may be any text: what is not plain is written as %XX, byte for byte of its UTF-8.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from urllib.parse import quote, unquote

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Tier
from fairlead.model.prices import PriceTier

NO_POOL = "-"
"""Stands for the pool of a node that is in none."""
UNKNOWN = "unknown"
"""Tenant and queue of a gang that was never described (a lost journal and a deleted GangJob)."""

TICKS = "ticks"
"""The unit of device time."""
CORES, MEMORY, NICS = "core-us", "mib-ms", "nic-ms"
BESIDE = (CORES, MEMORY, NICS)
"""The units of what pods have of their nodes beside devices: microseconds of a core, and ms of a MiB and of a NIC."""
_MONEY = "money:"
_CURRENCY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")

PRICE_TIERS = tuple(PriceTier)
"""What a price may be of."""
USES = ("used", "idle", "unattributable", "unmeasured")
"""What became of what was held."""


class Kind(StrEnum):
    """What kind of account a name belongs to: its first part."""

    CAPACITY = "capacity"
    HELD = "held"
    UNMANAGED = "unmanaged"
    RESERVED_IDLE = "reserved-idle"
    STRANDED = "stranded"
    FREE = "free"
    DOWN = "down"
    USE = "use"
    WASTE = "waste"
    SPEND = "spend"
    REVENUE = "revenue"
    CREDIT = "credit"
    ROUNDING = "rounding"


class Cause(StrEnum):
    """Why a device is down."""

    NODE_LOST = "node-lost"
    UNHEALTHY = "unhealthy"
    CORDONED = "cordoned"


TIMELINE_KINDS = (
    Kind.CAPACITY, Kind.HELD, Kind.UNMANAGED, Kind.RESERVED_IDLE, Kind.STRANDED, Kind.FREE, Kind.DOWN
)  # fmt: skip
"""The kinds that say what devices were in."""
MONEY_KINDS = (Kind.SPEND, Kind.REVENUE, Kind.CREDIT, Kind.ROUNDING)
"""The kinds whose amounts are money; all others are in ticks, `HELD` and `CAPACITY` in `BESIDE` too."""

_OF_QUEUE = ("tenant", "queue", "tier")
_PARTS: dict[Kind, tuple[str, ...]] = {
    Kind.HELD: _OF_QUEUE,
    Kind.DOWN: ("pool", "cause"),
    Kind.USE: ("tenant", "queue", "use"),
    Kind.WASTE: ("cause", "tenant", "queue"),
    Kind.SPEND: _OF_QUEUE,
    Kind.REVENUE: ("sku",),
    Kind.CREDIT: ("reason",),
    Kind.ROUNDING: (),
}
"""What the parts of a name after its kind are; a pool where the kind is not listed."""
_CHOICES: dict[tuple[Kind, str], tuple[str, ...]] = {
    (Kind.HELD, "tier"): tuple(Tier),
    (Kind.SPEND, "tier"): PRICE_TIERS,
    (Kind.DOWN, "cause"): tuple(Cause),
    (Kind.USE, "use"): USES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A name taken apart; what a kind does not have is ""."""

    kind: Kind
    pool: str = ""
    tenant: str = ""
    queue: str = ""
    tier: str = ""
    cause: str = ""
    use: str = ""
    sku: str = ""
    reason: str = ""


def held(tenant: str, queue: str, tier: Tier) -> str:
    """Return the account of devices that a queue of a tenant holds."""
    return _name(Kind.HELD, tenant or UNKNOWN, queue or UNKNOWN, tier)


def of_tier(account: str, tier: Tier) -> str:
    """Return the account of what the same queue holds in another tier."""
    return f"{account.rpartition(':')[0]}:{tier}"


def down(pool: str, cause: Cause) -> str:
    """Return the account of devices that are down."""
    return _name(Kind.DOWN, pool or NO_POOL, cause)


@cache
def of_pool(kind: Kind, pool: str) -> str:
    """Return the account of one of the kinds that have only a pool."""
    assert kind not in _PARTS, kind
    return _name(kind, pool or NO_POOL)


def use(tenant: str, queue: str, how: str) -> str:
    """Return the account of held time that was one of `USES`."""
    assert how in USES, how
    return _name(Kind.USE, tenant or UNKNOWN, queue or UNKNOWN, how)


def waste(cause: str, tenant: str, queue: str) -> str:
    """Return the account of held time that was lost to a cause."""
    return _name(Kind.WASTE, cause, tenant or UNKNOWN, queue or UNKNOWN)


def spend(tenant: str, queue: str, tier: str) -> str:
    """Return the account of what a queue is charged in one of `PRICE_TIERS`."""
    assert tier in PRICE_TIERS, tier
    return _name(Kind.SPEND, tenant or UNKNOWN, queue or UNKNOWN, tier)


def revenue(sku: str) -> str:
    """Return the account of what a kind of device earns."""
    return _name(Kind.REVENUE, sku)


def credit(reason: str) -> str:
    """Return the account that the other side of adjustments for a reason is booked to."""
    return _name(Kind.CREDIT, reason)


def money(currency: str) -> str:
    """Return the unit of a currency.

    Raises
    ------
    UnreadableInput
        It is no name of a currency.
    """
    if not _CURRENCY.fullmatch(currency):
        raise UnreadableInput(
            f"currency: {currency!r} is no currency; write a code such as EUR, or a name such as GPU-credits"
        )
    return _MONEY + currency


def currency_of(unit: str) -> str | None:
    """Return the currency of a unit of money, None where it is ticks or one of `BESIDE`.

    Raises
    ------
    UnreadableInput
        It is no unit.
    """
    if unit == TICKS or unit in BESIDE:
        return None
    if not unit.startswith(_MONEY) or not _CURRENCY.fullmatch(unit[len(_MONEY) :]):
        raise UnreadableInput(f"unit {unit!r}: is none of {', '.join((TICKS, *BESIDE))}, {_MONEY}<currency>")
    return unit[len(_MONEY) :]


@functools.lru_cache(maxsize=4_096)
def other_side(account: str) -> str:
    """Return the account that what became of held time is split off from, "" where an account is of the timeline."""
    of = parse(account)
    return use(of.tenant, of.queue, "unmeasured") if of.kind in (Kind.USE, Kind.WASTE) else ""


@functools.lru_cache(maxsize=4_096)
def parse(name: str) -> Account:
    """Take an account's name apart.

    Raises
    ------
    UnreadableInput
        It is no name of this chart, or not the way it is written here.
    """
    first, *parts = name.split(":")
    try:
        kind = Kind(first)
    except ValueError:
        raise UnreadableInput(f"account {name!r}: there is no kind {first!r}") from None
    wanted = _PARTS.get(kind, ("pool",))
    if len(parts) != len(wanted) or not all(parts):
        raise UnreadableInput(f"account {name!r}: {kind} has {len(wanted) + 1} parts, none of them empty")
    fields = {field: _plain(part) for field, part in zip(wanted, parts, strict=True)}
    if _name(kind, *fields.values()) != name:
        raise UnreadableInput(f"account {name!r}: is written {_name(kind, *fields.values())!r}")
    for field, value in fields.items():
        if value not in _CHOICES.get((kind, field), (value,)):
            raise UnreadableInput(f"account {name!r}: there is no {field} {value!r}")
    return Account(kind=kind, **fields)


def _name(kind: Kind, *parts: str) -> str:
    return ":".join((kind.value, *(quote(part, safe="/ ", errors="surrogatepass") for part in parts)))


def _plain(part: str) -> str:
    return unquote(part, errors="surrogatepass")
