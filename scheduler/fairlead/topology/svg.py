"""Pictures of an inventory as SVG: of one machine its inside, of several the fabric between them."""

from __future__ import annotations

from fairlead.model.fabric import Inventory
from fairlead.topology.fabric_picture import draw_fabric
from fairlead.topology.machine_picture import draw_machine


def picture(inventory: Inventory) -> str:
    """Return an SVG document: the machine where there is one with devices, else the fabric."""
    if len(inventory.machines) == 1:
        return draw_machine(inventory.machines[0])
    return draw_fabric(inventory)
