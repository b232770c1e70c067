"""End the servers of a test run that was itself killed, and remove their folder.

Started as a script with the folder as argument. Each line on stdin names one process that the run has started: its id
and its start time from /proc, which together no other process can have. The run holds the other end of the pipe, so
the end of stdin means that the run has stopped, or is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """Read when the process started, in clock ticks since boot; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])  # field 22 of the line; the name before it may hold spaces


def main(folder: str) -> None:
    """Wait for the end of stdin, then clean up what is left."""
    known: list[tuple[int, int]] = []
    for line in sys.stdin:
        pid, ticks = line.split()
        known.append((int(pid), int(ticks)))
    for pid, ticks in known:
        if start_ticks(pid) == ticks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # each server leads a group of its own
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
