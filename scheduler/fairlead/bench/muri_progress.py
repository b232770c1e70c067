"""How far every job of a trace has come, kept from the journal's facts alone.

The published model: a job that is stopped keeps the iterations it has done and goes on from there, and every start
costs it some seconds first. Under the published rules, which stop and start all jobs at every event, these seconds are
taken off what a stopped run has done; a run that reaches its end without a stop is not charged. Under our own policy,
which starts a job and lets it run, they come before the work of each start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.bench.muri_trace import TraceJob
from fairlead.model.events import Event, Intended, MemberRunning, StopIntended
from fairlead.model.gang import GangId
from fairlead.model.reasons import Reason
from fairlead.simulation.behaviour import Run
from fairlead.simulation.fleet import Fleet


class Progress:
    """A listener of a `Driver`: tells the fleet how long a job that starts has still to run."""

    def __init__(
        self, fleet: Fleet, jobs: Mapping[GangId, TraceJob], *, overhead: bool, charged_at_start: bool
    ) -> None:
        """Nothing has run. `overhead` False means that starts cost nothing."""
        self.remaining_us = {gang: job.work_us for gang, job in jobs.items()}
        self.stops = 0
        self.preemptions = 0
        self._fleet, self._charged_at_start = fleet, charged_at_start
        self._overhead_ms = {gang: job.overhead_ms if overhead else 0 for gang, job in jobs.items()}
        self._starting: dict[GangId, int] = {}
        self._since_ms: dict[GangId, int] = {}
        self._stopped_ms: dict[GangId, int] = {}

    def __call__(self, now_ms: int, facts: Sequence[Event]) -> None:
        """Take what the journal takes."""
        for fact in facts:
            match fact:
                case Intended():
                    self._starts(fact)
                case MemberRunning(gang=gang, at_ms=at_ms):
                    self._starting[gang] -= 1
                    if not self._starting[gang]:
                        self._since_ms[gang] = at_ms
                case StopIntended(cause=cause) if cause.reason is not Reason.FINISHED:
                    self._stops(fact.gang, fact.at_ms)
                case _:
                    pass

    def _starts(self, fact: Intended) -> None:
        gang = fact.gang
        self._starting[gang] = len(fact.placement.members)
        run_ms = -(-self.remaining_us[gang] // 1_000)
        if self._charged_at_start:
            run_ms += self._overhead_ms[gang]
        self._fleet.declare(gang, Run(run_ms=run_ms))
        stopped_ms = self._stopped_ms.pop(gang, None)
        if stopped_ms is not None and fact.at_ms > stopped_ms:
            self.preemptions += 1

    def _stops(self, gang: GangId, at_ms: int) -> None:
        self.stops += 1
        self._stopped_ms[gang] = at_ms
        since_ms = self._since_ms.pop(gang, None)
        if since_ms is not None:
            done_us = 1_000 * max(0, at_ms - since_ms - self._overhead_ms[gang])
            self.remaining_us[gang] = max(0, self.remaining_us[gang] - done_us)
