"""Facts in, entries out: the books' own view of the fleet, folded from the journal in its order.

Theory of operation. Every fact becomes a point of some node's tracks (`timeline.py`). From the moment it speaks of,
that node's devices get a new timeline. What is new and over is booked as a SEGMENT; where the new timeline contradicts
what was booked already (a node that was lost before we knew, a fact that came late), the old is taken back by a
REVERSAL and the right thing booked. The last segment of a device stays open until something ends it or a `Cut` is
drawn.

So the net of all entries depends on when facts were true, not on when they came. Four things do go by the order of the
journal: which queue and tenant a gang belonged to when its hold was first told of; of two facts of one moment, the
later journaled wins; of several stops of an attempt the first says why; and a fact that is more than `LATE_MS` older
than the newest one is taken as if it were just that old, its entries marked estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fairlead.ledger import accounts, tracks
from fairlead.ledger.attempts import Attempts
from fairlead.ledger.differences import corrections, pieces
from fairlead.ledger.ends import Ends
from fairlead.ledger.entry import Entry, EntryKind, Origin, State, make_entry
from fairlead.ledger.gangs import Gangs
from fairlead.ledger.kept import Kept
from fairlead.ledger.outcomes import WINDOW_MS
from fairlead.ledger.pricing import Pricing
from fairlead.ledger.saved import SavedHold, SavedMeter, keep_nodes, restore_nodes
from fairlead.ledger.timeline import DeviceBook, HoldKey, MemberHold, NodeTrack
from fairlead.ledger.versions import PODS
from fairlead.model.codec import Cut, Record
from fairlead.model.events import (
    DevicesCounted,
    ForeignDevices,
    GangRefused,
    GangSeen,
    GrowFailed,
    GrowIntended,
    Intended,
    KeptFree,
    MemberEnded,
    MemberReleased,
    MemberRunning,
    MoneyFact,
    NodeGone,
    NodeSeen,
    NodeUsed,
    PlaceFailed,
    QueueGone,
    QueueSeen,
    Recovered,
    ShrinkIntended,
    Started,
    StopIntended,
    StopRefused,
    TierChanged,
)
from fairlead.model.hardware import Resources
from fairlead.model.tenancy import Queue, tenant_of

LATE_MS = 48 * 3_600_000
"""How late a fact may come and still be booked at its own time."""
HOUR_MS = 3_600_000

Widths = dict[tuple[str, int, int, int | None], int]
"""(gang, attempt, rank, end_ms) -> the width in which that end lies, in ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one record did: the entries to post, and the holds that are over now."""

    entries: tuple[Entry, ...] = ()
    closed: tuple[HoldKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSegment:
    """What a device, or a part of it, is in now and since when it is not posted."""

    node: str
    device: str
    state: State
    from_ms: int


class Meter:
    """The fold. One writer; `apply` takes records in journal order, each once (a second time changes nothing)."""

    def __init__(self, cluster: str) -> None:
        """`cluster` is part of every entry's id, so that books of several clusters can be put together."""
        self.cluster = cluster
        self.sequence = 0
        self.newest_ms: int | None = None
        self.pricing = Pricing()
        self.cut_ms: int | None = None
        self._nodes: dict[str, NodeTrack] = {}
        self._kept = Kept()
        self._queues: dict[str, Queue] = {}
        self._gangs = Gangs()
        self._holds: dict[HoldKey, MemberHold] = {}
        self._ends = Ends()
        self._attempts = Attempts(self._gangs.queue_of)
        self._meter_ms: int | None = None

    @classmethod
    def restored(cls, cluster: str, saved: SavedMeter) -> Meter:
        """Return the meter that was saved; from here on it is what that one was."""
        meter = cls(cluster)
        meter.sequence, meter.newest_ms, meter.cut_ms = saved.sequence, saved.newest_ms, saved.cut_ms
        meter._meter_ms, meter._queues = saved.meter_ms, saved.queues
        meter._gangs.restore(saved.gangs)
        meter.pricing = Pricing.restored(saved.pricing, meter._gangs.id_of)
        meter._kept.restore(saved.kept)
        meter._attempts.restore(saved.attempts)
        meter._nodes, meter._holds = restore_nodes(saved, meter._kept, meter._attempts)
        meter._ends.restore(saved.ends, meter._holds.__contains__, meter._gangs.id_of)
        return meter

    def saved(self) -> SavedMeter:
        """Return all that it knows, as values; what it is made of is not to be changed while they are used."""
        states, nodes = keep_nodes(self._nodes.values())
        return SavedMeter(
            sequence=self.sequence, newest_ms=self.newest_ms, cut_ms=self.cut_ms, meter_ms=self._meter_ms,
            pricing=self.pricing.saved(), kept=self._kept.saved(), attempts=self._attempts.saved(),
            queues=self._queues, gangs=self._gangs.saved(), ends=self._ends.saved(), states=states, nodes=nodes,
            holds=[SavedHold.of(hold) for hold in self._holds.values()],
        )  # fmt: skip

    def apply(self, record: Record, fact: str) -> Outcome:
        """Take one record with its id; return what to post. Never fails on a fact, however odd."""
        self.sequence += 1
        floor = None if self.newest_ms is None else self.newest_ms - LATE_MS
        at_ms = record.at_ms if floor is None else max(record.at_ms, floor)
        if not isinstance(record, MoneyFact):  # those say nothing about how far the fleet is known
            self.newest_ms = record.at_ms if self.newest_ms is None else max(self.newest_ms, record.at_ms)
        origin = Origin(self.cluster, fact, record.at_ms)
        adjusted = self.pricing.hear(record, fact, self.cluster)
        if isinstance(record, Cut):
            return Outcome(entries=self.pricing.price(self._cut(record.at_ms, origin), self.cluster))
        touched, closed = self._take(record, at_ms, floor)
        entries: list[Entry] = []
        for node, from_ms in touched:
            entries += self._rebook(self._nodes[node], from_ms, origin)
        return Outcome(entries=(*adjusted, *self.pricing.price(entries, self.cluster)), closed=tuple(closed))

    def open_segments(self) -> Iterator[OpenSegment]:
        """Yield what is not posted yet, one per part of a device that is in the fleet, sorted by node and device."""
        for node, track in sorted(self._nodes.items()):
            for device, book in sorted(track.books.items()):
                yield from _open_of(node, device, book)

    def open_pods(self) -> Iterator[OpenSegment]:
        """Yield likewise what pods have beside devices."""
        for node, track in sorted(self._nodes.items()):
            for _, book in sorted(track.pods.items()):
                yield from _open_of(node, "", book)

    def open_holds(self) -> tuple[HoldKey, ...]:
        """Return the holds that no fact has ended yet, sorted."""
        return tuple(sorted(key for key, hold in self._holds.items() if self._is_open(hold)))

    def knows(self, hold: HoldKey) -> bool:
        """Return whether a hold has begun or ended in these books."""
        return hold in self._holds or hold in self._ends

    def is_over(self, hold: HoldKey) -> bool:
        """Return whether a hold is known and has ended."""
        held = self._holds.get(hold)
        return hold in self._ends if held is None else not self._is_open(held)

    def _is_open(self, hold: MemberHold) -> bool:
        return self._nodes[hold.node].end_of(hold) is None

    def _take(self, record: Record, at_ms: int, floor: int | None) -> tuple[list[tuple[str, int]], list[HoldKey]]:
        """Put a fact into the tracks; return which nodes changed from when on, and which holds are over."""
        match record:
            case NodeSeen(node=node):
                since = node.not_ready_since_ms
                lost_from = None if since is None else min(since if floor is None else max(since, floor), at_ms)
                self._track(node.name).add_seen(at_ms, self.sequence, node, lost_from)
                return [(node.name, at_ms if lost_from is None else lost_from)], []
            case NodeGone(name=name):
                track = self._track(name)
                before = [hold for hold in track.holds if self._is_open(hold)]
                track.add_gone(at_ms, self.sequence)
                over = [hold for hold in before if not self._is_open(hold)]
                for hold in over:
                    self._ends.tell(hold.key, (at_ms, at_ms - record.at_ms))
                return [(name, at_ms)], [hold.key for hold in over]
            case NodeUsed(name=name):
                self._track(name).add_used(at_ms, self.sequence, record.taken)
                return [(name, at_ms)], []
            case ForeignDevices(name=name):
                self._track(name).add_foreign(at_ms, self.sequence, frozenset(record.devices))
                return [(name, at_ms)], []
            case Intended() | Recovered() | GrowIntended():
                return self._open(record, at_ms, floor)
            case MemberReleased():
                return self._end(
                    [(record.gang, record.attempt, record.rank)], at_ms, record.estimated_ms + at_ms - record.at_ms
                )
            case KeptFree():
                nodes = self._kept.add(record, at_ms, self.sequence)
                return [(node, at_ms) for node in nodes if node in self._nodes], []
            case Started():
                return self._begin(record, at_ms), []
            case TierChanged():
                tracks.learn(self._attempts.of(record).tiers, (at_ms, self.sequence, record.tier))
                return self._attempts.touched(record.gang, record.attempt, at_ms), []
            case DevicesCounted(name=name):
                from_ms = self._track(name).windows.add(replace(record, at_ms=at_ms), self.sequence, floor)
                return [] if from_ms is None else [(name, from_ms)], []
            case MemberRunning() | MemberEnded() | ShrinkIntended():
                return self._attempts.progress(record, at_ms), []
            case StopIntended() | StopRefused():
                return self._attempts.mark(record, at_ms, floor), []
            case PlaceFailed() | GrowFailed():
                wasted = self._attempts.mark(record, at_ms, floor) if isinstance(record, PlaceFailed) else []
                keys = [(record.gang, record.attempt, rank) for rank in record.released]
                ended, closed = self._end(keys, at_ms, at_ms - record.at_ms)
                return [*wasted, *ended], closed
            case _:
                self._name(record)
                return [], []

    def _begin(self, record: Started, at_ms: int) -> list[tuple[str, int]]:
        """Let an engine begin: no rule keeps anything, and pods are booked from the first one on that says so."""
        touched: list[tuple[str, int]] = [(node, at_ms) for node in self._kept.begin(at_ms, self.sequence)]
        self._attempts.rules = max(self._attempts.rules, record.meter)
        if record.meter >= PODS and (self._meter_ms is None or at_ms < self._meter_ms):
            self._meter_ms, touched = at_ms, [(node, at_ms) for node in sorted(self._nodes)]
        return [(node, at_ms) for node, at_ms in touched if node in self._nodes]

    def _name(self, record: Record) -> None:
        """Remember who gangs and queues are; these change no device's timeline."""
        match record:
            case GangSeen() | GangRefused():
                self._gangs.learn(record)
            case QueueSeen(queue=queue):
                self._queues[queue.name] = queue
            case QueueGone(name=name):
                self._queues.pop(name, None)
            case _:
                pass

    def _open(
        self, record: Intended | Recovered | GrowIntended, at_ms: int, floor: int | None
    ) -> tuple[list[tuple[str, int]], list[HoldKey]]:
        """Open a hold per member. Of a recovered attempt, what holds nothing any more ends when that was seen.

        Of one that grows only the new members begin.
        """
        begin, holding = at_ms, None
        if isinstance(record, Recovered):
            begin = min(record.since_ms if floor is None else max(record.since_ms, floor), at_ms)
            holding = set(record.holding)
        who = self._gangs.who(record.gang)
        account = accounts.held(tenant_of(who.queue, self._queues), who.queue, record.tier)
        attempt, touched = self._attempts.of(record), self._attempts.begin(record, at_ms, self.sequence, floor)
        gone: list[HoldKey] = []
        for member in record.placement.members[-record.joining if isinstance(record, GrowIntended) else 0 :]:
            key = (record.gang, record.attempt, member.rank)
            if holding is not None and member.rank not in holding:
                gone.append(key)
                continue
            hold = self._holds.get(key)
            if hold is None:
                end, estimated = self._ends.get(key) or (None, 0)
                hold = MemberHold(
                    key=key,
                    node=member.node,
                    devices=member.devices,
                    milli=member.share_milli,
                    requests=who.requests.get(member.role, Resources(pods=1)),
                    state=State(
                        account=account,
                        pool="",
                        gang=record.gang,
                        namespace=who.namespace,
                        name=who.name,
                        attempt=record.attempt,
                        rank=member.rank,
                    ),
                    begin_ms=begin,
                    book=attempt,
                    end_ms=end,
                    estimated_ms=estimated,
                    joined=isinstance(record, GrowIntended),
                    member=member,
                )
                self._holds[key] = hold
                self._attempts.add(hold)
                self._track(member.node).add_hold(hold)
            elif hold.begin_ms <= begin or hold.joined:  # who joined later did not hold since the attempt began
                continue
            hold.begin_ms = begin
            touched[hold.node] = min(begin, touched.get(hold.node, begin))
        # Books draw a cut when they start, at the newest thing known then: the end lies between that and now.
        known_ms = begin if self.cut_ms is None else max(begin, self.cut_ms)
        ended, closed = self._end(gone, at_ms, max(0, at_ms - known_ms))
        return [*touched.items(), *ended], closed

    def _end(
        self, keys: Sequence[HoldKey], at_ms: int, estimated_ms: int
    ) -> tuple[list[tuple[str, int]], list[HoldKey]]:
        """End holds; the earliest end that was told counts. An end may be told before its beginning."""
        touched: dict[str, int] = {}
        for key in keys:
            known = self._ends.get(key)
            if known is not None and known[0] <= at_ms:
                continue
            self._ends.tell(key, (at_ms, estimated_ms))
            hold = self._holds.get(key)
            if hold is not None:
                hold.end_ms, hold.estimated_ms = at_ms, estimated_ms
                from_ms = max(at_ms, hold.begin_ms)
                touched[hold.node] = min(from_ms, touched.get(hold.node, from_ms))
        return list(touched.items()), list(keys)

    def _track(self, node: str) -> NodeTrack:
        return self._nodes.setdefault(node, NodeTrack(name=node, kept=self._kept))

    def _rebook(self, track: NodeTrack, from_ms: int, origin: Origin) -> list[Entry]:
        """Give the devices of a node their new timeline from `from_ms` on and post what follows from it."""
        entries: list[Entry] = []
        estimated: Widths = {(*hold.key, hold.end_ms): hold.estimated_ms for hold in track.holds if hold.estimated_ms}
        from_ms = track.windows.start(from_ms)
        for device, book, new in track.timelines(from_ms, self._meter_ms):
            old = book.since(from_ms)
            if old == new:
                continue
            where = (track.name, device)
            for kind, a, b, state in corrections(old, new, from_ms, book.posted_to_ms):
                edge = a if kind is EntryKind.REVERSAL else b  # a late end takes back what was booked after it
                entries.append(make_entry(origin, kind, where, state, (a, b), _width(estimated, state, edge)))
            book.splice(new)
            entries += self._post(where, book, origin, estimated)
        return entries

    def _post(self, where: tuple[str, str], book: DeviceBook, origin: Origin, estimated: Widths) -> list[Entry]:
        """Post what is over and not posted yet, and everything up to the last cut."""
        if not book.segments:
            return []
        to_ms = max(book.posted_to_ms, book.segments[-1][0], self.cut_ms or 0)
        if to_ms == book.posted_to_ms:
            return []
        entries = [
            make_entry(origin, EntryKind.SEGMENT, where, state, (a, b), _width(estimated, state, b))
            for a, b, state in pieces(book.since(book.posted_to_ms), book.posted_to_ms, to_ms)
        ]
        book.posted_to_ms = to_ms
        return entries

    def _cut(self, at_ms: int, origin: Origin) -> list[Entry]:
        """Post every open segment up to `at_ms`, and forget what no fact can change any more."""
        self.cut_ms = at_ms if self.cut_ms is None else max(self.cut_ms, at_ms)
        entries: list[Entry] = []
        for node, track in sorted(self._nodes.items()):
            for device, book in sorted(track.books.items()):
                entries += self._post((node, device), book, origin, {})
                entries += self._post((node, device), track.outcomes[device], origin, {})
            for hold in sorted(track.pods):
                entries += self._post((node, ""), track.pods[hold], origin, {})
        assert self.newest_ms is not None
        floor = self.newest_ms - LATE_MS
        self._kept.forget(floor)
        over = dict(found for track in self._nodes.values() for found in track.forget(floor - WINDOW_MS))
        for key, end_ms in over.items():
            self._attempts.drop(self._holds.pop(key))
            known = self._ends.get(key)
            if known is None or end_ms < known[0]:
                self._ends.tell(key, (end_ms, 0))
        self._ends.pack(over, self._gangs.id_of)
        return entries


def _open_of(node: str, device: str, book: DeviceBook) -> Iterator[OpenSegment]:
    for state in book.segments[-1][1] if book.segments else ():
        yield OpenSegment(node=node, device=device, state=state, from_ms=max(book.posted_to_ms, book.segments[-1][0]))


def _width(estimated: Widths, state: State, to_ms: int) -> int:
    return estimated.get((state.gang, state.attempt, state.rank, to_ms), 0)
