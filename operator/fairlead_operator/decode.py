"""From our own kinds to the scheduler's nouns: GangJob to Gang, Queue to Queue; Pools in `decode_pools`. Pure.

Whatever cannot be honoured comes back as a `Refusal` that names the field and the mend; nothing is ignored. Nodes are
decoded in `decode_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fairlead.errors import UnreadableInput
from fairlead.model.gang import (
    GROUPS_ANNOTATION,
    TEMPLATE_LABEL,
    USER_ANNOTATION,
    Gang,
    GangId,
    Isolation,
    Overrun,
    PodShape,
    Role,
    ServiceClass,
    Share,
    ShareMode,
    Slices,
    TopologyRequest,
    groups_of,
)
from fairlead.model.gang_rules import why_invalid, why_not_offered
from fairlead.model.hardware import Resources
from fairlead.model.needs import needs_of
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.service_classes import TERMS
from fairlead.model.tenancy import Queue
from fairlead.units import duration_ms, moment_ms, quantity, thousandths
from fairlead_operator.custom_objects import (
    GangJob,
    GangJobSpec,
    QueueObject,
    RoleSpec,
    TopologySpec,
)
from fairlead_operator.decode_fairness import queue_quotas, queue_sharing
from fairlead_operator.decode_queues import queue_caps, taking_caps, tenant_kind
from fairlead_operator.decode_saving import bad_saving, saving_of
from fairlead_operator.objects import LabelSelector, PriorityClass, time_ms
from fairlead_operator.pod_shape import Problem

TEMPLATES_KIB_MAX = 512  # with the status of 4,096 members the object stays under 1 MiB; etcd takes 1.5
_CLASSES = ", ".join(ServiceClass)


def decode_gang(
    job: GangJob, shapes: Mapping[str, PodShape], *, priority: int = 0, priority_class: str = ""
) -> Gang | Refusal:
    """Return the gang, or why it cannot be one. `shapes` has a pod's shape for each role's name."""
    return spec_refusal(job) or _gang(job, shapes, priority, priority_class)


def spec_refusal(job: GangJob) -> Refusal | None:
    """Return why a spec cannot be scheduled as it is written, None where it can; templates are not looked at.

    The CRD's rules say much of it at submission; this holds where somebody has installed an older CRD.
    """
    for field, mend in _unsupported_fields(job.spec):
        return refuse(Reason.UNSUPPORTED_FIELD, field=field, mend=mend)
    for field, problem, mend in _bad_values(job.spec):
        return refuse(Reason.INVALID_SPEC, field=field, problem=problem, mend=mend)
    gang = _gang(job, {role.name: PodShape() for role in job.spec.roles}, 0, "")
    return why_invalid(gang) or why_not_offered(gang)


def with_needs(shape: PodShape, needs: Mapping[str, str | int]) -> PodShape:
    """Return the shape of a pod that also takes `needs`, which no container of it can ask for."""
    if not needs:
        return shape
    more = Resources(extended=needs_of(needs, field="needs"))
    return replace(shape, requests=shape.requests.plus(more))


def _gang(job: GangJob, shapes: Mapping[str, PodShape], priority: int, priority_class: str) -> Gang:
    """Convert a job whose values `_bad_values` has passed."""
    spec = job.spec
    policy = spec.preemption.policy
    service_class = ServiceClass(spec.service_class)
    spread = spec.topology.spread if spec.topology else ""
    return Gang(
        id=GangId(job.metadata.uid),
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        queue=spec.queue,
        roles=tuple(_role(role, shapes[role.name], spread) for role in spec.roles),
        priority=priority,
        priority_class=priority_class,
        service_class=service_class,
        topology=_topology(spec.topology),
        submitted_ms=time_ms(job.metadata.creation_timestamp),
        suspended=spec.suspend,
        duration_ms=duration_ms(spec.duration) if spec.duration else None,
        overrun=Overrun(spec.overrun),
        start_deadline_ms=duration_ms(spec.start_deadline),
        preemptible=policy != "Never" if policy else TERMS[service_class].preemptible,
        max_restarts=spec.failure_policy.max_restarts,
        restart_on_failure=spec.failure_policy.on_member_failure == "restart",
        success_any=spec.success_policy.operator == "Any",
        success_roles=tuple(spec.success_policy.roles),
        mixed_models=spec.mixed_models,
        resizable=spec.resize == "WhileRunning",
        isolation=Isolation(spec.isolation),
        wants_promise=spec.promise,
        template=job.metadata.labels.get(TEMPLATE_LABEL, ""),
        **saving_of(spec),
        user=job.metadata.annotations.get(USER_ANNOTATION, ""),
        groups=groups_of(job.metadata.annotations.get(GROUPS_ANNOTATION, "")),
        deadline_ms=moment_ms(spec.deadline) if spec.deadline else None,
    )


def _role(role: RoleSpec, shape: PodShape, spread: str) -> Role:
    """Convert one role; `spread` is what the whole gang says, which the role's own word overrides."""
    devices = role.devices
    return Role(
        name=role.name,
        replicas=role.replicas,
        gpus=devices.count,
        gpu_model=devices.model,
        gpu_memory_bytes=quantity(devices.memory) if devices.memory else 0,
        pod=with_needs(shape, role.needs),
        share=Share(
            milli=thousandths(devices.share.compute),
            memory_bytes=quantity(devices.share.memory) if devices.share.memory else 0,
            mode=ShareMode(devices.share.mode),
        )
        if devices.share
        else None,
        mig=devices.mig,
        min_replicas=role.min_replicas or None,  # 0 asks for all, as absence does
        nics_per_gpu=int(role.nic_per_gpu),
        topology=_topology(role.topology),
        spread=role.spread or spread,
    )


