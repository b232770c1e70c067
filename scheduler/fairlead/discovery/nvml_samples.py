"""One look at one GPU's health through `fairlead.discovery.nvml`: counters, states and temperatures, cheap to read."""

from __future__ import annotations

from fairlead.discovery.findings import Sample
from fairlead.discovery.nvml import GpuLost, Handle, Library
from fairlead.discovery.nvml_node import active_links

_UNCORRECTED, _CORRECTED, _SINCE_RESET = 1, 0, 0
_FIELD_RECOVERY = 230
# Errors of one link by field: replay, recovery and CRC up to NVLink 4; received errors and failed recoveries after.
_LINK_FIELDS = (161, 162, 163, 208, 214)
# The same summed over all links, where the driver has no fields per link: flit CRC, data CRC, replay, recovery.
_TOTAL_FIELDS = (38, 45, 52, 59)
_SENSOR_GPU, _THRESHOLD_SLOWDOWN = 0, 1


def read_sample(library: Library, where: str, handle: Handle, at_ms: int) -> tuple[Sample, tuple[int, ...] | None]:
    """Return (sample, numbers of the NVLinks that are up); a lost GPU gives a sample that says so.

    Raises
    ------
    Unreachable
        The library is gone.
    """
    library.reset_required.discard(where)
    try:
        return _sample(library, where, handle, at_ms)
    except GpuLost:
        return Sample(at_ms=at_ms, lost=True), None


def _sample(library: Library, where: str, handle: Handle, at_ms: int) -> tuple[Sample, tuple[int, ...] | None]:
    def number(name: str, *arguments: int) -> int | None:
        return library.number(where, name, handle, *arguments)

    links = active_links(library, where, handle)
    wanted = [(_FIELD_RECOVERY, 0), *((field, 0) for field in _TOTAL_FIELDS)]
    wanted += [(field, link) for link in links or () for field in _LINK_FIELDS]
    values = library.fields(where, handle, wanted)
    per_link = [value for (field, _), value in values.items() if field in _LINK_FIELDS]
    totals = [value for (field, _), value in values.items() if field in _TOTAL_FIELDS]
    rows = library.ask(where, "DeviceGetRemappedRows", handle)
    pending = failed = None
    if isinstance(rows, tuple | list) and len(rows) == 4:
        pending, failed = bool(rows[2]), bool(rows[3])
    retire = number("DeviceGetRetiredPagesPendingStatus") if rows is None else None
    throttle = number("DeviceGetCurrentClocksEventReasons")
    if throttle is None:  # its name before driver 535
        throttle = number("DeviceGetCurrentClocksThrottleReasons")
    fabric = library.fabric(where, handle)
    rates = library.ask(where, "DeviceGetUtilizationRates", handle)
    busy = getattr(rates, "gpu", None)
    sample = Sample(
        at_ms=at_ms,
        busy_percent=busy if isinstance(busy, int) and 0 <= busy <= 100 else None,
        recovery_action=values.get((_FIELD_RECOVERY, 0)),
        ecc_uncorrected=number("DeviceGetTotalEccErrors", _UNCORRECTED, _SINCE_RESET),
        ecc_corrected=number("DeviceGetTotalEccErrors", _CORRECTED, _SINCE_RESET),
        sram_exceeded=library.sram_exceeded(where, handle),
        remap_pending=pending,
        remap_failed=failed,
        retire_pending=None if retire is None else bool(retire),
        throttle=throttle,
        temperature_c=number("DeviceGetTemperature", _SENSOR_GPU),
        slowdown_c=number("DeviceGetTemperatureThreshold", _THRESHOLD_SLOWDOWN),
        power_mw=number("DeviceGetPowerUsage"),
        power_limit_mw=number("DeviceGetEnforcedPowerLimit"),
        energy_mj=number("DeviceGetTotalEnergyConsumption"),
        pcie_replays=number("DeviceGetPcieReplayCounter"),
        pcie_width=number("DeviceGetCurrPcieLinkWidth"),
        pcie_width_most=number("DeviceGetMaxPcieLinkWidth"),
        nvlink_errors=sum(per_link) if per_link else sum(totals) if totals else None,
        nvlinks_up=None if links is None else len(links),
        fabric_health=None if fabric is None else fabric.health,
        reset_required=where in library.reset_required,
    )
    return sample, links
