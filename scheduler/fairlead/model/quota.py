"""What a queue may have of one resource, and how a resource is named and counted.

Resources are ``gpu`` (every GPU, whatever its model), ``gpu/H100`` (GPUs whose model has H100 in its name), ``cpu``,
``memory``, ``ephemeral-storage`` and extended resources such as ``example.com/licence``. Inside, GPUs are counted in
thousandths, cores in thousandths, memory and storage in bytes, everything else in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.errors import UnreadableInput

GPU, CPU, MEMORY, STORAGE = "gpu", "cpu", "memory", "ephemeral-storage"
OF_MODEL = "gpu/"
"""How the name of a resource that is GPUs of one model begins."""
FIXED = "gpu:not-preemptible"
"""GPUs that gangs hold which may not be preempted: counted only for queues that keep those within the guarantee."""
AMOUNT_MOST = 10_000_000
_NAME = re.compile(
    r"gpu|cpu|memory|ephemeral-storage|gpu/[A-Za-z0-9]([-A-Za-z0-9._ ]{0,61}[A-Za-z0-9])?"
    r"|[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_UNIT = {GPU: 1000, CPU: 1000, MEMORY: 1 << 30, STORAGE: 1 << 30, FIXED: 1000}
_WORD = {
    GPU: "GPUs",
    CPU: "cores",
    MEMORY: "GiB of memory",
    STORAGE: "GiB of storage",
    FIXED: "GPUs for gangs that may not be preempted",
}

Amounts = tuple[tuple[str, int], ...]
"""(resource, amount as it is counted inside), sorted by name, nothing twice, no zeros; ``gpu`` is never among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A queue's quota of one resource, counted as inside.

    guaranteed   what it can have back from borrowers whenever it wants it
    limit        what it and all below it never hold more than; None is no limit of its own
    weight       its share of what is left over, against the queues beside it; None is the queue's own weight
    lend_limit   how much of the guarantee others may use while it is idle; None lends all of it
    borrow_limit how much beyond the guarantee it may hold; None is no such bound
    need         what the tenant has declared to need for its service level: met before what is left is shared, by
                 policies of kind slo
    """

    resource: str
    guaranteed: int = 0
    limit: int | None = None
    weight: int | None = None
    lend_limit: int | None = None
    borrow_limit: int | None = None
    need: int = 0

    @property
    def most(self) -> int | None:
        """What the queue never holds more than, from its limit and its borrow limit together."""
        bounds = [] if self.limit is None else [self.limit]
        bounds += [] if self.borrow_limit is None else [self.guaranteed + self.borrow_limit]
        return min(bounds, default=None)

    @property
    def kept(self) -> int:
        """What of the guarantee is never lent."""
        return 0 if self.lend_limit is None else max(0, self.guaranteed - self.lend_limit)


def is_resource(name: str) -> bool:
    """Whether a quota may be of a resource of that name."""
    return _NAME.fullmatch(name) is not None


def quota_of(name: str, said: Mapping[str, int | None], *, field: str) -> Quota:
    """Return the quota of a resource from what people write: ``guaranteed``, ``limit``, ``weight``, ``lendLimit``,
    ``borrowLimit`` and ``need``, in whole GPUs, cores, GiB or pieces; None and what is missing are not said.

    Raises
    ------
    UnreadableInput
        The name is no resource, or the numbers contradict each other; the message names `field` and the mend.
    """
    if not is_resource(name):
        known = "gpu, gpu/MODEL, cpu, memory, ephemeral-storage or an extended resource such as example.com/licence"
        raise UnreadableInput(f"{field}.name: {name!r} is no resource; use {known}")
    guaranteed, limit = said.get("guaranteed") or 0, said.get("limit")
    if limit is not None and limit < guaranteed:
        raise UnreadableInput(
            f"{field}.limit: {limit} is below guaranteed {guaranteed}; raise limit or lower guaranteed"
        )
    lend, need = said.get("lendLimit"), said.get("need") or 0
    if lend is not None and lend > guaranteed:
        raise UnreadableInput(f"{field}.lendLimit: {lend} is above guaranteed {guaranteed}; lower it or remove it")
    if limit is not None and need > limit:
        raise UnreadableInput(f"{field}.need: {need} is above limit {limit}; lower need or raise limit")
    unit, borrow = unit_of(name), said.get("borrowLimit")
    return Quota(
        resource=name,
        guaranteed=unit * guaranteed,
        limit=None if limit is None else unit * limit,
        weight=said.get("weight"),
        lend_limit=None if lend is None else unit * lend,
        borrow_limit=None if borrow is None else unit * borrow,
        need=unit * need,
    )


def unit_of(resource: str) -> int:
    """Return how many counted units one of what people write is: of GPUs 1000, of GiB 2^30, of pieces 1."""
    return 1000 if resource.startswith(OF_MODEL) else _UNIT.get(resource, 1)


def words_of(resource: str) -> str:
    """Return what people call the units of a resource: ``GPUs``, ``H100 GPUs``, ``GiB of memory``."""
    if resource.startswith(OF_MODEL):
        return f"{resource.removeprefix(OF_MODEL)} GPUs"
    return _WORD.get(resource, resource)


def amount_text(resource: str, amount: int) -> int | str:
    """Return a counted amount in what people write: a whole number where it is one, else text such as ``0.5``."""
    whole, rest = divmod(amount, unit := unit_of(resource))
    return f"{whole}.{1000 * rest // unit:03}".rstrip("0").rstrip(".") if rest else whole


def times(number: int, amounts: Amounts) -> Amounts:
    """Return amounts so many times; negative to take them off."""
    return tuple((resource, number * amount) for resource, amount in amounts) if number else ()


def added(first: Amounts, second: Amounts) -> Amounts:
    """Return the sum of two amounts."""
    if not first or not second:
        return first or second
    sums = dict(first)
    for resource, amount in second:
        sums[resource] = sums.get(resource, 0) + amount
    return tuple(sorted((resource, amount) for resource, amount in sums.items() if amount))
