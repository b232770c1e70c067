"""A gang's checkpoints as plain values, for the HTTP API and the command lines."""

from __future__ import annotations

from typing import TypedDict

from fairlead.world.views import CheckpointView


class SavingDoc(TypedDict):
    """What is known of a gang's checkpoints; null where nothing is. Times are UTC ms, durations ms.

    `stops_by_ms` is when a stop that waits for a checkpoint comes at the latest.
    """

    step: str | None
    attempt: int | None
    began_ms: int | None
    path: str | None
    save_ms: int | None
    interval_ms: int | None
    recommended_interval_ms: int | None
    restart_ms: int | None
    false_claims: int
    problem: str | None
    stops_by_ms: int | None


def saving_doc(view: CheckpointView | None) -> SavingDoc | None:
    """Return the document, None for a gang that has nothing to do with checkpoints."""
    if view is None:
        return None
    saved, measured = view.saved, view.measured
    return SavingDoc(
        step=saved.step if saved else None,
        attempt=saved.attempt if saved else None,
        began_ms=saved.began_ms if saved else None,
        path=saved.path if saved else None,
        save_ms=measured.save_ms or None,
        interval_ms=measured.interval_ms or view.interval_ms or None,
        recommended_interval_ms=view.recommended_ms or None,
        restart_ms=measured.restart_ms or None,
        false_claims=view.false_claims,
        problem=view.problem or None,
        stops_by_ms=view.until_ms,
    )
