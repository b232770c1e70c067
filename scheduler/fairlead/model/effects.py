"""Things we may do. The core proposes them, `verify` checks them, a shell performs them and reports back as facts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.model.gang import GangId, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.keeping import Keep
from fairlead.model.promises import EndPromise, Promise
from fairlead.model.reasons import Refusal


class Phase(StrEnum):
    """Where a gang is in its life; the table of changes is `fairlead.world.lifecycle`."""

    REFUSED = "Refused"
    SUSPENDED = "Suspended"
    PENDING = "Pending"
    PLACING = "Placing"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Create pods and claims of this attempt, allocate every claim, then bind; undo all on failure."""

    gang: GangId
    attempt: int
    placement: Placement
    tier: Tier
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End every pod of this attempt. `by` names the gang that gains, "" where none does.

    `lost_gpu_ms` is what that throws away, at an estimate, where somebody gains.
    """

    gang: GangId
    attempt: int
    cause: Refusal
    requeue: bool
    by: str = ""
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink:
    """End the members of `ranks`; the others of this attempt go on without them.

    `by` names the gang that gains, "" where those who go were to join it and did not.
    """

    gang: GangId
    attempt: int
    ranks: tuple[int, ...]
    cause: Refusal
    by: str
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow:
    """Bring the last `joining` members of `placement` to this attempt, which runs on; on failure those alone go."""

    gang: GangId
    attempt: int
    placement: Placement
    joining: int
    tier: Tier
    deadline_ms: int

    @property
    def ranks(self) -> range:
        """The ranks of those who join."""
        members = len(self.placement.members)
        return range(members - self.joining, members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Ask this attempt to save from `begins_ms` on, because it is to be stopped: once saved, or at `until_ms`.

    It goes on running and holds its devices; a `Stop` follows. The other fields are as in `Stop`.
    """

    gang: GangId
    attempt: int
    cause: Refusal
    requeue: bool
    begins_ms: int
    until_ms: int
    by: str = ""
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """Take back a notice that an attempt was given: whoever was to gain by its stop needs it no more. It goes on."""

    gang: GangId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nominate:
    """Keep `placement` for the gang while `victims` (gang, attempt) stop; lapses at `until_ms`.

    `shrunk` are (gang, attempt, ranks) of those who go on with fewer members. `rule` says by which right: preemption,
    reclaim or both; `lost_gpu_ms` what it throws away, at an estimate.
    """

    gang: GangId
    placement: Placement
    victims: tuple[tuple[GangId, int], ...]
    until_ms: int
    shrunk: tuple[tuple[GangId, int, tuple[int, ...]], ...] = ()
    rule: str = ""
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndNomination:
    """Give up the room that was kept for the gang."""

    gang: GangId


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Say why the gang does not start now, and with it all that ask for the same in its queue, unless `alone`.

    One that is `turned_away` is refused: it is not asked again before it is submitted anew.
    """

    gang: GangId
    refusal: Refusal
    alone: bool = False
    turned_away: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareLost:
    """Hold the node for lost: it has not been Ready for too long. Changes no cluster object."""

    node: NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Retier:
    """The attempt's devices are of another tier from now on. Changes no cluster object."""

    gang: GangId
    attempt: int
    tier: Tier


Said = Retier | Keep
"""What only the journal hears of: no cluster object changes."""
Effect = (
    Place
    | Stop
    | Notice
    | Withdraw
    | Shrink
    | Grow
    | Nominate
    | EndNomination
    | Promise
    | EndPromise
    | Refuse
    | DeclareLost
    | Said
)
"""`Refuse` changes no cluster object but the GangJob's status; the status writer takes it from state."""
