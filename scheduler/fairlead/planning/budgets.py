"""How a budget slows what starts, and stops it when it is used up. One of money counts as the GPU time it comes to.

With B the budget, u what has been used, h the GPUs held now, n those asked for, E the end of the period, t now:

- Every job that runs keeps a hold on the budget, of its GPUs until the end of its hour (which begins when it did), of
  its declared duration where that is over before, or of the period. A minute before the end it is renewed for another
  hour. A gang starts only if u and all holds and its own leave something: so what is held is paid for, and B is not
  overdrawn by what starts.
- below the soft share of B nothing else is held back;
- from then on a gang starts if (h + n) · (E - t) ≤ B - u: if what is left pays for what is held, and for the gang,
  until the end. So the queue goes on at the rate that its rest allows, E - t falls while nothing is held, and what is
  left can be used to the last hour;
- at u ≥ B nothing that needs a GPU starts until the next period;
- whose hold cannot be renewed goes on, or is stopped (`over_budget`) or demoted (`demotions`) where the queue says so.

u is what the books last told, and what is held since. Holds are not kept anywhere: they follow from when a job began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead.model.effects import Effect, Phase, Retier, Stop
from fairlead.model.events import QueueSpent
from fairlead.model.gang import GangId, Tier
from fairlead.model.queue_caps import Budget, OnExhausted, OnIdle
from fairlead.model.reasons import RETRY, Reason, Refusal, refuse
from fairlead.ordering.standing import Standing
from fairlead.planning.idle import idle_by, idle_stops
from fairlead.planning.over_limit import over_limit
from fairlead.units import gpu_hours_text, gpus_of, utc_text
from fairlead.world.snapshot import Running, World

HOLD_MS = 3_600_000
RENEW_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A queue's budget, what was last told of it, and the thousandths of a GPU that it and those below it hold.

    `covered` works out what their holds still cover, in thousandths of a GPU times ms; it is only asked where less is
    left than the longest hold of all of them, one that has just been renewed.
    """

    queue: str
    budget: Budget
    spent: QueueSpent
    held_milli: int
    covered: Callable[[], int] = field(default=lambda: 0)

    def used_gpu_ms(self, now_ms: int) -> int:
        """Return what has been used by now."""
        return self.spent.gpu_ms + self.held_milli * max(0, now_ms - self.spent.at_ms) // 1000

    @property
    def all_gpu_ms(self) -> int | None:
        """What the budget comes to, None where it bounds nothing (now)."""
        if not self.budget.hard:
            return None
        return self.spent.worth_gpu_ms if self.budget.nanos else self.budget.gpu_ms

    def leaves(self, need: int, now_ms: int) -> bool:
        """Whether so much, in thousandths of a GPU times ms, is left beside what holds cover, as far as known."""
        most = self.all_gpu_ms
        return most is None or self.is_over(now_ms) or self.covered() + need <= 1000 * (most - self.used_gpu_ms(now_ms))

    def is_over(self, now_ms: int) -> bool:
        """Whether the period that was told of has ended; nothing is known of the next."""
        return now_ms >= self.spent.period_end_ms

    def is_exhausted(self, now_ms: int) -> bool:
        """Whether nothing is left in this period."""
        most = self.all_gpu_ms
        return most is not None and not self.is_over(now_ms) and self.used_gpu_ms(now_ms) >= most


