"""What becomes of jobs that hold devices and do not use them, where their queue says more than that they are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fairlead.model.effects import Effect, Stop
from fairlead.model.gang import GangId
from fairlead.model.queue_caps import IdleRule, OnIdle
from fairlead.model.reasons import Reason, refuse
from fairlead.ordering.standing import Standing
from fairlead.units import duration_text
from fairlead.world.idleness import rule_for
from fairlead.world.snapshot import Running, World


def idle_by(world: World, chains: Mapping[str, tuple[str, ...]], then: OnIdle) -> Iterator[tuple[Running, IdleRule]]:
    """Yield, longest first, the attempts that are idle for as long as their queue's rule says, if it says `then`.

    A rule may have become another one since its time was up, so it is asked again.
    """
    for attempt in sorted(world.running.idle, key=lambda one: (one.idle_ms, one.gang)):
        if attempt.spec is None or attempt.idle_ms is None:
            continue
        own = None if attempt.demoted else attempt.spec.service_class  # spare work now, whatever it was
        rule = rule_for(own, chains.get(attempt.queue, ()), world.queues)
        if rule is not None and rule.then is then and world.now_ms - attempt.idle_ms >= rule.after_ms:
            yield attempt, rule


def idle_stops(world: World, standing: Standing, spared: set[GangId], at_most: int) -> list[Effect]:
    """Return the stops of idle jobs whose queue asks for it, at most so many; they are over, and in no queue again.

    `standing` counts what is stopped as leaving, `spared` names it. Who can save is asked to first, as always.
    """
    stops: list[Effect] = []
    for attempt, rule in idle_by(world, standing.tree.chains, OnIdle.STOP):
        if len(stops) >= at_most:
            break
        if attempt.gang in spared:
            continue
        spared.add(attempt.gang)
        standing.leave(attempt.queue, attempt.gpu_milli, attempt.also)
        cause = refuse(Reason.IDLE, queue=attempt.queue, idle=duration_text(rule.after_ms))
        stops.append(Stop(gang=attempt.gang, attempt=attempt.attempt, cause=cause, requeue=False))
    return stops
