"""A scenario file: any world in YAML, read strictly into the facts that a watch would have shown of it.

The fleet, queues and rules are read here, the jobs in `scenario_jobs`. Whatever is missing, wrong or unknown is refused
with its full path. `docs/reference/scenario-file.md` lists every field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import yaml

from fairlead.errors import UnreadableInput
from fairlead.model.events import (
    Event,
    ExceptionSeen,
    ForeignDevices,
    GangGone,
    GangSeen,
    NodeSeen,
    NodeUsed,
    PolicySeen,
    PoolSeen,
    QueueSeen,
    Recovered,
)
from fairlead.model.fairness import FairnessPolicy
from fairlead.model.gang import Gang, Placement, ServiceClass, Tier
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources, Taint
from fairlead.model.queue_tree import tree_problems
from fairlead.model.quota_exception import QuotaException
from fairlead.model.reservation import Reservation, ReservationSeen
from fairlead.model.rules import Rules
from fairlead.model.tenancy import SHARING_BY_DEFAULT, SHARING_MODES, Pool, Queue, quota_fields
from fairlead.placement.sharing import pool_problem
from fairlead.simulation.fields import Fields
from fairlead.simulation.policy_yaml import scenario_exception
from fairlead.simulation.pool_words import kept_words
from fairlead.simulation.pool_yaml import budgets, checkpoint_bandwidth, service_classes, sharing_words
from fairlead.simulation.promise_yaml import promise_words
from fairlead.simulation.queue_yaml import queue_caps, tenant_kind
from fairlead.simulation.quota_yaml import gpu_words, policies_of, sharing_fields
from fairlead.simulation.scenario_jobs import (
    NAME,
    Devices,
    Levels,
    amounts,
    read_running,
    read_waiting,
    saved_since,
    whole,
)
from fairlead.simulation.taking_yaml import taking_caps
from fairlead.simulation.time_words import reservations, scenario_rules
from fairlead.topology import fleet_machines, fleets

MAX_BYTES = 64 << 20
MAX_NODES = 100_000
MAX_GPUS = 63
START_MS = 1_800_000_000_000
"""When a scenario begins, UTC ms. No decision depends on the date."""
SHAPES = {
    "dgx-a100": (fleet_machines.dgx_a100, fleets.A100),
    "hgx-h100": (fleet_machines.hgx_h100, fleets.H100),
    "gb200": (fleet_machines.gb200_tray, fleets.GB200),
    "pcie-l40s": (fleet_machines.pcie_l40s, fleets.L40S),
}
PLAIN = Resources(cpu_milli=128_000, memory_bytes=1 << 40, ephemeral_bytes=1 << 40, pods=110)
"""What a node without a shape offers unless it says otherwise."""
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A gang that holds a placement since it was submitted. `deleted`: its end has been asked for."""

    gang: Gang
    placement: Placement
    tier: Tier
    deleted: bool = False
    saved_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world before its first decision. `used` and `foreign` are what others hold on nodes; rounds take `round_ms`."""

    nodes: tuple[Node, ...] = ()
    used: Mapping[NodeName, Resources] = field(default_factory=dict[NodeName, Resources])
    foreign: Mapping[NodeName, tuple[str, ...]] = field(default_factory=dict[NodeName, tuple[str, ...]])
    pools: tuple[Pool, ...] = ()
    queues: tuple[Queue, ...] = ()
    exceptions: tuple[QuotaException, ...] = ()
    policies: tuple[FairnessPolicy, ...] = ()
    running: tuple[RunningJob, ...] = ()
    waiting: tuple[Gang, ...] = ()
    rules: Rules = field(default_factory=Rules)
    reservations: tuple[Reservation, ...] = ()
    round_ms: int = 1_000

    def facts(self) -> Iterator[Event]:
        """Yield what a watch would have shown of this world by `START_MS`, in the order of dependence."""
        for pool in self.pools:
            yield PoolSeen(pool=pool, at_ms=START_MS)
        for node in self.nodes:
            yield NodeSeen(node=node, at_ms=START_MS)
        for name, taken in self.used.items():
            yield NodeUsed(name=name, taken=taken, at_ms=START_MS)
        for name, devices in self.foreign.items():
            yield ForeignDevices(name=name, devices=devices, at_ms=START_MS)
        for policy in self.policies:
            yield PolicySeen(policy=policy, at_ms=START_MS)
        for queue in self.queues:
            yield QueueSeen(queue=queue, at_ms=START_MS)
        for exception in self.exceptions:
            yield ExceptionSeen(exception=exception, at_ms=START_MS)
        for reservation in self.reservations:
            yield ReservationSeen(reservation=reservation, at_ms=START_MS)
        for job in self.running:
            ranks = tuple(range(len(job.placement.members)))
            yield GangSeen(gang=job.gang, at_ms=job.gang.submitted_ms)
            yield Recovered(
                gang=job.gang.id,
                attempt=1,
                placement=job.placement,
                tier=job.tier,
                since_ms=job.gang.submitted_ms,
                bound=True,
                holding=ranks,
                running=ranks,
                at_ms=job.gang.submitted_ms,
                saved_ms=job.saved_ms,
            )
            if job.deleted:
                yield GangGone(gang=job.gang.id, at_ms=START_MS)
        for gang in self.waiting:
            yield GangSeen(gang=gang, at_ms=START_MS)


def read(text: str) -> Scenario:
    """Read a scenario from YAML or JSON text.

    Raises
    ------
    UnreadableInput
        The text is no YAML, or a field is unknown, missing or wrong; the message names it and the mend.
    """
    if len(text.encode()) > MAX_BYTES:
        raise UnreadableInput(f"the text is larger than {MAX_BYTES} bytes: make the world smaller")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value: object = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise UnreadableInput(f"not YAML: {problem}") from problem
    return read_document(value)


def read_document(value: object) -> Scenario:
    """Read a scenario from a document of mappings, lists and plain values. Raises `UnreadableInput` like `read`."""
    if value is None:
        raise UnreadableInput("the file is empty; write fleet, queues and waiting, see docs/reference/scenario-file.md")
    document = Fields(value, "")
    fleet = document.inner("fleet")
    pools = _pools(fleet)
    declared = fleet.texts("levels") or ()
    nodes: list[Node] = []
    used: dict[NodeName, Resources] = {}
    foreign: dict[NodeName, tuple[str, ...]] = {}
    for item in fleet.items("nodes"):
        for node, taken, devices in _nodes(item, pools, MAX_NODES - len(nodes)):
            if node.name in used:
                item.fail("name", f"there are two nodes {node.name!r}; rename one")
            nodes.append(node)
            used[node.name] = taken
            if devices:
                foreign[node.name] = devices
    queues = tuple(_queue(item) for item in document.items("queues"))
    _queues_hang_together(document, queues)
    exceptions = tuple(scenario_exception(item, START_MS) for item in document.items("exceptions"))
    for exception in exceptions:
        if exception.queue not in {queue.name for queue in queues}:
            document.fail("exceptions", f"{exception.name}.queue: there is no queue {exception.queue!r}")
    policies = policies_of(document, queues)
    fleet.done()
    levels = Levels({*declared, *(level for node in nodes for level, _ in node.levels)})
    held = Devices({str(node.name): node for node in nodes}, foreign)
    running: list[RunningJob] = []
    for item in document.items("running"):
        saved_ms = saved_since(item, START_MS)
        gang, placement, tier, deleted = read_running(item, levels, held, START_MS)
        running.append(RunningJob(gang=gang, placement=placement, tier=tier, deleted=deleted, saved_ms=saved_ms))
    waiting = tuple(read_waiting(item, levels, START_MS, at) for at, item in enumerate(document.items("waiting")))
    _names_differ(document, [*(job.gang for job in running), *waiting])
    reserved = reservations(document, nodes, {q.name for q in queues}, START_MS)
    rules, round_ms = scenario_rules(document.inner("rules"))
    document.done()
    return Scenario(
        nodes=tuple(nodes),
        used={name: taken for name, taken in used.items() if taken != Resources()},
        foreign=foreign,
        pools=tuple(pools.values()),
        queues=queues,
        exceptions=exceptions,
        policies=policies,
        running=tuple(running),
        waiting=waiting,
        reservations=tuple(reserved),
        rules=rules,
        round_ms=round_ms,
    )


# --- the fleet --------------------------------------------------------------------------------------------------------


def _pools(fleet: Fields) -> dict[str, Pool]:
    """Read the pools; without any there is one in which every way of sharing is allowed."""
    pools: dict[str, Pool] = {}
    for item in fleet.items("pools"):
        classes = _service_classes(item)
        name = item.text("name", pattern=NAME)
        if name in pools:
            item.fail("name", f"there are two pools {name!r}; rename one")
        sharing, mig_mode, serving = sharing_words(item, SHARING_BY_DEFAULT)
        kept = kept_words(item)
        pools[name] = Pool(
            name=name,
            node_selector=(),
            service_classes=classes,
            sharing=sharing,
            mig_mode=mig_mode,
            serving_on_time_slices=serving,
            budgets=budgets(item),
            protected=kept.protected,
            ceiling_percent=kept.ceiling_percent,
            spares=kept.spares,
            class_terms=kept.class_terms,
            checkpoint_bytes_per_s=checkpoint_bandwidth(item),
        )
        if problem := pool_problem(pools[name]):
            field, _, rest = problem.removeprefix("spec.").partition(": ")
            item.fail(field, rest)
        item.done()
    return pools or {"fleet": Pool(name="fleet", node_selector=(), sharing=SHARING_MODES)}


def _nodes(item: Fields, pools: Mapping[str, Pool], left: int) -> list[tuple[Node, Resources, tuple[str, ...]]]:
    """Read one entry of fleet.nodes: a node, or `count` equal ones named ``name-1`` and so on."""
    name = item.text("name", pattern=NAME)
    count = item.integer("count", 0, low=1, high=MAX_NODES) if item.has("count") else 0
    if max(1, count) > left:
        item.fail("count", f"the fleet would have more than {MAX_NODES} nodes; make it smaller")
    pool = item.text("pool", next(iter(pools)))
    if pool and pool not in pools:
        item.fail("pool", f"there is no pool {pool!r}; use one of: {', '.join(pools)}")
    machine, offered = _machine(item)
    not_ready = item.duration_ms("notReadyFor")
    node = Node(
        name=NodeName(name),
        machine=machine,
        pool=pool,
        labels=item.labels("labels"),
        taints=tuple(_taint(taint) for taint in item.items("taints")),
        allocatable=amounts(item, offered, low=0),
        levels=tuple(sorted(_levels(item).items())),
        unschedulable=item.boolean("cordoned", False),
        not_ready_since_ms=None if not_ready is None else START_MS - not_ready,
    )
    inner = item.inner("used")
    taken = replace(amounts(inner, Resources(), low=0), pods=inner.integer("pods", 0, low=0, high=1_000_000))
    inner.done()
    devices = item.texts("foreign") or ()
    for device in devices:
        if all(gpu.device != device for gpu in machine.gpus):
            item.fail("foreign", f"the node has no device {device!r}")
    item.done()
    names = [f"{name}-{at + 1}" for at in range(count)] if count else [name]
    return [(_called(node, each), taken, devices) for each in names]


def _called(node: Node, name: str) -> Node:
    labels = {"kubernetes.io/hostname": name, **dict(node.labels)}
    machine = fleet_machines.identified(node.machine, name) if node.machine.gpus else node.machine
    return replace(node, name=NodeName(name), device_pool=name, machine=machine, labels=tuple(sorted(labels.items())))


def _machine(item: Fields) -> tuple[Machine, Resources]:
    """Return the machine of a node and what it offers unless the file says otherwise."""
    shape = item.choice("shape", tuple(SHAPES), "") if item.has("shape") else ""
    if shape:
        for name in ("gpus", "model", "gpuMemory"):
            if item.has(name):
                item.fail(name, f"shape {shape} says it already; remove one of them")
        build, kind = SHAPES[shape]
        machine, offered = build(), kind.allocatable
    else:
        machine, offered = _plain(item), PLAIN
    sick = set(whole(item, "unhealthy", low=0, high=max(0, len(machine.gpus) - 1)))
    mig = item.boolean("mig", False)
    if mig and not machine.gpus:
        item.fail("mig", "the node has no GPUs to cut")
    clique = item.text("clique", machine.clique)
    gpus = tuple(replace(gpu, healthy=gpu.healthy and gpu.index not in sick, mig_enabled=mig) for gpu in machine.gpus)
    return replace(machine, gpus=gpus, clique=clique), offered


def _plain(item: Fields) -> Machine:
    """GPUs of which nothing is known but their number, model and memory."""
    count = item.integer("gpus", 0, low=0, high=MAX_GPUS)
    model = item.text("model", "H100")
    memory = item.quantity("gpuMemory", 80 << 30)
    if memory <= 0:
        item.fail("gpuMemory", f"{memory} bytes is no memory; write for example 80Gi")
    return Machine(
        gpus=tuple(
            Gpu(id=f"GPU{at}", index=at, device=f"gpu-{at}", model=model, memory_bytes=memory) for at in range(count)
        )
    )


def _taint(item: Fields) -> Taint:
    taint = Taint(
        key=item.text("key"), value=item.text("value", ""), effect=item.choice("effect", _EFFECTS, "NoSchedule")
    )
    item.done()
    return taint


def _levels(item: Fields) -> dict[str, str]:
    levels = dict(item.labels("levels"))
    inner = item.inner("levels")
    for name, domain in levels.items():
        if name in ("node", "cluster", "island"):
            inner.fail(name, "is a level that every fleet has by itself; remove it")
        if not domain:
            inner.fail(name, "is empty; name the domain, or remove the level")
    return levels


# --- queues and rules -------------------------------------------------------------------------------------------------


def _queue(item: Fields) -> Queue:
    name = item.text("name", pattern=NAME)
    quotas = gpu_words(item)
    namespaces = item.texts("namespaces")
    promised, notice_ms = promise_words(item)
    queue = Queue(
        name=name,
        parent=item.text("parent", ""),
        namespaces=(name,) if namespaces is None else namespaces,
        priority_classes=item.texts("priorityClasses"),
        service_classes=_service_classes(item),
        kind=tenant_kind(item),
        caps=queue_caps(item),
        taking_caps=taking_caps(item),
        **quota_fields(quotas),
        **sharing_fields(item),
        promised_jobs=promised,
        promise_notice_ms=notice_ms,
    )
    item.done()
    return queue


def _queues_hang_together(document: Fields, queues: tuple[Queue, ...]) -> None:
    by_name = {queue.name: queue for queue in queues}
    if len(by_name) != len(queues):
        document.fail("queues", "two queues have the same name; rename one")
    for name, problem in tree_problems(by_name).items():
        field = problem.field.removeprefix("spec.").removeprefix("resources[gpu].")
        document.fail("queues", f"{name}.{field}: {problem.problem}; {problem.mend}")


def _service_classes(item: Fields) -> tuple[ServiceClass, ...] | None:
    names = item.texts("serviceClasses")
    return None if names is None else service_classes(item, names)


def _names_differ(document: Fields, gangs: list[Gang]) -> None:
    seen: set[str] = set()
    for gang in gangs:
        if gang.id in seen:
            document.fail("waiting", f"there are two jobs {gang.id!r}; rename one")
        seen.add(gang.id)
