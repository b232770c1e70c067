"""FairnessPolicy objects as the API server sends them."""

# ruff: noqa: RUF012  # msgspec makes a new list of an empty default
from __future__ import annotations

from fairlead_operator.objects import Meta, Record, Resource


class WeighedResource(Record, frozen=True, kw_only=True):
    """How much a share of one resource weighs."""

    name: str = ""
    weight_milli: int = 1000


class FairnessPolicySpec(Record, frozen=True, kw_only=True):
    """How children share."""

    version: int = 1
    kind: str = "weighted"
    half_life: str = "7d"
    aging: str = "7d"
    resources: list[WeighedResource] = []
    damping: int = 1


class FairnessPolicyObject(Record, frozen=True, kw_only=True):
    """A FairnessPolicy (`fairlead.model.fairness.FairnessPolicy` is what becomes of it)."""

    metadata: Meta
    spec: FairnessPolicySpec = FairnessPolicySpec()


FAIRNESS_POLICIES = Resource(
    "FairnessPolicy", "/apis/fairlead.dev/v1alpha1", "fairnesspolicies", FairnessPolicyObject, namespaced=False
)
