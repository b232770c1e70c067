"""What a tenant asks for: a gang of roles that start together or not at all, and where it was put."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType

from fairlead.model.hardware import NodeName, Resources
from fairlead.model.retries import NO_RETRIES, Retries

GangId = NewType("GangId", str)
"""The uid of a GangJob; names are for people and may be used again."""


USER_ANNOTATION = "fairlead.dev/user"
TEMPLATE_LABEL = "fairlead.dev/template"
"""Who submits a job; the chart's admission policy lets nobody write another's name."""
GROUPS_ANNOTATION = "fairlead.dev/groups"
"""Groups of that user, with commas between; the policy lets nobody write one that they are not in."""


def groups_of(text: str) -> tuple[str, ...]:
    """Return the groups that an annotation lists, sorted, each once."""
    return tuple(sorted({name.strip() for name in text.split(",")} - {""}))


class ServiceClass(StrEnum):
    """What kind of work a gang is; a Pool says which classes it serves."""

    SERVING = "serving"
    TRAINING = "training"
    INTERACTIVE = "interactive"
    BATCH = "batch"
    OPPORTUNISTIC = "opportunistic"


class Isolation(StrEnum):
    """Who may be next to a gang on one device: its namespace's other shares, or nobody of another tenant."""

    SHARED = "shared"
    STRICT = "strict"


class Overrun(StrEnum):
    """What happens when a declared duration has passed."""

    STOP = "stop"
    REQUEUE = "requeue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One node selector requirement. `operator` is In, NotIn, Exists, DoesNotExist, Gt or Lt.

    `key` ``metadata.name`` stands for the matchFields form.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()


SelectorTerms = tuple[tuple[Requirement, ...], ...]
"""Terms are ORed, requirements inside a term are ANDed, as in Kubernetes. An empty term matches nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod's toleration; an empty key with Exists tolerates all, an empty effect matches every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape:
    """All of one pod that decides where it may run, read from the pod that the API server's dry run returned.

    `requests` is what Kubernetes' scheduler would count (init containers, sidecars and overhead included, pods = 1).
    `affinity` is the required node affinity, None where there is none. `volume_affinity` holds one selector per bound
    volume, all of which must match. `host_ports` are (protocol, host IP or ``0.0.0.0``, port).
    """

    requests: Resources = field(default_factory=lambda: Resources(pods=1))
    node_selector: tuple[tuple[str, str], ...] = ()
    affinity: SelectorTerms | None = None
    volume_affinity: tuple[SelectorTerms, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[tuple[str, str, int], ...] = ()


class ShareMode(StrEnum):
    """How pods that share one device take turns on it; neither keeps a neighbour out of its caches."""

    TIME_SLICE = "time-slice"
    MPS = "mps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of one GPU: thousandths of its compute, and bytes of its memory (0: not asked for)."""

    milli: int
    memory_bytes: int = 0
    mode: ShareMode = ShareMode.TIME_SLICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Every `size` pods, in rank order, lie in one domain of level `within`."""

    within: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyRequest:
    """Keep the gang inside one domain of level `within`; `required` False is a wish. "cluster" asks for nothing.

    `slices` are always required, the widest first: slices of 48 in a zone, each of three slices of 16 in a rack.
    """

    within: str
    required: bool = True
    slices: tuple[Slices, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`replicas` equal pods, each with `gpus` whole GPUs, or one `share` of a GPU, or one instance of profile `mig`.

    `gpu_model` (``A100|H100`` is either) and `gpu_memory_bytes` say which devices are acceptable; for a MIG profile,
    which it may be cut from. As many replicas as there is room for are placed, never fewer than `min_replicas` (None:
    all; 0: beside a role that must be there, it may be absent). `nics_per_gpu` are reserved with each GPU, near it.
    `topology` holds for the pods of this role beside what the gang asks for. `spread` is a level over whose domains the
    pods are spread evenly ("" for nothing): the fullest has at most one pod more than the emptiest usable one.
    """

    name: str
    replicas: int
    gpus: int = 0
    gpu_model: str = ""
    gpu_memory_bytes: int = 0
    pod: PodShape = field(default_factory=PodShape)
    share: Share | None = None
    mig: str = ""
    min_replicas: int | None = None
    nics_per_gpu: int = 0
    topology: TopologyRequest | None = None
    spread: str = ""

    @property
    def fewest(self) -> int:
        """Replicas below which the role is not placed at all."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU that one replica is charged for."""
        if self.share is not None:
            return self.share.milli
        return mig_milli(self.mig) if self.mig else 1000 * self.gpus


MIG_PARTS = 7
"""Compute slices of a GPU that can be cut into instances."""


