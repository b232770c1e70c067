"""A mapping that changes a little between two pictures: each picture is cheap, and stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
FEW = 64


class Frozen(Generic[K, V]):
    """What a `Layers` held when it was asked; nobody edits it. Iteration is over values, in no order that counts."""

    __slots__ = ("_base", "_changed", "_count")

    def __init__(self, base: dict[K, V], changed: dict[K, V | None], count: int) -> None:
        """Take over both; None in `changed` says that a key of `base` is gone."""
        self._base, self._changed, self._count = base, changed, count

    def get(self, key: K) -> V | None:
        """Return what is there, None where nothing is."""
        if key in self._changed:
            return self._changed[key]
        return self._base.get(key)

    def __len__(self) -> int:
        """Count the values."""
        return self._count

    def __iter__(self) -> Iterator[V]:
        """Yield every value once."""
        if not self._changed:
            yield from self._base.values()
            return
        for key, value in self._base.items():
            if key not in self._changed:
                yield value
        for new in self._changed.values():
            if new is not None:
                yield new


class Layers(Generic[K, V]):
    """The mapping itself: a base that pictures share, and what has changed since it was laid.

    A picture costs a copy of the changes; a new base is laid when they are an eighth of everything.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.live: dict[K, V] = {}
        self._base: dict[K, V] = {}
        self._changed: dict[K, V | None] = {}
        self._frozen: Frozen[K, V] | None = None

    def put(self, key: K, value: V) -> None:
        """Set a value."""
        self.live[key] = self._changed[key] = value
        self._frozen = None

    def drop(self, key: K) -> None:
        """Forget a key; one that is not there is no matter."""
        if self.live.pop(key, None) is not None:
            self._changed[key] = None
            self._frozen = None

    def freeze(self) -> Frozen[K, V]:
        """Return what is there now."""
        if self._frozen is None:
            if len(self._changed) > FEW + len(self.live) // 8:
                self._base, self._changed = self.live.copy(), {}
            self._frozen = Frozen(self._base, self._changed.copy(), len(self.live))
        return self._frozen
