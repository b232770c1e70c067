"""How every queue stands inside one cycle: what it uses, what it is entitled to, what that lets it do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.model.gang import Tier
from fairlead.model.tenancy import Queue
from fairlead.ordering.fair_share import WHOLE, QueueTree
from fairlead.units import FIXED_POINT


@dataclass(frozen=True, slots=True)
class LimitHit:
    """The nearest limit that a request would break; thousandths of a GPU."""

    queue: str
    used_milli: int
    limit_milli: int


class Standing:
    """Usage and entitlement of every queue, moved along as a cycle places and stops. In thousandths
    of a GPU.

    `used` is what a queue will hold once everything that is being stopped is gone and everything that room is made for
    has come, so that the same borrowed GPUs are not taken twice. What is leaving is still held: limits count it as
    well. What is only hoped for is no loss yet: nothing is taken on the strength of it.
    """

    def __init__(
        self,
        capacity_milli: int,
        queues: Mapping[str, Queue] | QueueTree,
        used: Mapping[str, int],
        pending: Iterable[tuple[str, int]],
        leaving: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Take `used` as charged now, `pending` of every waiting gang, `leaving` of every attempt that stops."""
        tree = queues if isinstance(queues, QueueTree) else QueueTree(queues)
        self._queues, self._chain = tree.queues, tree.chains
        self.used: dict[str, int] = {name: used.get(name, 0) for name in self._queues}
        self._tree_used: dict[str, int] = dict.fromkeys(self._queues, 0)
        for name, milli in self.used.items():
            self._add(name, milli)
        demand = dict(self.used)
        for name, milli in pending:
            if name in demand:
                demand[name] += milli
        self.entitled: dict[str, int] = tree.entitlements(capacity_milli, demand)
        self._tree_leaving: dict[str, int] = dict.fromkeys(self._queues, 0)
        self._tree_hoped: dict[str, int] = dict.fromkeys(self._queues, 0)
        self._hoped: dict[str, int] = {}
        self._above: set[str] = {name for name, milli in self.used.items() if milli > self.entitled[name]}
        self._lenders: tuple[str, ...] | None = None
        for name, milli in leaving:
            self.leave(name, milli)

    def _add(self, queue: str, milli: int) -> None:
        for name in self._chain.get(queue, ()):
            self._tree_used[name] += milli

    def charge(self, queue: str, milli: int) -> None:
        """Count GPUs as used by a queue; negative gives back."""
        if queue in self.used:
            self.used[queue] += milli
            self._add(queue, milli)
            self._weigh(queue)

    def leave(self, queue: str, milli: int) -> None:
        """Move GPUs from used to leaving: their attempt is being stopped and still holds them."""
        self.charge(queue, -milli)
        for name in self._chain.get(queue, ()):
            self._tree_leaving[name] += milli

    def hope(self, queue: str, milli: int) -> None:
        """Count GPUs as used that a queue is to get as soon as room was made."""
        self.charge(queue, milli)
        self._hoped[queue] = self._hoped.get(queue, 0) + milli
        self._weigh(queue)
        for name in self._chain.get(queue, ()):
            self._tree_hoped[name] += milli

    def _limit(self, name: str) -> int | None:
        limit = self._queues[name].limit_gpus
        return None if limit is None else WHOLE * limit

    def room_within_limits(self, queue: str) -> int | None:
        """Return what the queue may still be charged for, None where nothing limits it."""
        rooms: list[int] = []
        for name in self._chain.get(queue, ()):
            limit = self._limit(name)
            if limit is not None:
                rooms.append(limit - self._tree_used[name] - self._tree_leaving[name])
        return min(rooms, default=None)

    def limit_hit(self, queue: str, milli: int, *, after_stops: bool = False) -> LimitHit | None:
        """Return the first limit, from the queue up, that `milli` more would break.

        `after_stops` asks about the time when everything that is leaving is gone.
        """
        for name in self._chain.get(queue, ()):
            limit = self._limit(name)
            held = self._tree_used[name] + (0 if after_stops else self._tree_leaving[name])
            if limit is not None and held + milli > limit:
                return LimitHit(name, held, limit)
        return None

    def never_within_limit(self, queue: str, milli: int) -> LimitHit | None:
        """Return the first limit that `milli` alone are above of."""
        for name in self._chain.get(queue, ()):
            limit = self._limit(name)
            if limit is not None and milli > limit:
                return LimitHit(name, 0, limit)
        return None

    def tier(self, queue: str, milli: int) -> Tier:
        """Return what `milli` more would be: in quota as long as the queue's guarantee covers all of them."""
        guaranteed = WHOLE * self._queues[queue].guaranteed_gpus if queue in self._queues else 0
        return Tier.IN_QUOTA if self.used.get(queue, 0) + milli <= guaranteed else Tier.BORROWED

    def within_entitlement(self, queue: str, milli: int) -> bool:
        """Whether the queue would still be at or below its entitlement with `milli` more."""
        return queue in self.used and self.used[queue] + milli <= self.entitled[queue]

    def may_lose(self, queue: str, milli: int, taker: str) -> bool:
        """Whether `taker` may take `milli` of `queue`: it is above its entitlement and no guarantee would be broken.

        Guarantees of queues above both are not touched: what moves between their children stays inside them.
        """
        if queue not in self.used or self.used[queue] - self._hoped.get(queue, 0) <= self.entitled[queue]:
            return False
        shared = set(self._chain.get(taker, ()))
        return all(
            name in shared
            or self._tree_used[name] - self._tree_hoped[name] - milli >= WHOLE * self._queues[name].guaranteed_gpus
            for name in self._chain[queue]
        )

    def lenders(self) -> tuple[str, ...]:
        """Return the queues above their entitlement, by name: nobody else has anything that others may take."""
        if self._lenders is None:
            self._lenders = tuple(sorted(self._above))
        return self._lenders

    def _weigh(self, queue: str) -> None:
        """Note whether a queue is above its entitlement, now that its usage is another."""
        above = queue in self.used and self.used[queue] - self._hoped.get(queue, 0) > self.entitled[queue]
        if above != (queue in self._above):
            self._above ^= {queue}
            self._lenders = None

    def most_to_lose(self, queue: str, taker: str) -> int:
        """Return the most that `taker` may take of `queue` by one attempt, -1 for nothing: see `may_lose`."""
        if not self.may_lose(queue, 0, taker):
            return -1
        shared = set(self._chain.get(taker, ()))
        left = [
            self._tree_used[name] - self._tree_hoped[name] - WHOLE * self._queues[name].guaranteed_gpus
            for name in self._chain[queue]
            if name not in shared
        ]
        return min(left, default=self.used[queue])

    def order_key(self, queue: str) -> tuple[int, int, str]:
        """Queues below their guarantee first, furthest first; then by share of entitlement used; then by name."""
        if queue not in self.used:
            return (2, 0, queue)
        guaranteed, used = WHOLE * self._queues[queue].guaranteed_gpus, self.used[queue]
        if used < guaranteed:
            return (0, -((guaranteed - used) * FIXED_POINT // guaranteed), queue)
        return (1, used * FIXED_POINT // (self.entitled[queue] or WHOLE), queue)
