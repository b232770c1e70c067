"""Words for what keeps jobs from being taken."""

from __future__ import annotations

from fairlead.model.tenancy import TakingCaps
from fairlead.units import duration_ms


def taking_caps(named: dict[str, str]) -> TakingCaps:
    """minrun=10m, perjob=2 and takings=5 (in an hour), churn=2h (GPU time of lost work in an hour)."""
    return TakingCaps(
        min_run_ms=duration_ms(named["minrun"]) if "minrun" in named else None,
        per_job=int(named["perjob"]) if "perjob" in named else None,
        count=int(named["takings"]) if "takings" in named else None,
        lost_gpu_ms=duration_ms(named["churn"]) if "churn" in named else None,
    )


def preemptible(plain: list[str], named: dict[str, str]) -> bool:
    """As a GangJob's policy: fixed is never; serving only if it says ``allowed``."""
    return "fixed" not in plain and ("allowed" in plain or named.get("class") != "serving")
