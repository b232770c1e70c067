"""Builders and hypothesis streams of facts for the tests of the books."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from hypothesis import strategies as st
from mig_grids import A100_80, cut_gpu

from fairlead.model.codec import Cut
from fairlead.model.events import (
    DevicesCounted,
    ForeignDevices,
    GangSeen,
    GrowIntended,
    Intended,
    KeptFree,
    MemberEnded,
    MemberReleased,
    MemberRunning,
    NodeGone,
    NodeSeen,
    NodeUsed,
    PlaceFailed,
    QueueSeen,
    Recovered,
    ShrinkIntended,
    Started,
    StopIntended,
    StopRefused,
    TierChanged,
)
from fairlead.model.gang import Gang, Member, Placement, PodShape, Role, Tier
from fairlead.model.hardware import Gpu, Machine, Node, Resources
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Queue

ROOM = Resources(cpu_milli=64_000, memory_bytes=2**38, pods=110)
NODES = ("n1", "n2")
GANGS = ("g1", "g2")  # few, so that facts meet
ATTEMPTS = (1, 1, 2)
THEIRS = ("gpu-0", "gpu-3", "gpu-3-mig-3g40gb-9-0", "gpu-3-mig-1g10gb-19-4", "gpu-2-mig-1g10gb-19-4")

KEEPERS = (("promise/g9", "vision"), ("reservation/exam", "lab"), ("pool/main/x", ""))


def node(name: str = "n1", gpus: int = 4, sick: tuple[int, ...] = (), cut: str = "-", **more: Any) -> Node:
    """A node of pool `main` with GPUs gpu-0 …; `sick` are unhealthy, the last one is `cut` (mig_grids.cut_gpu)."""
    devices = tuple(
        Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", model=A100_80, healthy=i not in sick) for i in range(gpus)
    )
    devices = (*devices[:-1], cut_gpu(devices[-1], cut)) if devices else ()
    fields: dict[str, Any] = {"pool": "main", "allocatable": ROOM, **more}
    return Node(name=name, machine=Machine(gpus=devices), **fields)


def gang(uid: str = "g1", queue: str = "vision", cpu_milli: int = 1_000) -> Gang:
    """A gang whose pods ask for some CPU."""
    shape = PodShape(requests=Resources(cpu_milli=cpu_milli, memory_bytes=2**30, pods=1))
    roles = (Role(name="worker", replicas=2, gpus=2, pod=shape),)
    return Gang(id=uid, namespace="ns", name=f"job-{uid}", queue=queue, roles=roles)


def placement(*members: tuple[Any, ...], slowed: int = 0) -> Placement:
    """Ranks in order: (node, GPU indexes), and then the thousandths of its one GPU where it has a part.

    Last of all the first unit of its MIG instance.
    """
    return Placement(
        slowed_permille=slowed,
        members=tuple(
            Member(
                role="worker",
                index=rank,
                rank=rank,
                node=name,
                devices=tuple(f"gpu-{i}" for i in gpus),
                share_milli=part[0] if part and len(gpus) == 1 else 0,
                mig_start=part[1] if len(part) > 1 and len(gpus) == 1 else -1,
            )
            for rank, (name, gpus, *part) in enumerate(members)
        ),
    )


NAMED = (
    QueueSeen(queue=Queue(name="lab"), at_ms=0),
    QueueSeen(queue=Queue(name="vision", parent="lab"), at_ms=0),
    QueueSeen(queue=Queue(name="speech"), at_ms=0),
    GangSeen(gang=gang("g1"), at_ms=0),
    GangSeen(gang=gang("g2", "speech", cpu_milli=64_000), at_ms=0),
    GangSeen(gang=gang("g3", "nobody-described"), at_ms=0),
)
"""Who is who; journaled first, because names go by the journal's order."""

