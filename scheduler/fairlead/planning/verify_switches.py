"""The second opinion on switches: nothing that is switched off happens, and one cycle stops no more than its cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairlead.model.effects import Effect, Place, Stop
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules


def check_switches(effects: Sequence[Effect], rules: Rules) -> Iterator[tuple[int, str]]:
    """Yield (place in the plan, sentence) of each effect that a switch or the blast radius forbids."""
    taken = 0
    for position, effect in enumerate(effects):
        match effect:
            case Place() if not rules.placement_on:
                yield position, f"{effect.gang}: placed although placement is switched off"
            case Stop(by=by) if by:
                taken += 1
                if effect.cause.reason is Reason.PREEMPTED and not rules.preemption_on:
                    yield position, f"{effect.gang}: taken by priority although preemption is switched off"
                if effect.cause.reason is Reason.RECLAIMED and not rules.reclaim_on:
                    yield position, f"{effect.gang}: reclaimed although reclaim is switched off"
                if taken > rules.stops_per_cycle:
                    yield position, f"{effect.gang}: stop {taken} of at most {rules.stops_per_cycle} in one cycle"
            case _:
                pass
