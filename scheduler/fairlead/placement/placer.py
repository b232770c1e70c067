"""The one who places gangs: an overlay with its columns, kept from cycle to cycle, and a search for each gang."""

from __future__ import annotations

import numpy as np

from fairlead.model.gang import Gang, Placement
from fairlead.placement.columns import ClassColumns, PodClass
from fairlead.placement.feasible import Feasibility, row_is_free, slots_on
from fairlead.placement.fragments import build
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.locality import LocalTables
from fairlead.placement.remainder import FragmentScore, capacity_by_model, model_ids
from fairlead.placement.score import NEVER, Score
from fairlead.placement.search import STEPS, Answer, Search
from fairlead.placement.seats import placement_of, take_seats
from fairlead.placement.wishes import is_single, required_levels
from fairlead.world.demand import Mix
from fairlead.world.fleet import Inventory, Level
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import World
from fairlead.world.use import use_of


class Placer:
    """Searches over one overlay with its class columns; kept from cycle to cycle while the inventory stays."""

    def __init__(self, overlay: Overlay, feasibility: Feasibility, score: Score | None = None) -> None:
        """Nothing is computed yet; nothing is learned of what is asked for, unless a `score` knows."""
        self.overlay = overlay
        self.inventory: Inventory = overlay.inventory
        self.feasibility = feasibility
        self._capacity = capacity_by_model(overlay.inventory)
        fragments = build(Mix(), self._capacity)
        self._model = model_ids(overlay.inventory, fragments.models)
        self.score = score or Score(FragmentScore(fragments, overlay, self._model))
        self.classes = ClassColumns(overlay, feasibility, self.score)
        self.chains = feasibility.chains
        self.paces = GangPaces(overlay.inventory, LocalTables())
        self.lone = frozenset(
            name for name, level in self.inventory.levels.items() if len(level.names) >= _rows_in(level)
        )

    def follow(self, world: World) -> bool:
        """Go on with a later world; False where too much is different for what was computed to be of use."""
        before, after = self.inventory, world.inventory
        if after is not before:
            if after.patched != before.version:
                return False
            self.inventory = after
            self.feasibility.patch(after, after.patched_rows)
            self.overlay.patch(after)
            self.paces.patch(after)
        if self.overlay.columns.extended.keys() != world.free.extended.keys():
            return False
        self.overlay.follow(world)
        return True

    def learn(self, mix: Mix) -> None:
        """Score by what is asked for lately; a mix that is known already changes nothing."""
        if mix.version != self.score.version:
            self.score.use(FragmentScore(build(mix, self._capacity), self.overlay, self._model), mix.profiles)

    def place(self, gang: Gang, *, steps: int | None = STEPS) -> Answer:
        """Choose nodes and devices for every member; `steps` None searches until the answer is certain."""
        if is_single(gang):
            return self._place_single(gang)
        return self._search(gang, steps).run()

    def may_hold(self, gang: Gang) -> bool:
        """Whether there may be room for as few pods as the gang allows; False is certain, and cheaper than a search."""
        return all(self.classes.of(gang, role).total >= role.fewest for role in gang.roles)

    def place_in(self, gang: Gang, level: Level, domain: int) -> Answer:
        """Like `place`, but inside one domain and nowhere else."""
        if level.name == "node" and is_single(gang) and self._is_bare(gang):
            row = int(level.order[level.starts[domain]])
            kind = self.classes.known(gang, gang.roles[0])
            rows = np.array([row])
            room = slots_on(kind.role, kind.fit, kind.group, self.overlay, rows)
            return self._seat_on(gang, kind, row) if room[0] > 0 else Answer()
        return self._search(gang, STEPS).run_in(level, domain)

    def take_exactly(self, gang: Gang, placement: Placement) -> bool:
        """Take a placement as it is, if every part of it is free now; else the overlay stays as it was."""
        mark = self.overlay.checkpoint()
        fits = {role.name: self.feasibility.fit(role, gang.service_class) for role in gang.roles}
        for member in placement.members:
            row = self.inventory.row.get(member.node)
            role = next(r for r in gang.roles if r.name == member.role)
            if row is None or not bool(fits[member.role].allowed[row]):
                self.overlay.roll_back(mark)
                return False
            taking = self.overlay.taking(row, use_of(gang, member))
            if not row_is_free(role, taking, self.overlay):
                self.overlay.roll_back(mark)
                return False
            self.overlay.take(taking)
        return True

    def _place_single(self, gang: Gang) -> Answer:
        """One pod goes to the row that costs least."""
        role = gang.roles[0]
        kind = self.classes.of(gang, role)
        cost = kind.cost
        if not len(cost):
            return Answer()
        for name in required_levels(gang):
            level = self.inventory.levels.get(name)
            if level is None:
                return Answer()
            cost = np.where(level.domain_of >= 0, cost, NEVER)
        row = int(cost.argmin())
        if int(cost[row]) == NEVER:
            return Answer()
        return self._seat_on(gang, kind, row)

    def _is_bare(self, gang: Gang) -> bool:
        """Whether nothing but what is free on a node decides whether the one pod of a gang fits there."""
        role = gang.roles[0]
        above = any(name in self.feasibility.budgets for name, _ in role.pod.requests.extended)
        return role.topology is None and not above and not role.mig

    def _seat_on(self, gang: Gang, kind: PodClass, row: int) -> Answer:
        mark = self.overlay.checkpoint()
        seats = take_seats(0, gang, kind, ((row, 1),), self.overlay, self.score, self.paces)
        if seats is None:
            self.overlay.roll_back(mark)
            return Answer(ended_early=True, steps=1)
        node = self.inventory.levels["node"]
        placement = placement_of(gang, seats, node, int(node.domain_of[row]), self.inventory, self.paces)
        return Answer(placement=placement, steps=1)

    def _search(self, gang: Gang, steps: int | None) -> Search:
        return Search(gang, self.overlay, self.classes, self.chains, self.paces, self.lone, steps)


def _rows_in(level: Level) -> int:
    """Return how many nodes are in some domain of a level; as many as domains where each has one node."""
    return int((level.domain_of >= 0).sum())
