"""GangJob, Queue, Pool and PriorityClass documents as people write them, read into the model for the embedded shell.

In a cluster the API server's schema and CEL rules refuse bad documents; here the same fields are refused in the same
words, before anything is taken in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import yaml

from fairlead.errors import UnreadableInput
from fairlead.model.events import (
    Event,
    ExceptionSeen,
    GangSeen,
    PolicySeen,
    PoolSeen,
    PriceBookSeen,
    QueueSeen,
    SwitchesSet,
)
from fairlead.model.fairness import FairnessPolicy
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
from fairlead.model.prices import PriceBook
from fairlead.model.quota_exception import QuotaException
from fairlead.model.service_classes import TERMS
from fairlead.model.switches import Switches
from fairlead.model.tenancy import Pool, Queue, quota_fields
from fairlead.simulation.behaviour import Run
from fairlead.simulation.fields import DNS_LABEL, Fields
from fairlead.simulation.pod_template import read_template
from fairlead.simulation.policy_yaml import exception_of, switches_of
from fairlead.simulation.pool_yaml import pool_of, service_classes
from fairlead.simulation.price_yaml import book_of
from fairlead.simulation.promise_yaml import promise_words
from fairlead.simulation.queue_yaml import queue_caps, tenant_kind
from fairlead.simulation.quota_yaml import policy_document, quotas, sharing_fields
from fairlead.simulation.saving_yaml import saving_words, with_saves
from fairlead.simulation.taking_yaml import RESIZE, taking_caps
from fairlead.units import moment_ms, thousandths

API_VERSION = "fairlead.dev/v1alpha1"
RUN_ANNOTATION = "simulation.fairlead.dev/run"
FAILS_ANNOTATION = "simulation.fairlead.dev/fails"
MAX_BYTES = 1 << 20
_GANG_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_CLASSES = tuple(member.value for member in ServiceClass)
_LOWEST, _HIGHEST = -(2**31), 2**31 - 1  # whether a number makes sense is for the gang's own rules to say
_UNSUPPORTED = {
    "dependsOn": "remove it and submit the next GangJob when this one has succeeded",
}

KINDS = ("GangJob", "Queue", "Pool", "FairnessPolicy", "QuotaException", "Switchboard", "PriceBook", "PriorityClass")

NewId = Callable[[str, str], GangId]
"""(namespace, name) -> the uid that an API server would give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What a YAML text holds. `runs` says what the programs in the gangs will do, from their annotations."""

    gangs: tuple[Gang, ...] = ()
    queues: tuple[Queue, ...] = ()
    pools: tuple[Pool, ...] = ()
    exceptions: tuple[QuotaException, ...] = ()
    switches: Switches | None = None
    policies: tuple[FairnessPolicy, ...] = ()
    books: tuple[PriceBook, ...] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[GangId, Run] = field(default_factory=dict)

    def facts(self, now_ms: int) -> tuple[Event, ...]:
        """Return what a watch would have shown of these documents, in the order in which they depend on each other."""
        return (
            *(PoolSeen(pool=pool, at_ms=now_ms) for pool in self.pools),
            *(PriceBookSeen(book=book, at_ms=now_ms) for book in self.books),
            *self.queue_facts(now_ms),
            *(GangSeen(gang=gang, at_ms=now_ms) for gang in self.gangs),
        )

    def queue_facts(self, now_ms: int) -> tuple[Event, ...]:
        """Return what a watch would have shown of queues alone, policies, exceptions and the switches."""
        return (
            *(PolicySeen(policy=policy, at_ms=now_ms) for policy in self.policies),
            *(QueueSeen(queue=queue, at_ms=now_ms) for queue in self.queues),
            *(ExceptionSeen(exception=exception, at_ms=now_ms) for exception in self.exceptions),
            *(SwitchesSet(switches=switches, at_ms=now_ms) for switches in (self.switches,) if switches is not None),
        )


def read(
    text: str, *, now_ms: int, new_id: NewId, priorities: Mapping[str, int] | None = None, namespace: str = "default"
) -> Documents:
    """Read all documents of a YAML (or JSON) text. `priorities` are PriorityClasses known already.

    Raises
    ------
    UnreadableInput
        The text is no YAML, or a document or field is unknown, unsupported or wrong; the message names it.
    """
    known = dict(priorities or {})
    gangs: list[Gang] = []
    queues: list[Queue] = []
    pools: list[Pool] = []
    policies: list[FairnessPolicy] = []
    runs: dict[GangId, Run] = {}
    exceptions: list[QuotaException] = []
    books: list[PriceBook] = []
    switches: Switches | None = None
    documents = _documents(text)
    known |= _priorities(documents)
    for document in documents:
        match document.raw("kind"):
            case "GangJob":
                gang, run = _gang(document, now_ms, new_id, known, namespace)
                gangs.append(gang)
                if run is not None:
                    runs[gang.id] = run
            case "Queue":
                queues.append(_queue(document))
            case "Pool":
                _of_group(document, API_VERSION)
                pools.append(pool_of(document))
            case "FairnessPolicy":
                _of_group(document, API_VERSION)
                policies.append(policy_document(document))
            case "QuotaException":
                _of_group(document, API_VERSION)
                exceptions.append(exception_of(document))
            case "PriceBook":
                _of_group(document, API_VERSION)
                books.append(book_of(document))
            case "Switchboard":
                _of_group(document, API_VERSION)
                switches = switches_of(document)
            case "PriorityClass":
                pass
            case other:
                raise UnreadableInput(f"kind: {other!r} is not one of: {', '.join(KINDS)}")
    return Documents(
        gangs=tuple(gangs),
        queues=tuple(queues),
        pools=tuple(pools),
        exceptions=tuple(exceptions),
        switches=switches,
        policies=tuple(policies),
        books=tuple(books),
        priorities=known,
        runs=runs,
    )


def _priorities(documents: Iterable[Fields]) -> dict[str, int]:
    found: dict[str, int] = {}
    for document in documents:
        if document.raw("kind") == "PriorityClass":
            _of_group(document, "scheduling.k8s.io/v1")
            value = document.integer("value", low=-2_147_483_648, high=1_000_000_000)
            found[document.inner("metadata").text("name")] = value
    return found


def _documents(text: str) -> list[Fields]:
    if len(text.encode()) > MAX_BYTES:
        raise UnreadableInput(f"the text is larger than {MAX_BYTES} bytes: split it")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = [value for value in yaml.load_all(text, Loader=loader) if value is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise UnreadableInput(f"not YAML: {problem}") from problem
    return [Fields(value, "") for value in values]


def _of_group(document: Fields, version: str) -> None:
    if document.text("apiVersion") != version:
        document.fail("apiVersion", f"must be {version} for kind {document.raw('kind')}")


def _gang(
    document: Fields, now_ms: int, new_id: NewId, priorities: Mapping[str, int], default_namespace: str
) -> tuple[Gang, Run | None]:
    _of_group(document, API_VERSION)
    document.ignore("status")
    meta, spec = document.inner("metadata"), document.inner("spec")
    name, namespace = meta.text("name"), meta.text("namespace", default_namespace, pattern=DNS_LABEL)
    if not _GANG_NAME.fullmatch(name):
        meta.fail("name", f"{name!r}: use lower-case letters, digits and '-', starting with a letter")
    for field_name, mend in _UNSUPPORTED.items():
        spec.unsupported(field_name, mend)
    topology, spread = _topology(spec)
    roles = tuple(_role(item, name, spread) for item in spec.items("roles"))
    if len(roles) > 16:
        spec.fail("roles", f"has {len(roles)} roles; 1 to 16 are possible")
    priority_class = spec.text("priorityClassName", "")
    if priority_class and priority_class not in priorities:
        known = ", ".join(sorted(priorities)) or "none is defined"
        spec.fail("priorityClassName", f"there is no PriorityClass {priority_class!r}; use one of: {known}")
    service_class = ServiceClass(spec.choice("serviceClass", _CLASSES, "training"))
    success, failure = spec.inner("successPolicy"), spec.inner("failurePolicy")
    notes = meta.inner("annotations")
    policy = spec.inner("preemption")
    default_policy = "Allowed" if TERMS[service_class].preemptible else "Never"
    gang = Gang(
        id=new_id(namespace, name),
        namespace=namespace,
        name=name,
        queue=spec.text("queue", pattern=DNS_LABEL),
        roles=roles,
        priority=priorities.get(priority_class, 0),
        priority_class=priority_class,
        service_class=service_class,
        topology=topology,
        submitted_ms=now_ms,
        suspended=spec.boolean("suspend", False),
        duration_ms=spec.duration_ms("duration"),
        overrun=Overrun(spec.choice("overrun", ("stop", "requeue"), "stop")),
        start_deadline_ms=spec.duration_ms("startDeadline", 600_000) or 600_000,
        preemptible=policy.choice("policy", ("Allowed", "Never"), default_policy) == "Allowed",
        max_restarts=failure.integer("maxRestarts", 3, low=0, high=1_000),
        restart_on_failure=failure.choice("onMemberFailure", ("restart", "fail"), "restart") == "restart",
        success_any=success.choice("operator", ("All", "Any"), "All") == "Any",
        success_roles=success.texts("roles") or (),
        mixed_models=spec.boolean("mixedModels", False),
        isolation=Isolation(spec.choice("isolation", tuple(Isolation), Isolation.SHARED)),
        resizable=spec.choice("resize", RESIZE, RESIZE[0]) != RESIZE[0],
        **saving_words(spec),
        user=notes.text(USER_ANNOTATION, ""),
        wants_promise=spec.boolean("promise", False),
        template=meta.inner("labels").text(TEMPLATE_LABEL, ""),
        groups=groups_of(notes.text(GROUPS_ANNOTATION, "")),
        deadline_ms=moment_ms(spec.text("deadline"), field="spec.deadline") if spec.has("deadline") else None,
    )
    for part in (spec, success, failure, policy, document):
        part.done()
    if refusal := why_invalid(gang) or why_not_offered(gang):
        raise UnreadableInput(refusal.message)
    return gang, with_saves(_run(meta), gang.checkpoint, meta.inner("annotations"))


def _role(item: Fields, gang_name: str, spread: str) -> Role:
    """Read one role; `spread` is what the whole gang says, which the role's own word overrides."""
    name = item.text("name", pattern=DNS_LABEL)
    if len(name) > 20:
        item.fail("name", f"{name!r} is longer than 20 characters")
    if len(gang_name) + len(name) > 57:
        item.fail("name", "metadata.name and spec.roles[].name may have 57 characters together: shorten one of them")
    replicas = item.integer("replicas", low=_LOWEST, high=_HIGHEST)
    most = item.integer("maxReplicas", replicas, low=_LOWEST, high=_HIGHEST)
    if most != replicas:
        mend = "replicas is the most that are placed: set it to maxReplicas, and minReplicas to the fewest"
        item.fail("maxReplicas", f"other than replicas is not supported; {mend}")
    topology, own_spread = _topology(item)
    if item.has("topology") and own_spread:
        item.inner("topology").fail("spread", "stands beside topology in a role; use spec.roles[].spread")
    devices = item.inner("devices")
    role = Role(
        name=name,
        replicas=replicas,
        gpus=devices.integer("count", 0, low=_LOWEST, high=_HIGHEST),
        gpu_model=devices.text("model", ""),
        gpu_memory_bytes=devices.quantity("memory"),
        pod=_with_needs(item, read_template(item.inner("template"))),
        share=_share(devices.inner("share")) if devices.has("share") else None,
        mig=devices.text("mig", ""),
        min_replicas=item.integer("minReplicas", 0, low=_LOWEST, high=_HIGHEST) or None,  # 0 asks for all
        nics_per_gpu=int(item.boolean("nicPerGpu", False)),
        topology=topology,
        spread=item.text("spread", "", pattern=DNS_LABEL) if item.has("spread") else spread,
    )
    devices.ignore("share")
    devices.done()
    item.ignore("spread")
    item.done()
    return role


