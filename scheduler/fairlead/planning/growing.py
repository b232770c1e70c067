"""Elastic gangs that run with fewer members than they asked for take members back, where that costs nobody anything.

Theory of operation. After the last of those who wait has had its turn, a running gang that is short of members looks at
nodes that are of no use to anybody who waits, whatever else came free there. What it finds there has been free for
`rules.grow_after_ms`, and for as long it has left its size alone (longer after each setback, see `grows_from`): so a
gang never takes what is on its way to somebody else, and shrinking and growing do not chase each other. A growth takes
nothing from anybody, gives nobody a right and makes room for nobody: the potential of takings stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fairlead.model.effects import Grow, Phase
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.ordering.standing import Standing
from fairlead.placement.fence import NOTHING, WHOLE_ROW, Fence
from fairlead.placement.joining import Growth, grown, parts_of, rows_for
from fairlead.placement.placer import Placer
from fairlead.placement.wishes import takes_devices
from fairlead.planning.admission import admission
from fairlead.planning.caps import Caps
from fairlead.planning.idle_fleet import IdleFleet
from fairlead.planning.pool_rules import PoolRules
from fairlead.planning.promising import Promises
from fairlead.planning.quota_places import charge_of, place_within
from fairlead.planning.tiers import Tiers
from fairlead.world.fleet import BoolColumn
from fairlead.world.snapshot import Running, Waiting, World

GROWTHS = 8
"""Gangs that grow in one cycle, at most."""
LOOKS = 32
"""Gangs that are looked at in one cycle, at most."""
MOST_WAITING = 256
"""Gangs that wait, up to which anybody grows: where more wait, somebody will have a use for all there is."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What a cycle places with. `chains` are each queue and those above it."""

    placer: Placer
    fence: Fence
    standing: Standing
    caps: Caps
    tiers: Tiers
    promises: Promises
    kept: PoolRules | None
    chains: Mapping[str, tuple[str, ...]]


