"""The one engine: facts in, effects out. Production, simulation, dry run and replay all drive this class.

No I/O, no clock. `take` applies what happened outside; `cycle` decides once about the present and applies its own
intentions before anybody performs them, so that the next cycle already knows of them while writes are in flight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from fairlead.ledger.versions import METER
from fairlead.model.effects import (
    DeclareLost,
    EndNomination,
    Grow,
    Nominate,
    Notice,
    Phase,
    Place,
    Refuse,
    Retier,
    Shrink,
    Stop,
    Withdraw,
)
from fairlead.model.events import (
    Decided,
    Event,
    GangRefused,
    GrowIntended,
    Intended,
    KeptFree,
    NodeLost,
    Nominated,
    NominationEnded,
    NoticeIntended,
    NoticeWithdrawn,
    ShrinkIntended,
    Started,
    StopIntended,
    TierChanged,
)
from fairlead.model.gang import GangId
from fairlead.model.keeping import Keep
from fairlead.model.promises import EndPromise, Promise, PromiseBroken, Promised, PromiseKept
from fairlead.model.queue_tree import TreeProblem
from fairlead.model.quota_exception import QuotaException
from fairlead.model.rules import Rules
from fairlead.model.standings import Standings
from fairlead.model.tenancy import ancestors
from fairlead.placement.mig_plan import RecutPlan
from fairlead.planning.decide import Memo, decide
from fairlead.planning.plan import Plan
from fairlead.planning.recuts import recut_plan
from fairlead.planning.verify import violations
from fairlead.service import standing_views
from fairlead.service.fragmentation import FragmentationMeter
from fairlead.service.ports import Performable
from fairlead.service.standings import standings
from fairlead.service.starts import Starts
from fairlead.world.gangs import GangRecord
from fairlead.world.reservations import Reserved
from fairlead.world.snapshot import Photographer, World
from fairlead.world.state import ClusterState
from fairlead.world.views import Fragmentation, GangView, NodeView, PoolView, QueueView

Decider = Callable[[World, Memo], Plan]
"""Like `fairlead.planning.decide.decide`; a benchmark that replays another scheduler's rule brings its own."""

_EFFECTS = msgspec.json.Encoder(order="deterministic")

VIEWS_AT_ONCE = 512
"""So that a backlog which comes all at once does not keep the next gang waiting while it is described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What one slice decided. `facts` are the intentions that state already holds, for the journal.

    `more` asks for another slice soon. `violations` are effects that `verify` refused: bugs of ours.
    """

    effects: tuple[Performable, ...]
    facts: tuple[Event, ...]
    more: bool
    wake_at_ms: int | None
    violations: tuple[str, ...]
    plan: Plan


