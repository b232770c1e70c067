"""What one member takes of its node: the unit in which holds, columns and what-ifs count."""

from __future__ import annotations

import msgspec

from fairlead.discovery.cpu_list import cpu_mask
from fairlead.model.gang import Gang, Isolation, Member, PodShape, Role, Share


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one pod takes: devices whole, by share or as a MIG instance, cores, NICs, and what its pod requests.

    `group` names whose shares may lie beside this one on a device, "" where nobody's; of a MIG instance, its tenant.
    `cpus` is a CPU list.
    """

    devices: tuple[str, ...] = ()
    shape: PodShape = msgspec.field(default_factory=PodShape)
    share: Share | None = None
    group: str = ""
    mig: str = ""
    mig_start: int = -1
    cpus: str = ""
    nics: tuple[str, ...] = ()
    gpu_milli: int = 0

    @property
    def cpu_bits(self) -> int:
        """`cpus` as bits of an integer, 0 where it is no list."""
        return cpu_mask(self.cpus) if self.cpus else 0


def use_of(gang: Gang | None, member: Member) -> Use:
    """Return what a member takes; of a gang whose spec is unknown, its devices and one pod."""
    role = None if gang is None else next((role for role in gang.roles if role.name == member.role), None)
    return Use(
        devices=member.devices,
        shape=PodShape() if role is None else role.pod,
        share=None if role is None else role.share,
        group="" if gang is None or role is None else share_group(gang, role),
        mig="" if role is None else role.mig,
        mig_start=member.mig_start,
        cpus=member.cpus,
        nics=member.nics,
        gpu_milli=member.gpu_milli,
    )


TENANT, STRICT_TENANT = "/mig:", "/strict-mig:"
"""How names of the groups of MIG instances begin, the queue's name following; no namespace begins like that."""


def share_group(gang: Gang, role: Role) -> str:
    """Return whose shares a role's may lie beside: those of its namespace, and where it is strict of its queue.

    One device is in one claim, and only pods of one namespace can use a claim together. An instance has a claim of its
    own: it may lie beside any, unless it or one of those is strict, and then of its own queue only.
    """
    if role.mig:
        return (STRICT_TENANT if gang.isolation is Isolation.STRICT else TENANT) + gang.queue
    if role.share is None:
        return ""
    strict = f"/{gang.queue}" if gang.isolation is Isolation.STRICT else ""
    return f"{gang.namespace}{strict}:{role.share.mode.value}"
