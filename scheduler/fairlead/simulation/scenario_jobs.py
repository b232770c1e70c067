"""The jobs of a scenario file: what waits, and what runs where. All the words of a gang, read strictly."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Set
from dataclasses import replace

from fairlead.model.gang import (
    Gang,
    GangId,
    Isolation,
    Member,
    Overrun,
    Placement,
    PodShape,
    Requirement,
    Role,
    SelectorTerms,
    ServiceClass,
    Share,
    ShareMode,
    Slices,
    Tier,
    Toleration,
    TopologyRequest,
)
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.simulation.fields import Fields
from fairlead.simulation.saving_yaml import checkpoint_words
from fairlead.simulation.taking_yaml import RESIZE
from fairlead.units import quantity_milli

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
MAX_REPLICAS = 100_000
MOST = 1 << 60  # more of anything is a mistake, and sums over a fleet must stay within 64 bits
_CLASSES = tuple(member.value for member in ServiceClass)
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


class Levels:
    """The level names that jobs of one file may use."""

    def __init__(self, names: Set[str]) -> None:
        """Take the levels that nodes are in or that the file declares; every fleet has some by itself."""
        self._names = sorted({"node", "island", "cluster", *names})

    def read(self, item: Fields, name: str, default: str | None = None) -> str:
        """Read a field that names a level."""
        level = item.text(name, default)
        if level and level not in self._names:
            near = difflib.get_close_matches(level, self._names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(self._names)}"
            item.fail(name, f"no node is in a level {level!r}; {hint}")
        return level


class Devices:
    """What running jobs hold of the devices, so that none is held twice and none has to be written down."""

    def __init__(self, nodes: Mapping[str, Node], foreign: Mapping[NodeName, tuple[str, ...]]) -> None:
        """Start with what others hold."""
        self.nodes = nodes
        self._milli = {(str(name), device): 1_000 for name, devices in foreign.items() for device in devices}

    def take(self, item: Fields, node: Node, role: Role) -> tuple[str, ...]:
        """Read `devices` of one member, or choose the first that are free; charge them.

        A share lies where it still finds room; which instance of MIG is held must be said with `devices`.
        """
        wanted = role.gpus or int(role.share is not None or bool(role.mig))
        milli = role.share.milli if role.share is not None else 0 if role.mig else 1_000
        named = item.texts("devices")
        known = [gpu.device for gpu in node.machine.gpus]
        if named is None:
            free = [d for d in known if self._milli.get((str(node.name), d), 0) + milli <= 1_000]
            named = tuple(free[:wanted])
        if len(named) != wanted:
            item.fail("devices", f"{len(named)} are free or named on {node.name}, the role holds {wanted}")
        for device in named:
            if device not in known:
                item.fail("devices", f"{node.name} has no {device!r}; use one of: {', '.join(known) or 'none'}")
            total = self._milli.get((str(node.name), device), 0) + milli
            if total > 1_000:
                item.fail("devices", f"{device} of {node.name} is held already; name another")
            self._milli[str(node.name), device] = total
        return named


def amounts(item: Fields, default: Resources, *, low: int) -> Resources:
    """Read cpu, memory, ephemeralStorage, pods and extended; each at least `low`. `pods` stay as in `default`."""
    cpu = default.cpu_milli
    raw = item.raw("cpu")
    if raw is not None:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            item.fail("cpu", "must be an amount of cores such as 4 or 500m")
        cpu = quantity_milli(str(raw), field=f"{item.path}.cpu")
    sizes = {"memory": default.memory_bytes, "ephemeralStorage": default.ephemeral_bytes}
    for name, value in sizes.items():
        sizes[name] = item.quantity(name, value)
    for name, value in (("cpu", cpu), *sizes.items()):
        if not low <= value <= MOST:
            item.fail(name, f"is outside {low}..{MOST}")
    inner = item.inner("extended")
    extended = dict(default.extended)
    for name in inner.names():
        extended[name] = inner.quantity(name)
        if not low <= extended[name] <= MOST:
            inner.fail(name, f"is outside {low}..{MOST}")
    return Resources(
        cpu_milli=cpu,
        memory_bytes=sizes["memory"],
        ephemeral_bytes=sizes["ephemeralStorage"],
        pods=item.integer("pods", default.pods, low=0, high=1_000_000) if item.has("pods") else default.pods,
        extended=tuple(sorted(extended.items())),
    )


def whole(item: Fields, name: str, *, low: int, high: int) -> tuple[int, ...]:
    """Read a list of whole numbers in [low, high]."""
    value = item.raw(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        item.fail(name, "must be a list of whole numbers")
    numbers: list[int] = []
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int) or not low <= one <= high:
            item.fail(name, f"{one!r} is not a whole number in {low}..{high}")
        numbers.append(one)
    return tuple(numbers)


def read_waiting(item: Fields, levels: Levels, start_ms: int, position: int) -> Gang:
    """Read an entry of `waiting`. Without `waited`, jobs stand in the order in which they are written."""
    waited = item.duration_ms("waited")
    gang = _gang(item, levels, start_ms + position if waited is None else start_ms - waited)
    item.done()
    return gang


def saved_since(item: Fields, start_ms: int) -> int | None:
    """Read how long ago the last checkpoint of an entry of `running` began; None where it has made none."""
    ago_ms, since_ms = item.duration_ms("saved"), item.duration_ms("since", 3_600_000) or 0
    if ago_ms is not None and not item.has("checkpoint"):
        item.fail("saved", "stands without checkpoint; say how it saves, or remove it")
    if ago_ms is not None and ago_ms > since_ms:
        item.fail("saved", "is longer ago than it has run; lower it or raise since")
    return None if ago_ms is None else start_ms - ago_ms


def read_running(item: Fields, levels: Levels, held: Devices, start_ms: int) -> tuple[Gang, Placement, Tier, bool]:
    """Read an entry of `running`: a job, how long it has run, and where each of its members is."""
    since = item.duration_ms("since", 3_600_000) or 0
    tier = Tier(item.choice("tier", tuple(t.value for t in Tier), Tier.IN_QUOTA.value))
    gang = _gang(item, levels, start_ms - since)
    members: list[Member] = []
    counts = {role.name: 0 for role in gang.roles}
    for place in item.items("members"):
        name = place.text("role", gang.roles[0].name)
        role = next((role for role in gang.roles if role.name == name), None)
        if role is None:
            place.fail("role", f"{name!r} is not a role of this job; use one of: {', '.join(counts)}")
        node_name = place.text("node")
        node = held.nodes.get(node_name)
        if node is None:
            place.fail("node", f"there is no node {node_name!r}")
        count = place.integer("count", 1, low=1, high=MAX_REPLICAS)
        if count > 1 and place.has("devices"):
            place.fail("count", "devices are named for one member; write an entry for each")
        start = place.integer("migStart", low=0, high=63) if place.has("migStart") else -1
        milli = role.share.milli if role.share is not None else 0
        if role.mig:
            milli = place.integer("milli", low=1, high=1_000)
        for _ in range(count):
            devices = held.take(place, node, role)
            at = counts[name]
            counts[name] += 1
            members.append(
                Member(
                    role=name,
                    index=at,
                    rank=len(members),
                    node=node.name,
                    devices=devices,
                    share_milli=milli,
                    mig_start=start,
                )
            )
        place.ignore("migStart", "milli")
        place.done()
    for role in gang.roles:
        if not role.fewest <= counts[role.name] <= role.replicas:
            item.fail("members", f"{counts[role.name]} members of role {role.name} are placed; it has {role.replicas}")
    if not members:
        item.fail("members", "is required: say on which nodes the members run")
    deleted = item.boolean("deleted", False)
    item.done()
    return gang, Placement(members=tuple(members)), tier, deleted


def _gang(item: Fields, levels: Levels, submitted_ms: int) -> Gang:
    name = item.text("name", pattern=NAME)
    queue = item.text("queue", pattern=NAME)
    roles = tuple(_role(role, levels) for role in item.items("roles"))
    if not 1 <= len(roles) <= 1_024:
        item.fail("roles", f"has {len(roles)} roles; 1 to 1024 are possible")
    if len({role.name for role in roles}) != len(roles):
        item.fail("roles", "two roles have the same name; rename one")
    if sum(role.replicas for role in roles) > MAX_REPLICAS:
        item.fail("roles", f"replicas add up to more than {MAX_REPLICAS}; split the job")
    duration_ms, deadline_in = item.duration_ms("duration"), item.duration_ms("deadlineIn")
    service_class = ServiceClass(item.choice("serviceClass", _CLASSES, ServiceClass.TRAINING.value))
    checkpoint, grace_ms = checkpoint_words(item.inner("checkpoint")) if item.has("checkpoint") else (None, 0)
    item.ignore("checkpoint")
    return Gang(
        id=GangId(name),
        namespace=item.text("namespace", queue, pattern=NAME),
        name=name,
        queue=queue,
        roles=roles,
        priority=item.integer("priority", 0, low=-2_147_483_648, high=2_147_483_647),
        priority_class=item.text("priorityClass", ""),
        service_class=service_class,
        topology=_topology(item, "topology", levels),
        submitted_ms=submitted_ms,
        suspended=item.boolean("suspend", False),
        duration_ms=duration_ms,
        wants_promise=item.boolean("promise", False),
        template=item.text("template", ""),
        overrun=Overrun(item.choice("overrun", tuple(o.value for o in Overrun), Overrun.STOP.value)),
        preemptible=item.boolean("preemptible", service_class is not ServiceClass.SERVING),
        resizable=item.choice("resize", RESIZE, RESIZE[0]) != RESIZE[0],
        mixed_models=item.boolean("mixedModels", False),
        isolation=Isolation(item.choice("isolation", tuple(i.value for i in Isolation), Isolation.SHARED.value)),
        checkpoint=checkpoint,
        grace_ms=grace_ms,
        user=item.text("user", ""),
        groups=tuple(sorted(set(item.texts("groups") or ()))),
        deadline_ms=None if deadline_in is None else submitted_ms + deadline_in,
    )


def _role(item: Fields, levels: Levels) -> Role:
    replicas = item.integer("replicas", low=1, high=MAX_REPLICAS)
    fewest = item.integer("minReplicas", low=0, high=MAX_REPLICAS) if item.has("minReplicas") else None
    if fewest is not None and fewest > replicas:
        item.fail("minReplicas", f"{fewest} is larger than replicas {replicas}; lower it or raise replicas")
    item.ignore("minReplicas")
    gpus = item.integer("gpus", 0, low=0, high=MAX_REPLICAS)
    share, mig = _share(item), item.text("mig", "")
    if (gpus > 0) + (share is not None) + bool(mig) > 1:
        item.fail("gpus", "a member has whole GPUs, a share or a MIG instance; keep one of gpus, share and mig")
    shape = amounts(item, Resources(pods=1), low=0)
    memory = item.quantity("gpuMemory")
    if memory < 0:
        item.fail("gpuMemory", "is negative; write for example 80Gi")
    role = Role(
        name=item.text("name", "worker", pattern=NAME),
        replicas=replicas,
        gpus=gpus,
        gpu_model=item.text("model", ""),
        gpu_memory_bytes=memory,
        pod=PodShape(
            requests=replace(shape, extended=tuple((name, amount) for name, amount in shape.extended if amount)),
            node_selector=item.labels("nodeSelector"),
            affinity=_affinity(item),
            tolerations=tuple(_toleration(one) for one in item.items("tolerations")),
            host_ports=tuple(("TCP", "0.0.0.0", port) for port in whole(item, "hostPorts", low=1, high=65_535)),
        ),
        share=share,
        mig=mig,
        min_replicas=fewest,
        nics_per_gpu=item.integer("nicsPerGpu", 0, low=0, high=16),
        topology=_topology(item, "topology", levels),
        spread=levels.read(item, "spread", ""),
    )
    item.done()
    return role


def _share(item: Fields) -> Share | None:
    if not item.has("share"):
        item.raw("share")
        return None
    inner = item.inner("share")
    memory = inner.quantity("memory")
    if memory < 0:
        inner.fail("memory", "is negative; write for example 10Gi")
    share = Share(
        milli=inner.integer("milli", low=1, high=1_000),
        memory_bytes=memory,
        mode=ShareMode(inner.choice("mode", tuple(m.value for m in ShareMode), ShareMode.TIME_SLICE.value)),
    )
    inner.done()
    return share


def _topology(item: Fields, name: str, levels: Levels) -> TopologyRequest | None:
    if not item.has(name):
        item.raw(name)
        return None
    inner = item.inner(name)
    slices = tuple(_slices(one, levels) for one in inner.items("slices"))
    within = levels.read(inner, "within", "cluster" if slices else None)
    request = TopologyRequest(
        within=within,
        required=inner.choice("mode", ("required", "preferred"), "required") == "required" and within != "cluster",
        slices=slices,
    )
    inner.done()
    return request


def _slices(item: Fields, levels: Levels) -> Slices:
    slices = Slices(within=levels.read(item, "within"), size=item.integer("size", low=1, high=MAX_REPLICAS))
    item.done()
    return slices


def _affinity(item: Fields) -> SelectorTerms | None:
    """Read terms of which one must hold, each a list of requirements that must all hold."""
    if not item.has("affinity"):
        item.raw("affinity")
        return None
    terms: list[tuple[Requirement, ...]] = []
    for term in item.items("affinity"):
        terms.append(tuple(_requirement(one) for one in term.items("all")))
        term.done()
    return tuple(terms)


def _requirement(item: Fields) -> Requirement:
    requirement = Requirement(
        key=item.text("key"), operator=item.choice("operator", _OPERATORS, "In"), values=item.texts("values") or ()
    )
    item.done()
    return requirement


def _toleration(item: Fields) -> Toleration:
    toleration = Toleration(
        key=item.text("key", ""),
        operator=item.choice("operator", ("Equal", "Exists"), "Equal"),
        value=item.text("value", ""),
        effect=item.choice("effect", _EFFECTS, ""),
    )
    item.done()
    return toleration
