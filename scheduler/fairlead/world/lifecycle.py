"""The life of a gang as a table. A change that is not in the table is a bug and raises with the gang's history.

Theory of operation. `Phase` is what people see. A gang waits (PENDING), is written to the cluster (PLACING), has all
its pods bound (STARTING), has all of them Running (RUNNING). Whatever ends an attempt goes through STOPPING, which
lasts until every device on living nodes is released; only then is the gang PENDING again or in a final phase. REFUSED
is a spec that must change first; SUSPENDED waits for its owner.
"""

from __future__ import annotations

from enum import Enum, auto

from fairlead.model.effects import Phase


class Step(Enum):
    """What moves a gang from one phase to the next."""

    ACCEPTED = auto()  # the spec can be scheduled
    REFUSED = auto()  # the spec must change first
    SUSPEND = auto()
    RESUME = auto()
    INTEND = auto()  # a plan for it was accepted
    BOUND = auto()
    ALL_RUNNING = auto()
    STOP = auto()  # its attempt is to end
    REQUEUE = auto()  # the attempt is over and it goes back to its queue
    PAUSE = auto()  # the attempt is over and its owner has suspended it
    SUCCEED = auto()
    FAIL = auto()
    CARRY_ON = auto()  # the stop was refused
    RECOVER = auto()  # found at start in the cluster: bound, or being bound

    __hash__ = object.__hash__  # there is one of each; Enum's own asks Python for the hash of the name every time


_P = Phase
NEXT: dict[tuple[Phase, Step], Phase] = {
    (_P.PENDING, Step.ACCEPTED): _P.PENDING,
    (_P.PENDING, Step.REFUSED): _P.REFUSED,
    (_P.PENDING, Step.SUSPEND): _P.SUSPENDED,
    (_P.PENDING, Step.INTEND): _P.PLACING,
    (_P.PENDING, Step.RECOVER): _P.PLACING,
    (_P.REFUSED, Step.ACCEPTED): _P.PENDING,
    (_P.REFUSED, Step.REFUSED): _P.REFUSED,
    (_P.REFUSED, Step.RECOVER): _P.PLACING,
    (_P.SUSPENDED, Step.RESUME): _P.PENDING,
    (_P.SUSPENDED, Step.REFUSED): _P.REFUSED,
    (_P.SUSPENDED, Step.RECOVER): _P.PLACING,
    (_P.PLACING, Step.BOUND): _P.STARTING,
    (_P.PLACING, Step.STOP): _P.STOPPING,
    (_P.STARTING, Step.ALL_RUNNING): _P.RUNNING,
    (_P.STARTING, Step.STOP): _P.STOPPING,
    (_P.RUNNING, Step.STOP): _P.STOPPING,
    (_P.STOPPING, Step.CARRY_ON): _P.STARTING,
    (_P.STOPPING, Step.REQUEUE): _P.PENDING,
    (_P.STOPPING, Step.PAUSE): _P.SUSPENDED,
    (_P.STOPPING, Step.SUCCEED): _P.SUCCEEDED,
    (_P.STOPPING, Step.FAIL): _P.FAILED,
    (_P.PENDING, Step.SUCCEED): _P.SUCCEEDED,  # remembered from its status at start
    (_P.PENDING, Step.FAIL): _P.FAILED,
    (_P.SUSPENDED, Step.SUCCEED): _P.SUCCEEDED,
    (_P.SUSPENDED, Step.FAIL): _P.FAILED,
    (_P.PLACING, Step.RECOVER): _P.PLACING,  # two attempts were found: the later one counts
    (_P.STARTING, Step.RECOVER): _P.PLACING,
    (_P.RUNNING, Step.RECOVER): _P.PLACING,
    (_P.STOPPING, Step.RECOVER): _P.PLACING,
    (_P.SUCCEEDED, Step.RECOVER): _P.PLACING,
    (_P.FAILED, Step.RECOVER): _P.PLACING,
}

HOLDING = frozenset({_P.PLACING, _P.STARTING, _P.RUNNING, _P.STOPPING})
"""Phases in which an attempt holds devices."""

LIVE = frozenset({_P.STARTING, _P.RUNNING})
"""Phases in which an attempt is bound whole and nothing ends it."""

FINAL = frozenset({_P.SUCCEEDED, _P.FAILED})


def next_phase(phase: Phase, step: Step, who: object) -> Phase:
    """Return the phase after `step`; asserts that the table has it, in the words of `who`."""
    after = NEXT.get((phase, step))
    assert after is not None, f"{who}: {step.name} is no step from {phase}"
    return after
