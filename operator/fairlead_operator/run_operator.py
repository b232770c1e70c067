"""The operator's process: elect, watch, rebuild, then run the loop until it is told to stop or the lease is lost.

Order matters. Nothing is listed before the lease has been ours for as long as the admission policy may take to notice;
nothing is decided before what the cluster holds has been read back. On SIGTERM effects in flight are finished or
undone, then the lease is given back. A lost lease ends the process at once: whoever leads now must not be disturbed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fairlead.clock import SteadyClock
from fairlead.config import Settings
from fairlead.model.events import PlaceFailed, Recovered
from fairlead.model.gang import GangId
from fairlead.model.hardware import Node, NodeName
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.engine import Cycle, Engine
from fairlead.service.loop import Loop
from fairlead.service.metrics import Metrics
from fairlead_operator.acceptance import Acceptor
from fairlead_operator.claim_index import ClaimIndex
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.decode import with_needs
from fairlead_operator.facts import Intake, Watches, watch_all
from fairlead_operator.health import Health
from fairlead_operator.kube_client import Hooks, KubeClient
from fairlead_operator.kube_cluster import KubeCluster
from fairlead_operator.kube_config import KubeConfig
from fairlead_operator.leader import Elector, Terms
from fairlead_operator.notices import notice_of
from fairlead_operator.objects import Pod
from fairlead_operator.placing import Placer
from fairlead_operator.pod_shape import pod_shape
from fairlead_operator.pods import JobSheet, sheet_of
from fairlead_operator.recover import Recovery, recover
from fairlead_operator.status_writer import StatusWriter
from fairlead_operator.trips import Step, Trip
from fairlead_operator.upkeep import Upkeep
from fairlead_operator.watch import Change

log = logging.getLogger(__name__)

_SYNC_SAY_S = 30.0
_SETTLE_S = 300.0
_FLUSH_S = 3.0
_UNDO_S = 20.0


def rules_of(settings: Settings) -> Rules:
    """Return the knobs of a decision."""
    return Rules(
        place_deadline_ms=settings.place_deadline_ms,
        node_lost_after_ms=settings.node_lost_after_ms,
        nomination_ms=settings.nomination_ms,
        stops_per_cycle=settings.stops_per_cycle,
        grow_after_ms=settings.grow_after_ms,
        placement_on=settings.placement_on,
        preemption_on=settings.preemption_on,
        reclaim_on=settings.reclaim_on,
    )


def terms_of(settings: Settings) -> Terms:
    """Return the times of the election."""
    return Terms(
        lease_s=settings.lease_duration_ms / 1000,
        renew_every_s=settings.renew_period_ms / 1000,
        margin_s=settings.renew_margin_ms / 1000,
        settle_s=settings.policy_lag_ms / 1000,
    )


class Term:
    """One term of leadership: everything between winning the lease and losing it or being told to stop."""

    def __init__(self, client: KubeClient, books: Bookkeeper, settings: Settings, metrics: Metrics) -> None:
        """Wire the parts; nothing is asked yet."""
        rng = random.Random()  # jitter only: nothing is decided by it
        now_ms = self._now_ms = SteadyClock()
        self._settings, self._books = settings, books
        self._metrics = metrics
        self.ready = False
        self.engine = Engine(rules_of(settings))
        self.claims = ClaimIndex()
        self._sheets: dict[str, tuple[int, JobSheet]] = {}
        self._acceptor = Acceptor(client, lambda: self.intake.priority_classes.values())
        self._writer = StatusWriter(client, self.job, now_ms, metrics, writes_per_s=settings.status_writes_per_s)
        self.cluster = KubeCluster(
            client,
            self,
            Placer(client, self, self.claims, self._same_shape),
            self._writer,
            check=self._check,
            now_ms=now_ms,
            rng=rng,
            rules=self.engine.state.rules,
            metrics=metrics,
            width=settings.requests_in_flight,
        )
        self.loop = Loop(
            self.engine,
            self.cluster,
            books,
            now_ms,
            debounce_ms=settings.debounce_ms,
            in_flight=settings.effects_in_flight,
            on_cycle=self._on_cycle,
        )
        self.cluster.report = self.loop.put
        self.intake = Intake(
            self.loop.put,
            self._acceptor.accept,
            level_labels=settings.level_labels,
            now_ms=now_ms,
            rng=rng,
            gap_ms=self._claim_gap_ms,
            knows=self.cluster.knows,
            on_over=self.cluster.pod_over,
        )
        self.watches: Watches = watch_all(
            client,
            self.intake,
            rng,
            on_claim=lambda change, old, new: self.claims.change(old, new, deleted=change is Change.DELETED),
        )
        self.upkeep = self._upkeep(client, books)

    def _upkeep(self, client: KubeClient, books: Bookkeeper) -> Upkeep:
        """Wire what is done beside the loop."""
        return Upkeep(
            client,
            self.engine,
            self.loop,
            books,
            self.cluster,
            self.watches,
            self.intake.problems,
            self._writer,
            now_ms=self._now_ms,
            namespace=self._settings.namespace,
            metrics=self._metrics,
            writes_per_s=self._settings.status_writes_per_s,
        )

    # --- what the parts ask -----------------------------------------------------------------------------------------

    def job(self, gang: GangId) -> GangJob | None:
        """Return a GangJob from memory, None where it is gone."""
        return self.watches.gangjobs.store.by_uid(gang)

    def sheet(self, gang: GangId) -> JobSheet | None:
        """Return what manifests need of a GangJob, None where it is gone."""
        job = self.job(gang)
        if job is None:
            self._sheets.pop(gang, None)
            return None
        kept = self._sheets.get(gang)
        if kept is None or kept[0] != job.metadata.generation:
            kept = self._sheets[gang] = (job.metadata.generation, sheet_of(job))
        record = self.engine.state.gangs.get(gang)
        return kept[1] if record is None else replace(kept[1], resume=record.saved)

    def node(self, name: NodeName) -> Node | None:
        """Return a node as the scheduler knows it."""
        return self.engine.state.nodes.get(name)

    def pool(self, name: str) -> Pool | None:
        """Return a pool as the scheduler knows it."""
        return self.engine.state.pools.get(name)

    async def _check(self, sheet: JobSheet) -> Refusal | None:
        job = self.job(GangId(sheet.uid))
        return None if job is None else await self._acceptor.recheck(job)

    def _same_shape(self, trip: Trip, step: Step, pod: Pod) -> bool:
        """Whether the created pod asks of its node what the placed one did."""
        record = self.engine.state.gangs.get(trip.gang)
        if record is None or record.gang is None:
            return True
        placed = next(role.pod for role in record.gang.roles if role.name == step.member.role)
        return with_needs(pod_shape(pod, placed.volume_affinity), trip.sheet.needs.get(step.member.role, {})) == placed

    def _claim_gap_ms(self) -> int:
        return self.watches.claims.gap_ms()

    def _on_cycle(self, cycle: Cycle, took_ms: int) -> None:
        self._metrics.cycle_seconds.observe(took_ms / 1000)
        self._metrics.violations.inc(len(cycle.violations))

    # --- the course of a term ---------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Rebuild, then work until `stop`; raises what the loop or a helper raised."""
        helpers = [asyncio.create_task(reflector.run()) for reflector in self.watches.all]
        helpers += [
            asyncio.create_task(work) for work in (self.intake.gangs.run(), self.intake.nodes.run(), self._writer.run())
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            rebuilt = asyncio.create_task(self._rebuild())
            await asyncio.wait({rebuilt, stopping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                rebuilt.cancel()
                return
            recovery = await rebuilt if rebuilt.done() else None
            if recovery is None:
                await _first_failure(helpers)
                return
            looping = asyncio.create_task(self.loop.run(stop))
            helpers += [asyncio.create_task(self._settle(recovery)), asyncio.create_task(self.upkeep.run())]
            self.ready = True
            self._metrics.ready.set(1)
            await _until_first(looping, helpers)
        finally:
            stopping.cancel()
            self.ready = False
            self._metrics.ready.set(0)
            await self._end(helpers)

    async def _rebuild(self) -> Recovery:
        """Wait for the first whole lists and the judgement of every GangJob, then read back what is held."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SYNC_SAY_S):
                    await self.watches.synced()
                break
            waiting = [r.resource.plural for r in self.watches.all if not r.synced.is_set()]
            log.warning("event=waiting_for_lists resources=%s", ",".join(waiting))
        if not await self.intake.gangs.settled(_SETTLE_S):
            log.warning("event=gangs_not_judged detail=%r", "some GangJobs are judged later")
        watches = self.watches
        recovery = recover(list(watches.gangjobs.store), watches.pods.store, watches.claims.store, self._now_ms())
        for trip in recovery.trips:
            self.cluster.know(trip)
        self.loop.put(*recovery.facts)
        found = [fact for fact in recovery.facts if isinstance(fact, Recovered)]
        there = {book.metadata.name for book in watches.price_books.store}
        self.intake.prices.gone(name for name in self._books.priced_by(self._now_ms()) if name not in there)
        self.intake.open(watches.pods.store, watches.claims.store, found)
        self.intake.nodes.flush()
        log.info(
            "event=rebuilt gangs=%d attempts=%d half_bound=%d leaving=%d nodes=%d",
            len(watches.gangjobs.store), len(found), len(recovery.undo), len(recovery.stop), len(watches.nodes.store),
        )  # fmt: skip
        return recovery

    async def _settle(self, recovery: Recovery) -> None:
        """Undo what was half bound, ask again who was to save, go on with what was leaving, then rest."""
        for trip, notice in recovery.notices:
            self.cluster.resume_notice(trip, notice_of(notice))
        await asyncio.gather(
            *(self._undo(trip) for trip in recovery.undo),
            *(self.cluster.resume_stop(trip, keep) for trip, keep in recovery.stop),
            *(self.cluster.resume_shrink(trip) for trip in recovery.shrink),
        )
        await asyncio.Event().wait()

    async def _undo(self, trip: Trip) -> None:
        released = await self.cluster.teardown.undo(trip, _UNDO_S)
        cause = refuse(Reason.PLACE_CONFLICT, detail="the scheduler restarted while it was being bound")
        self.loop.put(
            PlaceFailed(
                gang=trip.gang, attempt=trip.attempt.number, cause=cause, released=released, at_ms=self._now_ms()
            )
        )

    async def _end(self, helpers: list[asyncio.Task[Any]]) -> None:
        """Write what people should still read, then end every helper."""
        await self._writer.flush(_FLUSH_S)
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await self.cluster.close()


async def _until_first(looping: asyncio.Task[None], helpers: list[asyncio.Task[Any]]) -> None:
    """Wait for the loop's end; a helper that fails ends the term, because half an operator is worse than none."""
    done, _ = await asyncio.wait({looping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
    if looping in done:
        await looping
        return
    looping.cancel()
    with suppress(asyncio.CancelledError):
        await looping
    await _first_failure(helpers)


async def _first_failure(tasks: list[asyncio.Task[Any]]) -> None:
    """Raise what the first task that ended raised."""
    for task in tasks:
        if task.done():
            await task


async def operate(config: KubeConfig, books: Bookkeeper, settings: Settings, stop: asyncio.Event) -> int:
    """Run until `stop` (0) or until the lease is lost (1)."""
    metrics, rng = Metrics(), random.Random()
    hooks = Hooks(
        write_error=lambda method, status: metrics.write_failed(method, status),
        conflict=lambda method: metrics.write_conflicts.inc(),
    )
    lost = asyncio.Event()
    electors: list[Elector] = []

    def fence() -> float | None:
        return electors[0].write_until() if electors else 0.0

    def changed(leading: bool) -> None:
        metrics.leader.set(int(leading))
        if not leading:
            lost.set()

    async with KubeClient(config, fence=fence, hooks=hooks, in_flight=settings.requests_in_flight) as client:
        elector = Elector(
            client,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.pod_name or socket.gethostname(),
            rng=rng,
            terms=terms_of(settings),
            on_change=changed,
        )
        electors.append(elector)
        term = Term(client, books, settings, metrics)
        async with Health(settings.http_listen, metrics, lambda: term.ready):
            election = asyncio.create_task(elector.run())
            try:
                if not await _either(elector.leading.wait(), stop.wait()):
                    return 0
                log.info("event=leading identity=%s", elector.identity)
                return await _serve(term, stop, lost, settings)
            finally:
                metrics.leader.set(0)
                election.cancel()
                await asyncio.gather(election, return_exceptions=True)
                if not lost.is_set():
                    await elector.release()


async def _serve(term: Term, stop: asyncio.Event, lost: asyncio.Event, settings: Settings) -> int:
    """Run one term; 0 after an ordered end, 1 where the lease was lost."""
    running = asyncio.create_task(term.run(stop))
    gone = asyncio.create_task(lost.wait())
    told = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, gone, told}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set() and not lost.is_set() and not running.done():
            log.info("event=stopping detail=%r", "finishing or undoing what is in flight")
            await asyncio.wait(
                {running, gone}, timeout=settings.shutdown_grace_ms / 1000, return_when="FIRST_COMPLETED"
            )
        if lost.is_set():
            log.error("event=lease_lost detail=%r", "ending at once; the restart policy brings us back")
            return 1
        if not running.done():
            log.error("event=grace_over detail=%r", "what is left is settled by the next leader")
            return 0
        await running
        return 0
    finally:
        for task in (running, gone, told):
            task.cancel()
        await asyncio.gather(running, gone, told, return_exceptions=True)


async def _either(wanted: Coroutine[Any, Any, object], other: Coroutine[Any, Any, object]) -> bool:
    """Wait for the first of two; True if it is `wanted`."""
    tasks = [asyncio.create_task(wanted), asyncio.create_task(other)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    return tasks[0] in done
