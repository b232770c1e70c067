"""How a budget of GPU time slows what starts, and stops it when it is used up.

With B the budget, u what has been used, h the GPUs held now, n those asked for, E the end of the period, t now:

- below the soft share of B nothing is held back;
- from then on a gang starts if (h + n) · (E - t) ≤ B - u: if what is left pays for what is held, and for the gang,
  until the end. So the queue goes on at the rate that its rest allows, E - t falls while nothing is held, and what is
  left can be used to the last hour;
- at u ≥ B nothing that needs a GPU starts until the next period. What runs goes on.

u is what the books last told, and what is held since.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.events import QueueSpent
from fairlead.model.queue_caps import Budget
from fairlead.model.reasons import RETRY, Reason, Refusal, refuse
from fairlead.units import gpu_hours_text, gpus_of, utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A queue's budget, what was last told of it, and the thousandths of a GPU that it and those below it hold."""

    queue: str
    budget: Budget
    spent: QueueSpent
    held_milli: int

    def used_gpu_ms(self, now_ms: int) -> int:
        """Return what has been used by now."""
        return self.spent.gpu_ms + self.held_milli * max(0, now_ms - self.spent.at_ms) // 1000

    def is_over(self, now_ms: int) -> bool:
        """Whether the period that was told of has ended; nothing is known of the next."""
        return now_ms >= self.spent.period_end_ms

    def is_exhausted(self, now_ms: int) -> bool:
        """Whether nothing is left in this period."""
        return not self.is_over(now_ms) and self.used_gpu_ms(now_ms) >= self.budget.gpu_ms


def budget_refusal(account: Account, need_milli: int, now_ms: int) -> Refusal | None:
    """Return why a gang charged for `need_milli` may not start on this budget now, None where it may."""
    if need_milli <= 0 or account.is_over(now_ms):
        return None
    budget, until_ms = account.budget, account.spent.period_end_ms
    used = account.used_gpu_ms(now_ms)
    left = budget.gpu_ms - used
    if left <= 0:
        said = {"used": gpu_hours_text(used), "budget": gpu_hours_text(budget.gpu_ms), "queue": account.queue}
        return refuse(Reason.BUDGET_EXHAUSTED, **said, **_retry(until_ms))
    held = account.held_milli
    if used * 100 < budget.soft_percent * budget.gpu_ms or (held + need_milli) * (until_ms - now_ms) <= 1000 * left:
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
        **_retry(min(max(from_ms, now_ms + 1), until_ms)),
    )


def _retry(at_ms: int) -> dict[str, str | int]:
    return {RETRY: at_ms, "retry_at": utc_text(at_ms)}
