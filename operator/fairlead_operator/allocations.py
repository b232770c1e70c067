"""Where a gang is, as GangJob.status and the annotations of its pods say it: written small, read back exactly.

A member is ``worker-0=gpu-[0-7]``, its devices along their ring, and then, each after a semicolon, what else was chosen
for it: ``milli=250`` (the part of its one GPU), ``mig=4`` (the unit of the GPU's grid where its instance begins),
``cpus=0-47`` and ``nics=mlx5_[0-7]``. In a status a CPU list stands once, in ``cpuSets``, and members name it by its
place (``cpus=@0``): where cores are numbered in turn over the sockets, lists are long, and 4,096 of them fill an
object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Member, Placement
from fairlead.model.hardware import NodeName
from fairlead.model.ranges import fold, unfold

if TYPE_CHECKING:  # the plugin reads members too and starts sooner without these
    from fairlead_operator.custom_objects import Allocation, NominationStatus
    from fairlead_operator.gangjob_status import PromiseStatus

_MEND = "leave status to the operator"
PENALTIES_MAX = 16
PENALTY_CHARS_MAX = 512
"""What the schema of GangJob allows; a status that it refuses would say nothing at all."""


def placement_status(placement: Placement) -> dict[str, Any]:
    """Write a placement for a status, members in rank order; a node stands again where ranks come back to it."""
    cpu_sets: dict[str, int] = {}
    members: list[dict[str, Any]] = []
    for member in placement.members:
        cpus = f"@{cpu_sets.setdefault(member.cpus, len(cpu_sets))}" if member.cpus else ""
        text = f"{member.role}-{member.index}={held_text(member, cpus)}"
        if members and members[-1]["node"] == member.node:
            members[-1]["pods"].append(text)
        else:
            members.append({"node": str(member.node), "pods": [text]})
    return {
        "domain": placement.domain,
        "level": placement.level,
        "pace": placement.pace_bytes_per_s,
        "span": dict(placement.span),
        "penalties": [_shortened(text) for text in placement.penalties[:PENALTIES_MAX]],
        "cpuSets": list(cpu_sets),
        "members": members,
    }


def read_placement(found: Allocation | NominationStatus | PromiseStatus) -> Placement:
    """Read what `placement_status` wrote.

    Raises
    ------
    UnreadableInput
        Somebody else has edited the status.
    """
    return Placement(
        members=read_members(((group.node, group.pods) for group in found.members), found.cpu_sets),
        level=found.level,
        domain=found.domain,
        pace_bytes_per_s=found.pace,
        span=tuple(sorted(found.span.items())),
        penalties=tuple(found.penalties),
    )


def read_members(groups: Iterable[tuple[str, Sequence[str]]], cpu_sets: Sequence[str]) -> tuple[Member, ...]:
    """Read the members of a status from (node, texts) in rank order.

    Raises
    ------
    UnreadableInput
        Somebody else has edited the status.
    """
    members: list[Member] = []
    for node, pods in groups:
        for text in pods:
            who, equals, held = text.partition("=")
            role, _, index = who.rpartition("-")
            if not equals or not role or not index.isdecimal():
                raise UnreadableInput(f"status.allocation.members: {text!r} is not role-index=devices; {_MEND}")
            members.append(read_member(held, role, int(index), len(members), NodeName(node), cpu_sets))
    return tuple(members)


def held_text(member: Member, cpus: str) -> str:
    """Write what a member holds; `cpus` stands for its CPU list.

    >>> held_text(Member(role="w", index=0, rank=0, node=NodeName("n"), devices=("gpu-1",), share_milli=250), "")
    'gpu-1;milli=250'
    """
    return ";".join([fold(member.devices), *_extras(member, cpus)])


def read_member(text: str, role: str, index: int, rank: int, node: NodeName, cpu_sets: Sequence[str] = ()) -> Member:
    """Read what `held_text` wrote; ``@0`` is the first of `cpu_sets`.

    Raises
    ------
    UnreadableInput
        The text is not what we write.
    """
    devices, *extras = text.split(";")
    found = dict(part.split("=", 1) for part in extras if "=" in part)
    milli, start, cpus = found.get("milli", "0"), found.get("mig", "-1"), found.get("cpus", "")
    if len(found) != len(extras) or not milli.isdecimal() or not start.removeprefix("-").isdecimal():
        raise UnreadableInput(f"status.allocation.members: {text!r} is not what a member holds; {_MEND}")
    if cpus.startswith("@"):
        place = cpus[1:]
        if not place.isdecimal() or int(place) >= len(cpu_sets):
            raise UnreadableInput(f"status.allocation.members: cpuSets has no entry {place}; {_MEND}")
        cpus = cpu_sets[int(place)]
    return Member(
        role=role,
        index=index,
        rank=rank,
        node=node,
        devices=unfold(devices) if devices else (),
        share_milli=int(milli),
        mig_start=int(start),
        cpus=cpus,
        nics=unfold(found["nics"]) if found.get("nics") else (),
    )


def ranks_text(ranks: Iterable[int]) -> str:
    """Write ranks in ranges.

    >>> ranks_text([2, 5, 6, 7])
    '2,5-7'
    """
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and spans[-1][1] == rank - 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def read_ranks(text: str) -> tuple[int, ...]:
    """Read what `ranks_text` wrote; what is none of it is left out.

    >>> read_ranks("2,5-7")
    (2, 5, 6, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and int(last or first) - int(first) < 4_096:
            found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _shortened(text: str) -> str:
    return text if len(text) <= PENALTY_CHARS_MAX else text[: PENALTY_CHARS_MAX - 1] + "…"


def _extras(member: Member, cpus: str) -> Iterator[str]:
    if member.share_milli:
        yield f"milli={member.share_milli}"
    if member.mig_start >= 0:
        yield f"mig={member.mig_start}"
    if cpus:
        yield f"cpus={cpus}"
    if member.nics:
        yield f"nics={fold(member.nics)}"
