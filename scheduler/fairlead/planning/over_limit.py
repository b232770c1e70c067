"""What becomes of running work when a limit is lowered below what is held, in queues that ask to requeue it."""

from __future__ import annotations

from collections.abc import Collection

from fairlead.model.effects import Effect, Phase, Stop
from fairlead.model.gang import GangId
from fairlead.model.quota import GPU, amount_text, words_of
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.ordering.standing import LimitHit, Standing
from fairlead.placement.lost_work import lost_work
from fairlead.world.snapshot import Running, World


def over_limit(world: World, standing: Standing, spared: set[GangId], at_most: int) -> list[Effect]:
    """Return the stops that bring every queue with `on_over_limit` requeue back within its limits, at most so many.

    Lowest priority first, then least lost work; nobody who turns out not to be needed, and never a gang that may not be
    preempted. `standing` counts what is stopped as leaving, `spared` names it. Costs nothing where no queue asks.
    """
    stops: list[Effect] = []
    for name in standing.tree.requeuing:
        for hit in standing.over(name):
            for attempt in _enough(world, standing, name, hit, spared):
                if len(stops) >= at_most:
                    return stops
                spared.add(attempt.gang)
                standing.leave(attempt.queue, attempt.gpu_milli, attempt.also)
                stops.append(Stop(gang=attempt.gang, attempt=attempt.attempt, cause=_cause(hit), requeue=True))
    return stops


def _cause(hit: LimitHit) -> Refusal:
    used, limit = amount_text(hit.resource, hit.used_milli), amount_text(hit.resource, hit.limit_milli)
    return refuse(Reason.OVER_LIMIT, queue=hit.queue, used=used, limit=limit, what=words_of(hit.resource))


def _enough(world: World, standing: Standing, name: str, hit: LimitHit, spared: Collection[GangId]) -> list[Running]:
    """Return whom to stop so that a queue is within one limit again."""
    chains, over = standing.tree.chains, hit.used_milli - hit.limit_milli
    running = [
        attempt
        for attempt in world.running
        if attempt.phase in (Phase.STARTING, Phase.RUNNING)
        and attempt.spec is not None
        and attempt.spec.preemptible
        and attempt.gang not in spared
        and name in chains.get(attempt.queue, ())
        and _amount(attempt, hit.resource) > 0
    ]
    running.sort(key=lambda a: (a.spec.priority if a.spec else 0, lost_work(a, world.now_ms), a.gang))
    chosen: list[Running] = []
    for attempt in running:
        if over <= 0:
            break
        chosen.append(attempt)
        over -= _amount(attempt, hit.resource)
    for attempt in reversed(chosen[:-1]):
        if over + _amount(attempt, hit.resource) <= 0:
            chosen.remove(attempt)
            over += _amount(attempt, hit.resource)
    return chosen


def _amount(attempt: Running, resource: str) -> int:
    return attempt.gpu_milli if resource == GPU else dict(attempt.also).get(resource, 0)