def budget_refusal(account: Account, need_milli: int, need_ms: int, now_ms: int) -> Refusal | None:
    """Return why a gang charged for `need_milli`, that declares to run `need_ms` or longer, may not start now."""
    most = account.all_gpu_ms
    if need_milli <= 0 or most is None or account.is_over(now_ms):
        return None
    budget, until_ms = account.budget, account.spent.period_end_ms
    used = account.used_gpu_ms(now_ms)
    left, held = most - used, account.held_milli
    if left <= 0:
        said = {"used": gpu_hours_text(used), "budget": gpu_hours_text(most), "queue": account.queue}
        return refuse(Reason.BUDGET_EXHAUSTED, **said, **retry_at(until_ms))
    need = need_milli * min(need_ms, HOLD_MS, until_ms - now_ms)
    if held * (HOLD_MS + RENEW_MS) + need > 1000 * left and account.covered() + need > 1000 * left:
        return refuse(
            Reason.BUDGET_HELD,
            queue=account.queue,
            left=gpu_hours_text(left),
            held=gpu_hours_text(account.covered() // 1000),
            need=gpu_hours_text(need // 1000),
            **retry_at(min(max(until_ms - 1000 * left // need_milli, now_ms + 1), until_ms)),
        )
    if used * 100 < budget.soft_percent * most or (held + need_milli) * (until_ms - now_ms) <= 1000 * left:
        return None
    # (h + n)(E - t) = L - h(t - now), all in thousandths of a GPU times ms
    from_ms = -(-((held + need_milli) * until_ms - 1000 * left - held * now_ms) // need_milli)
    return refuse(
        Reason.BUDGET_PACED,
        queue=account.queue,
        left=gpu_hours_text(left),
        until=utc_text(until_ms),
        pays=gpus_of(1000 * left // (until_ms - now_ms)),
        held=gpus_of(held),
        need=gpus_of(need_milli),
        **retry_at(min(max(from_ms, now_ms + 1), until_ms)),
    )


def retry_at(at_ms: int) -> dict[str, str | int]:
    """Return the details that say from when on time alone may change a refusal."""
    return {RETRY: at_ms, "retry_at": utc_text(at_ms)}


# --- holds ----------------------------------------------------------------------------------------------------------


def hold_until(attempt: Running, now_ms: int) -> int:
    """Return until when an attempt's hold covers it: `now_ms` where it has none any more."""
    if attempt.phase is Phase.STOPPING or attempt.notice is not None or attempt.demoted:
        return now_ms
    hours = (now_ms + RENEW_MS - attempt.since_ms) // HOLD_MS + 1
    hour_ends, own_ends = attempt.since_ms + hours * HOLD_MS, _declared_end(attempt, now_ms)
    return hour_ends if own_ends is None else min(hour_ends, own_ends)


def _declared_end(attempt: Running, now_ms: int) -> int | None:
    """Return when it is over by its own word, None where it says nothing, or has run longer than it said."""
    duration_ms = None if attempt.spec is None else attempt.spec.duration_ms
    begun_ms = attempt.since_ms if attempt.all_running_ms is None else attempt.all_running_ms
    end_ms = None if duration_ms is None else begun_ms + duration_ms
    return end_ms if end_ms is not None and end_ms > now_ms else None


def _renews_at(attempt: Running, now_ms: int) -> int | None:
    """Return the boundary for which a hold is being renewed now, None where it is not."""
    boundary_ms = attempt.since_ms + (now_ms + RENEW_MS - attempt.since_ms) // HOLD_MS * HOLD_MS
    own_ends = _declared_end(attempt, now_ms)
    goes_on = own_ends is None or own_ends > boundary_ms + RENEW_MS
    is_due = goes_on and boundary_ms > max(now_ms, attempt.since_ms)
    return boundary_ms if is_due and hold_until(attempt, now_ms) > now_ms else None


def covered(world: World, chains: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return what holds still cover by queue, of all below it, to the end of its period: milli-GPU times ms."""
    found: dict[str, int] = {}
    for attempt in world.running:
        until_ms = hold_until(attempt, world.now_ms)
        for name in chains.get(attempt.queue, ()):
            spent = world.spent.get(name)
            if spent is not None:
                ms = max(0, min(until_ms, spent.period_end_ms) - world.now_ms)
                found[name] = found.get(name, 0) + attempt.gpu_milli * ms
    return found


def stops_over(
    world: World, accounts: Iterable[Account], standing: Standing, spared: set[GangId], at_most: int
) -> list[Effect]:
    """Return the stops of those that a budget does not cover, that are idle, or are over a limit, at most so many.

    Limits come last: who goes anyway makes room below them.
    """
    stops = over_budget(world, accounts, standing, spared, at_most)
    stops += idle_stops(world, standing, spared, at_most - len(stops))
    return stops + over_limit(world, standing, spared, at_most - len(stops))


def over_budget(
    world: World, accounts: Iterable[Account], standing: Standing, spared: set[GangId], at_most: int
) -> list[Effect]:
    """Return the stops of those whose hold is due and not renewed, lowest priority and youngest first, at most so many.

    Only in queues whose budget says checkpoint-and-stop. `standing` counts what is stopped as leaving, `spared` names
    it. Who can save is asked to before it is stopped, as always.
    """
    stops: list[Effect] = []
    chains = standing.tree.chains
    for account in accounts:
        most = account.all_gpu_ms
        if most is None or account.budget.on_exhausted is not OnExhausted.STOP:
            continue
        for attempt in _uncovered(world, account, chains, spared):
            if len(stops) >= at_most:
                break
            spared.add(attempt.gang)
            standing.leave(attempt.queue, attempt.gpu_milli, attempt.also)
            cause = refuse(Reason.BUDGET_NOT_RENEWED, queue=account.queue, budget=gpu_hours_text(most))
            stops.append(Stop(gang=attempt.gang, attempt=attempt.attempt, cause=cause, requeue=True))
    return stops


def demotions(world: World, accounts: Iterable[Account], chains: Mapping[str, tuple[str, ...]]) -> list[Retier]:
    """Return who loses its right to what it holds because its hold is due and not renewed, and who has it back.

    Only budgets that say demote are asked, and rules about idle jobs that do. A demoted attempt goes on without a hold,
    of tier opportunistic. It has its right back as soon as it is not idle any more and all budgets would cover an hour
    of it, in a new period for instance.
    """
    asking = {one.queue: one for one in accounts if one.budget.on_exhausted is OnExhausted.DEMOTE}
    found: dict[GangId, tuple[Running, Tier]] = {}
    for account in sorted(asking.values(), key=lambda one: -len(chains.get(one.queue, ()))):  # those below first
        for attempt in _uncovered(world, account, chains, (), frozenset(found)):
            found[attempt.gang] = attempt, Tier.OPPORTUNISTIC
    idle = {attempt.gang: attempt for attempt, _ in idle_by(world, chains, OnIdle.DEMOTE)}
    for gang, attempt in idle.items():
        if attempt.tier is not Tier.OPPORTUNISTIC:
            found[gang] = attempt, Tier.OPPORTUNISTIC
    more: dict[str, int] = {}
    for attempt in world.running.demoted:
        if attempt.gang in idle:
            continue
        above = [asking[name] for name in chains.get(attempt.queue, ()) if name in asking]
        needs = {one.queue: _an_hour(attempt, one, world.now_ms) for one in above}
        if all(one.leaves(needs[one.queue] + more.get(one.queue, 0), world.now_ms) for one in above):
            found[attempt.gang] = attempt, Tier.BORROWED
            for queue, need in needs.items():
                more[queue] = more.get(queue, 0) + need
    return [Retier(gang=gang, attempt=found[gang][0].attempt, tier=found[gang][1]) for gang in sorted(found)]


def _an_hour(attempt: Running, account: Account, now_ms: int) -> int:
    return attempt.gpu_milli * max(0, min(HOLD_MS, account.spent.period_end_ms - now_ms))


def _uncovered(
    world: World,
    account: Account,
    chains: Mapping[str, tuple[str, ...]],
    spared: Collection[GangId],
    given_up: Collection[GangId] = (),
) -> Iterator[Running]:
    """Yield whose hold is due and cannot be renewed, as many as need be beside those who have `given_up` theirs.

    Nobody who is spared, nor spare work where the budget demotes.
    """
    most, now_ms, end_ms = account.all_gpu_ms, world.now_ms, account.spent.period_end_ms
    if most is None:
        return
    over = account.covered() - 1000 * (most - account.used_gpu_ms(now_ms))
    due = _due(world, account.queue, chains, end_ms) if over > 0 else []
    freed = {
        attempt.gang: attempt.gpu_milli * (min(hold_until(attempt, now_ms), end_ms) - boundary_ms)
        for attempt, boundary_ms in due
    }
    over -= sum(amount for gang, amount in freed.items() if gang in given_up)
    demotes = account.budget.on_exhausted is OnExhausted.DEMOTE
    for attempt, _ in due:
        if over <= 0:
            return
        is_spare = attempt.gang in spared or (demotes and attempt.spec is not None and attempt.spec.is_spare)
        if not is_spare and attempt.gang not in given_up:
            over -= freed[attempt.gang]
            yield attempt


def _due(world: World, queue: str, chains: Mapping[str, tuple[str, ...]], end_ms: int) -> list[tuple[Running, int]]:
    """Return whose hold is being renewed and for which boundary; an hour that outlasts the period needs no renewal."""
    found = [
        (attempt, boundary_ms)
        for attempt in world.running
        if queue in chains.get(attempt.queue, ())
        and attempt.spec is not None
        and (boundary_ms := _renews_at(attempt, world.now_ms)) is not None
        and boundary_ms < end_ms
        and attempt.gpu_milli > 0
    ]
    return sorted(found, key=lambda one: (one[0].spec.priority if one[0].spec else 0, -one[0].since_ms, one[0].gang))


def renewals(world: World, accounts: Iterable[Account], chains: Mapping[str, tuple[str, ...]]) -> Iterator[int]:
    """Yield when holds on these budgets are to be renewed next."""
    wanted = {account.queue for account in accounts}
    for attempt in world.running if wanted else ():
        if hold_until(attempt, world.now_ms) > world.now_ms and wanted & set(chains.get(attempt.queue, ())):
            hours = (world.now_ms + RENEW_MS - attempt.since_ms) // HOLD_MS + 1
            yield attempt.since_ms + hours * HOLD_MS - RENEW_MS
