"""QuotaExceptions and the Switchboard: the objects, and what becomes of them. Pure."""

# ruff: noqa: RUF012  # msgspec makes a new list of an empty default

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.quota_exception import MoreOf, QuotaException, more_of
from fairlead.model.switches import Switches
from fairlead.units import moment_ms
from fairlead_operator.custom_objects import API
from fairlead_operator.objects import Meta, Record, Resource

SWITCHBOARD = "cluster"
"""The name of the one Switchboard that counts."""


class MoreSpec(Record, frozen=True, kw_only=True):
    """What an exception adds of one resource, in whole units."""

    name: str = ""
    limit: int = 0
    guaranteed: int = 0


class ChangeSpec(Record, frozen=True, kw_only=True):
    """What an exception adds to a queue's own numbers."""

    limit: int = 0
    guaranteed: int = 0
    max_jobs: int = 0
    budget: int = 0
    resources: list[MoreSpec] = []


class QuotaExceptionSpec(Record, frozen=True, kw_only=True):
    """What is given to whom, by whom, why and until when."""

    queue: str = ""
    change: ChangeSpec = ChangeSpec()
    owner: str = ""
    reason: str = ""
    starts: str | None = None
    expires: str = ""


class QuotaExceptionObject(Record, frozen=True, kw_only=True):
    """A QuotaException."""

    metadata: Meta
    spec: QuotaExceptionSpec = QuotaExceptionSpec()


class SwitchboardSpec(Record, frozen=True, kw_only=True):
    """What is allowed."""

    placement: str = "On"
    preemption: str = "On"
    reclaim: str = "On"
    stops_per_cycle: int | None = None
    owner: str = ""
    reason: str = ""


class SwitchboardObject(Record, frozen=True, kw_only=True):
    """A Switchboard."""

    metadata: Meta
    spec: SwitchboardSpec = SwitchboardSpec()


EXCEPTIONS = Resource("QuotaException", API, "quotaexceptions", QuotaExceptionObject, namespaced=False)
SWITCHBOARDS = Resource("Switchboard", API, "switchboards", SwitchboardObject, namespaced=False)


def decode_exception(found: QuotaExceptionObject) -> QuotaException:
    """Return the exception.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    name, spec, change = found.metadata.name, found.spec, found.spec.change
    at = f"QuotaException {name}: spec"
    for field, value in (("queue", spec.queue), ("owner", spec.owner), ("reason", spec.reason)):
        if not value.strip():
            raise UnreadableInput(f"{at}.{field}: is empty; say it")
    expires_ms = moment_ms(spec.expires, field=f"{at}.expires")
    starts_ms = moment_ms(spec.starts, field=f"{at}.starts") if spec.starts else 0
    if starts_ms >= expires_ms:
        raise UnreadableInput(f"{at}.expires: is not after starts; give it a later time")
    amounts = (change.limit, change.guaranteed, change.max_jobs, change.budget)
    if min(amounts) < 0 or not (any(amounts) or change.resources):
        raise UnreadableInput(
            f"{at}.change: takes or gives nothing; set limit, guaranteed, maxJobs, budget or resources"
        )
    return QuotaException(
        name=name,
        queue=spec.queue,
        owner=spec.owner,
        reason=spec.reason,
        starts_ms=starts_ms,
        expires_ms=expires_ms,
        more_limit_gpus=change.limit,
        more_guaranteed_gpus=change.guaranteed,
        more_jobs=change.max_jobs,
        more_budget=change.budget,
        more_of=_more_of(at, change.resources),
    )


def _more_of(at: str, resources: list[MoreSpec]) -> tuple[MoreOf, ...]:
    found: dict[str, MoreOf] = {}
    for said in resources:
        where = f"{at}.change.resources[{said.name}]"
        if said.name in found:
            raise UnreadableInput(f"{where}: stands there twice; remove one of them")
        found[said.name] = more_of(said.name, {"limit": said.limit, "guaranteed": said.guaranteed}, field=where)
    return tuple(found[name] for name in sorted(found))


def decode_switches(found: SwitchboardObject) -> Switches:
    """Return the switches.

    Raises
    ------
    UnreadableInput
        A word is not On or Off, or the cap is negative; the text names the field.
    """
    spec = found.spec
    for field, word in (("placement", spec.placement), ("preemption", spec.preemption), ("reclaim", spec.reclaim)):
        if word not in ("On", "Off"):
            raise UnreadableInput(f"Switchboard {SWITCHBOARD}: spec.{field}: {word!r} is not known; use On or Off")
    if spec.stops_per_cycle is not None and spec.stops_per_cycle < 0:
        raise UnreadableInput(f"Switchboard {SWITCHBOARD}: spec.stopsPerCycle: is negative; set it to 0 or more")
    return Switches(
        placement_on=spec.placement == "On",
        preemption_on=spec.preemption == "On",
        reclaim_on=spec.reclaim == "On",
        stops_per_cycle=spec.stops_per_cycle,
        owner=spec.owner,
        reason=spec.reason,
    )
