"""Lists of device names in little room: ``gpu-0,gpu-1,gpu-2,gpu-5`` is ``gpu-[0-2,5]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from fairlead.errors import UnreadableInput

_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)")
_FOLDED = re.compile(r"([^\[\],]*)\[([0-9,-]+)\]|([^\[\],]+)")


def fold(names: Iterable[str]) -> str:
    """Write names compactly and in their order, which `unfold` gives back: devices stand along their ring.

    >>> fold(["gpu-0", "gpu-1", "gpu-2", "gpu-5"])
    'gpu-[0-2,5]'
    >>> fold(["gpu-0", "gpu-2", "gpu-3", "gpu-1"])
    'gpu-[0,2-3,1]'
    >>> fold(["gpu-3"])
    'gpu-3'
    """
    parts: list[str] = []
    for prefix, group in groupby((_split(name) for name in names), key=lambda found: found[0]):
        found = list(group)
        if prefix is None:
            parts += [text for _, text in found]
            continue
        runs: list[list[int]] = []
        for _, text in found:
            number = int(text)
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
        parts.append(f"{prefix}{text}" if len(found) == 1 else f"{prefix}[{text}]")
    return ",".join(parts)


def _split(name: str) -> tuple[str | None, str]:
    """Return a name's prefix and number, or None and the name where it has no number that can be folded."""
    match = _NUMBERED.fullmatch(name)
    return (None, name) if match is None else (match[1], match[2])


def unfold(text: str) -> tuple[str, ...]:
    """Read what `fold` wrote.

    >>> unfold("gpu-[0-2,5]")
    ('gpu-0', 'gpu-1', 'gpu-2', 'gpu-5')

    Raises
    ------
    UnreadableInput
        The text is not a folded list.
    """
    names: list[str] = []
    at = 0
    while at < len(text):
        match = _FOLDED.match(text, at)
        if match is None:
            raise UnreadableInput(f"not a list of devices: {text!r}")
        if match[3] is not None:
            names.append(match[3])
        else:
            for part in match[2].split(","):
                first, _, last = part.partition("-")
                if not first or not (last or "-" not in part):
                    raise UnreadableInput(f"not a list of devices: {text!r}")
                names += [f"{match[1]}{n}" for n in range(int(first), int(last or first) + 1)]
        at = match.end()
        if at < len(text):
            if text[at] != ",":
                raise UnreadableInput(f"not a list of devices: {text!r}")
            at += 1
    return tuple(names)