class Engine:
    """State and the function that decides about it."""

    def __init__(self, rules: Rules | None = None, *, decider: Decider | None = None) -> None:
        """Start with an empty state."""
        self._decide: Decider = decider or _production
        self.state = ClusterState(rules or Rules())
        self._photographer = Photographer(self.state)
        self._memo = Memo()
        self._meter = FragmentationMeter()
        self._starts = Starts(self.world)

    def started(self, now_ms: int) -> Event:
        """Return the mark that a journal needs before the first fact of this engine."""
        return Started(rules=self.state.rules, at_ms=now_ms, meter=METER)

    def take(self, facts: Iterable[Event]) -> None:
        """Apply facts from outside, in order."""
        self.state.apply_all(facts)

    def world(self, now_ms: int) -> World:
        """Return the read-only picture that a cycle at `now_ms` would decide about."""
        return self._photographer.take(now_ms)

    def cycle(self, now_ms: int) -> Cycle:
        """Decide one slice and apply its intentions."""
        world = self.world(now_ms)
        plan = self._decide(world, self._memo)
        bad = violations(plan, world)
        refused = _with_their_kind(plan, {violation.effect for violation in bad})
        facts: list[Event] = []
        effects: list[Performable] = []
        if plan.effects:
            digest = hashlib.sha256(_EFFECTS.encode(plan.effects)).hexdigest()
            policies = tuple(world.policies[name].label for name in sorted(world.policies))
            facts.append(Decided(digest=digest, at_ms=now_ms, policies=policies))
        epoch, again = self.state.epoch, plan.more
        for position, effect in enumerate(plan.effects):
            if position in refused:
                continue
            match effect:
                case Refuse(gang=gang, turned_away=True):
                    facts.append(self._turned_away(effect, now_ms))
                case Refuse(gang=gang, refusal=refusal, alone=alone):
                    self.state.refused(gang, refusal, alone=alone)
                case DeclareLost(node=node):
                    facts.append(NodeLost(name=node, at_ms=now_ms))
                case Retier(gang=gang, attempt=attempt, tier=tier):
                    facts.append(TierChanged(gang=gang, attempt=attempt, tier=tier, at_ms=now_ms))
                case Keep(keeper=keeper, queue=queue, devices=devices):
                    facts.append(KeptFree(keeper=keeper, queue=queue, devices=devices, at_ms=now_ms))
                case Promise() | EndPromise():
                    facts.append(_promise_fact(effect, now_ms))
                case Place() | Stop() | Notice() | Withdraw() | Shrink() | Grow() | Nominate() | EndNomination():
                    facts.append(_intention(effect, now_ms, self._safe_ms(effect)))
                    effects.append(effect)
        self.state.apply_all(facts)
        if plan.effects:  # an empty plan leaves no mark, so a replay would not know of it
            self.state.cut_version = self.state.version if plan.cut else None
        # What these intentions freed by themselves (room no longer kept, an attempt with nothing left to release) is
        # seen by the next slice; no fact from outside will come to ask for one. So are the gangs on a node that has
        # just been declared lost.
        again = again or self.state.epoch != epoch or any(isinstance(fact, NodeLost) for fact in facts)
        # Whoever was placed may have left a place in line to somebody who waits outside.
        again = again or (bool(facts) and self._photographer.somebody_outside)
        return Cycle(
            effects=tuple(effects),
            facts=tuple(facts),
            more=again,
            wake_at_ms=plan.wake_at_ms,
            violations=tuple(violation.text for violation in bad),
            plan=plan,
        )

    def _safe_ms(self, effect: Performable) -> int | None:
        """Return until when the work of an attempt that is stopped is in a checkpoint, None where none of it is."""
        record = self.state.gangs.get(effect.gang) if isinstance(effect, Stop) else None
        return None if record is None or record.current is None else record.current.saved_ms

    def _turned_away(self, effect: Refuse, now_ms: int) -> Event:
        record = self.state.gangs[effect.gang]
        return GangRefused(
            gang=effect.gang,
            namespace=record.namespace,
            name=record.name,
            queue=record.queue,
            refusal=effect.refusal,
            at_ms=now_ms,
        )

    @property
    def untold(self) -> bool:
        """Whether `touched` has something to say."""
        return bool(self.state.touched)

    def touched(self, now_ms: int, at_most: int | None = None) -> tuple[GangView, ...]:
        """Return gangs whose phase, reason, nomination or placement may have changed since they were last returned.

        The longest untold come first; what is beyond `at_most` is left for the next call. It is no part of `cycle`, so
        that effects leave before anybody is told of them.
        """
        gangs, touched = self.state.gangs, self.state.touched
        names = list(islice(touched, at_most))
        for name in names:
            del touched[name]
        return tuple(self._view(gangs[name], now_ms) for name in names if name in gangs)

    def _view(self, record: GangRecord, now_ms: int) -> GangView:
        if record.phase is not Phase.PENDING:
            return standing_views.gang_view(record, now_ms, None)
        promise = self.state.promises.standing.get(record.id)
        return standing_views.gang_view(record, now_ms, None, self._starts.of(record.id), promise)

    def estimate(self, now_ms: int) -> None:
        """Estimate starts anew; who gets another range is in what `touched` returns next.

        The shell calls it from time to time: nothing that is decided depends on it.
        """
        self.state.touched |= dict.fromkeys(self._starts.renew(now_ms))

    def gang_views(self, now_ms: int) -> Sequence[GangView]:
        """Return all gangs with their positions and what `estimate` last found, by namespace and name."""
        views = standing_views.gang_views(self.state, now_ms, self.world(now_ms))
        promised = self.state.promises.standing
        return [
            msgspec.structs.replace(view, start=self._starts.of(view.id), promise=promised.get(view.id))
            if view.phase is Phase.PENDING
            else view
            for view in views
        ]

    def gang_view(self, gang: GangId, now_ms: int) -> GangView | None:
        """Return one gang without its position, with its start as it is estimated now."""
        record = self.state.gangs.get(gang)
        if record is None:
            return None
        view = self._view(record, now_ms)
        if view.phase is not Phase.PENDING:
            return view
        return msgspec.structs.replace(view, start=self._starts.fresh(gang, now_ms))

    def blockers(self, reserved: Reserved) -> int:
        """Count the jobs that hold something on reserved nodes and do not belong to the owner."""
        nodes = [self.world(0).inventory.nodes[row].name for row in reserved.rows]
        gangs = {key[0] for node in nodes for key in self.state.holds_on.get(node, {})}
        own = reserved.reservation.queue
        queues = [self.state.gangs[gang].queue for gang in gangs if gang in self.state.gangs]
        return sum(not own or own not in ancestors(queue, self.state.queues) for queue in queues)

    def queue_views(self) -> Sequence[QueueView]:
        """Return all queues by name."""
        return standing_views.queue_views(self.state, self.world(0))

    def standings(self, now_ms: int) -> Standings:
        """Return how queues, waiting classes and resources stand now, for the journal."""
        world, gangs = self.world(now_ms), self.state.gangs
        return standings(world, now_ms, self._meter.room(world), lambda gang: gangs[gang].refusal)

    def exceptions(self) -> Sequence[QuotaException]:
        """Return all quota exceptions by name, whether they act or not."""
        return [self.state.tenants.exceptions[name] for name in sorted(self.state.tenants.exceptions)]

    def tree_problems(self) -> Mapping[str, TreeProblem]:
        """Return what is wrong with each queue's place among the others, by name; sound ones are not in it."""
        return self.world(0).force.problems

    def node_views(self) -> Sequence[NodeView]:
        """Return all nodes by name."""
        return standing_views.node_views(self.state, self.world(0))

    def pool_views(self) -> Sequence[PoolView]:
        """Return all pools by name."""
        return standing_views.pool_views(self.node_views(), sorted(self.state.pools))

    def recut_plan(self) -> RecutPlan:
        """Return which idle GPUs to cut anew for the instances that wait; nothing is done about it."""
        return recut_plan(self.world(0))

    def fragmentation(self) -> Fragmentation:
        """Return how broken up the free GPUs are; measured anew only when something has changed."""
        return self._meter.measure(self.world(0))


