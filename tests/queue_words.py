"""What a queue says beside its quota, in the words of `builders.queue`; exceptions and switches likewise."""

from __future__ import annotations

import re
from typing import Any

from fairlead.model.events import CostAlarmed, DevicesCounted, QueueSpent
from fairlead.model.gang import ServiceClass
from fairlead.model.hardware import NodeName
from fairlead.model.queue_caps import (
    Acknowledged,
    Budget,
    IdleRule,
    NamedCap,
    OnCostAnomaly,
    OnExhausted,
    OnIdle,
    Overflow,
    Peak,
    QueueCaps,
    SubmitRate,
)
from fairlead.model.quota_exception import MoreOf, QuotaException, more_of
from fairlead.model.switches import Switches
from fairlead.timezones import window_of
from fairlead.units import duration_ms


def caps(plain: list[str], named: dict[str, str]) -> QueueCaps:
    """jobs= (most that run), pending= (most that wait), pending-of=batch:2, rate=6/2 (a minute, at once), reject (and
    not defer), users=ann:2j,bob:8g,*:1j4g (jobs and GPUs), groups= likewise, budget= (GPU-hours), soft= (percent),
    said-only (it holds nothing back), exhausted= (what becomes of what runs),
    peak=batch:8/09:00/17:00 (from 8 GPUs on; UTC), idle=2h/demote/interactive (after what time, what then, whom),
    costs=hold (where they alarm), well=2027-01-14 (who has looked at them has found nothing up to then)."""
    rate = [int(n) for n in named["rate"].split("/")] if "rate" in named else None
    of_class = (part.split(":") for part in named.get("pending-of", "").split(",") if part)
    return QueueCaps(
        max_jobs=int(named["jobs"]) if "jobs" in named else None,
        max_pending=int(named["pending"]) if "pending" in named else None,
        max_pending_of=tuple((ServiceClass(name), int(n)) for name, n in of_class),
        submit_rate=SubmitRate(per_minute=rate[0], burst=rate[1]) if rate else None,
        overflow=Overflow.REJECT if "reject" in plain else Overflow.DEFER,
        users=_each(named.get("users", "")),
        groups=_each(named.get("groups", "")),
        budget=Budget(
            gpu_ms=int(named["budget"]) * 3_600_000,
            soft_percent=int(named.get("soft", "80")),
            hard="said-only" not in plain,
            on_exhausted=OnExhausted(named.get("exhausted", "finish")),
        )
        if "budget" in named
        else None,
        peaks=(_peak(named["peak"]),) if "peak" in named else (),
        idle=_idle(named["idle"]) if "idle" in named else None,
        on_cost_anomaly=OnCostAnomaly(named.get("costs", "notify")),
        acknowledged=Acknowledged(through=named["well"], actor="ops", reason="a campaign") if "well" in named else None,
    )


def _idle(text: str) -> IdleRule:
    after, *more = text.split("/")
    classes = tuple(ServiceClass(name) for name in more[1:])
    return IdleRule(after_ms=duration_ms(after), then=OnIdle(more[0] if more else "notify"), service_classes=classes)


def _peak(text: str) -> Peak:
    what, begins, ends = text.split("/")
    name, _, gpus = what.partition(":")
    window = window_of(None, begins, ends, "UTC", field="peak")
    return Peak(service_classes=(ServiceClass(name),), windows=(window,), gpus_at_least=int(gpus or 0))


def cost_alarm(queue: str, text: str, now_ms: int) -> CostAlarmed:
    """A day, and for= (what is held for it ends in so long)."""
    day, *words = text.split()
    named = dict(word.split("=") for word in words)
    return CostAlarmed(queue=queue, day=day, what="spend", until_ms=now_ms + duration_ms(named["for"]), at_ms=now_ms)


def spent(queue: str, text: str, now_ms: int) -> QueueSpent:
    """gpuh= (of the budget), for= (until the period ends; it began a day ago)."""
    named = dict(word.split("=") for word in text.split())
    return QueueSpent(
        queue=queue,
        gpu_ms=int(named["gpuh"]) * 3_600_000,
        period_start_ms=now_ms - 86_400_000,
        period_end_ms=now_ms + duration_ms(named["for"]),
        at_ms=now_ms,
    )


def counted(node: str, text: str, now_ms: int) -> DevicesCounted:
    """0=0 1=0.8 (device 0 did nothing, device 1 was busy for 80 % of the time), over= (the time before now; 1m)."""
    named = dict(word.split("=") for word in text.split())
    over_ms = duration_ms(named.pop("over", "1m"))
    busy = tuple((f"gpu-{device}", round(1000 * float(part))) for device, part in sorted(named.items()))
    return DevicesCounted(name=NodeName(node), from_ms=now_ms - over_ms, busy=busy, at_ms=now_ms)


def exception(name: str, text: str, now_ms: int) -> QuotaException:
    """queue= (team), limit=, guaranteed=, jobs=, budget= (more of each), in= (from now; at once), for= (1h). Of other
    resources with the name in front: ``gpu/H100.limit=4``."""
    named = dict(word.split("=") for word in text.split())
    starts = now_ms + (duration_ms(named["in"]) if "in" in named else 0)
    return QuotaException(
        name=name,
        queue=named.get("queue", "team"),
        owner="ops",
        reason="a deadline",
        starts_ms=starts,
        expires_ms=starts + duration_ms(named.get("for", "1h")),
        more_limit_gpus=int(named.get("limit", "0")),
        more_guaranteed_gpus=int(named.get("guaranteed", "0")),
        more_jobs=int(named.get("jobs", "0")),
        more_budget=int(named.get("budget", "0")),
        more_of=_more_of(named),
    )


def _more_of(named: dict[str, str]) -> tuple[MoreOf, ...]:
    found: dict[str, dict[str, int]] = {}
    for key, amount in named.items():
        resource, _, word = key.rpartition(".")
        if resource:
            found.setdefault(resource, {})[word] = int(amount)
    return tuple(more_of(name, found[name], field=name) for name in sorted(found))


def switches(text: str) -> Switches:
    """placement=off, preemption=off, reclaim=off, stops=2; what is not named is on."""
    named = dict(word.split("=") for word in text.split())
    return Switches(
        placement_on=named.get("placement") != "off",
        preemption_on=named.get("preemption") != "off",
        reclaim_on=named.get("reclaim") != "off",
        stops_per_cycle=int(named["stops"]) if "stops" in named else None,
    )


def _each(text: str) -> tuple[NamedCap, ...]:
    found = []
    for name, amount in (part.split(":") for part in text.split(",") if part):
        jobs, gpus = re.fullmatch(r"(?:(\d+)j)?(?:(\d+)g)?", amount).groups()
        found.append(NamedCap(name=name, max_jobs=jobs and int(jobs), max_gpus=gpus and int(gpus)))
    return tuple(found)


def keeps(stage: Any, wanted: dict[str, dict[str, int]]) -> None:
    """By which rule how many devices of which node are kept free."""
    assert {
        rule: {node: len(of) for node, of in one.devices} for rule, one in stage.state.takings.kept.items()
    } == wanted