class Growing:
    """The growths of one cycle."""

    def __init__(self, world: World, hands: Hands, idle: IdleFleet) -> None:
        """Look at nothing yet."""
        self._world, self._hands, self._idle, self._pods_left = world, hands, idle, 0
        self._moments: list[int] = []

    @property
    def wake_ms(self) -> int | None:
        """When time alone may let somebody grow, None where it can't."""
        return min((moment for moment in self._moments if moment > self._world.now_ms), default=None)

    def growths(
        self,
        is_hopeless: Callable[[Gang], bool],
        placed: Collection[GangId],
        busy: Collection[GangId],
        pods_left: int,
    ) -> Iterator[Grow]:
        """Yield growths; each is counted in the standing and taken in the overlay before the next is looked for.

        A gang that `is_hopeless` has no use for anything. `placed` wait no more, about those in `busy` this cycle has
        decided something already. At most `pods_left` pods may join.
        """
        world, self._pods_left = self._world, pods_left
        short = [(one, one.grow_ms) for one in world.running.short if one.grow_ms is not None and one.gang not in busy]
        self._moments += [from_ms for _, from_ms in short]
        ripe = [one for one, from_ms in short if from_ms <= world.now_ms and self._is_sound(one)]
        if not ripe or not world.rules.placement_on or len(world.waiting) > MOST_WAITING + len(placed):
            return
        waiting = [one for one in world.waiting.everyone if one.gang.id not in placed and not is_hopeless(one.gang)]
        open_rows, found = self._open_rows(waiting), 0
        for attempt in sorted(ripe, key=_turn)[: LOOKS if open_rows.any() else 0]:
            growth = self._growth(attempt, waiting, open_rows)
            if growth is not None:
                found += 1
                yield self._taken(growth)
            if found >= GROWTHS:
                return

    def _is_sound(self, attempt: Running) -> bool:
        """Whether nothing is about to end it, and its queue would still start it."""
        spec = attempt.spec
        if spec is None or spec.suspended or attempt.phase is not Phase.RUNNING or attempt.failed or attempt.robbed:
            return False
        lost = any(attempt.placement.members[rank].node in self._world.lost for rank in attempt.holding)
        return not lost and admission(spec, self._world) is None

    def _open_rows(self, waiting: list[Waiting]) -> BoolColumn:
        """Return the rows that are of no use to those who wait, and on which nothing came free for long enough."""
        world, nodes = self._world, self._world.inventory.nodes
        freed = np.array([world.freed_ms.get(node.name, 0) for node in nodes], dtype=np.int64)
        ripe_ms = freed + world.rules.grow_after_ms
        useful = np.zeros(len(nodes), dtype=np.bool_)
        for kind, role in dict.fromkeys((one.gang.service_class, role) for one in waiting for role in one.gang.roles):
            fit = self._hands.placer.feasibility.fit(role, kind)
            useful |= fit.allowed & (fit.devices != 0) if takes_devices(role) else fit.allowed
        mine: BoolColumn = ~useful & world.inventory.usable
        self._moments += ripe_ms[mine & (ripe_ms > world.now_ms)].tolist()
        return mine & (ripe_ms <= world.now_ms)

    def _shares_a_limit(self, gang: Gang, waiting: list[Waiting]) -> bool:
        """Whether somebody waits under a limit or cap that the gang would use up."""
        own = set(self._hands.chains.get(gang.queue, ()))
        shared = {name for one in waiting for name in own.intersection(self._hands.chains.get(one.gang.queue, ()))}
        queues = (self._world.queues[name] for name in shared)
        return any(q.limit_gpus is not None or q.quotas or q.caps.bounds_running for q in queues)

    def _growth(self, attempt: Running, waiting: list[Waiting], open_rows: BoolColumn) -> Growth | None:
        spec, inventory = attempt.spec, self._world.inventory
        assert spec is not None, attempt
        if self._shares_a_limit(spec, waiting):
            return None
        for role, part in parts_of(attempt, inventory):
            for rows in rows_for(attempt, role, inventory):
                placement = self._place(attempt, part, open_rows & rows, modest=bool(waiting))
                if placement is not None:
                    return grown(attempt, part, placement, inventory, self._hands.placer.paces)
        return None

    def _place(self, attempt: Running, part: Gang, rows: BoolColumn, *, modest: bool) -> Placement | None:
        """Find a place on some rows, and take it: in no hole, and in nothing that a pool keeps or lends.

        `modest`: not beyond what the queue is guaranteed.
        """
        hands = self._hands
        if not rows.any() or self._pods_left < part.roles[0].fewest:
            return None
        hands.promises.lower()
        kept = hands.kept.closed_to(_as_waiting(part), lent=False) if hands.kept is not None else NOTHING
        hands.fence.around({**kept, **dict.fromkeys(np.flatnonzero(~rows).tolist(), WHOLE_ROW)})
        hands.promises.make_way(part, entering=False)
        if not hands.promises.limits_kept(part, hands.placer.feasibility.charge(part)):
            return None
        mark = hands.placer.overlay.checkpoint()
        room = hands.caps.room_milli(part)
        placement = place_within(part, self._world, hands.placer, hands.standing, room).placement
        if placement is None:
            return None
        charge = placement.gpu_milli, charge_of(part, placement, self._world)
        may = hands.standing.limit_hit(part.queue, *charge) is None and hands.caps.may_grow(part, charge[0])
        if may and (not modest or hands.tiers.covers(attempt, *charge)):
            return placement
        hands.placer.overlay.roll_back(mark)
        return None

    def _taken(self, growth: Growth) -> Grow:
        """Count a growth and return it as an effect."""
        hands, gang, joined = self._hands, growth.part, growth.joined
        charge = joined.gpu_milli, charge_of(gang, joined, self._world)
        hands.tiers.grow(growth.attempt, *charge)
        hands.standing.charge(gang.queue, *charge)
        hands.caps.charge(gang, charge[0], jobs=0)
        self._pods_left -= len(joined.members)
        if hands.kept is not None:
            hands.kept.took(_as_waiting(gang), joined)
        attempt = growth.attempt
        left = {member.rank for member in attempt.placement.members} - attempt.at_work
        return Grow(
            gang=gang.id,
            attempt=attempt.attempt,
            placement=self._idle.judged(attempt.spec or gang, growth.whole, self._world, left),
            joining=len(joined.members),
            tier=attempt.tier,
            deadline_ms=self._world.now_ms + self._world.rules.place_deadline_ms,
        )


def _as_waiting(gang: Gang) -> Waiting:
    """Return what is missing of a running gang as rules see it that look at who waits."""
    return Waiting(gang=gang, attempts=0, retry_at_ms=0, nomination=None, arrived=0)


def _turn(attempt: Running) -> tuple[int, int, str]:
    """Sort by priority, then who may grow for the longest time."""
    return -(attempt.spec.priority if attempt.spec is not None else 0), attempt.grow_ms or 0, attempt.gang
