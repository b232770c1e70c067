"""One node's facts as tracks over time, and what they say each of its devices was in.

Of what is true of a device at a moment, the first of these counts: node-lost, unhealthy, held, unmanaged, cordoned,
reserved-idle, stranded, free.

A device that is given in parts is split: every holder has ticks of each ms, and what nobody holds is in one more state.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fairlead.ledger import accounts, tracks
from fairlead.ledger.accounts import Cause, Kind
from fairlead.ledger.entry import Amounts, State
from fairlead.ledger.kept import Kept
from fairlead.ledger.outcomes import AttemptBook, Windows, outcome
from fairlead.ledger.pods import beside_of
from fairlead.model.gang import GangId, Member
from fairlead.model.hardware import Gpu, Node, NodeName, Resources
from fairlead.topology.mig_devices import grid_of_gpu, part_of
from fairlead.topology.mig_grid import grid_milli
from fairlead.units import TICKS_PER_GPU_MS

WHOLE = 1_000  # thousandths of a device

HoldKey = tuple[GangId, int, int]
"""(gang, attempt, rank)."""
Parts = tuple[State, ...]
"""What a device is in at a moment: states whose ticks add up to all it has; () where it is not in the fleet."""
Segments = list[tuple[int, Parts]]
"""(from_ms, parts), in order; they last until the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePoint:
    """What one `NodeSeen` says; `devices` maps a device's name to whether it is healthy.

    `cut` are the GPUs of which MIG devices may be allocated; `slices` maps those that a program has cut to their
    instances, (first unit, thousandths).
    """

    pool: str
    devices: dict[str, bool]
    allocatable: Resources
    lost: bool
    cordoned: bool
    cut: tuple[Gpu, ...] = ()
    slices: dict[str, frozenset[tuple[int, int]]] = field(default_factory=dict[str, frozenset[tuple[int, int]]])

    def gives(self, device: str, hold: MemberHold) -> bool:
        """Whether a device still has what a hold has of it: all but instances that it is not cut into any more."""
        start, cut = hold.member.mig_start, self.slices.get(device)
        return start < 0 or cut is None or (start, hold.milli) in cut


@dataclass(slots=True, kw_only=True)
class MemberHold:
    """One member's hold on devices of one node. `end_ms` None while it is open.

    `milli` is the part of its one device, in thousandths; 0 where its devices are whole. `book` is its attempt's.
    `beside` is what it has of its node beside devices, once the node's track has taken it up. It `joined` when the
    others had held theirs for a while.
    """

    key: HoldKey
    node: str
    devices: tuple[str, ...]
    requests: Resources
    member: Member
    state: State
    begin_ms: int
    book: AttemptBook
    milli: int = 0
    end_ms: int | None = None
    estimated_ms: int = 0
    joined: bool = False
    beside: Amounts = ()

    def state_at(self, at_ms: int, pool: str) -> State:
        """Return what its devices in a pool are in at a moment."""
        state, tier = self.state, tracks.value(self.book.tiers, at_ms)
        account = state.account if tier is None else accounts.of_tier(state.account, tier)
        return replace(state, pool=pool or accounts.NO_POOL, account=account)

    def pod_at(self, at_ms: int, pool: str) -> State:
        """Return what its pod has beside devices in a pool at a moment."""
        return replace(self.state_at(at_ms, pool), ticks=0, beside=self.beside)


@dataclass(slots=True, kw_only=True)
class DeviceBook:
    """A device's timeline as it is known now, and up to where it is posted."""

    segments: Segments = field(default_factory=Segments)
    posted_to_ms: int

    def covering(self, at_ms: int) -> int:
        """Return the index of the segment that covers `at_ms`, -1 where there is none."""
        if self.segments and self.segments[-1][0] <= at_ms:  # mostly it is about now
            return len(self.segments) - 1
        return bisect_right(self.segments, at_ms, key=lambda segment: segment[0]) - 1

    def is_over(self, at_ms: int) -> bool:
        """Whether there is nothing from `at_ms` on."""
        return not any(parts for _, parts in self.since(at_ms))

    def since(self, at_ms: int) -> Segments:
        """Return the timeline from `at_ms` on, its first segment beginning there."""
        at = self.covering(at_ms)
        first = self.segments[at][1] if at >= 0 else ()
        return [(at_ms, first), *self.segments[at + 1 :]]

    def splice(self, new: Segments) -> None:
        """Replace everything from the beginning of `new` on; equal neighbours become one."""
        at_ms = new[0][0]
        keep = self.covering(at_ms - 1) + 1
        merged = self.segments[:keep]
        for segment in new:
            if not merged and not segment[1]:
                continue
            if not merged or merged[-1][1] != segment[1]:
                merged.append(segment)
        self.segments = merged