def _production(world: World, memo: Memo) -> Plan:
    """Decide as always; `decide` is looked up at each call, so that a stop-watch around it is heard."""
    return decide(world, memo)


def _with_their_kind(plan: Plan, bad: set[int]) -> set[int]:
    """Return `bad` and what makes no sense without it: a nomination and its stops go together or not at all."""
    takers = {
        effect.by if isinstance(effect, Stop | Notice | Shrink) else effect.gang
        for position, effect in enumerate(plan.effects)
        if position in bad and isinstance(effect, Stop | Notice | Shrink | Nominate)
    } - {""}
    return bad | {
        position
        for position, effect in enumerate(plan.effects)
        if (isinstance(effect, Stop | Notice | Shrink) and effect.by in takers)
        or (isinstance(effect, Nominate | Refuse) and effect.gang in takers)
    }


def _promise_fact(effect: Promise | EndPromise, now_ms: int) -> Event:
    match effect:
        case Promise():
            return Promised(
                gang=effect.gang,
                placement=effect.placement,
                latest_start_ms=effect.latest_start_ms,
                stops=effect.stops,
                hero=effect.hero,
                at_ms=now_ms,
            )
        case EndPromise():
            if effect.cause is None:
                return PromiseKept(gang=effect.gang, early_ms=effect.early_ms, at_ms=now_ms)
            return PromiseBroken(gang=effect.gang, cause=effect.cause, at_ms=now_ms)


def _intention(effect: Performable, now_ms: int, safe_ms: int | None) -> Event:
    match effect:
        case Place():
            return Intended(
                gang=effect.gang,
                attempt=effect.attempt,
                placement=effect.placement,
                tier=effect.tier,
                at_ms=now_ms,
                deadline_ms=effect.deadline_ms,
            )
        case Stop():
            return StopIntended(
                gang=effect.gang,
                attempt=effect.attempt,
                cause=effect.cause,
                requeue=effect.requeue,
                at_ms=now_ms,
                by=effect.by,
                lost_gpu_ms=effect.lost_gpu_ms,
                safe_ms=safe_ms,
            )
        case Shrink() | Grow():
            return _resize_fact(effect, now_ms)
        case Notice():
            return NoticeIntended(
                gang=effect.gang,
                attempt=effect.attempt,
                cause=effect.cause,
                requeue=effect.requeue,
                at_ms=now_ms,
                begins_ms=effect.begins_ms,
                until_ms=effect.until_ms,
                by=effect.by,
                lost_gpu_ms=effect.lost_gpu_ms,
            )
        case Withdraw():
            return NoticeWithdrawn(gang=effect.gang, attempt=effect.attempt, at_ms=now_ms)
        case Nominate():
            return Nominated(
                gang=effect.gang,
                placement=effect.placement,
                victims=effect.victims,
                at_ms=now_ms,
                until_ms=effect.until_ms,
                shrunk=effect.shrunk,
                rule=effect.rule,
                lost_gpu_ms=effect.lost_gpu_ms,
            )
        case EndNomination():
            return NominationEnded(gang=effect.gang, at_ms=now_ms)


def _resize_fact(effect: Shrink | Grow, now_ms: int) -> Event:
    match effect:
        case Shrink():
            return ShrinkIntended(
                gang=effect.gang,
                attempt=effect.attempt,
                ranks=effect.ranks,
                cause=effect.cause,
                at_ms=now_ms,
                by=effect.by,
                lost_gpu_ms=effect.lost_gpu_ms,
            )
        case Grow():
            return GrowIntended(
                gang=effect.gang,
                attempt=effect.attempt,
                placement=effect.placement,
                joining=effect.joining,
                tier=effect.tier,
                at_ms=now_ms,
                deadline_ms=effect.deadline_ms,
            )
