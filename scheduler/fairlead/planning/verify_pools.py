"""The second opinion on what pools keep free: amounts counted anew from the pools' words, the rows left out of it.

For each pool: what others hold and do not give back in time leaves the protected class its amount; spares and what is
above a ceiling are not touched; and whoever is told to go was lent something, may be told, and is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fairlead.model.effects import Notice, Phase, Place, Stop
from fairlead.model.gang import Gang, GangId, ServiceClass
from fairlead.model.hardware import NodeName
from fairlead.model.protection import Protection
from fairlead.model.service_classes import Borrows, borrows_of
from fairlead.model.tenancy import Pool
from fairlead.model.windows import current_or_next
from fairlead.world.ends import latest_end
from fairlead.world.pictures import Running
from fairlead.world.snapshot import World


@dataclass(slots=True)
class PoolTally:
    """What a plan has done so far: members placed by node, and who is told to go; and what was summed up once."""

    placed: list[tuple[Gang, NodeName, int]] = field(default_factory=list[tuple[Gang, NodeName, int]])
    told: set[GangId] = field(default_factory=set[GangId])
    on: dict[str, list[tuple[Running, int]]] = field(default_factory=dict[str, list[tuple[Running, int]]])
    sums: dict[tuple[object, ...], int] = field(default_factory=dict[tuple[object, ...], int])


def kept_idle_milli(world: World) -> int:
    """Return thousandths of GPUs that pools keep free now and that nobody asks for whom they are kept."""
    total = 0
    for pool in world.pools.values():
        if not pool.keeps_free:
            continue
        free = _free(world, pool, ())
        kept = sum(_spare_milli(world, pool).values())
        classes: dict[ServiceClass, int] = {}
        for protection in pool.protected:
            window = _window(protection, world.now_ms)
            if protection.windows and (window is None or world.now_ms < window[0] - protection.lead_ms):
                continue
            waits = sum(ask.gpu_milli for key, ask in world.waiting.asked.items() if key[3] == protection.service_class)
            unmet = 1000 * protection.amount - _held(world, pool, PoolTally(), only=protection.service_class)
            idle = max(0, unmet) - 1000 * protection.lend_gpus - waits
            classes[protection.service_class] = max(0, idle, classes.get(protection.service_class, 0))
        kept += sum(classes.values())
        total += min(kept, 1000 * sum(free.values()))
    return total


def check_pools(effect: Place, gang: Gang, displaced: bool, world: World, tally: PoolTally) -> Iterator[str]:
    """Yield what of a pool's reserves a placement would take; count it."""
    before = list(tally.placed)
    tally.placed += [(gang, member.node, member.gpu_milli) for member in effect.placement.members]
    for name in sorted({_pool_of(world, member.node) for member in effect.placement.members} & world.pools.keys()):
        pool = world.pools[name]
        taken = sum(m.gpu_milli for m in effect.placement.members if _pool_of(world, m.node) == name)
        if not pool.keeps_free or not taken:
            continue
        for protection in pool.protected:
            if gang.service_class is not protection.service_class:
                yield from _check_protection(gang, pool, protection, world, tally)
        yield from _check_spares(gang, displaced, pool, world, before, tally)


def check_return(effect: Stop | Notice, attempt: Running, world: World, tally: PoolTally) -> Iterator[str]:
    """Yield why nobody may tell this attempt to go; count it as going."""
    said, spec = dict(effect.cause.details), attempt.spec
    pool = world.pools.get(str(said.get("pool", "")))
    if pool is None or spec is None or not spec.preemptible:
        yield f"{effect.gang}: told to give back what no pool lent, or what it may keep"
        return
    named = [p for p in pool.protected if p.service_class.value == said.get("service_class")]
    needed = any(_is_short(pool, p, world, tally) for p in named if p.service_class is not spec.service_class)
    if not needed or all(_pool_of(world, m.node) != pool.name for m in attempt.placement.members):
        yield f"{spec.full_name}: told to go although pool {pool.name} is short of nothing"
    tally.told.add(effect.gang)


def _check_protection(gang: Gang, pool: Pool, protection: Protection, world: World, tally: PoolTally) -> Iterator[str]:
    lawful = _may_borrow(gang, pool, protection, world)
    closed = _is_closed(protection, world.now_ms)
    if lawful and not closed:
        return
    amount = 1000 * (protection.amount - (protection.lend_gpus if lawful else 0))
    staying = _staying(pool, protection, world, tally)
    if _capacity(world, pool, tally) - staying < amount:
        yield f"{gang.full_name}: takes what pool {pool.name} holds for {protection.service_class}"


