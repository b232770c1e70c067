"""What pods have of their nodes beside devices: cores, memory and NICs, for as long as they hold their devices.

Only what is held is booked, not what is left: a node's CPU and memory are shared with pods that are not ours, and what
those take is known only as a sum. While a node is lost, and where it is not in the fleet, its pods have nothing.
"""

from __future__ import annotations

from fairlead.ledger.accounts import CORES, MEMORY, NICS
from fairlead.ledger.entry import Amounts
from fairlead.model.hardware import Resources

MIB = 1 << 20


def beside_of(requests: Resources, nics: int) -> Amounts:
    """Return what a pod with these requests and so many NICs has a ms; memory in MiB, rounded up."""
    found = ((CORES, requests.cpu_milli), (MEMORY, -(-requests.memory_bytes // MIB)), (NICS, nics))
    return tuple((unit, amount) for unit, amount in found if amount > 0)
