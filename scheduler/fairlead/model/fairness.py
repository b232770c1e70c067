"""FairnessPolicy: how a queue's children share what nobody is guaranteed, as a named, versioned value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ROOT_POLICY = "default"
"""The policy of the roots of the queue tree, and of all below that name none; built in where nobody wrote it."""
HOUR_MS = 3_600_000
HALF_LIFE_MS = 7 * 24 * HOUR_MS
AGING_MS = 7 * 24 * HOUR_MS


class Sharing(StrEnum):
    """What becomes of the part that no guarantee covers.

    equal            every child that wants some gets the same, whatever its weight
    weighted         in proportion to weight
    slo              needs that tenants have declared come first, the rest by weight
    work-conserving  whoever holds some keeps it: only guarantees are taken back, and who used least lately is next
    slurm-classic    by weight, and in the order of Slurm's classic fair-share factor
    """

    EQUAL = "equal"
    WEIGHTED = "weighted"
    SLO = "slo"
    WORK_CONSERVING = "work-conserving"
    SLURM_CLASSIC = "slurm-classic"


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessPolicy:
    """One policy. `version` is its owner's number: it grows with every change, and decisions name it.

    half_life_ms past usage counts half as much after this time
    aging_ms     a gang that has waited this long is ahead of all that came to its queue later, whatever their priority
    resources    (resource, weight in thousandths): what is counted beside GPUs for the dominant share, and how much
                 a share of it weighs; ``gpu`` weighs 1000 unless it is named
    damping      d of Slurm's factor 2^(−usage/share/d), for slurm-classic
    """

    name: str
    version: int = 1
    kind: Sharing = Sharing.WEIGHTED
    half_life_ms: int = HALF_LIFE_MS
    aging_ms: int = AGING_MS
    resources: tuple[tuple[str, int], ...] = ()
    damping: int = 1

    @property
    def label(self) -> str:
        """``name/version``, as decisions name it."""
        return f"{self.name}/{self.version}"


BUILT_IN = FairnessPolicy(name=ROOT_POLICY, version=0)
"""What holds where nobody wrote a policy."""
