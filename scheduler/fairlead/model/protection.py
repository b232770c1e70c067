"""What a pool keeps free, for whom and when: protected amounts, a ceiling, warm and hot spares."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import ServiceClass
from fairlead.model.windows import Window

RETURN_WITHIN_MS = 600_000
LEAD_MS = 1_800_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """`gpus` at the peak and `redundancy` more are there for a class in its windows, or always where it has none.

    Outside the windows others may use them if they are certain to be gone when the next one starts. From `lead_ms`
    before it nobody else comes, and who may be stopped is. Inside, others may have up to `lend_gpus`. Whoever is asked
    to go has gone `return_within_ms` later; who needs longer may not borrow. On each node only multiples of `unit_gpus`
    count: what is left of a node beside them is of no use to pods of that size.
    """

    service_class: ServiceClass = ServiceClass.SERVING
    gpus: int
    redundancy: int = 0
    windows: tuple[Window, ...] = ()
    lead_ms: int = LEAD_MS
    lend_gpus: int = 0
    return_within_ms: int = RETURN_WITHIN_MS
    unit_gpus: int = 1

    @property
    def amount(self) -> int:
        """GPUs in all: peak and redundancy."""
        return self.gpus + self.redundancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Spares:
    """`warm_gpus` stay free for jobs of `service_class` that start; `hot_nodes` for jobs whose node was lost."""

    warm_gpus: int = 0
    service_class: ServiceClass = ServiceClass.SERVING
    hot_nodes: int = 0


SHORTEST_RETURN_MS = 60_000
LONGEST_MS = 7 * 86_400_000
MOST_GPUS = 1_000_000
MOST_WINDOWS = 16


def protection_problem(said: Protection) -> str:
    """Return what is wrong with a protection, as ``field: problem; mend``, "" where nothing is."""
    if not 1 <= said.gpus <= MOST_GPUS:
        return f"gpus: {said.gpus} is outside 1..{MOST_GPUS}"
    if not 0 <= said.redundancy <= MOST_GPUS:
        return f"redundancy: {said.redundancy} is outside 0..{MOST_GPUS}"
    if not 1 <= said.unit_gpus <= 64:
        return f"unitGpus: {said.unit_gpus} is outside 1..64"
    if not 0 <= said.lend_gpus <= said.amount:
        return f"lendGpus: {said.lend_gpus} is outside 0..{said.amount}, which is gpus and redundancy together"
    if len(said.windows) > MOST_WINDOWS:
        return f"windows: has {len(said.windows)}; at most {MOST_WINDOWS} are possible"
    if not SHORTEST_RETURN_MS <= said.return_within_ms <= LONGEST_MS:
        return "returnWithin: nobody has gone sooner than 1m after being told; write 1m or more, up to 168h"
    if not 0 < said.lead_ms <= LONGEST_MS:
        return "lead: is outside 1s..168h"
    if said.windows and said.return_within_ms > said.lead_ms:
        return "returnWithin: is longer than lead, so who is told then is there when the window starts; raise lead"
    return ""


def spares_problem(said: Spares) -> str:
    """Return what is wrong with spares, as ``field: problem; mend``, "" where nothing is."""
    if not 0 <= said.warm_gpus <= MOST_GPUS:
        return f"warmGpus: {said.warm_gpus} is outside 0..{MOST_GPUS}"
    if not 0 <= said.hot_nodes <= 100_000:
        return f"hotNodes: {said.hot_nodes} is outside 0..100000"
    return "" if said.warm_gpus or said.hot_nodes else "warmGpus: says nothing; give warmGpus or hotNodes a number"
