"""From when on an attempt may be taken from, or may grow: run times, caps of one job, what disruption budgets spare."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.model.effects import Phase
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Queue, ancestors
from fairlead.world.gangs import Attempt, GangRecord
from fairlead.world.takings import MOST_REMEMBERED, WINDOW_MS

Caps = Mapping[str, tuple[int | None, int | None]]
"""Queue -> (minimum run time in ms, takings of one job in an hour), None where no queue from it up says any."""
NO_CAPS: Caps = {}


def caps_of(queues: Mapping[str, Queue]) -> Caps:
    """Return what queues say, each from the nearest one up that does; queues that are told nothing are left out."""
    if not any(q.taking_caps.min_run_ms is not None or q.taking_caps.per_job is not None for q in queues.values()):
        return NO_CAPS
    known = dict(queues)
    found: dict[str, tuple[int | None, int | None]] = {}
    for name in sorted(known):
        chain = [known[above].taking_caps for above in ancestors(name, known)]
        min_run_ms = next((one.min_run_ms for one in chain if one.min_run_ms is not None), None)
        per_job = next((one.per_job for one in chain if one.per_job is not None), None)
        if (min_run_ms, per_job) != (None, None):
            found[name] = min_run_ms, per_job
    return found


def ripe_at(record: GangRecord, attempt: Attempt, rules: Rules, caps: Caps) -> int:
    """Return from when on the attempt may be taken from, 0 for at once.

    What took room that was made for it counts from its binding: who was refused while that room was kept could not
    have it, and is to be asked again. What any other attempt took was free when they were refused.
    """
    min_run_ms, per_job = caps.get(record.queue, (None, None))
    if min_run_ms is None:
        min_run_ms = rules.min_run_ms
        if rules.min_run_by_class and record.gang is not None:
            min_run_ms = dict(rules.min_run_by_class).get(record.gang.service_class, min_run_ms)
    began = attempt.all_running_ms
    ripe_ms = max(attempt.spared_until_ms, began + min_run_ms if began is not None and min_run_ms else 0)
    if attempt.from_room and attempt.bound_ms is not None:
        ripe_ms = max(ripe_ms, attempt.bound_ms)
    per_job = min(MOST_REMEMBERED, rules.takings_per_job if per_job is None else per_job)
    if len(record.taken_ms) < per_job or not record.taken_ms:
        return ripe_ms
    return max(ripe_ms, record.taken_ms[-max(1, per_job)] + WINDOW_MS)


MOST_MEMBERS = 4_096
"""Members of one attempt, those who have left included: each has a number of its own."""
MOST_DOUBLINGS = 6


def grows_from(record: GangRecord, attempt: Attempt, rules: Rules) -> int | None:
    """Return from when on a running elastic gang may grow, None where it has all its members or must end first.

    It leaves its size alone for `rules.grow_after_ms` after every change. That time is doubled, a few times over, with
    each setback: so a gang that is shrunk again and again grows ever more rarely.
    """
    gang = record.gang
    if gang is None or not gang.is_elastic or record.phase is not Phase.RUNNING or attempt.all_running_ms is None:
        return None
    if attempt.leaving or attempt.joining or attempt.present >= gang.members or attempt.succeeded or record.gone:
        return None
    if len(attempt.placement.members) >= MOST_MEMBERS:
        return None
    wait_ms = rules.grow_after_ms << min(attempt.setbacks, MOST_DOUBLINGS)
    return max(attempt.all_running_ms, attempt.resized_ms) + wait_ms