times = st.integers(0, 400)
placements = st.builds(
    lambda members, slowed: placement(*members, slowed=slowed),
    st.lists(
        st.tuples(
            st.sampled_from(NODES),
            st.sets(st.integers(0, 3), max_size=2).map(lambda s: tuple(sorted(s))),
            st.sampled_from([0, 0, 1, 125, 125, 300, 333, 500, 500, 999, 1000]),
            st.sampled_from([-1, 0, 4]),
        ),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from([0, 0, 7, 250, 1_200]),
)


@st.composite
def any_fact(draw: Any) -> Any:
    """One fact that changes the timeline, at any time, consistent with nothing."""
    at, name, uid = draw(times), draw(st.sampled_from(NODES)), draw(st.sampled_from(GANGS))
    attempt, rank = draw(st.sampled_from(ATTEMPTS)), draw(st.integers(0, 1))
    kind = draw(st.integers(0, 20))
    if kind <= 1:
        seen = node(
            name,
            draw(st.integers(2, 4)),
            tuple(draw(st.sets(st.integers(0, 3), max_size=1))),
            pool=draw(st.sampled_from(["main", "main", "side", ""])),
            unschedulable=draw(st.booleans()),
            not_ready_since_ms=draw(st.one_of(st.none(), times)),
            cut=draw(st.sampled_from(["-", "dynamic", "3g.40gb@0,1g.10gb@4"])),
        )
        return NodeSeen(node=seen, at_ms=at)
    if kind == 2:
        return NodeGone(name=name, at_ms=at)
    if kind == 3:
        used = Resources(cpu_milli=draw(st.sampled_from([0, 63_000, 64_000])), pods=1)
        return NodeUsed(name=name, taken=used, at_ms=at)
    if kind == 4:
        return ForeignDevices(name=name, devices=tuple(draw(st.sets(st.sampled_from(THEIRS)))), at_ms=at)
    if kind == 20:
        grown = draw(placements)
        return GrowIntended(
            gang=uid, attempt=attempt, placement=grown, tier=Tier.BORROWED, joining=1, at_ms=at, deadline_ms=at + 30
        )
    if kind in (5, 6):
        return Intended(
            gang=uid, attempt=attempt, placement=draw(placements), tier=draw(st.sampled_from(list(Tier))), at_ms=at,
            deadline_ms=at + 30,
        )  # fmt: skip
    if kind == 7:
        ranks = tuple(sorted(draw(st.sets(st.integers(0, 1)))))
        return PlaceFailed(
            gang=uid, attempt=attempt, cause=refuse(Reason.PLACE_CONFLICT, detail="x"), released=ranks, at_ms=at
        )  # fmt: skip
    if kind == 8:
        return Recovered(
            gang=uid, attempt=attempt, placement=draw(placements), tier=Tier.BORROWED, since_ms=draw(times), bound=True,
            holding=tuple(sorted(draw(st.sets(st.integers(0, 1))))), running=(), at_ms=at,
            all_running_ms=draw(st.one_of(st.none(), st.none(), times)),
        )  # fmt: skip
    if kind >= 14:
        return draw(_lived(at, name, uid, attempt, rank, kind))
    if kind >= 12:
        some = st.sets(st.sampled_from(THEIRS[:3]), min_size=1)
        kept = draw(st.dictionaries(st.sampled_from(NODES), some, max_size=2))
        devices = tuple((name, tuple(sorted(kept[name]))) for name in sorted(kept))
        keeper, owner = draw(st.sampled_from(KEEPERS))
        return KeptFree(keeper=keeper, queue=owner, devices=devices, at_ms=at)
    if kind == 11:
        return Started(rules=Rules(), at_ms=at, meter=draw(st.sampled_from((0, 1, 2))))
    if kind == 9:
        return TierChanged(gang=uid, attempt=attempt, tier=draw(st.sampled_from(list(Tier))), at_ms=at)
    return MemberReleased(
        gang=uid, attempt=attempt, rank=rank, at_ms=at, estimated_ms=draw(st.sampled_from([0, 7]))
    )  # fmt: skip


REASONS = (
    refuse(Reason.PREEMPTED), refuse(Reason.NODE_LOST, node="n1"), refuse(Reason.MEMBER_FAILED, member="a", detail="x"),
    refuse(Reason.FINISHED), refuse(Reason.HOLE_ENDED), refuse(Reason.IDLE, queue="lab", idle="2h"),
)  # fmt: skip


@st.composite
def _lived(draw: Any, at: int, name: str, uid: str, attempt: int, rank: int, kind: int) -> Any:
    """One fact about what became of what is held."""
    if kind == 14:
        return MemberRunning(gang=uid, attempt=attempt, rank=rank, at_ms=at)
    if kind == 15:
        return MemberEnded(gang=uid, attempt=attempt, rank=rank, succeeded=draw(st.booleans()), at_ms=at)
    if kind == 16:
        return ShrinkIntended(gang=uid, attempt=attempt, ranks=(rank,), cause=REASONS[0], at_ms=at, by="g2")
    if kind == 17:
        return StopRefused(gang=uid, attempt=attempt, cause=refuse(Reason.PLACE_CONFLICT, detail="x"), at_ms=at)
    if kind == 18:
        return StopIntended(
            gang=uid, attempt=attempt, cause=draw(st.sampled_from(REASONS)), requeue=True, at_ms=at,
            by=draw(st.sampled_from(["", "g2", "g9"])), safe_ms=draw(st.one_of(st.none(), times)),
        )  # fmt: skip
    busy = draw(st.dictionaries(st.sampled_from(("gpu-0", "gpu-1", "gpu-3")), st.integers(-1, 1_001), max_size=3))
    return DevicesCounted(name=name, from_ms=draw(times), busy=tuple(sorted(busy.items())), at_ms=at)


cuts = times.map(lambda at: Cut(at_ms=at))
streams = st.lists(st.one_of(any_fact(), any_fact(), any_fact(), cuts), max_size=25)
"""Disordered, with repeats when a list is played twice."""


def slowly(fact: Any, ms: int) -> Any:
    """The fact with all of its moments so many times later, so that a stream takes days."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(fact):
        value = getattr(fact, field.name)
        if field.name.endswith("_ms") and isinstance(value, int):
            changes[field.name] = ms * value
        elif field.name == "node":
            changes[field.name] = slowly(value, ms)
    return dataclasses.replace(fact, **changes)


def strategy_for(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that occurs in facts: dataclasses of 64-bit integers, text, enums and tuples of those."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.NewType):
        return strategy_for(hint.__supertype__)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([strategy_for(part) for part in parts])
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return st.lists(strategy_for(parts[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[strategy_for(part) for part in parts])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{f.name: strategy_for(hints[f.name]) for f in dataclasses.fields(hint)})
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**63 - 1),
        str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return plain[hint]
