"""What a placement loses against an idle fleet: the same search with nothing else there, and the difference as time.

A gang is judged by what it asks for itself: its own levels, spreads and pods, the model that it got, and as many
members as it got. So what a user requires costs the platform nothing; what others hold does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from fairlead.model.gang import Gang, Member, Placement
from fairlead.model.tenancy import Pool
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.units import pace_text
from fairlead.world.fleet import Inventory
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import World

TALK_PERMILLE = 250
"""The part of its running time that a gang is taken to spend on its slowest edge. Nobody measures it; what is published
of training clusters lies between a tenth and more than a half."""
SHAPES_REMEMBERED = 4_096
_SAID = "its slowest link gives "


def slowed_permille(pace: int, best: int) -> int:
    """Return the part of the running time that would not be needed at the best pace, in thousandths; 0 unknown."""
    return TALK_PERMILLE * (best - pace) // best if 0 < pace < best else 0


class IdleFleet:
    """Searches over a world with nothing on it; what it found for a shape is kept until a node changes."""

    def __init__(self) -> None:
        """Know nothing."""
        self._placer: Placer | None = None
        self._pools: tuple[Pool, ...] = ()
        self._of = -1
        self._best: dict[tuple[object, ...], int] = {}

    def judged(self, gang: Gang, placement: Placement, world: World, left: Collection[int] = ()) -> Placement:
        """Return a placement with what it loses, in thousandths of its running time and in words.

        Members whose ranks are in `left` hold nothing any more.
        """
        pace = placement.pace_bytes_per_s
        there = [member for member in placement.members if member.rank not in left]
        best = self._pace_of(_as_placed(gang, there, world.inventory), world) if pace else 0
        lost = slowed_permille(pace, best)
        others = tuple(text for text in placement.penalties if not text.startswith(_SAID))
        if not lost:
            return replace(placement, slowed_permille=0, penalties=others)
        percent = f"{lost // 10}.{lost % 10} %"
        text = f"{_SAID}{pace_text(pace)}, on an idle fleet {pace_text(best)}: about {percent} of its time"
        return replace(placement, slowed_permille=lost, penalties=(text, *others))

    def _pace_of(self, gang: Gang, world: World) -> int:
        """Return the pace that a gang would have with nothing else there, 0 where no place was found."""
        pools = tuple(world.pools[name] for name in sorted(world.pools))
        if self._of != world.inventory.version or self._pools != pools or len(self._best) >= SHAPES_REMEMBERED:
            self._of, self._best = world.inventory.version, {}
        shape = (gang.roles, gang.topology, gang.service_class, gang.mixed_models)
        if shape not in self._best:
            placer = self._placer_over(replace(world, free=world.offered, ports={}), pools)
            mark = placer.overlay.checkpoint()
            found = placer.place(gang).placement
            placer.overlay.roll_back(mark)
            self._best[shape] = 0 if found is None else found.pace_bytes_per_s
        return self._best[shape]

    def _placer_over(self, idle: World, pools: tuple[Pool, ...]) -> Placer:
        if self._placer is None or self._pools != pools or not self._placer.follow(idle):
            self._placer, self._pools = Placer(Overlay(idle), Feasibility(idle.inventory, idle.pools)), pools
        return self._placer


def _as_placed(gang: Gang, members: Sequence[Member], inventory: Inventory) -> Gang:
    """Return the gang as if it had asked for just what it got: so many replicas, and devices of that model."""
    counts = Counter(member.role for member in members)
    first = {member.role: member for member in reversed(members)}
    roles = tuple(
        replace(
            role,
            replicas=counts[role.name],
            min_replicas=None,
            gpu_model=role.gpu_model if gang.mixed_models else _model_of(first[role.name], inventory, role.gpu_model),
        )
        for role in gang.roles
        if counts[role.name]
    )
    return replace(gang, roles=roles)


def _model_of(member: Member, inventory: Inventory, asked: str) -> str:
    row = inventory.row.get(member.node)
    gpus = () if row is None else inventory.nodes[row].machine.gpus
    model = next((gpu.model for gpu in gpus if gpu.device in member.devices), "")
    return f"={model}" if model else asked
