"""What a Pool object says in its spec."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fairlead.model.windows import Window
from fairlead.timezones import window_of
from fairlead_operator.objects import Record


class LevelBudgetSpec(Record, frozen=True, kw_only=True):
    """How much of a resource every domain of a level has."""

    level: str = ""
    resource: str = ""
    amount: str | int = ""


class WindowSpec(Record, frozen=True, kw_only=True):
    """Every week on some days from one time of the day to another."""

    days: list[str] | None = None
    begins: str = msgspec.field(name="from", default="")
    ends: str = msgspec.field(name="to", default="")
    time_zone: str = "UTC"


def windows_of(said: Sequence[WindowSpec], *, field: str) -> tuple[Window, ...]:
    """Return windows from what an object says under `field`.

    Raises
    ------
    UnreadableInput
        One of them says what is no window; the text names the field.
    """
    return tuple(
        window_of(
            None if window.days is None else tuple(window.days),
            window.begins,
            window.ends,
            window.time_zone,
            field=f"{field}[{number}]",
        )
        for number, window in enumerate(said)
    )


class ProtectionSpec(Record, frozen=True, kw_only=True):
    """GPUs that a pool keeps for a service class."""

    service_class: str = "serving"
    gpus: int = 0
    redundancy: int = 0
    unit_gpus: int = 1
    windows: list[WindowSpec] = []
    lead: str = "30m"
    lend_gpus: int = 0
    return_within: str = "10m"


class SparesSpec(Record, frozen=True, kw_only=True):
    """What a pool keeps free for starts and for failures."""

    warm_gpus: int = 0
    service_class: str = "serving"
    hot_nodes: int = 0


class ClassTermsSpec(Record, frozen=True, kw_only=True):
    """What holds in a pool for a service class."""

    service_class: str = ""
    borrows: str = ""


class PoolSpec(Record, frozen=True, kw_only=True):
    """Which nodes Fairlead alone allocates, and what may be done with them."""

    node_selector: dict[str, str] = {}
    service_classes: list[str] | None = None
    taint: bool = True
    mode: str = "dra"
    driver: str = "gpu.nvidia.com"
    device_class_name: str = "gpu.nvidia.com"
    mig_device_class_name: str = "mig.nvidia.com"
    sharing: list[str] | None = None
    mig: str = "static"
    serving_on_time_slices: bool = False
    budgets: list[LevelBudgetSpec] = []
    checkpoint_bandwidth: str | int = ""
    protected: list[ProtectionSpec] = []
    ceiling_percent: int | None = None
    spares: SparesSpec | None = None
    class_terms: list[ClassTermsSpec] = []
