"""What pools keep free in one cycle: which rows are closed to a gang, and who must give back what was lent.

Theory of operation. `world.reserves` are what is kept at this moment. Each reserve is laid on rows of its pool
(`keep_rows`), spares first, so that none counts twice. A gang of another class finds those rows closed, as far as the
reserve's need goes, unless it may borrow: then it must be certain to be out in time (`lending.may_be_lent`). Once a
reserve is closed, who can be told to go and is in its way is stopped, the class that goes first and then the least lost
work. Nothing here looks at queues: what was lent belongs to nobody's guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.effects import Phase, Stop
from fairlead.model.gang import Gang, GangId, Placement, ServiceClass
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.service_classes import TERMS, Borrows, borrows_of
from fairlead.model.tenancy import ancestors
from fairlead.placement.class_use import ClassUse
from fairlead.placement.fence import WHOLE_ROW, Closed, Fence
from fairlead.placement.kept_rows import NOTHING_BACK, KeptRows, Returning, keep_rows
from fairlead.placement.lost_work import lost_work
from fairlead.planning.admission import admission
from fairlead.planning.lending import leaves_at_ms, may_be_lent
from fairlead.units import clock_text
from fairlead.world.ends import lead_ms
from fairlead.world.fleet import WHOLE, IntColumn
from fairlead.world.pictures import Running
from fairlead.world.reserves import Purpose, Reserve
from fairlead.world.snapshot import Waiting, World


@dataclass(slots=True)
class PoolMemo:
    """What one cycle keeps for the next: who holds how much, which rows are whose. Unused while no pool keeps any."""

    use: ClassUse = field(default_factory=ClassUse)
    version: int = -1
    rows: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])

    def follow(self, world: World) -> None:
        """Take up a later world."""
        self.use.follow(world)
        if self.version != world.inventory.version:
            by_pool: dict[str, list[int]] = {}
            for row, node in enumerate(world.inventory.nodes):
                if world.inventory.usable[row]:
                    by_pool.setdefault(node.pool, []).append(row)
            self.version = world.inventory.version
            self.rows = {name: np.array(rows, dtype=np.int64) for name, rows in by_pool.items()}


def pool_rules(world: World, fence: Fence, memo: PoolMemo) -> PoolRules | None:
    """Return the rules of this cycle, None where no pool keeps anything free."""
    if not any(pool.keeps_free for pool in world.pools.values()):
        return None
    memo.follow(world)
    return PoolRules(world, fence, memo)


class PoolRules:
    """The reserves of one cycle over its overlay. `took` and `told` say what the cycle does."""

    def __init__(self, world: World, fence: Fence, memo: PoolMemo) -> None:
        """Lay nothing yet. `fence` is what the cycle closes rows with."""
        self._world, self._fence, self._memo = world, fence, memo
        self._reserves = [reserve for reserve in world.reserves if reserve.pool in memo.rows]
        self._laid: dict[tuple[int, bool], KeptRows] = {}
        self._took: dict[ServiceClass, dict[int, int]] = {kind: {} for kind in ServiceClass}
        self._lawful: dict[int, int] = {}
        self._told: set[GangId] = set()

    # --- who may go where ---------------------------------------------------------------------------------------------

    def closed_to(self, waiting: Waiting, *, lent: bool = True) -> Closed:
        """Return what is kept free of a gang: row -> GPUs. `lent` False keeps from it what it might be lent, too."""
        closed: dict[int, int] = {}
        for at, reserve in enumerate(self._reserves):
            need = self._need(reserve, waiting, lent=lent)
            if need > 0:
                for row, gpus in self._lay(at).first(need, reserve.unit_gpus).items():
                    closed[row] = max(gpus, closed.get(row, 0))
        return closed

    def why_closed(self, waiting: Waiting) -> Refusal | None:
        """Return what is kept free of a gang, the largest reserve of it, None where nothing is."""
        found: list[tuple[int, int]] = []
        for at, reserve in enumerate(self._reserves):
            need = self._need(reserve, waiting)
            if need > 0:
                found.append((-need, at))
        if not found:
            return None
        need, at = min(found)
        return kept_free(self._reserves[at], -need // WHOLE, self._world.now_ms)

    def why_withdrawn(self, waiting: Waiting, placement: Placement) -> Refusal | None:
        """Return what a pool keeps by now of what a gang was promised, None where it keeps none of it."""
        closed, row_of = self.closed_to(waiting), self._world.inventory.row
        kept = any(closed.get(row_of.get(member.node, -1), 0) >= WHOLE_ROW for member in placement.members)
        return self.why_closed(waiting) if kept else None

    def took(self, waiting: Waiting, placement: Placement) -> None:
        """Count a placement of this cycle."""
        gang, row_of = waiting.gang, self._world.inventory.row
        lawful = any(self._may_borrow(reserve, gang) for reserve in self._reserves)
        for member in placement.members:
            row = row_of.get(member.node)
            if row is not None and member.gpu_milli:
                on_row = self._took[gang.service_class]
                on_row[row] = on_row.get(row, 0) + member.gpu_milli
                if lawful:
                    self._lawful[row] = self._lawful.get(row, 0) + member.gpu_milli
        self._laid.clear()

    def _need(self, reserve: Reserve, waiting: Waiting, *, lent: bool = True) -> int:
        """Return how many thousandths of a reserve a gang must leave alone, 0 for none."""
        gang = waiting.gang
        match reserve.purpose:
            case Purpose.HOT_SPARE:
                return 0 if waiting.displaced else 1 << 40
            case Purpose.WARM_SPARE:
                return 0 if gang.service_class is reserve.service_class else WHOLE * reserve.gpus
            case Purpose.CEILING:
                return 0 if gang.service_class is reserve.service_class else self._above_ceiling(reserve)
            case Purpose.PROTECTED:
                if gang.service_class is reserve.service_class:
                    return 0
                unmet = self._unmet(reserve)
                if not lent or not self._may_borrow(reserve, gang):
                    return unmet
                return self._unlent(reserve, unmet) if reserve.is_closed(self._world.now_ms) else 0

    def _may_borrow(self, reserve: Reserve, gang: Gang) -> bool:
        """Whether a gang may be in a protected amount of another class for a while, as far as it is lent."""
        if reserve.purpose is not Purpose.PROTECTED or gang.service_class is reserve.service_class:
            return False
        world = self._world
        borrows = borrows_of(gang.service_class, world.pools[reserve.pool].class_terms)
        returns = borrows is Borrows.YIELDING and lead_ms(gang, world.rules) <= reserve.return_within_ms
        if reserve.is_closed(world.now_ms):
            return returns and gang.preemptible and reserve.lend_gpus > 0 and not world.rules.min_run_ms
        if borrows is Borrows.NEVER or reserve.start_ms is None:
            return False
        told_ms = reserve.closes_ms if returns else None
        return may_be_lent(gang, world.now_ms, reserve.start_ms, world.rules, told_ms=told_ms)

    # --- amounts ------------------------------------------------------------------------------------------------------

    def _held(self, reserve: Reserve, service_class: ServiceClass) -> IntColumn:
        """Return what a class holds on the rows of a reserve's pool, placements of this cycle included."""
        held = self._memo.use.milli(service_class)
        took = self._took[service_class]
        if took:
            held = held.copy()
            held[list(took)] += np.array(list(took.values()), dtype=np.int64)
        return held[self._memo.rows[reserve.pool]]

    def _unmet(self, reserve: Reserve) -> int:
        """Return what of a protected amount its class does not hold yet."""
        assert reserve.service_class is not None, reserve
        return max(0, WHOLE * reserve.gpus - int(self._held(reserve, reserve.service_class).sum()))

    def _unlent(self, reserve: Reserve, unmet: int) -> int:
        """Return what of it is not lent: all but what may be, and at least what its class waits for."""
        wanted = sum(self._wanted(reserve.service_class).values())
        return max(0, unmet - WHOLE * reserve.lend_gpus, min(unmet, wanted))

    def _wanted(self, service_class: ServiceClass | None) -> dict[str, int]:
        """Return what jobs of a class wait for and their queues let them have, by queue."""
        found: dict[str, int] = {}
        for (queue, _, _, kind), ask in self._world.waiting.asked.items():
            if kind == service_class and admission(ask.example, self._world) is None:
                found[queue] = found.get(queue, 0) + ask.gpu_milli
        return {queue: min(milli, self._room_of(queue)) for queue, milli in found.items()}

    def _room_of(self, queue: str) -> int:
        """Return what the limits of a queue and of all above it leave it, in thousandths; a great deal without one."""
        world, room = self._world, 1 << 40
        for name in ancestors(queue, dict(world.queues)):
            limit = world.queues[name].limit_gpus
            if limit is not None:
                below = (q for q in world.queue_gpu_milli if name in ancestors(q, dict(world.queues)))
                room = min(room, WHOLE * limit - sum(world.queue_gpu_milli[q] for q in below))
        return max(0, room)

    def idle_milli(self) -> int:
        """Return what is kept free and asked for by nobody it is kept for: it is nobody's to be entitled to now."""
        kinds: dict[tuple[str, Purpose, ServiceClass | None], int] = {}
        for reserve in self._reserves:
            if reserve.is_closed(self._world.now_ms):
                kind = (reserve.pool, reserve.purpose, reserve.service_class)
                kinds[kind] = max(kinds.get(kind, 0), self._idle_of(reserve))
        idle: dict[str, int] = {}
        for (pool, _, _), milli in kinds.items():
            idle[pool] = idle.get(pool, 0) + milli
        return sum(min(milli, WHOLE * int(self._free(self._memo.rows[pool]).sum())) for pool, milli in idle.items())

    def _idle_of(self, reserve: Reserve) -> int:
        match reserve.purpose:
            case Purpose.HOT_SPARE:
                return sum(self._lay(self._reserves.index(reserve)).gains)
            case Purpose.WARM_SPARE:
                return WHOLE * reserve.gpus
            case Purpose.CEILING:
                return self._above_ceiling(reserve)
            case Purpose.PROTECTED:
                waits = (a.gpu_milli for key, a in self._world.waiting.asked.items() if key[3] == reserve.service_class)
                return max(0, self._unmet(reserve) - WHOLE * reserve.lend_gpus - sum(waits))

    def _above_ceiling(self, reserve: Reserve) -> int:
        rows = self._memo.rows[reserve.pool]
        gpus = int(np.bitwise_count(self._world.inventory.healthy_mask[rows]).sum())
        return WHOLE * -(-gpus * reserve.percent // 100)

    def keeps(self) -> dict[str, dict[int, int]]:
        """Return which reserves are closed by now: keeper -> row -> GPUs, all of a row where it is `WHOLE_ROW`."""
        found: dict[str, dict[int, int]] = {}
        for at, reserve in enumerate(self._reserves):
            if not reserve.is_closed(self._world.now_ms):
                continue
            match reserve.purpose:
                case Purpose.HOT_SPARE:
                    need = WHOLE_ROW * WHOLE_ROW
                case Purpose.WARM_SPARE:
                    need = WHOLE * reserve.gpus
                case Purpose.CEILING:
                    need = self._above_ceiling(reserve)
                case Purpose.PROTECTED:
                    need = self._unlent(reserve, self._unmet(reserve))
            of = (reserve.pool, reserve.purpose.replace(" ", "-"), reserve.service_class or "any")
            rows = found.setdefault(f"pool/{'/'.join(of)}", {})
            for row, gpus in self._lay(at).first(need, reserve.unit_gpus).items():
                rows[row] = max(gpus, rows.get(row, 0))
        return found

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _lay(self, at: int) -> KeptRows:
        """Return the rows of a reserve; those of the ones before it are left out."""
        reserve = self._reserves[at]
        closed = reserve.is_closed(self._world.now_ms)
        known = self._laid.get((at, closed))
        if known is None:
            before = [row for earlier in range(at) for row in self._lay(earlier).rows if self._are_apart(earlier, at)]
            rows = np.setdiff1d(self._memo.rows[reserve.pool], np.array(before, dtype=np.int64))
            known = self._laid[at, closed] = self._lay_on(reserve, rows, lent_first=not closed)
        return known

    def _are_apart(self, one: int, other: int) -> bool:
        """Whether two reserves of a pool do not count the same GPUs; two amounts for one class do, the larger holds."""
        a, b = self._reserves[one], self._reserves[other]
        return a.pool == b.pool and (a.purpose, a.service_class) != (b.purpose, b.service_class)

    def _lay_on(self, reserve: Reserve, rows: IntColumn, *, lent_first: bool) -> KeptRows:
        free = self._free(rows)
        if reserve.purpose is Purpose.HOT_SPARE:
            healthy = np.bitwise_count(self._world.inventory.healthy_mask[rows])
            whole = rows[(free == healthy) & (healthy > 0)][: reserve.nodes].tolist()
            return KeptRows(
                tuple(whole), tuple(WHOLE * int(gpus) for gpus in self._free(np.array(whole, dtype=np.int64)))
            )
        if reserve.purpose is Purpose.PROTECTED:
            return self._lay_protected(reserve, rows, self._unmet(reserve), lent_first=lent_first)
        need = WHOLE * reserve.gpus if reserve.purpose is Purpose.WARM_SPARE else self._above_ceiling(reserve)
        return keep_rows(need, 1, rows, free, *self._shares(reserve, rows), lambda _: NOTHING_BACK, lent_first=False)

    def _lay_protected(self, reserve: Reserve, rows: IntColumn, need: int, *, lent_first: bool) -> KeptRows:
        return keep_rows(
            need,
            reserve.unit_gpus,
            rows,
            self._free(rows),
            *self._shares(reserve, rows),
            lambda row: self._returning(reserve, row),
            lent_first=lent_first,
        )

    def _free(self, rows: IntColumn) -> IntColumn:
        """Count the healthy GPUs on each row that nobody has a part of. Shape (rows,)."""
        healthy = self._world.inventory.healthy_mask[rows]
        free: IntColumn = np.bitwise_count(self._fence.free_mask(rows) & healthy).astype(np.int64)
        return free

    def _shares(self, reserve: Reserve, rows: IntColumn) -> tuple[IntColumn, IntColumn]:
        own = np.zeros(len(rows), dtype=np.int64)
        others = np.zeros(len(rows), dtype=np.int64)
        for kind in ServiceClass:
            held = self._memo.use.milli(kind)[rows]
            took = self._took[kind]
            if took:
                held = held + np.array([took.get(row, 0) for row in rows.tolist()], dtype=np.int64)
            if kind is reserve.service_class:
                own = own + held
            else:
                others = others + held
        return own, others

    def _returning(self, reserve: Reserve, row: int) -> Returning:
        """Return what others give back on a row: by themselves before the window starts, or because they are told."""
        world, price, turn = self._world, 0, -1
        told: list[tuple[Running, int]] = []
        took = sum(on_row.get(row, 0) for kind, on_row in self._took.items() if kind is not reserve.service_class)
        milli = min(took, self._lawful.get(row, 0))
        for gang, held in sorted(self._memo.use.on_row(row).items()):
            attempt = world.running.everyone.get(gang)
            if attempt is None or (attempt.spec is not None and attempt.spec.service_class is reserve.service_class):
                continue
            if not self._leaves(attempt, reserve):
                if attempt.spec is None or not _can_be_told(attempt, world.now_ms):
                    continue
                told.append((attempt, held))
                turn = max(turn, TERMS[attempt.spec.service_class].stopped)
                price += lost_work(attempt, world.now_ms)
            milli += held
        return Returning(milli, tuple(told), turn, price)

    def _leaves(self, attempt: Running, reserve: Reserve) -> bool:
        """Whether an attempt goes without being told: it is on its way, or its end is enforced before the window."""
        if attempt.phase is Phase.STOPPING or attempt.gang in self._told:
            return True
        leaves_ms = leaves_at_ms(attempt, self._world.rules, self._world.now_ms)
        return leaves_ms is not None and reserve.start_ms is not None and leaves_ms <= reserve.start_ms

    # --- giving back --------------------------------------------------------------------------------------------------

    def returns(self, at_most: int) -> list[tuple[Stop, Running]]:
        """Return whom to stop so that every reserve that is closed now is there; at most so many."""
        stops: list[tuple[Stop, Running]] = []
        for at, reserve in enumerate(self._reserves):
            if reserve.purpose is not Purpose.PROTECTED or not reserve.is_closed(self._world.now_ms):
                continue
            need = self._unlent(reserve, self._unmet(reserve)) if reserve.lend_gpus else self._unmet(reserve)
            if need <= 0:
                continue
            for attempt in self._told_for(at, need):
                if len(stops) < at_most and attempt.gang not in self._told:
                    self._told.add(attempt.gang)
                    stops.append((_stop(attempt, reserve), attempt))
        if stops:
            self._laid.clear()
        return stops

    def _told_for(self, at: int, need: int) -> Sequence[Running]:
        """Return who must go for so much of a reserve, which may be less than all of it where some is lent."""
        reserve = self._reserves[at]
        if not reserve.lend_gpus:
            return self._lay(at).told
        return self._lay_protected(reserve, self._memo.rows[reserve.pool], need, lent_first=False).told


def _can_be_told(attempt: Running, now_ms: int) -> bool:
    running = attempt.phase in (Phase.STARTING, Phase.RUNNING)
    spec = attempt.spec
    return running and spec is not None and spec.preemptible and not attempt.gone and attempt.ripe_ms <= now_ms


def _stop(attempt: Running, reserve: Reserve) -> Stop:
    assert reserve.service_class is not None, reserve
    cause = refuse(Reason.LENT_RETURNED, pool=reserve.pool, service_class=reserve.service_class.value)
    return Stop(gang=attempt.gang, attempt=attempt.attempt, cause=cause, requeue=True)


def kept_free(reserve: Reserve, gpus: int, now_ms: int) -> Refusal:
    """Return why a gang gets nothing of a reserve: the pool, for whom, and until when."""
    match reserve.purpose:
        case Purpose.HOT_SPARE:
            return refuse(
                Reason.SPARE_KEPT, pool=reserve.pool, what=f"{reserve.nodes} nodes", whom="jobs of lost nodes"
            )
        case Purpose.WARM_SPARE:
            return refuse(
                Reason.SPARE_KEPT, pool=reserve.pool, what=f"{gpus} GPUs", whom=f"{reserve.service_class} to start"
            )
        case Purpose.CEILING:
            return refuse(
                Reason.ABOVE_CEILING,
                pool=reserve.pool,
                percent=100 - reserve.percent,
                service_class=str(reserve.service_class),
            )
        case Purpose.PROTECTED:
            return refuse(
                Reason.HELD_FOR_CLASS,
                pool=reserve.pool,
                gpus=gpus,
                service_class=str(reserve.service_class),
                when=_when(reserve, now_ms),
            )


def _when(reserve: Reserve, now_ms: int) -> str:
    if reserve.start_ms is None:
        return "always"
    until = f"until {clock_text(reserve.local_end_ms)} {reserve.zone}"
    return until if now_ms >= reserve.start_ms else f"from {clock_text(reserve.local_start_ms)} {until}"