def _check_spares(
    gang: Gang,
    displaced: bool,
    pool: Pool,
    world: World,
    before: list[tuple[Gang, NodeName, int]],
    tally: PoolTally,
) -> Iterator[str]:
    free = _free(world, pool, tally.placed)
    kept = _spare_milli(world, pool)
    left = 1000 * sum(free.values())
    if pool.spares is not None and gang.service_class is not pool.spares.service_class and left < kept["warm"]:
        yield f"{gang.full_name}: takes a warm spare of pool {pool.name}"
    if pool.ceiling_percent is not None and gang.service_class is not pool.latency_class and left < kept["ceiling"]:
        yield f"{gang.full_name}: goes above the ceiling of pool {pool.name}"
    if pool.spares is not None and pool.spares.hot_nodes and not displaced:
        untouched = _whole_nodes(world, pool, free)
        if len(untouched) < pool.spares.hot_nodes and untouched != _whole_nodes(
            world, pool, _free(world, pool, before)
        ):
            yield f"{gang.full_name}: takes a hot spare of pool {pool.name}"


# --- times ------------------------------------------------------------------------------------------------------------


def _stop_ms(gang: Gang, world: World) -> int:
    """Return what it takes at most from telling a gang to go until it has gone; its turn to save may come late."""
    asked = gang.checkpoint is not None and gang.checkpoint.on_notice and gang.grace_ms
    return world.rules.stop_ms + (world.rules.stagger_max_ms + gang.grace_ms if asked else 0)


@lru_cache(maxsize=64)
def _window(protection: Protection, now_ms: int) -> tuple[int, int] | None:
    return current_or_next(protection.windows, now_ms, protection.lead_ms)


def _is_closed(protection: Protection, now_ms: int) -> bool:
    window = _window(protection, now_ms)
    return not protection.windows or (window is not None and now_ms >= window[0] - protection.lead_ms)


def _may_borrow(gang: Gang, pool: Pool, protection: Protection, world: World) -> bool:
    """Whether a gang of another class is certain to give back in time what it gets of a protected amount."""
    borrows = borrows_of(gang.service_class, pool.class_terms)
    stop_ms = _stop_ms(gang, world)
    yields = borrows is Borrows.YIELDING and gang.preemptible and stop_ms <= protection.return_within_ms
    if _is_closed(protection, world.now_ms):
        return yields
    window = _window(protection, world.now_ms)
    if window is None or borrows is Borrows.NEVER:
        return False
    late_ms = world.now_ms + 2 * world.rules.place_deadline_ms + gang.start_deadline_ms
    if gang.duration_ms is not None and late_ms + gang.duration_ms + stop_ms <= window[0]:
        return True
    return yields and stop_ms <= protection.lead_ms


def _leaves(attempt: Running, protection: Protection, world: World, tally: PoolTally) -> bool:
    """Whether an attempt gives back in time what it holds: it is going, ends by then, or can be told to go by then."""
    if attempt.phase is Phase.STOPPING or attempt.gang in tally.told:
        return True
    window, spec = _window(protection, world.now_ms), attempt.spec
    if window is None or spec is None or world.now_ms >= window[0]:
        return False
    end_ms = latest_end(attempt, world.rules, world.now_ms)
    if end_ms is not None and end_ms - world.rules.stop_ms + _stop_ms(spec, world) <= window[0]:
        return True
    return not _is_closed(protection, world.now_ms) and spec.preemptible


# --- amounts ----------------------------------------------------------------------------------------------------------


def _pool_of(world: World, node: NodeName) -> str:
    row = world.inventory.row.get(node)
    return "" if row is None or not world.inventory.usable[row] else world.inventory.nodes[row].pool


def _holders(world: World, pool: Pool, tally: PoolTally) -> list[tuple[Running, int]]:
    """Return who holds GPUs in a pool, and how many thousandths."""
    if pool.name not in tally.on:
        found = [(attempt, _on(world, pool, attempt)) for attempt in world.running]
        tally.on[pool.name] = [(attempt, milli) for attempt, milli in found if milli]
    return tally.on[pool.name]


def _on(world: World, pool: Pool, attempt: Running) -> int:
    members = attempt.placement.members
    return sum(members[rank].gpu_milli for rank in attempt.holding if _pool_of(world, members[rank].node) == pool.name)


