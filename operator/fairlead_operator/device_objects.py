"""Dynamic resource allocation as the operator reads it (`resource.k8s.io/v1`): claims, and drivers' slices."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

import msgspec

from fairlead_operator.objects import Meta, NodeSelector, Plain, Record, Resource, TaintSpec


class DeviceResult(Record, frozen=True, kw_only=True):
    """One allocated device of a claim."""

    request: str = ""
    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool | None = None
    share_id: str | None = msgspec.field(default=None, name="shareID")


class DeviceResults(Record, frozen=True, kw_only=True):
    """The devices of an allocation."""

    results: list[DeviceResult] = []


class AllocationResult(Record, frozen=True, kw_only=True):
    """What a claim holds, and where that may be used."""

    devices: DeviceResults = DeviceResults()
    node_selector: NodeSelector | None = None
    allocation_timestamp: str | None = None


class Consumer(Record, frozen=True, kw_only=True):
    """Who a claim is reserved for."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(Record, frozen=True, kw_only=True):
    """The state of a ResourceClaim."""

    allocation: AllocationResult | None = None
    reserved_for: list[Consumer] = []


class Claim(Record, frozen=True, kw_only=True):
    """A ResourceClaim; its spec is immutable and, for ours, known."""

    metadata: Meta = Meta()
    status: ClaimStatus = ClaimStatus()


class AttributeValue(Record, frozen=True, kw_only=True):
    """A device attribute; exactly one of these is set."""

    string: str | None = None
    int_: int | None = msgspec.field(default=None, name="int")
    bool_: bool | None = msgspec.field(default=None, name="bool")
    version: str | None = None


class CapacityValue(Record, frozen=True, kw_only=True):
    """A device capacity as a quantity in text."""

    value: str = "0"


class SliceDeviceSpec(Record, frozen=True, kw_only=True):
    """One device of a ResourceSlice as the driver publishes it."""

    name: str = ""
    attributes: dict[str, AttributeValue] = {}
    capacity: dict[str, CapacityValue] = {}
    taints: list[TaintSpec] = []


class SlicePool(Record, frozen=True, kw_only=True):
    """Which pool a slice belongs to, and how many slices make it whole."""

    name: str = ""
    generation: int = 0
    resource_slice_count: int = 1


class SliceSpec(Record, frozen=True, kw_only=True):
    """What a driver publishes in one slice."""

    driver: str = ""
    node_name: str = ""
    pool: SlicePool = SlicePool()
    devices: list[SliceDeviceSpec] = []


class Slice(Record, frozen=True, kw_only=True):
    """A ResourceSlice."""

    metadata: Meta = Meta()
    spec: SliceSpec = SliceSpec()


CLAIMS = Resource("ResourceClaim", "/apis/resource.k8s.io/v1", "resourceclaims", Claim)
SLICES = Resource("ResourceSlice", "/apis/resource.k8s.io/v1", "resourceslices", Slice, namespaced=False)
DEVICE_CLASSES = Resource("DeviceClass", "/apis/resource.k8s.io/v1", "deviceclasses", Plain, namespaced=False)
