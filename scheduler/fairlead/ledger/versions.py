"""What `Started.meter` says of the engines whose facts follow: by which rules their books are made.

Journals of before made other entries, and still do; so a rule that books something else has a number, and counts from
the first engine on that says it.
"""

from __future__ import annotations

PODS = 1
"""Pods are booked, and a new cut of a GPU ends what was held of the old one."""
ALL_STOPS = 2
"""Who is stopped for its budget, at the end of a hole or because a device was found in two claims loses work, too."""
METER = ALL_STOPS
"""What engines say today."""
