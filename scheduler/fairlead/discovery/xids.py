"""The driver's error numbers (XIDs) and what each means for scheduling. `docs/reference/health.md` says it for people.

The actions are those of NVIDIA's catalogue as of October 2025. A number that is not in it, or that it calls unused,
keeps new work away until somebody has looked: a new number is more often a new fault than a harmless one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Level(IntEnum):
    """How bad a finding is. NOTE changes nothing, SUSPECT keeps new gangs away, BAD wants running ones to leave."""

    NOTE = 0
    SUSPECT = 1
    BAD = 2


class Clears(StrEnum):
    """What ends a finding: it is no longer seen, the GPU was reset, long quiet, or only another GPU."""

    LIVE = "live"
    RESET = "reset"
    QUIET = "quiet"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """What one number means. `group` is a label of few values; `soft`: recovery action NONE lowers it to SUSPECT."""

    group: str
    level: Level
    clears: Clears
    says: str
    strike: bool = False
    soft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvent:
    """One XID of one GPU. `text` is the kernel's line where that is read; `who` the pod's uid where it is known."""

    xid: int
    at_ms: int
    text: str = ""
    who: str = ""


GROUPS = ("app", "ignored", "contained", "memory", "reset", "nvlink", "bus", "replace", "look", "read", "unknown")
"""All values of `Xid.group`."""

UNKNOWN = Xid(
    group="unknown",
    level=Level.SUSPECT,
    clears=Clears.RESET,
    says="an error number nobody described; look at the kernel log, report it",
)


def _spread(numbers: str) -> list[int]:
    found: list[int] = []
    for part in numbers.split():
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def _app(says: str) -> Xid:
    return Xid(group="app", level=Level.NOTE, clears=Clears.QUIET, says=says, strike=True)


def _ignored(says: str) -> Xid:
    return Xid(group="ignored", level=Level.NOTE, clears=Clears.QUIET, says=says)


def _reset(says: str, *, group: str = "reset", soft: bool = True) -> Xid:
    return Xid(group=group, level=Level.BAD, clears=Clears.RESET, says=says, soft=soft)


def _look(says: str, clears: Clears = Clears.RESET) -> Xid:
    return Xid(group="look", level=Level.SUSPECT, clears=clears, says=says)


_FATAL = re.compile(r"(?<!non)(?<!non-)\b(?:link[ -]?)?fatal\b", re.IGNORECASE)
_NOT_FATAL = re.compile(r"\bnon-?fatal\b", re.IGNORECASE)
NVLINK5 = frozenset(range(144, 151))
"""XIDs of NVLink 5 whose severity stands in the kernel's line only."""