def mig_milli(profile: str) -> int:
    """Return what an instance of a profile (``3g.40gb``) takes of its GPU, in thousandths, rounded up.

    The leading number counts compute slices. A profile without one is charged as a whole GPU.
    """
    parts = profile.partition("g.")[0]
    return min(1000, -(-1000 * int(parts) // MIG_PARTS)) if parts.isdecimal() else 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How a program saves its state: every `interval_ms` by itself (0: it does not say), or on notice before a stop.

    It hears of a notice through a file that it watches (`watches`) and goes on running, or while its pods are being
    deleted: the kubelet runs `command` or sends `signal`. `pause_ms` is how long it does no work while it saves,
    `size_bytes` what it writes (0: not declared), `restart_ms` what starting again from a saved state costs; measured
    values replace these. `path` is where it writes. `reshards`: another number of members than wrote it may read it.
    `reads` are the formats that the program can resume from, empty for any. `unreadable` is never declared: the format
    of the last checkpoint that counts, where it is none of these.
    """

    interval_ms: int = 0
    pause_ms: int = 0
    size_bytes: int = 0
    restart_ms: int = 60_000
    command: tuple[str, ...] = ()
    signal: str = ""
    watches: bool = False
    path: str = ""
    reshards: bool = False
    reads: tuple[str, ...] = ()
    unreadable: str = ""

    @property
    def on_notice(self) -> bool:
        """Whether it can be asked to save before it is stopped."""
        return bool(self.watches or self.command or self.signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """A GangJob as the scheduler sees it, after the API server's dry run of its templates.

    `preemptible` False means neither preemption nor reclaim may stop it. `success_roles` empty means all roles;
    `success_any` finishes the gang when any of their members has succeeded. `mixed_models` allows members of one role
    GPUs of different models; else all have one, because the slowest sets the pace. `checkpoint` None: it saves nothing.
    `grace_ms` is how long a stop waits for a checkpoint once the program was told, 0 for not at all. A gang hangs whose
    heartbeat has not moved for `heartbeat_ms`. The GangJob is deleted `ttl_ms` after its end. `user` is who
    submitted it, "" where that is not known, `groups` those they are in. `wants_promise`
    asks for a promised latest start, of which its queue has so many. How long it will run is learned from gangs of the
    same user and `template`. While a gang that is `resizable` runs, members of a role above its fewest may leave it,
    and others join. Times are UTC ms, durations ms.
    """

    id: GangId
    namespace: str
    name: str
    queue: str
    roles: tuple[Role, ...]
    priority: int = 0
    priority_class: str = ""
    service_class: ServiceClass = ServiceClass.TRAINING
    topology: TopologyRequest | None = None
    submitted_ms: int = 0
    suspended: bool = False
    duration_ms: int | None = None
    overrun: Overrun = Overrun.STOP
    start_deadline_ms: int = 600_000
    preemptible: bool = True
    max_restarts: int = 3
    restart_on_failure: bool = True
    success_any: bool = False
    success_roles: tuple[str, ...] = ()
    mixed_models: bool = False
    isolation: Isolation = Isolation.SHARED
    checkpoint: Checkpoint | None = None
    grace_ms: int = 0
    retries: Retries = NO_RETRIES
    heartbeat_ms: int | None = None
    ttl_ms: int | None = None
    user: str = ""
    groups: tuple[str, ...] = ()
    deadline_ms: int | None = None
    wants_promise: bool = False
    template: str = ""
    resizable: bool = False

    @property
    def is_spare(self) -> bool:
        """Whether it is spare work from the beginning."""
        return self.service_class is ServiceClass.OPPORTUNISTIC

    def as_spare(self) -> Gang:
        """Return it as spare work, which is the first to go."""
        return replace(self, service_class=ServiceClass.OPPORTUNISTIC, preemptible=True)

    @property
    def is_elastic(self) -> bool:
        """Whether members may leave and join while it runs."""
        return self.resizable and any(role.fewest < role.replicas for role in self.roles)

    @property
    def gpus(self) -> int:
        """GPUs of all members together."""
        return sum(role.replicas * role.gpus for role in self.roles)

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU that the gang is charged for with all replicas of every role."""
        return sum(role.replicas * role.gpu_milli for role in self.roles)

    @property
    def members(self) -> int:
        """Pods of all roles together."""
        return sum(role.replicas for role in self.roles)

    @property
    def full_name(self) -> str:
        """``namespace/name``, for people and logs."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One pod of a placement: which replica, on which node, with which devices. `rank` is its place in rank order.

    `share_milli` is the part of its one device that a share or a MIG instance is charged for, in thousandths of a GPU;
    0 means that all its `devices` are whole. `mig_start` is the unit of the device's grid where its instance begins, -1
    for none. `cpus` is a CPU list of the NUMA nodes near its GPUs, "" where none is chosen; `nics` are reserved for it.
    """

    role: str
    index: int
    rank: int
    node: NodeName
    devices: tuple[str, ...] = ()
    share_milli: int = 0
    mig_start: int = -1
    cpus: str = ""
    nics: tuple[str, ...] = ()

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU that the member is charged for."""
        return self.share_milli or 1000 * len(self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Exact devices for every member, in rank order.

    `level`/`domain` is the tightest domain that holds all members (``cluster``/"" when none does). `pace_bytes_per_s`
    is the slowest known edge that any two whole devices of the gang must cross, on a node or between nodes, 0 where
    there is none. `span` is how many domains of each level the members lie in, by name of level: (("island", 1),
    ("node", 2)). `penalties` say in sentences what is worse than it could be. `slowed_permille` is the part of its
    running time that the gang is estimated to lose because it was not placed as on an idle fleet.
    """

    members: tuple[Member, ...]
    level: str = "cluster"
    domain: str = ""
    pace_bytes_per_s: int = 0
    span: tuple[tuple[str, int], ...] = ()
    penalties: tuple[str, ...] = ()
    slowed_permille: int = 0

    @property
    def gpus(self) -> int:
        """Devices of all members together."""
        return sum(len(member.devices) for member in self.members)

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU that all members together are charged for."""
        return sum(member.gpu_milli for member in self.members)


class Tier(StrEnum):
    """How a queue holds a device: by its guarantee, beyond it, by a reservation, or as spare that goes first."""

    IN_QUOTA = "in-quota"
    BORROWED = "borrowed"
    RESERVED = "reserved"
    OPPORTUNISTIC = "opportunistic"
