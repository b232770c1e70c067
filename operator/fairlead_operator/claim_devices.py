"""Which devices of a node's ResourceSlices the claim of a member names."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Member
from fairlead.model.hardware import Node


def claim_devices(node: Node, member: Member, profile: str) -> tuple[str, ...]:
    """Return the names, in the driver's words, of the devices that `member` holds on `node`.

    Whole GPUs have the names under which they were placed. A MIG instance is placed as its GPU and the unit where it
    begins; the driver publishes it as a device of its own. `profile` is what its role asks for, "" for whole GPUs.

    Raises
    ------
    UnreadableInput
        The node's slices name no device for that instance.
    """
    if member.mig_start < 0:
        return member.devices
    (gpu,) = member.devices
    raise UnreadableInput(
        f"node {node.name}: its ResourceSlices name no {profile or 'MIG'} device at unit {member.mig_start} of {gpu}"
    )
