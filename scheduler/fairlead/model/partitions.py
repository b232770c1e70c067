"""How a GPU can be cut into instances (MIG), and how it is cut now. Placements count in units of the GPU's own grid."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MIG_DEVICE = re.compile(r"^gpu-(\d{1,9})-mig-(.+)-(\d{1,9})-(\d{1,9})$")
_SLICES = re.compile(r"^(?:\d+c\.)?(\d+)g\.")
_NO_LABEL = re.compile(r"[^a-z0-9-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """One size that instances may have. `starts` are the units where one may begin, each `size` units long.

    `id` is the driver's number of the profile, `name` its text such as ``1g.10gb+me``. `most` instances fit at once.
    `compute` are slices of multiprocessors, the others engines of one instance; 0 also where nobody knows.
    """

    id: int
    name: str
    size: int
    starts: tuple[int, ...]
    most: int
    memory_bytes: int = 0
    multiprocessors: int = 0
    compute: int = 0
    copy_engines: int = 0
    decoders: int = 0
    encoders: int = 0
    jpegs: int = 0
    ofas: int = 0

    @property
    def slices(self) -> int:
        """Compute slices: what the driver says, else what the name says, else 0."""
        found = _SLICES.match(self.name)
        return self.compute or (int(found[1]) if found else 0)

    @property
    def takes_media(self) -> bool:
        """Whether it is a variant with the media engines of which a GPU of any family has one set."""
        return "+me" in self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """One GPU instance that exists: its driver id, the profile's id, and the units it takes.

    `device` is its name in a ResourceSlice, "" where it is in none.
    """

    id: int
    profile: int
    start: int
    size: int
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigGeometry:
    """The MIG state of one GPU. `pending` differs from `enabled` while a change of mode waits for a reset.

    `dynamic` says that the driver makes instances when they are allocated: every placement of every profile may be
    named, and `instances` that exist bind nobody. Otherwise only `instances` may be given out.
    """

    enabled: bool
    pending: bool
    profiles: tuple[MigProfile, ...] = ()
    instances: tuple[MigInstance, ...] = ()
    dynamic: bool = False

    @property
    def units(self) -> int:
        """Length of the grid, 0 where no profile is known."""
        return max((start + p.size for p in self.profiles for start in p.starts), default=0)

    def profile(self, number: int) -> MigProfile | None:
        """Return the profile with the driver's number, None where there is none."""
        return next((p for p in self.profiles if p.id == number), None)


@dataclass(frozen=True, slots=True)
class MigDeviceName:
    """What the name of a MIG device says: the GPU's minor, the profile's text, its number, and the first unit."""

    minor: int
    text: str
    profile: int
    start: int


def parse_device(name: str) -> MigDeviceName | None:
    """Read ``gpu-0-mig-1g10gb-19-2``; None for what is no such name.

    Only the numbers are to be trusted: on some GPUs two profiles have one text.

    >>> parse_device("gpu-3-mig-1g24gb-me-67-9")
    MigDeviceName(minor=3, text='1g24gb-me', profile=67, start=9)
    """
    found = _MIG_DEVICE.match(name)
    return None if found is None else MigDeviceName(int(found[1]), found[2], int(found[3]), int(found[4]))


def device_text(profile: str) -> str:
    """Return a profile's name as it stands in the names of devices: no dots, and a dash for what is no label.

    >>> device_text("1g.24gb+me.all")
    '1g24gb-meall'
    """
    return _NO_LABEL.sub("-", profile.replace(".", "").lower())


def without_prefix(profile: str) -> str:
    """Return a profile's name as requests write it; drivers put ``MIG `` before it."""
    return profile.strip().removeprefix("MIG ").strip()
