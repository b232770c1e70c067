"""What a new leader finds: pods and claims of attempts, read back into facts before anything is decided. Pure.

Theory of operation. A claim's allocation is the truth of what is held; GangJob.status.allocation is the record of
what was intended; the pods say how far it came. An attempt whose pods are all bound goes on. One that is half bound is
undone whole, as it would have been without the crash. One that was on its way out goes on leaving. A device found in
two claims is settled first: the younger claim's gang goes, or ours where the other is somebody else's. Objects of a
GangJob that is gone, or of an attempt that was left on a dead node, are taken away and let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fairlead.errors import UnreadableInput
from fairlead.model.events import (
    Event,
    MemberEnded,
    MemberReleased,
    Nominated,
    NoticeIntended,
    Recovered,
    Remembered,
    StopIntended,
)
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.allocations import read_member, read_placement, read_ranks
from fairlead_operator.claim_index import Device, devices_of
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.device_objects import Claim
from fairlead_operator.found import Found, all_running_ms, notice_left
from fairlead_operator.member_facts import member_of
from fairlead_operator.notices import cause_of_notice
from fairlead_operator.objects import Meta, Pod, time_ms
from fairlead_operator.pods import (
    ATTEMPT,
    DEVICES,
    GANG,
    GANG_UID,
    INDEX,
    PLACED_AT,
    QUEUE,
    RANK,
    ROLE,
    TIER,
    Attempt,
    JobSheet,
    read_allocation,
    sheet_of,
)
from fairlead_operator.recover_promises import restore_promise
from fairlead_operator.saving_status import failures_of, saved_of
from fairlead_operator.trips import Trip, trip_of

_FINAL = ("Succeeded", "Failed")
_DONE = ("Succeeded", "Failed")


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What follows. `facts` are applied in order after nodes, queues, pools and gangs; then `undo` and `stop` are done.

    `trips` are the attempts that state will know. One in `undo` ends with `PlaceFailed`; one in `stop` says whether
    pods that have ended are kept, and may be an attempt that state does not know (left on a dead node). Those in
    `notices` were asked to save and are asked again. Of one in `shrink` those in its `left` are taken away, and the
    others go on.
    """

    facts: list[Event] = field(default_factory=list[Event])
    trips: list[Trip] = field(default_factory=list[Trip])
    undo: list[Trip] = field(default_factory=list[Trip])
    stop: list[tuple[Trip, bool]] = field(default_factory=list[tuple[Trip, bool]])
    notices: list[tuple[Trip, NoticeIntended]] = field(default_factory=list[tuple[Trip, NoticeIntended]])
    shrink: list[Trip] = field(default_factory=list[Trip])


def recover(jobs: Sequence[GangJob], pods: Iterable[Pod], claims: Iterable[Claim], now_ms: int) -> Recovery:
    """Return what the cluster's objects say of earlier attempts, newest attempt of each gang first."""
    claims = list(claims)
    by_uid = {job.metadata.uid: job for job in jobs}
    groups = _group(pods, claims, by_uid)
    losers = _losers(claims)
    recovery = Recovery(facts=[_remember(job, now_ms) for job in jobs if job.status.phase not in _FINAL])
    current: set[str] = set()
    for key in sorted(groups, key=lambda key: (key[0], -key[1])):
        found, job = groups[key], by_uid.get(key[0])
        newest = key[0] not in current and not _superseded(key[1], job)
        if _settle(recovery, found, job, newest=newest, doubled=key in losers, now_ms=now_ms):
            current.add(key[0])
    for job in jobs:
        _restore_nomination(recovery, job, by_uid, now_ms)
        restore_promise(recovery.facts, job, now_ms)
    return recovery


def _superseded(number: int, job: GangJob | None) -> bool:
    """Whether the status tells of a later attempt, of which nothing may be left."""
    if job is None:
        return False
    allocation = job.status.allocation
    return number < max(job.status.attempt, allocation.attempt if allocation else 0)


