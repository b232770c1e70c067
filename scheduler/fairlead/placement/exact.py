"""Every way to seat several roles on few rows: the last resort of a search that must not say no too soon.

Rows are filled one after another with a number of pods of each role; equal rows only in falling order, so that no
arrangement is looked at twice. Bounded by `steps`, after which the answer is that there was none to be had in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fairlead.placement.amounts import amounts_asked, amounts_left
from fairlead.placement.columns import PodClass
from fairlead.world.overlay import Overlay

Counts = tuple[int, ...]
Spots = list[list[tuple[int, int]]]
"""Per role: (row, pods)."""
_Amounts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: what is free of each amount, the free devices of each role, and how many pods of each fit alone."""

    row: int
    free: _Amounts
    devices: tuple[int, ...]
    most: Counts
    where: tuple[int, ...]

    @property
    def kind(self) -> tuple[object, ...]:
        return self.free, self.devices, self.most, self.where


def seat_exactly(
    kinds: Sequence[PodClass],
    counts: Sequence[int],
    rows: Sequence[int],
    overlay: Overlay,
    steps: int | None,
    where: Callable[[int], tuple[int, ...]],
    right: Callable[[Spots], bool],
) -> tuple[Spots | Literal["ended"] | None, int]:
    """Return per role its (row, pods), None where there is no way at all, or "ended"; and the steps it took.

    Only for roles whose pods ask for whole GPUs and amounts: shares and host ports are not looked at. `where` gives the
    domains of a row that wishes name, `right` says whether a way keeps those wishes.
    """
    names = sorted({name for kind in kinds for name, _ in kind.role.pod.requests.extended})
    asks = [amounts_asked(kind.role.pod, names) for kind in kinds]
    gpus = [kind.role.gpus for kind in kinds]
    found = [_row(row, kinds, names, overlay, where(row)) for row in rows if any(int(kind.room[row]) for kind in kinds)]
    found.sort(key=lambda r: (*r.kind, -r.row), reverse=True)
    search = _Walk(found, asks, gpus, steps)
    for answer in search.walk(0, tuple(counts), None):
        spots: Spots = [[] for _ in kinds]
        for place, taken in zip(found, answer, strict=False):
            for role, number in enumerate(taken):
                if number:
                    spots[role].append((place.row, number))
        if right(spots):
            return [sorted(role) for role in spots], search.steps
    return ("ended" if search.ended else None), search.steps


class _Walk:
    """Depth first over rows."""

    def __init__(self, rows: list[_Row], asks: list[_Amounts], gpus: list[int], steps: int | None) -> None:
        self._rows, self._asks, self._gpus, self._limit = rows, asks, gpus, steps
        self.steps, self.ended = 0, False
        self._after = [tuple(0 for _ in gpus)]  # room in all later rows, per role
        for row in reversed(rows):
            self._after.append(tuple(a + b for a, b in zip(self._after[-1], row.most, strict=True)))
        self._after.reverse()

    def walk(self, at: int, left: Counts, before: Counts | None) -> Iterator[list[Counts]]:
        """Yield what each row from `at` on takes; `before` is what an equal row in front of it took."""
        if not any(left):
            yield []
            return
        self.steps += 1
        if self._limit is not None and self.steps > self._limit:
            self.ended = True
            return
        if at == len(self._rows) or any(need > room for need, room in zip(left, self._after[at], strict=True)):
            return
        row = self._rows[at]
        same_next = at + 1 < len(self._rows) and self._rows[at + 1].kind == row.kind
        for taken in self._fillings(row, left, before):
            rest = tuple(a - b for a, b in zip(left, taken, strict=True))
            for found in self.walk(at + 1, rest, taken if same_next else None):
                yield [taken, *found]
            if self.ended:
                return

    def _fillings(self, row: _Row, left: Counts, before: Counts | None) -> Iterator[Counts]:
        """Yield numbers of pods per role that fit together, fullest first."""

        def extend(role: int, taken: Counts) -> Iterator[Counts]:
            if role == len(left):
                yield taken
                return
            for number in range(min(left[role], row.most[role]), -1, -1):
                longer = (*taken, number)
                if self._fits(row, longer):
                    yield from extend(role + 1, longer)

        for taken in extend(0, ()):
            if before is None or taken <= before:
                yield taken

    def _fits(self, row: _Row, taken: Counts) -> bool:
        for at, free in enumerate(row.free):
            if sum(number * self._asks[role][at] for role, number in enumerate(taken)) > free:
                return False
        wanted = [(role, number * self._gpus[role]) for role, number in enumerate(taken) if number * self._gpus[role]]
        for subset in range(1, 1 << len(wanted)):  # Hall: every set of roles has devices enough among those it accepts
            chosen = [wanted[i] for i in range(len(wanted)) if subset >> i & 1]
            devices = 0
            for role, _ in chosen:
                devices |= row.devices[role]
            if sum(need for _, need in chosen) > devices.bit_count():
                return False
        return True


def _row(row: int, kinds: Sequence[PodClass], names: Sequence[str], overlay: Overlay, where: tuple[int, ...]) -> _Row:
    idle = int(overlay.columns.free_mask[row])
    return _Row(
        row=row,
        free=tuple(amounts_left(row, overlay.columns, names)),
        devices=tuple(idle & int(kind.fit.devices[row]) for kind in kinds),
        most=tuple(int(kind.room[row]) for kind in kinds),
        where=where,
    )
