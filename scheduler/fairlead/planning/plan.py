"""What a cycle wants to do, and the picture it is based on."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.effects import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Effects in order. `more` says that the step budget ended before the queues did; `cut` that something did.
    `looked` counts gangs for which the walk looked for a place.

    `wake_at_ms` is the next moment at which time alone may change something, None where there is none.
    """

    version: int
    effects: tuple[Effect, ...]
    more: bool = False
    cut: bool = False
    looked: int = 0
    wake_at_ms: int | None = None
