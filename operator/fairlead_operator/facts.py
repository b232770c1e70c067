"""The intake: what the watches see becomes facts for the loop.

Nodes, queues, pools and gangs are told as they come. Pods and claims are only collected until `open`, because what our
own members hold at start is told by the rebuild (`Recovered`), which must come first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.events import Event, PolicyGone, PolicySeen, PoolGone, PoolSeen, QueueGone, QueueSeen, Recovered
from fairlead.model.fairness import FairnessPolicy
from fairlead.model.gang import Gang, GangId
from fairlead.model.reasons import Refusal
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.ports import Hold
from fairlead_operator.claim_index import devices_of
from fairlead_operator.custom_objects import (
    GANGJOBS,
    NODE_TOPOLOGIES,
    POOLS,
    QUEUES,
    GangJob,
    NodeTopology,
    PoolObject,
    QueueObject,
)
from fairlead_operator.decode import decode_queue
from fairlead_operator.decode_fairness import decode_policy
from fairlead_operator.decode_nodes import LevelLabels
from fairlead_operator.decode_pools import decode_pool
from fairlead_operator.device_objects import CLAIMS, SLICES, Claim, Slice
from fairlead_operator.fairness_objects import FAIRNESS_POLICIES, FairnessPolicyObject
from fairlead_operator.gang_facts import GangFacts
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.markers import MarkerFacts
from fairlead_operator.member_facts import MemberFacts, is_terminal, member_of
from fairlead_operator.node_facts import NodeFacts, Taken
from fairlead_operator.objects import (
    NAMESPACES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Meta,
    NodeObject,
    Plain,
    Pod,
    PriorityClass,
)
from fairlead_operator.pod_shape import host_ports, pod_requests
from fairlead_operator.policy_facts import PolicyFacts
from fairlead_operator.policy_objects import EXCEPTIONS, SWITCHBOARDS, QuotaExceptionObject, SwitchboardObject
from fairlead_operator.price_objects import PRICE_BOOKS, PriceBookObject, PriceFacts
from fairlead_operator.reservation_objects import RESERVATIONS, ReservationObject
from fairlead_operator.watch import Change, Reflector

log = logging.getLogger(__name__)


def _soon(call: Callable[[], None]) -> object:
    """Run a call when the event loop comes round."""
    return asyncio.get_running_loop().call_soon(call)


class Intake:
    """Turns changes into facts through `put`; the `on_…` methods are callbacks of `Reflector`s.

    `accept` judges a GangJob. `knows` says whether the scheduler knows an attempt: pods and claims that only claim to
    be ours are then treated as anybody else's. `gap_ms` and `on_over` are as in `MemberFacts`. `problems` has a
    sentence for each Queue and Pool, by (kind, name), that cannot be honoured as written; its last good state goes on.
    """

    def __init__(
        self,
        put: Callable[[Event], None],
        accept: Callable[[GangJob], Awaitable[Gang | Refusal]],
        *,
        level_labels: LevelLabels,
        now_ms: Callable[[], int],
        rng: random.Random,
        gap_ms: Callable[[], int] = lambda: 0,
        knows: Callable[[GangId, int], bool] = lambda gang, attempt: True,
        on_over: Callable[[Pod], None] = lambda pod: None,
        defer: Callable[[Callable[[], None]], object] = _soon,
    ) -> None:
        """Start with nothing known."""
        self.nodes = NodeFacts(put, level_labels, now_ms, defer)
        self.members = MemberFacts(put, now_ms, gap_ms, on_over)
        self.gangs = GangFacts(put, accept, now_ms, rng)
        self.markers = MarkerFacts(put, now_ms, self.gangs.heartbeat_ms)
        self.problems: dict[tuple[str, str], str] = {}
        self.policy = PolicyFacts(put, now_ms, self.problems)
        self.prices = PriceFacts(put, now_ms, self.problems)
        self.priority_classes: dict[str, PriorityClass] = {}
        self._put = put
        self._now_ms = now_ms
        self._knows = knows
        self._open = False
        self._queues: dict[str, QueueObject] = {}
        self._told_queues: dict[str, Queue] = {}
        self._pools: dict[str, Pool] = {}
        self._policies: dict[str, FairnessPolicy] = {}
        self._namespaces: dict[str, dict[str, str]] = {}

    def open(self, pods: Iterable[Pod], claims: Iterable[Claim], recovered: Iterable[Recovered] = ()) -> None:
        """Take in all pods and claims seen so far, and from now on every change. Call it right after `Recovered`."""
        self._open = True
        for claim in claims:
            self.on_claim(Change.ADDED, None, claim)
        for pod in pods:
            self.on_pod(Change.ADDED, None, pod)
        self.members.adopt(recovered)
        self.nodes.flush()

    # --- callbacks of the watches ---------------------------------------------------------------------------------

    def on_node(self, change: Change, old: NodeObject | None, new: NodeObject | None) -> None:
        """A Node changed."""
        self.nodes.node(None if change is Change.DELETED else new, _meta(old, new).name)

    def on_topology(self, change: Change, old: NodeTopology | None, new: NodeTopology | None) -> None:
        """A NodeTopology changed."""
        self.nodes.topology(None if change is Change.DELETED else new, _meta(old, new).name)

    def on_slice(self, change: Change, old: Slice | None, new: Slice | None) -> None:
        """A ResourceSlice changed."""
        seen = new or old
        assert seen is not None
        self.nodes.slice(seen, gone=change is Change.DELETED)

    def on_pod(self, change: Change, old: Pod | None, new: Pod | None) -> None:
        """A pod changed: ours, or one that takes of a node."""
        pod = new or old
        if not self._open:
            return
        assert pod is not None
        gone = change is Change.DELETED
        member = self._ours(pod.metadata)
        if member is not None:
            self.markers.pod(member, pod, gone=gone)  # its last words come before its end
            self.members.pod(member, pod, gone=gone)
        else:
            taken = None if gone or is_terminal(pod) or not pod.spec.node_name else _taken(pod)
            self.nodes.pod(pod.metadata.uid, taken)

    def on_claim(self, change: Change, old: Claim | None, new: Claim | None) -> None:
        """A ResourceClaim changed: ours, or one that holds devices we must leave alone."""
        claim = new or old
        if not self._open:
            return
        assert claim is not None
        gone = change is Change.DELETED
        member = self._ours(claim.metadata)
        if member is not None:
            self.members.claim(member, claim, gone=gone)
        else:
            self.nodes.claim(claim.metadata.uid, () if gone else devices_of(claim))

    def on_gangjob(self, change: Change, old: GangJob | None, new: GangJob | None) -> None:
        """A GangJob changed."""
        job = new or old
        assert job is not None
        self.gangs.job(job, gone=change is Change.DELETED)
        if self._open and change is not Change.DELETED:
            self.markers.job(job)

    def on_queue(self, change: Change, old: QueueObject | None, new: QueueObject | None) -> None:
        """A Queue changed; jobs in it are judged again, unless it was only the status that we write ourselves."""
        name = _meta(old, new).name
        if old is not None and new is not None and change is not Change.DELETED and old.spec == new.spec:
            return
        if change is Change.DELETED or new is None:
            self._queues.pop(name, None)
            self.problems.pop(("Queue", name), None)
            if self._told_queues.pop(name, None) is not None:
                self._put(QueueGone(name=name, at_ms=self._now_ms()))
        else:
            self._queues[name] = new
            self._queue(new)
        self.gangs.recheck(lambda job: job.spec.queue == name)

    def on_namespace(self, change: Change, old: Plain | None, new: Plain | None) -> None:
        """A Namespace changed; queues that select namespaces by label are resolved again."""
        meta = _meta(old, new)
        labels = None if change is Change.DELETED else meta.labels
        if self._namespaces.get(meta.name) == labels:
            return
        if labels is None:
            del self._namespaces[meta.name]
        else:
            self._namespaces[meta.name] = labels
        for queue in self._queues.values():
            if queue.spec.namespaces.selector is not None:
                self._queue(queue)

    def on_pool(self, change: Change, old: PoolObject | None, new: PoolObject | None) -> None:
        """A Pool changed; every node may be in another one now."""
        name = _meta(old, new).name
        if change is Change.DELETED or new is None:
            self.problems.pop(("Pool", name), None)
            if self._pools.pop(name, None) is None:
                return
            self._put(PoolGone(name=name, at_ms=self._now_ms()))
        else:
            try:
                pool = decode_pool(new)
            except UnreadableInput as error:
                self._problem("Pool", name, error)
                return
            self.problems.pop(("Pool", name), None)
            if self._pools.get(name) == pool:
                return
            self._pools[name] = pool
            self._put(PoolSeen(pool=pool, at_ms=self._now_ms()))
        self.nodes.pools(self._pools)

    def on_policy(self, change: Change, old: FairnessPolicyObject | None, new: FairnessPolicyObject | None) -> None:
        """A FairnessPolicy changed."""
        name = _meta(old, new).name
        if change is Change.DELETED or new is None:
            self.problems.pop(("FairnessPolicy", name), None)
            if self._policies.pop(name, None) is not None:
                self._put(PolicyGone(name=name, at_ms=self._now_ms()))
            return
        try:
            policy = decode_policy(new)
        except UnreadableInput as error:
            self._problem("FairnessPolicy", name, error)
            return
        self.problems.pop(("FairnessPolicy", name), None)
        if self._policies.get(name) != policy:
            self._policies[name] = policy
            self._put(PolicySeen(policy=policy, at_ms=self._now_ms()))

    def on_priority_class(self, change: Change, old: PriorityClass | None, new: PriorityClass | None) -> None:
        """A PriorityClass changed; jobs that name it, or that name none, are judged again."""
        name = _meta(old, new).name
        if change is Change.DELETED or new is None:
            self.priority_classes.pop(name, None)
        else:
            self.priority_classes[name] = new
        default = any(found is not None and found.global_default for found in (old, new))
        self.gangs.recheck(
            lambda job: job.spec.priority_class_name == name or (default and not job.spec.priority_class_name)
        )

    # --- parts ----------------------------------------------------------------------------------------------------

    def _queue(self, found: QueueObject) -> None:
        """Tell a queue if it differs."""
        name = found.metadata.name
        try:
            queue = decode_queue(found, self._namespaces)
        except UnreadableInput as error:
            self._problem("Queue", name, error)
            return
        self.problems.pop(("Queue", name), None)
        if self._told_queues.get(name) != queue:
            self._told_queues[name] = queue
            self._put(QueueSeen(queue=queue, at_ms=self._now_ms()))

    def _problem(self, kind: str, name: str, error: UnreadableInput) -> None:
        """Keep what is wrong with a queue or pool, for its condition."""
        if self.problems.get((kind, name)) != str(error):
            log.warning("%s %s is not taken over: %s", kind, name, error)
        self.problems[(kind, name)] = str(error)

    def _ours(self, meta: Meta) -> Hold | None:
        """Return which member an object is of, None where it is somebody else's or only says so."""
        member = member_of(meta)
        if member is None or (member not in self.members and not self._knows(member[0], member[1])):
            return None
        return member


