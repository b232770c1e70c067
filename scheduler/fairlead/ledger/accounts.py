"""The chart of accounts. Names are built and read here and nowhere else.

::

    capacity:<pool>                  what there is; the source of everything below, so its balance is negative
    held:<tenant>:<queue>:<tier>     ours; tier is in-quota, borrowed or reserved, fixed when it was allocated
    unmanaged:<pool>                 held by allocations that are not ours, or in no pool ("-")
    reserved-idle:<pool>             kept free for a promise
    stranded:<pool>                  idle, and no request could use it: the node's CPU, memory or pods are used up
    free:<pool>                      idle and usable
    down:<pool>:<cause>              node-lost, unhealthy or cordoned
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Tier

NO_POOL = "-"
"""Stands for the pool of a node that is in none."""
UNKNOWN = "unknown"
"""Tenant and queue of a gang that was never described (a lost journal and a deleted GangJob)."""


class Kind(StrEnum):
    """What kind of account a name belongs to: its first part."""

    CAPACITY = "capacity"
    HELD = "held"
    UNMANAGED = "unmanaged"
    RESERVED_IDLE = "reserved-idle"
    STRANDED = "stranded"
    FREE = "free"
    DOWN = "down"


class Cause(StrEnum):
    """Why a device is down."""

    NODE_LOST = "node-lost"
    UNHEALTHY = "unhealthy"
    CORDONED = "cordoned"


PARTS = {Kind.HELD: 4, Kind.DOWN: 3}
"""How many parts a name has; two where it is not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A name taken apart; what a kind does not have is ""."""

    kind: Kind
    pool: str = ""
    tenant: str = ""
    queue: str = ""
    tier: str = ""
    cause: str = ""


def held(tenant: str, queue: str, tier: Tier) -> str:
    """Return the account of devices that a queue of a tenant holds."""
    return f"{Kind.HELD}:{tenant or UNKNOWN}:{queue or UNKNOWN}:{tier}"


def down(pool: str, cause: Cause) -> str:
    """Return the account of devices that are down."""
    return f"{Kind.DOWN}:{pool or NO_POOL}:{cause}"


def of_pool(kind: Kind, pool: str) -> str:
    """Return the account of one of the kinds that have only a pool."""
    assert PARTS.get(kind, 2) == 2, kind
    return f"{kind}:{pool or NO_POOL}"


def parse(name: str) -> Account:
    """Take an account's name apart.

    Raises
    ------
    UnreadableInput
        It is no name of this chart.
    """
    parts = name.split(":")
    try:
        kind = Kind(parts[0])
    except ValueError:
        raise UnreadableInput(f"account {name!r}: there is no kind {parts[0]!r}") from None
    if len(parts) != PARTS.get(kind, 2) or not all(parts):
        raise UnreadableInput(f"account {name!r}: {kind} has {PARTS.get(kind, 2)} parts, none of them empty")
    if kind is Kind.HELD:
        if parts[3] not in tuple(Tier):
            raise UnreadableInput(f"account {name!r}: there is no tier {parts[3]!r}")
        return Account(kind=kind, tenant=parts[1], queue=parts[2], tier=parts[3])
    if kind is Kind.DOWN:
        if parts[2] not in tuple(Cause):
            raise UnreadableInput(f"account {name!r}: there is no cause {parts[2]!r}")
        return Account(kind=kind, pool=parts[1], cause=parts[2])
    return Account(kind=kind, pool=parts[1])
