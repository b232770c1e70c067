"""Facts about GangJobs: accepted after the dry run of their templates, refused with a reason, or gone.

Acceptance asks the API server, so it runs beside the watch in a few workers; a job that changes meanwhile is judged
again. A server that does not answer is asked again later, with growing waits, and nothing is told until it does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from fairlead.errors import FairleadError
from fairlead.model.effects import Phase
from fairlead.model.events import Event, GangGone, GangRefused, GangSeen
from fairlead.model.gang import Gang, GangId
from fairlead.model.reasons import Refusal
from fairlead_operator.custom_objects import GangJob

FINAL = frozenset({Phase.SUCCEEDED.value, Phase.FAILED.value})
RECHECK_S = 60.0  # a refused template may pass later: a quota is raised, a volume claim is made
_BACKOFF_MAX_S = 60.0

log = logging.getLogger(__name__)


class GangFacts:
    """Judges GangJobs with `accept` and tells through `put`. `run` works until cancelled.

    `accept` returns the gang or why it cannot be one, and raises a `FairleadError` where the server does not answer.
    """

    def __init__(
        self,
        put: Callable[[Event], None],
        accept: Callable[[GangJob], Awaitable[Gang | Refusal]],
        now_ms: Callable[[], int],
        rng: random.Random,
        *,
        at_once: int = 8,
        recheck_s: float = RECHECK_S,
    ) -> None:
        """Start with nothing known."""
        self._put = put
        self._accept = accept
        self._now_ms = now_ms
        self._rng = rng
        self._at_once = at_once
        self._recheck_s = recheck_s
        self._jobs: dict[str, GangJob] = {}
        self._told: dict[str, Gang | Refusal] = {}
        self._gone: set[str] = set()
        self._failures: dict[str, int] = {}
        self._waiting: dict[str, None] = {}
        self._busy: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._work = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def job(self, job: GangJob, *, gone: bool) -> None:
        """A GangJob is like this now, or gone; one that has finished is not taken in (again)."""
        uid = job.metadata.uid
        if gone or job.metadata.deletion_timestamp:
            self._leave(uid)
            if uid not in self._gone:
                self._put(GangGone(gang=GangId(uid), at_ms=self._now_ms()))
            if gone:
                self._gone.discard(uid)
            else:
                self._gone.add(uid)
        elif job.status.phase in FINAL:
            self._leave(uid)
        else:
            old = self._jobs.get(uid)
            self._jobs[uid] = job
            if old is None or old.metadata.generation != job.metadata.generation:
                self._enqueue(uid)

    def heartbeat_ms(self, gang: GangId) -> int | None:
        """Return after how long without a heartbeat a gang hangs, None where it never does."""
        told = self._told.get(gang)
        return told.heartbeat_ms if isinstance(told, Gang) else None

    def recheck(self, concerns: Callable[[GangJob], bool]) -> None:
        """Judge again the jobs that something else's change concerns."""
        for uid, job in self._jobs.items():
            if concerns(job):
                self._enqueue(uid)

    async def run(self) -> None:
        """Judge what waits, until cancelled."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._at_once):
                    workers.create_task(self._worker())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def settled(self, within_s: float) -> bool:
        """Wait until every job was judged at least once or could not be; False where that takes longer."""
        try:
            async with asyncio.timeout(within_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def _leave(self, uid: str) -> None:
        """Stop judging a job."""
        for table in (self._jobs, self._told, self._failures, self._waiting):
            table.pop(uid, None)
        if timer := self._timers.pop(uid, None):
            timer.cancel()
        self._hush()

    def _enqueue(self, uid: str) -> None:
        """Judge a job as soon as a worker is free; the newest state counts."""
        if uid in self._jobs:
            self._waiting[uid] = None
            self._quiet.clear()
            self._work.set()

    async def _worker(self) -> None:
        """Judge one job after another."""
        while True:
            uid = next((u for u in self._waiting if u not in self._busy), None)
            if uid is None:
                self._work.clear()
                await self._work.wait()
                continue
            del self._waiting[uid]
            self._busy.add(uid)
            try:
                await self._judge(uid, self._jobs[uid])
            finally:
                self._busy.discard(uid)
                self._work.set()
                self._hush()

    async def _judge(self, uid: str, job: GangJob) -> None:
        """Judge one job and tell, unless it has changed or gone meanwhile."""
        who = f"{job.metadata.namespace}/{job.metadata.name}"
        try:
            result = await self._accept(job)
        except FairleadError as error:
            log.warning("GangJob %s cannot be judged now: %s", who, error)
            self._later(uid)
            return
        except Exception:  # one strange job must not stop all the others
            log.exception("GangJob %s cannot be judged", who)
            self._later(uid)
            return
        self._failures.pop(uid, None)
        now = self._jobs.get(uid)
        if now is None or now.metadata.generation != job.metadata.generation:
            return
        if isinstance(result, Refusal):
            self._again(uid, self._recheck_s)
        if self._told.get(uid) != result:
            self._told[uid] = result
            self._tell(job, result)

    def _tell(self, job: GangJob, result: Gang | Refusal) -> None:
        """Put the fact."""
        meta, now = job.metadata, self._now_ms()
        if isinstance(result, Gang):
            self._put(GangSeen(gang=result, at_ms=now))
            return
        self._put(
            GangRefused(
                gang=GangId(meta.uid),
                namespace=meta.namespace,
                name=meta.name,
                queue=job.spec.queue,
                refusal=result,
                at_ms=now,
            )
        )

    def _later(self, uid: str) -> None:
        """Judge a job again after a wait that doubles."""
        failures = self._failures.get(uid, 0) + 1
        self._failures[uid] = failures
        self._again(uid, min(_BACKOFF_MAX_S, 0.5 * 2.0 ** min(failures, 8)))

    def _again(self, uid: str, after_s: float) -> None:
        """Judge a job again after about that time."""
        if timer := self._timers.pop(uid, None):
            timer.cancel()
        if uid in self._jobs:
            wait_s = after_s * self._rng.uniform(0.75, 1.25)
            self._timers[uid] = asyncio.get_running_loop().call_later(wait_s, self._enqueue, uid)

    def _hush(self) -> None:
        """Note that nothing waits or is being judged."""
        if not self._waiting and not self._busy:
            self._quiet.set()
