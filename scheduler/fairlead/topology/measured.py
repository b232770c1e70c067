"""Measurements beside the theory: which pairs stay below what they should give, and what that makes of their pace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fairlead.model.fabric import Inventory, Warned
from fairlead.model.hardware import Machine, Measured

BELOW_PERCENT = 80
"""A link that gives less than this share of its theory is flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured between two devices (or a node and a switch, by key) of `machine`; "" where there is one."""

    a: str
    b: str
    machine: str = ""
    bytes_per_s: int = 0
    latency_ns: int = 0
    at_ms: int = 0


def with_measurements(inventory: Inventory, measurements: Iterable[Measurement]) -> Inventory:
    """Return the inventory with what was measured beside the theory; what fits nowhere is a warning."""
    by_machine: dict[str, list[Measurement]] = {}
    fabric = list(inventory.fabric.links)
    place = {frozenset((link.a, link.b)): at for at, link in enumerate(fabric)}
    warnings = list(inventory.warnings)
    only = inventory.machines[0].name if len(inventory.machines) == 1 else ""
    names = {found.name for found in inventory.machines}
    for found in measurements:
        at = place.get(frozenset((found.a, found.b)))
        if at is not None:
            fabric[at] = replace(fabric[at], measured=_value(found))
        elif (found.machine or only) in names:
            by_machine.setdefault(found.machine or only, []).append(found)
        else:
            what = f"measured, but there is no machine {found.machine!r}"
            warnings.append(Warned(where=f"{found.a}-{found.b}", what=what))
    machines = [
        replace(named, machine=_machine(named.machine, by_machine.get(named.name, []), named.name, warnings))
        for named in inventory.machines
    ]
    return replace(
        inventory,
        machines=tuple(machines),
        fabric=replace(inventory.fabric, links=tuple(fabric)),
        warnings=tuple(warnings),
    )


def slow_links(inventory: Inventory) -> tuple[Warned, ...]:
    """Return every link that was measured below `BELOW_PERCENT` of its theory."""
    found: list[Warned] = []
    for named in inventory.machines:
        for link in named.machine.links:
            found += _slow(f"{named.name}: {link.a}-{link.b} ({link.path})", link.bytes_per_s, link.measured)
    for uplink in inventory.fabric.links:
        found += _slow(f"{uplink.a}-{uplink.b}", uplink.bytes_per_s, uplink.measured)
    return tuple(found)


def _slow(where: str, theory: int, measured: Measured | None) -> list[Warned]:
    if measured is None or not theory or not measured.bytes_per_s:
        return []
    if 100 * measured.bytes_per_s >= BELOW_PERCENT * theory:
        return []
    what = f"measured {measured.bytes_per_s} bytes/s, {100 * measured.bytes_per_s // theory} % of {theory}"
    return [Warned(where=where, what=what)]


def _value(found: Measurement) -> Measured:
    return Measured(bytes_per_s=found.bytes_per_s, latency_ns=found.latency_ns, at_ms=found.at_ms)


def _machine(machine: Machine, measurements: list[Measurement], name: str, warnings: list[Warned]) -> Machine:
    if not measurements:
        return machine
    links = list(machine.links)
    place = {frozenset((link.a, link.b)): at for at, link in enumerate(links)}
    for found in measurements:
        at = place.get(frozenset((found.a, found.b)))
        if at is None:
            warnings.append(Warned(where=f"{name}: {found.a}-{found.b}", what="measured, but no such link is known"))
            continue
        links[at] = replace(links[at], measured=_value(found))
    return replace(machine, links=tuple(links))
