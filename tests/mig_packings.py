"""Instances over several GPUs: one after another as they come, or all at once on the fewest GPUs.

Online, an instance goes where future shapes lose least, and GPUs in use are filled before an empty one is opened.
Offline the smallest number of GPUs is searched for, exactly unless the search runs out of steps, which it then says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.topology.mig_grid import Grid, Layout, Mix

STEPS_MOST = 20_000
"""Kinds of GPU that one offline search tries before it is content with what it has."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which device takes an instance (its position), where it begins there, and the device's state afterwards."""

    device: int
    start: int
    next: int
    loss: int


@dataclass(frozen=True, slots=True)
class Packing:
    """The layout of each GPU used. `exact` says that fewer GPUs are impossible; `left` are those that fit none."""

    devices: tuple[Layout, ...]
    exact: bool
    left: tuple[tuple[str, int], ...] = ()


def choose_device(
    grids: Sequence[Grid | None], states: Sequence[int], profile: str, mix: Mix = (), *, empty_last: bool = True
) -> Choice | None:
    """Return the best device for one more instance, None where there is room on none.

    `grids` and `states` are by device; None is a device that takes no instances. Devices that have something already go
    before empty ones (unless `empty_last` is False), then the least loss, then the position.
    """
    best: tuple[bool, int, int] | None = None
    found: Choice | None = None
    for at, (grid, state) in enumerate(zip(grids, states, strict=True)):
        if grid is None or not grid.room(profile)[state]:
            continue
        choices = grid.choices(profile, mix)
        loss = int(choices.loss[state])
        key = (empty_last and state == 0, loss, at)
        if best is None or key < best:
            best, found = key, Choice(at, int(choices.start[state]), int(choices.next[state]), loss)
    return found


def pack_online(grid: Grid, wanted: Iterable[str], mix: Mix = ()) -> Packing:
    """Place instances in the order they come, each for good, on as many equal GPUs as that takes."""
    states: list[int] = []
    left: Counter[str] = Counter()
    for profile in wanted:
        choice = choose_device([grid] * len(states), states, profile, mix)
        if choice is not None:
            states[choice.device] = choice.next
            continue
        opened = grid.add(0, profile, mix)
        if opened is None:
            left[profile] += 1
        else:
            states.append(opened[1])
    return Packing(tuple(grid.layout(state) for state in states), exact=False, left=tuple(sorted(left.items())))


def pack_offline(grid: Grid, demand: Mapping[str, int], *, steps_most: int = STEPS_MOST) -> Packing:
    """Place all instances on the fewest equal GPUs.

    `demand` is instances by profile, in any order; the answer does not depend on it. O(kinds of full GPU) a step; after
    `steps_most` steps the best packing so far is returned with `exact` False.
    """
    left = tuple(sorted((name, n) for name, n in demand.items() if n > 0 and not grid.room(name)[0]))
    names = sorted(
        (name for name, n in demand.items() if n > 0 and grid.room(name)[0]),
        key=lambda name: (int(grid.room(name)[0]), -_size(grid, name), name),
    )
    if not names:
        return Packing((), exact=True, left=left)
    search = _Search(grid, names, steps_most)
    devices, exact = search.fewest(tuple(demand[name] for name in names))
    return Packing(tuple(grid.layout(state) for state in devices), exact=exact, left=left)


def _size(grid: Grid, name: str) -> int:
    found = grid.profile(name)
    return 0 if found is None else found.size


_Counts = tuple[int, ...]


