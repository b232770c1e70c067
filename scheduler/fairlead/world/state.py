"""The only mutable thing: what is known, changed by facts alone.

`ClusterState.apply` takes one fact. Facts may repeat and may come late; applying one twice changes nothing. Nothing
here decides: gangs move along the table of `fairlead.world.lifecycle` as facts say.
"""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.model.hardware import Node, NodeName
from fairlead.model.promises import PromiseBroken, Promised, PromiseKept
from fairlead.model.reasons import Reason, Refusal
from fairlead.model.reservation import DurationsLearned, ReservationGone, ReservationSeen
from fairlead.model.rules import Rules
from fairlead.model.switches import switched
from fairlead.world.demand import Arrivals, instances_of, kinds_of
from fairlead.world.durations import Durations
from fairlead.world.gangs import Attempt, GangRecord, Hold, intended, nameless, recovered
from fairlead.world.holdings import Holdings
from fairlead.world.idleness import Idleness
from fairlead.world.lifecycle import HOLDING, Step
from fairlead.world.lines import Line
from fairlead.world.past_usage import PastUsage
from fairlead.world.progress import note_all_running, note_failure, note_progress, note_taking, stop_of
from fairlead.world.promises import PromiseBook
from fairlead.world.reservations import ReservationBook
from fairlead.world.takings import Takings
from fairlead.world.tenants import Tenants
from fairlead.world.use import use_of


