"""The knobs of a decision. Part of every dump, so that a replay decides alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.model.gang import ServiceClass


class Unsaving(StrEnum):
    """Jobs without a checkpoint as victims: only where no others will do, like all others, or never."""

    LAST = "last"
    LIKE_OTHERS = "like-others"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Deadlines and bounds in ms or counts; switches per kind of action: preemption is inside a queue, reclaim between.

    `place_deadline_ms` is P1's bound on a half-bound gang. `node_lost_after_ms` is how long a node may be not Ready
    before its gangs restart elsewhere. `gangs_per_slice` bounds the work between two looks at new facts,
    and so does `steps_per_slice`: a pod that is placed is one step, a gang that is refused two.
    `stops_per_cycle` is the blast radius: how many attempts one cycle may reclaim or preempt. `backoff_ms` is the wait
    after a failed placement or a failed run, doubled each time up to `backoff_max_ms`. `placing_pods` bounds how many
    pods are on their way into the cluster at once, so that a backlog never waits inside its own deadline. `spare_ms` is
    how long an attempt is left alone after a disruption budget has protected it; `min_run_ms` how long after its start.
    `min_run_by_class` says it for some service classes; what a queue says goes before both. `takings_per_job` is how
    often one job may be stopped or shrunk for others in an hour, where its queue does not say; `unsaving` what becomes
    of jobs that can't save their state. `robbed_after_ms` is how long a member may be without its devices before it
    counts as failed: its end may be late.
    `promises` is how many gangs that wait are promised a latest start, beside those that ask for it; a promise whose
    start is within `horizon_ms` comes first in every order. `stop_ms` is what a stop takes at most, notice and grace
    included; `hole_start_ms` what a start inside a hole may take before the duration counts all the same;
    `hole_least_ms` how long a hole must last for a gang of unknown length that may be stopped at its end. Who has
    waited for `patience_ms` is also promised what preemptible work of its own queue holds without an end, after
    `notice_ms`. `reclaim_grace_ms` is the most that a job has to save before borrowed GPUs are taken from it.
    `stagger_max_ms` is how long a stop may wait for its turn to write its checkpoint into its pool's storage.
    `grow_after_ms` is how long an elastic gang leaves its size alone, and a node its room, before the gang grows.
    """

    place_deadline_ms: int = 30_000
    node_lost_after_ms: int = 40_000
    nomination_ms: int = 300_000
    gangs_per_slice: int = 64
    steps_per_slice: int = 64
    stops_per_cycle: int = 256
    backoff_ms: int = 1_000
    backoff_max_ms: int = 300_000
    placing_pods: int = 256
    spare_ms: int = 60_000
    robbed_after_ms: int = 30_000
    stagger_max_ms: int = 300_000
    reclaim_grace_ms: int = 900_000
    min_run_ms: int = 0
    promises: int = 8
    horizon_ms: int = 300_000
    stop_ms: int = 60_000
    hole_start_ms: int = 120_000
    hole_least_ms: int = 600_000
    patience_ms: int = 21_600_000
    notice_ms: int = 86_400_000
    grow_after_ms: int = 600_000
    min_run_by_class: tuple[tuple[ServiceClass, int], ...] = ()
    takings_per_job: int = 4
    unsaving: Unsaving = Unsaving.LAST
    placement_on: bool = True
    preemption_on: bool = True
    reclaim_on: bool = True

    @property
    def asked_again(self) -> int:
        """Gangs of a slice that may be such as were refused before: half of what it has time to refuse."""
        return (min(self.gangs_per_slice, self.steps_per_slice // 2) + 1) // 2

    def backoff_after(self, failures: int) -> int:
        """Return the wait in ms after so many failures in a row, the first being 1."""
        return min(self.backoff_max_ms, self.backoff_ms << min(failures - 1, 20))
