"""The queue tree as divisions and limits need it: made once, asked as often as demand and usage change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairlead.model.fairness import BUILT_IN, ROOT_POLICY, FairnessPolicy, Sharing
from fairlead.model.quota import FIXED, GPU, OF_MODEL, Quota
from fairlead.model.tenancy import Queue


@dataclass(frozen=True, slots=True)
class Bound:
    """What a queue and all below it never hold more than, and which of its words says so."""

    amount: int
    word: str


@dataclass(slots=True)
class Book:
    """All that queues say of one resource, counted as inside. Queues that say nothing are not in it.

    promised      the queue's guarantee or those of its children together, whichever is more
    needed        what its tenant has declared to need
    kept          like `promised`, of what is never lent; `keepers` are the children that keep something
    *_below       of the children of a queue together; of the roots under ""
    """

    resource: str
    guaranteed: dict[str, int] = field(default_factory=dict[str, int])
    promised: dict[str, int] = field(default_factory=dict[str, int])
    promised_below: dict[str, int] = field(default_factory=dict[str, int])
    needed: dict[str, int] = field(default_factory=dict[str, int])
    kept: dict[str, int] = field(default_factory=dict[str, int])
    kept_below: dict[str, int] = field(default_factory=dict[str, int])
    keepers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    most: dict[str, Bound] = field(default_factory=dict[str, Bound])
    weights: dict[str, int] = field(default_factory=dict[str, int])

    def weight(self, name: str) -> int:
        """Return a queue's weight against the queues beside it."""
        return self.weights.get(name, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy means for one division."""

    policy: FairnessPolicy

    @property
    def same_weight(self) -> bool:
        """Whether weights mean nothing."""
        return self.policy.kind is Sharing.EQUAL

    @property
    def needs_first(self) -> bool:
        """Whether declared needs come before the rest is shared."""
        return self.policy.kind is Sharing.SLO

    @property
    def keeps_what_is_held(self) -> bool:
        """Whether what is held comes before the rest is shared."""
        return self.policy.kind is Sharing.WORK_CONSERVING


@dataclass(frozen=True, slots=True)
class Active:
    """The part of the tree in which something is wanted: children before parents, and children by parent."""

    upward: list[str]
    below: dict[str, list[str]]


class QueueTree:
    """The queues in order, who is above whom, what they say of each resource, and how children share."""

    def __init__(self, queues: Mapping[str, Queue], policies: Mapping[str, FairnessPolicy] | None = None) -> None:
        """Order the queues from the roots down. A queue in a cycle, or without its parent, is a root."""
        self.queues = dict(queues)
        self.policies = dict(policies or {})
        self.names = sorted(self.queues)
        self.chains: dict[str, tuple[str, ...]] = {}
        self._children: dict[str, list[str]] = {}
        self._place: dict[str, tuple[int, int]] = {}
        self._rules: dict[str, Rule] = {}
        for name in self.names:
            self._chain(name)
        self.parents = {name: chain[1] if len(chain) > 1 else "" for name, chain in self.chains.items()}
        self._circling = {name for name in self.names if self._circles(name)}
        for at, name in enumerate(self.names):
            self._children.setdefault(self.parents[name], []).append(name)
            self._place[name] = (-len(self.chains[name]), at)
        self._downward = sorted(self.names, key=self._place.__getitem__, reverse=True)
        self.scopes = self._scopes()
        self.requeuing = [name for name in self._downward if self.queues[name].on_over_limit == "requeue"]
        self._set_rules()
        self._books: dict[str, Book] = {}

    def _chain(self, name: str) -> None:
        """Find who is above a queue; one that is reached again, or not there, ends the walk."""
        walk: list[str] = []
        seen: set[str] = set()
        at = name
        while at in self.queues and at not in self.chains and at not in seen:
            walk.append(at)
            seen.add(at)
            at = self.queues[at].parent
        if at in seen:  # a circle: everybody in it sees the others above, as `ancestors` does
            circle = walk[walk.index(at) :]
            for i, member in enumerate(circle):
                self.chains[member] = (*circle[i:], *circle[:i])
            walk = walk[: walk.index(at)]
        for member in reversed(walk):
            self.chains[member] = (member, *self.chains.get(self.queues[member].parent, ()))

    def _set_rules(self) -> None:
        """Give every queue the policy by which its children share: its own, else that of the queue above."""
        top = Rule(self.policies.get(ROOT_POLICY, BUILT_IN))
        self._rules[""] = top
        for name in self._downward:
            own = self.policies.get(self.queues[name].fairness_policy)
            self._rules[name] = self._rules.get(self.parents[name], top) if own is None else Rule(own)

    def _scopes(self) -> dict[str, str]:
        """Return queue -> where its scope of priority begins: the topmost queue above it that says so."""
        saying = {name for name, queue in self.queues.items() if queue.priority_scope == "subtree"}
        found: dict[str, str] = {}
        for name in self.names if saying else ():
            heads = [above for above in self.chains[name] if above in saying]
            if heads and name not in self._circling:
                found[name] = heads[-1]
        return found

    def same_scope(self, one: str, other: str) -> bool:
        """Whether two queues are in one scope of priority."""
        return one in self.scopes and self.scopes[one] == self.scopes.get(other)

    def below(self, name: str) -> list[str]:
        """Return the children of a queue, of none the roots."""
        return self._children.get(name, [])

    def rule(self, name: str) -> Rule:
        """Return how the children of a queue share, of none the roots."""
        return self._rules[name]

    def policy_of(self, name: str) -> FairnessPolicy:
        """Return the policy by which a queue shares with those beside it."""
        return self._rules[self.parents.get(name, "")].policy

    def classic_root(self, name: str) -> str | None:
        """Return the queue in whose tree Slurm's factor orders a queue, the topmost; "" for all, None for none."""
        root: str | None = None
        at = name
        while True:
            at = self.parents.get(at, "")
            if self._rules[at].policy.kind is not Sharing.SLURM_CLASSIC:
                return root
            root = at
            if not at:
                return root

    def classic_members(self, root: str) -> dict[str, int | None]:
        """Return all queues below a `classic_root` that stand in its order, with their shares; None is "parent"."""
        found: dict[str, int | None] = {}
        names = list(self.below(root))
        while names:
            name = names.pop()
            if name in self._circling:
                continue
            queue = self.queues[name]
            found[name] = None if queue.shares == "parent" else queue.weight
            if self._rules[name].policy.kind is Sharing.SLURM_CLASSIC:
                names += self.below(name)
        return found

    def active(self, names: Iterable[str]) -> Active:
        """Return these queues and all above them. O(what is returned)."""
        found: set[str] = set()
        for name in names:
            for above in () if name in self._circling else self.chains[name]:
                if above in found:
                    break
                found.add(above)
        upward = sorted(found, key=self._place.__getitem__)
        below: dict[str, list[str]] = {}
        for name in sorted(found):
            below.setdefault(self.parents[name], []).append(name)
        return Active(upward, below)

    def book(self, resource: str) -> Book:
        """Return what queues say of a resource; worked out when it is asked for first."""
        known = self._books.get(resource)
        if known is None:
            known = self._books[resource] = self._write(resource)
        return known

    def _write(self, resource: str) -> Book:
        book = Book(resource)
        if resource == FIXED:
            guarantees = self.book(GPU).promised
            for name, queue in self.queues.items():
                if queue.non_preemptible == "in-quota":
                    book.most[name] = Bound(guarantees.get(name, 0), "nonPreemptible")
            return book
        for name in reversed(self._downward):
            queue, parent = self.queues[name], self.parents[name]
            quota = queue.quota(resource)
            weight = queue.weight if quota is None or quota.weight is None else quota.weight
            if weight != 1:
                book.weights[name] = weight
            own: int = 0 if quota is None else quota.guaranteed
            if resource == GPU and queue.quotas:  # what is guaranteed of models is guaranteed of GPUs
                own = max(own, sum(q.guaranteed for q in queue.quotas if q.resource.startswith(OF_MODEL)))
            promised = max(own, book.promised_below.get(name, 0))
            kept = max(0 if quota is None else quota.kept, book.kept_below.get(name, 0))
            _add(book.guaranteed, name, own)
            _add(book.promised, name, promised)
            _add(book.promised_below, parent, promised)
            _add(book.needed, name, 0 if quota is None else quota.need)
            _add(book.kept, name, kept)
            _add(book.kept_below, parent, kept)
            if kept:
                book.keepers.setdefault(parent, []).append(name)
            bound = None if quota is None else _bound(quota, promised)
            if bound is not None:
                book.most[name] = bound
        return book

    def _circles(self, name: str) -> bool:
        """Whether the way up from a queue ends in a circle: nobody shares with it then."""
        chain = self.chains[name]
        above = self.queues[chain[-1]].parent
        return above in chain and above != chain[-1]


def _add(where: dict[str, int], name: str, amount: int) -> None:
    if amount:
        where[name] = where.get(name, 0) + amount


def _bound(quota: Quota, promised: int) -> Bound | None:
    """Return the tighter of a queue's limit and its borrow limit, None where it has neither."""
    limit, borrow = quota.limit, quota.borrow_limit
    if borrow is not None and (limit is None or promised + borrow < limit):
        return Bound(promised + borrow, "borrowLimit")
    return None if limit is None else Bound(limit, "limit")
