"""The only door to NVML: the module pynvml of nvidia-ml-py, wrapped so that no single call can spoil a reading.

A call that the driver or the binding does not have gives None. A call that fails gives None and a warning. Only three
things are raised: `GpuLost` where the GPU itself is gone, `Unreachable` where the whole library is, and `MissingExtra`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from fairlead.errors import FairleadError, MissingExtra, Unreachable

Found = TypeVar("Found")
Handle = Any
"""A device as NVML knows it; stale after a reset or a new `open`."""

# NVML's own error codes (nvml.h); the numbers never change.
_UNINITIALIZED, _INVALID_ARGUMENT, _NOT_SUPPORTED, _NOT_FOUND, _DRIVER_NOT_LOADED, _TIMEOUT = 1, 2, 3, 6, 9, 10
_FUNCTION_NOT_FOUND, _GPU_IS_LOST, _RESET_REQUIRED, _VERSION_MISMATCH, _GPU_NOT_FOUND = 13, 15, 16, 18, 28
# An argument is invalid where a driver is older than a link number, field or profile that we ask for.
_SIMPLY_NOT_THERE = frozenset({_INVALID_ARGUMENT, _NOT_SUPPORTED, _NOT_FOUND, _FUNCTION_NOT_FOUND, 21, 22, 25, 26, 27})
_LIBRARY_GONE = frozenset({_UNINITIALIZED, _DRIVER_NOT_LOADED, _VERSION_MISMATCH})
_XID_EVENT, _RECOVERY_EVENT, _UNAVAILABLE_EVENT = 0x8, 0x8000, 0x4000
_MOST_WARNINGS = 200
_MOST_PLACEMENTS = 64


class GpuLost(FairleadError):
    """The GPU does not answer any more: it fell off the bus, or is being reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """A GPU's place in the NVLink fabric. `state` 3: joined. `health` 1: healthy, 2: not, 3: limited, 0: unknown."""

    clique: str
    state: int
    status: int
    health: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEvent:
    """What the driver told by itself: an XID with its number, or a changed recovery action (`xid` 0)."""

    uuid: str
    xid: int
    instance: int = -1


def load() -> Library:
    """Import pynvml and wrap it; nothing is asked of the driver yet.

    Raises
    ------
    MissingExtra
        nvidia-ml-py is not installed.
    """
    try:
        import pynvml
    except ImportError as missing:
        raise MissingExtra("reading GPUs needs nvidia-ml-py: pip install nvidia-ml-py") from missing
    return Library(pynvml)


