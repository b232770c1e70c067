"""What people see of the state: one view a gang, a queue, a node, a pool, and one of the free GPUs.

The status writer, the HTTP API and the command lines all print these and compute nothing of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fairlead.model.checkpoints import Measured, Saved
from fairlead.model.effects import Phase
from fairlead.model.events import Nominated
from fairlead.model.gang import GangId, Placement, Tier
from fairlead.model.promises import Promised
from fairlead.model.quota_exception import QuotaException
from fairlead.model.reasons import Refusal
from fairlead.model.retries import Failures


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointView:
    """`saved` is the last checkpoint that counts, `interval_ms` the declared time between two, 0 where there is none.

    `recommended_ms` 0 means that not enough is known. `until_ms` is when a stop that waits for a checkpoint comes at
    the latest, None where none waits; `begins_ms` from when on it may be written.
    """

    saved: Saved | None = None
    measured: Measured
    interval_ms: int = 0
    recommended_ms: int = 0
    false_claims: int = 0
    problem: str = ""
    begins_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRange:
    """When a gang will start, UTC ms: by p50 with even chances, by p90 nearly surely; both None where unknown."""

    p50_ms: int | None
    p90_ms: int | None
    basis: str


UNKNOWN_START = StartRange(p50_ms=None, p90_ms=None, basis="unknown")


class GangView(msgspec.Struct, frozen=True, kw_only=True):
    """One gang as its owner may see it. `position` counts from 1 inside its queue, None unless it waits.

    `refusal` says why it waits, was refused or last ended; None while it runs. Times are UTC ms. `idle_ms` is when
    all its devices began to be idle, None where that is no longer ago than its queue allows, or it says nothing of it.
    """

    id: GangId
    namespace: str
    name: str
    queue: str
    priority: int
    gpus: int
    members: int
    phase: Phase
    attempt: int = 0
    restarts: int = 0
    refusal: Refusal | None = None
    position: int | None = None
    placement: Placement | None = None
    tier: Tier | None = None
    nomination: Nominated | None = None
    start: StartRange = UNKNOWN_START
    promise: Promised | None = None
    submitted_ms: int = 0
    placed_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    gpu_ms: int = 0
    lost_gpu_ms: int = 0
    failures: Failures = ()
    checkpoint: CheckpointView | None = None
    idle_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceView:
    """What a queue may have and has of one resource: GPUs of all models or of one, cores, GiB or pieces.

    Parts of them round up. `used` and `borrowed` mean what they mean of GPUs.
    """

    name: str
    guaranteed: int
    limit: int | None
    used: int
    borrowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """One queue in whole GPUs. `used` includes what is being placed or stopped; `borrowed` is above the guarantee.

    Guarantee and limit are those in force: with `exceptions` that act now. `kind` is what it stands for, `problem` what
    is wrong with its place among the others, "" for nothing. `cost_hold` says until when nothing new starts because of
    what it cost, "" where nothing is held. `resources` are GPUs, and everything else that the queue has a quota of.
    """

    name: str
    parent: str
    tenant: str
    guaranteed_gpus: int
    limit_gpus: int | None
    weight: int
    used_gpus: int
    borrowed_gpus: int
    pending_gangs: int
    pending_gpus: int
    running_gangs: int
    entitled_gpus: int
    over_limit: bool
    kind: str = ""
    problem: str = ""
    exceptions: tuple[QuotaException, ...] = ()
    cost_hold: str = ""
    resources: tuple[ResourceView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node: its devices by state. `held` are ours, `foreign` others', `down` unhealthy or on a lost node."""

    name: str
    pool: str
    levels: tuple[tuple[str, str], ...]
    model: str
    gpus: int
    free: int
    held: int
    foreign: int
    down: int
    ready: bool
    schedulable: bool
    gangs: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool: nodes and devices by state."""

    name: str
    nodes: int
    gpus: int
    free: int
    held: int
    foreign: int
    down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRoom:
    """The largest gangs of one GPU model that one domain of `level` has room for now.

    `gpus` counts whole free GPUs, on however many nodes; `nodes` counts nodes on which every GPU is free.
    """

    level: str
    gpus: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """The free GPUs of usable nodes: in a pool, ready and not cordoned.

    free_gpus              GPUs with nothing on them
    shared_free_milli      thousandths that are left of GPUs which somebody has a part of
    stranded_milli         thousandths, of both, that no request of the learned mix could use where they are
    largest                by level, tightest first
    pending_although_free  gangs that wait although as many GPUs as they ask for, of models they take, are free
    """

    free_gpus: int
    shared_free_milli: int
    stranded_milli: int
    largest: tuple[LevelRoom, ...]
    pending_although_free: int
