"""Every 'why not', on one page: the token for status and metrics, the sentence for people, and what to do.

A refusal is a value, not an exception. Sentences may name the asker's own numbers, pools and classes, never another
tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fairlead.model import admission_words as words
from fairlead.model.reason_kinds import Kind as Kind


class Reason(Enum):
    """name -> (token, kind, sentence, mend)."""

    # what must change first
    INVALID_SPEC = ("InvalidSpec", Kind.INVALID, "{field}: {problem}", "{mend}")
    UNSUPPORTED_FIELD = ("UnsupportedField", Kind.INVALID, "{field} is not supported by this version", "{mend}")
    TEMPLATE_REFUSED = (
        "TemplateRefused",
        Kind.INVALID,
        "the API server refuses a pod of role {role}: {problem}",
        "mend spec.roles[{role}].template or ask for the quota or policy it names",
    )
    UNKNOWN_QUEUE = (
        "UnknownQueue",
        Kind.INVALID,
        "spec.queue: there is no queue {queue!r}",
        "create the job anew with a queue that lists namespace {namespace}",
    )
    NAMESPACE_NOT_ALLOWED = (
        "NamespaceNotAllowed",
        Kind.INVALID,
        "spec.queue: queue {queue} does not list namespace {namespace}",
        "ask its owner to add {namespace} to spec.namespaces, or use another queue",
    )
    PRIORITY_CLASS_NOT_ALLOWED = (
        "PriorityClassNotAllowed",
        Kind.INVALID,
        "spec.priorityClassName: queue {queue} does not list {name!r}",
        "use one of: {allowed}",
    )
    UNKNOWN_PRIORITY_CLASS = (
        "UnknownPriorityClass",
        Kind.INVALID,
        "spec.priorityClassName: there is no PriorityClass {name!r}",
        "create it or name another",
    )
    SERVICE_CLASS_NOT_ALLOWED = (
        "ServiceClassNotAllowed",
        Kind.INVALID,
        "spec.serviceClass: queue {queue} does not list {name}",
        "use one of: {allowed}",
    )
    DEADLINE_PASSED = words.DEADLINE_PASSED
    ABOVE_CAP = words.ABOVE_CAP
    SHARE_MEMORY_UNENFORCED = (
        "ShareMemoryUnenforced",
        Kind.INVALID,
        "role {role}: nothing keeps a time slice within {memory_mib} MiB of memory",
        "drop share.memory, use share.mode mps, which enforces it, or ask for a MIG instance",
    )
    SHARE_BREAKS_LATENCY = (
        "ShareBreaksLatency",
        Kind.INVALID,
        "role {role}: time slices have no stable latency, so service class {service_class} gets none",
        "ask for whole GPUs or a MIG instance, or for a pool that allows serving on time slices",
    )
    MIG_ONE_INSTANCE = (
        "MigOneInstance",
        Kind.INVALID,
        "role {role}: a pod gets one MIG instance and nothing beside it; it also asks for {beside}",
        "ask for whole GPUs, or for more replicas with one instance each: instances have no path to each other",
    )
    MIG_HAS_NO_ISLAND = (
        "MigHasNoIsland",
        Kind.INVALID,
        "role {role}: MIG instances have no NVLink, so they are in no island together",
        "remove island from the topology, or ask for whole GPUs",
    )
    RESERVATION_OVERLAPS = (
        "ReservationOverlaps",
        Kind.INVALID,
        "{field}: reservation {other} has some of these nodes at the same time",
        "move one of them, or name other nodes",
    )
    RESERVATION_TOO_BIG = ("ReservationTooBig", Kind.INVALID, "{field}: {problem}", "name other nodes, or fewer")
    PROMISE_NOT_ALLOWED = (
        "PromiseNotAllowed",
        Kind.INVALID,
        "spec.promise: queue {queue} promises no job a latest start",
        "remove spec.promise, or ask for spec.promise.jobs in the queue",
    )
    # never as asked
    LEVELS_DO_NOT_NEST = (
        "LevelsDoNotNest",
        Kind.NEVER,
        "spec.topology: the levels {levels} do not lie one inside another in this cluster",
        "name levels that nest",
    )
    SHARING_NOT_ALLOWED = (
        "SharingNotAllowed",
        Kind.NEVER,
        "role {role}: no pool that serves {service_class} allows {mode}; allowed there: {allowed}",
        "ask for whole GPUs, or ask an administrator to add {mode} to a Pool's sharing",
    )
    NO_SUCH_PARTITION = (
        "NoSuchPartition",
        Kind.NEVER,
        "role {role}: no GPU {what} can be cut into {profile}; there is: {known}",
        "use one of these profiles, or ask for whole GPUs",
    )
    SHARE_ON_PARTITIONED = (
        "ShareOnPartitioned",
        Kind.NEVER,
        "role {role}: all {gpus} GPUs {what} are in MIG mode, where no share is given",
        "ask for a MIG instance, or widen devices.model",
    )
    SHARE_TOO_BIG = (
        "ShareTooBig",
        Kind.NEVER,
        "role {role}: a share of {memory_mib} MiB fits no GPU {what}; the largest has {best_mib} MiB",
        "lower share.memory or ask for whole GPUs",
    )
    UNKNOWN_LEVEL = (
        "UnknownTopologyLevel",
        Kind.NEVER,
        "spec.topology.within: no node says which {level} it is in",
        "use one of: {known}",
    )
    NO_SUCH_GPU = (
        "NoSuchGpu",
        Kind.NEVER,
        "role {role}: no node has {gpus} GPUs {what} together, free or not; the largest has {best}",
        "lower devices.count or mend devices.model or devices.memory",
    )
    TOO_BIG = (
        "NeverFits",
        Kind.NEVER,
        "the gang needs {need} GPUs in one {level}; with everything free the largest holds {best} of {members} members",
        "ask for fewer replicas, a wider spec.topology.within, or spec.mixedModels where one GPU model is too few",
    )
    ABOVE_LIMIT = (
        "AboveQueueLimit",
        Kind.NEVER,
        "the gang needs {need} {what}; queue {queue} is limited to {limit}",
        "ask for less or for a higher limit",
    )
    CHECKPOINT_UNREADABLE = words.CHECKPOINT_UNREADABLE
    NO_NODE_MATCHES = (
        "NoNodeMatches",
        Kind.NEVER,
        "role {role}: no node can ever take its pod ({detail})",
        "mend the template's requests, selectors, affinity or tolerations",
    )
    # not now
    SUSPENDED = ("Suspended", Kind.NOT_NOW, "spec.suspend is true", "set it to false")
    AWAITING_CYCLE = ("AwaitingDecision", Kind.NOT_NOW, "not yet looked at", "wait a moment")
    QUEUE_AT_LIMIT = (
        "QueueAtLimit",
        Kind.NOT_NOW,
        "queue {queue} holds {used} of its limit of {limit} {what}; the gang needs {need}",
        "wait for your own jobs to end, or ask for a higher limit",
    )
    BORROW_LIMIT = (
        "BorrowLimitReached",
        Kind.NOT_NOW,
        "queue {queue} holds {used} {what} and borrows no more than makes {limit}; the gang needs {need}",
        "wait for your own jobs to end, or ask for a higher guarantee or borrowLimit",
    )
    NOT_LENT = words.NOT_LENT
    DEADLINE_BEHIND_DEMAND = words.DEADLINE_BEHIND_DEMAND
    PEAK_HOLDS_BACK = words.PEAK_HOLDS_BACK
    BUDGET_EXHAUSTED = words.BUDGET_EXHAUSTED
    BUDGET_PACED = words.BUDGET_PACED
    BUDGET_HELD = words.BUDGET_HELD
    BUDGET_NOT_RENEWED = words.BUDGET_NOT_RENEWED
    COST_ANOMALY = words.COST_ANOMALY
    BOOKS_FULL = words.BOOKS_FULL
    QUEUE_FULL = words.QUEUE_FULL
    SUBMIT_RATE = words.SUBMIT_RATE
    QUEUE_MISPLACED = words.QUEUE_MISPLACED
    QUEUE_AT_MAX_JOBS = words.QUEUE_AT_MAX_JOBS
    USER_AT_CAP = words.USER_AT_CAP
    NOT_ENOUGH_FREE = (
        "NotEnoughFree",
        Kind.NOT_NOW,
        "needs room for {members} members; there is room for {best} now",
        "wait, or ask for less",
    )
    NO_DOMAIN_FITS = (
        "NoDomainFits",
        Kind.NOT_NOW,
        "no {level} has room for {members} members; the best, {domain}, has room for {best}",
        "wait, or widen spec.topology.within",
    )
    SEARCH_ENDED = (
        "SearchEnded",
        Kind.NOT_NOW,
        "the search for {members} places ended after {steps} attempts; there may be room that it did not find",
        "it is searched for again when something is freed; fewer roles or wishes are answered sooner",
    )
    NODES_FILTERED = (
        "NodesFiltered",
        Kind.NOT_NOW,
        "role {role}: {detail}",
        "wait, or mend what the template asks of a node",
    )
    PARTITION_NOT_CUT = (
        "PartitionNotCut",
        Kind.NOT_NOW,
        "role {role}: no GPU is cut into {profile} now; {gpus} could be, cut are: {cut}",
        "wait until an administrator cuts one, or use one of these",
    )
    ISOLATION_KEEPS_APART = (
        "IsolationKeepsApart",
        Kind.NOT_NOW,
        "isolation strict keeps it from every device that another tenant is on",
        "wait for a device of its own, or use isolation shared",
    )
    WAITING_FOR_VICTIMS = (
        "WaitingForVictims",
        Kind.NOT_NOW,
        "room is being made: {count} jobs are stopping on {domain}",
        "wait until they have stopped",
    )
    VICTIMS_PROTECTED = (
        "VictimsProtected",
        Kind.NOT_NOW,
        "jobs that could make room began or were stopped a short while ago, or their queue has lost enough for now",
        "it is looked at again as soon as one may be taken from",
    )
    TOO_MANY_STOPS = ("TooManyStops", Kind.NOT_NOW, "room takes more stops than the {limit} of one cycle", "wait")
    ROOM_SEARCH_ENDED = (
        "RoomSearchEnded",
        Kind.NOT_NOW,
        "the search for jobs that make room for it was cut off; there may be room that it did not find",
        "it goes on when something changes",
    )
    BUDGET_REFUSES = ("DisruptionBudget", Kind.NOT_NOW, "a disruption budget forbids to stop it: {detail}", "none")
    HELD_FOR_CLASS = (
        "HeldForClass",
        Kind.NOT_NOW,
        "pool {pool} holds {gpus} GPUs for class {service_class} {when}",
        "wait, or set a spec.duration that ends before; batch jobs that may be stopped are lent them outside of that",
    )
    SPARE_KEPT = (
        "SpareKept",
        Kind.NOT_NOW,
        "pool {pool} keeps {what} free for {whom}",
        "wait until more is free than that",
    )
    ABOVE_CEILING = (
        "AboveCeiling",
        Kind.NOT_NOW,
        "pool {pool} is used up to its ceiling of {percent} %; what is above is for class {service_class}",
        "wait, or use another pool",
    )
    PLACEMENT_DISABLED = (
        "PlacementSwitchedOff",
        Kind.NOT_NOW,
        "an administrator has switched placement off",
        "wait until it is switched on",
    )
    KEPT_FOR_PROMISE = (
        "KeptForPromise",
        Kind.NOT_NOW,
        "what would fit is promised to others from {at} on; a job goes first only if it is gone by then",
        "declare a spec.duration that ends before, allow preemption, or wait",
    )
    RESERVED = (
        "Reserved",
        Kind.NOT_NOW,
        "what would fit is reserved from {at} on; a job goes there first only if it is gone by then",
        "declare a spec.duration that ends before, allow preemption, or wait",
    )
    # why an attempt or a promise ended
    RESERVATION_BEGINS = ("ReservationBegins", Kind.ENDED, "its node is reserved and wanted", "it is queued again")
    HOLE_ENDED = ("HoleEnded", Kind.ENDED, "its devices were promised to others from now on", "it is queued again")
    PROMISED_NODE_LOST = ("PromisedNodeLost", Kind.ENDED, "{node}, or a device on it, is lost", "a new start is found")
    PROMISED_NODE_WITHDRAWN = (
        "PromisedNodeWithdrawn",
        Kind.ENDED,
        "an administrator has cordoned node {node}, or given it other rules",
        "another start is looked for",
    )
    PROMISE_FORBIDDEN = words.PROMISE_FORBIDDEN
    PROMISE_LATE = ("PromiseLate", Kind.ENDED, "what was promised for {at} was not free then", "another start is found")
    RECLAIMED = (
        "Reclaimed",
        Kind.ENDED,
        "{gpus} borrowed GPUs were reclaimed by a queue below its entitlement",
        "the job is back in its queue; ask for more guaranteed GPUs to be safe from this",
    )
    OVER_LIMIT = (
        "OverLimit",
        Kind.ENDED,
        "queue {queue} held {used} {what} and may hold {limit} since its limit was lowered",
        "the job is back in its queue; ask for a higher limit",
    )
    PREEMPTED = (
        "Preempted",
        Kind.ENDED,
        "a job of higher priority, in its queue or in its scope of priority, needed its devices",
        "the job is back in its queue",
    )
    LENT_RETURNED = (
        "LentReturned",
        Kind.ENDED,
        "pool {pool} lent it GPUs of class {service_class} and has them back",
        "the job is back in its queue; a spec.duration that ends before the pool needs them keeps it from this",
    )
    START_DEADLINE = (
        "StartDeadlineExceeded",
        Kind.ENDED,
        "{running} of {members} members were running after {limit}",
        "look at the pods' events; raise spec.startDeadline if images are large",
    )
    MEMBER_FAILED = ("MemberFailed", Kind.ENDED, "member {member} failed: {detail}", "look at its logs")
    NODE_LOST = ("NodeLost", Kind.ENDED, "node {node} is lost", "the job restarts elsewhere")
    IDLE = words.IDLE
    OVERRUN = ("DurationExceeded", Kind.ENDED, "it ran for its whole spec.duration", "raise spec.duration")
    DELETED = ("Deleted", Kind.ENDED, "the GangJob is being deleted", "none")
    FINISHED = ("Finished", Kind.ENDED, "its members have succeeded", "none")
    RESTARTS_EXHAUSTED = (
        "RestartsExhausted",
        Kind.ENDED,
        "it failed {restarts} times and spec.failurePolicy.maxRestarts is {limit}; last: {detail}",
        "mend the job and create it anew",
    )
    RETRIES_EXHAUSTED = (
        "RetriesExhausted",
        Kind.ENDED,
        "it failed {count} times and spec.retryPolicy.{failure} is {limit}; last: {detail}",
        "mend the job and create it anew",
    )
    HUNG = (
        "Hung",
        Kind.ENDED,
        "its heartbeat has not moved for {limit}",
        "look at its logs; raise spec.heartbeat.timeout if it is only slow",
    )
    PLACE_CONFLICT = (
        "PlacementConflict",
        Kind.ENDED,
        "the cluster changed under the placement: {detail}",
        "it is tried again by itself",
    )
    RESOLVED_DOUBLE = (
        "DoubleAllocation",
        Kind.ENDED,
        "a device of this gang was found in two claims",
        "the job is back in its queue",
    )

    def __init__(self, token: str, kind: Kind, sentence: str, mend: str) -> None:
        """Spread the tuple into fields."""
        self.token = token
        self.kind = kind
        self.sentence = sentence
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason with its numbers. `details` is sorted, so equal refusals compare alike."""

    reason: Reason
    details: tuple[tuple[str, str | int], ...] = ()

    @property
    def retry_at_ms(self) -> int | None:
        """From when on time alone may change it, UTC ms; None where only a fact can."""
        return next((int(value) for name, value in self.details if name == RETRY), None)

    @property
    def message(self) -> str:
        """The sentence and the mend, filled in."""
        values = dict(self.details)
        sentence, mend = self.reason.sentence.format_map(values), self.reason.mend.format_map(values)
        return sentence if mend in ("none", "") else f"{sentence}; {mend}"


RETRY = "retry_at_ms"
"""The detail that says from when on, UTC ms, another answer is possible though nothing else changes."""


def refuse(reason: Reason, **details: str | int) -> Refusal:
    """Build a refusal; the keywords fill the reason's sentence."""
    return Refusal(reason, tuple(sorted(details.items())))


BY_TOKEN: dict[str, Reason] = {reason.token: reason for reason in Reason}