def _group(pods: Iterable[Pod], claims: Iterable[Claim], jobs: Mapping[str, GangJob]) -> dict[tuple[str, int], Found]:
    """Sort our objects by gang and attempt. Labels prove nothing: the owner, and its namespace, must fit as well."""
    groups: dict[tuple[str, int], Found] = {}

    def place(meta: Meta) -> tuple[Found, int] | None:
        member = member_of(meta)
        if member is None:
            return None
        gang, attempt, rank = member
        job = jobs.get(gang)
        if job is not None and job.metadata.namespace != meta.namespace:
            return None
        return groups.setdefault((gang, attempt), Found(gang, attempt)), rank

    for pod in pods:
        if spot := place(pod.metadata):
            spot[0].pods[spot[1]] = pod
    for claim in claims:
        if spot := place(claim.metadata):
            spot[0].claims[spot[1]] = claim
    return groups


def _losers(claims: Sequence[Claim]) -> set[tuple[str, int]]:
    """Return attempts of ours that must give way because a device of theirs is in a second claim."""
    holders: dict[Device, list[Claim]] = {}
    for claim in claims:
        for device in devices_of(claim):
            holders.setdefault(device, []).append(claim)
    losers: set[tuple[str, int]] = set()
    for device in sorted(holders):
        rivals = sorted(holders[device], key=_age)
        ours = [claim for claim in rivals if claim.metadata.labels.get(GANG_UID)]
        giving_way = ours if len(ours) < len(rivals) else ours[1:]  # a foreigner's stays: it does not ask us
        for claim in giving_way if len(rivals) > 1 else []:
            labels = claim.metadata.labels
            losers.add((labels[GANG_UID], int(labels.get(ATTEMPT) or 0)))
    return losers


def _age(claim: Claim) -> tuple[int, int, str]:
    """Sort claims oldest first: by time, then attempt, then uid."""
    attempt = claim.metadata.labels.get(ATTEMPT, "0")
    return (time_ms(claim.metadata.creation_timestamp), int(attempt) if attempt.isdecimal() else 0, claim.metadata.uid)


def _settle(recovery: Recovery, found: Found, job: GangJob | None, *, newest: bool, doubled: bool, now_ms: int) -> bool:
    """Decide what becomes of one attempt; return whether state hears of it.

    An older one that still holds something was left on a dead node: state is told after the newest, keeps its devices
    from others and charges nobody.
    """
    sheet, attempt = _sheet(found, job), _attempt(found, job)
    trip = trip_of(sheet, attempt)
    for step in trip.steps:
        pod = found.pods.get(step.member.rank)
        step.pod_uid = pod.metadata.uid if pod else ""
        step.binding_tried = bool(pod and pod.spec.node_name)
    trip.left = {rank for rank in _left(found, job) if rank < len(trip.steps)}
    holding = found.holding(attempt.placement)
    lives = job is not None and not job.metadata.deletion_timestamp and job.status.phase not in _FINAL
    staying = [rank for rank in range(len(trip.steps)) if rank not in trip.left]
    bound = all(rank in found.pods and found.pods[rank].spec.node_name for rank in staying)
    pods = [found.pods[rank] for rank in staying if rank in found.pods]
    dying = any(pod.metadata.deletion_timestamp for pod in pods)
    notice = notice_left(found, job, now_ms) if bound and not dying else None
    # A status of the attempt before may have come late, after this one's allocation: it says nothing of this one.
    stopping = job is not None and job.status.phase == "Stopping" and job.status.attempt == found.number
    leaving = dying or (stopping and notice is None)
    told = bool(holding) or (newest and lives)
    if told:
        recovery.trips.append(trip)
        recovery.facts.append(_recovered(found, trip, job, holding, bound=bound or leaving, now_ms=now_ms))
    _say_released(recovery, found, holding, now_ms)
    if not newest or not lives:
        recovery.stop.append((trip, job is not None and job.status.phase in _FINAL))
        if newest and holding:
            recovery.facts.append(_stopping(trip, refuse(Reason.DELETED), requeue=False, now_ms=now_ms))
    elif doubled:
        recovery.facts.append(_stopping(trip, refuse(Reason.RESOLVED_DOUBLE), requeue=True, now_ms=now_ms))
        recovery.stop.append((trip, False))
    elif leaving:
        cause, requeue = _why_leaving(job)
        recovery.facts.append(_stopping(trip, cause, requeue=requeue, now_ms=now_ms))
        recovery.stop.append((trip, False))
    elif not bound:
        recovery.undo.append(trip)
    elif notice is not None:
        recovery.facts.append(notice)
        recovery.notices.append((trip, notice))
    else:
        if not trip.left.isdisjoint(holding):
            recovery.shrink.append(trip)
        for rank in staying:
            pod = found.pods[rank]
            if pod.status.phase in _DONE:
                recovery.facts.append(_ended(found, rank, pod, now_ms))
    return told


