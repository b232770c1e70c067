"""What one cycle may keep of promises for the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.model.gang import GangId
from fairlead.model.promises import Promised
from fairlead.placement.placer import Placer
from fairlead.planning.end_calendar import Calendar
from fairlead.planning.shield import Kept
from fairlead.world.fleet import IntColumn, Inventory


@dataclass(slots=True)
class PromiseMemo:
    """What one cycle may keep for the next; only values that the same World would yield again."""

    placer: Placer | None = None
    calendar: Calendar = field(default_factory=Calendar)
    kept: dict[GangId, tuple[Promised, Inventory, Kept, IntColumn, IntColumn]] = field(
        default_factory=dict[GangId, tuple[Promised, Inventory, Kept, IntColumn, IntColumn]]
    )

    def follow(self, placer: Placer) -> None:
        """Forget what was found out in terms of another placer."""
        if self.placer is not placer:
            self.placer, self.kept = placer, {}
