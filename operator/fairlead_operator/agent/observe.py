"""One look at the node: what is there, what changed, and how each GPU is. Runs in the driver's thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairlead.discovery.findings import Sample
from fairlead.discovery.nvml import DriverEvent, GpuLost, Handle, Library
from fairlead.discovery.nvml_node import GpuFacts, handles, read_node
from fairlead.discovery.nvml_samples import read_sample
from fairlead.errors import FairleadError, Unreachable
from fairlead.model.hardware import Machine
from fairlead_operator.agent.combine import combine
from fairlead_operator.agent.working_pods import WorkingPods

log = logging.getLogger(__name__)
_WHOLE_EVERY_MS = 600_000
_EVENTS_MOST = 1_024
_EVENT_WAIT_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one look found. `machine` is None where nothing about it has changed; `samples` are by UUID.

    `listed` GPUs are in the driver's list, of which only those in `samples` answer. `failure` is NVML's sentence where
    it does not work at all.
    """

    at_ms: int
    machine: Machine | None = None
    facts: Mapping[str, GpuFacts] = field(default_factory=dict[str, GpuFacts])
    samples: Mapping[str, Sample] = field(default_factory=dict[str, Sample])
    listed: int = 0
    failure: str = ""
    warnings: tuple[str, ...] = ()


class Observer:
    """Looks at one node. `tree` reads the PCI tree below a root, `pods` learns who computes; None leaves it out."""

    def __init__(
        self,
        library: Library,
        tree: Callable[[], tuple[Machine, tuple[str, ...]]] | None,
        pods: WorkingPods | None = None,
    ) -> None:
        """Keep the library; it is opened by the first look."""
        self._library = library
        self._tree = tree
        self._pods = pods
        self._print: object = None
        self._profiles: dict[str, tuple[int, ...]] = {}
        self._whole_ms = 0

    def look(self, at_ms: int) -> Observation:
        """Look once; never raises for what NVML does."""
        library = self._library
        try:
            library.open()
            found = handles(library)
            samples: dict[str, Sample] = {}
            links: list[object] = []
            for index, handle, uuid in found:
                samples[uuid], up = read_sample(library, f"GPU{index}", handle, at_ms)
                links.append((uuid, up))
            if self._pods is not None:
                self._pods.saw({uuid: self._processes(f"GPU{at}", handle) for at, handle, uuid in found})
            listed = library.number("nvml", "DeviceGetCount") or 0
            observation = Observation(at_ms=at_ms, samples=samples, listed=listed)
            if (links, self._cuts(found)) != self._print or at_ms - self._whole_ms >= _WHOLE_EVERY_MS:
                observation = self._whole(observation)
                self._print, self._whole_ms = (links, self._cuts(found)), at_ms
        except Unreachable as error:
            library.close()
            self._print = None
            observation = Observation(at_ms=at_ms, failure=str(error))
        return replace(observation, warnings=(*observation.warnings, *library.take_warnings()))

    def release(self) -> None:
        """Let go of the driver, so that a GPU can be reset or cut; the next look takes it again."""
        self._library.close()

    def _processes(self, where: str, handle: Handle) -> tuple[int, ...]:
        """Return the numbers of the processes that compute on a GPU, as far as the driver shows them to us."""
        try:
            return self._library.read(where, "DeviceGetComputeRunningProcesses", _numbers, handle) or ()
        except GpuLost:
            return ()

    def _whole(self, observation: Observation) -> Observation:
        """Read the machine anew."""
        reading = read_node(self._library)
        machine = reading.machine
        warnings: tuple[str, ...] = ()
        if self._tree is not None:
            try:
                tree, doubts = self._tree()
                machine, differences = combine(reading.machine, tree)
                warnings = (*doubts, *differences)
            except FairleadError as error:
                self._library.warn("tree", str(error))
        uuids = {gpu.id: gpu.uuid for gpu in machine.gpus}
        self._profiles = {
            uuids[name]: tuple(profile.id for profile in facts.mig.profiles)
            for name, facts in reading.facts.items()
            if facts.mig is not None and name in uuids
        }
        return replace(observation, machine=machine, facts=reading.facts, warnings=warnings)

    def _cuts(self, found: tuple[tuple[int, Handle, str], ...]) -> list[object]:
        """Return something that differs whenever a GPU is cut otherwise than before."""
        cuts: list[object] = []
        for index, handle, uuid in found:
            where = f"GPU{index}"
            try:
                modes = self._library.ask(where, "DeviceGetMigMode", handle)
                if isinstance(modes, list | tuple) and modes[0]:
                    ids = self._profiles.get(uuid, ())
                    cuts.append((*modes, [self._library.instances(where, handle, number) for number in ids]))
                else:
                    cuts.append(modes)
            except GpuLost:
                cuts.append(None)
        return cuts


def _numbers(processes: Any) -> tuple[int, ...]:
    return tuple(int(process.pid) for process in processes)


def tree_below(root: Path) -> Callable[[], tuple[Machine, tuple[str, ...]]]:
    """Return what reads the PCI tree below `root`, where ``sys`` and ``proc`` are."""
    from fairlead.discovery import sysfs

    return lambda: sysfs.read(root, name="tree")


class Listener:
    """A thread that hears the driver's events and keeps the last `_EVENTS_MOST`; `wake` is called at each."""

    def __init__(self, library: Library, wake: Callable[[], None]) -> None:
        """Prepare; `start` listens."""
        self.heard: deque[DriverEvent] = deque(maxlen=_EVENTS_MOST)
        self._library = library
        self._wake = wake
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen to all GPUs, if not already. In the driver's thread."""
        if self._thread is not None and self._thread.is_alive():
            return
        events = self._library.listen([handle for _, handle, _ in handles(self._library)])
        if events is None:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(events, self._stop), name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, before the session is closed. In the driver's thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * _EVENT_WAIT_MS / 1000)
            self._thread = None

    def take(self) -> list[DriverEvent]:
        """Return what was heard since the last time."""
        found: list[DriverEvent] = []
        while self.heard:
            found.append(self.heard.popleft())
        return found

    def _run(self, events: object, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                event = self._library.wait_event(events, _EVENT_WAIT_MS)
            except Unreachable as error:
                log.info("event=driver_events_ended detail=%r", str(error))
                break
            if event is not None:
                self.heard.append(event)
                self._wake()
        try:
            self._library.free(events)
        except FairleadError as error:
            log.debug("event=event_set_not_freed detail=%r", str(error))
