"""Slurm's classic fair-share factor: 2^(−effective usage / normalised shares / damping), in exact fractions.

After the documentation of Slurm's multifactor plugin. S is the parent's S times shares over the sum of the siblings'
shares, 1 at the root. A user's usage counts for itself and, by shares, for the siblings: effective usage is the own
part of all usage, plus what is missing to the parent's effective usage, times shares over the sum of the siblings'.
Shares "parent" (None here): a user stands exactly as its nearest account above with shares of its own; an account is
left out, so that its children stand among its own siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fairlead.units import FIXED_POINT

_BITS = 96
_LN2 = 54916777467707473351141471128 * (1 << _BITS) // (1 << 96)
"""ln 2 in 2^-96."""
_NEVER = 64  # 2^-64 is nothing in millionths


@dataclass(frozen=True, slots=True)
class Association:
    """One account or user. `parent` "" is the root; `shares` None is "parent"."""

    parent: str
    shares: int | None


@dataclass(frozen=True, slots=True)
class ClassicShare:
    """Where one association stands: its normalised shares S, its part of all usage, and its effective usage."""

    shares: Fraction
    usage: Fraction
    effective: Fraction

    def factor_millionths(self, damping: int = 1) -> int:
        """Return 2^(−effective / shares / damping) in millionths, rounded half up; 0 for who has no shares."""
        return two_to_minus(self.effective / self.shares / damping) if self.shares else 0

    def rank(self) -> int:
        """Return a number that is smaller the larger the factor is, whatever the damping."""
        if not self.shares:
            return FIXED_POINT**3
        return min(FIXED_POINT**3, int(self.effective / self.shares * FIXED_POINT**2))


class ClassicTree:
    """The associations below one root; asked for as often as usage changes."""

    def __init__(self, associations: Mapping[str, Association]) -> None:
        """Find for each who its parent really is, and what its siblings' shares are together."""
        self._known = dict(associations)
        self._parent = {name: self._real(association.parent) for name, association in self._known.items()}
        self._sums: dict[str, int] = {}
        for name, association in self._known.items():
            if association.shares is not None:
                above = self._parent[name]
                self._sums[above] = self._sums.get(above, 0) + association.shares

    def _real(self, name: str) -> str:
        """Return the association itself, or the nearest one above it that has shares of its own; "" for the root."""
        while name and self._known[name].shares is None:
            name = self._known[name].parent
        return name

    def inside(self, used: Mapping[str, int]) -> dict[str, int]:
        """Return what each association and all below it have used, of what each has used itself; "" is all."""
        sums: dict[str, int] = {"": 0}
        for name, amount in used.items():
            at = name
            while amount and at in self._known:
                sums[at] = sums.get(at, 0) + amount
                at = self._known[at].parent
            sums[""] += amount
        return sums

    def share(self, name: str, inside: Mapping[str, int], memo: dict[str, ClassicShare]) -> ClassicShare:
        """Return where an association stands; `memo` is of one `inside`."""
        name = self._real(name)
        chain: list[str] = []
        while name and name not in memo:
            chain.append(name)
            name = self._parent[name]
        total = inside.get("", 0)
        above = memo[name] if name else ClassicShare(Fraction(1), Fraction(1), Fraction(1))
        for at in reversed(chain):
            usage = Fraction(inside.get(at, 0), total) if total else Fraction(0)
            shares, sum_of = self._known[at].shares or 0, self._sums[self._parent[at]]
            part = Fraction(shares, sum_of) if sum_of else Fraction(0)
            effective = usage + (above.effective - usage) * part if self._parent[at] else usage
            above = memo[at] = ClassicShare(above.shares * part, usage, effective)
        return above


def two_to_minus(exponent: Fraction) -> int:
    """Return 2^−exponent in millionths, rounded half up; the exponent is not negative."""
    halvings, rest = divmod(exponent, 1)
    if halvings >= _NEVER:
        return 0
    x = int(rest * _LN2)
    term = total = 1 << _BITS
    n = 0
    while term:
        n += 1
        term = term * x // (n << _BITS)
        total += -term if n % 2 else term
    return ((total >> int(halvings)) * FIXED_POINT + (1 << (_BITS - 1))) >> _BITS
