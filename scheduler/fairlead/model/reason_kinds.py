"""How final a reason is."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """How final a reason is."""

    INVALID = "invalid"  # the spec must change
    NEVER = "never"  # no state of this cluster could satisfy it
    NOT_NOW = "not now"  # waiting may help
    ENDED = "ended"  # why an attempt came to its end
