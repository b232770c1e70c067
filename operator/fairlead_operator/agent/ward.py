"""What the agent remembers of its node's GPUs: where each was last seen, and how it fares. Nothing here asks anything.

A GPU that is gone stays, as bad, with the place it had: the scheduler must know that it is down, not that it never was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairlead.discovery.findings import HealthRules, Sample, Verdict
from fairlead.discovery.health import Finding, GpuHealth, judge, kind_of, known_token
from fairlead.discovery.inventory import SliceDevice
from fairlead.discovery.nvml_node import GpuFacts
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.xids import NVLINK5, Clears, Level, XidEvent
from fairlead.model.hardware import Gpu, Link, Machine
from fairlead_operator.agent.busy import BusyWindows
from fairlead_operator.agent.heard import Heard
from fairlead_operator.agent.observe import Observation

GONE_KEPT_MS = 86_400_000
"""How long a GPU that is gone is remembered once the node was restarted without it."""
EVENTS_KEPT = 256
_TOLD_BY_THE_KERNEL = frozenset(f"Xid{number}" for number in NVLINK5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthEvent:
    """Something that happened to one GPU: its verdict changed, or the driver told of an XID."""

    at_ms: int
    gpu: str
    uuid: str
    what: str
    verdict: Verdict


class Ward:
    """GPUs by UUID. `events` keeps the last `EVENTS_KEPT`, also while nobody can be told."""

    def __init__(self, rules: HealthRules, *, boot_id: str = "") -> None:
        """Start with nothing known."""
        self.machine = Machine(source="nvml")
        self.facts: dict[str, GpuFacts] = {}
        self.gpus: dict[str, Gpu] = {}
        self.health: dict[str, GpuHealth] = {}
        self.events: deque[HealthEvent] = deque(maxlen=EVENTS_KEPT)
        self.busy = BusyWindows()
        self.hung = 0
        self.warnings: tuple[str, ...] = ()
        self._links: dict[str, tuple[Link, ...]] = {}
        self._rules = rules
        self._boot_id = boot_id
        self._forget_ms: dict[str, int] = {}

    @property
    def wants_reset(self) -> bool:
        """Whether some GPU waits for a reset, or to come back: nobody should hold the driver open then."""
        return any(h.away or h.wants_reset for h in self.health.values())

    def worst(self) -> Verdict:
        """Return the worst verdict of the node, healthy where it has no GPU."""
        found = {h.verdict for h in self.health.values()}
        return next((v for v in (Verdict.BAD, Verdict.SUSPECT) if v in found), Verdict.HEALTHY)

    def restore(self, published: Mapping[str, Any], now_ms: int) -> None:
        """Take over what an earlier agent published: places, and the findings that a restart of ours does not end."""
        spec = published.get("spec") or {}
        same_boot = bool(self._boot_id) and spec.get("bootID") == self._boot_id
        for entry in spec.get("gpus") or ():
            uuid, name = str(entry.get("uuid") or ""), str(entry.get("id") or "")
            if not uuid or not name or not name.startswith("GPU") or not name[3:].isdecimal():
                continue
            since_ms = int(entry.get("healthSinceMs") or 0)
            restored = _restored(entry, since_ms, now_ms, same_boot)
            if uuid in self.gpus:  # we have looked at it ourselves while the server was away
                self.health[uuid] = _merged(self.health[uuid], restored)
                continue
            self.gpus[uuid] = Gpu(
                id=name,
                index=int(entry.get("index") or 0),
                device=str(entry.get("device") or ""),
                uuid=uuid,
                pci=str(entry.get("pci") or ""),
                model=str(entry.get("model") or ""),
                memory_bytes=int(entry.get("memoryBytes") or 0),
                numa=int(entry.get("numa", -1)),
                pcie_root=str(entry.get("pcieRoot") or ""),
                pcie_switch=str(entry.get("pcieSwitch") or ""),
                pcie_parent=str(entry.get("pcieParent") or ""),
            )
            self.health[uuid] = restored
            if not same_boot:
                self._forget_ms[uuid] = now_ms + GONE_KEPT_MS

    def update(self, seen: Observation, told: Sequence[Heard], now_ms: int) -> None:
        """Take in one look and what was told since the last."""
        self.hung = 0
        self.warnings = seen.warnings
        if seen.machine is not None:
            self._take(seen.machine, seen.facts)
        self.busy.saw(seen.samples, now_ms)
        missing = seen.listed <= len(seen.samples)
        samples: dict[str, Sample] = {}
        for uuid in self.gpus:
            gone = Sample(at_ms=seen.at_ms, missing=missing, lost=not missing)
            samples[uuid] = seen.samples.get(uuid, gone)
            if seen.failure:
                samples[uuid] = Sample(at_ms=seen.at_ms, failed=True)
        self._judge(samples, told, now_ms)
        if not seen.failure:
            self._forget(seen.samples, now_ms)

    def driver_hung(self, told: Sequence[Heard], now_ms: int) -> None:
        """The driver did not answer in time."""
        self.hung += 1
        self._judge({uuid: Sample(at_ms=now_ms, hung=self.hung) for uuid in self.gpus}, told, now_ms)

    def adopt(self, devices: Sequence[SliceDevice]) -> None:
        """Take in GPUs that the driver's ResourceSlices offer and NVML has never shown: they are missing, so bad.

        One whose place another GPU has is an old entry of a slice, and is left to it.
        """
        have = {gpu.uuid.lower() for gpu in self.gpus.values()}
        at = {gpu.pci for gpu in self.gpus.values()}
        for device in devices:
            pci = normal_pci(device.pci)
            if device.uuid and pci and device.model and device.uuid.lower() not in have and pci not in at:
                name = _free_name("GPU0", {gpu.id for gpu in self.gpus.values()})
                self.gpus[device.uuid] = Gpu(
                    id=name,
                    index=int(name[3:]),
                    device=device.name,
                    uuid=device.uuid,
                    pci=pci,
                    model=device.model,
                    memory_bytes=device.memory_bytes,
                )

    def current(self) -> Machine:
        """Return the machine with every GPU that is or was, each with its verdict."""
        gpus = []
        for uuid, gpu in sorted(self.gpus.items(), key=lambda pair: (pair[1].index, pair[1].id)):
            health = self.health.get(uuid, GpuHealth())
            healthy = health.verdict is Verdict.HEALTHY
            gpus.append(replace(gpu, healthy=healthy, health_reason=health.sentence))
        known = {gpu.id for gpu in gpus}
        links = list(self.machine.links)
        have = {frozenset((x.a, x.b)) for x in links}
        others = known | {nic.id for nic in self.machine.nics}
        for name, kept in sorted(self._links.items()):
            if name in known:
                links += [x for x in kept if {x.a, x.b} <= others and frozenset((x.a, x.b)) not in have]
                have |= {frozenset((x.a, x.b)) for x in kept}
        return replace(self.machine, gpus=tuple(gpus), links=tuple(links))

    def _take(self, machine: Machine, facts: Mapping[str, GpuFacts]) -> None:
        """Take a new reading; ids stay with their GPUs, whatever the driver's numbering does after a loss."""
        for link in self.machine.links:
            for end in (link.a, link.b):
                self._links[end] = tuple(x for x in self.machine.links if end in (x.a, x.b))
        here = {gpu.uuid for gpu in machine.gpus}
        at = {gpu.pci for gpu in machine.gpus if gpu.pci}
        for uuid, gpu in list(self.gpus.items()):
            if uuid not in here and gpu.pci in at:  # another card sits in its slot
                self._drop(uuid)
        taken = {gpu.id for gpu in self.gpus.values()}
        names: dict[str, str] = {}
        for gpu in machine.gpus:
            old = self.gpus.get(gpu.uuid)
            name = old.id if old else _free_name(gpu.id, taken)
            taken.add(name)
            names[gpu.id] = name
            self.gpus[gpu.uuid] = replace(gpu, id=name, index=old.index if old else int(name[3:]))
            self._links.pop(name, None)
        self.facts = {names[name]: fact for name, fact in facts.items() if name in names}
        links = (replace(x, a=names.get(x.a, x.a), b=names.get(x.b, x.b)) for x in machine.links)
        wires = (replace(x, a=names.get(x.a, x.a), b=names.get(x.b, x.b)) for x in machine.wires)
        self.machine = replace(machine, gpus=(), links=tuple(links), wires=tuple(wires))

    def _judge(self, samples: Mapping[str, Sample], told: Sequence[Heard], now_ms: int) -> None:
        for uuid, sample in samples.items():
            before = self.health.get(uuid, GpuHealth(since_ms=now_ms))
            # An event of a GPU that could not say who it is belongs to those that are lost now.
            mine = [e for e in told if e.uuid == uuid or (not e.uuid and (sample.lost or sample.missing))]
            events = [XidEvent(xid=e.xid, at_ms=now_ms, text=e.text, who=e.who) for e in mine]
            after = judge(before, sample, events, self._rules)
            self.health[uuid] = after
            name = self.gpus[uuid].id
            for event in (e for e in mine if not e.repeat):
                self._note(now_ms, name, uuid, f"Xid{event.xid}", after.verdict)
            if after.verdict is not before.verdict:
                what = after.tokens[0] if after.tokens and after.verdict is not Verdict.HEALTHY else "Recovered"
                self._note(now_ms, name, uuid, what, after.verdict)

    def _note(self, at_ms: int, gpu: str, uuid: str, what: str, verdict: Verdict) -> None:
        self.events.append(HealthEvent(at_ms=at_ms, gpu=gpu, uuid=uuid, what=what, verdict=verdict))

    def _forget(self, seen: Mapping[str, Sample], now_ms: int) -> None:
        """Forget GPUs that were gone at the node's restart and did not come back for a day."""
        for uuid, until_ms in list(self._forget_ms.items()):
            if uuid in seen:
                del self._forget_ms[uuid]
            elif now_ms >= until_ms:
                self._drop(uuid)

    def _drop(self, uuid: str) -> None:
        gpu = self.gpus.pop(uuid, None)
        self.health.pop(uuid, None)
        self._forget_ms.pop(uuid, None)
        if gpu is not None:
            self._links.pop(gpu.id, None)


