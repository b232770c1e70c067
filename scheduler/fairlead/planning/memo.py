"""What one cycle keeps for the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.model.fairness import FairnessPolicy
from fairlead.model.gang import Gang, GangId
from fairlead.model.gang_rules import why_invalid
from fairlead.model.reasons import Refusal
from fairlead.model.tenancy import Pool, Queue
from fairlead.ordering.queue_tree import QueueTree
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.placement.preempt import RoomMemo
from fairlead.placement.refusals import why_never
from fairlead.planning.idle_fleet import IdleFleet
from fairlead.planning.keeping import KeepMemo
from fairlead.planning.pool_rules import PoolMemo
from fairlead.planning.promise_memo import PromiseMemo
from fairlead.planning.tiers import TierMemo
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import World

SHAPES_REMEMBERED = 4_096
"""Shapes of gangs for which it is remembered whether they could ever fit."""
GANGS_REMEMBERED = 65_536
"""Gangs that are known to be sound."""


@dataclass(slots=True)
class Memo:
    """What one cycle may keep for the next; only values that the same World would yield again."""

    pools: tuple[Pool, ...] = ()
    placer: Placer | None = None
    queues: Mapping[str, Queue] | None = None
    policies: Mapping[str, FairnessPolicy] | None = None
    tree: QueueTree | None = None
    never: dict[tuple[object, ...], Refusal | None] = field(default_factory=dict[tuple[object, ...], Refusal | None])
    never_of: int = -1
    sound: dict[GangId, Gang] = field(default_factory=dict[GangId, Gang])
    room: RoomMemo = field(default_factory=RoomMemo)
    promises: PromiseMemo = field(default_factory=PromiseMemo)
    kept: PoolMemo = field(default_factory=PoolMemo)
    keeping: KeepMemo = field(default_factory=KeepMemo)
    tiers: TierMemo = field(default_factory=TierMemo)
    idle: IdleFleet = field(default_factory=IdleFleet)

    def placer_for(self, world: World) -> Placer:
        """Return a placer over this world; what it computed about rows that are as before is kept."""
        pools = tuple(world.pools[name] for name in sorted(world.pools))
        placer = self.placer
        if placer is None or self.pools != pools or not placer.follow(world):
            placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools))
            self.placer, self.pools, self.never = placer, pools, {}
        placer.learn(world.mix)
        return placer

    def why_invalid(self, gang: Gang) -> Refusal | None:
        """Return what contradicts itself in what a gang asks for; looked at once, until the gang is changed."""
        if self.sound.get(gang.id) is gang:
            return None
        refusal = why_invalid(gang)
        if refusal is None:
            if len(self.sound) >= GANGS_REMEMBERED:
                self.sound.clear()
            self.sound[gang.id] = gang
        return refusal

    def why_never(self, gang: Gang, world: World) -> Refusal | None:
        """Return why the gang would not fit with nothing else there; worked out once a shape until a node changes."""
        assert self.placer is not None, "a placer comes first"
        if self.never_of != world.inventory.version or len(self.never) >= SHAPES_REMEMBERED:
            self.never_of, self.never = world.inventory.version, {}
        shape = (gang.roles, gang.topology, gang.service_class, gang.mixed_models)
        if shape not in self.never:
            self.never[shape] = why_never(gang, world.offered, world.inventory, self.placer.feasibility)
        return self.never[shape]

    def tree_for(self, world: World) -> QueueTree:
        """Return the queue tree; a World shares its queues with those before it until one changes."""
        if self.tree is None or self.queues is not world.queues or self.policies is not world.policies:
            self.queues, self.policies = world.queues, world.policies
            self.tree = QueueTree(world.queues, world.policies)
        return self.tree
