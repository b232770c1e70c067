"""Which pod computes on a GPU: from the driver's list of processes, and from each process's control group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_POD = re.compile(r"pod([0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12})(?![0-9a-f])")
_GROUP_BYTES = 16_384
_PROCESSES_MOST = 256


def pod_in(groups: str) -> str:
    """Return the uid of the pod that the text of ``/proc/PID/cgroup`` names, "" where it names none.

    >>> pod_in("0::/kubepods.slice/kubepods-pod0a1b2c3d_0000_4000_8000_00000000000a.slice/cri-containerd-1.scope")
    '0a1b2c3d-0000-4000-8000-00000000000a'
    """
    found = _POD.search(groups)
    if found is None:
        return ""
    return found[1].replace("_", "-")  # that of a static pod has no dashes, and its containers know it so


class WorkingPods:
    """Remembers the pods of the last two looks at each GPU: whose fault it was may be gone when we hear of it."""

    def __init__(self, root: Path) -> None:
        """Look below `root`, where the node's ``proc`` is."""
        self._root = root
        self._now: Mapping[str, frozenset[str]] = {}
        self._before: Mapping[str, frozenset[str]] = {}
        self._by_pid: dict[int, str] = {}

    def saw(self, processes: Mapping[str, Iterable[int]]) -> None:
        """Take in the processes on each GPU, by UUID; "" stands for a process of no pod, or one already gone."""
        by_pid = {pid: "" for pids in processes.values() for pid in list(pids)[:_PROCESSES_MOST]}
        for pid in by_pid:
            by_pid[pid] = self._read(pid) or self._by_pid.get(pid, "")
        self._before, self._by_pid = self._now, by_pid
        self._now = {uuid: frozenset(by_pid.get(pid, "") for pid in pids) for uuid, pids in processes.items()}

    def of_process(self, pid: int) -> str:
        """Return the pod of a process that runs, or ran at the last look; "" where nobody knows."""
        return self._read(pid) or self._by_pid.get(pid, "")

    def of_gpu(self, uuid: str) -> str:
        """Return the pod that computes on a GPU, "" where none or more than one does: then it is not known whose."""
        found = self._now.get(uuid, frozenset()) | self._before.get(uuid, frozenset())
        return next(iter(found)) if len(found) == 1 else ""

    def _read(self, pid: int) -> str:
        try:
            with (self._root / f"proc/{pid}/cgroup").open("rb") as file:
                return pod_in(file.read(_GROUP_BYTES).decode(errors="replace"))
        except OSError:
            return ""