def _topology(found: TopologySpec | None) -> TopologyRequest | None:
    """Convert what a gang or role says of closeness; None where it only says how to spread."""
    if found is None or (found.within == "cluster" and not found.slices):
        return None
    return TopologyRequest(
        within=found.within,
        required=found.mode == "required",
        slices=tuple(Slices(within=part.within, size=part.size) for part in found.slices),
    )


def template_refusal(role: str, problems: Iterable[Problem]) -> Refusal | None:
    """Turn the first problem of `unsupported` or `volume_needs` into a refusal; None where there is none."""
    for field, mend in problems:
        return refuse(Reason.UNSUPPORTED_FIELD, field=f"spec.roles[{role}].template.{field}", mend=mend)
    return None


def _unsupported_fields(spec: GangJobSpec) -> Iterator[Problem]:
    """Fields that later versions fill, and what mode dra, the only one there is, cannot carry."""
    for name, value, mend in (
        ("dependsOn", spec.depends_on, "remove it and submit the next GangJob when this one has succeeded"),
    ):
        if value is not None:
            yield f"spec.{name}", mend
    for role in spec.roles:
        at = f"spec.roles[{role.name}]"
        if role.devices.share is not None:
            # Several pods on one device would need one claim for all of them, or devices that may be in many.
            mend = (
                "every device is in one pod's claim: ask for whole GPUs with devices.count or a part with devices.mig"
            )
            yield f"{at}.devices.share in a Pool of mode dra", mend
        if role.max_replicas is not None and role.max_replicas != role.replicas:
            mend = "replicas is the most that are placed: set it to maxReplicas, and minReplicas to the fewest"
            yield f"{at}.maxReplicas other than replicas", mend


