"""A node's NVML in memory, at the level of the module pynvml: functions, structures, errors and events by its names.

Structures and error classes are pynvml's own, so that what reads them reads the real layouts. Machines are written down
from what real ones print; a scenario changes them while the agent looks on:

    fake = hgx_h100()
    fake.lose(3); fake.xid(3, 79); fake.reset(3)
"""

from __future__ import annotations

import ctypes
import functools
import queue
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml

SWITCH = "switch"


@dataclass
class FakeGpu:
    """What one GPU would answer; tests change it at will. `links` is a peer (a GPU's index, or SWITCH) per NVLink."""

    pci: str
    uuid: str
    model: str
    memory: int
    numa: int
    links: list[object]
    mbps: int = 25_781
    mig: tuple = ()
    mig_mode: list[int] = field(default_factory=lambda: [0, 0])
    instances: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # id -> (profile id, start, size)
    fabric: tuple[bytes, int] | None = None
    fabric_health: int = 1
    present: bool = True
    lost: bool = False
    recovery: int | None = 0
    ecc: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    remapped: list[int] | None = field(default_factory=lambda: [0, 0, 0, 0])
    throttle: int = 0
    busy: int = 40
    temperature: int = 41
    energy: int = 1_000_000
    replays: int = 0
    width: int = 16
    down: set[int] = field(default_factory=set)
    link_errors: int = 0
    reset_required: bool = False
    processes: list[int] = field(default_factory=list)


