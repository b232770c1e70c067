"""What health is judged by: a look at one GPU, the reasons it can give, and the thresholds. Tables, no rules."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.discovery.xids import Clears, Level

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Verdict(StrEnum):
    """What becomes of the GPU: healthy takes new gangs, suspect takes none, bad should also be left."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a finding behaves: `enter` sights in a row make it count, `quiet_ms` without one ends it (QUIET)."""

    level: Level
    clears: Clears
    says: str
    enter: int = 1
    quiet_ms: int = HOUR_MS


def _live(level: Level, says: str, enter: int = 1) -> Kind:
    return Kind(level=level, clears=Clears.LIVE, says=says, enter=enter)


_S, _B = Level.SUSPECT, Level.BAD
RECOVERY = {
    1: "RecoverGpuReset",
    2: "RecoverNodeReboot",
    3: "RecoverDrainP2p",
    4: "RecoverDrainAndReset",
    5: "RecoverImexDomain",
    6: "RecoverBusReset",
    7: "RecoverSystemReboot",
}
"""NVML's recovery action -> token; 0 is none, others are `RecoverUnknown`."""

KINDS: dict[str, Kind] = {
    "GpuLost": _live(_B, "the GPU does not answer"),
    "GpuMissing": _live(_B, "the driver no longer lists the GPU"),
    "ResetRequired": _live(_B, "the driver refuses the GPU until it is reset"),
    "NvmlHung": _live(_S, "the driver does not answer in time"),
    "NvmlHungLong": _live(_B, "the driver has not answered for several intervals"),
    "NvmlFailed": _live(_S, "NVML does not work on this node", enter=2),
    "RecoverGpuReset": _live(_B, "the driver asks for a reset of the GPU"),
    "RecoverNodeReboot": _live(_B, "the driver asks for a reboot of the node"),
    "RecoverDrainP2p": _live(_B, "the driver asks to drain peer-to-peer work"),
    "RecoverDrainAndReset": _live(_B, "the driver asks to drain and reset the GPU"),
    "RecoverImexDomain": _live(_S, "the driver asks to recover the IMEX domain"),
    "RecoverBusReset": _live(_B, "the driver asks for a bus reset"),
    "RecoverSystemReboot": _live(_B, "the driver asks for a reboot of the system"),
    "RecoverUnknown": _live(_S, "the driver asks for an action this version does not know"),
    "RowRemapPending": _live(_S, "a memory row waits for a reset to be remapped"),
    "PageRetirementPending": _live(_S, "a memory page waits for a reset to be retired"),
    "RowRemapFailed": Kind(level=_B, clears=Clears.NEVER, says="a memory row cannot be remapped; replace the GPU"),
    "SramThreshold": Kind(level=_B, clears=Clears.NEVER, says="SRAM errors passed the threshold; replace the GPU"),
    "EccUncorrected": Kind(level=_S, clears=Clears.RESET, says="memory errors that could not be corrected"),
    "EccCorrectedRate": Kind(level=_S, clears=Clears.QUIET, says="corrected memory errors come too fast"),
    "HwSlowdown": _live(_S, "the hardware slows the GPU down", enter=3),
    "HwThermalSlowdown": _live(_S, "the GPU is slowed down by heat", enter=3),
    "HwPowerBrake": _live(_S, "the power supply brakes the GPU", enter=3),
    "SwThermalSlowdown": _live(Level.NOTE, "the driver slows the GPU down to keep it cool", enter=3),
    "TooHot": _live(_S, "the GPU is at its slowdown temperature", enter=3),
    "PcieNarrow": _live(_S, "the PCIe link has fewer lanes than device and slot allow", enter=3),
    "PcieReplays": Kind(level=_S, clears=Clears.QUIET, says="PCIe replays come too fast"),
    "NvlinkDown": _live(_S, "NVLinks are down that were up", enter=2),
    "NvlinkErrors": Kind(level=_S, clears=Clears.QUIET, says="NVLink errors come too fast"),
    "FabricUnhealthy": _live(_S, "the NVLink fabric calls the GPU unhealthy", enter=2),
    "AppFaults": Kind(
        level=_S, clears=Clears.QUIET, says="programs of several pods faulted on this GPU", quiet_ms=DAY_MS
    ),
    "RepeatedResets": Kind(
        level=_S, clears=Clears.QUIET, says="it was reset more than once within a day; diagnose it", quiet_ms=DAY_MS
    ),
    "Probation": _live(_S, "back from a reset, not yet clean for long enough"),
}
"""Every token but ``Xid<number>``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """Thresholds. `leave` clean samples in a row end what was seen; rates are per hour."""

    leave: int = 3
    hung_long: int = 3
    corrected_per_hour: int = 1_000
    replays_per_hour: int = 600
    nvlink_errors_per_hour: int = 600
    fault_pods: int = 3
    resets_per_day: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at one GPU; None is what could not be known. `hung` counts intervals without an answer.

    Counters run up: ECC errors since the last reset, PCIe replays, errors of all NVLinks together, energy in mJ.
    `busy_percent` is how much of the driver's last sample period something computed.
    """

    at_ms: int
    busy_percent: int | None = None
    lost: bool = False
    missing: bool = False
    hung: int = 0
    failed: bool = False
    reset_required: bool = False
    recovery_action: int | None = None
    ecc_uncorrected: int | None = None
    ecc_corrected: int | None = None
    sram_exceeded: bool | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retire_pending: bool | None = None
    throttle: int | None = None
    temperature_c: int | None = None
    slowdown_c: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    energy_mj: int | None = None
    pcie_replays: int | None = None
    pcie_width: int | None = None
    pcie_width_most: int | None = None
    nvlink_errors: int | None = None
    nvlinks_up: int | None = None
    fabric_health: int | None = None

    @property
    def answered(self) -> bool:
        """Whether the GPU itself was heard."""
        return not (self.lost or self.missing or self.hung or self.failed)
