"""Facts that happened. State changes by these and by nothing else; the journal keeps them all.

Times are UTC ms. `at_ms` is when the fact became true; `estimated_ms` the width of the interval it is known to lie in,
0 where the time is the fact's own. Facts repeat: applying one twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.checkpoints import Saved
from fairlead.model.gang import Gang, GangId, Placement, Tier
from fairlead.model.growing import GrowFailed as GrowFailed
from fairlead.model.growing import GrowIntended as GrowIntended
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.model.keeping import KeptFree as KeptFree
from fairlead.model.prices import Adjusted as Adjusted
from fairlead.model.prices import MoneyFact as MoneyFact
from fairlead.model.prices import PriceBookGone as PriceBookGone
from fairlead.model.prices import PriceBookSeen as PriceBookSeen
from fairlead.model.reasons import Refusal
from fairlead.model.reservation import TimeFact
from fairlead.model.retries import Failures
from fairlead.model.rules import Rules
from fairlead.model.saving_events import CheckpointCommitted as CheckpointCommitted
from fairlead.model.saving_events import LifeSign as LifeSign
from fairlead.model.saving_events import NoticeIntended as NoticeIntended
from fairlead.model.saving_events import NoticeWithdrawn as NoticeWithdrawn
from fairlead.model.takings import Nominated as Nominated
from fairlead.model.takings import NominationEnded as NominationEnded
from fairlead.model.takings import ShrinkIntended as ShrinkIntended
from fairlead.model.takings import StopIntended as StopIntended
from fairlead.model.takings import StopRefused as StopRefused
from fairlead.model.tenancy_events import BooksFull as BooksFull
from fairlead.model.tenancy_events import CostAlarmed as CostAlarmed
from fairlead.model.tenancy_events import ExceptionGone as ExceptionGone
from fairlead.model.tenancy_events import ExceptionSeen as ExceptionSeen
from fairlead.model.tenancy_events import PolicyGone as PolicyGone
from fairlead.model.tenancy_events import PolicySeen as PolicySeen
from fairlead.model.tenancy_events import PoolGone as PoolGone
from fairlead.model.tenancy_events import PoolSeen as PoolSeen
from fairlead.model.tenancy_events import QueueGone as QueueGone
from fairlead.model.tenancy_events import QueueSeen as QueueSeen
from fairlead.model.tenancy_events import QueueSpent as QueueSpent
from fairlead.model.tenancy_events import SwitchesSet as SwitchesSet
from fairlead.model.tenancy_events import TenancyFact as TenancyFact


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """A node is there, like this. Replaces whatever was known of it."""

    node: Node
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """The Node object was deleted, or its out-of-service taint says that nothing on it runs any more."""

    name: NodeName
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """Our decision that a node which is not Ready will not come back by itself: its gangs restart elsewhere.

    Holds on it stay (its devices are down, nothing there is re-used) until they are released or the node is gone.
    """

    name: NodeName
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsed:
    """What pods that are not ours take on a node, all of them together; `host_ports` likewise."""

    name: NodeName
    taken: Resources
    at_ms: int
    host_ports: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDevices:
    """All devices of a node that allocations other than ours hold now; empty when there are none."""

    name: NodeName
    devices: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesCounted:
    """How busy devices of a node were from `from_ms` to before `at_ms`: (device, thousandths of the time)."""

    name: NodeName
    from_ms: int
    busy: tuple[tuple[str, int], ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSeen:
    """A GangJob is there, its template accepted by the API server's dry run. Also a change of it."""

    gang: Gang
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GangRefused:
    """A GangJob is there and cannot be scheduled as it is written."""

    gang: GangId
    namespace: str
    name: str
    queue: str
    refusal: Refusal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GangGone:
    """A GangJob's deletion was asked for (or has happened); what it holds must be released."""

    gang: GangId
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """An accepted plan: these devices are this attempt's from `at_ms` on, before the first write leaves.

    If nothing has come back by `deadline_ms`, the shell must undo it and say so with `PlaceFailed`.
    """

    gang: GangId
    attempt: int
    placement: Placement
    tier: Tier
    at_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChanged:
    """What the attempt holds is of another tier from now on: its queue's guarantee covers it, or no longer does."""

    gang: GangId
    attempt: int
    tier: Tier
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Every member of the attempt is bound to its node."""

    gang: GangId
    attempt: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFailed:
    """The attempt could not be bound whole; whatever had been written is being undone.

    `released` are the ranks that hold nothing any more; the others follow as `MemberReleased`.
    """

    gang: GangId
    attempt: int
    cause: Refusal
    released: tuple[int, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRunning:
    """A member's pod is Running."""

    gang: GangId
    attempt: int
    rank: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEnded:
    """A member's pod came to its end by itself (or was taken away by somebody else: then not succeeded)."""

    gang: GangId
    attempt: int
    rank: int
    succeeded: bool
    at_ms: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReleased:
    """A member's devices are free: its claim was emptied, or nothing had been written for it."""

    gang: GangId
    attempt: int
    rank: int
    at_ms: int
    estimated_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedUnseen:
    """Holds (gang, attempt, rank) are over though nobody told of their end; `evidence` says how that is known.

    The `MemberReleased` of the same moment that follow end them. Changes nothing by itself.
    """

    holds: tuple[tuple[GangId, int, int], ...]
    evidence: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """At start: an attempt found in claims and pods. `holding`, `running`, `left` are ranks; those of `left` have left.

    Who is in `left` and holds something is about to leave. Those of `joining` are on their way into it.
    """

    gang: GangId
    attempt: int
    placement: Placement
    tier: Tier
    since_ms: int
    bound: bool
    holding: tuple[int, ...]
    running: tuple[int, ...]
    at_ms: int
    restarts: int = 0
    all_running_ms: int | None = None
    saved_ms: int | None = None
    left: tuple[int, ...] = ()
    joining: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """At start: what a GangJob's status says of its past, so that attempt numbers and endings survive a restart.

    `ended` is None for a gang that may still run, else whether it succeeded. Follows the gang's `GangSeen`.
    """

    gang: GangId
    attempts: int
    restarts: int
    at_ms: int
    ended: bool | None = None
    past_gpu_ms: int = 0
    lost_gpu_ms: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    failures: Failures = ()
    saved: Saved | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An engine begins with an empty state; a replay begins anew here. `rules` are what it decides by.

    `meter` says by which rules the books measure from here on: 0 devices; 1 also what pods have beside devices, and a
    MIG instance is held no longer than its GPU is cut that way.
    """

    rules: Rules
    at_ms: int
    meter: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A cycle looked at the state at `at_ms` and had something to say; `digest` is of its whole plan.

    What it intended follows in the journal. Changes no state; a replay decides here and compares. `policies` names the
    fairness policies that it went by, as ``name/version``; none where nobody wrote one.
    """

    digest: str
    at_ms: int
    policies: tuple[str, ...] = ()


Event = (
    NodeSeen
    | NodeGone
    | NodeLost
    | NodeUsed
    | ForeignDevices
    | DevicesCounted
    | QueueSeen
    | QueueGone
    | ExceptionSeen
    | ExceptionGone
    | SwitchesSet
    | QueueSpent
    | CostAlarmed
    | BooksFull
    | PriceBookSeen
    | PriceBookGone
    | Adjusted
    | PoolSeen
    | PoolGone
    | PolicySeen
    | PolicyGone
    | GangSeen
    | GangRefused
    | GangGone
    | Intended
    | Nominated
    | NominationEnded
    | TimeFact
    | StopIntended
    | NoticeIntended
    | NoticeWithdrawn
    | ShrinkIntended
    | GrowIntended
    | GrowFailed
    | StopRefused
    | TierChanged
    | KeptFree
    | Bound
    | PlaceFailed
    | MemberRunning
    | MemberEnded
    | CheckpointCommitted
    | LifeSign
    | MemberReleased
    | EndedUnseen
    | Recovered
    | Remembered
    | Started
    | Decided
)
