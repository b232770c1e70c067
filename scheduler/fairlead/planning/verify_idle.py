"""The second opinion on idle jobs: who is stopped or demoted for being idle is, and for as long as its queue says.

Written without a look at `idle.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead.model.effects import Notice, Stop
from fairlead.model.reasons import Reason
from fairlead.world.snapshot import Running, World

Above = Callable[[str], tuple[str, ...]]


def idles(attempt: Running, world: World, above: Above, policy: str) -> bool:
    """Whether the rule that counts for an attempt says this policy, and its time is up."""
    rules = [world.queues[name].caps.idle for name in above(attempt.queue)]
    said = [rule for rule in rules if rule is not None]
    if not said or said[0].then != policy or attempt.idle_ms is None or attempt.spec is None:
        return False
    # Who is demoted shows as spare work, and was of a class of the rule when it was found idle.
    meant = attempt.demoted or not said[0].service_classes or attempt.spec.service_class in said[0].service_classes
    began_ms = attempt.all_running_ms
    at_work = began_ms is not None and began_ms <= attempt.idle_ms
    return meant and at_work and attempt.idle_ms + said[0].after_ms <= world.now_ms


def check_idle_stop(effect: Stop | Notice, attempt: Running, world: World, above: Above) -> Iterator[str]:
    """Yield why an attempt may not be stopped for being idle."""
    if effect.cause.reason is not Reason.IDLE or attempt.notice is not None:
        return
    if not idles(attempt, world, above, "checkpoint-and-stop"):
        yield f"{attempt.gang}: stopped for being idle although no rule says so"
    if effect.requeue:
        yield f"{attempt.gang}: stopped for being idle, and would be idle again"
