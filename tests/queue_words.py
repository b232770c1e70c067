"""What a queue says beside its quota, in the words of `builders.queue`."""

from __future__ import annotations

import re

from fairlead.model.gang import ServiceClass
from fairlead.model.queue_caps import NamedCap, Overflow, QueueCaps, SubmitRate


def caps(plain: list[str], named: dict[str, str]) -> QueueCaps:
    """jobs= (most that run), pending= (most that wait), pending-of=batch:2, rate=6/2 (a minute, at once), reject (and
    not defer), users=ann:2j,bob:8g,*:1j4g (jobs and GPUs), groups= likewise."""
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
    )


def _each(text: str) -> tuple[NamedCap, ...]:
    found = []
    for name, amount in (part.split(":") for part in text.split(",") if part):
        jobs, gpus = re.fullmatch(r"(?:(\d+)j)?(?:(\d+)g)?", amount).groups()
        found.append(NamedCap(name=name, max_jobs=jobs and int(jobs), max_gpus=gpus and int(gpus)))
    return tuple(found)
