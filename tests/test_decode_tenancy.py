"""Queues and Pools, decoded from JSON as a server sends it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.tenancy import LevelBudget
from fairlead_operator.custom_objects import PoolObject, QueueObject
from fairlead_operator.decode import decode_queue
from fairlead_operator.decode_pools import decode_pool


def decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def rack(resource: str, amount: str) -> dict[str, str]:
    return {"level": "rack", "resource": resource, "amount": amount}


def test_a_queue_resolves_its_namespaces() -> None:
    spec = {
        "parent": "org",
        "resources": [{"name": "gpu", "guaranteed": 8, "limit": 16, "weight": 2}],
        "namespaces": {
            "names": ["fixed"],
            "selector": {
                "matchLabels": {"team": "a"},
                "matchExpressions": [
                    {"key": "env", "operator": "NotIn", "values": ["prod"]},
                    {"key": "off", "operator": "DoesNotExist"},
                ],
            },
        },
        "serviceClasses": ["batch"],
    }
    spaces = {
        "one": {"team": "a"},
        "two": {"team": "a", "env": "prod"},
        "three": {"team": "a", "off": ""},
        "four": {"team": "b"},
    }
    got = decode_queue(decoded({"metadata": {"name": "q"}, "spec": spec}, QueueObject), spaces)
    assert got.namespaces == ("fixed", "one")
    assert (got.parent, got.guaranteed_gpus, got.limit_gpus, got.weight) == ("org", 8, 16, 2)
    assert (got.priority_classes, got.service_classes) == (None, (ServiceClass.BATCH,))


def test_a_queue_without_namespaces_takes_nobody_and_an_empty_selector_takes_all() -> None:
    bare = {"metadata": {"name": "q"}, "spec": {"resources": []}}
    assert decode_queue(decoded(bare, QueueObject), {"a": {}}).namespaces == ()
    bare["spec"] = {"namespaces": {"selector": {}}}
    assert decode_queue(decoded(bare, QueueObject), {"a": {}, "b": {"x": "y"}}).namespaces == ("a", "b")


def test_a_queue_or_pool_that_cannot_be_honoured_says_what_to_mend() -> None:
    bad_queue = {"metadata": {"name": "q"}, "spec": {"resources": [{"name": "gpu", "guaranteed": 8, "limit": 4}]}}
    with pytest.raises(UnreadableInput, match=r"spec\.resources\[gpu\]\.limit: 4 is below guaranteed 8"):
        decode_queue(decoded(bad_queue, QueueObject), {})
    bad_pool = {"metadata": {"name": "p"}, "spec": {"nodeSelector": {"a": "b"}, "mode": "count"}}
    with pytest.raises(UnreadableInput, match=r"spec\.mode count"):
        decode_pool(decoded(bad_pool, PoolObject))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"sharing": ["mig", "mps"]}, r"spec\.sharing: mode dra cannot carry mps yet; use mig or nothing"),
        ({"sharing": ["turns"]}, r"spec\.sharing: 'turns'; use time-slice, mps, mig"),
        ({"mig": "dynamic"}, r"spec\.mig dynamic: mode dra cannot cut GPUs anew yet; use static"),
        ({"mig": "fluid"}, r"spec\.mig 'fluid' is not known; use static or dynamic"),
        ({"servingOnTimeSlices": True}, r"spec\.servingOnTimeSlices"),
        ({"budgets": [{"resource": "x.y/w", "amount": "1"}]}, r"spec\.budgets\[0\]\.level: is empty"),
        (
            {"budgets": [{"level": "rack", "resource": "w", "amount": "1"}]},
            r"budgets\[0\]\.resource: 'w' is no resource",
        ),
        (
            {"budgets": [{"level": "rack", "resource": "x.y/w", "amount": "0"}]},
            r"budgets\[0\]\.amount: '0' is not positive",
        ),
        (
            {"budgets": [{"level": "rack", "resource": "x.y/w", "amount": "1"}] * 2},
            r"budgets\[1\]: rack has a budget of x",
        ),
    ],
)
def test_what_a_pool_cannot_carry_is_named_with_its_mend(spec: dict[str, Any], says: str) -> None:
    pool = {"metadata": {"name": "p"}, "spec": {"nodeSelector": {"a": "b"}, **spec}}
    with pytest.raises(UnreadableInput, match=f"Pool p: .*{says}"):
        decode_pool(decoded(pool, PoolObject))


def test_a_pool_says_what_may_be_shared_and_what_its_levels_have() -> None:
    bare = {"metadata": {"name": "p"}, "spec": {"nodeSelector": {"a": "b"}}}
    assert decode_pool(decoded(bare, PoolObject)).sharing == ("mig",)
    budgets = [
        {"level": "rack", "resource": "example.com/rack-watts", "amount": "40k"},
        {"level": "cluster", "resource": "example.com/storage", "amount": 400 * 10**9},
    ]
    bare["spec"] |= {"sharing": [], "budgets": budgets, "migDeviceClassName": "parts"}
    got = decode_pool(decoded(bare, PoolObject))
    assert (got.sharing, got.mig_mode, got.device_class, got.mig_device_class) == (
        (),
        "static",
        "gpu.nvidia.com",
        "parts",
    )
    assert got.budgets == (
        LevelBudget(level="rack", resource="example.com/rack-watts", amount=40_000),
        LevelBudget(level="cluster", resource="example.com/storage", amount=400 * 10**9),
    )
