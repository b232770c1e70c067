"""What became of held time: wasted, and by whom; used or idle, as was counted; else nobody knows.

Theory of operation. This is a second timeline of each device, inside what is held of it. A moment of a hold is

1. waste `restart`, from its beginning until all its members run, where a stop ended the attempt before: of whoever
   caused that;
2. waste of the cause for which it was stopped, from the last checkpoint that counted on (`StopIntended.safe_ms`);
3. used and idle, in the proportion that was counted in a window around it;
4. unmeasured. Nothing is booked then: it is what the others leave of what was held.

Of a gang that was placed worse than on an idle fleet, a part of what is neither idle nor lost for another cause is
waste `topology`, of the platform: as much as the placement was predicted to be slower, from when all its members run.

Waste reaches back no further than facts may come late, `LATE_MS`: what is older stays as it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fairlead.ledger import accounts, tracks
from fairlead.ledger.entry import State
from fairlead.ledger.versions import ALL_STOPS
from fairlead.model.events import DevicesCounted
from fairlead.model.gang import Tier
from fairlead.model.reasons import Reason
from fairlead.units import TICKS_PER_GPU_MS

PLATFORM = "platform"
"""Who caused what no queue did."""
TOPOLOGY = "topology"
"""The cause of what a poor placement costs. Its `reason` is `ESTIMATED`, for nobody measures it, and the tier it was
held in, because the queue is given back what it paid for it in that tier."""
ESTIMATED = "estimated"
WINDOW_MS = 3_600_000
"""A window that is longer counts for nothing: it says too little of any moment in it."""

_GAINED, _PLATFORM, _OWN = range(3)
CAUSES: dict[Reason, tuple[str, int]] = {
    Reason.PREEMPTED: ("preempted", _GAINED),
    Reason.RECLAIMED: ("reclaimed", _GAINED),
    Reason.RESERVATION_BEGINS: ("reservation", _GAINED),
    Reason.LENT_RETURNED: ("lent-returned", _PLATFORM),
    Reason.OVER_LIMIT: ("over-limit", _PLATFORM),
    Reason.NODE_LOST: ("node-lost", _PLATFORM),
    Reason.PLACE_CONFLICT: ("placement-failed", _PLATFORM),
    Reason.MEMBER_FAILED: ("failed", _OWN),
    Reason.RESTARTS_EXHAUSTED: ("failed", _OWN),
    Reason.RETRIES_EXHAUSTED: ("failed", _OWN),
    Reason.START_DEADLINE: ("start-deadline", _OWN),
    Reason.HUNG: ("hung", _OWN),
    Reason.OVERRUN: ("overrun", _OWN),
    Reason.SUSPENDED: ("suspended", _OWN),
    Reason.IDLE: ("idle-stopped", _OWN),
    Reason.BUDGET_NOT_RENEWED: ("budget", _OWN),
    Reason.HOLE_ENDED: ("hole-ended", _PLATFORM),
    Reason.RESOLVED_DOUBLE: ("double-allocation", _PLATFORM),
}
"""Why work is lost, and whom it is charged to. Who finishes or is deleted by its owner loses nothing."""
_BY_ALL_STOPS = frozenset({Reason.BUDGET_NOT_RENEWED, Reason.HOLE_ENDED, Reason.RESOLVED_DOUBLE})

_ALWAYS = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Waste:
    """A cause, who caused it (a queue or `PLATFORM`), and the token of the reason."""

    cause: str
    actor: str
    token: str


def waste_of(reason: Reason, own: str, gaining: str | None, rules: int) -> Waste | None:
    """Return what a stop for a reason wastes by these rules; `gaining` is the queue of who gains, None for nobody."""
    if reason not in CAUSES or (reason in _BY_ALL_STOPS and rules < ALL_STOPS):
        return None
    cause, whose = CAUSES[reason]
    actor = own if whose == _OWN else gaining if whose == _GAINED and gaining is not None else PLATFORM
    return Waste(cause, actor or accounts.UNKNOWN, reason.token)


@dataclass(frozen=True, slots=True)
class Mark:
    """From `from_ms` on work is wasted, or (None) it is not after all. `floor_ms`: nothing before it changes."""

    from_ms: int
    floor_ms: int
    waste: Waste | None


@dataclass(slots=True)
class AttemptBook:
    """What is known of a gang's attempt: later tiers, who runs since when, and the marks, in the order of the journal.

    `slowed` are the thousandths of its work that its placements were predicted to lose, each from a moment on.
    `ranks` are all of its members, `left` those who left it; `before` are the marks of the attempt before.
    """

    before: list[Mark]
    marks: list[Mark]
    tiers: list[tuple[int, int, Tier]] = field(default_factory=list[tuple[int, int, Tier]])
    slowed: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    ranks: frozenset[int] = frozenset()
    left: set[int] = field(default_factory=set[int])
    ran_ms: dict[int, int] = field(default_factory=dict[int, int])
    told_ms: int | None = None

    @property
    def running_ms(self) -> int | None:
        """Since when all its members run, None where they do not yet."""
        if self.told_ms is not None:
            return self.told_ms
        wanted = self.ranks - self.left
        if not wanted or not wanted <= self.ran_ms.keys():
            return None
        return max(self.ran_ms[rank] for rank in wanted)

    @property
    def restarts(self) -> Mark | None:
        """Return the mark of the attempt before, where it was stopped for a cause."""
        return self.before[-1] if self.before and self.before[-1].waste is not None else None

    def at(self, at_ms: int) -> Waste | None:
        """Return what a moment of its holds is wasted by."""
        before = self.restarts
        if before is not None and before.waste is not None and at_ms >= before.floor_ms:
            running_ms = self.running_ms
            if running_ms is None or at_ms < running_ms:
                return Waste("restart", before.waste.actor, before.waste.token)
        return next((mark.waste for mark in reversed(self.marks) if mark.from_ms <= at_ms), None)

    def slowed_at(self, at_ms: int) -> int:
        """Return the thousandths of a moment's work that its placement is predicted to lose."""
        permille = tracks.value(self.slowed, at_ms)
        if not permille or self.running_ms is None or at_ms < self.running_ms:
            return 0
        return permille

    @property
    def is_slowed(self) -> bool:
        """Whether any of its placements was worse than on an idle fleet."""
        return any(permille for _, _, permille in self.slowed)

    @property
    def waits(self) -> bool:
        """Whether it makes a difference since when all its members run."""
        return self.restarts is not None or self.is_slowed

    def edges(self) -> Iterator[int]:
        """Yield the moments at which that may change."""
        yield from (mark.from_ms for mark in self.marks)
        yield from (at_ms for at_ms, _, _ in self.slowed)
        if self.restarts is not None:
            yield self.restarts.floor_ms
        if self.waits and (running_ms := self.running_ms) is not None:
            yield running_ms


