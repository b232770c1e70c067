"""Worlds for tests in few words: nodes, queues and gangs from one-line texts, and a stage that plays the shell.

A node is ``8 rack=r1``, a queue ``guaranteed=8 limit=16 parent=org``, a gang ``2x4 within=rack priority=5``. The words
are listed with `node`, `queue` and `gang`. Times are ms after `T0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from fairlead.discovery.mig_tables import profiles_of
from fairlead.model import events as ev
from fairlead.model.effects import Effect, EndNomination, Nominate, Place, Stop
from fairlead.model.gang import (
    Gang,
    GangId,
    Isolation,
    Overrun,
    PodShape,
    Requirement,
    Role,
    ServiceClass,
    Share,
    ShareMode,
    Toleration,
    TopologyRequest,
)
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources, Taint
from fairlead.model.partitions import MigGeometry, MigInstance, device_text
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import SHARING_MODES, Pool, Queue
from fairlead.service.engine import Cycle, Engine
from fairlead.topology import fleet_machines
from fairlead.units import duration_ms
from fairlead.world.views import GangView

T0 = 1_800_000_000_000
GIB = 1 << 30
A100 = "NVIDIA A100-SXM4-80GB"
SHAPES = {"hgx": fleet_machines.hgx_h100, "a100": fleet_machines.dgx_a100, "l40s": fleet_machines.pcie_l40s}


def words(text: str) -> tuple[list[str], dict[str, str]]:
    """Split into plain words and key=value pairs."""
    plain, named = [], {}
    for word in str(text).split():
        key, found, value = word.partition("=")
        if found:
            named[key] = value
        else:
            plain.append(word)
    return plain, named


def plain_machine(gpus: int, model: str = "H100", memory_gib: int = 80) -> Machine:
    """GPUs of which nothing is known but that they are there."""
    return Machine(
        gpus=tuple(
            Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", model=model, memory_bytes=memory_gib * GIB)
            for i in range(gpus)
        )
    )


def node(name: str, text: str = "8") -> Node:
    """``8`` or a shape (hgx, a100, l40s); rack=, block=, clique=, model=, memory=, cpu=, pods=, ext=name:n, pool=,
    label=k:v, taint=k:v (NoSchedule); unhealthy=0,1; cordoned, notready. MIG on A100s: mig=dynamic, or what each GPU is
    cut into, mig=3g.40gb@0,1g.10gb@4/7g.80gb@0 (a slash between GPUs, ``-`` for a whole one, the last repeats)."""
    plain, named = words(text)
    shape = next((SHAPES[word] for word in plain if word in SHAPES), None)
    count = next((int(word) for word in plain if word.isdecimal()), 8)
    if shape is not None:
        machine = shape()
    else:
        machine = plain_machine(
            count, named.get("model", A100 if "mig" in named else "H100"), int(named.get("memory", "80"))
        )
    if "mig" in named:
        machine = replace(machine, gpus=_cut(machine.gpus, named["mig"]))
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
        levels=tuple((level, named[level]) for level in ("block", "rack") if level in named),
        unschedulable="cordoned" in plain,
        not_ready_since_ms=T0 if "notready" in plain else None,
    )


def _cut(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    cuts = text.split("/")
    return tuple(cut_gpu(gpu, cuts[min(i, len(cuts) - 1)]) for i, gpu in enumerate(gpus))


def cut_gpu(gpu: Gpu, text: str) -> Gpu:
    """Cut one GPU: ``dynamic``, ``-`` for whole, ``""`` for MIG mode without instances, or 3g.40gb@0,1g.10gb@4."""
    if text == "-":
        return gpu
    profiles = profiles_of(gpu.model)
    number = {p.name: p for p in profiles}
    dynamic = text == "dynamic"
    found = () if dynamic else tuple(part.split("@") for part in text.split(",") if part)
    instances = tuple(
        MigInstance(
            id=at,
            profile=number[name].id,
            start=int(start),
            size=number[name].size,
            device=f"{gpu.device}-mig-{device_text(name)}-{number[name].id}-{start}",
        )
        for at, (name, start) in enumerate(found)
    )
    geometry = MigGeometry(enabled=True, pending=True, profiles=profiles, instances=instances, dynamic=dynamic)
    return replace(gpu, mig=geometry, mig_enabled=True, whole=dynamic)


def _extended(named: dict[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((n, int(c)) for n, c in (e.split(":") for e in named.get("ext", "").split(",") if e)))


def queue(name: str, text: str = "") -> Queue:
    """guaranteed=, limit=, weight=, parent=, ns=a,b (its own name unless said), classes=, priorities=."""
    _, named = words(text)
    return Queue(
        name=name,
        parent=named.get("parent", ""),
        guaranteed_gpus=int(named.get("guaranteed", "0")),
        limit_gpus=int(named["limit"]) if "limit" in named else None,
        weight=int(named.get("weight", "1")),
        namespaces=tuple(n for n in named.get("ns", name).split(",") if n),
        priority_classes=tuple(named["priorities"].split(",")) if "priorities" in named else None,
        service_classes=tuple(ServiceClass(c) for c in named["classes"].split(",")) if "classes" in named else None,
    )


def gang(name: str, text: str = "1x1", at_ms: int = T0) -> Gang:
    """``4x8`` or ``ps:1x0 worker:2x4``; queue= (team), ns= (the queue), priority=, prioclass=, class=, within= (must),
    near= (wish), model=, memory=, cpu=, ext=, port=, tolerate=, select=k:v, affinity=k:a|b, volume=k:v,
    duration=, overrun=, startdeadline=, restarts=, success=any, counts=role; fixed (not preemptible), suspended,
    norestart. Parts of GPUs: mig=1g.10gb, or share=300 (thousandths) with mode= and sharemem=; then 3x0 is three of
    them. strict keeps other tenants off its devices."""
    plain, named = words(text)
    share = None
    if "share" in named:
        mode = ShareMode(named.get("mode", "time-slice"))
        share = Share(milli=int(named["share"]), memory_bytes=int(named.get("sharemem", "0")) * GIB, mode=mode)
    roles = [match for word in plain if (match := re.fullmatch(r"(?:(\w+):)?(\d+)x(\d+)", word))]
    pod = PodShape(
        requests=Resources(cpu_milli=int(named.get("cpu", "1")) * 1000, pods=1, extended=_extended(named)),
        node_selector=tuple(tuple(part.split(":", 1)) for part in named.get("select", "").split(",") if part),
        affinity=_terms(named["affinity"]) if "affinity" in named else None,
        volume_affinity=(_terms(named["volume"]),) if "volume" in named else (),
        tolerations=(Toleration(key=named["tolerate"], operator="Exists"),) if "tolerate" in named else (),
        host_ports=(("TCP", "0.0.0.0", int(named["port"])),) if "port" in named else (),
    )
    level = named.get("within", named.get("near"))
    belongs = named.get("queue", "team")
    return Gang(
        id=GangId(name),
        namespace=named.get("ns", belongs),
        name=name,
        queue=belongs,
        roles=tuple(
            Role(
                name=match[1] or "worker",
                replicas=int(match[2]),
                gpus=int(match[3]),
                gpu_model=named.get("model", ""),
                gpu_memory_bytes=int(named.get("memory", "0")) * GIB,
                pod=pod,
                mig=named.get("mig", ""),
                share=share,
            )
            for match in roles
        )
        or (Role(name="worker", replicas=1, gpus=1, pod=pod),),
        priority=int(named.get("priority", "0")),
        priority_class=named.get("prioclass", ""),
        service_class=ServiceClass(named.get("class", "training")),
        topology=TopologyRequest(within=level, required="within" in named) if level is not None else None,
        submitted_ms=at_ms,
        suspended="suspended" in plain,
        duration_ms=duration_ms(named["duration"]) if "duration" in named else None,
        overrun=Overrun(named.get("overrun", "stop")),
        start_deadline_ms=duration_ms(named.get("startdeadline", "10m")),
        preemptible="fixed" not in plain,
        max_restarts=int(named.get("restarts", "3")),
        restart_on_failure="norestart" not in plain,
        isolation=Isolation.STRICT if "strict" in plain else Isolation.SHARED,
        success_any=named.get("success") == "any",
        success_roles=(named["counts"],) if "counts" in named else (),
    )


def _terms(text: str) -> tuple[tuple[Requirement, ...], ...]:
    key, _, values = text.partition(":")
    return ((Requirement(key=key, operator="In", values=tuple(values.split("|"))),),)


def pool(name: str, text: str = "") -> Pool:
    """sharing=mig,mps,time-slice (nothing unless said), classes=; slow-serving (serving may use time slices)."""
    plain, named = words(text)
    return Pool(
        name=name,
        node_selector=(),
        service_classes=tuple(ServiceClass(c) for c in named["classes"].split(",")) if "classes" in named else None,
        sharing=tuple(m for m in named.get("sharing", "").split(",") if m),
        serving_on_time_slices="slow-serving" in plain,
    )


class Stage:
    """An engine, a clock, and hands to play the shell and the world outside. Effects are only collected."""

    def __init__(self, nodes: Iterable[Node] = (), queues: Iterable[Queue] = (), rules: Rules | None = None) -> None:
        self.now_ms = T0
        self.engine = Engine(rules)
        self.effects: list[Effect] = []
        self.facts: list[ev.Event] = []
        self.cycles: list[Cycle] = []
        self.specs: dict[str, Gang] = {}
        self.take(ev.PoolSeen(pool=Pool(name="fleet", node_selector=(), sharing=SHARING_MODES), at_ms=T0))
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
        case Nominate():
            return f"make room for {effect.gang}: {' '.join(sorted(v for v, _ in effect.victims))}"
        case EndNomination():
            return f"end room for {effect.gang}"
        case _:
            return type(effect).__name__
