"""The second opinion on holds: what starts is covered by the budget beside all that runs; who loses its hold is not.

Written without a look at `budgets.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead.model.effects import Notice, Phase, Retier, Stop
from fairlead.model.gang import Gang, ServiceClass, Tier
from fairlead.model.reasons import Reason
from fairlead.planning.verify_idle import idles
from fairlead.world.snapshot import Running, World

AN_HOUR = 3_600_000
A_MINUTE = 60_000

Above = Callable[[str], tuple[str, ...]]


def _most(name: str, world: World) -> int | None:
    """Return a queue's budget in milli-GPU times ms, None where it bounds nothing now."""
    budget, spent = world.queues[name].caps.budget, world.spent.get(name)
    if budget is None or spent is None or not budget.hard or world.now_ms >= spent.period_end_ms:
        return None
    gpu_ms = budget.gpu_ms or spent.worth_gpu_ms
    return None if gpu_ms is None else 1000 * gpu_ms


def _committed(name: str, world: World, above: Above) -> int:
    """Return what is used and what holds cover, in milli-GPU times ms."""
    spent = world.spent[name]
    sum_ = 1000 * spent.gpu_ms
    for attempt in world.running:
        if name in above(attempt.queue):
            sum_ += attempt.gpu_milli * max(0, world.now_ms - spent.at_ms)
            end = min(_end(attempt, world.now_ms, renewed=True), spent.period_end_ms)
            sum_ += attempt.gpu_milli * max(0, end - world.now_ms)
    return sum_


def _end(attempt: Running, now: int, *, renewed: bool) -> int:
    if attempt.phase is Phase.STOPPING or attempt.notice is not None or attempt.demoted:
        return now
    end = attempt.since_ms + AN_HOUR
    while end <= now + (A_MINUTE if renewed else 0):
        end += AN_HOUR
    runs = attempt.spec.duration_ms if attempt.spec is not None else None
    began = attempt.since_ms if attempt.all_running_ms is None else attempt.all_running_ms
    return end if runs is None or began + runs <= now else min(end, began + runs)


def check_covered(gang: Gang, gpu_milli: int, world: World, above: Above, placed: dict[str, int]) -> Iterator[str]:
    """Yield the budgets that do not cover one more gang; `placed` has what the plan placed, and gets this one."""
    for name in above(gang.queue):
        most = _most(name, world)
        if most is None or not gpu_milli:
            continue
        runs = min(AN_HOUR if gang.duration_ms is None else gang.duration_ms, AN_HOUR)
        need = gpu_milli * min(runs, world.spent[name].period_end_ms - world.now_ms)
        placed[name] = placed.get(name, _committed(name, world, above)) + need
        if placed[name] > most + 1000:  # what is used is rounded down to a whole GPU-ms
            yield f"{gang.full_name}: started although the budget of queue {name} does not cover it"


def check_not_renewed(effect: Stop | Notice, attempt: Running, world: World, above: Above) -> Iterator[str]:
    """Yield why an attempt may not be stopped for want of budget: it is not its time, or there is enough."""
    if effect.cause.reason is Reason.BUDGET_NOT_RENEWED and attempt.notice is None:
        yield from _check_want(attempt, world, above, "checkpoint-and-stop", "stopped")


def check_retier(effect: Retier, attempt: Running | None, world: World, above: Above) -> Iterator[str]:
    """Yield why an attempt is not of this tier: it is already, is demoted without need, or is let off too soon."""
    if attempt is None or attempt.tier is effect.tier:
        yield f"{effect.gang}: of tier {effect.tier} without another one before"
        return
    spec = attempt.spec
    idle = idles(attempt, world, above, "demote")
    spare = spec is None or spec.service_class is ServiceClass.OPPORTUNISTIC
    if effect.tier is Tier.OPPORTUNISTIC and not spare and not idle:
        yield from _check_want(attempt, world, above, "demote", "demoted")
    if not attempt.demoted:
        return
    if idle:
        yield f"{effect.gang}: has its right back although it is idle"
    for name in _asking(attempt.queue, world, above, "demote"):
        most, spent = _most(name, world), world.spent.get(name)
        if most is not None and spent is not None:
            need = attempt.gpu_milli * min(AN_HOUR, spent.period_end_ms - world.now_ms)
            if _committed(name, world, above) + need > most + 1000:
                yield f"{effect.gang}: has its right back although the budget of queue {name} does not cover an hour"


def _check_want(attempt: Running, world: World, above: Above, policy: str, done: str) -> Iterator[str]:
    """Its hour is over in a minute, and a budget of this policy does not cover all that is held for another.

    A budget whose period ends within the hour pays for no other hour.
    """
    hour_ends = _end(attempt, world.now_ms, renewed=False)
    if _end(attempt, world.now_ms, renewed=True) <= hour_ends:
        yield f"{attempt.gang}: {done} for want of budget before its hour is over"
    for name in _asking(attempt.queue, world, above, policy):
        most = _most(name, world)
        if most is not None and hour_ends < world.spent[name].period_end_ms and _committed(name, world, above) > most:
            return
    yield f"{attempt.gang}: {done} for want of budget although there is enough"


def _asking(queue: str, world: World, above: Above, policy: str) -> list[str]:
    """Return the queues from here up whose budget has this policy."""
    budgets = {name: world.queues[name].caps.budget for name in above(queue)}
    return [name for name, budget in budgets.items() if budget is not None and budget.on_exhausted == policy]
