"""What an administrator may switch off while the scheduler runs: one switch for each kind of action, and a cap."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fairlead.model.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Which kinds of action may be taken, and how many attempts one cycle may stop (None: as configured at start).

    `owner` and `reason` say who switched and why. A switch only ever takes away from what was configured at start.
    """

    placement_on: bool = True
    preemption_on: bool = True
    reclaim_on: bool = True
    stops_per_cycle: int | None = None
    owner: str = ""
    reason: str = ""


ALL_ON = Switches()


def switched(rules: Rules, switches: Switches) -> Rules:
    """Return the rules that hold under these switches."""
    stops = rules.stops_per_cycle
    return replace(
        rules,
        placement_on=rules.placement_on and switches.placement_on,
        preemption_on=rules.preemption_on and switches.preemption_on,
        reclaim_on=rules.reclaim_on and switches.reclaim_on,
        stops_per_cycle=stops if switches.stops_per_cycle is None else min(stops, switches.stops_per_cycle),
    )