class FakeNvml:
    """The module. `errors` maps a function's name to a code to raise, `answers` to what it gives instead.

    `hang` blocks every call until it is cleared.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, gpus, *, driver="580.126.20", ancestors=lambda a, b: 50, without=()):
        self.gpus = gpus
        self.driver = driver
        self.ancestors = ancestors
        self.errors = {}
        self.answers = {}
        self.p2p = {}
        self.hang = threading.Event()
        self.calls = 0
        self.sessions = 0
        self.opened = 0
        self._events = queue.Queue()
        for name in dir(pynvml):
            if name.startswith(("c_nvml", "NVML_ERROR_")):
                setattr(self, name, getattr(pynvml, name))
        self._without = set(without)

    def __getattribute__(self, name):
        if not name.startswith("nvml"):
            return object.__getattribute__(self, name)
        if name in self._without:
            raise AttributeError(name)
        return functools.partial(self._run, name, object.__getattribute__(self, name))

    def _run(self, name, function, *arguments):
        self._entered(name)
        if name in self.answers:
            return self.answers[name]
        return function(*arguments)

    def _entered(self, name):
        self.calls += 1
        if self.hang.is_set() and name != "nvmlEventSetWait_v2":
            while self.hang.is_set():
                time.sleep(0.005)
        if name in self.errors:
            code = self.errors[name]
            if isinstance(code, BaseException):
                raise code
            raise pynvml.NVMLError(code)
        if self.sessions == 0 and name not in ("nvmlInit", "nvmlShutdown", "nvmlEventSetWait_v2"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    # --- scenarios --------------------------------------------------------------------------------------------------

    def lose(self, at):
        self.gpus[at].lost = True

    def remove(self, at):
        self.gpus[at].present = False

    def reset(self, at):
        """What a GPU is like after a reset, or after the node was power-cycled."""
        gpu = self.gpus[at]
        gpu.lost, gpu.present, gpu.reset_required = False, True, False
        gpu.recovery, gpu.energy, gpu.throttle = 0, 5, 0
        gpu.ecc = {0: 0, 1: 0}
        gpu.remapped = [gpu.remapped[0], gpu.remapped[1] + gpu.remapped[2], 0, 0]

    def xid(self, at, number):
        self._events.put((at, number))

    def cut(self, at, *placements):
        """Switch MIG on and make instances (profile id, start)."""
        gpu = self.gpus[at]
        gpu.mig_mode = [1, 1]
        sizes = {row[1]: row[3] for row in gpu.mig}
        gpu.instances = {n + 1: (profile, start, sizes[profile]) for n, (profile, start) in enumerate(placements)}

    # --- helpers ----------------------------------------------------------------------------------------------------

    @property
    def _present(self):
        return [gpu for gpu in self.gpus if gpu.present]

    def _gpu(self, handle):
        assert isinstance(handle, FakeGpu), handle
        if handle.lost or not handle.present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if handle.reset_required:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_RESET_REQUIRED)
        return handle

    @staticmethod
    def _no(code=pynvml.NVML_ERROR_NOT_SUPPORTED):
        return pynvml.NVMLError(code)

    def _pci(self, address):
        info = pynvml.nvmlPciInfo_t()
        info.busId = f"0000{address.upper()}".encode()
        return info

    # --- the library ------------------------------------------------------------------------------------------------

    def nvmlInit(self):
        self.sessions += 1
        self.opened += 1

    def nvmlShutdown(self):
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self):
        return self.driver

    def nvmlDeviceGetCount(self):
        return len(self._present)

    def nvmlDeviceGetHandleByIndex(self, index):
        gpu = self._present[index]
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu

    def nvmlDeviceGetUUID(self, handle):
        if handle.lost or not handle.present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return handle.uuid

    def nvmlDeviceGetMinorNumber(self, handle):
        return self.gpus.index(self._gpu(handle))

    def nvmlDeviceGetSerial(self, handle):
        return f"16521{self.gpus.index(self._gpu(handle)):05}"

    def nvmlDeviceGetName(self, handle):
        return self._gpu(handle).model

    def nvmlDeviceGetPciInfo(self, handle):
        return self._pci(self._gpu(handle).pci)

    def nvmlDeviceGetMemoryInfo(self, handle):
        memory = pynvml.c_nvmlMemory_t()
        memory.total = self._gpu(handle).memory
        return memory

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return (9, 0) if "H100" in self._gpu(handle).model else (8, 0)

    def nvmlDeviceGetMemoryAffinity(self, handle, words, scope):
        array = (ctypes.c_ulonglong * words)()
        numa = self._gpu(handle).numa
        if numa >= 0:
            array[numa // 64] = 1 << (numa % 64)
        return array

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle):
        return 5 if "A100" not in self._gpu(handle).model else 4

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle):
        self._gpu(handle)
        return 16

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle):
        return self._gpu(handle).width

    def nvmlDeviceGetPcieReplayCounter(self, handle):
        return self._gpu(handle).replays

    def nvmlDeviceGetNvLinkState(self, handle, link):
        gpu = self._gpu(handle)
        if link >= len(gpu.links):
            raise self._no(pynvml.NVML_ERROR_INVALID_ARGUMENT if gpu.links else pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(link not in gpu.down)

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle, link):
        return 2 if self._gpu(handle).links[link] is SWITCH else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):
        peer = self._gpu(handle).links[link]
        return self._pci("0000:c6:00.0" if peer is SWITCH else self.gpus[peer].pci)

    def nvmlDeviceGetP2PStatus(self, one, other, index):
        assert isinstance(index, int), "the binding's constant for READ is a tuple"
        self._gpu(one)
        self._gpu(other)
        pair = frozenset((self.gpus.index(one), self.gpus.index(other)))
        if pair in self.p2p:
            return self.p2p[pair]
        return 0 if index != 2 or one.links else 5

    def nvmlDeviceGetTopologyCommonAncestor(self, one, other):
        self._gpu(one)
        self._gpu(other)
        return self.ancestors(self.gpus.index(one), self.gpus.index(other))

    def nvmlDeviceGetFieldValues(self, handle, wanted):
        gpu = self._gpu(handle)
        values = (pynvml.c_nvmlFieldValue_t * len(wanted))()
        known = {230: gpu.recovery, 91: len(gpu.links) or None, 90: gpu.mbps if gpu.links else None}
        for value, (number, link) in zip(values, wanted, strict=True):
            found = known.get(number)
            if number in (161, 162, 163) and gpu.links:
                found = gpu.link_errors if (number, link) == (161, 0) else 0
            value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED if found is None else 0
            value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
            value.value.uiVal = found or 0
        return values

    def nvmlDeviceGetGpuFabricInfoV(self, handle, reference):
        gpu = self._gpu(handle)
        if gpu.fabric is None:
            raise self._no()
        info = reference._obj
        ctypes.memmove(ctypes.addressof(info) + type(info).clusterUuid.offset, gpu.fabric[0], 16)
        info.cliqueId, info.state, info.status = gpu.fabric[1], 3, 0
        if hasattr(info, "healthSummary"):
            info.healthSummary = gpu.fabric_health
        return 0

    # --- MIG --------------------------------------------------------------------------------------------------------

    def nvmlDeviceGetMigMode(self, handle):
        gpu = self._gpu(handle)
        if not gpu.mig:
            raise self._no()
        return list(gpu.mig_mode)

    def nvmlDeviceGetGpuInstanceProfileInfo(self, handle, kind):
        gpu = self._gpu(handle)
        row = next((row for row in gpu.mig if row[0] == kind), None)
        if row is None:
            raise self._no()
        info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
        _, info.id, name, _, _, info.instanceCount, info.multiprocessorCount, info.memorySizeMB = row
        info.name = name.encode()
        return info

    def nvmlDeviceGetGpuInstancePossiblePlacements(self, handle, profile, array, count):
        row = next(row for row in self._gpu(handle).mig if row[1] == profile)
        for place, start in zip(array, row[4], strict=False):
            place.start, place.size = start, row[3]
        count._obj.value = len(row[4])
        return 0

    def nvmlDeviceGetGpuInstances(self, handle, profile, array, count):
        found = [n for n, one in self._gpu(handle).instances.items() if one[0] == profile]
        for at, number in enumerate(found):
            # An opaque pointer; its address says which GPU and instance it is.
            address = (self.gpus.index(handle) + 1) << 16 | number
            array[at] = ctypes.cast(ctypes.c_void_p(address), pynvml.c_nvmlGpuInstance_t)
        count._obj.value = len(found)
        return 0

    def nvmlGpuInstanceGetInfo(self, pointer):
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        info = pynvml.c_nvmlGpuInstanceInfo_t()
        info.id = address & 0xFFFF
        info.profileId, info.placement.start, info.placement.size = self.gpus[(address >> 16) - 1].instances[info.id]
        return info

    # --- health -----------------------------------------------------------------------------------------------------

    def nvmlDeviceGetTotalEccErrors(self, handle, kind, counter):
        return self._gpu(handle).ecc[kind]

    def nvmlDeviceGetSramEccErrorStatus(self, handle, reference):
        self._gpu(handle)
        return 0

    def nvmlDeviceGetRemappedRows(self, handle):
        gpu = self._gpu(handle)
        if gpu.remapped is None:
            raise self._no()
        return tuple(gpu.remapped)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self._gpu(handle).throttle

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._gpu(handle).temperature

    def nvmlDeviceGetTemperatureThreshold(self, handle, which):
        self._gpu(handle)
        return 92

    def nvmlDeviceGetUtilizationRates(self, handle):
        self._gpu(handle)
        return SimpleNamespace(gpu=self._gpu(handle).busy, memory=10)

    def nvmlDeviceGetPowerUsage(self, handle):
        self._gpu(handle)
        return 120_000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        self._gpu(handle)
        return 700_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [type("Process", (), {"pid": pid})() for pid in self._gpu(handle).processes]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        gpu = self._gpu(handle)
        gpu.energy += 100
        return gpu.energy

    # --- events -----------------------------------------------------------------------------------------------------

    def nvmlEventSetCreate(self):
        return "events"

    def nvmlEventSetFree(self, events):
        return None

    def nvmlDeviceGetSupportedEventTypes(self, handle):
        self._gpu(handle)
        return 0x8 | 0x8000 | 0x2

    def nvmlDeviceRegisterEvents(self, handle, mask, events):
        assert mask & 0x8
        self._gpu(handle)

    def nvmlEventSetWait_v2(self, events, timeout_ms):
        try:
            at, number = self._events.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT) from None
        event = type("Event", (), {})()
        event.device, event.eventType, event.eventData = self.gpus[at], 0x8, number
        event.gpuInstanceId = 0xFFFFFFFF
        return event
