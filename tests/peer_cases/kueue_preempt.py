"""Kueue's preemption cases: about quota and victims, which are not compared yet."""

from __future__ import annotations

from peer_cases.verdicts import Case, Verdict


def is_one(case: Case) -> bool:
    """Whether a line is of this schema."""
    return {"clusterQueues", "admitted", "incoming", "wantPreempted"} <= case.keys()


def judge(case: Case) -> Verdict:
    """Every case of this suite is about evictions."""
    return Verdict(case["name"], "later", "evictions")
