"""Everything about an inventory that somebody should look at."""

from __future__ import annotations

from fairlead.model.fabric import Inventory, Warned
from fairlead.topology.contradictions import check
from fairlead.topology.graph import devices_of
from fairlead.topology.measured import slow_links


def contradictions(inventory: Inventory) -> tuple[Warned, ...]:
    """Return what contradicts itself inside each machine."""
    return tuple(
        Warned(where=found.name, what=sentence) for found in inventory.machines for sentence in check(found.machine)
    )


def findings(inventory: Inventory) -> tuple[Warned, ...]:
    """Return warnings of the sources, contradictions, narrow PCIe links, bad devices, and links slower than theory."""
    found = [*inventory.warnings, *contradictions(inventory)]
    for named in inventory.machines:
        for device in devices_of(named.machine):
            link = device.pcie
            if 0 < link.lanes < link.max_lanes:
                what = f"PCIe link runs on {link.lanes} of {link.max_lanes} lanes"
                found.append(Warned(where=f"{named.name}/{device.id}", what=what))
            if not getattr(device, "healthy", True):
                what = f"not healthy: {getattr(device, 'health_reason', '') or 'no reason given'}"
                found.append(Warned(where=f"{named.name}/{device.id}", what=what))
    return (*found, *slow_links(inventory))
