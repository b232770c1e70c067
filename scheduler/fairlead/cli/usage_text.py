"""What `fairlead report usage` prints for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from fairlead.cli import render
from fairlead.units import gpu_hours_text

if TYPE_CHECKING:
    from fairlead.reports.usage import UsageReport


def print_usage(found: UsageReport) -> None:
    """Print who held what by tier, then where each pool's time went, in GPU-hours."""
    wanted = [("TENANT", "tenant"), ("QUEUE", "queue"), ("NAMESPACE", "namespace"), ("JOB", "name")]
    named = wanted[: {"tenant": 1, "queue": 2, "job": 4}[found.by]]
    hours = [("IN-QUOTA", "in_quota"), ("BORROWED", "borrowed"), ("RESERVED", "reserved")]
    head = [*(title for title, _ in [*named, *hours]), "GPU-H"]
    rows = [
        [
            *(getattr(row, name) for _, name in named),
            *(gpu_hours_text(getattr(row, f"{name}_gpu_ms")) for _, name in hours),
            gpu_hours_text(row.gpu_ms),
        ]
        for row in found.rows
    ]
    render.table(head, rows, right=frozenset(head[len(named) :]))
    typer.echo("")
    kinds = ("capacity", "held", "reserved_idle", "stranded", "free", "down", "unmanaged")
    head = ["POOL", *(kind.replace("_", "-").upper() for kind in kinds)]
    rows = [
        [row.pool, *(gpu_hours_text(getattr(row, f"{kind}_gpu_ms")) for kind in kinds)] for row in found.fleet
    ]  # fmt: skip
    render.table(head, rows, right=frozenset(head[1:]))
    as_of = datetime.fromtimestamp(found.as_of_ms / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(f"\nGPU-hours as of {as_of.replace('+00:00', 'Z')}")