@dataclass(frozen=True, slots=True, kw_only=True)
class Watches:
    """All reflectors of the operator, wired to one intake."""

    nodes: Reflector[NodeObject]
    topologies: Reflector[NodeTopology]
    slices: Reflector[Slice]
    pods: Reflector[Pod]
    claims: Reflector[Claim]
    gangjobs: Reflector[GangJob]
    queues: Reflector[QueueObject]
    pools: Reflector[PoolObject]
    policies: Reflector[FairnessPolicyObject]
    namespaces: Reflector[Plain]
    priority_classes: Reflector[PriorityClass]
    exceptions: Reflector[QuotaExceptionObject]
    switchboards: Reflector[SwitchboardObject]
    reservations: Reflector[ReservationObject]
    price_books: Reflector[PriceBookObject]

    @property
    def all(self) -> tuple[Reflector[Any], ...]:
        """All of them, first those that others are judged by."""
        return (
            self.switchboards,
            self.exceptions,
            self.namespaces,
            self.priority_classes,
            self.pools,
            self.policies,
            self.queues,
            self.slices,
            self.topologies,
            self.nodes,
            self.reservations,
            self.price_books,
            self.claims,
            self.pods,
            self.gangjobs,
        )

    async def synced(self) -> None:
        """Wait until each has told its first whole list; give it a deadline."""
        for reflector in self.all:
            await reflector.synced.wait()


