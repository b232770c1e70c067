"""Which idle GPUs to cut anew for what is queued, what that costs, and what it leaves stranded. Only a proposal.

A GPU on which anything runs is never looked at. A proposal is made where the queued demand that it serves more is worth
more GPU-time than cutting costs. The search is greedy, best gain first: good, not proven best. Same input, same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile
from fairlead.topology.mig_grid import Grid, Layout, full_grid, grid_of
from fairlead.world.fleet import IntColumn

WHOLE = ""
"""The "profile" of demand for whole GPUs, which a GPU serves while it is not in MIG mode."""
LOOKS_MOST = 2_000
"""Kinds of device that one plan looks at, again after each proposal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecutCosts:
    """How long a GPU cannot be used, in ms: per instance made or removed, for a change of mode, for a reset."""

    create_ms: int = 1_000
    destroy_ms: int = 1_000
    mode_ms: int = 5_000
    reset_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """`count` queued instances of a profile, or whole GPUs; each would use `gpu_ms` of a GPU (its part × its time)."""

    profile: str
    count: int
    gpu_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDevice:
    """A GPU that may be cut anew. `layout` is what it is cut into, `used` whether anything runs on it.

    `mode_by_reset` says that MIG mode changes with a reset only (Ampere), `resets_with` which devices of the node are
    then reset too (all on one NVSwitch baseboard).
    """

    node: str
    device: str
    profiles: tuple[MigProfile, ...]
    layout: Layout = ()
    enabled: bool = True
    used: bool = False
    mode_by_reset: bool = False
    resets_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Cut one GPU anew. `mode` is ``enable``, ``disable`` or "", `reset` whether that resets it.

    `serves` is what is served more, less what is served no more. `cost_gpu_ms` is the time that GPUs cannot be used;
    draining costs nothing, because the GPU is idle. Stranded is in thousandths of this GPU.
    """

    node: str
    device: str
    before: Layout
    after: Layout
    mode: str
    reset: bool
    serves: tuple[tuple[str, int], ...]
    gain_gpu_ms: int
    cost_gpu_ms: int
    stranded_before: int
    stranded_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecutPlan:
    """Proposals, best first. `unserved` is the demand that is left; `ended_early` why the search stopped, else ""."""

    proposals: tuple[Proposal, ...]
    unserved: tuple[tuple[str, int], ...]
    ended_early: str = ""


def plan_recuts(
    devices: Sequence[PlanDevice],
    demand: Sequence[Demand],
    free: Mapping[str, int],
    *,
    costs: RecutCosts | None = None,
    may_change_mode: bool = False,
    looks_most: int = LOOKS_MOST,
) -> RecutPlan:
    """Propose new layouts for idle devices; `free` are instances (or whole GPUs) that are free on other devices.

    Demand counts only for instances of exactly its profile. Without `may_change_mode` only GPUs that are in MIG mode
    are cut. O(looks × states of a grid), looks being at most `looks_most`.
    """
    return _Planner(devices, demand, free, costs or RecutCosts(), may_change_mode, looks_most).run()


def stranded_milli(grid: Grid, states: IntColumn, wanted: Sequence[str]) -> int:
    """Return the stranded capacity of devices of one grid: free units that fit no `wanted` profile.

    In thousandths of a GPU, all devices together; `states` has one entry a device.
    """
    return int(grid.stranded(wanted)[states].sum()) * 1000 // grid.units if grid.units else 0


@dataclass(slots=True)
class _Kind:
    """Devices that are alike, and every way to cut one: rows of options, the last one being whole."""

    like: PlanDevice
    grid: Grid
    waiting: list[PlanDevice]
    counts: IntColumn = field(init=False)
    cost: IntColumn = field(init=False)
    now: IntColumn = field(init=False)


class _Planner:
    def __init__(
        self,
        devices: Sequence[PlanDevice],
        demand: Sequence[Demand],
        free: Mapping[str, int],
        costs: RecutCosts,
        may_change_mode: bool,
        looks_most: int,
    ) -> None:
        self._costs, self._may_change_mode, self._looks = costs, may_change_mode, looks_most
        self._idle = {(d.node, d.device): d for d in devices if not d.used}
        self._wanted = sorted({d.profile for d in demand if d.count > 0 and d.gpu_ms > 0})
        self._kinds = self._grouped()
        self._have = np.array([max(0, free.get(name, 0)) for name in self._wanted], dtype=np.int64)
        for kind in self._kinds:
            self._have += len(kind.waiting) * kind.now
        self._worth = [self._steps(name, demand) for name in self._wanted]
        self._asked = {name: sum(d.count for d in demand if d.profile == name) for name in self._wanted}
        self._done: set[tuple[str, str]] = set()

    def run(self) -> RecutPlan:
        proposals: list[Proposal] = []
        ended = ""
        while self._wanted and self._kinds:
            if self._looks < len(self._kinds):
                ended = f"the search ended after {len(proposals)} proposals; another plan goes on from there"
                break
            best: tuple[int, int, int] | None = None  # gain, kind, option
            for at, kind in enumerate(self._kinds):
                self._looks -= 1
                option, gain = self._best_option(kind)
                if gain > 0 and (best is None or gain > best[0]):
                    best = (gain, at, option)
            if best is None:
                break
            kind = self._kinds[best[1]]
            proposals.append(self._propose(kind, best[2], best[0]))
            self._have += kind.counts[best[2]] - kind.now
            self._kinds = [k for k in self._kinds if k.waiting]
        left = [(name, self._asked[name] - int(has)) for name, has in zip(self._wanted, self._have, strict=True)]
        return RecutPlan(
            proposals=tuple(proposals), unserved=tuple((n, c) for n, c in left if c > 0), ended_early=ended
        )

    def _grouped(self) -> list[_Kind]:
        found: dict[object, _Kind] = {}
        for device in sorted(self._idle.values(), key=lambda d: (d.node, d.device)):
            grid = full_grid(device.profiles)
            if grid is None or not (device.enabled or self._may_change_mode):
                continue
            if device.enabled and grid.state_of(device.layout) is None:
                continue  # what it is cut into is nothing that we know: leave it alone
            key = (device.profiles, device.layout, device.enabled, device.mode_by_reset, self._reset_size(device))
            if key not in found:
                found[key] = self._kind(device, grid)
            found[key].waiting.append(device)
        return list(found.values())

    def _kind(self, device: PlanDevice, grid: Grid) -> _Kind:
        kind = _Kind(device, grid, [])
        kind.counts = np.zeros((grid.states + 1, len(self._wanted)), dtype=np.int64)
        place = {name: at for at, name in enumerate(self._wanted)}
        for state in range(grid.states):
            for name, _ in grid.layout(state):
                if name in place:
                    kind.counts[state, place[name]] += 1
        if WHOLE in place:
            kind.counts[-1, place[WHOLE]] = 1
        now = grid.state_of(device.layout) if device.enabled else -1
        kind.now = kind.counts[-1 if now is None else now].copy()
        old = set(device.layout) if device.enabled else set[tuple[str, int]]()
        kind.cost = np.zeros(grid.states + 1, dtype=np.int64)
        mode = self._mode_cost(device)
        for state in range(grid.states):
            new = set(grid.layout(state))
            cut = self._costs.destroy_ms * len(old - new) + self._costs.create_ms * len(new - old)
            kind.cost[state] = cut + (0 if device.enabled else mode)
        kind.cost[-1] = self._costs.destroy_ms * len(old) + mode if device.enabled else 0
        return kind

    def _mode_cost(self, device: PlanDevice) -> int:
        if not device.mode_by_reset:
            return self._costs.mode_ms
        return self._costs.mode_ms + self._costs.reset_ms * self._reset_size(device)

    def _reset_size(self, device: PlanDevice) -> int:
        return 1 + len(set(device.resets_with) - {device.device}) if device.mode_by_reset else 0

    def _may_reset(self, device: PlanDevice) -> bool:
        """Whether everything that is reset with a device is idle, uncut and in no proposal yet."""
        for name in device.resets_with:
            other = self._idle.get((device.node, name))
            if name == device.device:
                continue
            if other is None or (other.enabled and other.layout) or (device.node, name) in self._done:
                return False
        return True

    def _steps(self, name: str, demand: Sequence[Demand]) -> IntColumn:
        """Return the worth of having 0, 1, 2 … of a profile, up to what could be had; the dearest are served first."""
        rows = [k.grid.room(name)[0] if name != WHOLE else 1 for k in self._kinds]
        most = int(self._have[self._wanted.index(name)])
        most += sum(int(row) * len(kind.waiting) for row, kind in zip(rows, self._kinds, strict=True))
        worths: list[int] = []
        for item in sorted((d for d in demand if d.profile == name and d.gpu_ms > 0), key=lambda d: -d.gpu_ms):
            worths += [item.gpu_ms] * min(max(0, item.count), most - len(worths))
        steps = np.zeros(most + 1, dtype=np.int64)
        steps[1 : len(worths) + 1] = np.cumsum(np.array(worths, dtype=np.int64))
        steps[len(worths) + 1 :] = steps[len(worths)]
        return steps

    def _best_option(self, kind: _Kind) -> tuple[int, int]:
        """Return (option, gain over leaving it as it is); ties to what keeps most future shapes, then the lower one."""
        rest = self._have - kind.now
        worth = -kind.cost
        before = 0
        for at, steps in enumerate(self._worth):
            worth = worth + steps[rest[at] + kind.counts[:, at]]
            before += int(steps[self._have[at]])
        worth[self._forbidden(kind)] = before - 1
        futures = np.append(kind.grid.futures, 0)
        option = int(np.lexsort((np.arange(len(worth)), -futures, -worth))[0])
        return option, int(worth[option]) - before

    def _forbidden(self, kind: _Kind) -> slice | IntColumn:
        """Options that need a change of mode which may not be."""
        allowed = self._may_change_mode and (not kind.like.mode_by_reset or self._next_device(kind) is not None)
        if allowed:
            return np.zeros(0, dtype=np.int64)
        return slice(-1, None) if kind.like.enabled else slice(None, -1)

    def _next_device(self, kind: _Kind) -> PlanDevice | None:
        return next((d for d in kind.waiting if self._may_reset(d)), None)

    def _propose(self, kind: _Kind, option: int, gain: int) -> Proposal:
        whole = option == kind.grid.states
        changes = whole == kind.like.enabled
        reset = changes and kind.like.mode_by_reset
        device = (self._next_device(kind) if reset else None) or kind.waiting[0]
        kind.waiting.remove(device)
        self._done.add((device.node, device.device))
        before = device.layout if device.enabled else ()
        after: Layout = () if whole else kind.grid.layout(option)
        change = kind.counts[option] - kind.now
        return Proposal(
            node=device.node,
            device=device.device,
            before=before,
            after=after,
            mode=("disable" if whole else "enable") if changes else "",
            reset=reset,
            serves=tuple((name, int(n)) for name, n in zip(self._wanted, change, strict=True) if n),
            gain_gpu_ms=gain,
            cost_gpu_ms=int(kind.cost[option]),
            stranded_before=self._stranded(device, before, whole=not device.enabled),
            stranded_after=self._stranded(device, after, whole=whole),
        )

    def _stranded(self, device: PlanDevice, layout: Layout, *, whole: bool) -> int:
        """Return thousandths of an idle GPU that no queued shape could use, cut like this."""
        if whole:
            return 0 if WHOLE in self._wanted else 1000
        number = {p.name: p.id for p in device.profiles}
        size = {p.name: p.size for p in device.profiles}
        instances = tuple(
            MigInstance(id=at, profile=number[name], start=start, size=size[name])
            for at, (name, start) in enumerate(layout)
        )
        grid = grid_of(MigGeometry(enabled=True, pending=True, profiles=device.profiles, instances=instances))
        return 1000 if grid is None else stranded_milli(grid, np.zeros(1, dtype=np.int64), self._wanted)
