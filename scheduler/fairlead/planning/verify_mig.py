"""The part of the second opinion that looks at MIG instances: they exist, overlap nobody's, and strict ones are apart.

Counted from the driver's own tables of starts and sizes, without a look at the grids that placement uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead.model.gang import Gang, Isolation, Member, Role
from fairlead.model.hardware import Gpu, Node, NodeName
from fairlead.model.partitions import MigProfile
from fairlead.world.snapshot import World


@dataclass(frozen=True, slots=True)
class Laid:
    """One instance on a device: its profile, its first unit, and whose it is."""

    profile: str
    start: int
    queue: str
    strict: bool


@dataclass(slots=True)
class Instances:
    """What lies on devices in instances: of those who run, and what the plan has laid so far."""

    on: dict[tuple[NodeName, str], list[Laid]] = field(default_factory=dict[tuple[NodeName, str], list[Laid]])
    counted: bool = False

    def count(self, world: World) -> None:
        """Take up what attempts hold in this world, once."""
        if self.counted:
            return
        self.counted = True
        for attempt in world.running:
            if attempt.spec is None:
                continue
            roles = {role.name: role for role in attempt.spec.roles}
            for rank in attempt.holding:
                member = attempt.placement.members[rank]
                role = roles.get(member.role)
                if role is not None and role.mig:
                    self.lay(attempt.spec, role, member)

    def lay(self, gang: Gang, role: Role, member: Member) -> None:
        """Take up one member's instance."""
        laid = Laid(role.mig, member.mig_start, gang.queue, gang.isolation is Isolation.STRICT)
        for device in member.devices:
            self.on.setdefault((member.node, device), []).append(laid)


def check_instance(
    gang: Gang, role: Role, member: Member, node: Node, gpu: Gpu, world: World, there: Instances
) -> Iterator[str]:
    """One member's instance on a device beside what is there."""
    there.count(world)
    beside = there.on.get((node.name, gpu.device), [])
    where = f"{gang.full_name}: {node.name}/{gpu.device}"
    profiles = {p.name: p for p in (gpu.mig.profiles if gpu.mig is not None else ()) if p.starts}
    mine = profiles.get(role.mig)
    if gpu.mig is None or mine is None or member.mig_start not in mine.starts:
        yield f"{where} has no {role.mig} at {member.mig_start}"
        return
    if not gpu.mig.dynamic and not any(
        (found.profile, found.start) == (mine.id, member.mig_start) for found in gpu.mig.instances
    ):
        yield f"{where} is not cut into a {role.mig} at {member.mig_start}"
    units = max(start + p.size for p in profiles.values() for start in p.starts)
    if member.share_milli != 1000 * mine.size // units:
        yield f"{where}: a {role.mig} is {mine.size} of {units} units, {member.share_milli} are charged"
    row = world.inventory.row[node.name]
    if gpu.whole and not beside and gpu.device not in world.inventory.devices(row, int(world.free.free_mask[row])):
        yield f"{where} is not free"
    taken = _span(mine, member.mig_start)
    for other in beside:
        found = profiles.get(other.profile)
        if found is None or taken & _span(found, other.start):
            yield f"{where}: a {role.mig} at {member.mig_start} overlaps the {other.profile} at {other.start}"
    if sum(other.profile == role.mig for other in beside) >= mine.most:
        yield f"{where} has {mine.most} {role.mig} at most"
    strict = gang.isolation is Isolation.STRICT
    if any((strict or other.strict) and other.queue != gang.queue for other in beside):
        yield f"{where} is shared with another tenant although isolation is strict"
    there.lay(gang, role, member)


def _span(profile: MigProfile, start: int) -> set[int]:
    return set(range(start, start + profile.size))