class ClusterState:
    """Everything the scheduler knows. Read it freely; only `apply` changes it.

    `epoch` grows with every fact that could turn a refusal into a placement; `version` with every fact;
    `touched` names gangs whose view may have changed since somebody took them from it. `cut_version` is the version at
    which the last walk over the queues was cut short, None where it came to its end.

    For pictures, which take these away: `changed` are gangs whose record is another, `changed_nodes` nodes whose own
    facts are, `dirty_nodes` nodes with other holds, `answered` lines that were told why not, `freed_ms` as in a World.
    """

    def __init__(self, rules: Rules) -> None:
        """Start empty."""
        self.rules = self.plain_rules = rules
        self.version = self.epoch = self.inventory_version = 0
        self.cut_version: int | None = None
        self.nodes: dict[NodeName, Node] = {}
        self.lost: set[NodeName] = set()
        self.unready: dict[NodeName, int] = {}
        self.used: dict[NodeName, ev.NodeUsed] = {}
        self.foreign: dict[NodeName, tuple[str, ...]] = {}
        self.tenants = Tenants()
        self.queues, self.pools = self.tenants.queues, self.tenants.pools
        self.gangs: dict[GangId, GangRecord] = {}
        self.arrivals = Arrivals()
        self.promises, self.reservations, self.durations = PromiseBook(), ReservationBook(), Durations()
        self.takings, self.idleness = Takings(), Idleness()
        self.past = PastUsage(self.tenants.half_life_of)
        self._holdings = Holdings(self._free_up, self.past)
        self.holds, self.holds_on = self._holdings.by_key, self._holdings.on_node
        self.queue_gpu_milli = self._holdings.queue_gpu_milli
        self.dirty_nodes, self.changed_nodes = set[NodeName](), set[NodeName]()
        self.changed, self.touched = dict[GangId, None](), dict[GangId, None]()
        self.answered: list[Line] = []
        self.freed_ms, self._at_ms = dict[NodeName, int](), 0

    def apply_all(self, facts: Iterable[ev.Event]) -> None:
        """Apply facts in order."""
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: ev.Event) -> None:
        """Change state by one fact."""
        self.version += 1
        self._at_ms = max(self._at_ms, fact.at_ms)
        self.epoch += self.takings.hear(fact)
        match fact:
            case ev.NodeSeen() | ev.NodeGone() | ev.NodeLost() | ev.NodeUsed() | ev.ForeignDevices():
                self._apply_node(fact)
            case ev.TenancyFact():
                self.epoch += self.tenants.apply(fact)
                self.rules = switched(self.plain_rules, self.tenants.switches)
            case ev.GangSeen() | ev.GangRefused() | ev.GangGone():
                self._apply_gang(fact)
            case ReservationSeen() | ReservationGone():
                self.epoch += self.reservations.apply(fact)
            case DurationsLearned():
                self.durations.learn(fact)
            case ev.DevicesCounted(name=name):
                turned = self.idleness.hear(fact, self.holds_on.get(name, ()), self.gangs, self.queues)
                self.touched |= turned
                self.changed |= turned
            case ev.KeptFree() | ev.MoneyFact() | ev.EndedUnseen() | ev.Started() | ev.Decided():
                pass
            case _:
                record = self.gangs.get(fact.gang)
                if record is None and isinstance(fact, ev.Recovered):
                    record = self.gangs[fact.gang] = nameless(fact.gang)
                if record is not None:
                    self._touch(record)
                    self._apply_life(record, fact)
                elif isinstance(fact, ev.MemberReleased):
                    self._holdings.drop((fact.gang, fact.attempt, fact.rank))

    # --- nodes, queues, pools -------------------------------------------------------------------------------------

    def _apply_node(self, fact: ev.NodeSeen | ev.NodeGone | ev.NodeLost | ev.NodeUsed | ev.ForeignDevices) -> None:
        match fact:
            case ev.NodeSeen(node=node):
                if self.nodes.get(node.name) == node:
                    return
                self.nodes[node.name] = node
                self.unready.pop(node.name, None)
                if node.not_ready_since_ms is not None:
                    self.unready[node.name] = node.not_ready_since_ms
                elif node.name in self.lost:
                    self.lost.discard(node.name)
                    self.changed |= dict.fromkeys(key[0] for key in self.holds_on.get(node.name, {}))
                self._node_changed(node.name)
            case ev.NodeGone(name=name):
                if self.nodes.pop(name, None) is None:
                    return
                self.lost.add(name)
                for known in (self.used, self.foreign, self.unready, self.idleness.spans):
                    known.pop(name, None)
                self._node_changed(name)
                self._settle_on(name, fact.at_ms)
            case ev.NodeLost(name=name):
                self.lost.add(name)
                self._settle_on(name, fact.at_ms)
            case ev.NodeUsed(name=name):
                before = self.used.get(name)
                self.used[name] = fact
                if before is None or (before.taken, before.host_ports) != (fact.taken, fact.host_ports):
                    self._free_up(name)
            case ev.ForeignDevices(name=name, devices=devices):
                if self.foreign.get(name, ()) != devices:
                    self.foreign[name] = devices
                    self._free_up(name)

    def _node_changed(self, name: NodeName) -> None:
        self.freed_ms[name] = self._at_ms
        self.changed_nodes.add(name)
        self.inventory_version += 1
        self.epoch += 1

    def _free_up(self, name: NodeName) -> None:
        self.freed_ms[name] = self._at_ms
        self.dirty_nodes.add(name)
        self.epoch += 1

    # --- gangs: what owners ask for -------------------------------------------------------------------------------

    def _apply_gang(self, fact: ev.GangSeen | ev.GangRefused | ev.GangGone) -> None:
        match fact:
            case ev.GangSeen(gang=gang):
                record = self.gangs.setdefault(
                    gang.id, GangRecord(id=gang.id, namespace=gang.namespace, name=gang.name, queue=gang.queue)
                )
                if record.gang == gang and record.phase is not Phase.REFUSED:
                    return
                self._touch(record)
                new = record.gang is None
                if new:
                    for kind in kinds_of(gang):
                        self.arrivals.count(kind)
                    for profile, pods in instances_of(gang):
                        self.arrivals.count_instances(profile, pods)
                    record.gone = record.gone and bool(record.namespace)  # its attempt was found before its spec
                else:  # another shape, or none for now: room made for the old one is of no use
                    self._change(record)
                record.namespace, record.name = gang.namespace, gang.name
                record.gang, record.queue, record.arrived = gang, gang.queue, self.version
                if record.phase in (Phase.PENDING, Phase.REFUSED):
                    if record.phase is Phase.REFUSED:
                        record.refusal = None
                    record.step(Step.ACCEPTED)
                if gang.suspended and record.phase is Phase.PENDING:
                    record.step(Step.SUSPEND)
                elif not gang.suspended and record.phase is Phase.SUSPENDED:
                    record.step(Step.RESUME)
                if new and record.phase is Phase.PENDING:
                    self.tenants.rates.knock(record, gang, fact.at_ms, self.queues)
            case ev.GangRefused():
                record = self.gangs.setdefault(
                    fact.gang, GangRecord(id=fact.gang, namespace=fact.namespace, name=fact.name, queue=fact.queue)
                )
                self._touch(record)
                known = record.phase is Phase.REFUSED and record.refusal == fact.refusal
                if not known and record.phase in (Phase.PENDING, Phase.REFUSED, Phase.SUSPENDED):
                    record.refusal = fact.refusal
                    self._change(record)
                    record.step(Step.REFUSED)
            case ev.GangGone(gang=gang_id):
                gone = self.gangs.get(gang_id)
                if gone is not None and not gone.gone:
                    gone.gone = True
                    self._change(gone)
                    if gone.phase not in HOLDING:
                        del self.gangs[gang_id]

    def _touch(self, record: GangRecord) -> None:
        self.touched[record.id] = None
        self.changed[record.id] = None

    def _change(self, record: GangRecord, *, asked: bool = True) -> None:
        """Others may have the room that a gang was given; and its share of the demand, if what it `asked` for is."""
        record.nomination = None
        if asked:
            self.promises.withdraw(record.id)
        self.changed[record.id] = None
        self.epoch += 1

    # --- gangs: what happens to them --------------------------------------------------------------------------------

    def _apply_life(self, record: GangRecord, fact: ev.Event) -> None:
        match fact:
            case ev.Intended():
                self._intend(record, fact)
            case ev.Recovered():
                self._recover(record, fact)
            case ev.Remembered():
                record.remember(fact)
            case ev.Nominated():
                if record.phase is Phase.PENDING:
                    record.nomination = fact
                    self.takings.settle(record.id)
            case ev.NominationEnded():
                self._change(record, asked=False)
            case Promised() | PromiseKept() | PromiseBroken():
                self.epoch += self.promises.apply(fact, record)
            case _:
                attempt = record.current
                if attempt is None or attempt.number != getattr(fact, "attempt", None):
                    if isinstance(fact, ev.MemberReleased):  # a late release of an attempt left on a lost node
                        self._holdings.drop((fact.gang, fact.attempt, fact.rank))
                    return
                self._apply_attempt(record, attempt, fact)

    def _apply_attempt(self, record: GangRecord, attempt: Attempt, fact: ev.Event) -> None:
        match fact:
            case ev.Bound() | ev.MemberRunning() | ev.MemberEnded() | ev.CheckpointCommitted() | ev.LifeSign():
                note_progress(record, attempt, fact)
            case ev.MemberReleased(rank=rank):
                self._release(record, attempt, rank, fact.at_ms)
            case ev.PlaceFailed():
                if attempt.stop is None:
                    record.failures_in_row += 1
                    record.retry_at_ms = fact.at_ms + self.rules.backoff_after(record.failures_in_row)
                self._stop(record, attempt, stop_of(fact))
                for rank in fact.released:
                    self._release(record, attempt, rank, fact.at_ms)
            case ev.StopIntended():
                self._stop(record, attempt, fact)
            case ev.NoticeIntended() | ev.ShrinkIntended():
                if note_taking(record, attempt, fact):
                    self.takings.note(record, fact)
            case ev.GrowIntended():
                self._hold_all(record, attempt, attempt.grow(fact) if record.phase is Phase.RUNNING else ())
            case ev.GrowFailed():
                attempt.turn_back(fact)
                for rank in fact.released:
                    self._release(record, attempt, rank, fact.at_ms)
            case ev.NoticeWithdrawn():
                self.epoch += record.withdraw(attempt)
            case ev.TierChanged():
                note_progress(record, attempt, fact)
            case ev.StopRefused():
                taker = self.gangs.get(GangId(record.refuse_stop(attempt, fact.at_ms + self.rules.spare_ms)))
                if taker is not None:  # the room that was being made for it will not come
                    self._apply_life(taker, ev.NominationEnded(gang=taker.id, at_ms=fact.at_ms))
            case _:
                raise AssertionError(fact)
        self._advance(record, attempt, fact.at_ms)

    def _intend(self, record: GangRecord, fact: ev.Intended) -> None:
        if fact.attempt <= record.attempts or record.phase is not Phase.PENDING:
            return
        record.current = intended(fact, from_room=record.nomination is not None)
        record.attempts = fact.attempt
        record.nomination = record.refusal = None
        record.step(Step.INTEND)
        self._hold_all(record, record.current, range(len(fact.placement.members)))

    def _recover(self, record: GangRecord, fact: ev.Recovered) -> None:
        found = recovered(fact, fact.at_ms + self.rules.place_deadline_ms)
        latest = record.current.number if record.current is not None else record.concluded
        if fact.attempt < max(latest, record.attempts):  # an earlier try that was left on a lost node
            self._hold_all(record, found, fact.holding, charged=False)
            return
        if fact.attempt == latest:
            return
        if record.current is not None:
            self._abandon(record.current, record, fact.at_ms)
        record.current, record.attempts = found, fact.attempt
        record.restarts = max(record.restarts, fact.restarts)
        record.nomination = record.refusal = None
        record.step(Step.RECOVER)
        self._hold_all(record, record.current, fact.holding)
        if fact.bound:
            record.current.bound_ms = fact.since_ms
            record.step(Step.BOUND)
        self._advance(record, record.current, fact.at_ms)

    def _hold_all(self, record: GangRecord, attempt: Attempt, ranks: Iterable[int], *, charged: bool = True) -> None:
        for rank in ranks:
            member = attempt.member(rank)
            hold = Hold(member.node, use_of(record.gang, member), record.queue, attempt.held_from(rank))
            attempt.holding.add(rank)
            self._holdings.add((record.id, attempt.number, rank), hold, charged=charged)
            self.dirty_nodes.add(member.node)

    # --- the end of attempts ----------------------------------------------------------------------------------------

    def _stop(self, record: GangRecord, attempt: Attempt, fact: ev.StopIntended) -> None:
        if attempt.stop is not None or record.phase not in HOLDING:
            return
        attempt.stop = fact
        self.takings.note(record, fact, again=attempt.notice is not None)
        record.refusal = None if fact.cause.reason is Reason.FINISHED else fact.cause
        if attempt.notice is None:  # else it is on its way out already
            record.step(Step.STOP)
        record.displaced = fact.cause.reason is Reason.NODE_LOST
        note_failure(record, fact, self.rules)

    def _release(self, record: GangRecord, attempt: Attempt, rank: int, at_ms: int) -> None:
        self._end_hold(record, attempt, rank, at_ms)
        self._holdings.drop((record.id, attempt.number, rank))

    def _end_hold(self, record: GangRecord, attempt: Attempt, rank: int, at_ms: int) -> None:
        if rank not in attempt.holding:
            return
        gpu_milli = attempt.member(rank).gpu_milli
        self._holdings.uncharge((record.id, attempt.number, rank), at_ms)
        attempt.holding.discard(rank)
        attempt.released[rank] = at_ms
        attempt.leave(rank)
        record.past_gpu_ms += gpu_milli * max(0, at_ms - attempt.held_from(rank)) // 1000
        if attempt.stop is not None and attempt.stop.cause.reason is not Reason.FINISHED:
            unsaved_ms = max(0, at_ms - max(attempt.held_from(rank), attempt.saved_ms or 0))
            record.lost_gpu_ms += gpu_milli * unsaved_ms // 1000

    def _advance(self, record: GangRecord, attempt: Attempt, at_ms: int) -> None:
        """Take the steps that follow from what is known of the members."""
        for rank in [rank for rank in attempt.leaving if attempt.member(rank).node in self.lost]:
            self._end_hold(record, attempt, rank, at_ms)  # nobody will tell of its end while its node is away
        note_all_running(record, attempt, at_ms)
        stopped = record.phase is Phase.STOPPING and attempt.stop is not None
        if stopped and all(attempt.member(r).node in self.lost for r in attempt.holding):
            self._conclude(record, attempt, at_ms)

    def _conclude(self, record: GangRecord, attempt: Attempt, at_ms: int) -> None:
        """End an attempt: its holds on lost nodes stay as holds of nobody's quota."""
        assert attempt.stop is not None, record
        self._abandon(attempt, record, at_ms)
        record.ran_ms += 0 if attempt.all_running_ms is None else max(0, at_ms - attempt.all_running_ms)
        record.current, record.concluded = None, attempt.number
        self.durations.conclude(record, attempt)
        self.epoch += 1
        if record.gone:
            del self.gangs[record.id]
            return
        if attempt.stop.requeue:
            paused = record.gang is not None and record.gang.suspended
            record.step(Step.PAUSE if paused else Step.REQUEUE)
        else:
            record.step(Step.SUCCEED if attempt.stop.cause.reason is Reason.FINISHED else Step.FAIL)
            record.finished_ms = at_ms

    def _abandon(self, attempt: Attempt, record: GangRecord, at_ms: int) -> None:
        for rank in sorted(attempt.holding):
            self._holdings.uncharge((record.id, attempt.number, rank), at_ms)

    def _settle_on(self, node: NodeName, at_ms: int) -> None:
        """A node was lost: attempts that only waited for it are over."""
        for gang_id in sorted({key[0] for key in self.holds_on.get(node, {})}):
            record = self.gangs.get(gang_id)
            if record is not None and record.current is not None:
                self._touch(record)
                self._advance(record, record.current, at_ms)

    def refused(self, gang_id: GangId, refusal: Refusal, *, alone: bool = False) -> None:
        """Remember why a gang does not start, so that it is not asked again before something changes.

        All that stand in line with it are told the same, unless `alone` says that this is about nobody else.
        """
        record = self.gangs[gang_id]
        line = record.line
        if line is None or alone:
            if record.refusal != refusal:
                record.refusal = refusal
                self.touched[gang_id] = None
            return
        self.touched |= dict.fromkeys(line.refuse(refusal))
        self.answered.append(line)
