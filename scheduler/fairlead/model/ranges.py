"""Lists of device names in little room: ``gpu-0,gpu-1,gpu-2,gpu-5`` is ``gpu-[0-2,5]``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fairlead.errors import UnreadableInput

_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)")
_FOLDED = re.compile(r"([^\[\],]*)\[([0-9,-]+)\]|([^\[\],]+)")


def fold(names: Iterable[str]) -> str:
    """Write names compactly; the order of first prefixes is kept, numbers are sorted.

    >>> fold(["gpu-0", "gpu-1", "gpu-2", "gpu-5"])
    'gpu-[0-2,5]'
    >>> fold(["gpu-3"])
    'gpu-3'
    """
    groups: dict[str, list[int]] = {}
    plain: list[str] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            plain.append(name)
        else:
            groups.setdefault(match[1], []).append(int(match[2]))
    parts: list[str] = []
    for prefix, numbers in groups.items():
        numbers.sort()
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
        parts.append(f"{prefix}{text}" if len(numbers) == 1 else f"{prefix}[{text}]")
    return ",".join([*parts, *plain])


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
