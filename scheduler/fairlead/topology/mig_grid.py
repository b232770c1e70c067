"""Every state that the MIG grid of one GPU can be in, worked out once: what still fits, and which start costs least.

A state is the set of (profile, start) that are taken; its id is a row in the columns of a `Grid`, and 0 is the empty
one. GPUs of one geometry share a Grid, so a fleet holds one number a device and asks ``grid.room(profile)[states]``.
In static mode only instances that exist may be taken: the same class, over the subsets of these.

What the driver enforces holds in every state: instances do not overlap and begin at a listed unit, no profile has more
than its most, one GPU has one set of media engines, and compute slices and engines do not run out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fairlead.model.partitions import MigGeometry, MigProfile
from fairlead.topology.mig_states import IntColumn, Transitions, count_futures, count_rooms, layouts, readonly

STATES_MOST = 4_096
"""A grid with more states is not used: no GPU that is sold has half as many."""
Mix = tuple[tuple[str, int], ...]
"""(profile, weight) by name: how often each shape is asked for; () where nobody knows."""
Layout = tuple[tuple[str, int], ...]
"""(profile, start) of every instance, by start."""

_UNITS_MOST = 64
_MIX_MOST = 1_000_000
_REMEMBERED = 256


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """The best way to add one profile, for every state; shape (states,) each.

    `start` and `next` are -1 where it does not fit; `loss` is what future shapes lose by it, and has no unit.
    """

    start: IntColumn
    next: IntColumn
    loss: IntColumn


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The states of one geometry; read-only. `profiles` are in the order of the rows of `rooms`, by name unique.

    slots     (row of a profile, start), in order of start and row
    layouts   bit mask over `slots`, by state
    rooms     shape (profiles, states): how many more instances of a profile fit
    free      shape (states,): units that nothing takes
    futures   shape (states,): how many multisets of instances still fit, the empty one included
    """

    profiles: tuple[MigProfile, ...]
    units: int
    dynamic: bool
    slots: tuple[tuple[int, int], ...]
    layouts: tuple[int, ...]
    rooms: IntColumn
    free: IntColumn
    futures: IntColumn
    _next: Transitions
    _before: Transitions
    _row: Mapping[str, int]
    _slot: Mapping[tuple[int, int], int]
    _state: Mapping[int, int]
    _nothing: IntColumn
    _choices: dict[tuple[str, Mix], Choices] = field(default_factory=dict[tuple[str, Mix], Choices])
    _coverable: dict[tuple[str, ...], IntColumn] = field(default_factory=dict[tuple[str, ...], IntColumn])

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.layouts)

    def profile(self, name: str) -> MigProfile | None:
        """Return the profile with a name, None where this grid has none such."""
        row = self._row.get(name)
        return None if row is None else self.profiles[row]

    def room(self, profile: str) -> IntColumn:
        """Return how many more instances of a profile fit, by state; zeros for a profile that the GPU does not have."""
        row = self._row.get(profile)
        return self._nothing if row is None else self.rooms[row]

    def starts(self, state: int, profile: str) -> tuple[int, ...]:
        """Return the units where an instance may begin now, lowest first."""
        row = self._row.get(profile)
        return tuple(
            start for at, (owner, start) in enumerate(self.slots) if owner == row and self._next[state, at] >= 0
        )

    def put(self, state: int, profile: str, start: int) -> int:
        """Return the state after an instance was made, or taken, at `start`.

        Raises
        ------
        KeyError
            The grid has no such profile or start.
        ValueError
            It does not fit there now.
        """
        found = int(self._next[state, self._slot[self._row[profile], start]])
        if found < 0:
            raise ValueError(f"{profile} does not fit at {start} beside {self.layout(state)}")
        return found

    def take_out(self, state: int, profile: str, start: int) -> int:
        """Return the state after an instance was given back.

        Raises
        ------
        KeyError
            The grid has no such profile or start.
        ValueError
            There is none there.
        """
        found = int(self._before[state, self._slot[self._row[profile], start]])
        if found < 0:
            raise ValueError(f"there is no {profile} at {start} in {self.layout(state)}")
        return found

    def add(self, state: int, profile: str, mix: Mix = ()) -> tuple[int, int] | None:
        """Return (start, next state) of the place that keeps the most future shapes, None where there is none.

        Ties go to the lowest start. With a `mix`, shapes count by how often they are asked for.
        """
        choices = self.choices(profile, mix)
        start = int(choices.start[state])
        return None if start < 0 else (start, int(choices.next[state]))

    def best_start(self, state: int, profile: str, mix: Mix = (), *, keep: int = 0) -> int:
        """Return where an instance loses least of those starts after which `keep` more of it fit, -1 for none."""
        score, best, found = self.score(mix), -1, -1
        for start in self.starts(state, profile):
            after = self.put(state, profile, start)
            if int(self.room(profile)[after]) >= keep and int(score[after]) > best:
                best, found = int(score[after]), start
        return found

    def choices(self, profile: str, mix: Mix = ()) -> Choices:
        """Return `add` for all states at once, with what each loses: over several GPUs the least loss is the best."""
        key = (profile, mix)
        found = self._choices.get(key)
        if found is None:
            if len(self._choices) >= _REMEMBERED:
                self._choices.clear()
            found = self._choices[key] = self._best(profile, self.score(mix))
        return found

    def score(self, mix: Mix = ()) -> IntColumn:
        """Return what each state is worth to future requests, shape (states,).

        With a mix: units that each shape could still use, times its weight; equal states by how many multisets fit.
        """
        if not mix:
            return self.futures
        known = [(self._row[name], weight) for name, weight in mix if name in self._row and weight > 0]
        total = sum(weight for _, weight in known)
        scale = max(total, _MIX_MOST)
        worth = np.zeros(self.states, dtype=np.int64)
        for row, weight in known:
            worth += max(1, weight * _MIX_MOST // scale) * self.profiles[row].size * self.rooms[row]
        return worth * (int(self.futures.max()) + 1) + self.futures

    def layout(self, state: int) -> Layout:
        """Return the (profile, start) that a state has, by start."""
        mask = self.layouts[state]
        return tuple((self.profiles[row].name, start) for at, (row, start) in enumerate(self.slots) if mask >> at & 1)

    def state_of(self, layout: Sequence[tuple[str, int]]) -> int | None:
        """Return the state that has exactly these (profile, start), None where it cannot be."""
        mask = 0
        for name, start in layout:
            at = self._slot.get((self._row.get(name, -1), start))
            if at is None or mask >> at & 1:
                return None
            mask |= 1 << at
        return self._state.get(mask)

    def full(self) -> IntColumn:
        """Return the states to which nothing can be added."""
        return np.flatnonzero(self.rooms.sum(axis=0) == 0)

    def stranded(self, wanted: Sequence[str]) -> IntColumn:
        """Return, by state, the free units that no way of adding `wanted` profiles could use. Shape (states,)."""
        names = tuple(sorted({name for name in wanted if name in self._row}))
        found = self._coverable.get(names)
        if found is None:
            if len(self._coverable) >= _REMEMBERED:
                self._coverable.clear()
            rows = {self._row[name] for name in names}
            used = np.zeros(self.states, dtype=np.int64)
            for state in range(self.states - 1, -1, -1):
                best = 0
                for at, (row, _) in enumerate(self.slots):
                    after = int(self._next[state, at]) if row in rows else -1
                    if after >= 0:
                        best = max(best, self.profiles[row].size + int(used[after]))
                used[state] = best
            found = self._coverable[names] = readonly(self.free - used)
        return found

    def _best(self, profile: str, score: IntColumn) -> Choices:
        start, after = np.full(self.states, -1, dtype=np.int64), np.full(self.states, -1, dtype=np.int64)
        loss, kept = np.zeros(self.states, dtype=np.int64), np.full(self.states, -1, dtype=np.int64)
        row = self._row.get(profile)
        for at, (owner, first) in enumerate(self.slots):
            if owner != row:
                continue
            reached = self._next[:, at].astype(np.int64)
            better = (reached >= 0) & (score[reached] > kept)
            kept[better] = score[reached[better]]
            start[better], after[better] = first, reached[better]
        fits = after >= 0
        loss[fits] = score[fits] - kept[fits]
        return Choices(readonly(start), readonly(after), readonly(loss))


def grid_of(geometry: MigGeometry) -> Grid | None:
    """Return the grid of a GPU: over what could be made where the driver makes instances, else over those that exist.

    None where it cannot be cut, or where its grid has more than `STATES_MOST` states.
    """
    if geometry.dynamic:
        return full_grid(geometry.profiles)
    placed = tuple(sorted((i.profile, i.start) for i in geometry.instances))
    return _static(geometry.profiles, placed)


@lru_cache(maxsize=64)
def full_grid(profiles: tuple[MigProfile, ...]) -> Grid | None:
    """Return the grid over every layout that the profiles allow; None where there is none, or too many."""
    usable = _by_name(profiles)
    slots = sorted((start, row) for row, p in enumerate(usable) for start in p.starts)
    return _build(usable, [(row, start) for start, row in slots], _units(usable), profiles)


@lru_cache(maxsize=1_024)
def _static(profiles: tuple[MigProfile, ...], placed: tuple[tuple[int, int], ...]) -> Grid | None:
    usable = _by_name(profiles)
    row_of = {p.id: row for row, p in enumerate(usable)}
    slots = sorted(
        (start, row_of[number])
        for number, start in set(placed)
        if number in row_of and start in usable[row_of[number]].starts
    )
    return _build(usable, [(row, start) for start, row in slots], _units(usable), ())


def grid_milli(grid: Grid, profile: str) -> int:
    """Return thousandths of a GPU's grid that an instance takes; those of one GPU never add to more than 1000."""
    found = grid.profile(profile)
    return 0 if found is None or not grid.units else 1000 * found.size // grid.units


def _by_name(profiles: Sequence[MigProfile]) -> tuple[MigProfile, ...]:
    """Return those that can be placed, the first of each name; what lies on no grid that could be is left out."""
    found: dict[str, MigProfile] = {}
    for profile in profiles:
        numbers = [*profile.starts, profile.size - 1, profile.most - 1]
        if profile.name and profile.starts and min(numbers) >= 0 and max(numbers) < _UNITS_MOST:
            found.setdefault(profile.name, profile)
    return tuple(found.values())


def _units(profiles: Sequence[MigProfile]) -> int:
    return max((start + p.size for p in profiles for start in p.starts), default=0)


def _build(
    usable: tuple[MigProfile, ...], slots: list[tuple[int, int]], units: int, limits: Sequence[MigProfile]
) -> Grid | None:
    if not usable or not slots:
        return None
    found = layouts(usable, slots, limits=limits, most=STATES_MOST)
    if found is None:
        return None
    state_of = {mask: state for state, mask in enumerate(found)}
    after = np.full((len(found), len(slots)), -1, dtype=np.int32)
    before = np.full((len(found), len(slots)), -1, dtype=np.int32)
    for state, mask in enumerate(found):
        for at in range(len(slots)):
            reached = -1 if mask >> at & 1 else state_of.get(mask | 1 << at, -1)
            if reached >= 0:
                after[state, at], before[reached, at] = reached, state
    size = [usable[row].size for row, _ in slots]
    taken = [sum(s for at, s in enumerate(size) if mask >> at & 1) for mask in found]
    rooms = count_rooms(len(usable), slots, after)
    row_of = {p.name: row for row, p in enumerate(usable)}
    return Grid(
        profiles=usable,
        units=units,
        dynamic=bool(limits),
        slots=tuple(slots),
        layouts=tuple(found),
        rooms=rooms,
        free=readonly(units - np.array(taken, dtype=np.int64)),
        futures=count_futures(usable, slots, after, rooms),
        _next=after,
        _before=before,
        _row=row_of,
        _slot={slot: at for at, slot in enumerate(slots)},
        _state=state_of,
        _nothing=readonly(np.zeros(len(found), dtype=np.int64)),
    )