def _sheet(found: Found, job: GangJob | None) -> JobSheet:
    """Return the GangJob, or what its objects' labels still say of it."""
    if job is not None:
        try:
            return sheet_of(job)
        except UnreadableInput:
            pass  # its templates are not needed to take it away
    meta = found.metas()[0]
    return JobSheet(
        uid=found.gang,
        namespace=meta.namespace,
        name=meta.labels.get(GANG, ""),
        queue=meta.labels.get(QUEUE, ""),
        templates={},
    )


def _attempt(found: Found, job: GangJob | None) -> Attempt:
    """Return the attempt from status.allocation, else from the labels and annotations of its objects."""
    meta = found.metas()[0]
    tier_text, placed_text = meta.annotations.get(TIER, ""), meta.annotations.get(PLACED_AT, "")
    tier = Tier(tier_text) if tier_text in set(Tier) else Tier.IN_QUOTA
    recorded = job.status.allocation if job is not None else None
    if recorded is not None and recorded.attempt == found.number:
        try:
            return read_allocation(recorded, tier)
        except UnreadableInput:
            pass  # somebody edited it; the objects say the same
    members: dict[int, Member] = {}
    for one in found.metas():
        labels, text = one.labels, one.annotations.get(DEVICES, "")
        node, _, held = text.partition("=")
        rank, index = int(labels[RANK]), labels.get(INDEX, "")
        number = int(index) if index.isdecimal() else 0
        members[rank] = read_member(held, labels.get(ROLE, ""), number, rank, NodeName(node))
    nobody = NodeName("")
    line = [
        members.get(rank) or Member(role="", index=rank, rank=rank, node=nobody) for rank in range(max(members) + 1)
    ]
    placed_at_ms = int(placed_text) if placed_text.isdecimal() else time_ms(meta.creation_timestamp)
    return Attempt(number=found.number, placement=Placement(members=tuple(line)), tier=tier, placed_at_ms=placed_at_ms)


def _left(found: Found, job: GangJob | None) -> list[int]:
    """Return the ranks that had left the attempt, or were to."""
    recorded = job.status.allocation if job is not None else None
    return recorded.left if recorded is not None and recorded.attempt == found.number else []


def _recovered(
    found: Found, trip: Trip, job: GangJob | None, holding: tuple[int, ...], *, bound: bool, now_ms: int
) -> Recovered:
    """Build the fact that brings an attempt back into state."""
    attempt = trip.attempt
    running = tuple(sorted(r for r, pod in found.pods.items() if pod.status.phase == "Running"))
    saved = saved_of(job.status) if job is not None else None
    return Recovered(
        gang=found.gang,
        attempt=found.number,
        placement=attempt.placement,
        tier=attempt.tier,
        since_ms=attempt.placed_at_ms,
        bound=bound,
        holding=holding,
        running=running,
        at_ms=now_ms,
        restarts=job.status.restarts if job else 0,
        all_running_ms=all_running_ms(found, attempt, trip.left),
        saved_ms=saved.began_ms if saved is not None and saved.attempt == found.number else None,
        left=tuple(sorted(trip.left)),
    )


def _say_released(recovery: Recovery, found: Found, holding: tuple[int, ...], now_ms: int) -> None:
    """Say again which members hold nothing any more, so that their closing entries are made and they are let go."""
    for rank in sorted({*found.pods, *found.claims} - {*holding}):
        pod = found.pods.get(rank)
        over = pod is None or pod.status.phase in _DONE or pod.metadata.deletion_timestamp is not None
        if over:
            recovery.facts.append(
                MemberReleased(gang=found.gang, attempt=found.number, rank=rank, at_ms=now_ms, estimated_ms=0)
            )


def _stopping(trip: Trip, cause: Refusal, *, requeue: bool, now_ms: int) -> StopIntended:
    """Build the fact that an attempt is on its way out."""
    return StopIntended(gang=trip.gang, attempt=trip.attempt.number, cause=cause, requeue=requeue, at_ms=now_ms)


