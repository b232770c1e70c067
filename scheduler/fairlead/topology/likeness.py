"""Machines of one kind, told by what decides how their devices hang together; names, addresses and health aside.

A fleet has thousands of machines of few kinds. What follows from the kind is worked out once.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Generic, TypeVar

from fairlead.model.hardware import Link, Machine

T = TypeVar("T")
Kind = tuple[object, ...]
REMEMBERED = 65_536
"""Machines, and tuples of links, that are recognised by identity before they are compared again."""

_GPU = attrgetter(
    "id", "numa", "pcie_root", "pcie_switch", "package", "memory_numa", "pcie_parent", "pcie", "model", "memory_bytes"
)
_NIC = attrgetter(
    "id", "numa", "pcie_root", "pcie_switch", "bytes_per_s", "rail", "kind", "state", "package", "pcie_parent", "pcie"
)


class ByKind(Generic[T]):
    """One value for each kind of machine. Links that machines share are compared once. Not shared between threads."""

    __slots__ = ("_by_kind", "_by_machine", "_links", "_numbers")

    def __init__(self) -> None:
        """Start empty."""
        self._by_machine: dict[int, tuple[Machine, T]] = {}
        self._by_kind: dict[Kind, T] = {}
        self._links: dict[int, tuple[tuple[Link, ...], int]] = {}
        self._numbers: dict[tuple[Link, ...], int] = {}

    def get(self, machine: Machine, make: Callable[[Machine], T]) -> T:
        """Return the value of the machine's kind, made from the first machine of that kind."""
        known = self._by_machine.get(id(machine))  # the tuple keeps the machine alive, so its id stays its own
        if known is not None:
            return known[1]
        kind = self._kind(machine)
        if kind not in self._by_kind:
            self._by_kind[kind] = make(machine)
        if len(self._by_machine) >= REMEMBERED:
            self._by_machine.clear()
        self._by_machine[id(machine)] = machine, self._by_kind[kind]
        return self._by_kind[kind]

    def _kind(self, machine: Machine) -> Kind:
        """Return a value that is equal for machines of one kind."""
        return (
            self._number(machine.links),
            tuple(map(_GPU, machine.gpus)),
            tuple(map(_NIC, machine.nics)),
            machine.numa_nodes,
            machine.pcie,
        )

    def _number(self, links: tuple[Link, ...]) -> int:
        known = self._links.get(id(links))
        if known is None:
            if len(self._links) >= REMEMBERED:
                self._links.clear()
            known = self._links[id(links)] = links, self._numbers.setdefault(links, len(self._numbers))
        return known[1]
