"""What is done now and then beside the loop: books, usage, overviews, taints, gauges, the chain's head, drift.

Each has its own rhythm and its own task, so that a slow one holds up no other; whatever asks the database does so in a
thread. A server or database that does not answer is asked again next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fairlead.errors import FairleadError, UnreadableInput
from fairlead.ledger.chain import Head
from fairlead.ledger.published import ENTRIES, JOURNAL, STEPS, Fields, Published, with_step
from fairlead.model.effects import Phase
from fairlead.model.queue_tree import TreeProblem
from fairlead.reports.anomalies import sentence
from fairlead.reports.budgets import Alerts
from fairlead.reports.published import compare
from fairlead.reports.queue_usage import QueueUsage
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.cost_watch import CostWatch
from fairlead.service.drift import DriftWatch, differences
from fairlead.service.engine import Engine
from fairlead.service.loop import Loop
from fairlead.service.metrics import Metrics
from fairlead.service.ports import Hold
from fairlead.store import journal, periods
from fairlead.store.engine import Connection
from fairlead_operator.chain_head import ChainHead
from fairlead_operator.cluster_events import tell
from fairlead_operator.custom_objects import PoolObject, QueueObject
from fairlead_operator.expiry import delete_expired
from fairlead_operator.facts import Watches
from fairlead_operator.fairness_objects import FAIRNESS_POLICIES
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.kube_cluster import KubeCluster
from fairlead_operator.member_facts import allocated_members
from fairlead_operator.objects import Resource
from fairlead_operator.overview_writer import Overview, OverviewWriter
from fairlead_operator.overviews import (
    PoolTroubles,
    Standing,
    cost_event,
    exception_status,
    fairness_status,
    in_force_status,
    pool_troubles,
)
from fairlead_operator.policy_objects import EXCEPTIONS, SWITCHBOARDS
from fairlead_operator.pool_taints import settle_taints
from fairlead_operator.price_objects import PRICE_BOOKS
from fairlead_operator.reservation_objects import RESERVATIONS, reservation_status
from fairlead_operator.status_writer import StatusWriter, read_conditions

log = logging.getLogger(__name__)

BOOKS_S = 5.0
OVERVIEW_S = 5.0
USAGE_S = 30.0
CHAIN_HEAD_S = 60.0
DRIFT_S = 60.0
FRAGMENTATION_S = 10.0
COSTS_S = 60.0
EXPIRY_S = 5.0
EXPIRED_AT_ONCE = 100
FIRST_TURN_LOOKS = 100  # 5 s at most


class Upkeep:
    """Runs until cancelled. `problems` is the intake's: (kind, name) -> what is wrong with a Queue or Pool."""

    def __init__(
        self,
        client: KubeClient,
        engine: Engine,
        loop: Loop,
        books: Bookkeeper,
        cluster: KubeCluster,
        watches: Watches,
        problems: dict[tuple[str, str], str],
        writer: StatusWriter,
        *,
        now_ms: Callable[[], int],
        namespace: str,
        metrics: Metrics,
        writes_per_s: int,
    ) -> None:
        """Wire the parts; nothing is done yet."""
        self._client = client
        self._engine = engine
        self._loop = loop
        self._books = books
        self._cluster = cluster
        self._watches = watches
        self._problems = problems
        self._writer = writer
        self._now_ms = now_ms
        self._metrics = metrics
        self._overviews = OverviewWriter(client, now_ms, metrics, writes_per_s=writes_per_s)
        self._chain_head = ChainHead(client, namespace, metrics)
        self._drift = DriftWatch()
        self._head = Head()
        self._behind_ms = 0
        self._usage: QueueUsage | None = None
        self._alerts = Alerts()
        self._costs = CostWatch(books)
        self._troubles: tuple[object, dict[str, PoolTroubles]] = (None, {})

    async def run(self) -> None:
        """Do everything in its rhythm; raises only for a bug of ours."""
        for _ in range(FIRST_TURN_LOOKS):  # pools must be known before the first taints, or others take their nodes
            if self._loop.stats.cycles:
                break
            await asyncio.sleep(0.05)
        async with asyncio.TaskGroup() as tasks:
            for name, every_s, work in (
                ("books", BOOKS_S, self._tend_books),
                ("overview", OVERVIEW_S, self._write_overview),
                ("usage", USAGE_S, self._read_usage),
                ("costs", COSTS_S, self._watch_costs),
                ("chain_head", CHAIN_HEAD_S, self._publish_head),
                ("drift", DRIFT_S, self._look_for_drift),
                ("fragmentation", FRAGMENTATION_S, self._measure_fragmentation),
                ("expiry", EXPIRY_S, self._delete_expired),
            ):
                tasks.create_task(_every(name, every_s, work))

    # --- the books ------------------------------------------------------------------------------------------------

    async def _tend_books(self) -> None:
        """Let the books retry what failed and draw their hourly cut, and say how far behind they are."""
        holds, head, behind_ms = await asyncio.to_thread(self._ask_books)
        if holds:
            await self._cluster.booked(holds)
        self._metrics.ledger.entries.inc(max(0, head.number - self._head.number))
        self._metrics.ledger.head_number.set(head.number)
        self._metrics.ledger.behind_seconds.set(behind_ms / 1000)
        self._head, self._behind_ms = head, behind_ms

    def _ask_books(self) -> tuple[Sequence[Hold], Head, int]:
        """Run in a thread: while the database is slow, each of these waits."""
        holds = self._books.record((), self._now_ms())
        return holds, self._books.head, self._books.behind_ms(self._now_ms())

    async def _read_usage(self) -> None:
        usage = self._usage = await asyncio.to_thread(self._books.queue_usage, self._now_ms())
        queues = dict(self._engine.world(usage.as_of_ms).queues)  # with what exceptions add to budgets now
        standings = await asyncio.to_thread(self._books.budgets, queues, usage.as_of_ms)
        self._loop.put(*(standing.fact() for standing in standings))
        for standing in self._alerts.news(standings):
            log.warning("event=budget_alert queue=%s reached_percent=%d period=%s used=%d amount=%d currency=%s",
                        standing.queue, standing.alert, standing.period.name, standing.used, standing.amount,
                        standing.budget.currency or "GPU-ms")  # fmt: skip
        self._metrics.policy.observe_budgets(standings)

    async def _watch_costs(self) -> None:
        """Look, once a line is drawn through the books, whether what queues cost alarms; a thread does the work."""
        if not await asyncio.to_thread(self._costs.look):
            return
        self._metrics.policy.observe_costs(self._costs.alarms)
        self._loop.put(*self._costs.facts(self._engine.state.tenants.alarms, self._now_ms()))
        uids = {queue.metadata.name: queue.metadata.uid for queue in self._watches.queues.store}
        for one in self._costs.news():
            note = sentence(one)
            log.warning("event=cost_alarm queue=%s kind=%s said=%r", one.queue, one.kind, note)
            if one.queue in uids:
                await tell(self._client, cost_event(one, uids[one.queue], note), self._now_ms())

    async def _publish_head(self) -> None:
        """Publish the ends of the chains; the entries' alone where the database does not answer.

        Before that, the books are asked for what was published last: nothing of that may have changed since.
        """
        head = await asyncio.to_thread(lambda: self._books.head)
        before = await self._chain_head.published()
        try:
            said, denied = await asyncio.to_thread(self._books.ask, lambda connection: _ends(connection, head, before))
        except FairleadError:
            await self._chain_head.publish(Published(head), self._now_ms())
            raise
        await self._chain_head.publish(said, self._now_ms(), denied)

    async def _look_for_drift(self) -> None:
        """Compare the holds; books that are behind have not heard of the newest and are left out."""
        booked = await asyncio.to_thread(self._books.open_holds)
        state = self._engine.state
        allocated = allocated_members(self._watches.claims.store)
        stayed = self._drift.look(differences(state.holds, state.nodes, None if self._behind_ms else booked, allocated))
        self._metrics.drift_holds.set(len(stayed))
        mended = self._drift.mend(stayed, allocated, self._now_ms())
        self._metrics.drift.labels(kind="mended").inc(max(0, len(mended) - 1))
        self._loop.put(*mended)

    async def _measure_fragmentation(self) -> None:
        self._metrics.observe_fragmentation(self._engine.fragmentation())

    async def _delete_expired(self) -> None:
        jobs = self._watches.gangjobs.store
        gone = await delete_expired(self._client, list(jobs), self._now_ms(), at_most=EXPIRED_AT_ONCE)
        if gone:
            log.info("event=expired gangs=%d", gone)

    # --- what people look at --------------------------------------------------------------------------------------

    async def _write_overview(self) -> None:
        state, now_ms = self._engine.state, self._now_ms()
        await settle_taints(self._client, self._watches.nodes.store, state.pools.values())
        gangs = self._engine.gang_views(now_ms)
        pools, queues = self._engine.pool_views(), self._engine.queue_views()
        self._metrics.observe_gangs(gangs)
        self._metrics.observe_pools(pools)
        self._metrics.promises.observe(state.promises)
        self._metrics.effects_in_flight.set(self._loop.stats.in_flight)
        self._metrics.undo_backlog.set(self._cluster.teardown.backlog)
        for reflector in self._watches.all:
            lag_s = reflector.lag().silent_ms / 1000
            self._metrics.watch_lag_seconds.labels(resource=reflector.resource.plural).set(lag_s)
        self._writer.put([g for g in gangs if g.phase is Phase.PENDING and self._writer.place_moved(g)])
        there = {found.metadata.name for found in self._watches.namespaces.store}
        overview = Overview(
            queues=queues,
            pools=pools,
            gangs=gangs,
            namespaces={q.name: [n for n in q.namespaces if n in there] for q in state.queues.values()},
            standings=self._standings(),
            troubles=self._pool_troubles(),
            usage=self._usage,
            alarms=self._costs.said,
            policies=self._policies(now_ms),
        )
        await self._overviews.write(overview)

    def _policies(self, now_ms: int) -> list[tuple[Resource[Any], str, str, dict[str, Any]]]:
        """Return the statuses of policies, prices, reservations and of the Switchboard, and count the exceptions."""
        known = self._engine.state.tenants.exceptions
        self._metrics.observe_exceptions(known.values(), now_ms)
        told: list[tuple[Resource[Any], str, str, dict[str, Any]]] = []
        for found in self._watches.exceptions.store:
            meta, problem = found.metadata, self._problems.get(("QuotaException", found.metadata.name), "")
            exception = known.get(meta.name)
            if exception is not None and exception.queue not in self._engine.state.queues:
                problem = problem or f"spec.queue: there is no queue {exception.queue!r}; create it, or name another"
            told.append(
                (EXCEPTIONS, meta.name, meta.uid, exception_status(exception, problem, meta.generation, now_ms))
            )
        for board in self._watches.switchboards.store:
            meta, problem = board.metadata, self._problems.get(("Switchboard", board.metadata.name), "")
            told.append((SWITCHBOARDS, meta.name, meta.uid, in_force_status(problem, meta.generation)))
        for book in self._watches.price_books.store:
            meta, problem = book.metadata, self._problems.get(("PriceBook", book.metadata.name), "")
            told.append((PRICE_BOOKS, meta.name, meta.uid, in_force_status(problem, meta.generation)))
        told += self._fairness()
        told += self._reservations(now_ms)
        return told

    def _fairness(self) -> list[tuple[Resource[Any], str, str, dict[str, Any]]]:
        """Return the status of every FairnessPolicy: the version that decisions go by, and the queues that name it."""
        tenants = self._engine.state.tenants
        sharing: dict[str, list[str]] = {}
        for queue in tenants.queues.values():
            if queue.fairness_policy:
                sharing.setdefault(queue.fairness_policy, []).append(queue.name)
        told: list[tuple[Resource[Any], str, str, dict[str, Any]]] = []
        for found in self._watches.policies.store:
            meta, problem = found.metadata, self._problems.get(("FairnessPolicy", found.metadata.name), "")
            status = fairness_status(
                tenants.policies.get(meta.name), sharing.get(meta.name, ()), problem, meta.generation
            )
            told.append((FAIRNESS_POLICIES, meta.name, meta.uid, status))
        return told

    def _reservations(self, now_ms: int) -> list[tuple[Resource[Any], str, str, dict[str, Any]]]:
        """Return the status of every Reservation: when it is, what it keeps, and how many jobs are in its way."""
        standing = {one.reservation.name: one for one in self._engine.world(now_ms).reserved}
        refused = self._engine.state.reservations.refused
        told: list[tuple[Resource[Any], str, str, dict[str, Any]]] = []
        for found in self._watches.reservations.store:
            meta, one = found.metadata, standing.get(found.metadata.name)
            problem = self._problems.get(("Reservation", meta.name), "")
            if meta.name in refused:
                problem = problem or refused[meta.name].message
            if found.spec.queue and found.spec.queue not in self._engine.state.queues:
                problem = problem or f"spec.queue: there is no queue {found.spec.queue!r}; create it, or name another"
            blockers = 0 if one is None else self._engine.blockers(one)
            told.append(
                (RESERVATIONS, meta.name, meta.uid, reservation_status(one, problem, blockers, meta.generation, now_ms))
            )
        return told

    def _standings(self) -> dict[tuple[str, str], Standing]:
        """Return how every Queue and Pool that is there stands."""
        problems = self._engine.tree_problems()
        found = {("Pool", pool.metadata.name): self._standing("Pool", pool) for pool in self._watches.pools.store}
        for queue in self._watches.queues.store:
            name = queue.metadata.name
            found["Queue", name] = self._standing("Queue", queue, problems.get(name))
        return found

    def _standing(self, kind: str, found: QueueObject | PoolObject, misplaced: TreeProblem | None = None) -> Standing:
        meta = found.metadata
        return Standing(
            uid=meta.uid,
            generation=meta.generation,
            conditions=read_conditions(found.status.conditions),
            problem=self._problems.get((kind, meta.name), ""),
            misplaced=misplaced,
        )

    def _pool_troubles(self) -> dict[str, PoolTroubles]:
        """Look through the nodes anew only where they or the pools have changed."""
        state = self._engine.state
        pools = tuple(state.pools[name] for name in sorted(state.pools))
        key = (state.inventory_version, pools)
        if self._troubles[0] != key:
            self._troubles = (key, pool_troubles(list(state.nodes.values()), pools))
        return self._troubles[1]


def _ends(connection: Connection, head: Head, before: Published | None) -> tuple[Published, list[Fields]]:
    """Return what is to be published, and the chains whose published head the books do not have any more."""
    try:
        found = compare(connection, before).findings if before else ()
    except UnreadableInput:  # the entry was dropped with its archive, which only `ledger verify --head` is given
        found = ()
    denied = [
        ENTRIES if finding.entry is not None else STEPS if finding.record is None else JOURNAL for finding in found
    ]
    return with_step(head, periods.last(connection), journal.head(connection)), denied


async def _every(name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do one thing, wait, and do it again, whatever the outside says."""
    while True:
        try:
            await work()
        except FairleadError as error:
            log.warning("event=upkeep_failed work=%s error=%r", name, str(error))
        await asyncio.sleep(every_s)
