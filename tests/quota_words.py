"""What queues and fairness policies say about quotas, in few words: see `fields` and `policy`."""

from __future__ import annotations

from typing import Any

from fairlead.model.fairness import FairnessPolicy, Sharing
from fairlead.model.quota import Quota, unit_of
from fairlead.units import duration_ms

_OF_QUOTA = {
    "guaranteed": "guaranteed", "limit": "limit", "weight": "weight", "lend": "lend_limit", "borrow": "borrow_limit",
    "need": "need",
}  # fmt: skip


def fields(named: dict[str, str]) -> dict[str, Any]:
    """lend=, borrow=, need=, policy= (of its children), scope=subtree, over=requeue, fixed=in-quota, shares=parent. Of
    other resources, in what people write, with the name in front: ``gpu/H100.guaranteed=8 cpu.limit=64``."""
    return {
        "quotas": _quotas(named),
        "fairness_policy": named.get("policy", ""),
        "priority_scope": named.get("scope", "queue"),
        "on_over_limit": named.get("over", "keep"),
        "non_preemptible": named.get("fixed", "any"),
        "shares": named.get("shares", "own"),
    }


def _quotas(named: dict[str, str]) -> tuple[Quota, ...]:
    """What is said of each resource; of GPUs without a model what the fields of a Queue do not say."""
    found: dict[str, dict[str, int]] = {}
    for key, value in named.items():
        resource, _, word = key.rpartition(".")
        if word in _OF_QUOTA and (resource or word in ("lend", "borrow", "need")):
            of = found.setdefault(resource or "gpu", {})
            of[_OF_QUOTA[word]] = int(value) * (1 if word == "weight" else unit_of(resource or "gpu"))
    return tuple(Quota(resource=resource, **found[resource]) for resource in sorted(found))


def policy(name: str, text: str = "") -> FairnessPolicy:
    """A kind (weighted unless said), version=, halflife=, aging=, damping=, weights=cpu:500,memory:1000."""
    parts = text.split()
    named = dict(word.split("=", 1) for word in parts if "=" in word)
    plain = [word for word in parts if "=" not in word]
    weights = [part.rpartition(":") for part in named.get("weights", "").split(",") if part]
    return FairnessPolicy(
        name=name,
        version=int(named.get("version", "1")),
        kind=Sharing(plain[0] if plain else "weighted"),
        half_life_ms=duration_ms(named.get("halflife", "7d")),
        aging_ms=duration_ms(named.get("aging", "7d")),
        damping=int(named.get("damping", "1")),
        resources=tuple((resource, int(weight)) for resource, _, weight in weights),
    )
