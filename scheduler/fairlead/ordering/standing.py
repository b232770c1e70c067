"""How every queue stands inside one cycle: what it uses, what it is entitled to, what that lets it do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairlead.model.quota import FIXED, GPU, OF_MODEL, Amounts
from fairlead.model.tenancy import Queue
from fairlead.ordering.accounts import Account, LimitHit
from fairlead.ordering.dominant import entitlements_of_all, scale_of
from fairlead.ordering.fair_share import WHOLE, gpu_entitlements
from fairlead.ordering.history import History
from fairlead.ordering.queue_tree import QueueTree
from fairlead.units import FIXED_POINT

__all__ = ["Counted", "LimitHit", "OrderKey", "Standing"]

OrderKey = tuple[int, int, int, int, int, int, str]
"""Whether below its guarantee, how far, share of entitlement, past usage; in a scope of priority the priority of its
next job, negated, and its own share; name: the smallest queue is next."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Counted:
    """What is counted beside GPUs: per resource its capacity, and per resource and queue what is used and asked for."""

    capacity: Mapping[str, int] = field(default_factory=dict[str, int])
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    asked: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])


class Standing:
    """Usage and entitlement of every queue, moved along as a cycle places and stops. In thousandths
    of a GPU, and of what else is counted as that is: `also` beside an amount of GPUs.

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
        leaving: Iterable[tuple[str, int]] | Iterable[tuple[str, int, Amounts]] = (),
        counted: Counted | None = None,
        history: History | None = None,
    ) -> None:
        """Take `used` as charged now, `pending` of every waiting gang, `leaving` of every attempt that stops.

        Without a `history` nobody has used anything before. O(queues that use or want something × depth).
        """
        tree = queues if isinstance(queues, QueueTree) else QueueTree(queues)
        self.tree = tree
        self._queues, self._chain = tree.queues, tree.chains
        self._gpu = Account(tree, GPU, capacity_milli, used)
        self.used = self._gpu.used
        more = counted or Counted()
        self._others = [Account(tree, kind, more.capacity[kind], more.used[kind]) for kind in sorted(more.capacity)]
        self._accounts = [self._gpu, *(account for account in self._others if account.resource != FIXED)]
        self._demand: dict[str, dict[str, int]] = {GPU: dict(self.used)}
        for name, milli in pending:
            if milli and name in self._queues:
                self._demand[GPU][name] = self._demand[GPU].get(name, 0) + milli
        self._entitle(more)
        self.entitled = self._gpu.entitled
        self._history = history
        self._trees: dict[str, int] | None = None
        self._past_of: dict[str, int] = {}
        self._lenders: tuple[str, ...] | None = None
        for name, milli, *also in leaving:
            self.leave(name, milli, also[0] if also else ())

    def _entitle(self, more: Counted) -> None:
        gpu, demand = self._gpu, self._demand
        if len(self._accounts) == 1:
            gpu.entitle(gpu_entitlements(self.tree, gpu.capacity, demand[GPU], self.used))
            return
        for account in self._accounts[1:]:
            wanted = demand[account.resource] = dict(account.used)
            for name, amount in more.asked.get(account.resource, {}).items():
                wanted[name] = wanted.get(name, 0) + amount
        capacity = {account.resource: account.capacity for account in self._accounts}
        held = {account.resource: account.used for account in self._accounts}
        entitled = entitlements_of_all(self.tree, capacity, demand, held)
        for account in self._accounts:
            account.entitle(entitled[account.resource])

    # --- what moves along --------------------------------------------------------------------------------------------

    def charge(self, queue: str, milli: int, also: Amounts = ()) -> None:
        """Count GPUs as used by a queue; negative gives back."""
        if queue in self._queues:
            self._gpu.charge(queue, milli)
            for account, amount in self._split(also):
                account.charge(queue, amount)
            self._lenders = None

    def give_back(self, queue: str, milli: int, also: Amounts = ()) -> None:
        """Undo a charge."""
        self.charge(queue, -milli, tuple((name, -amount) for name, amount in also))

    def leave(self, queue: str, milli: int, also: Amounts = ()) -> None:
        """Move GPUs from used to leaving: their attempt is being stopped and still holds them."""
        if queue in self._queues:
            self._gpu.leave(queue, milli)
            for account, amount in self._split(also):
                account.leave(queue, amount)
            self._lenders = None

    def hope(self, queue: str, milli: int, also: Amounts = ()) -> None:
        """Count GPUs as used that a queue is to get as soon as room was made."""
        if queue in self._queues:
            self._gpu.hope(queue, milli)
            for account, amount in self._split(also):
                account.hope(queue, amount)
            self._lenders = None

    def _split(self, also: Amounts) -> list[tuple[Account, int]]:
        if not also or not self._others:
            return []
        amounts = dict(also)
        return [(a, amounts[a.resource]) for a in self._others if a.resource in amounts]

    def _shared(self, milli: int, also: Amounts) -> list[tuple[Account, int]]:
        """Return the accounts of resources that are shared, not only limited, with what a charge has of each."""
        return [(self._gpu, milli), *self._shared_beside(also)]

    def _shared_beside(self, also: Amounts) -> list[tuple[Account, int]]:
        return [(a, amount) for a, amount in self._split(also) if a.resource != FIXED]

    # --- limits -----------------------------------------------------------------------------------------------------

    def room_within_limits(self, queue: str, resource: str = GPU) -> int | None:
        """Return what the queue may still be charged for of a resource, None where nothing limits it."""
        return next((a.room(queue) for a in self._accounts if a.resource == resource), None)

    def limit_hit(self, queue: str, milli: int, also: Amounts = (), *, after_stops: bool = False) -> LimitHit | None:
        """Return the first limit, from the queue up, that `milli` more would break.

        `after_stops` asks about the time when everything that is leaving is gone.
        """
        hit = self._gpu.hit(queue, milli, after_stops=after_stops)
        for account, amount in self._split(also):
            hit = hit or account.hit(queue, amount, after_stops=after_stops)
        return hit

    def hit_after(self, changes: Iterable[tuple[str, int]], queue: str, milli: int) -> LimitHit | None:
        """Return the first limit that `milli` more would break once these queues' GPUs have changed."""
        changes = list(changes)
        for name, change in changes:
            self.charge(name, change)
        hit = self.limit_hit(queue, milli, after_stops=True)
        for name, change in changes:
            self.charge(name, -change)
        return hit

    def over(self, queue: str) -> list[LimitHit]:
        """Return the limits of the queue itself that it and all below it are above now; what is leaving is gone."""
        accounts = [self._gpu, *self._others]
        return [hit for account in accounts if (hit := account.over(queue)) is not None]

    def never_within_limit(self, queue: str, milli: int, also: Amounts = ()) -> LimitHit | None:
        """Return the first limit that `milli` alone are above of."""
        hit = self._gpu.never(queue, milli)
        for account, amount in self._split(also):
            hit = hit or account.never(queue, amount)
        return hit

    # --- rights -----------------------------------------------------------------------------------------------------

    def within_entitlement(self, queue: str, milli: int, also: Amounts = (), *, alone: bool = False) -> bool:
        """Whether the queue would still be at or below its entitlement with `milli` more, of every resource.

        In a scope of priority that is asked of the whole scope, unless it is the queue `alone`.
        """
        return queue in self._queues and all(
            amount <= account.room_in_entitlement(queue, alone=alone) for account, amount in self._shared(milli, also)
        )

    def kinds(self, milli: int, also: Amounts) -> frozenset[str]:
        """Return the shared resources of which a charge has some."""
        return frozenset(account.resource for account, amount in self._shared(milli, also) if amount)

    def may_lose(
        self, queue: str, milli: int, taker: str, also: Amounts = (), *, wants: frozenset[str] | None = None
    ) -> bool:
        """Whether `taker` may take `milli` of `queue`: it is above its entitlement and no guarantee would be broken.

        It must be above in one of the resources that the taker `wants`, any where None. Guarantees of queues above both
        are not touched: what moves between their children stays inside them. Of what is no GPU, only a guarantee of
        what it is above in stands in the way: GPUs that were borrowed come back with their CPUs.
        """
        return milli <= self.most_to_lose(queue, taker, also, wants=wants)

    def lenders(self) -> tuple[str, ...]:
        """Return the queues above their entitlement, the one furthest above first: nobody else has anything to take.

        Those of a scope of priority that is above its entitlement come together.
        """
        if self._lenders is None:
            found = {name for account in self._accounts for name in account.above}
            if self.tree.scopes:
                using = {name for account in self._accounts for name in account.used}
                found = {name for name in using if self.tree.scopes.get(name, name) in found}
            scopes = self.tree.scopes
            self._lenders = tuple(sorted(found, key=lambda q: (-self.excess(q), scopes.get(q, q), q)))
        return self._lenders

    def excess(self, queue: str) -> int:
        """Return how far a queue is above its entitlement, in millionths of the capacity, where it is most."""
        return max(account.excess(queue) * FIXED_POINT // max(1, account.capacity) for account in self._accounts)

    def most_to_lose(self, queue: str, taker: str, also: Amounts = (), *, wants: frozenset[str] | None = None) -> int:
        """Return the most GPUs that `taker` may take of `queue` by one attempt, -1 for nothing: see `may_lose`.

        In one scope of priority entitlements give no right.
        """
        if queue not in self._queues or self.tree.same_scope(queue, taker):
            return -1
        lent = [a for a in self._accounts if a.lends(queue) and (wants is None or a.resource in wants)]
        if not lent:
            return -1
        for account, amount in self._shared_beside(also):
            protected = account.resource.startswith(OF_MODEL) or account in lent
            if protected and amount > account.left_above_guarantees(queue, taker):
                return -1
        return max(-1, self._gpu.left_above_guarantees(queue, taker))

    def above_guarantees(self, queue: str, taker: str) -> int:
        """Return the GPUs that a queue may lose to `taker` before a guarantee breaks that does not cover both."""
        return self._gpu.left_above_guarantees(queue, taker)

    def may_yield(self, queue: str, milli: int, taker: str, also: Amounts = ()) -> bool:
        """Whether a queue in the scope of priority of `taker` may lose so much to priority: no guarantee breaks."""
        return self.tree.same_scope(queue, taker) and all(
            amount <= account.left_above_guarantees(queue, taker) for account, amount in self._shared(milli, also)
        )

    def is_owed(self, queue: str, milli: int) -> bool:
        """Whether `milli` more GPUs are within a guarantee of the queue, or of one above it."""
        return milli > 0 and queue in self._queues and self._gpu.is_owed(queue, milli)

    def due(self, queue: str, taker: str, milli: int) -> int:
        """Return the most GPUs that a queue may lose so that `taker` has `milli` by its guarantee, -1 for nothing.

        Whatever both are entitled to: enough for everybody may be free and still no room of the right shape. Then
        what was lent beyond a guarantee goes back to a queue that is within its own; never more than that.
        """
        if queue not in self._queues or taker not in self._queues or not self._gpu.is_owed(taker, milli, queue):
            return -1
        left = self._gpu.left_above_guarantees(queue, taker)
        return left if left > 0 else -1

    # --- order ------------------------------------------------------------------------------------------------------

    def order_key(self, queue: str, priority: int = 0) -> OrderKey:
        """Queues below their guarantee first, furthest first; then by share of entitlement used; then by past usage.

        The last two are read as the queue's policy says; names decide at last, so that the order is total. The queues
        of a scope of priority stand together, by what all of them use and used; `priority`, of what is next in the
        queue, decides among them.
        """
        if queue not in self._queues:
            return (2, 0, 0, 0, 0, 0, queue)
        lack = 0
        for account in self._accounts:
            guaranteed = account.book.guaranteed.get(queue, 0)
            if guaranteed:
                used = account.used.get(queue, 0)
                if used < min(guaranteed, self._demand[account.resource].get(queue, 0)):
                    lack = max(lack, (guaranteed - used) * FIXED_POINT // guaranteed)
        root = self.tree.classic_root(queue)
        if root is not None and self._history is not None:
            past = self._history.classic_rank(queue)
            share = self._share_of_tree(root)
        else:
            past = self._past(queue)
            keeps = self.tree.rule(self.tree.parents[queue]).keeps_what_is_held
            share = 0 if keeps or lack else self._share(queue)
        if lack:
            return (0, -lack, 0, past, 0, 0, queue)
        scope = self.tree.scopes.get(queue)
        if scope is None:
            return (1, 0, share, past, 0, 0, queue)
        return (1, 0, self._share_of_tree(scope), self._past_of_tree(scope), -priority, share, queue)

    def _share_of_tree(self, root: str) -> int:
        """Return the share of entitlement that all below a queue use together, in millionths; of "", the whole, 0."""
        if self._trees is None:
            self._trees = {}
            for name, amount in self.entitled.items():
                for above in self._chain.get(name, ()):
                    self._trees[above] = self._trees.get(above, 0) + amount
        return self._gpu.tree_used.get(root, 0) * FIXED_POINT // (self._trees.get(root, 0) or WHOLE)

    def _share(self, queue: str) -> int:
        """Return the dominant share that a queue uses, of the one it is entitled to, in millionths."""
        if len(self._accounts) == 1:
            return self._gpu.used.get(queue, 0) * FIXED_POINT // (self.entitled.get(queue, 0) or WHOLE)
        kinds = [account.resource for account in self._accounts]
        scale = scale_of(self.tree.policy_of(queue), kinds, [account.capacity for account in self._accounts])
        used = entitled = 0
        for account, part_of in zip(self._accounts, scale, strict=True):
            if part_of:
                used = max(used, account.used.get(queue, 0) * FIXED_POINT**2 // part_of)
                entitled = max(entitled, account.entitled.get(queue, 0) * FIXED_POINT**2 // part_of)
        return used * FIXED_POINT // (entitled or FIXED_POINT)

    def _past_of_tree(self, root: str) -> int:
        """Return what all below a queue used before, by what they are entitled to together."""
        if self._history is None:
            return 0
        if root not in self._past_of:
            self._past_of[root] = sum(
                self._history.used(name) for name, scope in self.tree.scopes.items() if scope == root
            )
        return self._past_of[root] * WHOLE // (self._gpu.scope_entitled.get(root, 0) or WHOLE)

    def _past(self, queue: str) -> int:
        past = 0 if self._history is None else self._history.used(queue)
        return past * WHOLE // (self.entitled.get(queue, 0) or WHOLE) if past else 0
