"""The words of reasons that admission gives: see `fairlead.model.reasons`."""

from __future__ import annotations

from fairlead.model.reason_kinds import Kind

DEADLINE_PASSED = (
    "DeadlineCannotBeMet",
    Kind.NEVER,
    "with {duration} to run it would have had to start by {latest} to be done by its deadline, {deadline}",
    "set a later spec.deadline or a shorter spec.duration, or submit a smaller job",
)
CHECKPOINT_UNREADABLE = (
    "CheckpointUnreadable",
    Kind.NEVER,
    "its last checkpoint is written in format {format}; spec.checkpoint.reads has {reads}",
    "add the format to spec.checkpoint.reads, or bring back a program that reads it",
)
PROMISE_FORBIDDEN = (
    "PromiseForbidden",
    Kind.ENDED,
    "by the time of its promise the rules, limits or budget of queue {queue} did not allow it",
    "it waits as any other; why now tells what holds it",
)
ABOVE_CAP = (
    "AboveUserCap",
    Kind.NEVER,
    "the gang needs {need} GPUs; {who} may have {limit} in queue {queue}",
    "ask for fewer GPUs, or ask the owner of queue {queue} for a higher cap",
)
DEADLINE_BEHIND_DEMAND = (
    "DeadlineBehindDemand",
    Kind.NOT_NOW,
    "{ahead} GPU-hours wait before it in queue {queue}, which gets at most {gpus} GPUs: that is past {latest}, "
    "when it would have to start to be done by its deadline",
    "lower what waits before it, raise its priority, or set a later spec.deadline",
)
PEAK_HOLDS_BACK = (
    "PeakHoldsBack",
    Kind.NOT_NOW,
    "queue {queue} starts no {service_class} jobs of {gpus} GPUs in its peak period, which ends at {retry_at}",
    "wait until then, or ask for less",
)
NOT_LENT = (
    "GuaranteesNotLent",
    Kind.NOT_NOW,
    "of {limit} free {what}, guarantees beside {queue} that are not lent keep {used}; the gang needs {need}",
    "wait, or ask for a guarantee",
)
BUDGET_EXHAUSTED = (
    "BudgetExhausted",
    Kind.NOT_NOW,
    "queue {queue} has used {used} of its budget of {budget} GPU-hours; a new period begins at {retry_at}",
    "wait until then, or ask for a higher budget",
)
BUDGET_PACED = (
    "BudgetPaced",
    Kind.NOT_NOW,
    "queue {queue} has {left} GPU-hours of its budget left until {until}, which pays for {pays} GPUs; {held} are "
    "held and the gang needs {need}",
    "it starts when what is left pays for it to the end of the period, at {retry_at} if nothing changes",
)
BUDGET_HELD = (
    "BudgetHeld",
    Kind.NOT_NOW,
    "queue {queue} has {left} GPU-hours of its budget left, of which {held} are held for what runs; the gang needs "
    "{need} for its first hour",
    "wait until something ends, at the latest until {retry_at}, declare a shorter spec.duration, or ask for less",
)
COST_ANOMALY = (
    "CostAnomaly",
    Kind.NOT_NOW,
    "queue {queue} starts nothing with GPUs, because what it cost on {day} is far from usual ({what})",
    "it goes on at {retry_at}, or when an administrator sets spec.costAnomalyAcknowledged of the Queue through {day}",
)
BOOKS_FULL = (
    "BooksFull",
    Kind.NOT_NOW,
    "the books have been without their database for too long, and queue {queue} has a hard budget: nobody knows what "
    "is left of it",
    "wait until the database is back, or ask an administrator about it",
)
BUDGET_NOT_RENEWED = (
    "BudgetNotRenewed",
    Kind.NOT_NOW,
    "its next hour is not covered by what is left of the budget of queue {queue}, {budget} GPU-hours",
    "it starts again when the budget covers it; ask for a higher budget",
)
IDLE = (
    "IdleTooLong",
    Kind.ENDED,
    "all its devices were idle for {idle}, and queue {queue} ends such jobs",
    "submit it again when there is something to do; its owner may raise spec.idle.after of the Queue",
)
QUEUE_MISPLACED = (
    "QueueMisplaced",
    Kind.NOT_NOW,
    "queue {queue} takes nobody in: {field}: {problem}",
    "an administrator must mend the Queue: {mend}",
)
QUEUE_AT_MAX_JOBS = (
    "QueueAtMaxJobs",
    Kind.NOT_NOW,
    "queue {queue} has {used} of at most {limit} jobs running",
    "wait for one of them to end, or ask for a higher spec.maxJobs",
)
USER_AT_CAP = (
    "UserAtCap",
    Kind.NOT_NOW,
    "{who} has {used} of {limit} {what} in queue {queue}; the gang needs {need}",
    "wait for your own jobs to end, or ask the owner of queue {queue} for a higher cap",
)
QUEUE_FULL = (
    "QueueFull",
    Kind.NOT_NOW,
    "{what} of queue {queue} stand in line already, as many as may: {limit}",
    "it comes in when one of them starts or ends; submit fewer at once",
)
SUBMIT_RATE = (
    "SubmitRateLimited",
    Kind.NOT_NOW,
    "queue {queue} takes {per_minute} jobs a minute, {burst} at once",
    "it comes in at {retry_at}; submit more slowly",
)
