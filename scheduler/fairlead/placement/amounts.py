"""Amounts in one order: CPU, memory, ephemeral storage and pods, then extended resources as the caller names them."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.model.gang import PodShape
from fairlead.world.fleet import Columns, IntColumn

FIXED = ("cpu_milli", "memory_bytes", "ephemeral_bytes", "pods")
"""What every node gives, as `Resources` and `Columns` call it; extended resources follow."""


def fixed_asked(shape: PodShape) -> tuple[int, int, int, int]:
    """Return what a pod takes of `FIXED`; it is one pod at least."""
    asked = shape.requests
    return asked.cpu_milli, asked.memory_bytes, asked.ephemeral_bytes, max(1, asked.pods)


def fixed_columns(columns: Columns) -> tuple[IntColumn, IntColumn, IntColumn, IntColumn]:
    """Return the columns of `FIXED`."""
    return columns.cpu_milli, columns.memory_bytes, columns.ephemeral_bytes, columns.pods


def amounts_asked(shape: PodShape, extended: Sequence[str]) -> tuple[int, ...]:
    """Return what a pod takes of `FIXED` and of the extended resources of these names."""
    more = dict(shape.requests.extended)
    return (*fixed_asked(shape), *(more.get(name, 0) for name in extended))


def amounts_left(row: int, columns: Columns, extended: Sequence[str]) -> list[int]:
    """Return what a row has left of the same; 0 of a resource that no node has."""
    left = [int(column[row]) for column in fixed_columns(columns)]
    return left + [int(columns.extended[name][row]) if name in columns.extended else 0 for name in extended]