def watch_all(
    client: KubeClient,
    intake: Intake,
    rng: random.Random,
    *,
    on_claim: Callable[[Change, Claim | None, Claim | None], None] | None = None,
) -> Watches:
    """Make the reflectors; run each of `all` as a task. `on_claim` hears of every claim before the intake does."""

    def claim(change: Change, old: Claim | None, new: Claim | None) -> None:
        if on_claim is not None:
            on_claim(change, old, new)
        intake.on_claim(change, old, new)

    return Watches(
        nodes=Reflector(client, NODES, intake.on_node, rng=rng),
        topologies=Reflector(client, NODE_TOPOLOGIES, intake.on_topology, rng=rng),
        slices=Reflector(client, SLICES, intake.on_slice, rng=rng),
        pods=Reflector(client, PODS, intake.on_pod, rng=rng),
        claims=Reflector(client, CLAIMS, claim, rng=rng),
        gangjobs=Reflector(client, GANGJOBS, intake.on_gangjob, rng=rng),
        queues=Reflector(client, QUEUES, intake.on_queue, rng=rng),
        pools=Reflector(client, POOLS, intake.on_pool, rng=rng),
        policies=Reflector(client, FAIRNESS_POLICIES, intake.on_policy, rng=rng),
        namespaces=Reflector(client, NAMESPACES, intake.on_namespace, rng=rng),
        priority_classes=Reflector(client, PRIORITY_CLASSES, intake.on_priority_class, rng=rng),
        exceptions=Reflector(client, EXCEPTIONS, intake.policy.on_exception, rng=rng),
        switchboards=Reflector(client, SWITCHBOARDS, intake.policy.on_switchboard, rng=rng),
        reservations=Reflector(client, RESERVATIONS, intake.policy.on_reservation, rng=rng),
        price_books=Reflector(client, PRICE_BOOKS, intake.prices.on_price_book, rng=rng),
    )


def _meta(old: Any, new: Any) -> Meta:
    """Return the metadata of whichever is there."""
    seen = new if new is not None else old
    assert seen is not None
    meta: Meta = seen.metadata
    return meta


def _taken(pod: Pod) -> Taken:
    """Return what a bound pod takes of its node; one that cannot be read is counted as a pod and nothing more."""
    try:
        requests = pod_requests(pod)
    except UnreadableInput as error:
        log.warning("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, error)
        requests = pod_requests(Pod(metadata=pod.metadata))
    return Taken(node=pod.spec.node_name, requests=requests, ports=host_ports(pod.spec))