@dataclass(slots=True, kw_only=True)
class NodeTrack:
    """Everything that is known about one node over time. Changed only by `Meter`."""

    name: str
    kept: Kept
    seen: list[tuple[int, int, NodePoint | None]] = field(default_factory=list[tuple[int, int, NodePoint | None]])
    gone: list[int] = field(default_factory=list[int])
    lost: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    used: list[tuple[int, int, Resources]] = field(default_factory=list[tuple[int, int, Resources]])
    foreign: list[tuple[int, int, frozenset[str]]] = field(default_factory=list[tuple[int, int, frozenset[str]]])
    holds: list[MemberHold] = field(default_factory=list[MemberHold])
    windows: Windows = field(default_factory=Windows)
    books: dict[str, DeviceBook] = field(default_factory=dict[str, DeviceBook])
    outcomes: dict[str, DeviceBook] = field(default_factory=dict[str, DeviceBook])
    pods: dict[HoldKey, DeviceBook] = field(default_factory=dict[HoldKey, DeviceBook])

    def _told(self) -> tuple[list[tuple[int, int, Any]], ...]:
        """Return the tracks of what is told of the node itself."""
        return self.seen, self.used, self.foreign

    def add_hold(self, hold: MemberHold) -> None:
        """Take up a hold; what its pod has beside devices gets a timeline of its own."""
        self.holds.append(hold)
        hold.beside = beside_of(hold.requests, len(hold.member.nics))
        if hold.beside:
            self.pods[hold.key] = DeviceBook(posted_to_ms=hold.begin_ms)

    def add_seen(self, at_ms: int, sequence: int, node: Node, lost_from_ms: int | None) -> None:
        """Take a `NodeSeen`; `lost_from_ms` is when it was last known to be Ready."""
        point = NodePoint(
            pool=node.pool,
            devices={gpu.device: gpu.healthy for gpu in node.machine.gpus},
            allocatable=node.allocatable,
            lost=not node.ready,
            cordoned=node.unschedulable,
            cut=tuple(gpu for gpu in node.machine.gpus if gpu.mig is not None),
            slices=dict(_slices(node.machine.gpus)),
        )
        tracks.learn(self.seen, (at_ms, sequence, point))
        if lost_from_ms is not None and lost_from_ms < at_ms:
            self.lost.append((lost_from_ms, at_ms))
        for device in point.devices:
            for books in (self.books, self.outcomes):
                books.setdefault(device, DeviceBook(posted_to_ms=at_ms if lost_from_ms is None else lost_from_ms))

    def add_gone(self, at_ms: int, sequence: int) -> None:
        """Take a `NodeGone`: the node's capacity ends, and so does every hold on it that began before."""
        tracks.learn(self.seen, (at_ms, sequence, None))
        insort(self.gone, at_ms)

    def add_used(self, at_ms: int, sequence: int, taken: Resources) -> None:
        """Take what others' pods use."""
        tracks.learn(self.used, (at_ms, sequence, taken))

    def add_foreign(self, at_ms: int, sequence: int, devices: frozenset[str]) -> None:
        """Take which devices others hold."""
        tracks.learn(self.foreign, (at_ms, sequence, devices))

    def end_of(self, hold: MemberHold) -> int | None:
        """Return when a hold ended: its own end, or the node's if that came first."""
        gone = next((at for at in self.gone if at > hold.begin_ms), None) if self.gone else None
        ends = [at for at in (gone, hold.end_ms) if at is not None]
        return max(min(ends), hold.begin_ms) if ends else None

    def timelines(self, from_ms: int, meter_ms: int | None) -> Iterator[tuple[str, DeviceBook, Segments]]:
        """Work out every device's timeline from `from_ms` on, and what became of what is held of it; by device.

        Then what pods have beside devices, from `meter_ms` on, by hold; their device is "".
        """

        def lasts(end_ms: int | None) -> bool:
            return end_ms is None or end_ms > from_ms

        held = [(hold, self.end_of(hold)) for hold in self.holds]
        spans = [span for span in held if lasts(span[1])]
        moments = [from_ms, *self.windows.edges(from_ms), *self.kept.edges(NodeName(self.name), from_ms)]
        for track in self._told():
            moments += [at for at, _, _ in tracks.later(track, from_ms)]
        for span in (*self.lost, *((hold.begin_ms, end) for hold, end in spans)):
            moments += [at for at in span if at is not None]
        for hold, _ in spans:
            moments += [at for at, _, _ in hold.book.tiers]
            moments += hold.book.edges()
        if meter_ms is not None:
            moments.append(meter_ms)
        edges = sorted({max(at, from_ms) for at in moments})
        lines = {device: (Segments(), Segments()) for device in self.books}
        for at in edges:
            active = [hold for hold, end in spans if hold.begin_ms <= at and (end is None or at < end)]
            states = self._states(at, active, meter_ms is not None and meter_ms <= at)
            by_key = {hold.key: hold for hold in active}
            for device, (line, outcomes) in lines.items():
                state = states.get(device, ())
                if not line or line[-1][1] != state:
                    line.append((at, state))
                became = self._outcome(state, device, at, by_key)
                if not outcomes or outcomes[-1][1] != became:
                    outcomes.append((at, became))
        for device, (line, outcomes) in sorted(lines.items()):
            yield device, self.books[device], line
            yield device, self.outcomes[device], outcomes
        if meter_ms is not None:
            metered = [at for at in edges if at >= meter_ms]
            for hold, end in held:
                book = self.pods.get(hold.key)
                if book is not None and (lasts(end) or not book.is_over(from_ms)):
                    yield "", book, self._pod_line(hold, end, from_ms, metered)

    def _pod_line(self, hold: MemberHold, end: int | None, from_ms: int, edges: Sequence[int]) -> Segments:
        """Return what the pod of a hold has from `from_ms` on; nothing before the first of `edges`."""
        line: Segments = [(from_ms, ())]
        for at in edges:
            point = tracks.value(self.seen, at) if hold.begin_ms <= at and (end is None or at < end) else None
            state = () if point is None or self._is_lost(point, at) else (hold.pod_at(at, point.pool),)
            if at == from_ms:
                line = [(at, state)]
            elif line[-1][1] != state:
                line.append((at, state))
        return line

    def _is_lost(self, point: NodePoint, at_ms: int) -> bool:
        return point.lost or any(begin <= at_ms < end for begin, end in self.lost)

    def _outcome(self, parts: Parts, device: str, at_ms: int, active: Mapping[HoldKey, MemberHold]) -> Parts:
        """Return what became of all parts of a device that are held at a moment."""
        found: list[State] = []
        for state in parts:
            if state.gang:
                hold = active[GangId(state.gang), state.attempt, state.rank]
                waste = hold.book.at(at_ms)
                span = hold.begin_ms, self.end_of(hold)
                found += outcome(state, waste, hold.book.slowed_at(at_ms), self.windows.at(device, at_ms), span)
        return tuple(found)

    def _states(self, at_ms: int, active: Iterable[MemberHold], by_cut: bool) -> dict[str, Parts]:
        """Return the states of every device that is in the fleet at a moment.

        `by_cut`: an instance that its GPU is not cut into any more is held by nobody.
        """
        point = tracks.value(self.seen, at_ms)
        if point is None:
            return {}
        foreign = tracks.value(self.foreign, at_ms) or frozenset()
        lost = self._is_lost(point, at_ms)
        holders: dict[str, list[tuple[int, State]]] = {}
        taken = tracks.value(self.used, at_ms) or Resources()
        cpu, memory, pods = taken.cpu_milli, taken.memory_bytes, taken.pods
        for hold in sorted(active, key=lambda hold: (hold.begin_ms, hold.key)):
            cpu, memory, pods = (
                cpu + hold.requests.cpu_milli, memory + hold.requests.memory_bytes, pods + hold.requests.pods,
            )  # fmt: skip
            part = (hold.milli or WHOLE, hold.state_at(at_ms, point.pool))
            for device in hold.devices:
                if not by_cut or point.gives(device, hold):
                    holders.setdefault(device, []).append(part)
        offer = point.allocatable
        exhausted = offer.cpu_milli <= cpu or offer.memory_bytes <= memory or offer.pods <= pods
        unmanaged = accounts.of_pool(Kind.UNMANAGED, point.pool)
        pool = point.pool or accounts.NO_POOL
        for device, milli in _foreign_parts(point.cut, foreign):
            holders.setdefault(device, []).append((milli, State(account=unmanaged, pool=pool)))
        kept = self.kept.on(NodeName(self.name), at_ms)
        states: dict[str, Parts] = {}
        for device, healthy in point.devices.items():
            if lost or not healthy:
                account = accounts.down(point.pool, Cause.NODE_LOST if lost else Cause.UNHEALTHY)
                states[device] = (State(account=account, pool=pool),)
                continue
            rule, owner = "", ""
            if device in foreign or not point.pool:
                account = unmanaged
            elif point.cordoned:
                account = accounts.down(point.pool, Cause.CORDONED)
            elif device in kept:
                account = accounts.of_pool(Kind.RESERVED_IDLE, point.pool)
                rule, owner = kept[device]
            else:
                account = accounts.of_pool(Kind.STRANDED if exhausted else Kind.FREE, point.pool)
            rest = State(account=account, pool=pool, actor=owner, reason=rule)
            states[device] = split(holders.get(device, ()), rest)
        return states

    def forget(self, before_ms: int) -> list[tuple[HoldKey, int]]:
        """Drop what no later fact can change any more, all that ended before `before_ms`; return the holds dropped.

        Each with when it ended.
        """
        for track in self._told():
            tracks.forget(track, before_ms)
        self.lost = [span for span in self.lost if span[1] > before_ms]
        ends = [(hold.key, self.end_of(hold)) for hold in self.holds]
        over = [(key, end) for key, end in ends if end is not None and end <= before_ms]
        keys = {key for key, _ in over}
        self.holds = [hold for hold in self.holds if hold.key not in keys]
        del self.gone[: bisect_left(self.gone, before_ms)]
        self.windows.forget(before_ms)
        for key in keys:
            self.pods.pop(key, None)
        for book in (*self.books.values(), *self.outcomes.values(), *self.pods.values()):
            book.segments = book.segments[max(0, book.covering(before_ms)) :]
        return over