def marked(safe_ms: int | None, floor_ms: int | None, waste: Waste | None) -> Mark:
    """Return the mark that what is not safe is wasted; nothing before `floor_ms` changes."""
    floor = _ALWAYS if floor_ms is None else floor_ms
    return Mark(floor if safe_ms is None else max(safe_ms, floor), floor, waste)


@dataclass(slots=True)
class Windows:
    """How busy the devices of one node were counted to be: (from_ms, sequence, to_ms, device -> thousandths)."""

    known: list[tuple[int, int, int, Mapping[str, int]]] = field(
        default_factory=list[tuple[int, int, int, Mapping[str, int]]]
    )

    def add(self, fact: DevicesCounted, sequence: int, floor_ms: int | None) -> int | None:
        """Take a window; return from when on it changes something, None where it counts for nothing."""
        from_ms = fact.from_ms if floor_ms is None else max(fact.from_ms, floor_ms)
        if not 0 < fact.at_ms - from_ms <= WINDOW_MS:
            return None
        tracks.learn(self.known, (from_ms, sequence, fact.at_ms, dict(fact.busy)))
        return from_ms

    def covering(self, at_ms: int) -> Iterator[tuple[int, int, int, Mapping[str, int]]]:
        """Yield the windows around a moment."""
        yield from (known for known in tracks.later(self.known, at_ms - WINDOW_MS, at_ms) if known[2] > at_ms)

    def at(self, device: str, at_ms: int) -> tuple[int, int, int] | None:
        """Return (from_ms, to_ms, thousandths) as was told last of a device's moment, None where nobody counted."""
        found = [known for known in self.covering(at_ms) if device in known[3]]
        if not found:
            return None
        from_ms, _, to_ms, busy = max(found, key=lambda known: known[1])
        return from_ms, to_ms, busy[device]

    def start(self, at_ms: int) -> int:
        """Return the beginning of the first window around a moment, else the moment."""
        return min((known[0] for known in self.covering(at_ms)), default=at_ms)

    def edges(self, after_ms: int) -> Iterator[int]:
        """Yield the moments at which windows begin and end, of all that end after one."""
        yield from (edge for known in tracks.later(self.known, after_ms - WINDOW_MS) for edge in (known[0], known[2]))

    def forget(self, before_ms: int) -> None:
        """Drop what is over."""
        self.known = [known for known in self.known if known[2] > before_ms]


def outcome(
    state: State, waste: Waste | None, slowed: int, counted: tuple[int, int, int] | None, span: tuple[int, int | None]
) -> Iterator[State]:
    """Yield what a moment of a held device, or of a part of it, was; `span` is the hold's, its end None while open.

    `slowed` are the thousandths of its work that are lost to its placement; only whole devices have a pace.
    """
    held = accounts.parse(state.account)

    def part(account: str, ticks: int, actor: str, reason: str) -> State:
        return State(
            account=account,
            pool=state.pool,
            gang=state.gang,
            namespace=state.namespace,
            name=state.name,
            attempt=state.attempt,
            rank=state.rank,
            ticks=ticks,
            actor=actor,
            reason=reason,
        )

    if waste is not None:
        yield part(accounts.waste(waste.cause, held.tenant, held.queue), state.ticks, waste.actor, waste.token)
        return
    if state.ticks != TICKS_PER_GPU_MS:  # the device has one counter for all who have a part of it
        if counted is not None:
            yield part(accounts.use(held.tenant, held.queue, "unattributable"), state.ticks, "", "unattributable")
        return
    used = TICKS_PER_GPU_MS  # where nobody counted, all of it is work
    if counted is not None:
        used = min(max(counted[2] * TICKS_PER_GPU_MS // 1_000, 0), TICKS_PER_GPU_MS)
    lost = min(max(used * slowed // 1_000, 0), used)  # who does not work loses nothing
    if lost:
        yield part(accounts.waste(TOPOLOGY, held.tenant, held.queue), lost, PLATFORM, f"{ESTIMATED}/{held.tier}")
    if counted is None:
        return
    begin_ms, end_ms = span
    exact = begin_ms <= counted[0] and (end_ms is None or counted[1] <= end_ms)
    for how, ticks in (("used", used - lost), ("idle", TICKS_PER_GPU_MS - used)):
        if ticks:
            yield part(accounts.use(held.tenant, held.queue, how), ticks, "", "exact" if exact else ESTIMATED)
