"""What was told of GPUs by themselves: NVML's events and the kernel log's lines, each fault once, with its pod."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.discovery.nvml import DriverEvent
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.xids import XidEvent
from fairlead.model.hardware import Gpu
from fairlead_operator.agent.working_pods import WorkingPods

log = logging.getLogger(__name__)
_SAME_MS = 30_000  # within which two sources speak of one fault; a look may be late by a driver that hangs
_REMEMBERED = 1_024
_PROCESS = re.compile(r"\bpid='?([0-9]{1,10})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One XID of one GPU; `uuid` is "" where the GPU could not say who it is.

    `text` is the kernel's line, `who` the uid of the pod, both "" where unknown. A `repeat` is no further fault: the
    kernel's words for one that NVML has told already.
    """

    uuid: str
    xid: int
    text: str = ""
    who: str = ""
    repeat: bool = False


class Ears:
    """Brings both sources together. The n-th word of one source on a number is the same fault as the other's n-th."""

    def __init__(self, pods: WorkingPods | None = None) -> None:
        """Without `pods`, nobody's fault is known."""
        self._pods = pods
        self._past: deque[tuple[int, str, str, int]] = deque(maxlen=_REMEMBERED)  # (at_ms, source, uuid, XID)

    def bring(
        self,
        told: Iterable[DriverEvent],
        lines: Iterable[tuple[str, XidEvent]],
        gpus: Mapping[str, Gpu],
        now_ms: int,
    ) -> list[Heard]:
        """Return the XIDs in what NVML told and the kernel wrote; `gpus` are those known, by UUID."""
        while self._past and now_ms - self._past[0][0] > _SAME_MS:
            self._past.popleft()
        by_pci = {normal_pci(gpu.pci): uuid for uuid, gpu in gpus.items() if gpu.pci}
        found: list[Heard] = []
        for pci, event in lines:
            uuid = by_pci.get(normal_pci(pci) or normal_pci(f"{pci}.0"))
            if uuid is None:
                log.warning("event=xid_of_unknown_gpu xid=%d pci=%s text=%r", event.xid, pci, event.text)
                continue
            source = "kernel: bus" if event.text == "fallen off the bus" else "kernel"  # it has a line without a number
            repeat = self._told(source, uuid, event.xid, now_ms)
            who = self._who(uuid, event.text)
            found.append(Heard(uuid=uuid, xid=event.xid, text=event.text, who=who, repeat=repeat))
        for one in told:
            if one.xid and not self._told("nvml", one.uuid, one.xid, now_ms):
                found.append(Heard(uuid=one.uuid, xid=one.xid, who=self._who(one.uuid, "")))
        return found

    def _told(self, source: str, uuid: str, xid: int, now_ms: int) -> bool:
        """Remember a word, and return whether another source has said it before."""
        counts: dict[str, int] = {}
        for _, other, at, number in self._past:
            if number == xid and (at == uuid or not at or not uuid):
                counts[other] = counts.get(other, 0) + 1
        mine = counts.pop(source, 0)
        self._past.append((now_ms, source, uuid, xid))
        return any(count > mine for count in counts.values())

    def _who(self, uuid: str, text: str) -> str:
        """Return the pod whose process the kernel names, else the only one that computes on the GPU."""
        if self._pods is None:
            return ""
        named = _PROCESS.search(text)
        if named is not None:
            return self._pods.of_process(int(named[1]))
        return self._pods.of_gpu(uuid)
