"""One attempt as a victim: what it would free on each node, what that costs, and in which parts it may be taken.

A gang that is not elastic is one part and goes whole. Of an elastic one each unit of members that it can do without is
a part of its own, and the rest another, with which everybody goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, GangId, Member
from fairlead.model.quota import Amounts
from fairlead.model.rules import Rules, Unsaving
from fairlead.placement.amounts import FIXED
from fairlead.placement.lost_work import NOT_STARTED, Price, price_of
from fairlead.placement.spares import spare_units
from fairlead.world.attempt_parts import also_of
from fairlead.world.fleet import Inventory
from fairlead.world.overlay import Taking, taking_of, uses_of
from fairlead.world.snapshot import Running
from fairlead.world.use import use_of

WHOLE = 1 << 20
"""The depth of what goes with everybody."""
DEAR = 1 << 42
"""A price in ms that no device has, small enough to be multiplied by devices."""


class Kind(IntEnum):
    """How victims are asked, the first kind first: those who come later only where those before them do not do."""

    SPARE = 0  # members that an elastic gang can do without, and whoever has no right to what it holds
    SAVES = 1
    ANY = 2
    PROTECTED = 3  # for now nobody may: counted only to say so


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a victim holds on one row.

    mask, parts devices, as bits, that it holds whole, or lies on with shares or MIG instances
    amounts     those of `FIXED`, then extended resources by name
    plain       it holds no part of a device and no host port, so amounts and bits say all
    """

    row: int
    mask: int
    parts: int
    amounts: tuple[int, ...]
    cpus: int
    nics: int
    plain: bool


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """An attempt that may be taken from, row by row; or one part of an elastic one.

    Of an elastic gang each unit of members that it can do without is a victim of its own, and the rest of it another.
    `depth` is how many units of its role must go before, this one included; that of the rest is `WHOLE`: with it
    everybody goes. `ranks` are those of a unit, () of the rest. `whole_gpus` are the devices that lose their work with
    it, `spared` what its own units are charged for that, in GPU-ms, and `whole_milli` what its queue loses.
    """

    attempt: Running
    gang: GangId
    key: str
    priority: int
    kind: Kind
    gpus: int
    gpu_milli: int
    also: Amounts
    price: Price
    nodes: int
    held: tuple[Held, ...]
    whole_gpus: int
    whole_milli: int
    spared: int = 0
    depth: int = WHOLE
    role: str = ""
    ranks: tuple[int, ...] = ()

    @property
    def queue(self) -> str:
        """The queue that is charged for it."""
        return self.attempt.queue

    @property
    def plain(self) -> bool:
        """Whether bits and amounts say all that it holds."""
        return all(held.plain for held in self.held)

    def lost(self, now_ms: int) -> int:
        """GPU-ms that taking it throws away, restart included."""
        return self.whole_milli * self.price.at(now_ms) // 1000 - self.spared

    def goes_with(self, other: Victim) -> bool:
        """Whether taking the other, of the same gang, takes this one too."""
        return other.depth == WHOLE or (other.role == self.role and other.depth >= self.depth)

    def price_on_a_row(self, now_ms: int) -> int:
        """Its price, shared among its rows: one that must go anyway costs little on the next row."""
        return self.lost(now_ms) // self.nodes


def parts_of(
    attempt: Running, inventory: Inventory, extended: tuple[str, ...], counted: tuple[str, ...], *, protected: bool
) -> tuple[Victim, ...]:
    """Return the units that an elastic gang can do without, the first to go first, and the rest of it.

    `extended` names the resources that follow `FIXED` in amounts, `counted` what queues are charged for beside GPUs.
    Who is `protected` is only counted.
    """
    spec, price = attempt.spec, price_of(attempt)
    assert spec is not None, attempt
    kind = Kind.PROTECTED if protected else Kind.ANY if spec.checkpoint is None else Kind.SAVES
    if attempt.demoted and not protected:
        kind = Kind.SPARE
    rest = Victim(
        attempt=attempt,
        gang=attempt.gang,
        key=attempt.gang,
        priority=spec.priority,
        kind=kind,
        gpus=attempt.gpus,
        gpu_milli=attempt.gpu_milli,
        also=attempt.also,
        price=price,
        nodes=len({member.node for member in attempt.placement.members}) or 1,
        held=_held_by(attempt, sorted(attempt.holding), inventory, extended),
        whole_gpus=attempt.gpus,
        whole_milli=attempt.gpu_milli,
    )
    units = spare_units(attempt) if spec.is_elastic else []
    if not units:
        return (rest,)
    members = attempt.placement.members
    spares = [_unit(attempt, rest, depth, ranks, inventory, extended, counted) for depth, ranks in units]
    left = tuple(sorted(attempt.holding.difference(*(ranks for _, ranks in units))))
    rest = replace(
        rest,
        gpus=sum(len(members[rank].devices) for rank in left),
        gpu_milli=sum(members[rank].gpu_milli for rank in left),
        also=also_of(attempt, left, inventory, counted),
        nodes=len({members[rank].node for rank in left}) or 1,
        held=_held_by(attempt, left, inventory, extended),
        spared=sum(unit.lost(0) for unit in spares),
        ranks=left,
    )
    return (*spares, rest)


