"""The second opinion on promises and holes, written from the rules alone: see docs/explanation/time.md.

A promise may be given for devices that are well and whose holders have enforced ends before its start, or may be
stopped for it; two promises for one device do not overlap. Who is placed on a promised device is gone before: by its
declared duration, or because it may be stopped. Who is stopped for a promise holds a device of it that is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.model.effects import Effect, Grow, Nominate, Notice, Phase, Place, Stop
from fairlead.model.gang import Gang, GangId, Placement
from fairlead.model.promises import EndPromise, Promise, Promised
from fairlead.model.reasons import Reason
from fairlead.units import utc_text
from fairlead.world.snapshot import Running, World

Slot = tuple[str, str]
"""(node, device)."""


@dataclass(slots=True)
class TimeTally:
    """What is promised as the plan goes on, by device, and who holds what, counted anew and only where it is needed."""

    world: World
    given: dict[GangId, Promised | Promise] = field(default_factory=dict[GangId, Promised | Promise])
    by_slot: dict[Slot, list[GangId]] = field(default_factory=dict[Slot, list[GangId]])
    holders: dict[Slot, list[Running]] | None = None

    def __post_init__(self) -> None:
        """Start with the promises of the world."""
        for promise in self.world.promises:
            self.add(promise)

    def add(self, promise: Promised | Promise) -> None:
        """Count a promise in."""
        self.given[promise.gang] = promise
        for slot in _slots(promise.placement):
            self.by_slot.setdefault(slot, []).append(promise.gang)

    def drop(self, gang: GangId) -> None:
        """Count a promise out."""
        promise = self.given.pop(gang, None)
        for slot in set() if promise is None else _slots(promise.placement):
            self.by_slot[slot].remove(gang)

    def held(self, slot: Slot) -> list[Running]:
        """Return the attempts that hold a device, whole or in part."""
        if self.holders is None:
            self.holders = {}
            for attempt in self.world.running:
                for rank in attempt.holding:
                    member = attempt.placement.members[rank]
                    for device in member.devices:
                        self.holders.setdefault((member.node, device), []).append(attempt)
        return self.holders.get(slot, [])


def check_time(effect: Effect, tally: TimeTally) -> Iterator[str]:
    """Yield what an effect breaks of the rules of promises and holes; earlier effects are in the tally."""
    match effect:
        case Promise():
            yield from _check_promise(effect, tally)
            tally.add(effect)
        case EndPromise():
            if effect.gang not in tally.given:
                yield f"{effect.gang}: the end of a promise that was not given"
            tally.drop(effect.gang)
        case Place():
            waiting = tally.world.waiting.get(effect.gang)
            if tally.given and waiting is not None:
                yield from _check_holes(waiting.gang, effect.placement, tally)
        case Grow():
            new = tuple(effect.placement.members[rank] for rank in effect.ranks)
            kept = {gang for slot in _slots(Placement(members=new)) for gang in tally.by_slot.get(slot, [])}
            if kept - {effect.gang}:
                yield f"{effect.gang}: grows on devices that are promised to others"
        case Nominate():
            others = [gang for slot in _slots(effect.placement) for gang in tally.by_slot.get(slot, [])]
            if any(gang != effect.gang for gang in others):
                yield f"{effect.gang}: room is made on devices that are promised to others"
        case Stop(cause=cause) | Notice(cause=cause) if cause.reason is Reason.HOLE_ENDED:
            yield from _check_stop(effect, tally)
        case _:
            return


def _slots(placement: Placement) -> set[Slot]:
    return {(member.node, device) for member in placement.members for device in member.devices}


def _check_promise(effect: Promise, tally: TimeTally) -> Iterator[str]:
    world, waiting = tally.world, tally.world.waiting.get(effect.gang)
    if waiting is None:
        yield f"{effect.gang}: promised without waiting"
        return
    gang = waiting.gang
    if effect.gang in tally.given:
        yield f"{gang.full_name}: promised twice"
    if effect.latest_start_ms <= world.now_ms:
        yield f"{gang.full_name}: promised for a moment that is past"
    yield from _check_count(effect, gang, tally)
    counts = {role.name: sum(m.role == role.name for m in effect.placement.members) for role in gang.roles}
    needed = sum(counts[role.name] * role.gpus for role in gang.roles)
    if len(_slots(effect.placement)) != needed or sum(counts.values()) != len(effect.placement.members):
        yield f"{gang.full_name}: promised {len(_slots(effect.placement))} devices and needs {needed}"
    if not all(role.fewest <= counts[role.name] <= role.replicas for role in gang.roles):
        yield f"{gang.full_name}: promised {len(effect.placement.members)} of {gang.members} members"
    for node, device in sorted(_slots(effect.placement)):
        row = world.inventory.row.get(node)  # type: ignore[call-overload]
        gpus = () if row is None else world.inventory.nodes[row].machine.gpus
        if not any(gpu.device == device and gpu.healthy for gpu in gpus):
            yield f"{gang.full_name}: promised {node}/{device}, which is not there or not well"
        for attempt in tally.held((node, device)):
            end_ms = _end_of(attempt, world)
            late = end_ms is None or end_ms > effect.latest_start_ms
            if late and not _may_be_stopped(effect, gang, attempt, world):
                yield f"{gang.full_name}: promised {node}/{device}, whose holder need not be gone by then"
        for other in tally.by_slot.get((node, device), []):
            if not _apart(effect, gang, tally.given[other], tally):
                yield f"{gang.full_name}: promised {node}/{device}, which is promised already"


def _check_count(effect: Promise, gang: Gang, tally: TimeTally) -> Iterator[str]:
    """No more promises than the rules, and for those who asked the queue, allow."""
    if not effect.hero:
        if sum(not one.hero for one in tally.given.values()) >= tally.world.rules.promises:
            yield f"{gang.full_name}: one promise more than the rules allow"
        return
    queue = tally.world.queues.get(gang.queue)
    mine = [one for one in tally.given.values() if one.hero and _queue_of(one.gang, tally.world) == gang.queue]
    if not gang.wants_promise or queue is None or len(mine) >= queue.promised_jobs:
        yield f"{gang.full_name}: a promise that its queue does not allow"


def _queue_of(gang: GangId, world: World) -> str:
    waiting, running = world.waiting.get(gang), world.running.everyone.get(gang)
    return waiting.gang.queue if waiting is not None else "" if running is None else running.queue


def _end_of(attempt: Running, world: World) -> int | None:
    """Return when an attempt is over at the latest: never before now, never without a declared duration."""
    if attempt.notice is not None:
        return attempt.notice.until_ms
    if attempt.phase is Phase.STOPPING:
        return world.now_ms
    if attempt.spec is None or attempt.spec.duration_ms is None:
        return None
    if attempt.all_running_ms is not None:
        return attempt.all_running_ms + attempt.spec.duration_ms
    begun = attempt.bound_ms if attempt.bound_ms is not None else max(world.now_ms, attempt.deadline_ms)
    return begun + attempt.spec.start_deadline_ms + attempt.spec.duration_ms


def _may_be_stopped(effect: Promise, gang: Gang, attempt: Running, world: World) -> bool:
    """Whether a holder without an end in time is named, of the asker's queue, preemptible and not of more priority.

    It has the notice that the queue gives for those who ask, or the rules for those who have waited long.
    """
    if (attempt.gang, attempt.attempt) not in effect.stops or attempt.spec is None:
        return False
    queue = world.queues.get(gang.queue)
    if effect.hero:
        notice_ms = 0 if queue is None else queue.promise_notice_ms
    elif gang.submitted_ms + world.rules.patience_ms <= world.now_ms:
        notice_ms = world.rules.notice_ms
    else:
        return False
    if effect.latest_start_ms < world.now_ms + notice_ms:
        return False
    return attempt.spec.preemptible and attempt.queue == gang.queue and attempt.spec.priority <= gang.priority


def _apart(effect: Promise, gang: Gang, other: Promised | Promise, tally: TimeTally) -> bool:
    """Whether one of two promises for a device is over before the other begins."""
    first, then = sorted((effect, other), key=lambda one: one.latest_start_ms)
    waiting = tally.world.waiting.get(first.gang)
    running = tally.world.running.everyone.get(first.gang)
    spec = waiting.gang if waiting is not None else None if running is None else running.spec
    if spec is None or spec.duration_ms is None:
        return False
    return first.latest_start_ms + spec.duration_ms <= then.latest_start_ms


def _check_holes(gang: Gang, placement: Placement, tally: TimeTally) -> Iterator[str]:
    """Who goes where others were promised to be later is gone by then, or may be stopped."""
    world = tally.world
    for slot in sorted(_slots(placement) & tally.by_slot.keys()):
        for other in tally.by_slot[slot]:
            start_ms = tally.given[other].latest_start_ms
            enforced = gang.duration_ms is not None and world.now_ms + gang.duration_ms <= start_ms
            if other != gang.id and not enforced and not (gang.preemptible and start_ms > world.now_ms):
                yield f"{gang.full_name}: on {slot[0]}/{slot[1]}, which is promised from {utc_text(start_ms)} on"
                return


def _check_stop(effect: Stop | Notice, tally: TimeTally) -> Iterator[str]:
    """Stopped for a hole's end: it holds a device of a promise that is due, and comes back to its queue."""
    world = tally.world
    attempt = world.running.get(effect.gang, effect.attempt)
    if attempt is None or attempt.notice is not None:  # that it was due was settled when it was asked to save
        return
    members = [attempt.placement.members[rank] for rank in attempt.holding]
    slots = {(member.node, device) for member in members for device in member.devices}
    grace_ms = 0 if attempt.spec is None or attempt.spec.checkpoint is None else attempt.spec.grace_ms
    due = world.now_ms + world.rules.stop_ms + (grace_ms + world.rules.stagger_max_ms if grace_ms else 0)
    promises = [tally.given[gang] for slot in slots for gang in tally.by_slot.get(slot, []) if gang in tally.given]
    if not any(one.latest_start_ms <= due for one in promises) or not effect.requeue:
        yield f"{effect.gang}: stopped for a promise that is not due"
    if attempt.spec is not None and not attempt.spec.preemptible and attempt.spec.duration_ms is None:
        yield f"{attempt.spec.full_name}: stopped for a promise although it may not be"
