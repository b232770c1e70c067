"""What each attempt's devices are to its queue now: in quota, borrowed, reserved or opportunistic.

The rule, at every moment. An attempt of class `opportunistic` is opportunistic, and so is one that a budget has demoted
(`budgets.py`). One whose nodes all lie in a
reservation of its own is reserved. Of the others of a queue, those in quota hold together no more than the queue's
guarantee, and no borrowed one would fit beside them whole. Who is in quota stays so as long as that holds: when a
guarantee shrinks, the one that began last is borrowed first; when there is room, the smallest is in quota first, and of
equals the one that began first. So the sum decides and never the order of cycles, and a fact is due only where an
attempt's tier is another one.

CPU, memory and whatever is no GPU count only where the queue is guaranteed some of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead.model.effects import Retier
from fairlead.model.gang import Gang, GangId, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.quota import FIXED, GPU, Amounts
from fairlead.ordering.queue_tree import QueueTree
from fairlead.world.attempts import AttemptLog
from fairlead.world.pictures import Running
from fairlead.world.snapshot import World

RETIERS_PER_SLICE = 256
"""So that a guarantee which changes for thousands of attempts at once keeps nobody waiting."""

_Size = tuple[int, int, GangId]
"""(thousandths of a GPU, since_ms, uid): the order in which borrowed attempts come to be in quota."""


@dataclass(slots=True)
class _Queue:
    """The attempts of one queue: those in quota, and the borrowed ones in order. `told` are not as is on record."""

    secured: dict[GangId, Running] = field(default_factory=dict[GangId, Running])
    used: dict[str, int] = field(default_factory=dict[str, int])
    borrowed: list[_Size] = field(default_factory=list[_Size])
    told: dict[GangId, Tier] = field(default_factory=dict[GangId, Tier])

    def secure(self, attempt: Running, sign: int) -> None:
        """Count an attempt as in quota, or (-1) no longer."""
        if sign > 0:
            self.secured[attempt.gang] = attempt
        else:
            del self.secured[attempt.gang]
        for resource, amount in _amounts(attempt):
            self.used[resource] = self.used.get(resource, 0) + sign * amount


class TierMemo:
    """Attempts by queue and tier, followed from one picture to the next; only what the same World would yield again."""

    def __init__(self) -> None:
        """Know no attempt."""
        self._log: AttemptLog | None = None
        self._revision = -1
        self._tree = QueueTree({})
        self._reserved: tuple[tuple[str, frozenset[NodeName]], ...] = ()
        self._known: dict[GangId, Running] = {}
        self._queues: dict[str, _Queue] = {}
        self._due: set[str] = set()

    def follow(self, world: World, tree: QueueTree) -> None:
        """Take up a later world. O(attempts that changed); O(all) where guarantees or reservations have."""
        now_reserved = _reserved_now(world)
        changed = world.running.changed_since(self._log, self._revision)
        if now_reserved != self._reserved or changed is None:
            self._known, self._queues, self._due = {}, {}, set()
            changed = {attempt.gang for attempt in world.running}
        if tree is not self._tree:
            self._due |= self._queues.keys()
        self._tree, self._reserved = tree, now_reserved
        self._log, self._revision = world.running.log, world.running.revision
        for gang in changed:
            self._forget(gang)
            attempt = world.running.everyone.get(gang)
            if attempt is not None:
                self._file(attempt)

    def _forget(self, gang: GangId) -> None:
        attempt = self._known.pop(gang, None)
        if attempt is None:
            return
        queue = self._queues[attempt.queue]
        queue.told.pop(gang, None)
        if gang in queue.secured:
            queue.secure(attempt, -1)
        else:
            at = bisect_left(queue.borrowed, _size(attempt))
            if at < len(queue.borrowed) and queue.borrowed[at] == _size(attempt):
                del queue.borrowed[at]
        self._due.add(attempt.queue)

    def _file(self, attempt: Running) -> None:
        queue = self._queues.setdefault(attempt.queue, _Queue())
        self._known[attempt.gang] = attempt
        self._due.add(attempt.queue)
        fixed = self.fixed(attempt.spec, attempt.queue, attempt.placement)
        if fixed is not None:
            if fixed is not attempt.tier:
                queue.told[attempt.gang] = fixed
        elif attempt.tier is Tier.IN_QUOTA:
            queue.secure(attempt, 1)
        else:
            insort(queue.borrowed, _size(attempt))
            if attempt.tier is not Tier.BORROWED:
                queue.told[attempt.gang] = Tier.BORROWED

    def fixed(self, gang: Gang | None, queue: str, placement: Placement) -> Tier | None:
        """Return the tier that does not depend on what else the queue holds, None where there is none."""
        if gang is not None and gang.is_spare:
            return Tier.OPPORTUNISTIC
        if not self._reserved:
            return None
        above = self._tree.chains.get(queue, ())
        nodes = {member.node for member in placement.members}
        mine = [reserved for owner, reserved in self._reserved if owner in above]
        return Tier.RESERVED if nodes and nodes <= frozenset[NodeName]().union(*mine) else None

    def review(self) -> tuple[list[Retier], bool]:
        """Return who is of another tier than is on record, at most `RETIERS_PER_SLICE`; and whether there are more."""
        found: list[Retier] = []
        for name in sorted(self._due):
            if len(found) >= RETIERS_PER_SLICE:
                return found[:RETIERS_PER_SLICE], True
            self._settle(name)
            told = self._queues[name].told
            found += [Retier(gang=gang, attempt=self._known[gang].attempt, tier=told[gang]) for gang in sorted(told)]
            if not told:
                self._due.discard(name)
        return found[:RETIERS_PER_SLICE], len(found) > RETIERS_PER_SLICE

    def _settle(self, name: str) -> None:
        """Bring a queue in order, from what is on record of it."""
        queue = self._queues[name]
        for gang in sorted(queue.told):
            attempt = self._known[gang]
            self._forget(gang)
            self._file(attempt)
        for resource in [*queue.used]:
            while not self._within(name, resource, queue.used[resource]):
                holders = [a for a in queue.secured.values() if dict(_amounts(a)).get(resource)]
                last = max(holders, key=lambda a: (a.since_ms, a.gang))
                queue.secure(last, -1)
                insort(queue.borrowed, _size(last))
                queue.told[last.gang] = Tier.BORROWED
        at = 0
        while at < len(queue.borrowed):
            milli, _, gang = queue.borrowed[at]
            if not self._within(name, GPU, queue.used.get(GPU, 0) + milli):
                break
            attempt = self._known[gang]
            if not self.fits(name, milli, attempt.also):
                at += 1
                continue
            del queue.borrowed[at]
            queue.secure(attempt, 1)
            queue.told[gang] = Tier.IN_QUOTA
        queue.told = {gang: tier for gang, tier in queue.told.items() if tier is not self._known[gang].tier}

    def fits(self, queue: str, milli: int, also: Amounts, placed: Amounts = ()) -> bool:
        """Whether so much more of a queue is within its guarantee; `placed` is what this cycle adds before it."""
        used = self._queues[queue].used if queue in self._queues else {}
        more = dict(placed)
        return all(
            self._within(queue, resource, used.get(resource, 0) + more.get(resource, 0) + amount)
            for resource, amount in ((GPU, milli), *also)
        )

    def _within(self, queue: str, resource: str, amount: int) -> bool:
        if resource == FIXED:
            return True
        guaranteed = self._tree.book(resource).guaranteed.get(queue, 0)
        return amount <= guaranteed or (resource != GPU and not guaranteed)


class Tiers:
    """The tiers of one cycle: what is to be told of those who run, and what those are who are placed."""

    def __init__(self, world: World, tree: QueueTree, memo: TierMemo, budgeted: Sequence[Retier] = ()) -> None:
        """Look at who runs. Those of `budgeted` are of another tier for want of budget, or no longer for that."""
        memo.follow(world, tree)
        self._memo = memo
        self.retiers, self.more = memo.review()
        self.retiers += budgeted
        self.more = self.more or any(one.tier is not Tier.OPPORTUNISTIC for one in budgeted)  # which one, is seen next
        self._placed: dict[str, dict[str, int]] = {}

    def place(self, gang: Gang, placement: Placement, also: Amounts) -> Tier:
        """Return what a placement is to the gang's queue, and count it."""
        fixed = self._memo.fixed(gang, gang.queue, placement)
        if fixed is not None:
            return fixed
        placed = self._placed.setdefault(gang.queue, {})
        if not self._memo.fits(gang.queue, placement.gpu_milli, also, tuple(placed.items())):
            return Tier.BORROWED
        for resource, amount in ((GPU, placement.gpu_milli), *also):
            placed[resource] = placed.get(resource, 0) + amount
        return Tier.IN_QUOTA

    def covers(self, attempt: Running, milli: int, also: Amounts) -> bool:
        """Whether an attempt is in quota, and would be with so much more."""
        placed = tuple(self._placed.get(attempt.queue, {}).items())
        return attempt.tier is Tier.IN_QUOTA and self._memo.fits(attempt.queue, milli, also, placed)

    def grow(self, attempt: Running, milli: int, also: Amounts) -> None:
        """Count what an attempt takes beside what it has; it keeps its tier, which is looked at again afterwards."""
        placed = self._placed.setdefault(attempt.queue, {})
        for resource, amount in ((GPU, milli), *also) if attempt.tier is Tier.IN_QUOTA else ():
            placed[resource] = placed.get(resource, 0) + amount


def _reserved_now(world: World) -> tuple[tuple[str, frozenset[NodeName]], ...]:
    """Return (owner, nodes) of each reservation that is in its time; those for maintenance are nobody's."""
    return tuple(
        (one.reservation.queue, frozenset(world.inventory.nodes[row].name for row in one.rows))
        for one in world.reserved
        if one.start_ms <= world.now_ms and not one.reservation.is_maintenance
    )


def _amounts(attempt: Running) -> Amounts:
    return ((GPU, attempt.gpu_milli), *((name, amount) for name, amount in attempt.also if name != FIXED))


def _size(attempt: Running) -> _Size:
    return attempt.gpu_milli, attempt.since_ms, attempt.gang
