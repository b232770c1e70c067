"""Muri's baselines as a decision for the engine: at every event empty the cluster and fill it anew, shortest job first.

An event is an arrival or an end. SRTF sorts by the time that a job has still to run, SRSF by that times its GPUs; the
sort is stable over the list as the event before left it. A job that does not fit is skipped. Up to a node's GPUs go
to the first node with so many free, more go to the first nodes that are wholly idle.

No rule of ours stops a job like this: the rights to take are what is replaced here. What the engine does with the
decision is as ever: each stop and each placement is checked, written down, performed by the fleet and reported back.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.model.effects import Effect, Phase, Place, Stop
from fairlead.model.gang import Gang, GangId, Member, Placement, Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.care import care
from fairlead.planning.decide import Memo
from fairlead.planning.plan import Plan
from fairlead.world.snapshot import World

EMPTIED = refuse(Reason.PLACE_CONFLICT, detail="the replayed rule empties it at every event")


class EmptyAndRefill:
    """One replay's decider. It remembers the runnable jobs, in the order of the last event."""

    def __init__(self, remaining_us: Mapping[GangId, int], *, times_gpus: bool) -> None:
        """Sort by `remaining_us`, which follows what happens, or by that times GPUs."""
        self._remaining_us, self._times_gpus = remaining_us, times_gpus
        self._runnable: dict[GangId, int] = {}  # -> GPUs
        self._event = False

    def __call__(self, world: World, memo: Memo) -> Plan:
        """Return what ends, and at an event what must stop; once nothing runs any more, all that starts."""
        effects, wake_ms = care(world)
        ending = {effect.gang for effect in effects if isinstance(effect, Stop)}
        if ending:
            self._event = True
            for gang in ending:
                self._runnable.pop(gang, None)
        for waiting in world.waiting:
            if waiting.gang.id not in self._runnable:
                self._event = True
                self._runnable[waiting.gang.id] = waiting.gang.gpus
        if self._event and not effects and not any(True for _ in world.running):
            self._event = False
            effects = self._fill(world)
        elif self._event:
            effects += _empty(world, ending)
        return Plan(version=world.version, effects=tuple(effects), looked=len(effects), wake_at_ms=wake_ms)

    def _fill(self, world: World) -> list[Effect]:
        def weight(item: tuple[GangId, int]) -> int:
            return self._remaining_us[item[0]] * (item[1] if self._times_gpus else 1)

        self._runnable = dict(sorted(self._runnable.items(), key=weight))
        free = [int(mask) for mask in world.free.free_mask]
        effects: list[Effect] = []
        for name, _ in self._runnable.items():
            waiting = world.waiting.get(name)
            assert waiting is not None, name
            members = _seats(waiting.gang, free, world)
            if members:
                effects.append(
                    Place(
                        gang=name,
                        attempt=waiting.attempts + 1,
                        placement=Placement(members=members),
                        tier=Tier.IN_QUOTA,
                        deadline_ms=world.now_ms + world.rules.place_deadline_ms,
                    )
                )
        return effects


def _empty(world: World, ending: set[GangId]) -> list[Effect]:
    return [
        Stop(gang=attempt.gang, attempt=attempt.attempt, cause=EMPTIED, requeue=True)
        for attempt in sorted(world.running, key=lambda attempt: attempt.gang)
        if attempt.phase is not Phase.STOPPING and attempt.gang not in ending
    ]


def _seats(gang: Gang, free: list[int], world: World) -> tuple[Member, ...]:
    """Take devices off `free` for every pod of the gang's one role; () and nothing taken where they do not fit."""
    role = gang.roles[0]
    rows = [row for row, mask in enumerate(free) if mask.bit_count() >= role.gpus][: role.replicas]
    if len(rows) < role.replicas:
        return ()
    members: list[Member] = []
    for rank, row in enumerate(rows):
        chosen = _lowest(free[row], role.gpus)
        free[row] &= ~chosen
        node, devices = world.inventory.nodes[row].name, tuple(world.inventory.devices(row, chosen))
        members.append(Member(role=role.name, index=rank, rank=rank, node=node, devices=devices))
    return tuple(members)


def _lowest(mask: int, count: int) -> int:
    """Return the `count` lowest bits of a mask."""
    chosen = 0
    for _ in range(count):
        bit = mask & -mask
        chosen, mask = chosen | bit, mask ^ bit
    return chosen
