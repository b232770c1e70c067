"""What a pool keeps free, as people write it: protected amounts with windows, a ceiling, spares, terms of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead.model.gang import ServiceClass
from fairlead.model.protection import (
    LEAD_MS,
    MOST_GPUS,
    RETURN_WITHIN_MS,
    Protection,
    Spares,
    protection_problem,
    spares_problem,
)
from fairlead.model.service_classes import Borrows, OwnTerms
from fairlead.model.windows import Window
from fairlead.simulation.fields import Fields
from fairlead.timezones import window_of

_CLASSES = tuple(member.value for member in ServiceClass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The words of one pool, read."""

    protected: tuple[Protection, ...]
    ceiling_percent: int | None
    spares: Spares | None
    class_terms: tuple[OwnTerms, ...]


def kept_words(spec: Fields) -> Kept:
    """Read `protected`, `ceilingPercent`, `spares` and `classTerms`.

    Raises
    ------
    UnreadableInput
        A field is unknown or wrong; the text names it.
    """
    ceiling = spec.integer("ceilingPercent", low=1, high=99) if spec.has("ceilingPercent") else None
    spec.ignore("ceilingPercent")
    return Kept(
        protected=tuple(_protection(item) for item in spec.items("protected")),
        ceiling_percent=ceiling,
        spares=_spares(spec.inner("spares")) if spec.has("spares") else None,
        class_terms=tuple(_terms(spec)),
    )


def _protection(item: Fields) -> Protection:
    said = Protection(
        service_class=ServiceClass(item.choice("serviceClass", _CLASSES, ServiceClass.SERVING.value)),
        gpus=item.integer("gpus", low=1, high=MOST_GPUS),
        redundancy=item.integer("redundancy", 0, low=0, high=MOST_GPUS),
        windows=tuple(window_words(window) for window in item.items("windows")),
        lead_ms=item.duration_ms("lead", LEAD_MS) or LEAD_MS,
        lend_gpus=item.integer("lendGpus", 0, low=0, high=2 * MOST_GPUS),
        return_within_ms=item.duration_ms("returnWithin", RETURN_WITHIN_MS) or RETURN_WITHIN_MS,
        unit_gpus=item.integer("unitGpus", 1, low=1, high=64),
    )
    item.done()
    _no_problem(item, protection_problem(said))
    return said


def window_words(item: Fields) -> Window:
    """Read one window: `days` (all), `from`, `to`, `timeZone` (UTC).

    Raises
    ------
    UnreadableInput
        A field is unknown or wrong; the text names it.
    """
    window = window_of(
        item.texts("days"), item.text("from"), item.text("to"), item.text("timeZone", "UTC"), field=item.path
    )
    item.done()
    return window


def _spares(item: Fields) -> Spares:
    said = Spares(
        warm_gpus=item.integer("warmGpus", 0, low=0, high=MOST_GPUS),
        service_class=ServiceClass(item.choice("serviceClass", _CLASSES, ServiceClass.SERVING.value)),
        hot_nodes=item.integer("hotNodes", 0, low=0, high=100_000),
    )
    item.done()
    _no_problem(item, spares_problem(said))
    return said


def _terms(spec: Fields) -> Iterator[OwnTerms]:
    seen: set[str] = set()
    for item in spec.items("classTerms"):
        name = item.choice("serviceClass", _CLASSES, "")
        if name in seen:
            item.fail("serviceClass", f"{name} stands there twice; remove one")
        seen.add(name)
        yield OwnTerms(service_class=ServiceClass(name), borrows=Borrows(item.choice("borrows", tuple(Borrows), "")))
        item.done()


def _no_problem(item: Fields, problem: str) -> None:
    if problem:
        field, _, rest = problem.partition(": ")
        item.fail(field, rest)
