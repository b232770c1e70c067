"""From our own kinds to the scheduler's nouns: GangJob to Gang, Queue to Queue, Pool to Pool. Pure.

Whatever cannot be honoured comes back as a `Refusal` that names the field and the mend; nothing is ignored. Nodes are
decoded in `decode_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, GangId, Overrun, PodShape, Role, ServiceClass, TopologyRequest
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.tenancy import Pool, Queue
from fairlead.units import duration_ms, quantity
from fairlead_operator.custom_objects import GangJob, GangJobSpec, PoolObject, QueueObject, RoleSpec
from fairlead_operator.objects import LabelSelector, PriorityClass, time_ms
from fairlead_operator.pod_shape import Problem

MEMBERS_MAX = 4096
GPUS_PER_MEMBER_MAX = 32
TEMPLATES_KIB_MAX = 512  # with the status of 4,096 members the object stays under 1 MiB; etcd takes 1.5
_CLASSES = ", ".join(ServiceClass)


def decode_gang(
    job: GangJob, shapes: Mapping[str, PodShape], *, priority: int = 0, priority_class: str = ""
) -> Gang | Refusal:
    """Return the gang, or why it cannot be one. `shapes` has a pod's shape for each role's name."""
    spec = job.spec
    if refusal := spec_refusal(job):
        return refusal
    policy = spec.preemption.policy
    service_class = ServiceClass(spec.service_class)
    return Gang(
        id=GangId(job.metadata.uid),
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        queue=spec.queue,
        roles=tuple(_role(role, shapes[role.name]) for role in spec.roles),
        priority=priority,
        priority_class=priority_class,
        service_class=service_class,
        topology=TopologyRequest(within=spec.topology.within, required=spec.topology.mode == "required")
        if spec.topology
        else None,
        submitted_ms=time_ms(job.metadata.creation_timestamp),
        suspended=spec.suspend,
        duration_ms=duration_ms(spec.duration) if spec.duration else None,
        overrun=Overrun(spec.overrun),
        start_deadline_ms=duration_ms(spec.start_deadline),
        preemptible=policy != "Never" if policy else service_class is not ServiceClass.SERVING,
        max_restarts=spec.failure_policy.max_restarts,
        restart_on_failure=spec.failure_policy.on_member_failure == "restart",
        success_any=spec.success_policy.operator == "Any",
        success_roles=tuple(spec.success_policy.roles),
    )


def _role(role: RoleSpec, shape: PodShape) -> Role:
    """Convert one role that `spec_refusal` has passed."""
    return Role(
        name=role.name,
        replicas=role.replicas,
        gpus=role.devices.count,
        gpu_model=role.devices.model,
        gpu_memory_bytes=quantity(role.devices.memory) if role.devices.memory else 0,
        pod=shape,
    )


def spec_refusal(job: GangJob) -> Refusal | None:
    """Return why a spec cannot be scheduled as it is written, None where it can; templates are not looked at.

    The CRD's rules say the same at submission; this holds where somebody has installed an older CRD.
    """
    for field, mend in _unsupported_fields(job.spec):
        return refuse(Reason.UNSUPPORTED_FIELD, field=field, mend=mend)
    for field, problem, mend in _bad_values(job.spec):
        return refuse(Reason.INVALID_SPEC, field=field, problem=problem, mend=mend)
    return None


def template_refusal(role: str, problems: Iterable[Problem]) -> Refusal | None:
    """Turn the first problem of `unsupported` or `volume_needs` into a refusal; None where there is none."""
    for field, mend in problems:
        return refuse(Reason.UNSUPPORTED_FIELD, field=f"spec.roles[{role}].template.{field}", mend=mend)
    return None


def _unsupported_fields(spec: GangJobSpec) -> Iterator[Problem]:
    """Fields that later versions fill."""
    for name, value, mend in (
        ("checkpoint", spec.checkpoint, "remove it and let the program save and resume by itself"),
        ("dependsOn", spec.depends_on, "remove it and submit the next GangJob when this one has succeeded"),
        ("deadline", spec.deadline, "remove it, or bound the run with spec.duration"),
        ("isolation", spec.isolation, "remove it; every GPU of a GangJob is held by it alone"),
        ("ttl", spec.ttl, "remove it and delete the finished GangJob yourself"),
    ):
        if value is not None:
            yield f"spec.{name}", mend
    if spec.topology and spec.topology.spread is not None:
        yield "spec.topology.spread", "remove it, or spread with several GangJobs that each have a nodeSelector"
    for role in spec.roles:
        at = f"spec.roles[{role.name}]"
        if role.devices.mig is not None:
            yield f"{at}.devices.mig", "remove it and ask for whole GPUs with devices.count"
        if role.devices.share is not None:
            yield f"{at}.devices.share", "remove it and ask for whole GPUs with devices.count"
        if role.nic_per_gpu:
            yield f"{at}.nicPerGpu", "remove it; near NICs are preferred without it"
        for name, count in (("minReplicas", role.min_replicas), ("maxReplicas", role.max_replicas)):
            if count is not None and count != role.replicas:
                yield f"{at}.{name} other than replicas", f"remove {name}; elastic gangs are not supported yet"


def _bad_values(spec: GangJobSpec) -> Iterator[tuple[str, str, str]]:
    """(field, problem, mend) of values that mean nothing."""
    if not spec.queue:
        yield "spec.queue", "is empty", "name a queue"
    if not spec.roles:
        yield "spec.roles", "is empty", "add a role"
    names = [role.name for role in spec.roles]
    if len(set(names)) != len(names):
        yield "spec.roles", "names a role twice", "give every role its own name"
    if sum(role.replicas for role in spec.roles) > MEMBERS_MAX:
        yield "spec.roles[].replicas", f"add up to more than {MEMBERS_MAX}", "split the work over several GangJobs"
    kib = sum(memoryview(role.template).nbytes for role in spec.roles) // 1024
    if kib > TEMPLATES_KIB_MAX:
        mend = f"keep all together under {TEMPLATES_KIB_MAX} KiB; put large data into a ConfigMap or a volume"
        yield "spec.roles[].template", f"is {kib} KiB long", mend
    for role in spec.roles:
        yield from _bad_role(role)
    if spec.service_class not in list(ServiceClass):
        yield "spec.serviceClass", f"{spec.service_class!r} is not known", f"use one of: {_CLASSES}"
    for name, value, allowed in (
        ("overrun", spec.overrun, ("stop", "requeue")),
        ("successPolicy.operator", spec.success_policy.operator, ("All", "Any")),
        ("failurePolicy.onMemberFailure", spec.failure_policy.on_member_failure, ("restart", "fail")),
        ("preemption.policy", spec.preemption.policy, ("", "Allowed", "Never")),
        ("topology.mode", spec.topology.mode if spec.topology else "required", ("required", "preferred")),
    ):
        if value not in allowed:
            yield f"spec.{name}", f"{value!r} is not known", f"use one of: {', '.join(a for a in allowed if a)}"
    for unknown in sorted(set(spec.success_policy.roles) - set(names)):
        yield "spec.successPolicy.roles", f"{unknown!r} is no role", f"use names of spec.roles: {', '.join(names)}"
    for name, text in (("duration", spec.duration), ("startDeadline", spec.start_deadline)):
        yield from _bad_duration(f"spec.{name}", text, optional=name == "duration")


def _bad_role(role: RoleSpec) -> Iterator[tuple[str, str, str]]:
    """What is wrong with one role's numbers."""
    at = f"spec.roles[{role.name}]"
    if role.replicas < 1:
        yield f"{at}.replicas", f"{role.replicas} is not at least 1", "set it to 1 or more"
    if not 0 <= role.devices.count <= GPUS_PER_MEMBER_MAX:
        yield (
            f"{at}.devices.count",
            f"{role.devices.count} is not between 0 and {GPUS_PER_MEMBER_MAX}",
            "GPUs of one member are on one node; use more replicas",
        )
    if role.devices.count == 0 and (role.devices.model or role.devices.memory):
        yield f"{at}.devices", "describes GPUs, but count is 0", "set devices.count to at least 1"
    if role.devices.memory:
        try:
            quantity(role.devices.memory)
        except UnreadableInput:
            yield f"{at}.devices.memory", f"{role.devices.memory!r} is no quantity", "write for example 80Gi"


