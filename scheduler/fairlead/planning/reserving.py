"""Reservations inside one cycle: whom they keep out, who is stopped for them, and what room their owner may make.

Before its time a reservation is a hole like one before a promise: who goes there is gone by its start, or may be
stopped then. In its time its nodes are its owner's; others are let in only as guests of a lendable one, as long as the
owner does not ask. Nobody is let into maintenance.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.model.effects import Effect, Phase, Stop
from fairlead.model.gang import Gang, GangId, Placement, PodShape
from fairlead.model.reasons import Reason, refuse
from fairlead.placement.amounts import FIXED
from fairlead.placement.placer import Placer
from fairlead.planning.end_calendar import Calendar, Entry, entry_of
from fairlead.planning.shield import Kept
from fairlead.world.ends import lead_ms
from fairlead.world.overlay import Taking
from fairlead.world.reservations import Reserved
from fairlead.world.snapshot import Running, World

PLENTY = 1 << 50
"""More of any amount than a node has: everything on it is kept."""


class Reserving:
    """What stands reserved, for one cycle. Costs nothing where nothing is."""

    def __init__(self, world: World, placer: Placer, chains: Mapping[str, tuple[str, ...]], calendar: Calendar) -> None:
        """Look at what stands; `chains` are each queue and those above it."""
        self._world = world
        self._placer = placer
        self._chains = chains
        self._calendar = calendar
        self._kept: list[tuple[Reserved, Kept]] = []
        if not world.reserved:
            return
        calendar.follow(world)
        everything = (PLENTY,) * (len(FIXED) + len(placer.overlay.columns.extended))
        for one in world.reserved:
            rows = tuple((row, int(world.inventory.all_mask[row]), everything) for row in one.rows)
            self._kept.append((one, Kept(GangId(f"reservation/{one.reservation.name}"), one.start_ms, rows, True)))

    def __bool__(self) -> bool:
        """Whether anything is reserved."""
        return bool(self._kept)

    def entries(self) -> list[Entry]:
        """Return what is reserved as held for ever: nobody is promised any of it."""
        found: list[Entry] = []
        for one, kept in self._kept:
            takings = [Taking(row, mask, PodShape()) for row, mask, _ in kept.rows]
            found.append(entry_of(kept.holder, one.reservation.queue, None, takings))
        return found

    def kept_from(self, gang: Gang, gone_by_ms: int) -> tuple[Kept, ...]:
        """Return what a gang must be kept out of if it would be gone by then."""
        return tuple(kept for one, kept in self._kept if not self._may_enter(gang, one, gone_by_ms))

    def _may_enter(self, gang: Gang, one: Reserved, gone_by_ms: int) -> bool:
        if self._owns(gang.queue, one):
            return True
        if one.start_ms > self._world.now_ms:
            return gone_by_ms <= one.start_ms or not one.reservation.pre_drain
        return gang.preemptible and one.reservation.lendable and not one.reservation.is_maintenance

    def _owns(self, queue: str, one: Reserved) -> bool:
        return bool(one.reservation.queue) and one.reservation.queue in self._chains.get(queue, ())

    # --- who is stopped ---------------------------------------------------------------------------------------------

    def clear(self, at_most: int, stopped: set[GangId]) -> list[Effect]:
        """Return stops of those who must be gone by a start, as long before as that takes."""
        found: list[Effect] = []
        for one, _ in self._kept:
            reservation, left_ms = one.reservation, one.start_ms - self._world.now_ms
            if not reservation.pre_drain or (reservation.lendable and not reservation.is_maintenance):
                continue
            for entry in self._guests(one):
                attempt = entry.attempt
                if attempt is None or attempt.spec is None or len(found) >= at_most or entry.owner in stopped:
                    continue
                if left_ms > lead_ms(attempt.spec, self._world.rules) or not _may_be_stopped(attempt, one):
                    continue
                stopped.add(entry.owner)
                cause = refuse(Reason.RESERVATION_BEGINS)
                found.append(Stop(gang=entry.owner, attempt=attempt.attempt, cause=cause, requeue=True))
        return found

    def _guests(self, one: Reserved) -> list[Entry]:
        """Return who holds something on reserved nodes and does not own them, by uid."""
        owners = sorted({gang for row in one.rows for gang in self._calendar.on_row.get(row, ())})
        entries = [self._calendar.entries[gang] for gang in owners]
        return [
            entry
            for entry in entries
            if entry.attempt is not None
            and entry.attempt.phase is not Phase.STOPPING
            and entry.attempt.notice is None
            and not self._owns(entry.queue, one)
        ]

    def room_for(self, gang: Gang, spared: set[GangId]) -> tuple[Placement, list[Running]] | None:
        """Return a place on nodes that are the gang's own now, and the guests who must leave it; None where none is."""
        now = self._world.now_ms
        mine = [one for one, _ in self._kept if one.start_ms <= now and self._owns(gang.queue, one)]
        guests = [entry for one in mine for entry in self._guests(one) if entry.owner not in spared]
        guests = [entry for entry in guests if entry.attempt is not None and entry.attempt.spec is not None]
        leaving = [entry for entry in guests if entry.attempt and entry.attempt.spec and entry.attempt.spec.preemptible]
        if not leaving:
            return None
        overlay = self._placer.overlay
        mark = overlay.checkpoint()
        for entry in leaving:
            for taking in entry.takings:
                overlay.give(taking)
        placement = self._placer.place(gang).placement
        overlay.roll_back(mark)
        if placement is None:
            return None
        wanted = {(member.node, device) for member in placement.members for device in member.devices}
        nodes = {member.node for member in placement.members}
        victims: list[Running] = []
        for entry in leaving:
            attempt = entry.attempt
            assert attempt is not None, entry
            members = [attempt.placement.members[rank] for rank in sorted(attempt.holding)]
            held = {(member.node, device) for member in members for device in member.devices}
            if held & wanted or (not held and nodes & {member.node for member in members}):
                victims.append(attempt)
        return placement, victims

    def wakes(self) -> list[int]:
        """Return the next moments at which a reservation begins, ends, or stops somebody, in no order."""
        now, rules = self._world.now_ms, self._world.rules
        moments: set[int] = set()
        for one, _ in self._kept:
            specs = [entry.attempt.spec for entry in self._guests(one) if entry.attempt is not None]
            leads = {lead_ms(spec, rules) for spec in specs if spec is not None}
            moments |= {one.start_ms, one.end_ms, *(one.start_ms - lead for lead in leads)}
        return [moment for moment in moments if moment > now]


def _may_be_stopped(attempt: Running, one: Reserved) -> bool:
    return one.reservation.stop_all or (attempt.spec is not None and attempt.spec.preemptible)
