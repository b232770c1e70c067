"""The harder words of a gang in tests: its checkpoints, how close its members are, which nodes it wants."""

from __future__ import annotations

from fairlead.model.gang import Checkpoint, Requirement, Slices, TopologyRequest
from fairlead.model.retries import Retries
from fairlead.units import duration_ms

GIB = 1 << 30


def checkpoint_of(named: dict[str, str], reshards: bool) -> Checkpoint | None:
    if "saves" not in named:
        return None
    return Checkpoint(
        watches=named["saves"] == "file",
        signal="SIGTERM" if named["saves"] == "signal" else "",
        command=("save",) if named["saves"] == "command" else (),
        interval_ms=duration_ms(named["every"]) if "every" in named else 0,
        pause_ms=duration_ms(named.get("pause", "30s")),
        size_bytes=int(named.get("size", "0")) * GIB,
        restart_ms=duration_ms(named["restart"]) if "restart" in named else 60_000,
        path="s3://models/run",
        reshards=reshards,
        reads=tuple(sorted(named["reads"].split(","))) if "reads" in named else (),
    )


def retries_of(named: dict[str, str]) -> Retries:
    most = {name: int(n) for name, n in (part.split(":") for part in named.get("retry", "").split(",") if part)}
    return Retries(
        member_failed=most.get("member"),
        start_deadline=most.get("start"),
        hung=most.get("hung"),
        node_lost=most.get("node"),
        backoff_ms=duration_ms(named["backoff"]) if "backoff" in named else 0,
        backoff_max_ms=duration_ms(named["backoffmax"]) if "backoffmax" in named else 0,
    )


def topology_of(named: dict[str, str]) -> TopologyRequest | None:
    parts = [part.split(":") for part in named.get("slices", "").split(",") if part]
    level = named.get("within", named.get("near", "cluster"))
    if level == "cluster" and not parts:
        return None
    return TopologyRequest(
        within=level,
        required="near" not in named,
        slices=tuple(Slices(within=inner, size=int(size)) for inner, size in parts),
    )


def terms_of(text: str) -> tuple[tuple[Requirement, ...], ...]:
    key, _, values = text.partition(":")
    return ((Requirement(key=key, operator="In", values=tuple(values.split("|"))),),)