def _bad_duration(field: str, text: str, *, optional: bool) -> Iterator[tuple[str, str, str]]:
    """What is wrong with a duration."""
    if optional and not text:
        return
    try:
        if duration_ms(text) <= 0:
            yield field, "is zero", 'give a time such as "10m"'
    except UnreadableInput:
        yield field, f"{text!r} is not a duration", "write for example 90s, 10m or 1h30m"


def priority_of(job: GangJob, classes: Iterable[PriorityClass]) -> tuple[int, str] | Refusal:
    """Return the gang's priority and the name of its PriorityClass ("" where it names none and there is no default)."""
    name = job.spec.priority_class_name
    known = {found.metadata.name: found for found in classes}
    if name:
        chosen = known.get(name)
        return (chosen.value, name) if chosen else refuse(Reason.UNKNOWN_PRIORITY_CLASS, name=name)
    # Where two claim to be the default, the API server takes the lower one; so do we.
    defaults = sorted((c.value, c.metadata.name) for c in known.values() if c.global_default)
    return defaults[0] if defaults else (0, "")


def decode_queue(found: QueueObject, namespaces: Mapping[str, Mapping[str, str]]) -> Queue:
    """Return a queue, its namespace selector resolved; `namespaces` is name -> labels.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    name, spec = found.metadata.name, found.spec
    gpu = [quota for quota in spec.resources if quota.name == "gpu"]
    if others := sorted({quota.name for quota in spec.resources} - {"gpu"}):
        raise UnreadableInput(f"Queue {name}: spec.resources[{others[0]}] is not supported; only gpu is")
    quota = gpu[0] if gpu else None
    guaranteed, limit = (quota.guaranteed, quota.limit) if quota else (0, None)
    if limit is not None and limit < guaranteed:
        raise UnreadableInput(f"Queue {name}: spec.resources[gpu].limit is below guaranteed; raise it or lower that")
    listed = set(spec.namespaces.names)
    if spec.namespaces.selector is not None:
        listed |= {n for n, labels in namespaces.items() if selects(spec.namespaces.selector, labels)}
    return Queue(
        name=name,
        parent=spec.parent,
        guaranteed_gpus=guaranteed,
        limit_gpus=limit,
        weight=quota.weight if quota else 1,
        namespaces=tuple(sorted(listed)),
        priority_classes=None if spec.priority_classes is None else tuple(spec.priority_classes),
        service_classes=_service_classes(f"Queue {name}", spec.service_classes),
    )


def decode_pool(found: PoolObject) -> Pool:
    """Return a pool.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    name, spec = found.metadata.name, found.spec
    if spec.mode != "dra":
        raise UnreadableInput(f"Pool {name}: spec.mode {spec.mode} is not supported yet; use dra")
    if not spec.node_selector:
        raise UnreadableInput(f"Pool {name}: spec.nodeSelector is empty; name at least one label")
    return Pool(
        name=name,
        node_selector=tuple(sorted(spec.node_selector.items())),
        service_classes=_service_classes(f"Pool {name}", spec.service_classes),
        taint=spec.taint,
        driver=spec.driver,
        device_class=spec.device_class_name,
    )


def _service_classes(where: str, names: list[str] | None) -> tuple[ServiceClass, ...] | None:
    """Convert names of service classes; None stays None, which means any."""
    if names is None:
        return None
    try:
        return tuple(ServiceClass(name) for name in names)
    except ValueError as error:
        raise UnreadableInput(f"{where}: spec.serviceClasses: {error}; use one of: {_CLASSES}") from error


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects something with these labels; an empty one selects everything.

    Raises
    ------
    UnreadableInput
        An operator is not known.
    """
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for expression in selector.match_expressions:
        value = labels.get(expression.key)
        match expression.operator:
            case "In":
                fits = value is not None and value in expression.values
            case "NotIn":
                fits = value is None or value not in expression.values
            case "Exists":
                fits = value is not None
            case "DoesNotExist":
                fits = value is None
            case _:
                raise UnreadableInput(
                    f"selector.matchExpressions.operator {expression.operator!r} is not known; "
                    "use In, NotIn, Exists or DoesNotExist"
                )
        if not fits:
            return False
    return True
