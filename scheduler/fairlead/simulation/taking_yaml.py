"""What keeps a queue's jobs from being taken too soon or too often, as a Queue and a scenario file say it."""

from __future__ import annotations

from fairlead.model.tenancy import TakingCaps
from fairlead.simulation.fields import Fields

RESIZE = ("AtStart", "WhileRunning")
"""When the number of an elastic gang's members is chosen."""
MOST_PER_JOB = 32
MOST_PER_QUEUE = 1_000_000


def taking_caps(item: Fields) -> TakingCaps:
    """Read `preemption`: minRun, perJob, perQueue and lostWork.

    Raises
    ------
    UnreadableInput
        A value makes no sense; the text names the field and the mend.
    """
    if not item.has("preemption"):
        item.raw("preemption")
        return TakingCaps()
    inner = item.inner("preemption")
    caps = TakingCaps(
        min_run_ms=inner.duration_ms("minRun"),
        per_job=inner.integer("perJob", low=1, high=MOST_PER_JOB) if inner.has("perJob") else None,
        count=inner.integer("perQueue", low=0, high=MOST_PER_QUEUE) if inner.has("perQueue") else None,
        lost_gpu_ms=inner.duration_ms("lostWork"),
    )
    inner.ignore("perJob", "perQueue")
    inner.done()
    return caps
