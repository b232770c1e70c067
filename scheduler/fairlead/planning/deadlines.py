"""What can't be done by its deadline any more, and what won't be if everybody before it has their turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead.model.effects import Effect, Refuse
from fairlead.model.gang import Gang
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.tenancy import ancestors
from fairlead.units import duration_text, gpu_hours_text, gpus_of, utc_text
from fairlead.world.lines import latest_start_ms, retry_ms
from fairlead.world.snapshot import World


def deadline_refusal(gang: Gang, now_ms: int) -> Refusal | None:
    """Return that a gang can't be done by its deadline even if it started now, None where it can or has none.

    A gang that declares no duration must start before its deadline.
    """
    latest_ms = latest_start_ms(gang)
    if latest_ms is None or now_ms <= latest_ms:
        return None
    assert gang.deadline_ms is not None, gang
    duration = duration_text(gang.duration_ms) if gang.duration_ms else "no declared time"
    return refuse(
        Reason.DEADLINE_PASSED, duration=duration, latest=utc_text(latest_ms), deadline=utc_text(gang.deadline_ms)
    )


def moments_of(effects: Iterable[Effect], world: World) -> Iterator[int]:
    """Yield when time alone may change one of the answers of a plan, UTC ms."""
    for effect in effects:
        waiting = world.waiting.get(effect.gang) if isinstance(effect, Refuse) else None
        if isinstance(effect, Refuse) and waiting is not None:
            moment = retry_ms(waiting.gang, effect.refusal)
            if moment is not None:
                yield moment


def behind_demand(gang: Gang, world: World) -> Refusal | None:
    """Return that what waits before a gang in its queue fills the queue until after its latest start.

    A lower bound, so that it is true: only declared durations count, and the queue is taken to have all that its
    limits, and the fleet, could ever give it. O(gangs that wait in the queue), for gangs with a deadline only.
    """
    latest_ms = latest_start_ms(gang)
    if latest_ms is None:
        return None
    place = (-gang.priority, gang.submitted_ms, gang.id)
    ahead = sum(
        other.gang.gpu_milli * (other.gang.duration_ms or 0)
        for lines in (world.waiting.fresh, world.waiting.reopened, world.waiting.refused)
        for entry in lines.get(gang.queue, ())
        for other in entry[3].ready
        if (-other.gang.priority, other.gang.submitted_ms, other.gang.id) < place
    )
    limits = [world.queues[name].limit_gpus for name in ancestors(gang.queue, dict(world.queues))]
    most = min([world.capacity_milli, *(1000 * limit for limit in limits if limit is not None)])
    if not ahead or (most and world.now_ms + ahead // most <= latest_ms):
        return None
    return refuse(
        Reason.DEADLINE_BEHIND_DEMAND,
        ahead=gpu_hours_text(ahead // 1000),
        queue=gang.queue,
        gpus=gpus_of(most),
        latest=utc_text(latest_ms),
    )
