"""QuotaException and Switchboard documents as people write them, and exceptions of scenario files."""

from __future__ import annotations

from fairlead.model.quota_exception import MoreOf, QuotaException, more_of
from fairlead.model.switches import Switches
from fairlead.simulation.fields import DNS_LABEL, Fields
from fairlead.units import moment_ms

_MOST = 10_000_000
SWITCHBOARD = "cluster"
"""The name of the one Switchboard."""


def exception_of(document: Fields) -> QuotaException:
    """Read one QuotaException.

    Raises
    ------
    UnreadableInput
        A field is missing, unknown or wrong; the text names it.
    """
    document.ignore("status")
    spec = document.inner("spec")
    expires_ms = moment_ms(spec.text("expires"), field=f"{spec.path}.expires")
    starts_ms = moment_ms(spec.text("starts"), field=f"{spec.path}.starts") if spec.has("starts") else 0
    spec.ignore("starts")
    found = _exception(document.inner("metadata"), spec, spec.inner("change"), starts_ms, expires_ms)
    document.done()
    return found


def scenario_exception(item: Fields, start_ms: int) -> QuotaException:
    """Read an entry of a scenario's `exceptions`; its times are durations from the beginning."""
    starts_ms = start_ms + (item.duration_ms("startsIn", 0) or 0)
    lasts_ms = item.duration_ms("lasts")
    if lasts_ms is None:
        item.fail("lasts", "is required; an exception ends by itself, after for example 2h")
    return _exception(item, item, item.inner("change"), starts_ms, starts_ms + lasts_ms)


def _exception(meta: Fields, spec: Fields, change: Fields, starts_ms: int, expires_ms: int) -> QuotaException:
    if starts_ms >= expires_ms:
        spec.fail("expires", "is not after starts; give it a later time")
    found = QuotaException(
        name=meta.text("name", pattern=DNS_LABEL),
        queue=spec.text("queue", pattern=DNS_LABEL),
        owner=_said(spec, "owner", "say who answers for it"),
        reason=_said(spec, "reason", "say why it is given"),
        starts_ms=starts_ms,
        expires_ms=expires_ms,
        more_limit_gpus=change.integer("limit", 0, low=0, high=_MOST),
        more_guaranteed_gpus=change.integer("guaranteed", 0, low=0, high=_MOST),
        more_jobs=change.integer("maxJobs", 0, low=0, high=1_000_000),
        more_budget=change.integer("budget", 0, low=0, high=1_000_000_000),
        more_of=_more_of(change),
    )
    change.done()
    if not found.gives:
        spec.fail("change", "gives nothing; set limit, guaranteed, maxJobs, budget or resources")
    spec.done()
    return found


def _more_of(change: Fields) -> tuple[MoreOf, ...]:
    found: dict[str, MoreOf] = {}
    for item in change.items("resources"):
        name = item.text("name")
        if name in found:
            item.fail("name", f"{name} stands there twice; remove one of them")
        said = {word: item.integer(word, 0, low=0, high=_MOST) for word in ("limit", "guaranteed")}
        found[name] = more_of(name, said, field=item.path)
        item.done()
    return tuple(found[name] for name in sorted(found))


def _said(spec: Fields, name: str, mend: str) -> str:
    text = spec.text(name, "").strip()
    if not text:
        spec.fail(name, f"is required; {mend}")
    return text


def switches_of(document: Fields) -> Switches:
    """Read the Switchboard.

    Raises
    ------
    UnreadableInput
        It is not the one named cluster, or a field is unknown or wrong; the text names it.
    """
    document.ignore("status")
    meta, spec = document.inner("metadata"), document.inner("spec")
    if meta.text("name") != SWITCHBOARD:
        meta.fail("name", f"must be {SWITCHBOARD}; there is one Switchboard, edit that one")
    found = Switches(
        placement_on=_is_on(spec, "placement"),
        preemption_on=_is_on(spec, "preemption"),
        reclaim_on=_is_on(spec, "reclaim"),
        stops_per_cycle=spec.integer("stopsPerCycle", low=0, high=1_000_000) if spec.has("stopsPerCycle") else None,
        owner=spec.text("owner", ""),
        reason=spec.text("reason", ""),
    )
    spec.ignore("stopsPerCycle")
    spec.done()
    document.done()
    return found


def _is_on(spec: Fields, name: str) -> bool:
    value = spec.raw(name)
    if isinstance(value, bool):
        return value  # YAML reads a plain On as true
    return spec.choice(name, ("On", "Off"), "On") == "On"
