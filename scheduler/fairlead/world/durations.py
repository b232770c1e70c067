"""How long gangs really ran, learned from those that finished: quantiles by queue, user and template.

They choose among candidates for a hole and feed estimates; nothing is ever promised on the strength of them. Memory is
bounded: the last `SAMPLES` runs of a key, `KEYS_MAX` keys; the key that was not heard of for longest falls out. Only
facts change this, so a replay learns the same.
"""

from __future__ import annotations

from fairlead.model.gang import Gang
from fairlead.model.reasons import Reason
from fairlead.model.reservation import DurationsLearned
from fairlead.world.gangs import Attempt, GangRecord

SAMPLES = 64
KEYS_MAX = 4_096
LEAST = 3
"""Runs below which a key says nothing, and the next wider one is asked."""
HALF, MOST = 500, 900
"""The quantiles that estimates use, in thousandths."""

Key = tuple[str, ...]


class Durations:
    """Runs in ms, by (queue, user, template), (queue, user) and (queue,): what one does not know the next is asked.

    A template is what the gang names, else its name without the number at its end.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._runs: dict[Key, list[int]] = {}
        self._sorted: dict[Key, list[int]] = {}

    def note(self, gang: Gang, run_ms: int) -> None:
        """Hear of a run that has finished by itself; a clock that stepped back makes it no shorter than nothing."""
        for key in keys_of(gang):
            self._add(key, (max(0, run_ms),))

    def conclude(self, record: GangRecord, attempt: Attempt) -> None:
        """Hear of an attempt that is over; only one that finished says how long such work takes."""
        stop, began = attempt.stop, attempt.all_running_ms
        if stop is not None and stop.cause.reason is Reason.FINISHED and record.gang is not None and began is not None:
            self.note(record.gang, stop.at_ms - began)

    def learn(self, fact: DurationsLearned) -> None:
        """Hear of runs that the books remember, the oldest first."""
        key = (fact.queue, fact.user, fact.template)
        for length in (3, 2, 1):
            self._add(key[:length], tuple(max(0, run_ms) for run_ms in fact.run_ms))

    def quantile(self, gang: Gang, permille: int) -> int | None:
        """Return the run time that so many thousandths of runs like it kept to, None where too little is known."""
        for key in keys_of(gang):
            runs = self._runs.get(key, ())
            if len(runs) >= LEAST:
                ranked = self._sorted.get(key)
                if ranked is None:
                    ranked = self._sorted[key] = sorted(runs)
                return ranked[min(len(runs) - 1, len(runs) * permille // 1_000)]
        return None

    def _add(self, key: Key, runs: tuple[int, ...]) -> None:
        self._sorted.pop(key, None)
        known = self._runs.pop(key, [])
        self._runs[key] = [*known, *runs][-SAMPLES:]
        if len(self._runs) > KEYS_MAX:
            oldest = next(iter(self._runs))
            del self._runs[oldest]
            self._sorted.pop(oldest, None)


def keys_of(gang: Gang) -> tuple[Key, Key, Key]:
    """Return what a gang's run time is looked up by, the narrowest first."""
    template = gang.template or gang.name.rstrip("0123456789").rstrip("-_.")
    return (gang.queue, gang.user, template), (gang.queue, gang.user), (gang.queue,)