def split(holders: Sequence[tuple[int, State]], rest: State) -> Parts:
    """Give each of `holders`, (thousandths, state), its ticks of a device, and what is left to `rest`.

    Who does not fit beside those before gets nothing. Parts are rounded up, so that a twelfth or a seventh that lost
    something as thousandths is exact again; where that is too much, by largest remainder.
    """
    if not holders:
        return (rest,)
    if holders[0][0] >= WHOLE:
        return (holders[0][1],)
    left, fitting = WHOLE, list[tuple[int, State]]()
    for milli, state in holders:
        if milli <= left:
            left -= milli
            fitting.append((milli, state))
    ticks = [-(-milli * TICKS_PER_GPU_MS // WHOLE) for milli, _ in fitting]
    over = sum(ticks) - TICKS_PER_GPU_MS
    by_remainder = sorted(range(len(fitting)), key=lambda at: ((-fitting[at][0] * TICKS_PER_GPU_MS) % WHOLE, at))
    for at in reversed(by_remainder[len(fitting) - max(0, over) :]):
        ticks[at] -= 1
    merged: dict[State, int] = {}
    for (_, state), amount in zip(fitting, ticks, strict=True):
        merged[state] = merged.get(state, 0) + amount
    merged[rest] = merged.get(rest, 0) + TICKS_PER_GPU_MS - sum(ticks)
    return tuple(replace(state, ticks=amount) for state, amount in merged.items() if amount)


def _foreign_parts(cut: Sequence[Gpu], devices: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield (GPU, thousandths of it) of MIG devices that others hold, sorted."""
    for name in sorted(devices) if cut else ():
        found = part_of(cut, name)
        grid = None if found is None else grid_of_gpu(found[0])
        if found is not None and grid is not None:
            yield found[0].device, grid_milli(grid, found[1])


def _slices(gpus: Iterable[Gpu]) -> Iterator[tuple[str, frozenset[tuple[int, int]]]]:
    """Yield GPUs that a program has cut, each with its instances; where the driver cuts them, nothing binds it."""
    for gpu in gpus:
        grid = grid_of_gpu(gpu)
        if gpu.mig is not None and grid is not None and not gpu.mig.dynamic:
            names = {profile.id: profile.name for profile in gpu.mig.profiles}
            parts = ((one.start, grid_milli(grid, names.get(one.profile, ""))) for one in gpu.mig.instances)
            yield gpu.device, frozenset(parts)