class _Search:
    """Cover a demand with kinds of full GPU: GPU by GPU, each holding the hardest profile that is still to place.

    `names` are the hardest first. Of two kinds of which one holds all of the other, the greater is taken: what is
    placed too much is left out. Demands that could not be covered by so many GPUs are remembered.
    """

    def __init__(self, grid: Grid, names: Sequence[str], steps_most: int) -> None:
        self._grid, self._names = grid, names
        self._steps = steps_most
        self._kinds = _kinds(grid, names)
        self._hopeless: dict[_Counts, int] = {}
        self._weights = self._bounding_weights()

    def fewest(self, demand: _Counts) -> tuple[list[int], bool]:
        """Return (the states of the GPUs used, whether there can be no fewer)."""
        greedy = self._greedy(demand)
        lowest = self._at_least(demand)
        for count in range(lowest, len(greedy)):
            chosen: list[_Counts] = []
            if self._cover(demand, count, chosen):
                return self._states(demand, chosen), True
            if self._steps <= 0:
                return self._states(demand, greedy), False
        return self._states(demand, greedy), True

    def _cover(self, demand: _Counts, count: int, chosen: list[_Counts]) -> bool:
        """Whether `count` GPUs hold the demand; `chosen` then has their kinds. One level a GPU, never deep."""
        stack: list[tuple[_Counts, list[_Counts]]] = [(demand, self._helpful(demand))]
        while stack:
            rest, options = stack[-1]
            if not any(rest):
                return True
            room = count - len(chosen)
            if not options or room <= 0 or self._steps <= 0:
                if room > 0 and self._steps > 0:
                    self._hopeless[rest] = max(room, self._hopeless.get(rest, 0))
                stack.pop()
                if stack:
                    chosen.pop()
                continue
            self._steps -= 1
            kind = options.pop()
            after = tuple(max(0, want - has) for want, has in zip(rest, kind, strict=True))
            if self._at_least(after) <= room - 1 and self._hopeless.get(after, -1) < room - 1:
                chosen.append(kind)
                stack.append((after, self._helpful(after)))
        return False

    def _helpful(self, demand: _Counts) -> list[_Counts]:
        """Return the kinds that hold the hardest profile still wanted, the most useful one last."""
        hardest = next((at for at, n in enumerate(demand) if n), None)
        if hardest is None:
            return []
        useful: dict[_Counts, _Counts] = {}
        for kind in self._kinds:
            if kind[hardest]:
                useful.setdefault(tuple(min(a, b) for a, b in zip(kind, demand, strict=True)), kind)
        kept = [k for k in useful if not any(k != o and all(a <= b for a, b in zip(k, o, strict=True)) for o in useful)]
        return [useful[k] for k in sorted(kept, key=lambda k: (self._volume(k), k))]

    def _greedy(self, demand: _Counts) -> list[_Counts]:
        chosen: list[_Counts] = []
        while any(demand):
            kind = self._helpful(demand)[-1]
            chosen.append(kind)
            demand = tuple(max(0, want - has) for want, has in zip(demand, kind, strict=True))
        return chosen

    def _volume(self, kind: _Counts) -> int:
        return max(sum(w * n for w, n in zip(weights, kind, strict=True)) for weights, _ in self._weights)

    def _at_least(self, demand: _Counts) -> int:
        """Return a number of GPUs below which nothing can do: no GPU holds more than `most` of any weighting."""
        return max(-(-sum(w * n for w, n in zip(ws, demand, strict=True)) // most) for ws, most in self._weights)

    def _bounding_weights(self) -> list[tuple[_Counts, int]]:
        """Return weightings of the profiles, each with the most that one GPU can hold of it."""
        profiles = [p for name in self._names if (p := self._grid.profile(name)) is not None]
        most = [int(self._grid.room(name)[0]) for name in self._names]
        whole = int(np.lcm.reduce(most)) if len(most) < 12 else 1
        given = [tuple(p.slices for p in profiles), tuple(p.size for p in profiles)]
        given.append(tuple(whole // m for m in most))
        given += [tuple(int(at == other) for other in range(len(most))) for at in range(len(most))]
        found: list[tuple[_Counts, int]] = []
        for weights in given:
            best = max(sum(w * n for w, n in zip(weights, kind, strict=True)) for kind in self._kinds)
            if best:
                found.append((weights, best))
        return found

    def _states(self, demand: _Counts, chosen: Sequence[_Counts]) -> list[int]:
        """Turn kinds into states that have no more than is wanted."""
        states: list[int] = []
        rest = list(demand)
        for kind in chosen:
            state = self._kinds[kind]
            for name, start in self._grid.layout(state):
                at = self._names.index(name)
                if rest[at]:
                    rest[at] -= 1
                else:
                    state = self._grid.take_out(state, name, start)
            states.append(state)
        return states


def _kinds(grid: Grid, names: Sequence[str]) -> dict[_Counts, int]:
    """Return the multisets of `names` that fill a GPU, each with the lowest state that has it.

    A multiset that lies in another one is left out.
    """
    found: dict[_Counts, int] = {}
    for state in range(grid.states):
        counts = Counter(name for name, _ in grid.layout(state))
        if all(name in names for name in counts):
            found.setdefault(tuple(counts[name] for name in names), state)
    return {
        kind: state
        for kind, state in found.items()
        if not any(kind != other and all(a <= b for a, b in zip(kind, other, strict=True)) for other in found)
    }
