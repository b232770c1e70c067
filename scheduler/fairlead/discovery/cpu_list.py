"""Sets of CPUs (and NUMA nodes) as the kernel and hwloc write them: lists (``0-3,8``) and masks (``ff,ffffffff``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_HIGHEST = 1 << 16  # kernels are built for 8,192 CPUs at most
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_WORD = re.compile(r"(?:0x)?[0-9a-fA-F]{0,8}")


def parse_list(text: str) -> frozenset[int] | None:
    """Return the numbers of a list, None where the text is none; the empty text is the empty set.

    >>> sorted(parse_list("0-2,8"))
    [0, 1, 2, 8]
    """
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= _HIGHEST:
            return None
        found.update(range(first, last + 1))
    return frozenset(found)


@lru_cache(maxsize=4096)
def cpu_mask(text: str) -> int:
    """Return a list as bits of an integer, 0 for the empty list and for what is none.

    >>> bin(cpu_mask("0-2,8"))
    '0b100000111'
    """
    return sum(1 << cpu for cpu in parse_list(text) or ())


def parse_mask(text: str) -> frozenset[int] | None:
    """Return the numbers of a mask of 32-bit words, highest first; None where the text is no finite mask.

    hwloc writes ``0x`` before words and leaves out zeros, so ``0x1,,0x0`` has three words.
    """
    words = [word.strip() for word in text.strip().split(",")]
    if words == [""] or len(words) * 32 > _HIGHEST or not all(_WORD.fullmatch(word) for word in words):
        return None
    bits = int("".join(word.lower().removeprefix("0x").zfill(8) for word in words), 16)
    return frozenset(at for at in range(bits.bit_length()) if bits >> at & 1)


def as_list(numbers: Iterable[int]) -> str:
    """Return numbers as a list with ranges, lowest first.

    >>> as_list({8, 0, 1, 2})
    '0-2,8'
    """
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
