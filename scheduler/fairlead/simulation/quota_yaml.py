"""Quotas and fairness policies as people write them: the same words in documents of a cluster and in scenario files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlead.model.fairness import AGING_MS, HALF_LIFE_MS, FairnessPolicy, Sharing
from fairlead.model.quota import AMOUNT_MOST, GPU, Quota, is_resource, quota_of
from fairlead.model.tenancy import NON_PREEMPTIBLE, ON_OVER_LIMIT, PRIORITY_SCOPES, SHARES, Queue
from fairlead.simulation.fields import DNS_LABEL, Fields

NUMBERS = ("guaranteed", "limit", "weight", "lendLimit", "borrowLimit", "need")
WEIGHT_MOST = 1_000_000


def quotas(item: Fields, name: str = "resources") -> list[Quota]:
    """Read a list of quotas, each of another resource.

    Raises
    ------
    UnreadableInput
        A field is wrong or unknown, or a resource stands there twice; the text names it with its path.
    """
    found: dict[str, Quota] = {}
    for one in item.items(name):
        resource = one.text("name")
        if resource in found:
            one.fail("name", f"{resource} stands there twice; remove one of them")
        found[resource] = one_quota(one, resource)
        one.done()
    return list(found.values())


def one_quota(item: Fields, resource: str) -> Quota:
    """Read the numbers of one quota from the fields of `item`. Raises `UnreadableInput` like `quotas`."""
    said: dict[str, int | None] = {}
    for number in NUMBERS:
        if not item.has(number):
            item.ignore(number)
        elif number == "weight":
            said[number] = item.integer(number, low=1, high=WEIGHT_MOST)
        else:
            said[number] = item.integer(number, low=0, high=AMOUNT_MOST)
    return quota_of(resource, said, field=item.path)


def sharing_fields(item: Fields) -> dict[str, Any]:
    """Read what a queue says beside its quotas about sharing: fields of a Queue. Raises `UnreadableInput`."""
    return {
        "fairness_policy": item.text("fairnessPolicy", ""),
        "priority_scope": item.choice("priorityScope", PRIORITY_SCOPES, "queue"),
        "on_over_limit": item.choice("onOverLimit", ON_OVER_LIMIT, "keep"),
        "non_preemptible": item.choice("nonPreemptible", NON_PREEMPTIBLE, "any"),
        "shares": item.choice("shares", SHARES, "own"),
    }


def policy_of(item: Fields, name: str) -> FairnessPolicy:
    """Read a FairnessPolicy from its spec.

    Raises
    ------
    UnreadableInput
        A field is wrong or unknown; the text names it with its path.
    """
    weights: dict[str, int] = {}
    for one in item.items("resources"):
        resource = one.text("name")
        if not is_resource(resource):
            one.fail("name", f"{resource!r} is no resource; use gpu, gpu/MODEL, cpu, memory or an extended resource")
        if resource in weights:
            one.fail("name", f"{resource} stands there twice; remove one of them")
        weights[resource] = one.integer("weightMilli", 1000, low=0, high=WEIGHT_MOST)
        one.done()
    if weights and not any(weights.values()):
        item.fail("resources", "weigh nothing at all; raise one weightMilli, gpu for example")
    policy = FairnessPolicy(
        name=name,
        version=item.integer("version", 1, low=1, high=1_000_000_000),
        kind=Sharing(item.choice("kind", tuple(kind.value for kind in Sharing), Sharing.WEIGHTED.value)),
        half_life_ms=item.duration_ms("halfLife", HALF_LIFE_MS) or HALF_LIFE_MS,
        aging_ms=item.duration_ms("aging", AGING_MS) or AGING_MS,
        resources=tuple(sorted(weights.items())),
        damping=item.integer("damping", 1, low=1, high=1_000),
    )
    item.done()
    return policy


def gpu_words(item: Fields) -> list[Quota]:
    """Read the numbers that a queue of a scenario file says of GPUs itself, and its list of other resources."""
    others = quotas(item)
    said = any(item.has(number) for number in NUMBERS)
    gpu = one_quota(item, GPU)
    if said and any(quota.resource == GPU for quota in others):
        item.fail("resources", "names gpu, of which the queue itself says something; say all in one place")
    return [*others, gpu] if said else others


def policy_document(document: Fields) -> FairnessPolicy:
    """Read one FairnessPolicy document. Raises `UnreadableInput` like `policy_of`."""
    document.ignore("status")
    name = document.inner("metadata").text("name", pattern=DNS_LABEL)
    policy = policy_of(document.inner("spec"), name)
    document.done()
    return policy


def policies_of(document: Fields, queues: Sequence[Queue]) -> tuple[FairnessPolicy, ...]:
    """Read the policies of a scenario file; every policy that a queue names must be among them."""
    found: dict[str, FairnessPolicy] = {}
    for item in document.items("policies"):
        name = item.text("name", pattern=DNS_LABEL)
        if name in found:
            item.fail("name", f"there are two policies {name!r}; rename one")
        found[name] = policy_of(item, name)
    for queue in queues:
        named = queue.fairness_policy
        if named and named not in found:
            document.fail("queues", f"{queue.name}.fairnessPolicy: there is no policy {named!r}; add it")
    return tuple(found.values())
