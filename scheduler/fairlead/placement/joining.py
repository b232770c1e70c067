"""Members that join a running gang: what part of it is missing, where that may go, and what the gang is with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fairlead.model.gang import Gang, Member, Placement, Role, TopologyRequest
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.spares import unit_of
from fairlead.world.fleet import BoolColumn, Inventory
from fairlead.world.ripeness import MOST_MEMBERS
from fairlead.world.snapshot import Running
from fairlead.world.span import span_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A gang that grows: `part` is what is new as a gang of its own, `joined` where that goes, `whole` all of it."""

    attempt: Running
    part: Gang
    joined: Placement
    whole: Placement


def parts_of(attempt: Running, inventory: Inventory) -> Iterator[tuple[Role, Gang]]:
    """Yield roles that are short of members, each with what is missing as a gang that takes what there is room for.

    Members come in whole slices, and have GPUs of the model that those at work have. Those of a role with a `spread`
    stay as many as they are: what is even now need not be even with one more.
    """
    spec = attempt.spec
    assert spec is not None, attempt
    for role in spec.roles:
        unit, there = unit_of(spec, role), _at_work(attempt, role)
        most = min(role.replicas - len(there), MOST_MEMBERS - len(attempt.placement.members))
        missing = most // unit * unit
        if missing <= 0 or role.spread:
            continue
        model = "" if spec.mixed_models else _model_of(there, inventory)
        wanted = replace(role, replicas=missing, min_replicas=unit, gpu_model=f"={model}" if model else role.gpu_model)
        yield role, replace(spec, roles=(wanted,), topology=spec.topology if len(spec.roles) == 1 else None)


def rows_for(attempt: Running, role: Role, inventory: Inventory) -> Iterator[BoolColumn]:
    """Yield rows on which new members of a role may lie: those of the domain that the gang is in, then all it may use.

    A level that is required holds for old and new members together.
    """
    spec = attempt.spec
    assert spec is not None, attempt
    rows: BoolColumn = np.ones(len(inventory.nodes), dtype=np.bool_)
    for wish, members in ((spec.topology, _at_work(attempt)), (role.topology, _at_work(attempt, role))):
        if wish is not None and wish.required and members:
            rows = rows & _beside(members, wish, inventory)
    level = inventory.levels.get(attempt.placement.level)
    if level is not None and attempt.placement.domain in level.names:
        yield rows & (level.domain_of == level.names.index(attempt.placement.domain))
    yield rows


def _beside(members: list[Member], wish: TopologyRequest, inventory: Inventory) -> BoolColumn:
    """Return the rows of the domain in which members are that have to be in one."""
    level, row = inventory.levels.get(wish.within), inventory.row.get(members[0].node)
    if level is None or row is None:
        return np.full(len(inventory.nodes), wish.within == "cluster", dtype=np.bool_)
    rows: BoolColumn = (level.domain_of == level.domain_of[row]) & (level.domain_of >= 0)
    return rows


def _at_work(attempt: Running, role: Role | None = None) -> list[Member]:
    members = (attempt.placement.members[rank] for rank in sorted(attempt.at_work))
    return [member for member in members if role is None or member.role == role.name]


def _model_of(members: list[Member], inventory: Inventory) -> str:
    for member in members:
        row = inventory.row.get(member.node)
        gpus = () if row is None else inventory.nodes[row].machine.gpus
        for gpu in gpus:
            if gpu.device in member.devices:
                return gpu.model
    return ""


def grown(attempt: Running, part: Gang, placement: Placement, inventory: Inventory, paces: GangPaces) -> Growth:
    """Return the growth by which members are where `placement` has them.

    They get ranks and numbers that nobody has had in this attempt, so that no name means two pods.
    """
    before = attempt.placement
    first = len(before.members)
    index = 1 + max((member.index for member in before.members if member.role == part.roles[0].name), default=-1)
    new = [
        replace(member, rank=first + position, index=index + position)
        for position, member in enumerate(placement.members)
    ]
    there = [*_at_work(attempt), *new]
    level, domain = _tightest(there, inventory)
    whole = replace(
        before,
        members=(*before.members, *new),
        level=level,
        domain=domain,
        pace_bytes_per_s=_pace(there, inventory, paces),
        span=span_of(inventory, there, lambda row: paces.table(row).shape.linked),
        penalties=tuple(dict.fromkeys((*before.penalties, *placement.penalties))),
    )
    return Growth(attempt=attempt, part=part, joined=replace(placement, members=tuple(new)), whole=whole)


def _tightest(members: list[Member], inventory: Inventory) -> tuple[str, str]:
    """Return the level with the most domains of which one holds all members, and that domain."""
    rows = np.array([inventory.row[member.node] for member in members if member.node in inventory.row], dtype=np.int64)
    levels = sorted(inventory.levels.values(), key=lambda level: (-len(level.names), level.name))
    for level in levels:
        domains = np.unique(level.domain_of[rows])
        if len(domains) == 1 and int(domains[0]) >= 0 and level.name != "cluster":
            return level.name, level.names[int(domains[0])]
    return "cluster", ""


def _pace(members: list[Member], inventory: Inventory, paces: GangPaces) -> int:
    whole = [
        (inventory.row[m.node], inventory.mask(inventory.row[m.node], m.devices))
        for m in members
        if m.devices and not m.share_milli and m.node in inventory.row
    ]
    return paces.of(whole, levels=False).bytes_per_s if len(whole) > 1 else 0
