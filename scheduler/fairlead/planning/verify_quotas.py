"""The second opinion on quotas: limits of every resource at every level, and rights between queues, counted anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.quota import FIXED, GPU, OF_MODEL, amount_text, words_of
from fairlead.ordering.dominant import entitlements_of_all
from fairlead.ordering.fair_share import gpu_entitlements
from fairlead.ordering.queue_tree import QueueTree
from fairlead.planning.admission import admission
from fairlead.planning.verify_caps import CapTally, limit_of, starting_nothing
from fairlead.planning.verify_pools import kept_idle_milli
from fairlead.world.attempt_parts import part_of
from fairlead.world.charges import charged
from fairlead.world.snapshot import Running, World

Charge = Mapping[str, int]
"""Resource -> amount, GPUs among them, as each is counted."""


@dataclass(slots=True)
class Quotas:
    """What a plan has charged so far. `held` and `remaining` are per resource and queue, children not included.

    held       everything that is held or was placed in this plan
    remaining  what will be held once everything that is being stopped is gone
    hoped      per gang for which room is made: its queue, and what it is to get
    """

    world: World
    held: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    remaining: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    hoped: dict[GangId, tuple[str, Charge]] = field(default_factory=dict[GangId, tuple[str, Charge]])
    caps: CapTally = field(default_factory=CapTally)
    _above: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    _inside_of: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    _below: dict[str, list[str]] | None = None
    _keepers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    _entitled: Mapping[str, Mapping[str, int]] | None = None

    @classmethod
    def of(cls, world: World, ended: Iterable[Running]) -> Quotas:
        """Count a world before a plan that ends some attempts for their own reasons."""
        quotas = cls(world, {GPU: dict(world.queue_gpu_milli)})
        for resource in world.counted:
            quotas.held[resource] = dict(world.running.used.get(resource, {}))
        quotas.remaining = {resource: dict(of) for resource, of in quotas.held.items()}
        ending = [*world.running.stopping, *ended]
        for attempt in ending:
            quotas.subtract(attempt)
        for attempt in world.running.shrinking:
            if attempt not in ending:
                quotas.subtract(part_of(attempt, attempt.leaving, world.inventory, world.counted))
        for waiting in world.waiting.nominated:
            if waiting.nomination is not None:
                quotas.hope(waiting.gang, waiting.nomination.placement)
        return quotas

    def above(self, name: str) -> tuple[str, ...]:
        """Return a queue and all above it."""
        known = self._above.get(name)
        if known is None:
            seen: dict[str, None] = {}
            at = name
            while at in self.world.queues and at not in seen:
                seen[at] = None
                at = self.world.queues[at].parent
            known = self._above[name] = tuple(seen)
        return known

    def charge_of(self, gang: Gang, placement: Placement) -> Charge:
        """Return what a placement is charged for."""
        row, nodes, counted = self.world.inventory.row, self.world.inventory.nodes, self.world.counted
        also = charged(gang, placement.members, lambda name: nodes[row[name]] if name in row else None, counted)
        return {GPU: placement.gpu_milli, **dict(also)}

    def hope(self, gang: Gang, placement: Placement) -> None:
        """Note that room is made for a gang."""
        self.hoped[gang.id] = gang.queue, self.charge_of(gang, placement)

    def subtract(self, attempt: Running) -> None:
        """Count an attempt as stopped."""
        for resource, amount in {GPU: attempt.gpu_milli, **dict(attempt.also)}.items():
            of = self.remaining.setdefault(resource, {})
            of[attempt.queue] = of.get(attempt.queue, 0) - amount

    def _inside(self, amounts: Mapping[str, int], name: str) -> int:
        """Sum over a queue and all below it."""
        return sum(amount for below, amount in amounts.items() if name in self.above(below))

    # --- limits -----------------------------------------------------------------------------------------------------

    def place(self, gang: Gang, placement: Placement) -> Iterator[str]:
        """Charge a placement; yield every limit that it breaks, from the queue up."""
        self.hoped.pop(gang.id, None)
        for resource, amount in self.charge_of(gang, placement).items():
            inside = self._held_inside(resource)
            for of in (self.held.setdefault(resource, {}), self.remaining.setdefault(resource, {})):
                of[gang.queue] = of.get(gang.queue, 0) + amount
            for name in self.above(gang.queue):
                inside[name] = inside.get(name, 0) + amount
                most = self._most(name, resource) if amount else None
                used = inside[name]
                if most is not None and used > most:
                    has, may = amount_text(resource, used), amount_text(resource, most)
                    yield f"{gang.full_name}: queue {name} would hold {has} {words_of(resource)}, its limit is {may}"
            if resource != FIXED and amount:
                yield from self._check_kept(gang, resource)

    def _held_inside(self, resource: str) -> dict[str, int]:
        """Return what is held in each queue and all below it; kept from then on."""
        known = self._inside_of.get(resource)
        if known is None:
            known = self._inside_of[resource] = {}
            for name, amount in self.held.get(resource, {}).items():
                for above in self.above(name):
                    known[above] = known.get(above, 0) + amount
        return known

    def _most(self, name: str, resource: str) -> int | None:
        queue = self.world.queues[name]
        if resource == FIXED:
            return self._promised(name, GPU) if queue.non_preemptible == "in-quota" else None
        quota = queue.quota(resource)
        if quota is None:
            return None
        limit = limit_of(name, resource, self.world, self.caps)
        bounds = [] if limit is None else [limit]
        if quota.borrow_limit is not None:
            bounds.append(self._promised(name, resource) + quota.borrow_limit)
        return min(bounds, default=None)

    def _promised(self, name: str, resource: str) -> int:
        """Return the guarantee of a queue: its own, or what its children are guaranteed together where that is more."""
        return max(self._guaranteed(name, resource), sum(self._promised(c, resource) for c in self._children(name)))

    def _guaranteed(self, name: str, resource: str) -> int:
        queue = self.world.queues[name]
        quota = queue.quota(resource)
        own = 0 if quota is None else quota.guaranteed
        if resource == GPU and queue.quotas:
            own = max(own, sum(q.guaranteed for q in queue.quotas if q.resource.startswith(OF_MODEL)))
        return own

    def _children(self, name: str) -> list[str]:
        if self._below is None:
            self._below = {}
            for queue in self.world.queues.values():
                if queue.parent != queue.name:
                    self._below.setdefault(queue.parent, []).append(queue.name)
        return self._below.get(name, [])

    def _check_kept(self, gang: Gang, resource: str) -> Iterator[str]:
        """Guarantees that are not lent stay free for their queues, unless the gang's own guarantee covers it."""
        keepers = self._keepers.get(resource)
        if keepers is None:
            speaking = [name for name, queue in self.world.queues.items() if queue.quotas]
            quotas = {name: self.world.queues[name].quota(resource) for name in speaking}
            keepers = [name for name, quota in quotas.items() if quota is not None and quota.kept]
            self._keepers[resource] = keepers
        mine = self.above(gang.queue)
        used = self._held_inside(resource)
        if not keepers or any(used[name] <= self._promised(name, resource) for name in mine):
            return
        outside = [name for name in keepers if name not in mine]
        idle = 0
        for name in outside:
            quota = self.world.queues[name].quota(resource)
            below_another = any(other in outside for other in self.above(name)[1:])
            if quota is not None and not below_another:
                idle += max(0, quota.kept - used.get(name, 0))
        capacity = self.world.capacity_milli if resource == GPU else self.world.capacity_of(resource)
        if sum(self.held[resource].values()) + idle > capacity:
            yield f"{gang.full_name}: takes {words_of(resource)} that guarantees keep and do not lend"

    def check_over_limit(self, attempt: Running) -> Iterator[str]:
        """Only from a queue that asks for it, only as long as it is above a limit, never who may not be preempted."""
        name = str(attempt.gang) if attempt.spec is None else attempt.spec.full_name
        if attempt.spec is None or not attempt.spec.preemptible:
            yield f"{name}: stopped for a limit although it may not be preempted"
        over = False
        for resource, of in self.remaining.items():
            for above in self.above(attempt.queue):
                most = self._most(above, resource)
                asked = self.world.queues[above].on_over_limit == "requeue"
                over = over or (asked and most is not None and self._inside(of, above) > most)
        if not over:
            yield f"{name}: stopped for a limit that its queues keep"
        self.subtract(attempt)

    # --- rights between queues --------------------------------------------------------------------------------------

    def scope(self, name: str) -> str:
        """Return the topmost queue from here up whose whole subtree priority is to decide in; "" where none is."""
        above = self.above(name)
        circles = bool(above) and self.world.queues[above[-1]].parent in above
        saying = [] if circles else [one for one in above if self.world.queues[one].priority_scope == "subtree"]
        return saying[-1] if saying else ""

    def check_scope(self, attempt: Running, taker: Gang, spec: Gang) -> Iterator[str]:
        """By priority from another queue: in one scope, from lower priority, never below a guarantee of anything."""
        if self.scope(attempt.queue) != self.scope(taker.queue):
            yield f"{spec.full_name}: Preempted across queues that no scope of priority joins"
        if spec.priority >= taker.priority:
            yield f"{spec.full_name}: taken by a job of no higher priority"
        before = {resource: dict(of) for resource, of in self.remaining.items()}
        self.subtract(attempt)
        for resource in self.remaining:
            if resource == FIXED or before.get(resource) == self.remaining[resource]:
                continue
            for name in sorted(set(self.above(attempt.queue)) - set(self.above(taker.queue))):
                guaranteed = self._guaranteed(name, resource)
                if guaranteed and self._inside(self.remaining[resource], name) < guaranteed:
                    yield f"{spec.full_name}: taken by priority below the guarantee of {name}"

    def _held_beyond(self, amounts: Mapping[str, int], resource: str, name: str) -> int:
        """Return how far a queue is above its entitlement; all queues of a scope of priority are looked at as one."""
        scope = self.scope(name)
        if not scope:
            return amounts.get(name, 0) - self.entitled(resource, name)
        inside = [queue for queue in self.world.queues if scope in self.above(queue)]
        return sum(amounts.get(queue, 0) - self.entitled(resource, queue) for queue in inside)

    def entitled(self, resource: str, name: str) -> int:
        """Return what a queue is entitled to, by what may be used or is held, and what is held or waited for."""
        if self._entitled is None:
            self._entitled = self._divide()
        return self._entitled[resource].get(name, 0)

    def _divide(self) -> Mapping[str, Mapping[str, int]]:
        world, tree = self.world, QueueTree(self.world.queues, self.world.policies)
        kinds = [GPU, *(name for name in world.counted if name != FIXED)]
        held = {GPU: world.queue_gpu_milli, **{kind: world.running.used.get(kind, {}) for kind in kinds[1:]}}
        demand = {kind: dict(held[kind]) for kind in kinds}
        closed = starting_nothing(world)
        for (name, _, _, _), ask in world.waiting.asked.items():
            if name not in closed and admission(ask.example, world) is None:
                for resource, amount in ((GPU, ask.gpu_milli), *ask.also):
                    if resource in demand:
                        demand[resource][name] = demand[resource].get(name, 0) + amount
        gpus = world.capacity_milli - kept_idle_milli(world)
        if len(kinds) == 1:
            return {GPU: gpu_entitlements(tree, gpus, demand[GPU], held[GPU])}
        capacity = {kind: world.capacity_of(kind) if kind != GPU else gpus for kind in kinds}
        return entitlements_of_all(tree, capacity, demand, held)

    def check_reclaim(self, attempt: Running, taker: Gang, name_of_victim: str) -> Iterator[str]:
        """Only what is borrowed, only for a queue within its entitlement, never below a guarantee.

        Borrowed is what is beyond an entitlement, and for a queue that is within its guarantee what is beyond one.
        In one scope of priority only the latter is.
        """
        within = self.scope(taker.queue) == self.scope(attempt.queue) != ""
        wants = self.hoped.get(taker.id, ("", {}))[1]
        shared = [resource for resource in self.held if resource != FIXED]
        for resource in shared:
            after = dict(self.remaining[resource])
            for queue, charge in self.hoped.values():
                after[queue] = after.get(queue, 0) + charge.get(resource, 0)
            own = after.get(taker.queue, 0) - self.entitled(resource, taker.queue)
            beyond = own if within else self._held_beyond(after, resource, taker.queue)
            if wants.get(resource, 0) and beyond > 0:
                yield f"{taker.full_name}: reclaims although {taker.queue} would be above its entitlement"
        lent = {
            resource
            for resource in shared
            if wants.get(resource, 0)
            and not within
            and self._held_beyond(self.remaining[resource], resource, attempt.queue) > 0
        }
        if not lent and not self._is_due(attempt, taker):
            yield f"{name_of_victim}: taken although {attempt.queue} has borrowed nothing"
        before = {resource: dict(self.remaining[resource]) for resource in shared} if len(shared) > 1 else {}
        self.subtract(attempt)
        for resource in shared:
            protected = resource == GPU or resource.startswith(OF_MODEL) or resource in lent
            touched = not before or before[resource] != self.remaining[resource]
            for name in sorted(set(self.above(attempt.queue)) - set(self.above(taker.queue))):
                guaranteed = self._guaranteed(name, resource)
                left = self._inside(self.remaining[resource], name) if guaranteed else 0
                if protected and touched and guaranteed and left < guaranteed:
                    yield f"{name_of_victim}: taken across queues below the guarantee of {name}"

    def _is_due(self, attempt: Running, taker: Gang) -> bool:
        """Whether a queue of the taker's is within its guarantee with it, and the victim's are beyond theirs."""
        taking, losing = self.above(taker.queue), self.above(attempt.queue)
        remaining, hoped = self.remaining[GPU], dict.fromkeys(taking, 0)
        for queue, charge in self.hoped.values():
            for name in self.above(queue):
                if name in hoped:
                    hoped[name] += charge.get(GPU, 0)
        within = any(
            self._inside(remaining, name) + hoped[name] <= self._guaranteed(name, GPU)
            for name in taking
            if name not in losing
        )
        return within and all(
            self._inside(remaining, name) > self._guaranteed(name, GPU) for name in losing if name not in taking
        )