def _why_leaving(job: GangJob | None) -> tuple[Refusal, bool]:
    """Return why an attempt was being stopped when the last leader ended, and whether the gang is requeued."""
    assert job is not None
    if (kept := job.status.notice) is not None and kept.attempt == job.status.attempt:
        return cause_of_notice(kept), kept.requeue
    if job.status.reason == Reason.OVERRUN.token and job.spec.overrun == "stop":
        return refuse(Reason.OVERRUN), False
    if job.status.reason == Reason.IDLE.token:
        return refuse(Reason.IDLE, queue=job.spec.queue, idle="too long"), False
    if job.status.reason == Reason.FINISHED.token:
        return refuse(Reason.FINISHED), False
    if job.status.reason == Reason.RESTARTS_EXHAUSTED.token:
        limit = job.spec.failure_policy.max_restarts
        details: dict[str, str | int] = {"restarts": job.status.restarts, "limit": limit, "detail": "see its events"}
        return refuse(Reason.RESTARTS_EXHAUSTED, **details), False
    return refuse(Reason.PLACE_CONFLICT, detail="it was being stopped when the scheduler restarted"), True


def _ended(found: Found, rank: int, pod: Pod, now_ms: int) -> MemberEnded:
    """Build the fact that a member has come to its end."""
    return MemberEnded(
        gang=found.gang,
        attempt=found.number,
        rank=rank,
        succeeded=pod.status.phase == "Succeeded",
        at_ms=now_ms,
        detail=pod.status.message or pod.status.reason,
    )


def _remember(job: GangJob, now_ms: int) -> Remembered:
    """Bring back what a GangJob's status says of its past, so that no attempt number is used twice."""
    status, allocation = job.status, job.status.allocation
    past_gpu_ms = status.usage.gpu_ms if status.usage else 0
    if allocation is not None and status.usage is not None:  # the current attempt is counted anew
        held_ms = max(0, time_ms(status.usage.as_of) - allocation.placed_at_ms)
        past_gpu_ms = max(0, past_gpu_ms - held_ms * _held_milli(job) // 1000)
    return Remembered(
        gang=GangId(job.metadata.uid),
        attempts=max(status.attempt, allocation.attempt if allocation else 0),
        restarts=status.restarts,
        at_ms=now_ms,
        past_gpu_ms=past_gpu_ms,
        lost_gpu_ms=status.lost_gpu_ms,
        started_ms=status.started_at_ms,
        finished_ms=status.finished_at_ms,
        failures=failures_of(status),
        saved=saved_of(status),
    )


def _held_milli(job: GangJob) -> int:
    """Return the thousandths of GPUs that the recorded attempt holds, which may be fewer than were asked for."""
    assert job.status.allocation is not None
    try:
        members, left = read_placement(job.status.allocation).members, set(job.status.allocation.left)
        return sum(member.gpu_milli for member in members if member.rank not in left)
    except UnreadableInput:
        return 1000 * (job.status.gpus or 0)


def _restore_nomination(recovery: Recovery, job: GangJob, jobs: Mapping[str, GangJob], now_ms: int) -> None:
    """Keep the hole that was being opened for a gang, if its time is not over."""
    kept = job.status.nomination
    if kept is None or not kept.members or job.status.phase != "Pending":
        return
    until_ms = time_ms(kept.until)
    if until_ms <= now_ms:
        return
    uids = {f"{one.metadata.namespace}/{one.metadata.name}": uid for uid, one in jobs.items()}
    uids |= {uid: uid for uid in jobs}  # as victims of other namespaces are written
    victims: list[tuple[GangId, int]] = []
    shrunk: list[tuple[GangId, int, tuple[int, ...]]] = []
    for text in kept.victims:
        name, _, more = text.rpartition("#")
        attempt, _, ranks = more.partition(":")
        uid = uids.get(name) or (name if name in jobs else "")  # those of other namespaces stand there by uid
        if uid and attempt.isdecimal() and ranks:
            shrunk.append((GangId(uid), int(attempt), read_ranks(ranks)))
        elif uid and attempt.isdecimal():
            victims.append((GangId(uid), int(attempt)))
    try:
        placement = read_placement(kept)
    except UnreadableInput:
        return
    recovery.facts.append(
        Nominated(
            gang=GangId(job.metadata.uid),
            placement=placement,
            victims=tuple(victims),
            shrunk=tuple(shrunk),
            at_ms=now_ms,
            until_ms=until_ms,
        )
    )
