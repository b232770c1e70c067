"""Pools for tests from one-line texts; `builders` has the rest."""

from __future__ import annotations

import re

from fairlead.model.gang import ServiceClass
from fairlead.model.protection import Protection, Spares
from fairlead.model.service_classes import Borrows, OwnTerms
from fairlead.model.tenancy import SHARING_MODES, LevelBudget, Pool
from fairlead.timezones import window_of
from fairlead.units import duration_ms


def words(text: str) -> tuple[list[str], dict[str, str]]:
    """Split into plain words and key=value pairs."""
    plain, named = [], {}
    for word in str(text).split():
        key, found, value = word.partition("=")
        if found:
            named[key] = value
        else:
            plain.append(word)
    return plain, named


def pool(text: str = "", name: str = "fleet") -> Pool:
    """budget=rack/watts:1000,cluster/storage:20 (what every domain of a level has), sharing=mig,mps,time-slice (all
    unless said; ``sharing=`` is nothing), classes=; slow-serving (serving may use time slices). Kept free: protect=16
    for= (serving) redundancy= windows=08:30-20:00,22:00-23:00 days=mon,fri zone= (UTC) lead= lend= return= unit=;
    ceiling=70; warm=4, hot=1 (nodes); borrows=batch:never,training:yielding.
    storage=100 (GiB/s that it takes of checkpoints)."""
    plain, named = words(text)
    parts = [re.split("[/:]", part) for part in named.get("budget", "").split(",") if part]
    sharing = named.get("sharing")
    return Pool(
        name=name,
        node_selector=(),
        service_classes=tuple(ServiceClass(c) for c in named["classes"].split(",")) if "classes" in named else None,
        sharing=SHARING_MODES if sharing is None else tuple(m for m in sharing.split(",") if m),
        serving_on_time_slices="slow-serving" in plain,
        budgets=tuple(LevelBudget(level=level, resource=what, amount=int(n)) for level, what, n in parts),
        checkpoint_bytes_per_s=int(named["storage"]) << 30 if "storage" in named else None,
        protected=(_protection(named),) if "protect" in named else (),
        ceiling_percent=int(named["ceiling"]) if "ceiling" in named else None,
        spares=Spares(warm_gpus=int(named.get("warm", "0")), hot_nodes=int(named.get("hot", "0")))
        if named.keys() & {"warm", "hot"}
        else None,
        class_terms=tuple(
            OwnTerms(service_class=ServiceClass(kind), borrows=Borrows(how))
            for kind, how in (part.split(":") for part in named.get("borrows", "").split(",") if part)
        ),
    )


def _protection(named: dict[str, str]) -> Protection:
    days = tuple(named["days"].split(",")) if "days" in named else None
    spans = [span.split("-") for span in named.get("windows", "").split(",") if span]
    return Protection(
        service_class=ServiceClass(named.get("for", "serving")),
        gpus=int(named["protect"]),
        redundancy=int(named.get("redundancy", "0")),
        windows=tuple(window_of(days, a, b, named.get("zone", "UTC"), field="windows") for a, b in spans),
        lead_ms=duration_ms(named.get("lead", "30m")),
        lend_gpus=int(named.get("lend", "0")),
        return_within_ms=duration_ms(named.get("return", "5m")),
        unit_gpus=int(named.get("unit", "1")),
    )