def _share(share: Fields) -> Share:
    found = Share(
        milli=thousandths(share.text("compute"), field=f"{share.path}.compute"),
        memory_bytes=share.quantity("memory"),
        mode=ShareMode(share.choice("mode", tuple(ShareMode), ShareMode.TIME_SLICE)),
    )
    share.done()
    return found


def _with_needs(item: Fields, pod: PodShape) -> PodShape:
    """Add what each pod of a role takes of resources above its node; no container can ask for these."""
    needs = item.inner("needs")
    found: dict[str, str | int] = {name: str(needs.raw(name)) for name in needs.names()}
    more = Resources(extended=needs_of(found, field=needs.path))
    return replace(pod, requests=pod.requests.plus(more))


def _topology(parent: Fields) -> tuple[TopologyRequest | None, str]:
    """Return how close together members are to be, None where nothing says so, and the level to spread over."""
    if not parent.has("topology"):
        parent.raw("topology")
        return None, ""
    topology = parent.inner("topology")
    slices: list[Slices] = []
    for item in topology.items("slices"):
        size = item.integer("size", low=_LOWEST, high=_HIGHEST)
        slices.append(Slices(within=item.text("within", pattern=DNS_LABEL), size=size))
        item.done()
    request = TopologyRequest(
        within=topology.text("within", "cluster", pattern=DNS_LABEL),
        required=topology.choice("mode", ("required", "preferred"), "required") == "required",
        slices=tuple(slices),
    )
    spread = topology.text("spread", "", pattern=DNS_LABEL) if topology.has("spread") else ""
    topology.ignore("spread")
    topology.done()
    if request.within != "cluster" or slices:
        return request, spread
    if not spread:
        parent.fail("topology", "asks for nothing; name a level in within, or remove it")
    return None, spread


