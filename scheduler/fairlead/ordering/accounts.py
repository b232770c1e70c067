"""One resource's usage over the queue tree, moved along as a cycle places and stops, with the limits that bind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.model.quota import GPU
from fairlead.ordering.queue_tree import QueueTree


@dataclass(frozen=True, slots=True)
class LimitHit:
    """The nearest limit that a request would break, counted as its resource is.

    `word` says which: ``limit``, ``borrowLimit``, or ``lendLimit`` of guarantees beside `queue` that are not lent: then
    `limit` is what of the resource is free for all, and `used` what of that is kept.
    """

    queue: str
    used_milli: int
    limit_milli: int
    resource: str = GPU
    word: str = "limit"


class Account:
    """Usage of one resource. `used` is of a queue's own jobs; what is not in a mapping is 0."""

    def __init__(self, tree: QueueTree, resource: str, capacity: int, used: Mapping[str, int]) -> None:
        """Take `used` as charged now. O(queues that use something × depth)."""
        self.resource = resource
        self.capacity = capacity
        self.book = tree.book(resource)
        self._tree = tree
        self._chain = tree.chains
        self.used: dict[str, int] = {}
        self.tree_used: dict[str, int] = {}
        self.leaving: dict[str, int] = {}
        self.hoped: dict[str, int] = {}
        self.tree_hoped: dict[str, int] = {}
        self.all_used = 0
        self.entitled: Mapping[str, int] = {}
        self.scope_entitled: dict[str, int] = {}
        self.above: set[str] = set()
        for name, amount in used.items():
            if amount and name in self._chain:
                self._add(name, amount)

    def _add(self, queue: str, amount: int) -> None:
        self.used[queue] = self.used.get(queue, 0) + amount
        self.all_used += amount
        tree_used = self.tree_used
        for name in self._chain[queue]:
            tree_used[name] = tree_used.get(name, 0) + amount

    def entitle(self, entitled: Mapping[str, int]) -> None:
        """Take what queues are entitled to; those that are not named are entitled to nothing."""
        self.entitled = entitled
        scopes = self._tree.scopes
        for name, amount in entitled.items() if scopes else ():
            if name in scopes:
                self.scope_entitled[scopes[name]] = self.scope_entitled.get(scopes[name], 0) + amount
        self.above = {scopes.get(name, name) for name in self.used if self.excess(name) > 0}

    def charge(self, queue: str, amount: int) -> None:
        """Count as used by a queue that is there; negative gives back."""
        self._add(queue, amount)
        self._weigh(queue)

    def leave(self, queue: str, amount: int) -> None:
        """Move from used to leaving."""
        self.charge(queue, -amount)
        self.all_used += amount  # it is not free before it has gone
        for name in self._chain[queue]:
            self.leaving[name] = self.leaving.get(name, 0) + amount

    def hope(self, queue: str, amount: int) -> None:
        """Count as used what a queue is to get as soon as room was made."""
        self.hoped[queue] = self.hoped.get(queue, 0) + amount
        for name in self._chain[queue]:
            self.tree_hoped[name] = self.tree_hoped.get(name, 0) + amount
        self.charge(queue, amount)

    def _weigh(self, queue: str) -> None:
        if self.excess(queue) > 0:
            self.above.add(self._tree.scopes.get(queue, queue))
        else:
            self.above.discard(self._tree.scopes.get(queue, queue))

    # --- limits -----------------------------------------------------------------------------------------------------

    def hit(self, queue: str, amount: int, *, after_stops: bool = False) -> LimitHit | None:
        """Return the first limit, from the queue up, that so much more would break; see `Standing.limit_hit`."""
        most = self.book.most
        if most:
            for name in self._chain.get(queue, ()):
                bound = most.get(name)
                if bound is None:
                    continue
                held = self.tree_used.get(name, 0) + (0 if after_stops else self.leaving.get(name, 0))
                if held + amount > bound.amount:
                    return LimitHit(name, held, bound.amount, self.resource, bound.word)
        return self._unlent_hit(queue, amount) if self.book.kept_below else None

    def over(self, queue: str) -> LimitHit | None:
        """Return the bound of a queue itself that is broken once everything that is leaving has gone."""
        bound, used = self.book.most.get(queue), self.tree_used.get(queue, 0)
        if bound is None or used <= bound.amount:
            return None
        return LimitHit(queue, used, bound.amount, self.resource, bound.word)

    def room(self, queue: str) -> int | None:
        """Return what the queue may still be charged for, None where nothing limits it."""
        rooms: list[int] = []
        for name in self._chain.get(queue, ()):
            bound = self.book.most.get(name)
            if bound is not None:
                rooms.append(bound.amount - self.tree_used.get(name, 0) - self.leaving.get(name, 0))
        if self.book.kept_below and queue in self._chain:
            rooms.append(self._lent_room(queue))
        return min(rooms, default=None)

    def never(self, queue: str, amount: int) -> LimitHit | None:
        """Return the first limit that `amount` alone is above of."""
        for name in self._chain.get(queue, ()):
            bound = self.book.most.get(name)
            if bound is not None and amount > bound.amount:
                return LimitHit(name, 0, bound.amount, self.resource, bound.word)
        return None

    def _unlent_hit(self, queue: str, amount: int) -> LimitHit | None:
        """Return the refusal of guarantees that are not lent, None where enough is free beside them."""
        if queue not in self._chain or not amount or amount <= self._lent_room(queue):
            return None
        free = self.capacity - self.all_used
        return LimitHit(self._chain[queue][-1], self._kept_from(queue), free, self.resource, "lendLimit")

    def _lent_room(self, queue: str) -> int:
        """Return what a queue may be charged for beside what guarantees of others keep.

        Inside a queue whose guarantee has room, only its own children keep something from each other; beyond that
        guarantee, the queues beside it do too.
        """
        kept, best = 0, 0
        chain, promised = self._chain[queue], self.book.promised
        for name in chain:
            best = max(best, promised.get(name, 0) - self.tree_used.get(name, 0) - kept)
            kept += self._kept_beside(name)
        return max(best, self.capacity - self.all_used - kept)

    def _kept_from(self, queue: str) -> int:
        return sum(self._kept_beside(name) for name in self._chain[queue])

    def _kept_beside(self, name: str) -> int:
        beside = self.book.keepers.get(self._tree.parents[name], ())
        return sum(self._idle_kept(other) for other in beside if other != name)

    def _idle_kept(self, name: str) -> int:
        """Return what of guarantees in the subtree of a keeper is neither used nor lent."""
        inside = sum(self._idle_kept(child) for child in self.book.keepers.get(name, ()))
        return max(inside, self.book.kept[name] - self.tree_used.get(name, 0))

    # --- rights -----------------------------------------------------------------------------------------------------

    def excess(self, queue: str) -> int:
        """Return how much more than its entitlement a queue, or its scope of priority, holds, hopes left out."""
        head = self._tree.scopes.get(queue)
        if head is None:
            return self.used.get(queue, 0) - self.hoped.get(queue, 0) - self.entitled.get(queue, 0)
        return self.tree_used.get(head, 0) - self.tree_hoped.get(head, 0) - self.scope_entitled.get(head, 0)

    def room_in_entitlement(self, queue: str, *, alone: bool = False) -> int:
        """Return what a queue's entitlement, or that of its scope of priority, leaves beside all that it is to get.

        `alone` asks about the queue itself.
        """
        head = None if alone else self._tree.scopes.get(queue)
        if head is None:
            return self.entitled.get(queue, 0) - self.used.get(queue, 0)
        return self.scope_entitled.get(head, 0) - self.tree_used.get(head, 0)

    def lends(self, queue: str) -> bool:
        """Whether a queue, or its scope of priority, holds more than it is entitled to, hopes left out."""
        return self._tree.scopes.get(queue, queue) in self.above

    def left_above_guarantees(self, queue: str, taker: str) -> int:
        """Return what a queue may lose before a guarantee of it, or of one above it but not the taker, is broken."""
        shared = self._chain.get(taker, ())
        left = [
            self.tree_used.get(name, 0) - self.tree_hoped.get(name, 0) - self.book.guaranteed.get(name, 0)
            for name in self._chain[queue]
            if name not in shared
        ]
        return min(left, default=self.used.get(queue, 0))

    def is_owed(self, queue: str, amount: int, other: str = "") -> bool:
        """Whether with so much more a queue, or one above it but not `other`, holds no more than its guarantee."""
        shared = self._chain.get(other, ())
        return any(
            self.tree_used.get(name, 0) + amount <= self.book.guaranteed.get(name, 0)
            for name in self._chain[queue]
            if name not in shared
        )
