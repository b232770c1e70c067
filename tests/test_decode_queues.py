"""What a Queue object says beside its quota: what is read of it, and that bad values are refused by name."""

from __future__ import annotations

import msgspec
import pytest

from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.queue_caps import (
    NO_CAPS,
    Budget,
    IdleRule,
    NamedCap,
    OnIdle,
    Overflow,
    Peak,
    QueueCaps,
    SubmitRate,
    TenantKind,
)  # fmt: skip
from fairlead.model.tenancy import Queue
from fairlead.model.windows import Window
from fairlead.simulation import gangjob_yaml
from fairlead.timezones import zone_of
from fairlead_operator.custom_objects import QueueObject
from fairlead_operator.decode import decode_queue

SPEC = {
    "tenantKind": "model-family",
    "maxJobs": 5,
    "maxPending": 0,
    "maxPendingByClass": [{"serviceClass": "training", "maxPending": 2}, {"serviceClass": "batch", "maxPending": 1}],
    "submitRate": {"perMinute": 6},
    "onOverflow": "Reject",
    "users": [{"name": "bob", "maxGpus": 8}, {"name": "*", "maxJobs": 1}],
    "groups": [{"name": "interns", "maxJobs": 2, "maxGpus": 4}],
    "budget": {"gpuHours": 100},
    "peaks": [{"serviceClasses": ["batch"], "gpusAtLeast": 8, "windows": [{"from": "08:00", "to": "18:00"}]}],
    "idle": {"after": "90m", "then": "demote", "serviceClasses": ["interactive"]},
}
CAPS = QueueCaps(
    max_jobs=5,
    max_pending=0,
    max_pending_of=((ServiceClass.BATCH, 1), (ServiceClass.TRAINING, 2)),
    submit_rate=SubmitRate(per_minute=6, burst=6),
    overflow=Overflow.REJECT,
    users=(NamedCap(name="*", max_jobs=1), NamedCap(name="bob", max_gpus=8)),
    groups=(NamedCap(name="interns", max_jobs=2, max_gpus=4),),
    budget=Budget(gpu_ms=360_000_000, soft_percent=80),
    peaks=(
        Peak(
            service_classes=(ServiceClass.BATCH,),
            windows=(Window(from_minute=480, to_minute=1080, zone=zone_of("UTC", field="")),),
            gpus_at_least=8,
        ),
    ),
    idle=IdleRule(after_ms=5_400_000, then=OnIdle.DEMOTE, service_classes=(ServiceClass.INTERACTIVE,)),
)


def decoded(spec: dict) -> Queue:
    document = {"metadata": {"name": "q"}, "spec": spec}
    return decode_queue(msgspec.convert(document, QueueObject), {})


def read(spec: dict) -> Queue:
    document = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "q"}, "spec": spec}
    return gangjob_yaml.read(msgspec.json.encode(document).decode(), now_ms=0, new_id=lambda _, name: name).queues[0]


@pytest.mark.parametrize("door", [decoded, read])
def test_both_doors_read_the_same_words(door) -> None:
    queue = door(SPEC)
    assert (queue.kind, queue.caps) == (TenantKind.MODEL_FAMILY, CAPS)
    assert (door({}).kind, door({}).caps) == (None, NO_CAPS)


@pytest.mark.parametrize("door", [decoded, read])
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"maxJobs": -1}, "maxJobs"),
        ({"maxPending": -1}, "maxPending"),
        ({"submitRate": {"perMinute": 0}}, "submitRate"),
        ({"submitRate": {"perMinute": 1, "burst": 0}}, "submitRate"),
        ({"tenantKind": "empire"}, "tenantKind"),
        ({"onOverflow": "Explode"}, "onOverflow"),
        ({"maxPendingByClass": [{"serviceClass": "bulk", "maxPending": 1}]}, "maxPendingByClass"),
        ({"maxPendingByClass": [{"serviceClass": "batch", "maxPending": -1}]}, "maxPendingByClass"),
        ({"users": [{"name": "", "maxJobs": 1}]}, "users"),
        ({"users": [{"name": "ann", "maxGpus": -1}]}, "users"),
        ({"budget": {"gpuHours": 0}}, "budget"),
        ({"budget": {"gpuHours": 1, "softPercent": 101}}, r"budget.softPercent"),
        ({"budget": {"gpuHours": 1, "amount": "5", "currency": "EUR"}}, "budget: must say either gpuHours or amount"),
        ({"budget": {"amount": "5"}}, r"budget.currency"),
        ({"budget": {"amount": "1e9", "currency": "EUR"}}, r"budget.amount"),
        ({"budget": {"gpuHours": 1, "timeZone": "Mars/Olympus"}}, r"budget.timeZone: there is no time zone"),
        ({"budget": {"gpuHours": 1, "period": "Week"}}, r"budget.period: 'Week' is not known"),
        ({"budget": {"gpuHours": 1, "onExhausted": "ask"}}, r"budget.onExhausted: 'ask' is not known"),
        ({"budget": {"gpuHours": 1, "enforcement": "None"}}, r"budget.enforcement"),
        ({"budget": {"gpuHours": 1, "alertPercents": [0]}}, r"budget.alertPercents"),
        ({"budget": {"gpuHours": 1, "monthStartsOn": 32}}, r"budget.monthStartsOn"),
        ({"peaks": [{"serviceClasses": ["batch"], "windows": []}]}, "peaks"),
        ({"peaks": [{"serviceClasses": ["bulk"], "windows": [{"from": "08:00", "to": "09:00"}]}]}, "peaks"),
        ({"peaks": [{"serviceClasses": ["batch"], "windows": [{"from": "8", "to": "09:00"}]}]}, "peaks"),
        (
            {"peaks": [{"serviceClasses": ["batch"], "windows": [{"from": "08:00", "to": "9:00", "timeZone": "X"}]}]},
            "peaks",
        ),
        ({"idle": {}}, "idle.after"),
        ({"idle": {"after": "4m59s"}}, "idle.after: must be 5m to 30d; remove idle for no rule"),
        ({"idle": {"after": "721h"}}, "idle.after"),
        ({"idle": {"after": "soon"}}, "idle.after"),
        ({"idle": {"after": "1h", "then": "kill"}}, "idle.then"),
        ({"idle": {"after": "1h", "serviceClasses": ["bulk"]}}, "idle.serviceClasses"),
        ({"groups": [{"name": "*", "maxJobs": 1}]}, "groups"),
    ],
)
def test_a_bad_value_is_refused_by_its_field(door, spec, field) -> None:
    with pytest.raises(UnreadableInput, match=rf"spec\.{field}"):
        door(spec)


def test_the_user_and_groups_of_a_job_come_from_its_annotations() -> None:
    notes = {"fairlead.dev/user": "ann", "fairlead.dev/groups": "staff, interns,,staff"}
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    document = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "GangJob",
        "metadata": {"name": "a", "annotations": notes},
        "spec": {"queue": "q", "roles": [{"name": "w", "replicas": 1, "template": template}]},
    }
    gang = gangjob_yaml.read(msgspec.json.encode(document).decode(), now_ms=0, new_id=lambda _, name: name).gangs[0]
    assert (gang.user, gang.groups) == ("ann", ("interns", "staff"))