def _run(meta: Fields) -> Run | None:
    """What the program will do, from the annotations that only the fleet in memory reads."""
    notes = meta.inner("annotations")
    run_ms = notes.duration_ms(RUN_ANNOTATION)
    fails = notes.text(FAILS_ANNOTATION, "0")
    if not fails.isdecimal():
        notes.fail(FAILS_ANNOTATION, f"{fails!r} is not a number of attempts")
    return None if run_ms is None and fails == "0" else Run(run_ms=run_ms, fails=int(fails))


def _queue(document: Fields) -> Queue:
    _of_group(document, API_VERSION)
    document.ignore("status")
    spec = document.inner("spec")
    namespaces = spec.inner("namespaces")
    namespaces.unsupported("selector", "the embedded shell knows no Namespace objects; list names instead")
    classes = spec.texts("serviceClasses")
    promised_jobs, notice_ms = promise_words(spec)
    queue = Queue(
        promised_jobs=promised_jobs,
        promise_notice_ms=notice_ms,
        name=document.inner("metadata").text("name", pattern=DNS_LABEL),
        parent=spec.text("parent", ""),
        namespaces=namespaces.texts("names") or (),
        priority_classes=spec.texts("priorityClasses"),
        service_classes=None if classes is None else service_classes(spec, classes),
        kind=tenant_kind(spec),
        caps=queue_caps(spec),
        taking_caps=taking_caps(spec),
        **quota_fields(quotas(spec)),
        **sharing_fields(spec),
    )
    namespaces.done()
    spec.done()
    document.done()
    return queue