def _bad_values(spec: GangJobSpec) -> Iterator[tuple[str, str, str]]:
    """(field, problem, mend) of values that cannot be read."""
    if not spec.queue:
        yield "spec.queue", "is empty", "name a queue"
    kib = sum(memoryview(role.template).nbytes for role in spec.roles) // 1024
    if kib > TEMPLATES_KIB_MAX:
        mend = f"keep all together under {TEMPLATES_KIB_MAX} KiB; put large data into a ConfigMap or a volume"
        yield "spec.roles[].template", f"is {kib} KiB long", mend
    for role in spec.roles:
        yield from _bad_role(role)
    yield from _bad_topology("spec.topology", spec.topology)
    if spec.service_class not in list(ServiceClass):
        yield "spec.serviceClass", f"{spec.service_class!r} is not known", f"use one of: {_CLASSES}"
    for name, value, allowed in (
        ("overrun", spec.overrun, ("stop", "requeue")),
        ("successPolicy.operator", spec.success_policy.operator, ("All", "Any")),
        ("failurePolicy.onMemberFailure", spec.failure_policy.on_member_failure, ("restart", "fail")),
        ("preemption.policy", spec.preemption.policy, ("", "Allowed", "Never")),
        ("isolation", spec.isolation, tuple(Isolation)),
        ("resize", spec.resize, ("WhileRunning", "AtStart")),
    ):
        yield from _unknown(f"spec.{name}", value, allowed)
    if spec.deadline:
        try:
            moment_ms(spec.deadline)
        except UnreadableInput:
            yield "spec.deadline", f"{spec.deadline!r} is not a time", "write for example 2026-01-31T12:00:00Z"
    for name, text in (("duration", spec.duration), ("startDeadline", spec.start_deadline)):
        yield from _bad_duration(f"spec.{name}", text, optional=name == "duration")
    yield from bad_saving(spec)


def _bad_role(role: RoleSpec) -> Iterator[tuple[str, str, str]]:
    """Texts of one role that cannot be read."""
    at, share = f"spec.roles[{role.name}]", role.devices.share
    texts = [("devices.memory", role.devices.memory)]
    if share is not None:
        texts.append(("devices.share.memory", share.memory))
        yield from _unknown(f"{at}.devices.share.mode", share.mode, tuple(ShareMode))
        try:
            thousandths(share.compute)
        except UnreadableInput:
            yield f"{at}.devices.share.compute", f"{share.compute!r} is no part of a GPU", "write for example 25%"
    for name, text in texts:
        if text:
            try:
                quantity(text)
            except UnreadableInput:
                yield f"{at}.{name}", f"{text!r} is no quantity", "write for example 80Gi"
    try:
        needs_of(role.needs, field=f"{at}.needs")
    except UnreadableInput as error:
        field, _, rest = str(error).partition(": ")
        problem, _, mend = rest.partition("; ")
        yield field, problem, mend
    if role.topology and role.topology.spread:
        yield f"{at}.topology.spread", "stands beside topology in a role", f"use {at}.spread"
    yield from _bad_topology(f"{at}.topology", role.topology)


def _bad_topology(at: str, found: TopologySpec | None) -> Iterator[tuple[str, str, str]]:
    """What cannot be read of a wish for closeness."""
    if found is None:
        return
    yield from _unknown(f"{at}.mode", found.mode, ("required", "preferred"))
    if found.within == "cluster" and not found.slices and not found.spread:
        yield at, "asks for nothing", "name a level in within, or remove it"


def _unknown(field: str, value: str, allowed: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Say that a value is none of those that are allowed."""
    if value not in allowed:
        yield field, f"{value!r} is not known", f"use one of: {', '.join(name for name in allowed if name)}"


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
    listed = set(spec.namespaces.names)
    if spec.namespaces.selector is not None:
        listed |= {n for n, labels in namespaces.items() if selects(spec.namespaces.selector, labels)}
    return Queue(
        name=name,
        parent=spec.parent,
        namespaces=tuple(sorted(listed)),
        priority_classes=None if spec.priority_classes is None else tuple(spec.priority_classes),
        service_classes=service_classes(f"Queue {name}", spec.service_classes),
        kind=tenant_kind(name, spec),
        caps=queue_caps(name, spec),
        taking_caps=taking_caps(name, spec),
        **queue_quotas(name, spec.resources),
        **queue_sharing(name, spec),
        promised_jobs=max(0, spec.promise.jobs),
        promise_notice_ms=duration_ms(spec.promise.notice, field=f"Queue {name}: spec.promise.notice"),
    )


def service_classes(where: str, names: list[str] | None) -> tuple[ServiceClass, ...] | None:
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
