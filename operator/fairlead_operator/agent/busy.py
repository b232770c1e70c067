"""How busy each GPU was, in windows that begin and end on a quarter of an hour: what the books split held time by.

One look more or less changes a window little, so it is worth one write a quarter of an hour, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.discovery.findings import Sample

WINDOW_MS = 900_000
LOOKS_LEAST = 30
"""A GPU that answered less often in a window is not spoken of: 30 looks are five minutes at the usual interval."""
GPUS_MOST = 64


@dataclass(slots=True)
class BusyWindows:
    """Adds up looks; `last` is the last whole window as it is published, None before the first.

    A window that began before the first look of this agent begins with that look.
    """

    last: dict[str, Any] | None = None
    _from_ms: int = 0
    _sums: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def saw(self, samples: Mapping[str, Sample], at_ms: int) -> None:
        """Take one look; `samples` are by UUID. A clock that was set back begins anew."""
        end_ms = (self._from_ms // WINDOW_MS + 1) * WINDOW_MS
        if not self._from_ms or not self._from_ms <= at_ms < end_ms + WINDOW_MS:
            self._from_ms, self._sums = at_ms, {}
        elif at_ms >= end_ms:
            self._close(end_ms)
        for uuid, sample in samples.items():
            if sample.busy_percent is not None:
                looks, busy = self._sums.get(uuid, (0, 0))
                self._sums[uuid] = looks + 1, busy + sample.busy_percent

    def _close(self, end_ms: int) -> None:
        found = [
            {"uuid": uuid, "busy": 10 * busy // looks}
            for uuid, (looks, busy) in sorted(self._sums.items())
            if looks >= LOOKS_LEAST
        ]
        if found:
            self.last = {"fromMs": self._from_ms, "toMs": end_ms, "gpus": found[:GPUS_MOST]}
        self._from_ms, self._sums = end_ms, {}
