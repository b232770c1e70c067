"""What is known of a gang's last checkpoint that counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A committed checkpoint: by which attempt, of which step, of when (UTC ms), where, and by how many members.

    `members` are (role, number) in the order of roles; `digest` is of its manifest, `format` how it is written and
    `code` which version of the program wrote it, as its program said.
    """

    attempt: int
    began_ms: int
    step: str = ""
    path: str = ""
    digest: str = ""
    members: tuple[tuple[str, int], ...] = ()
    format: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How long saving, the time between two saves, and coming back have really taken, in ms; 0 is not measured yet.

    Each is three parts of what it was and one part of what came last.
    """

    save_ms: int = 0
    interval_ms: int = 0
    restart_ms: int = 0


UNMEASURED = Measured()
"""Of a gang that has not saved or come back yet."""


def smoothed(before_ms: int, last_ms: int) -> int:
    """Return a measured value with one more measurement."""
    return last_ms if not before_ms else (3 * before_ms + last_ms) // 4
