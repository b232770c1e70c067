"""Facts about our own pods and claims: which member runs, has ended, or holds its devices no longer.

A member with devices is released when its claim is emptied or gone, one without when its pod is. What is not known to
be released stays held: a claim that was never allocated counts as held until somebody deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fairlead.model.events import Event, MemberEnded, MemberReleased, MemberRunning, Recovered
from fairlead.model.labels import member_in
from fairlead.service.ports import Hold
from fairlead_operator.device_objects import Claim
from fairlead_operator.objects import Meta, Pod, time_ms
from fairlead_operator.pods import CLAIM_IN_POD

SECOND_MS = 1_000  # Kubernetes' own times are cut to whole seconds


def member_of(meta: Meta) -> Hold | None:
    """Return which member an object belongs to, None where it is not ours."""
    return member_in(meta.labels, [(owner.kind, owner.uid) for owner in meta.owner_references])


def allocated_members(claims: Iterable[Claim]) -> frozenset[Hold]:
    """Return members of ours whose claim holds devices."""
    members = (member_of(claim.metadata) for claim in claims if claim.status.allocation is not None)
    return frozenset(member for member in members if member is not None)


def is_terminal(pod: Pod) -> bool:
    """Whether a pod has come to its end and takes nothing of its node any more."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_over(pod: Pod) -> bool:
    """Whether nothing of a pod runs any more, although finalizers may still keep the object."""
    if is_terminal(pod):
        return True
    meta = pod.metadata
    return bool(meta.deletion_timestamp) and (not pod.spec.node_name or meta.deletion_grace_period_seconds == 0)


@dataclass(slots=True)
class _Track:
    """What was seen and told of one member."""

    pod_uid: str = ""
    claim_uid: str = ""
    wants_claim: bool = False
    allocated: bool = False
    over: bool = False
    pod_gone: bool = False
    running: bool = False
    ended: bool = False
    released: bool = False


class MemberFacts:
    """Turns changes of our pods and claims into facts through `put`.

    `gap_ms` says how long the claim watch was blind before what it tells now. `on_over` is called once for each pod
    of which nothing runs any more; where its object is kept by our finalizer, that must come off then, or the claim
    is never emptied.
    """

    def __init__(
        self,
        put: Callable[[Event], None],
        now_ms: Callable[[], int],
        gap_ms: Callable[[], int],
        on_over: Callable[[Pod], None],
    ) -> None:
        """Start with nothing seen."""
        self._put = put
        self._now_ms = now_ms
        self._gap_ms = gap_ms
        self._on_over = on_over
        self._tracks: dict[Hold, _Track] = {}

    def __contains__(self, member: Hold) -> bool:
        """Whether an object of that member has been taken in and not gone since."""
        return member in self._tracks

    def pod(self, member: Hold, pod: Pod, *, gone: bool) -> None:
        """Our pod is like this now, or gone; `pod` is then its last known state."""
        track = self._tracks.setdefault(member, _Track())
        if track.pod_uid not in ("", pod.metadata.uid) and gone:
            return  # the end of an object that another of the same name has followed
        track.pod_uid = pod.metadata.uid
        track.wants_claim = track.wants_claim or any(c.name == CLAIM_IN_POD for c in pod.spec.resource_claims)
        if pod.status.phase == "Running" and not track.running and not track.ended and not gone:
            track.running = True
            gang, attempt, rank = member
            self._put(MemberRunning(gang=gang, attempt=attempt, rank=rank, at_ms=self._at(started_ms(pod))))
        if not track.ended and (is_terminal(pod) or gone or pod.metadata.deletion_timestamp):
            track.ended = True
            self._end(member, pod)
        if is_over(pod) and not track.over and not gone:
            track.over = True
            self._on_over(pod)
        track.pod_gone = track.pod_gone or gone
        done = gone or is_over(pod)
        if done and not track.claim_uid and (gone or not track.wants_claim):
            self._release(member, track, self._at(_finished(pod)) if is_terminal(pod) else self._now_ms(), 0)
        self._forget(member, track)

    def claim(self, member: Hold, claim: Claim, *, gone: bool) -> None:
        """Our claim is like this now, or gone."""
        track = self._tracks.setdefault(member, _Track())
        track.wants_claim = True
        track.claim_uid = "" if gone else claim.metadata.uid
        held = claim.status.allocation is not None and not gone
        if held:
            track.allocated = True
        elif gone or track.allocated:
            track.allocated = False
            self._release(member, track, self._now_ms(), self._gap_ms())
        self._forget(member, track)

    def adopt(self, recovered: Iterable[Recovered]) -> None:
        """Release what was found holding at start, but has no object any more by the time the watches are taken in."""
        for found in recovered:
            for rank in found.holding:
                member = (found.gang, found.attempt, rank)
                if member not in self._tracks:
                    self._release(member, _Track(), self._now_ms(), 0)

    def _forget(self, member: Hold, track: _Track) -> None:
        """Drop a member of which no object is left."""
        if not track.claim_uid and (track.pod_gone or not track.pod_uid) and track.released:
            self._tracks.pop(member, None)

    def _release(self, member: Hold, track: _Track, at_ms: int, estimated_ms: int) -> None:
        """Tell once that a member holds nothing any more."""
        if track.released:
            return
        track.released = True
        gang, attempt, rank = member
        self._put(MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=at_ms, estimated_ms=estimated_ms))

    def _end(self, member: Hold, pod: Pod) -> None:
        """Tell how a member ended; a pod that is being deleted has not succeeded."""
        gang, attempt, rank = member
        succeeded = pod.status.phase == "Succeeded"
        at_ms = self._at(_finished(pod)) if is_terminal(pod) else self._now_ms()
        detail = "" if succeeded else how_it_ended(pod)
        self._put(MemberEnded(gang=gang, attempt=attempt, rank=rank, succeeded=succeeded, at_ms=at_ms, detail=detail))

    def _at(self, second_ms: int) -> int:
        """Return the end of the second that an object's time names, so that it never comes before its cause."""
        now = self._now_ms()
        return min(now, second_ms + SECOND_MS - 1) if second_ms else now


def started_ms(pod: Pod) -> int:
    """Return when the first container started; 0 where nothing says."""
    states = (status.state.running for status in pod.status.container_statuses)
    return min((at for state in states if state and (at := time_ms(state.started_at))), default=0)


def _finished(pod: Pod) -> int:
    """Return when the last container ended; 0 where nothing says."""
    states = (status.state.terminated for status in pod.status.container_statuses)
    return max((at for state in states if state and (at := time_ms(state.finished_at))), default=0)


def how_it_ended(pod: Pod) -> str:
    """Return in a few words why a pod did not succeed."""
    for condition in pod.status.conditions:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return f"{condition.reason}: {condition.message}".strip(": ")
    for status in pod.status.container_statuses:
        ended = status.state.terminated
        if ended is not None and ended.exit_code:
            why = f" ({ended.reason})" if ended.reason and ended.reason != "Error" else ""
            return f"container {status.name} exited with {ended.exit_code}{why}"
    if pod.status.phase == "Failed":
        return f"{pod.status.reason}: {pod.status.message}".strip(": ") or "its pod failed"
    return "its pod was deleted"
