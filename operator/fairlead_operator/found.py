"""The objects of one attempt as a new leader finds them, and what they say of its life."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from fairlead.model.events import NoticeIntended
from fairlead.model.gang import GangId, Placement
from fairlead.model.rules import Rules
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.device_objects import Claim
from fairlead_operator.member_facts import SECOND_MS, started_ms
from fairlead_operator.notices import notice_fact
from fairlead_operator.objects import Meta, Pod
from fairlead_operator.pods import Attempt

_DONE = ("Succeeded", "Failed")
STAGGER_MAX_MS = Rules().stagger_max_ms


@dataclass(slots=True)
class Found:
    """The objects of one attempt, by rank."""

    gang: GangId
    number: int
    pods: dict[int, Pod] = field(default_factory=dict[int, Pod])
    claims: dict[int, Claim] = field(default_factory=dict[int, Claim])

    def metas(self) -> list[Meta]:
        """All their metadata, by rank, claims first."""
        return [self.claims[r].metadata for r in sorted(self.claims)] + [
            self.pods[r].metadata for r in sorted(self.pods)
        ]

    def holding(self, placement: Placement) -> tuple[int, ...]:
        """Ranks that hold something: an allocated claim or, without devices, a pod on its node."""
        held: list[int] = []
        for member in placement.members:
            claim, pod = self.claims.get(member.rank), self.pods.get(member.rank)
            if claim is not None:
                if claim.status.allocation is not None:
                    held.append(member.rank)
            elif pod is not None and not member.devices and pod.spec.node_name and pod.status.phase not in _DONE:
                held.append(member.rank)
        return tuple(held)


def all_running_ms(found: Found, attempt: Attempt, left: Collection[int]) -> int | None:
    """Return since when all members but those who `left` run, as their kubelets say; None where one does not, or nobody
    says."""
    pods = [found.pods.get(member.rank) for member in attempt.placement.members if member.rank not in left]
    if any(pod is None or pod.status.phase != "Running" for pod in pods):
        return None
    began = [started_ms(pod) for pod in pods if pod is not None]
    return max(began) + SECOND_MS - 1 if began and all(began) else None


def notice_left(found: Found, job: GangJob | None, now_ms: int) -> NoticeIntended | None:
    """Return the notice that an attempt of which all members run was given, None where it was given none.

    Its times are of the clock of an earlier leader; what is left of them is never longer than it was.
    """
    kept = job.status.notice if job is not None else None
    if kept is None or kept.attempt != found.number or any(p.status.phase != "Running" for p in found.pods.values()):
        return None
    grace_ms = max(0, kept.until_ms - kept.begins_at_ms)
    begins_ms = min(kept.begins_at_ms, now_ms + STAGGER_MAX_MS)
    return replace(notice_fact(found.gang, kept), until_ms=min(kept.until_ms, max(begins_ms, now_ms) + grace_ms))
