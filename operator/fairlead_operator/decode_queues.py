"""What a Queue says beside its quota, from the object to the model. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import msgspec

from fairlead.budget_words import BudgetWords, budget_of
from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.queue_caps import (
    Acknowledged,
    Budget,
    IdleRule,
    NamedCap,
    OnCostAnomaly,
    OnIdle,
    Overflow,
    Peak,
    QueueCaps,
    SubmitRate,
    TenantKind,
    acknowledged,
    checked_idle_rule,
)
from fairlead.model.tenancy import TakingCaps
from fairlead.units import duration_ms
from fairlead_operator.custom_objects import AcknowledgedSpec, BudgetSpec, IdleSpec, NamedCapSpec, PeakSpec, QueueSpec
from fairlead_operator.pool_objects import windows_of

Word = TypeVar("Word", bound=StrEnum)


def tenant_kind(name: str, spec: QueueSpec) -> TenantKind | None:
    """Return what a queue stands for, None where it does not say.

    Raises
    ------
    UnreadableInput
        The word is not known.
    """
    return _word(f"Queue {name}: spec.tenantKind", spec.tenant_kind, TenantKind) if spec.tenant_kind else None


def queue_caps(name: str, spec: QueueSpec) -> QueueCaps:
    """Return the counts, rates and caps of users that a queue sets.

    Raises
    ------
    UnreadableInput
        A value makes no sense (an older CRD let it in); the text names the field and the mend.
    """
    at = f"Queue {name}: spec"
    for field, value in (("maxJobs", spec.max_jobs), ("maxPending", spec.max_pending)):
        _not_negative(f"{at}.{field}", value)
    rate = spec.submit_rate
    if rate is not None and (rate.per_minute < 1 or (rate.burst is not None and rate.burst < 1)):
        raise UnreadableInput(
            f"{at}.submitRate: perMinute and burst must be at least 1; to take nobody in, set maxJobs: 0"
        )
    for one in spec.max_pending_by_class:
        _not_negative(f"{at}.maxPendingByClass[{one.service_class}].maxPending", one.max_pending)
    by_class = {
        _word(f"{at}.maxPendingByClass[].serviceClass", one.service_class, ServiceClass): one.max_pending
        for one in spec.max_pending_by_class
    }
    return QueueCaps(
        max_jobs=spec.max_jobs,
        max_pending=spec.max_pending,
        max_pending_of=tuple(sorted(by_class.items())),
        submit_rate=None
        if rate is None
        else SubmitRate(per_minute=rate.per_minute, burst=rate.burst or rate.per_minute),
        overflow=_word(f"{at}.onOverflow", spec.on_overflow, Overflow),
        users=tuple(_cap(f"{at}.users", one) for one in sorted(spec.users, key=_name)),
        groups=tuple(_cap(f"{at}.groups", one) for one in sorted(spec.groups, key=_name)),
        budget=None if spec.budget is None else _budget(f"{at}.budget", spec.budget),
        peaks=tuple(_peak(f"{at}.peaks[{number}]", one) for number, one in enumerate(spec.peaks)),
        idle=None if spec.idle is None else _idle(f"{at}.idle", spec.idle),
        on_cost_anomaly=_word(f"{at}.onCostAnomaly", spec.on_cost_anomaly, OnCostAnomaly),
        acknowledged=_acknowledged(f"{at}.costAnomalyAcknowledged", spec.cost_anomaly_acknowledged),
    )


def _acknowledged(at: str, spec: AcknowledgedSpec | None) -> Acknowledged | None:
    return None if spec is None else acknowledged(spec.through, spec.actor, spec.reason, field=at)


def _idle(at: str, spec: IdleSpec) -> IdleRule:
    rule = IdleRule(
        after_ms=duration_ms(spec.after, field=f"{at}.after"),
        then=_word(f"{at}.then", spec.then, OnIdle),
        service_classes=tuple(_word(f"{at}.serviceClasses", one, ServiceClass) for one in spec.service_classes),
    )
    return checked_idle_rule(rule, field=at)


def _budget(at: str, spec: BudgetSpec) -> Budget:
    return budget_of(BudgetWords(**msgspec.structs.asdict(spec)), field=at)


def _peak(at: str, spec: PeakSpec) -> Peak:
    if not spec.windows or not spec.service_classes:
        raise UnreadableInput(f"{at}: names no windows or no serviceClasses; name at least one of each")
    _not_negative(f"{at}.gpusAtLeast", spec.gpus_at_least)
    return Peak(
        service_classes=tuple(_word(f"{at}.serviceClasses", one, ServiceClass) for one in spec.service_classes),
        windows=windows_of(spec.windows, field=f"{at}.windows"),
        gpus_at_least=spec.gpus_at_least,
    )


def _cap(at: str, spec: NamedCapSpec) -> NamedCap:
    if not spec.name or (spec.name == "*" and at.endswith("groups")):
        raise UnreadableInput(f"{at}: {spec.name!r} names nobody; name a user or group")
    for field, value in (("maxJobs", spec.max_jobs), ("maxGpus", spec.max_gpus)):
        _not_negative(f"{at}[{spec.name}].{field}", value)
    return NamedCap(name=spec.name, max_jobs=spec.max_jobs, max_gpus=spec.max_gpus)


def _name(spec: NamedCapSpec) -> str:
    return spec.name


def _not_negative(field: str, value: int | None) -> None:
    if value is not None and value < 0:
        raise UnreadableInput(f"{field}: {value} is negative; set it to 0 or more, or remove it")


def _word(field: str, text: str, words: type[Word]) -> Word:
    try:
        return words(text)
    except ValueError:
        raise UnreadableInput(f"{field}: {text!r} is not known; use one of: {', '.join(words)}") from None


def taking_caps(name: str, spec: QueueSpec) -> TakingCaps:
    """Return what keeps a queue's jobs from being taken too soon or too often.

    Raises
    ------
    UnreadableInput
        A value makes no sense (an older CRD let it in); the text names the field and the mend.
    """
    at, said = f"Queue {name}: spec.preemption", spec.preemption
    _not_negative(f"{at}.perQueue", said.per_queue)
    if said.per_job is not None and not 1 <= said.per_job <= MOST_PER_JOB:
        raise UnreadableInput(f"{at}.perJob: must be in 1..{MOST_PER_JOB}; for never, use preemption.policy in the job")
    return TakingCaps(
        min_run_ms=duration_ms(said.min_run, field=f"{at}.minRun") if said.min_run else None,
        per_job=said.per_job,
        count=said.per_queue,
        lost_gpu_ms=duration_ms(said.lost_work, field=f"{at}.lostWork") if said.lost_work else None,
    )


MOST_PER_JOB = 32
"""How often one job can be allowed to be stopped in an hour; more are not remembered."""
