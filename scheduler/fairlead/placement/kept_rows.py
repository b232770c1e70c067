"""On which nodes a pool's reserve lies: the ones that keep it with the least work lost. Values in, values out.

Nothing is written down about it: the same picture gives the same nodes, and nodes that are clear come first, so what
was cleared stays chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairlead.model.gang import GangId
from fairlead.placement.fence import WHOLE_ROW
from fairlead.world.fleet import WHOLE, IntColumn
from fairlead.world.pictures import Running


@dataclass(frozen=True, slots=True)
class Returning:
    """What others give back on one row: `milli` thousandths of GPUs.

    `told` are those of them that go because they are told to, with what each holds there; `turn` is the highest of
    theirs, `price` what they lose together.
    """

    milli: int = 0
    told: tuple[tuple[Running, int], ...] = ()
    turn: int = -1
    price: int = 0


NOTHING_BACK = Returning()


@dataclass(frozen=True, slots=True, eq=False)
class KeptRows:
    """Rows in the order in which they count, and what each adds, in thousandths. `told` are who must go for that."""

    rows: tuple[int, ...] = ()
    gains: tuple[int, ...] = ()
    told: tuple[Running, ...] = ()

    def first(self, milli: int, unit: int) -> dict[int, int]:
        """Return row -> GPUs of as many rows as it takes for so much, `WHOLE_ROW` of all but the last."""
        found: dict[int, int] = {}
        for row, gain in zip(self.rows, self.gains, strict=True):
            if milli <= 0:
                break
            gpus = -(-milli // WHOLE)
            found[row] = WHOLE_ROW if milli >= gain else -(-gpus // unit) * unit
            milli -= gain
        return found


def keep_rows(
    need: int,
    unit: int,
    rows: IntColumn,
    free: IntColumn,
    own: IntColumn,
    others: IntColumn,
    returning: Callable[[int], Returning],
    *,
    lent_first: bool,
) -> KeptRows:
    """Choose rows that have `need` thousandths for a reserve.

    Parameters
    ----------
    unit : GPUs; what a row has beside multiples of it does not count.
    rows, free, own, others : shape (rows,) each; free GPUs, and thousandths held by whom the reserve is for and by
        others.
    returning : what comes back on a row; asked only for rows with others, and only as far as it must be.
    lent_first : count what comes back before what is free, so that less of that is closed. Else nobody is told to go as
        long as enough is free.
    """
    now = free // unit * unit * WHOLE
    clear = np.flatnonzero((now > 0) & (others == 0)) if lent_first else np.flatnonzero(now > 0)
    clear = clear[np.lexsort((rows[clear], own[clear] == 0, others[clear] > 0))]
    taken = [(int(rows[at]), int(now[at])) for at in clear.tolist()]
    left_over = [(int(row), 0) for row in rows[(free > 0) & (now == 0)].tolist()]
    if not lent_first and sum(gain for _, gain in taken) >= need:
        return _enough(need, taken)
    lent: list[_Lent] = []
    gains = dict(taken)
    for at in np.flatnonzero(others > 0).tolist():
        row, back = int(rows[at]), returning(int(rows[at]))
        entry = _Lent(row, WHOLE * int(free[at]), 0, back)
        if not lent_first:  # what goes by itself counts everywhere, before anybody is told to
            by_itself = entry.more(unit, {attempt.gang for attempt, _ in back.told})
            if by_itself > 0:
                gains[row] = by_itself
            entry = replace(entry, counted=by_itself)
        if entry.more(unit) > 0:
            lent.append(entry)
    lent.sort(key=lambda entry: (entry.back.turn, entry.back.price, entry.row))
    if lent_first:
        return _enough(need, [(entry.row, entry.more(unit)) for entry in lent] + taken + left_over)
    return _with_told(need, unit, list(gains.items()), lent, left_over)


@dataclass(frozen=True, slots=True)
class _Lent:
    """A row with others on it: what is free there, what of that is counted already, and what comes back."""

    row: int
    free_milli: int
    counted: int
    back: Returning

    def more(self, unit: int, staying: Container[GangId] = ()) -> int:
        """Return what the row adds if those of whom it is told stay."""
        stays = sum(milli for attempt, milli in self.back.told if attempt.gang in staying)
        return (self.free_milli + self.back.milli - stays) // WHOLE // unit * unit * WHOLE - self.counted


def _enough(need: int, found: Sequence[tuple[int, int]]) -> KeptRows:
    kept = KeptRows(tuple(row for row, _ in found), tuple(gain for _, gain in found))
    count = len(kept.first(need, 1))
    return KeptRows(kept.rows[:count], kept.gains[:count])


def _with_told(
    need: int, unit: int, taken: list[tuple[int, int]], lent: Sequence[_Lent], left_over: list[tuple[int, int]]
) -> KeptRows:
    """Add rows, the cheapest first, until there is enough; then spare, the dearest first, who is not needed for it."""
    missing = need - sum(gain for _, gain in taken)
    chosen: list[_Lent] = []
    for entry in lent:
        if missing <= 0:
            break
        chosen.append(entry)
        missing -= entry.more(unit)
    told = {attempt.gang: attempt for entry in chosen for attempt, _ in entry.back.told}
    spared: set[GangId] = set()
    for gang in reversed(told):
        if missing + sum(e.more(unit, spared) - e.more(unit, {*spared, gang}) for e in chosen) <= 0:
            missing += sum(e.more(unit, spared) - e.more(unit, {*spared, gang}) for e in chosen)
            spared.add(gang)
    gains = dict(taken)
    for entry in chosen:
        gains[entry.row] = gains.get(entry.row, 0) + entry.more(unit, spared)
    gains = {**gains, **{row: 0 for row, _ in left_over if row not in gains}}
    return KeptRows(
        tuple(gains), tuple(gains.values()), tuple(attempt for gang, attempt in told.items() if gang not in spared)
    )