class Library:
    """One process's session with NVML. Not for several threads at once, except `wait_event`."""

    def __init__(self, module: ModuleType | Any) -> None:
        """Wrap `module`, which has pynvml's functions, structures and NVMLError."""
        self._nvml = module
        self.reset_required: set[str] = set()
        """Where a call was refused until the GPU is reset; whoever reads it empties it."""
        self._opened = False
        self._warnings: dict[str, None] = {}

    # --- session ----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self._opened

    def open(self) -> None:
        """Start a session, if there is none.

        Raises
        ------
        Unreachable
            No driver, no library, or the two do not fit; the text has NVML's own words.
        """
        if self._opened:
            return
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise Unreachable(f"NVML does not start: {_words(error)}; is the NVIDIA driver loaded on this node?") from (
                error
            )
        self._opened = True

    def close(self) -> None:
        """End the session, so that the driver may reset GPUs or change their MIG mode."""
        if self._opened:
            self._opened = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                self.warn("nvml", f"shutdown: {_words(error)}")

    def warn(self, where: str, what: str) -> None:
        """Remember what could not be known; the same words stand once."""
        if len(self._warnings) < _MOST_WARNINGS:
            self._warnings[f"{where}: {what}"] = None

    def take_warnings(self) -> tuple[str, ...]:
        """Return the warnings since the last time, and forget them."""
        found, self._warnings = tuple(self._warnings), {}
        return found

    def ask(self, where: str, name: str, *arguments: Any) -> Any:
        """Call ``nvml<name>``; None where it is not to be known.

        Raises
        ------
        GpuLost
            The device is gone.
        Unreachable
            The library or driver is gone.
        """
        function = getattr(self._nvml, f"nvml{name}", None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            code = int(getattr(error, "value", 999))
            if code in (_GPU_IS_LOST, _GPU_NOT_FOUND):
                raise GpuLost(f"{where}: {_words(error)}") from error
            if code in _LIBRARY_GONE:
                self._opened = False
                raise Unreachable(f"{where}: {name}: {_words(error)}") from error
            if code == _RESET_REQUIRED:
                self.reset_required.add(where)
            elif code not in _SIMPLY_NOT_THERE:
                self.warn(where, f"{name}: {_words(error)}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ctypes.ArgumentError) as error:
            self.warn(where, f"{name}: {type(error).__name__} in the binding: {error}")
        return None

    def read(self, where: str, name: str, convert: Callable[[Any], Found], *arguments: Any) -> Found | None:
        """Call ``nvml<name>`` and convert its answer; None with a warning where the answer is of another kind."""
        answer = self.ask(where, name, *arguments)
        if answer is None:
            return None
        try:
            return convert(answer)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self.warn(where, f"{name}: its answer cannot be read: {error}")
            return None

    def number(self, where: str, name: str, *arguments: Any) -> int | None:
        """Call ``nvml<name>`` for a whole number; what is none becomes None."""
        found = self.ask(where, name, *arguments)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def text(self, where: str, name: str, *arguments: Any) -> str:
        """Call ``nvml<name>`` for a text; "" where it is not to be known."""
        return _text(self.ask(where, name, *arguments))

    # --- what needs structures --------------------------------------------------------------------------------------

    def pci(self, where: str, name: str, *arguments: Any) -> str:
        """Call a function that gives PCI information; return the bus id as NVML writes it."""
        return _text(getattr(self.ask(where, name, *arguments), "busId", ""))

    def fields(self, where: str, handle: Handle, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
        """Return those of the (field, scope) values that the driver gives, all in one call."""
        values = self.ask(where, "DeviceGetFieldValues", handle, list(wanted))
        found: dict[tuple[int, int], int] = {}
        try:
            for key, value in zip(wanted, values or (), strict=False):
                if int(value.nvmlReturn) == 0:
                    member = _UNION.get(int(value.valueType))
                    if member:
                        found[key] = int(getattr(value.value, member))
        except (AttributeError, TypeError, ValueError) as error:
            self.warn(where, f"DeviceGetFieldValues: {error}")
        return found

    def fabric(self, where: str, handle: Handle) -> Fabric | None:
        """Return the GPU's place in the NVLink fabric, None where it has none."""
        for struct, name in (
            ("c_nvmlGpuFabricInfo_v3_t", "DeviceGetGpuFabricInfoV"),
            ("c_nvmlGpuFabricInfo_v2_t", "DeviceGetGpuFabricInfoV"),
            ("c_nvmlGpuFabricInfo_t", "DeviceGetGpuFabricInfo"),
        ):
            made = getattr(self._nvml, struct, None)
            if made is None:
                continue
            info = made()
            if self.ask(where, name, handle, ctypes.byref(info)) is None or int(info.state) == 0:
                continue
            raw = bytes(info.clusterUuid).hex()
            cluster = "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
            return Fabric(
                clique=f"{cluster}.{int(info.cliqueId)}" if raw.strip("0") else "",
                state=int(info.state),
                status=int(info.status),
                health=int(getattr(info, "healthSummary", 0)),
            )
        return None

    def placements(self, where: str, handle: Handle, profile: int) -> tuple[tuple[int, int], ...]:
        """Return (start, size) of every place where an instance of a MIG profile may lie."""
        count = ctypes.c_uint(_MOST_PLACEMENTS)
        made = getattr(self._nvml, "c_nvmlGpuInstancePlacement_t", None)
        if made is None:
            return ()
        array = (made * _MOST_PLACEMENTS)()
        name = "DeviceGetGpuInstancePossiblePlacements"
        if self.ask(where, name, handle, profile, array, ctypes.byref(count)) is None:
            return ()
        return tuple(sorted((int(p.start), int(p.size)) for p in array[: min(count.value, _MOST_PLACEMENTS)]))

    def instances(self, where: str, handle: Handle, profile: int) -> tuple[tuple[int, int, int], ...]:
        """Return (id, start, size) of the GPU instances of one MIG profile."""
        made = getattr(self._nvml, "c_nvmlGpuInstance_t", None)
        if made is None:
            return ()
        count = ctypes.c_uint(_MOST_PLACEMENTS)
        array = (made * _MOST_PLACEMENTS)()
        if self.ask(where, "DeviceGetGpuInstances", handle, profile, array, ctypes.byref(count)) is None:
            return ()
        found = [
            self.read(where, "GpuInstanceGetInfo", _instance, one)
            for one in array[: min(count.value, _MOST_PLACEMENTS)]
        ]
        return tuple(sorted(instance for instance in found if instance is not None))

    def sram_exceeded(self, where: str, handle: Handle) -> bool | None:
        """Whether SRAM errors passed the vendor's threshold for replacement."""
        made = getattr(self._nvml, "c_nvmlEccSramErrorStatus_v1_t", None)
        if made is None:
            return None
        status = made()
        if self.ask(where, "DeviceGetSramEccErrorStatus", handle, ctypes.byref(status)) is None:
            return None
        return bool(status.bThresholdExceeded)

    # --- events -----------------------------------------------------------------------------------------------------

    def listen(self, handles: Sequence[Handle]) -> Any:
        """Return an event set that hears the XIDs of `handles` (whole GPUs), None where the driver has no events."""
        events = self.ask("events", "EventSetCreate")
        if events is None:
            return None
        heard = 0
        for handle in handles:
            try:
                supported = self.number("events", "DeviceGetSupportedEventTypes", handle) or 0
                mask = supported & (_XID_EVENT | _RECOVERY_EVENT | _UNAVAILABLE_EVENT)
                if mask:
                    self.ask("events", "DeviceRegisterEvents", handle, mask, events)
                    heard += 1
            except GpuLost:
                continue
        if heard:
            return events
        self.free(events)
        return None

    def free(self, events: Any) -> None:
        """Give an event set back."""
        self.ask("events", "EventSetFree", events)

    def wait_event(self, events: Any, timeout_ms: int) -> DriverEvent | None:
        """Wait for one event; None after `timeout_ms`. The only call that another thread may make.

        Raises
        ------
        Unreachable
            Events cannot be heard any more; open a new session.
        """
        try:
            event = self._nvml.nvmlEventSetWait_v2(events, timeout_ms)
        except self._nvml.NVMLError as error:
            if int(getattr(error, "value", 999)) == _TIMEOUT:
                return None
            raise Unreachable(f"events: {_words(error)}") from error
        try:
            uuid = _text(self._nvml.nvmlDeviceGetUUID(event.device))
        except self._nvml.NVMLError:
            uuid = ""  # a GPU that is lost cannot say who it is; the caller asks every GPU then
        whole = int(event.gpuInstanceId) == 0xFFFFFFFF
        xid = int(event.eventData) if int(event.eventType) == _XID_EVENT else 0
        return DriverEvent(uuid=uuid, xid=xid, instance=-1 if whole else int(event.gpuInstanceId))


_UNION = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def _instance(info: Any) -> tuple[int, int, int]:
    """Return (id, start, size) of a GPU instance."""
    return int(info.id), int(info.placement.start), int(info.placement.size)


def _text(value: Any) -> str:
    """Return what a binding gives as text, in whichever type it has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace").rstrip("\0")
    return value if isinstance(value, str) else ""


def _words(error: Exception) -> str:
    """Return NVML's words; the binding itself may fail to find them."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"error {getattr(error, 'value', '?')}"