def _class_of(attempt: Running) -> ServiceClass:
    return ServiceClass.TRAINING if attempt.spec is None else attempt.spec.service_class


def _held(world: World, pool: Pool, tally: PoolTally, *, only: ServiceClass | None = None) -> int:
    key = ("held", pool.name, only)
    if key not in tally.sums:
        holders = _holders(world, pool, tally)
        tally.sums[key] = sum(milli for a, milli in holders if only is None or _class_of(a) is only)
    return tally.sums[key] + sum(
        milli
        for gang, node, milli in tally.placed
        if _pool_of(world, node) == pool.name and (only is None or gang.service_class is only)
    )


def _staying(pool: Pool, protection: Protection, world: World, tally: PoolTally) -> int:
    """Return what others hold in a pool and will not have given back in time."""
    key = ("staying", pool.name, protection, len(tally.told))
    if key not in tally.sums:
        others = [h for h in _holders(world, pool, tally) if _class_of(h[0]) is not protection.service_class]
        tally.sums[key] = sum(milli for a, milli in others if not _leaves(a, protection, world, tally))
    closed = _is_closed(protection, world.now_ms)
    return tally.sums[key] + sum(
        milli
        for gang, node, milli in tally.placed
        if gang.service_class is not protection.service_class
        and _pool_of(world, node) == pool.name
        and (closed or not _may_borrow(gang, pool, protection, world))
    )


def _capacity(world: World, pool: Pool, tally: PoolTally) -> int:
    """Return what a pool has: what is free, what is left of devices in part, and what is held, before the plan."""
    key = ("capacity", pool.name)
    if key not in tally.sums:
        parts = sum(int(world.part_free_milli[row]) for row in _rows(world, pool))
        held = sum(milli for _, milli in _holders(world, pool, tally))
        tally.sums[key] = 1000 * sum(_free(world, pool, ()).values()) + parts + held
    return tally.sums[key]


def _rows(world: World, pool: Pool) -> list[int]:
    return [r for r, node in enumerate(world.inventory.nodes) if node.pool == pool.name and world.inventory.usable[r]]


def _free(world: World, pool: Pool, placed: list[tuple[Gang, NodeName, int]] | tuple[()]) -> dict[int, int]:
    """Return row -> healthy GPUs that nobody has a part of."""
    rows = _rows(world, pool)
    masks = world.free.free_mask[rows] & world.inventory.healthy_mask[rows]
    free = dict(zip(rows, np.bitwise_count(masks).tolist(), strict=True))
    for _, node, milli in placed:
        row = world.inventory.row.get(node, -1)
        if row in free:
            free[row] -= milli // 1000
    return free


def _whole_nodes(world: World, pool: Pool, free: dict[int, int]) -> list[int]:
    """Return the rows of nodes on which every GPU is free."""
    healthy = world.inventory.healthy_mask
    return [row for row, gpus in free.items() if gpus and gpus == int(healthy[row]).bit_count()]


def _spare_milli(world: World, pool: Pool) -> dict[str, int]:
    spares, rows = pool.spares, _rows(world, pool)
    gpus = int(np.bitwise_count(world.inventory.healthy_mask[rows]).sum())
    above = 0 if pool.ceiling_percent is None else -(-gpus * (100 - pool.ceiling_percent) // 100)
    free = _free(world, pool, ())
    hot = _whole_nodes(world, pool, free)[: spares.hot_nodes if spares is not None else 0]
    return {
        "warm": 1000 * spares.warm_gpus if spares is not None else 0,
        "ceiling": 1000 * above,
        "hot": 1000 * sum(free[row] for row in hot),
    }


def _is_short(pool: Pool, protection: Protection, world: World, tally: PoolTally) -> bool:
    """Whether what is free or on its way back does not make up a protected amount yet."""
    if not _is_closed(protection, world.now_ms):
        return False
    unmet = 1000 * protection.amount - _held(world, pool, tally, only=protection.service_class)
    back = {row: 1000 * gpus for row, gpus in _free(world, pool, ()).items()}
    for attempt, _ in _holders(world, pool, tally):
        if _class_of(attempt) is not protection.service_class and _leaves(attempt, protection, world, tally):
            for rank in attempt.holding:
                member = attempt.placement.members[rank]
                if _pool_of(world, member.node) == pool.name:
                    back[world.inventory.row[member.node]] += member.gpu_milli
    unit = 1000 * protection.unit_gpus
    counted = sum(milli // unit * unit for milli in back.values()) - sum(_spare_milli(world, pool).values())
    return counted < unmet
