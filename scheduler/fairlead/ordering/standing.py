"""How every queue stands inside one cycle: what it uses, what it is entitled to, what that lets it do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.model.gang import Tier
from fairlead.model.tenancy import Queue, ancestors
from fairlead.ordering.fair_share import entitlements
from fairlead.units import FIXED_POINT


@dataclass(frozen=True, slots=True)
class LimitHit:
    """The nearest limit that a request would break; all in GPUs."""

    queue: str
    used: int
    limit: int


class Standing:
    """Usage and entitlement of every queue, moved along as a cycle places and stops. All in whole GPUs.

    `used` is what a queue will hold once everything that is being stopped is gone and everything that room is made for
    has come, so that the same borrowed GPUs are not taken twice. What is leaving is still held: limits count it as
    well. What is only hoped for is no loss yet: nothing is taken on the strength of it.
    """

    def __init__(
        self,
        capacity: int,
        queues: Mapping[str, Queue],
        used: Mapping[str, int],
        pending: Iterable[tuple[str, int]],
        leaving: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Take `used` as charged now, `pending` of every waiting gang, `leaving` of every attempt that stops."""
        self._queues = dict(queues)
        self._chain = {name: ancestors(name, self._queues) for name in self._queues}
        self.used: dict[str, int] = {name: used.get(name, 0) for name in self._queues}
        self._tree_used: dict[str, int] = dict.fromkeys(self._queues, 0)
        for name, gpus in self.used.items():
            self._add(name, gpus)
        demand = dict(self.used)
        for name, gpus in pending:
            if name in demand:
                demand[name] += gpus
        self.entitled: dict[str, int] = entitlements(capacity, self._queues, demand)
        self._tree_leaving: dict[str, int] = dict.fromkeys(self._queues, 0)
        self._tree_hoped: dict[str, int] = dict.fromkeys(self._queues, 0)
        self._hoped: dict[str, int] = {}
        for name, gpus in leaving:
            self.leave(name, gpus)

    def _add(self, queue: str, gpus: int) -> None:
        for name in self._chain.get(queue, ()):
            self._tree_used[name] += gpus

    def charge(self, queue: str, gpus: int) -> None:
        """Count GPUs as used by a queue; negative gives back."""
        if queue in self.used:
            self.used[queue] += gpus
            self._add(queue, gpus)

    def leave(self, queue: str, gpus: int) -> None:
        """Move GPUs from used to leaving: their attempt is being stopped and still holds them."""
        self.charge(queue, -gpus)
        for name in self._chain.get(queue, ()):
            self._tree_leaving[name] += gpus

    def hope(self, queue: str, gpus: int) -> None:
        """Count GPUs as used that a queue is to get as soon as room was made."""
        self.charge(queue, gpus)
        self._hoped[queue] = self._hoped.get(queue, 0) + gpus
        for name in self._chain.get(queue, ()):
            self._tree_hoped[name] += gpus

    def limit_hit(self, queue: str, gpus: int, *, after_stops: bool = False) -> LimitHit | None:
        """Return the first limit, from the queue up, that `gpus` more would break.

        `after_stops` asks about the time when everything that is leaving is gone.
        """
        for name in self._chain.get(queue, ()):
            limit = self._queues[name].limit_gpus
            held = self._tree_used[name] + (0 if after_stops else self._tree_leaving[name])
            if limit is not None and held + gpus > limit:
                return LimitHit(name, held, limit)
        return None

    def never_within_limit(self, queue: str, gpus: int) -> LimitHit | None:
        """Return the first limit that `gpus` alone are above of."""
        for name in self._chain.get(queue, ()):
            limit = self._queues[name].limit_gpus
            if limit is not None and gpus > limit:
                return LimitHit(name, 0, limit)
        return None

    def tier(self, queue: str, gpus: int) -> Tier:
        """Return what `gpus` more would be: in quota as long as the queue's guarantee covers all of them."""
        guaranteed = self._queues[queue].guaranteed_gpus if queue in self._queues else 0
        return Tier.IN_QUOTA if self.used.get(queue, 0) + gpus <= guaranteed else Tier.BORROWED

    def within_entitlement(self, queue: str, gpus: int) -> bool:
        """Whether the queue would still be at or below its entitlement with `gpus` more."""
        return queue in self.used and self.used[queue] + gpus <= self.entitled[queue]

    def may_lose(self, queue: str, gpus: int, taker: str) -> bool:
        """Whether `taker` may take `gpus` of `queue`: it is above its entitlement and no guarantee would be broken.

        Guarantees of queues above both are not touched: what moves between their children stays inside them.
        """
        if queue not in self.used or self.used[queue] - self._hoped.get(queue, 0) <= self.entitled[queue]:
            return False
        shared = set(self._chain.get(taker, ()))
        return all(
            name in shared
            or self._tree_used[name] - self._tree_hoped[name] - gpus >= self._queues[name].guaranteed_gpus
            for name in self._chain[queue]
        )

    def order_key(self, queue: str) -> tuple[int, int, str]:
        """Queues below their guarantee first, furthest first; then by share of entitlement used; then by name."""
        if queue not in self.used:
            return (2, 0, queue)
        guaranteed, used = self._queues[queue].guaranteed_gpus, self.used[queue]
        if used < guaranteed:
            return (0, -((guaranteed - used) * FIXED_POINT // guaranteed), queue)
        return (1, used * FIXED_POINT // max(1, self.entitled[queue]), queue)
