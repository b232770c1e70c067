"""A gang's checkpoints in words."""

from __future__ import annotations

from fairlead.service.saving_json import SavingDoc
from fairlead.units import duration_text


def saving_lines(saving: SavingDoc | None, now_ms: int) -> list[str]:
    """Return what `explain` says of checkpoints: nothing for a gang that has nothing to do with them."""
    if saving is None:
        return []
    began_ms = saving["began_ms"]
    last = "none counts yet"
    if began_ms is not None:
        last = f"step {saving['step']}, attempt {saving['attempt']}, {duration_text(max(0, now_ms - began_ms))} ago"
    if saving["save_ms"]:
        last += f"; takes {duration_text(saving['save_ms'])}"
    lines = [f"  saved      {last}"]
    if saving["interval_ms"] or saving["recommended_interval_ms"]:
        every, best = saving["interval_ms"], saving["recommended_interval_ms"]
        said = f"every {duration_text(every)}" if every else "at times unknown"
        lines.append(f"  saves      {said}" + (f"; best every {duration_text(best)}" if best else ""))
    if saving["stops_by_ms"] is not None:
        left = duration_text(max(0, saving["stops_by_ms"] - now_ms))
        lines.append(f"  asked      to save; it is stopped once it has, at the latest in {left}")
    if saving["problem"]:
        lines.append(f"  refused    its last marker: {saving['problem']} ({saving['false_claims']} in all)")
    return lines
