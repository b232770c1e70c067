"""Which devices of a node's ResourceSlices the claim of a member names."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Member
from fairlead.model.hardware import Node
from fairlead.topology.mig_devices import device_name


def claim_devices(node: Node, member: Member, profile: str) -> tuple[str, ...]:
    """Return the names, in the driver's words, of the devices that `member` holds on `node`.

    Whole GPUs have the names under which they were placed. A MIG instance is placed as its GPU and the unit where it
    begins; the driver publishes it as a device of its own. `profile` is what its role asks for, "" for whole GPUs.

    Raises
    ------
    UnreadableInput
        The node's slices name no device for that instance (any more).
    """
    if member.mig_start < 0:
        return member.devices
    (device,) = member.devices
    gpu = next((gpu for gpu in node.machine.gpus if gpu.device == device), None)
    try:
        if gpu is not None:
            return (device_name(gpu, profile, member.mig_start),)
    except KeyError:
        pass
    raise UnreadableInput(
        f"node {node.name}: its ResourceSlices name no {profile or 'MIG'} device at unit {member.mig_start} of {device}"
    )
