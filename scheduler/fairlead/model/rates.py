"""Amounts of money as text and back, exact to ten decimal places, and from when to when something holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from fairlead.errors import UnreadableInput
from fairlead.units import fixed_of, fixed_text, moment_ms, utc_text

_PLACES = 10
PRICE_SCALE = 10_000_000_000
"""Prices are in ten-billionths of a currency's unit an hour: ten decimal places."""
_PRICE = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,10}))?")
_SUM = re.compile(r"([0-8]?[0-9]{1,8})(?:\.([0-9]{1,10}))?")  # in `PRICE_SCALE` the largest still has 63 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What holds from `from_ms` to before `to_ms` (UTC); None is ever."""

    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def period(self) -> str:
        """When it holds, for people."""
        begins = "ever" if self.from_ms is None else utc_text(self.from_ms)
        return f"{begins} to {'ever' if self.to_ms is None else utc_text(self.to_ms)}"

    @property
    def is_backward(self) -> bool:
        """Whether it ends before it begins, or then."""
        return self.from_ms is not None and self.to_ms is not None and self.from_ms >= self.to_ms

    def is_valid(self, at_ms: int) -> bool:
        """Whether it holds at a moment."""
        return (self.from_ms is None or self.from_ms <= at_ms) and (self.to_ms is None or at_ms < self.to_ms)

    def overlaps(self, other: Lasting) -> bool:
        """Whether both hold at some moment."""
        return (self.to_ms is None or other.from_ms is None or other.from_ms < self.to_ms) and (
            other.to_ms is None or self.from_ms is None or self.from_ms < other.to_ms
        )


_L = TypeVar("_L", bound=Lasting)


def ended(items: Iterable[_L], at_ms: int) -> tuple[_L, ...]:
    """Return what held before a moment, none of it longer than until then."""
    kept = [one for one in items if one.from_ms is None or one.from_ms < at_ms]
    return tuple(replace(one, to_ms=at_ms if one.to_ms is None else min(one.to_ms, at_ms)) for one in kept)


def period_of(begins: str, ends: str, *, field: str) -> tuple[int | None, int | None]:
    """Return from when to when something holds that says ``from`` and ``to``, each "" where it is ever.

    Raises
    ------
    UnreadableInput
        One is no time; the message names it below `field`.
    """
    times = [
        moment_ms(said, field=f"{field}.{name}") if said else None for name, said in (("from", begins), ("to", ends))
    ]
    return times[0], times[1]


def per_hour_of(text: str, *, field: str) -> int:
    """Return a price such as ``2.50`` in `PRICE_SCALE`.

    Raises
    ------
    UnreadableInput
        It is no price; the message names `field`.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise UnreadableInput(f"{field}: {text!r} is no price; write at most ten decimal places, for example '2.50'")
    return fixed_of(match, _PLACES)


def sum_of(text: str, *, field: str) -> int:
    """Return an amount of money such as ``280000`` in `PRICE_SCALE`.

    Raises
    ------
    UnreadableInput
        It is none; the message names `field`.
    """
    match = _SUM.fullmatch(text)
    if match is None:
        mend = "write an amount below 900000000 with at most ten decimal places, for example '280000' or '1234.50'"
        raise UnreadableInput(f"{field}: {text!r} is no amount of money; {mend}")
    return fixed_of(match, _PLACES)


def per_hour_text(amount: int) -> str:
    """Write a price, or another amount in `PRICE_SCALE`, exactly, two places at least."""
    return fixed_text(amount, _PLACES)
