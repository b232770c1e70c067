"""What a queue says beside its quota, as people write it: the same words in Queue documents and in scenario files."""

from __future__ import annotations

from fairlead.budget_words import BudgetWords, budget_of
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
from fairlead.simulation.fields import Fields
from fairlead.simulation.pool_words import window_words

_CLASSES = tuple(member.value for member in ServiceClass)
_MOST_JOBS = 1_000_000
_MOST_GPUS = 10_000_000


def tenant_kind(item: Fields) -> TenantKind | None:
    """Read what a queue stands for, None where it does not say."""
    kinds = tuple(kind.value for kind in TenantKind)
    found = item.choice("tenantKind", ("", *kinds), "")
    return TenantKind(found) if found else None


def queue_caps(item: Fields) -> QueueCaps:
    """Read counts, rates and caps of users.

    Raises
    ------
    UnreadableInput
        A field is wrong or unknown; the text names it with its path.
    """
    classes: dict[ServiceClass, int] = {}
    for one in item.items("maxPendingByClass"):
        name = ServiceClass(one.choice("serviceClass", _CLASSES, ""))
        if name in classes:
            one.fail("serviceClass", f"{name.value} stands there twice; remove one of them")
        classes[name] = one.integer("maxPending", low=0, high=_MOST_JOBS)
        one.done()
    return QueueCaps(
        max_jobs=_count(item, "maxJobs", _MOST_JOBS),
        max_pending=_count(item, "maxPending", _MOST_JOBS),
        max_pending_of=tuple(sorted(classes.items())),
        submit_rate=_rate(item),
        overflow=Overflow(item.choice("onOverflow", tuple(o.value for o in Overflow), Overflow.DEFER.value)),
        users=_named(item, "users"),
        groups=_named(item, "groups"),
        budget=_budget(item),
        peaks=tuple(_peak(one) for one in item.items("peaks")),
        idle=_idle(item),
        on_cost_anomaly=OnCostAnomaly(item.choice("onCostAnomaly", tuple(OnCostAnomaly), OnCostAnomaly.NOTIFY.value)),
        acknowledged=_acknowledged(item),
    )


def _acknowledged(item: Fields) -> Acknowledged | None:
    if not item.has("costAnomalyAcknowledged"):
        item.ignore("costAnomalyAcknowledged")
        return None
    inner = item.inner("costAnomalyAcknowledged")
    through, actor, reason = (inner.text(name) for name in ("through", "actor", "reason"))
    inner.done()
    return acknowledged(through, actor, reason, field=inner.path)


def _idle(item: Fields) -> IdleRule | None:
    if not item.has("idle"):
        item.ignore("idle")
        return None
    inner = item.inner("idle")
    names = inner.texts("serviceClasses") or ()
    for name in names:
        if name not in _CLASSES:
            inner.fail("serviceClasses", f"{name!r} is not one of: {', '.join(_CLASSES)}")
    rule = IdleRule(
        after_ms=inner.duration_ms("after") or 0,
        then=OnIdle(inner.choice("then", tuple(OnIdle), OnIdle.NOTIFY.value)),
        service_classes=tuple(ServiceClass(name) for name in names),
    )
    inner.done()
    return checked_idle_rule(rule, field=inner.path)


def _budget(item: Fields) -> Budget | None:
    if not item.has("budget"):
        item.ignore("budget")
        return None
    inner = item.inner("budget")
    plain = BudgetWords()
    percents = inner.raw("alertPercents")
    if percents is not None and not (isinstance(percents, list) and all(type(one) is int for one in percents)):
        inner.fail("alertPercents", "must be a list of whole numbers")
    said = BudgetWords(
        gpu_hours=inner.integer("gpuHours", 0, low=0, high=1_000_000_000),
        amount=inner.text("amount", ""),
        currency=inner.text("currency", ""),
        soft_percent=inner.integer("softPercent", plain.soft_percent, low=0, high=100),
        alert_percents=plain.alert_percents if percents is None else tuple(percents),
        period=inner.text("period", plain.period),
        time_zone=inner.text("timeZone", plain.time_zone),
        month_starts_on=inner.integer("monthStartsOn", 1, low=1, high=31),
        year_starts_in=inner.integer("yearStartsIn", 1, low=1, high=12),
        enforcement=inner.text("enforcement", plain.enforcement),
        on_exhausted=inner.text("onExhausted", plain.on_exhausted),
    )
    inner.done()
    return budget_of(said, field=inner.path)


def _peak(item: Fields) -> Peak:
    names = item.texts("serviceClasses") or ()
    for name in names:
        if name not in _CLASSES:
            item.fail("serviceClasses", f"{name!r} is not one of: {', '.join(_CLASSES)}")
    windows = tuple(window_words(window) for window in item.items("windows"))
    if not windows or not names:
        item.fail("windows", "and serviceClasses must both name something; name a window and a class")
    gpus = item.integer("gpusAtLeast", 0, low=0, high=_MOST_GPUS)
    item.done()
    return Peak(service_classes=tuple(ServiceClass(name) for name in names), windows=windows, gpus_at_least=gpus)


def _count(item: Fields, name: str, high: int) -> int | None:
    if not item.has(name):
        item.ignore(name)
        return None
    return item.integer(name, low=0, high=high)


def _rate(item: Fields) -> SubmitRate | None:
    if not item.has("submitRate"):
        item.ignore("submitRate")
        return None
    inner = item.inner("submitRate")
    per_minute = inner.integer("perMinute", low=1, high=60_000)
    rate = SubmitRate(per_minute=per_minute, burst=inner.integer("burst", per_minute, low=1, high=_MOST_JOBS))
    inner.done()
    return rate


def _named(item: Fields, field: str) -> tuple[NamedCap, ...]:
    caps: dict[str, NamedCap] = {}
    for one in item.items(field):
        name = one.text("name")
        if not name:
            one.fail("name", "is empty; name a user or group" + (", or * for every user" if field == "users" else ""))
        if name == "*" and field == "groups":
            one.fail("name", "* means every user and stands under users; name a group")
        if name in caps:
            one.fail("name", f"{name!r} stands there twice; remove one of them")
        cap = NamedCap(
            name=name, max_jobs=_count(one, "maxJobs", _MOST_JOBS), max_gpus=_count(one, "maxGpus", _MOST_GPUS)
        )
        if cap.max_jobs is None and cap.max_gpus is None:
            one.fail("maxGpus", "is missing, and maxJobs too; say one of them, or remove the entry")
        caps[name] = cap
        one.done()
    return tuple(caps[name] for name in sorted(caps))