_ROWS: tuple[tuple[str, Xid], ...] = (
    ("8 11 25 32 39-41 60 68-72 75-77 80 82-86 88 89 96-105 126-135 139", _app("an engine or the program faulted")),
    ("13 31", _app("the program used memory or instructions wrongly, most often a bug of its own")),
    ("37 38 44 66 67 106 107 141 152 153 160 161", _ignored("the catalogue asks for nothing")),
    ("43", _ignored("follows a program that was ended")),
    ("45", _ignored("the driver cleaned up after another error; alone, the fabric manager wants a restart")),
    ("63", _ignored("a bad memory row was remapped; a reset makes it so when the GPU is idle")),
    ("92", _ignored("many corrected memory errors; watched by rate")),
    ("93", _ignored("the board's own store is wearing out")),
    ("121", _ignored("a corrected C2C link error")),
    ("137", _ignored("NVLink access without right, most often the program's")),
    (
        "94",
        Xid(
            group="contained",
            level=Level.SUSPECT,
            clears=Clears.QUIET,
            says="a memory error hit one program only; reset when idle if a row waits to be remapped",
        ),
    ),
    ("48", _reset("a memory error that could not be corrected", group="memory", soft=False)),
    ("64", _reset("a bad memory row could not be remapped", group="memory", soft=False)),
    ("95", _reset("a memory error hit every program on the GPU", group="memory", soft=False)),
    ("140", _reset("a memory error the driver could not recover from", group="memory", soft=False)),
    ("171 172", _reset("a memory error that could not be corrected (DRAM or SRAM)", group="memory", soft=False)),
    ("46 110 155 158", _reset("the GPU stopped or timed out")),
    ("62", _reset("the power controller stopped")),
    ("109", _reset("switching programs timed out")),
    ("119 120", _reset("the GPU's system processor does not answer")),
    ("136", _reset("an NVLink could not be trained")),
    ("143", _reset("the GPU could not be started")),
    ("156", _reset("a part of the GPU was retired")),
    ("151", _reset("keys must be rotated; the virtual machine wants a restart")),
    ("167", _reset("a fatal PCIe timeout", group="bus")),
    ("169", _reset("the security processor stopped")),
    ("74", _reset("an NVLink failed", group="nvlink")),
    ("150", _reset("a fatal NVLink management error", group="nvlink")),
    (
        "144-149",
        Xid(
            group="nvlink",
            level=Level.SUSPECT,
            clears=Clears.RESET,
            says="an NVLink 5 error; the kernel log says whether it is fatal",
        ),
    ),
    ("79", _reset("the GPU fell off the bus; power-cycle the node", group="bus", soft=False)),
    ("54", _reset("auxiliary power is missing; check the cables", group="bus", soft=False)),
    (
        "157",
        Xid(
            group="replace",
            level=Level.BAD,
            clears=Clears.NEVER,
            says="a part of the GPU could not be retired; replace it",
        ),
    ),
    ("154", Xid(group="read", level=Level.NOTE, clears=Clears.QUIET, says="the recovery action changed; it is read")),
    ("78", _look("a virtual GPU did not start; update its software", Clears.QUIET)),
    ("142", _look("a video encoder failed; ask the vendor")),
    ("159", _look("the chip-to-chip link reported an error; check the driver's memory module")),
    ("162-165", _look("power smoothing failed", Clears.QUIET)),
    ("166 170", _look("an NVLink lost its confidential channel")),
    ("168", _look("the GPU runs with less memory than it has")),
)

XIDS: dict[int, Xid] = {number: meaning for numbers, meaning in _ROWS for number in _spread(numbers)}
"""Every number the catalogue describes."""

UNUSED = frozenset(
    _spread("1-7 9 10 12 14-24 26-30 33-36 42 47 49-53 55-59 61 65 73 81 87 90 91 108 111-118 122-125 138")
)
"""Numbers the catalogue calls unused; they mean `UNKNOWN`."""


def meaning(xid: int, text: str = "") -> Xid:
    """Return what an XID means; for NVLink 5 the kernel's line decides, where there is one."""
    found = XIDS.get(xid, UNKNOWN)
    if xid in NVLINK5 and xid != 150 and text:
        if _NOT_FATAL.search(text):
            return _ignored("an NVLink 5 error that is not fatal")
        if _FATAL.search(text):
            return _reset("a fatal NVLink 5 error", group="nvlink")
    return found


_KERNEL_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): ?(\d{1,5})\b[,:]?(.*)")
_OFF_THE_BUS = re.compile(
    r"NVRM: GPU at PCI:([0-9a-fA-F:.]+)[^\n]*|NVRM: GPU ([0-9a-fA-F:.]+): GPU has fallen off the bus"
)


def from_kernel(line: str, at_ms: int) -> tuple[str, XidEvent] | None:
    """Return (PCI address as written, event) for a line of the kernel log, None where it tells of no XID.

    >>> from_kernel("NVRM: Xid (PCI:0000:3b:00): 79, pid=7, GPU has fallen off the bus.", 5)[1].xid
    79
    """
    found = _KERNEL_LINE.search(line)
    if found is not None:
        return found[1], XidEvent(xid=int(found[2]), at_ms=at_ms, text=found[3].strip()[:256])
    if "fallen off the bus" in line:
        gone = _OFF_THE_BUS.search(line)
        if gone is not None:
            return gone[1] or gone[2], XidEvent(xid=79, at_ms=at_ms, text="fallen off the bus")
    return None
