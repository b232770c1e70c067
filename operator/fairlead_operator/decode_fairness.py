"""Quotas of Queues and FairnessPolicies, from our own kinds to the scheduler's nouns. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.fairness import FairnessPolicy, Sharing
from fairlead.model.quota import Quota, is_resource, quota_of
from fairlead.model.tenancy import NON_PREEMPTIBLE, ON_OVER_LIMIT, PRIORITY_SCOPES, SHARES, quota_fields
from fairlead.units import duration_ms
from fairlead_operator.custom_objects import QueueResource, QueueSpec
from fairlead_operator.fairness_objects import FairnessPolicyObject


def queue_quotas(name: str, resources: Iterable[QueueResource]) -> dict[str, Any]:
    """Return the fields of a Queue that say its quotas.

    Raises
    ------
    UnreadableInput
        A resource is none or stands there twice, or its numbers contradict each other; the text names the field.
    """
    found: dict[str, Quota] = {}
    for said in resources:
        where = f"Queue {name}: spec.resources[{said.name}]"
        if said.name in found:
            raise UnreadableInput(f"{where}: stands there twice; remove one of them")
        numbers = {
            "guaranteed": said.guaranteed,
            "limit": said.limit,
            "weight": said.weight,
            "lendLimit": said.lend_limit,
            "borrowLimit": said.borrow_limit,
            "need": said.need,
        }
        found[said.name] = quota_of(said.name, numbers, field=where)
    return quota_fields(list(found.values()))


def queue_sharing(name: str, spec: QueueSpec) -> dict[str, Any]:
    """Return the fields of a Queue that say how it shares.

    Raises
    ------
    UnreadableInput
        A word is not known; the text names it and those that are.
    """
    words = {
        "priorityScope": (spec.priority_scope, PRIORITY_SCOPES),
        "onOverLimit": (spec.on_over_limit, ON_OVER_LIMIT),
        "nonPreemptible": (spec.non_preemptible, NON_PREEMPTIBLE),
        "shares": (spec.shares, SHARES),
    }
    for field, (word, known) in words.items():
        if word not in known:
            raise UnreadableInput(f"Queue {name}: spec.{field} {word!r} is not known; use {' or '.join(known)}")
    return {
        "fairness_policy": spec.fairness_policy,
        "priority_scope": spec.priority_scope,
        "on_over_limit": spec.on_over_limit,
        "non_preemptible": spec.non_preemptible,
        "shares": spec.shares,
    }


def decode_policy(found: FairnessPolicyObject) -> FairnessPolicy:
    """Return a fairness policy.

    Raises
    ------
    UnreadableInput
        The spec says what is not known; the text names the field and the mend.
    """
    name, spec = found.metadata.name, found.spec
    where = f"FairnessPolicy {name}: spec"
    kinds = [kind.value for kind in Sharing]
    if spec.kind not in kinds:
        raise UnreadableInput(f"{where}.kind {spec.kind!r} is not known; use one of: {', '.join(kinds)}")
    half_life_ms = duration_ms(spec.half_life, field=f"{where}.halfLife")
    aging_ms = duration_ms(spec.aging, field=f"{where}.aging")
    if not half_life_ms or not aging_ms:
        raise UnreadableInput(f"{where}.{'aging' if half_life_ms else 'halfLife'} is zero; write for example 7d")
    for weighed in spec.resources:
        if not is_resource(weighed.name):
            raise UnreadableInput(
                f"{where}.resources: {weighed.name!r} is no resource; use gpu, cpu, memory or its name"
            )
    weights = {weighed.name: weighed.weight_milli for weighed in spec.resources}
    if weights and not any(weights.values()):
        raise UnreadableInput(f"{where}.resources weigh nothing at all; raise one weightMilli, gpu for example")
    return FairnessPolicy(
        name=name,
        version=spec.version,
        kind=Sharing(spec.kind),
        half_life_ms=half_life_ms,
        aging_ms=aging_ms,
        resources=tuple(sorted(weights.items())),
        damping=max(1, spec.damping),
    )
