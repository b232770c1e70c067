"""The promises that stand, and what became of all the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fairlead.model.gang import GangId
from fairlead.model.promises import PromiseBroken, Promised, PromiseKept
from fairlead.world.gangs import GangRecord, is_waiting


class PromiseBook:
    """Changed by facts. `made` and `kept` count, `broken` counts by the token of the cause.

    A promise whose gang changes what it asks for, is suspended or deleted is withdrawn and no breach.
    """

    def __init__(self) -> None:
        """Nothing is promised."""
        self.standing: dict[GangId, Promised] = {}
        self.made = self.kept = self.withdrawn = 0
        self.broken: Counter[str] = Counter()
        self._picture: tuple[Promised, ...] | None = ()

    def apply(self, fact: Promised | PromiseKept | PromiseBroken, record: GangRecord | None) -> bool:
        """Take a fact; returns whether others may have now what was kept. A newer promise replaces an older one."""
        if isinstance(fact, Promised):
            if record is not None and is_waiting(record) and self.standing.get(fact.gang) != fact:
                self.standing[fact.gang] = fact
                self.made += 1
                self._picture = None
            return False
        if not self._drop(fact.gang):
            return False
        if isinstance(fact, PromiseKept):
            self.kept += 1
        else:
            self.broken[fact.cause.reason.token] += 1
        return True

    def withdraw(self, gang: GangId) -> None:
        """Forget what was promised to a gang that asks for it no more."""
        self.withdrawn += self._drop(gang)

    def picture(self) -> tuple[Promised, ...]:
        """Return the standing promises, the earliest first."""
        if self._picture is None:
            ranked = sorted(self.standing.values(), key=lambda one: (one.latest_start_ms, one.gang))
            self._picture = tuple(ranked)
        return self._picture

    def breaches(self) -> Mapping[str, int]:
        """Return how many promises were broken for each cause, by token."""
        return dict(sorted(self.broken.items()))

    def _drop(self, gang: GangId) -> bool:
        if self.standing.pop(gang, None) is None:
            return False
        self._picture = None
        return True