def _unit(
    attempt: Running,
    rest: Victim,
    depth: int,
    ranks: tuple[int, ...],
    inventory: Inventory,
    extended: tuple[str, ...],
    counted: tuple[str, ...],
) -> Victim:
    """Return what may leave an elastic gang together, as the victim that it is without the others."""
    members = attempt.placement.members
    role, gpus = members[ranks[0]].role, sum(len(members[rank].devices) for rank in ranks)
    milli = sum(members[rank].gpu_milli for rank in ranks)
    return replace(
        rest,
        key=f"{attempt.gang}/{role}/{depth:06}",
        kind=Kind.PROTECTED if rest.kind is Kind.PROTECTED else Kind.SPARE,
        gpus=gpus,
        gpu_milli=milli,
        also=also_of(attempt, ranks, inventory, counted),
        price=Price(NOT_STARTED, NOT_STARTED, rest.price.restart_ms),
        nodes=len({members[rank].node for rank in ranks}),
        held=_held_by(attempt, ranks, inventory, extended),
        whole_gpus=gpus,
        whole_milli=milli,
        depth=depth,
        role=role,
        ranks=ranks,
    )


def _held_by(
    attempt: Running, ranks: Sequence[int], inventory: Inventory, extended: tuple[str, ...]
) -> tuple[Held, ...]:
    spec, members = attempt.spec, attempt.placement.members
    assert spec is not None, attempt
    by_row: dict[int, list[Member]] = {}
    for rank in ranks:
        row = inventory.row.get(members[rank].node)
        if row is not None:
            by_row.setdefault(row, []).append(members[rank])
    return tuple([_held(row, on_row, spec, inventory, extended) for row, on_row in by_row.items()])


def _held(row: int, members: Sequence[Member], spec: Gang, inventory: Inventory, extended: tuple[str, ...]) -> Held:
    mask = parts = cpus = nics = 0
    amounts = [0] * (len(FIXED) + len(extended))
    plain = True
    for member in members:
        use = use_of(spec, member)
        devices, asked = inventory.mask(row, use.devices), use.shape.requests
        if use.share is not None or use.mig:
            parts |= devices
        else:
            mask |= devices
        if use.cpus or use.nics:
            cpus ^= use.cpu_bits
            nics ^= inventory.nic_mask(row, use.nics)
        amounts[0] += asked.cpu_milli
        amounts[1] += asked.memory_bytes
        amounts[2] += asked.ephemeral_bytes
        amounts[3] += asked.pods
        for name, amount in asked.extended:
            if name in extended:
                amounts[len(FIXED) + extended.index(name)] += amount
        plain = plain and use.share is None and not use.mig and not use.shape.host_ports
    healthy = int(inventory.healthy_mask[row])
    in_parts = parts & (healthy | int(inventory.mig_mask[row]))
    return Held(row, mask & healthy, in_parts, tuple(amounts), cpus, nics, plain)


def takings_on(victim: Victim, row: int, inventory: Inventory) -> list[Taking]:
    """Return what a victim's members took of one row, one by one."""
    uses = uses_of(victim.attempt, inventory)
    if not victim.ranks:
        return [taking_of(inventory, at, use) for at, use in uses if at == row]
    spec, members = victim.attempt.spec, victim.attempt.placement.members
    ours = [members[rank] for rank in victim.ranks if inventory.row.get(members[rank].node) == row]
    return [taking_of(inventory, row, use_of(spec, member)) for member in ours]


def may_yield(attempt: Running, rules: Rules) -> bool:
    """Whether anybody may have a right to it as soon as it is ripe."""
    spec = attempt.spec
    if spec is None or attempt.phase not in (Phase.STARTING, Phase.RUNNING) or attempt.gone or attempt.leaving:
        return False
    if spec.checkpoint is None and rules.unsaving == Unsaving.NEVER:
        return False
    return spec.preemptible and bool(attempt.holding)
