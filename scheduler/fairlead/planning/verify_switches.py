"""The second opinion on switches: nothing that is switched off happens. Caps are looked at in `verify_takings`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairlead.model.effects import Effect, Grow, Notice, Place, Shrink, Stop
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules


def check_switches(effects: Sequence[Effect], rules: Rules) -> Iterator[tuple[int, str]]:
    """Yield (place in the plan, sentence) of each effect that a switch forbids."""
    for position, effect in enumerate(effects):
        match effect:
            case Place() | Grow() if not rules.placement_on:
                yield position, f"{effect.gang}: placed although placement is switched off"
            case Stop(by=by) | Notice(by=by) | Shrink(by=by) if by:
                if effect.cause.reason is Reason.PREEMPTED and not rules.preemption_on:
                    yield position, f"{effect.gang}: taken by priority although preemption is switched off"
                if effect.cause.reason is Reason.RECLAIMED and not rules.reclaim_on:
                    yield position, f"{effect.gang}: reclaimed although reclaim is switched off"
            case _:
                pass
