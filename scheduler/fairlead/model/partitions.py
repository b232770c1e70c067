"""How a GPU can be cut into instances (MIG), and how it is cut now. Placements count in units of the GPU's own grid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """One size that instances may have. `starts` are the units where one may begin, each `size` units long.

    `id` is the driver's number of the profile, `name` its text such as ``1g.10gb+me``. `most` instances fit at once.
    """

    id: int
    name: str
    size: int
    starts: tuple[int, ...]
    most: int
    memory_bytes: int = 0
    multiprocessors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """One GPU instance that exists: its driver id, the profile's id, and the units it takes."""

    id: int
    profile: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigGeometry:
    """The MIG state of one GPU. `pending` differs from `enabled` while a change of mode waits for a reset."""

    enabled: bool
    pending: bool
    profiles: tuple[MigProfile, ...] = ()
    instances: tuple[MigInstance, ...] = ()

    @property
    def units(self) -> int:
        """Length of the grid, 0 where no profile is known."""
        return max((start + p.size for p in self.profiles for start in p.starts), default=0)
