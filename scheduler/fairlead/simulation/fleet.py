"""A cluster in memory that behaves like a real one, on virtual time.

Theory of operation: everything that will happen stands in one heap of (time, sequence number, action). `perform` puts
the consequences of an effect there, `due` carries out what has come due and returns the facts a watch would have
shown. The truth (`holders`, `pods`) may differ from what the scheduler has been told: checkers look at the truth.
Each purpose draws from a random stream of its own, so that adding a fault does not move every other time.

Like an API server it checks nothing: a device given to two gangs is given to two gangs, and a checker must see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fairlead.model.effects import EndNomination, Grow, Nominate, Notice, Place, Shrink, Stop, Withdraw
from fairlead.model.events import (
    Bound,
    Event,
    ForeignDevices,
    GrowFailed,
    MemberEnded,
    MemberReleased,
    MemberRunning,
    NodeGone,
    NodeSeen,
    PlaceFailed,
)
from fairlead.model.gang import GangId, Member
from fairlead.model.hardware import DeviceId, Node, NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.service.ports import Performable
from fairlead.simulation.behaviour import Behaviour, Run
from fairlead.simulation.fleet_heap import Action, Heap
from fairlead.simulation.fleet_pods import Key, Pods
from fairlead.simulation.saving import Programs


class Fleet(Heap):
    """The nodes, what runs on them, and what will happen next. Changed by `perform`, `due` and the fault methods."""

    def __init__(self, nodes: Iterable[Node], *, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        """Start with all nodes ready and empty."""
        super().__init__(seed)
        self.behaviour = behaviour or Behaviour()
        self.nodes: dict[NodeName, Node] = {node.name: node for node in nodes}
        self.pods: dict[Key, Pods] = {}
        self.holders: dict[DeviceId, list[tuple[Key, int]]] = {}
        self.foreign: dict[NodeName, tuple[str, ...]] = {}
        self.down: dict[NodeName, int] = {}
        self.runs: dict[GangId, Run] = {}
        self.programs = Programs(self._at, self._all_run, self._stop)
        self._frozen: dict[NodeName, list[Action]] = {}

    # what a shell does with it

    def initial(self, now_ms: int) -> list[Event]:
        """Return a `NodeSeen` for every node, as the first list of a watch would."""
        return [NodeSeen(node=self.nodes[name], at_ms=now_ms) for name in sorted(self.nodes)]

    def declare(self, gang: GangId, run: Run) -> None:
        """Say what the gang's program will do; without this it runs until it is stopped."""
        self.runs[gang] = run

    def perform(self, effect: Performable, now_ms: int) -> None:
        """Begin an effect. Its results come out of `due`; doing one twice changes nothing."""
        match effect:
            case Place():
                self._place(effect, now_ms)
            case Stop():
                self._stop((effect.gang, effect.attempt), now_ms)
            case Notice():
                self.programs.notice(effect)
            case Withdraw():
                self.programs.withdraw((effect.gang, effect.attempt))
            case Shrink():
                self._shrink(effect, now_ms)
            case Grow():
                self._grow(effect, now_ms)
            case Nominate() | EndNomination():
                pass  # a status write; nothing in the fleet depends on it

    # faults

    def lose_node(
        self, name: NodeName, at_ms: int, *, back_ms: int | None = None, removed_ms: int | None = None
    ) -> None:
        """Let a node die at `at_ms`; it is back at `back_ms`, or its Node object is deleted at `removed_ms`."""
        detected_ms = at_ms + self._draw("node", self.behaviour.detection_ms)
        self._at(at_ms, lambda now: self._node_down(name, now))
        self._at(detected_ms, lambda now: self._node_not_ready(name, now))
        if back_ms is not None:
            self._at(max(back_ms, at_ms + 1), lambda now: self._node_back(name, now))
        if removed_ms is not None:
            self._at(max(removed_ms, at_ms + 1), lambda now: self._node_removed(name, now))

    def add_node(self, node: Node, at_ms: int) -> None:
        """Let a node join, or come back under its old name after it was removed."""

        def join(now_ms: int) -> Sequence[Event]:
            self.nodes[node.name] = node
            self.down.pop(node.name, None)
            return [NodeSeen(node=node, at_ms=now_ms)]

        self._at(at_ms, join)

    def take_foreign(self, name: NodeName, count: int, at_ms: int, until_ms: int | None = None) -> None:
        """Let another client allocate up to `count` devices of a node that nobody holds then."""

        def take(now_ms: int) -> Sequence[Event]:
            node = self.nodes.get(name)
            if node is None:
                return ()
            taken = set(self.foreign.get(name, ()))
            unheld = [gpu.device for gpu in node.machine.gpus if not self.holders.get((name, gpu.device))]
            free = [device for device in unheld if device not in taken]
            self.foreign[name] = tuple(sorted(taken | set(free[:count])))
            return self._foreign_changed(name, now_ms)

        def give_back(now_ms: int) -> Sequence[Event]:
            self.foreign[name] = ()
            return self._foreign_changed(name, now_ms)

        self._at(at_ms, take)
        if until_ms is not None:
            self._at(until_ms, give_back)

    # placements

    def _place(self, effect: Place, now_ms: int) -> None:
        key = (effect.gang, effect.attempt)
        if key in self.pods:
            return
        pods = self.pods[key] = Pods(key=key, placement=effect.placement, since_ms=now_ms)
        taken = self._hold(key, effect.placement.members)
        done_ms = now_ms + self._draw("bind", self.behaviour.bind_ms)
        if taken:
            detail = f"{taken[0][1]} on {taken[0][0]} was allocated by another client"
            self._at(done_ms, lambda now: self._bind_fails(pods, detail, 0, now))
        elif self._happens(self.behaviour.conflict_permille):
            bound = self._streams["fault"].randrange(len(effect.placement.members))
            self._at(done_ms, lambda now: self._bind_fails(pods, "a write was refused with 409 Conflict", bound, now))
        elif done_ms > effect.deadline_ms or self._happens(self.behaviour.lost_reply_permille):
            self._at(effect.deadline_ms, lambda now: self._bind_fails(pods, "the API server did not answer", 0, now))
        else:
            self._at(done_ms, lambda now: self._all_bound(pods, now))

    def _hold(self, key: Key, members: Iterable[Member]) -> list[DeviceId]:
        """Allocate what members are given; returns what of it is another client's."""
        taken: list[DeviceId] = []
        for member in members:
            for device in member.devices:
                if device in self.foreign.get(member.node, ()):
                    taken.append((member.node, device))
                self.holders.setdefault((member.node, device), []).append((key, member.rank))
        return taken

    def _grow(self, effect: Grow, now_ms: int) -> None:
        pods = self.pods.get((effect.gang, effect.attempt))
        if pods is None or pods.state != "bound" or len(pods.placement.members) >= len(effect.placement.members):
            return
        new = pods.join(effect.placement)
        refused = bool(self._hold(pods.key, new)) or self._happens(self.behaviour.conflict_permille)

        def done(at_ms: int) -> Sequence[Event]:
            if pods.state != "bound":
                return ()
            if refused:
                for rank in effect.ranks:
                    pods.left.add(rank)
                    pods.ended.add(rank)
                    self._free(pods, rank)
                cause = refuse(Reason.PLACE_CONFLICT, detail="a claim was allocated by another client")
                gang, attempt, ranks = effect.gang, effect.attempt, tuple(effect.ranks)
                return [GrowFailed(gang=gang, attempt=attempt, ranks=ranks, cause=cause, released=ranks, at_ms=at_ms)]
            for member in new:
                if member.rank not in pods.ended:
                    pods.bound.add(member.rank)
                    started_ms = at_ms + self._draw("start", self.behaviour.start_ms)
                    self._at(started_ms, self._on_node(member.node, self._starts(pods, member.rank)))
            return ()

        self._at(now_ms + self._draw("bind", self.behaviour.bind_ms), done)

    def _all_bound(self, pods: Pods, now_ms: int) -> Sequence[Event]:
        if pods.state != "binding":
            return ()
        pods.state, pods.first_bound_ms = "bound", now_ms
        never = self._happens(self.behaviour.never_starts_permille)
        for member in pods.placement.members:
            pods.bound.add(member.rank)
            started_ms = now_ms + self._draw("start", self.behaviour.start_ms)
            if member.node not in self.nodes:
                self._vanish(pods, member.rank, member.node, now_ms)
            elif not (never and member.rank == 0):
                self._at(started_ms, self._on_node(member.node, self._starts(pods, member.rank)))
        return [Bound(gang=pods.key[0], attempt=pods.key[1], at_ms=now_ms)]

    def _bind_fails(self, pods: Pods, detail: str, bound: int, now_ms: int) -> Sequence[Event]:
        if pods.state != "binding":
            return ()
        pods.state = "stopping"
        ranks = [member.rank for member in pods.placement.members]
        if bound:
            pods.first_bound_ms = now_ms
        for member in pods.placement.members[:bound]:
            pods.bound.add(member.rank)
            self._kill(pods, member.rank, member.node, now_ms)
        free = tuple(ranks[bound:])
        for rank in free:
            self._free(pods, rank)
        cause = refuse(Reason.PLACE_CONFLICT, detail=detail)
        return [PlaceFailed(gang=pods.key[0], attempt=pods.key[1], cause=cause, released=free, at_ms=now_ms)]

    def _stop(self, key: Key, now_ms: int) -> None:
        pods = self.pods.get(key)
        if pods is None or pods.state == "stopping":
            return
        pods.state = "stopping"
        for member in pods.placement.members:
            if member.rank not in pods.ended and member.rank not in pods.released:
                self._kill(pods, member.rank, member.node, now_ms)

    def _shrink(self, effect: Shrink, now_ms: int) -> None:
        pods = self.pods.get((effect.gang, effect.attempt))
        if pods is None or pods.state != "bound":
            return
        for rank in effect.ranks:
            if rank not in pods.ended and rank not in pods.left:
                pods.left.add(rank)
                pods.running.discard(rank)
                pods.ended.add(rank)
                self._kill(pods, rank, pods.by_rank[rank].node, now_ms)
        self._begin(pods, now_ms)

    # pods

    def _starts(self, pods: Pods, rank: int) -> Action:
        def act(now_ms: int) -> Sequence[Event]:
            if pods.state != "bound" or rank in pods.ended:
                return ()
            pods.running.add(rank)
            if pods.began and pods.done_ms is not None:
                end = self._ends(pods, rank, succeeded=True)
                self._at(max(now_ms, pods.done_ms), self._on_node(pods.by_rank[rank].node, end))
            self._begin(pods, now_ms)
            return [MemberRunning(gang=pods.key[0], attempt=pods.key[1], rank=rank, at_ms=now_ms)]

        return act

    def _begin(self, pods: Pods, now_ms: int) -> None:
        """Let the program begin as soon as everybody runs who belongs to it."""
        if not pods.began and len(pods.running) == len(pods.placement.members) - len(pods.left):
            pods.began = True
            self._run(pods, now_ms)

    def _run(self, pods: Pods, now_ms: int) -> None:
        """All members run: put the end of the program into the heap."""
        gang, attempt = pods.key
        plan = self.runs.get(gang, Run())
        if plan.saves is not None:
            plan = replace(plan, run_ms=self.programs.start(pods.key, plan, now_ms))
        unlucky = self._happens(self.behaviour.member_fails_permille)
        members = [member for member in pods.placement.members if member.rank not in pods.left]
        if attempt <= plan.fails or unlucky:
            member = members[self._streams["fault"].randrange(len(members))]
            after_ms = plan.fails_after_ms if plan.run_ms is None else min(plan.fails_after_ms, plan.run_ms)
            self._at(now_ms + after_ms, self._on_node(member.node, self._ends(pods, member.rank, succeeded=False)))
        elif plan.run_ms is not None:
            pods.done_ms = now_ms + plan.run_ms
            for member in members:
                end = self._ends(pods, member.rank, succeeded=True)
                self._at(
                    now_ms + plan.run_ms + self._draw("release", self.behaviour.end_ms), self._on_node(member.node, end)
                )

    def _all_run(self, key: Key) -> bool:
        pods = self.pods.get(key)
        return pods is not None and pods.state == "bound" and not pods.ended

    def _ends(self, pods: Pods, rank: int, *, succeeded: bool) -> Action:
        def act(now_ms: int) -> Sequence[Event]:
            if pods.state != "bound" or rank in pods.ended:
                return ()
            pods.ended.add(rank)
            self._at(now_ms + self._draw("release", self.behaviour.release_ms), self._releases(pods, rank))
            detail = "" if succeeded else "its container exited with code 1"
            gang, attempt = pods.key
            return [
                MemberEnded(gang=gang, attempt=attempt, rank=rank, succeeded=succeeded, at_ms=now_ms, detail=detail)
            ]

        return act

    def _kill(self, pods: Pods, rank: int, node: NodeName, now_ms: int) -> None:
        at_ms = now_ms + self._draw("grace", self.behaviour.grace_ms)
        self._at(at_ms, self._on_node(node, self._releases(pods, rank)))

    def _releases(self, pods: Pods, rank: int) -> Action:
        def act(now_ms: int) -> Sequence[Event]:
            if not self._free(pods, rank):
                return ()
            return [MemberReleased(gang=pods.key[0], attempt=pods.key[1], rank=rank, at_ms=now_ms)]

        return act

    def _free(self, pods: Pods, rank: int) -> bool:
        """Empty the member's claim; False where that has happened before."""
        if rank in pods.released:
            return False
        pods.released.add(rank)
        pods.bound.discard(rank)
        member = pods.by_rank[rank]
        for device in member.devices:
            holders = self.holders[member.node, device]
            holders.remove((pods.key, rank))
            if not holders:
                del self.holders[member.node, device]
        if len(pods.released) == len(pods.placement.members):
            self.pods.pop(pods.key, None)
        return True

    # nodes

    def _on_node(self, node: NodeName, action: Action) -> Action:
        """Do `action` unless the node is dead; then only when it is back: its kubelet is silent meanwhile."""

        def act(now_ms: int) -> Sequence[Event]:
            if node in self.down:
                self._frozen.setdefault(node, []).append(action)
                return ()
            return action(now_ms)

        return act

    def _node_down(self, name: NodeName, now_ms: int) -> Sequence[Event]:
        if name in self.nodes and name not in self.down:
            self.down[name] = now_ms
        return ()

    def _node_not_ready(self, name: NodeName, now_ms: int) -> Sequence[Event]:
        if name not in self.down or name not in self.nodes:
            return ()
        self.nodes[name] = replace(self.nodes[name], not_ready_since_ms=self.down[name])
        return [NodeSeen(node=self.nodes[name], at_ms=now_ms)]

    def _node_back(self, name: NodeName, now_ms: int) -> Sequence[Event]:
        if name not in self.nodes or self.down.pop(name, None) is None:
            return ()
        for action in self._frozen.pop(name, []):
            self._at(now_ms + self._draw("node", self.behaviour.watch_ms), self._on_node(name, action))
        seen = self.nodes[name].ready
        self.nodes[name] = replace(self.nodes[name], not_ready_since_ms=None)
        return () if seen else [NodeSeen(node=self.nodes[name], at_ms=now_ms)]

    def _node_removed(self, name: NodeName, now_ms: int) -> Sequence[Event]:
        if name not in self.nodes:
            return ()
        del self.nodes[name]
        self.down.pop(name, None)
        self._frozen.pop(name, None)
        self.foreign.pop(name, None)
        for pods in list(self.pods.values()):
            for member in pods.placement.members:
                if member.node == name and pods.state != "binding":
                    self._vanish(pods, member.rank, name, now_ms)
        return [NodeGone(name=name, at_ms=now_ms)]

    def _vanish(self, pods: Pods, rank: int, node: NodeName, now_ms: int) -> None:
        """The pod garbage collector takes away a pod whose node no longer exists."""

        def act(at_ms: int) -> Sequence[Event]:
            facts: list[Event] = []
            gang, attempt = pods.key
            if pods.state == "bound" and rank not in pods.ended:
                pods.ended.add(rank)
                detail = f"node {node} was removed"
                facts.append(
                    MemberEnded(gang=gang, attempt=attempt, rank=rank, succeeded=False, at_ms=at_ms, detail=detail)
                )
            return [*facts, *self._releases(pods, rank)(at_ms)]

        self._at(now_ms + self._draw("node", self.behaviour.cleanup_ms), act)

    def _foreign_changed(self, name: NodeName, now_ms: int) -> Sequence[Event]:
        """The watch tells us a little later, and then what is true by then."""

        def seen(at_ms: int) -> Sequence[Event]:
            if name not in self.nodes:
                return ()
            return [ForeignDevices(name=name, devices=self.foreign.get(name, ()), at_ms=at_ms)]

        self._at(now_ms + self._draw("watch", self.behaviour.watch_ms), seen)
        return ()