def _free_name(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, or the next GPU number that nobody has."""
    number = int(wanted[3:])
    while f"GPU{number}" in taken:
        number += 1
    return f"GPU{number}"


def _merged(seen: GpuHealth, restored: GpuHealth) -> GpuHealth:
    """Return what was seen with the restored findings that no look of ours can have ended."""
    have = {f.token for f in seen.findings}
    more = [f for f in restored.findings if f.token not in have and kind_of(f).clears is not Clears.LIVE]
    return replace(seen, findings=(*seen.findings, *more))


def _restored(entry: Mapping[str, Any], since_ms: int, now_ms: int, same_boot: bool) -> GpuHealth:
    """Return the health that an earlier agent published; a restart of the node is a reset of every GPU."""
    findings: list[Finding] = []
    # What the kernel said of an NVLink 5 error is not published, only what became of it.
    severity = {"bad": "fatal", "healthy": "nonfatal"}.get(str(entry.get("verdict")), "")
    for token in entry.get("healthReasons") or ():
        if not isinstance(token, str) or not known_token(token):
            continue
        text = severity if token in _TOLD_BY_THE_KERNEL else ""
        finding = Finding(token=token, since_ms=since_ms or now_ms, last_ms=now_ms, text=text)
        if same_boot or kind_of(finding).clears in (Clears.NEVER, Clears.QUIET):
            findings.append(finding)
    worst = max((kind_of(f).level for f in findings), default=Level.NOTE)
    verdict = (Verdict.HEALTHY, Verdict.SUSPECT, Verdict.BAD)[worst]
    away = same_boot and any(f.token in ("GpuLost", "GpuMissing") for f in findings)
    return GpuHealth(verdict=verdict, since_ms=since_ms, findings=tuple(findings), away=away)
