"""Worlds for tests in few words: nodes, queues and gangs from one-line texts, and a stage that plays the shell.

A node is ``8 rack=r1``, a queue ``guaranteed=8 limit=16 parent=org``, a gang ``2x4 within=rack priority=5``. The words
are listed with `node`, `queue` and `gang`. Times are ms after `T0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import queue_words
import quota_words
import taking_words
from gang_words import checkpoint_of, retries_of, terms_of, topology_of
from mig_grids import A100_80, cut_gpus
from pool_texts import pool, words

from fairlead.model import events as ev
from fairlead.model.effects import Effect, EndNomination, Grow, Nominate, Notice, Place, Shrink, Stop, Withdraw
from fairlead.model.gang import (
    Gang,
    GangId,
    Isolation,
    Overrun,
    PodShape,
    Role,
    ServiceClass,
    Share,
    ShareMode,
    Toleration,
)
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources, Taint
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Cycle, Engine
from fairlead.topology import fleet_machines
from fairlead.units import duration_ms
from fairlead.world.views import GangView

T0 = 1_800_000_000_000
GIB = 1 << 30
SHAPES = {
    "hgx": fleet_machines.hgx_h100,
    "a100": fleet_machines.dgx_a100,
    "l40s": fleet_machines.pcie_l40s,
    "gb200": fleet_machines.gb200_tray,
}
LEVELS = ("zone", "block", "rack")


def spelled_out(named: dict[str, str]) -> dict[str, str]:
    """``r1n01..18`` stands for eighteen names, r1n01 to r1n18."""
    found: dict[str, str] = {}
    for name, text in named.items():
        match = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)", name)
        numbers = range(int(match[2]), int(match[3]) + 1) if match else ()
        found |= {f"{match[1]}{number:0{len(match[2])}}": text for number in numbers} if match else {name: text}
    return found


def plain_machine(gpus: int, model: str = "H100", memory_gib: int = 80) -> Machine:
    """GPUs of which nothing is known but that they are there."""
    return Machine(
        gpus=tuple(
            Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", model=model, memory_bytes=memory_gib * GIB)
            for i in range(gpus)
        )
    )


def node(name: str, text: str = "8") -> Node:
    """``8`` or a shape (hgx, a100, l40s, gb200); zone=, rack=, block=, clique=, model=, memory=, cpu=, pods=,
    ext=name:n, pool=, label=k:v, taint=k:v (NoSchedule); unhealthy=0,1; cordoned, notready. Machines with a shape have
    NICs and NUMA nodes. MIG on A100s: mig=dynamic, or what each GPU is cut into, mig=3g.40gb@0,1g.10gb@4/7g.80gb@0 (a
    slash between GPUs, ``-`` for a whole one, the last repeats)."""
    plain, named = words(text)
    shape = next((SHAPES[word] for word in plain if word in SHAPES), None)
    count = next((int(word) for word in plain if word.isdecimal()), 8)
    if shape is not None:
        machine = shape()
    else:
        machine = plain_machine(
            count, named.get("model", A100_80 if "mig" in named else "H100"), int(named.get("memory", "80"))
        )
    if "mig" in named:
        machine = replace(machine, gpus=cut_gpus(machine.gpus, named["mig"]))
    sick = {int(i) for i in named["unhealthy"].split(",")} if "unhealthy" in named else set()
    machine = replace(
        machine,
        gpus=tuple(replace(gpu, healthy=gpu.index not in sick) for gpu in machine.gpus),
        clique=named.get("clique", ""),
    )
    return Node(
        name=NodeName(name),
        machine=machine,
        pool=named.get("pool", "fleet"),
        device_pool=name,
        labels=tuple(tuple(part.split(":", 1)) for part in named.get("label", "").split(",") if part),
        taints=tuple(
            Taint(key=k, value=v) for k, v in (t.split(":", 1) for t in named.get("taint", "").split(",") if t)
        ),
        allocatable=Resources(
            cpu_milli=int(named.get("cpu", "192")) * 1000,
            memory_bytes=2048 * GIB,
            ephemeral_bytes=1024 * GIB,
            pods=int(named.get("pods", "110")),
            extended=_extended(named),
        ),
        levels=tuple((level, named[level]) for level in LEVELS if level in named),
        unschedulable="cordoned" in plain,
        not_ready_since_ms=T0 if "notready" in plain else None,
    )


def _extended(named: dict[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((n, int(c)) for n, c in (e.split(":") for e in named.get("ext", "").split(",") if e)))


def queue(name: str, text: str = "") -> Queue:
    """guaranteed=, limit=, weight=, parent=, ns=a,b (its own name unless said), classes=, priorities=; and the
    words of `queue_words`, `quota_words` and `taking_words`."""
    plain, named = words(text)
    return Queue(
        promised_jobs=int(named.get("promised", "0")),
        promise_notice_ms=duration_ms(named.get("notice", "1h")),
        name=name,
        parent=named.get("parent", ""),
        guaranteed_gpus=int(named.get("guaranteed", "0")),
        limit_gpus=int(named["limit"]) if "limit" in named else None,
        weight=int(named.get("weight", "1")),
        namespaces=tuple(n for n in named.get("ns", name).split(",") if n),
        priority_classes=tuple(named["priorities"].split(",")) if "priorities" in named else None,
        service_classes=tuple(ServiceClass(c) for c in named["classes"].split(",")) if "classes" in named else None,
        caps=queue_words.caps(plain, named),
        **quota_words.fields(named),
        taking_caps=taking_words.taking_caps(named),
    )


def gang(name: str, text: str = "1x1", at_ms: int = T0) -> Gang:
    """``4x8`` or ``ps:1x0 worker:2x4``; queue= (team), ns= (the queue), priority=, prioclass=, class=, within= (must),
    near= (wish), slices=zone:48,rack:16, model=, memory=, cpu=, ext=, needs=watts:300, port=, tolerate=, select=k:v,
    affinity=k:a|b, volume=k:v, min=, nics=1 (with each GPU), spread=rack, duration=, overrun=, startdeadline=,
    restarts=, success=any, template=, counts=role, user=, groups=a,b, deadline= (after T0); fixed (not preemptible),
    allowed (it is, serving too), elastic (members come and go while it runs), mixed (models), promise (wanted),
    strict (isolation), suspended, norestart. saves=file (when told by a file; signal, command; never: only by itself),
    pause=30s, size=100 (GiB), every=, restart=, grace= (1m unless said), reshards;
    retry=member:1,start:0,hung:2,node:3, backoff=, backoffmax=, heartbeat=.
    Parts of GPUs: mig=1g.10gb, or share=300 (thousandths) with mode= and sharemem=; then 3x0 is three of them.

    What holds for one role has its name in front: ``leader.cpu=8 worker.within=rack worker.slices=island:2``.
    """
    plain, named = words(text)
    roles = [match for word in plain if (match := re.fullmatch(r"(?:(\w+):)?(\d+)x(\d+)", word))]
    belongs = named.get("queue", "team")
    return Gang(
        id=GangId(name),
        namespace=named.get("ns", belongs),
        name=name,
        queue=belongs,
        roles=tuple(_role(match[1] or "worker", int(match[2]), int(match[3]), named) for match in roles)
        or (_role("worker", 1, 1, named),),
        priority=int(named.get("priority", "0")),
        priority_class=named.get("prioclass", ""),
        service_class=ServiceClass(named.get("class", "training")),
        topology=topology_of(named),
        submitted_ms=at_ms,
        suspended="suspended" in plain,
        duration_ms=duration_ms(named["duration"]) if "duration" in named else None,
        overrun=Overrun(named.get("overrun", "stop")),
        start_deadline_ms=duration_ms(named.get("startdeadline", "10m")),
        preemptible=taking_words.preemptible(plain, named),
        resizable="elastic" in plain,
        max_restarts=int(named.get("restarts", "3")),
        restart_on_failure="norestart" not in plain,
        success_any=named.get("success") == "any",
        success_roles=(named["counts"],) if "counts" in named else (),
        mixed_models="mixed" in plain,
        isolation=Isolation.STRICT if "strict" in plain else Isolation.SHARED,
        wants_promise="promise" in plain,
        template=named.get("template", ""),
        user=named.get("user", ""),
        groups=tuple(g for g in named.get("groups", "").split(",") if g),
        deadline_ms=T0 + duration_ms(named["deadline"]) if "deadline" in named else None,
        checkpoint=checkpoint_of(named, "reshards" in plain),
        grace_ms=duration_ms(named.get("grace", "1m")) if named.get("saves", "never") != "never" else 0,
        retries=retries_of(named),
        heartbeat_ms=duration_ms(named["heartbeat"]) if "heartbeat" in named else None,
    )


def _role(name: str, replicas: int, gpus: int, words_of_gang: dict[str, str]) -> Role:
    """What is said of all roles, and over it what is said of this one; descriptions of GPUs only where it has some."""
    own = {key.removeprefix(f"{name}."): value for key, value in words_of_gang.items() if key.startswith(f"{name}.")}
    named = {**words_of_gang, **own}
    share = None
    if "share" in named:
        mode = ShareMode(named.get("mode", "time-slice"))
        share = Share(milli=int(named["share"]), memory_bytes=int(named.get("sharemem", "0")) * GIB, mode=mode)
    gpu = named if gpus or share or named.get("mig") else own
    return Role(
        name=name,
        replicas=replicas,
        gpus=gpus,
        gpu_model=gpu.get("model", ""),
        gpu_memory_bytes=int(gpu.get("memory", "0")) * GIB,
        pod=_pod(named),
        min_replicas=int(named["min"]) if "min" in named else None,
        nics_per_gpu=int(gpu.get("nics", "0")),
        topology=topology_of(own),
        spread=named.get("spread", ""),
        mig=named.get("mig", ""),
        share=share,
    )


def _pod(named: dict[str, str]) -> PodShape:
    above = (part.split(":") for part in named.get("needs", "").split(",") if part)
    amounts = sorted([*_extended(named), *((what, int(count)) for what, count in above)])
    return PodShape(
        requests=Resources(cpu_milli=int(named.get("cpu", "1")) * 1000, pods=1, extended=tuple(amounts)),
        node_selector=tuple(tuple(part.split(":", 1)) for part in named.get("select", "").split(",") if part),
        affinity=terms_of(named["affinity"]) if "affinity" in named else None,
        volume_affinity=(terms_of(named["volume"]),) if "volume" in named else (),
        tolerations=(Toleration(key=named["tolerate"], operator="Exists"),) if "tolerate" in named else (),
        host_ports=(("TCP", "0.0.0.0", int(named["port"])),) if "port" in named else (),
    )


class Stage:
    """An engine, a clock, and hands to play the shell and the world outside. Effects are only collected."""

    def __init__(
        self,
        nodes: Iterable[Node] = (),
        queues: Iterable[Queue] = (),
        rules: Rules | None = None,
        fleet: Pool | None = None,
    ) -> None:
        self.now_ms = T0
        self.engine = Engine(rules)
        self.effects: list[Effect] = []
        self.facts: list[ev.Event] = []
        self.cycles: list[Cycle] = []
        self.specs: dict[str, Gang] = {}
        self.take(ev.PoolSeen(pool=fleet or pool(), at_ms=T0))
        self.take(*(ev.NodeSeen(node=n, at_ms=T0) for n in nodes))
        self.take(*(ev.QueueSeen(queue=q, at_ms=T0) for q in queues))

    @property
    def state(self):
        return self.engine.state

    def take(self, *facts: ev.Event) -> None:
        self.facts += facts
        self.engine.take(facts)

    def submit(self, name: str, text: str = "1x1") -> Gang:
        self.now_ms += 1
        return self.seen(gang(name, text, self.now_ms))

    def seen(self, spec: Gang) -> Gang:
        self.specs[spec.id] = spec
        self.take(ev.GangSeen(gang=spec, at_ms=self.now_ms))
        return spec

    def change(self, name: str, **fields: object) -> Gang:
        return self.seen(replace(self.specs[name], **fields))

    def delete(self, name: str) -> None:
        self.take(ev.GangGone(gang=GangId(name), at_ms=self.now_ms))

    def change_node(self, name: str, **fields: object) -> None:
        spec = replace(self.state.nodes[NodeName(name)], **fields)
        self.take(ev.NodeSeen(node=spec, at_ms=self.now_ms))

    def settle(self, slices: int = 50) -> list[Effect]:
        """Cycle until there is nothing left to decide; return the effects of all slices."""
        effects: list[Effect] = []
        for _ in range(slices):
            cycle = self.engine.cycle(self.now_ms)
            assert cycle.violations == (), cycle.violations
            self.cycles.append(cycle)
            self.facts += cycle.facts
            effects += cycle.effects
            if not cycle.more:
                self.effects += effects
                return effects
        raise AssertionError(f"not settled after {slices} slices: {effects[-5:]}")

    def news(self) -> tuple[GangView, ...]:
        """Decide once; return the gangs of which something else is to be said since the last call."""
        self.engine.cycle(self.now_ms)
        return self.engine.touched(self.now_ms)

    def attempt(self, name: str):
        attempt = self.state.gangs[GangId(name)].current
        assert attempt is not None, f"{name} holds nothing"
        return attempt

    def bind(self, name: str) -> None:
        self.take(ev.Bound(gang=GangId(name), attempt=self.attempt(name).number, at_ms=self.now_ms))

    def run(self, *names: str) -> None:
        """Bound, and every member Running."""
        for name in names:
            self.bind(name)
            for rank in range(len(self.attempt(name).placement.members)):
                self.take(self.member(ev.MemberRunning, name, rank))

    def member(self, kind, name: str, rank: int, **more: object):
        number = self.state.gangs[GangId(name)].attempts
        return kind(gang=GangId(name), attempt=number, rank=rank, at_ms=self.now_ms, **more)

    def end(self, name: str, rank: int, *, succeeded: bool = True) -> None:
        detail = "" if succeeded else "exit code 1"
        self.take(self.member(ev.MemberEnded, name, rank, succeeded=succeeded, detail=detail))

    def release(self, name: str, *ranks: int) -> None:
        held = sorted(self.attempt(name).holding)
        for rank in ranks or held:
            self.take(self.member(ev.MemberReleased, name, rank))

    def fail_place(self, name: str, *, released: tuple[int, ...] | None = None) -> None:
        attempt = self.attempt(name)
        ranks = tuple(range(len(attempt.placement.members))) if released is None else released
        cause = refuse(Reason.PLACE_CONFLICT, detail="409")
        self.take(
            ev.PlaceFailed(gang=GangId(name), attempt=attempt.number, cause=cause, released=ranks, at_ms=self.now_ms)
        )

    def fail_grow(self, name: str, *released: int) -> None:
        attempt = self.attempt(name)
        cause, ranks = refuse(Reason.PLACE_CONFLICT, detail="409"), tuple(sorted(attempt.joining))
        fact = {"attempt": attempt.number, "cause": cause, "ranks": ranks, "released": released}
        self.take(ev.GrowFailed(gang=GangId(name), at_ms=self.now_ms, **fact))

    def view(self, name: str) -> GangView:
        view = self.engine.gang_view(GangId(name), self.now_ms)
        assert view is not None, name
        return view

    def reason(self, name: str) -> str:
        refusal = self.view(name).refusal
        return "" if refusal is None else refusal.reason.token


def tell(effect: Effect, *, devices: bool = False) -> str:
    """Write an effect in words: what scenario pages expect."""
    match effect:
        case Place():
            where: list[str] = []
            for member in effect.placement.members:
                bits = ",".join(name.rpartition("-")[2] for name in member.devices)
                bits += f"@{member.mig_start}" if member.mig_start >= 0 else ""
                where.append(f"{member.node}[{bits}]" if devices else str(member.node))
            return f"place {effect.gang} on {' '.join(where)}"
        case Stop():
            again = "" if effect.requeue else ", for good"
            return f"stop {effect.gang}: {effect.cause.reason.token}{again}"
        case Notice():
            return f"notice {effect.gang}: {effect.cause.reason.token}{'' if effect.requeue else ', for good'}"
        case Shrink():
            ranks = " ".join(str(rank) for rank in effect.ranks)
            return f"shrink {effect.gang} by {ranks}: {effect.cause.reason.token}"
        case Withdraw():
            return f"withdraw {effect.gang}"
        case Grow():
            return f"grow {effect.gang} on {' '.join(effect.placement.members[rank].node for rank in effect.ranks)}"
        case Nominate():
            victims = sorted([*(v for v, _ in effect.victims), *(v for v, _, _ in effect.shrunk)])
            return f"make room for {effect.gang}: {' '.join(victims)}"
        case EndNomination():
            return f"end room for {effect.gang}"
        case _:
            return type(effect).__name__
