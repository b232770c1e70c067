"""A gang's objects as manifests."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Member, Placement, Tier
from fairlead_operator import pods
from fairlead_operator.allocations import read_member
from fairlead_operator.custom_objects import Allocation

TEMPLATE = {
    "metadata": {"labels": {"app": "x"}, "annotations": {"note": "mine"}},
    "spec": {
        "containers": [
            {"name": "main", "image": "example", "env": [{"name": "MASTER_PORT", "value": "1"}]},
            {"name": "sidecar", "image": "example"},
        ],
        "tolerations": [{"key": "other", "operator": "Exists"}],
    },
}


def sheet(name="train", **more):
    return pods.JobSheet(
        uid="u1", namespace="team", name=name, queue="research", templates={"worker": copy.deepcopy(TEMPLATE)}, **more
    )


def attempt(*members, number=2):
    placement = Placement(members=members, level="rack", domain="r1", pace_bytes_per_s=7)
    return pods.Attempt(number=number, placement=placement, tier=Tier.BORROWED, placed_at_ms=1_700_000_000_123)


def member(index, node="n1", devices=("gpu-0", "gpu-1"), role="worker", rank=None):
    return Member(role=role, index=index, rank=index if rank is None else rank, node=node, devices=devices)


def env(pod, container=0):
    return {e["name"]: e["value"] for e in pod["spec"]["containers"][container]["env"]}


def test_a_pod_says_who_it_is_and_goes_with_its_gangjob():
    one, two = member(0), member(1, "n2")
    pod = pods.pod_manifest(sheet(priority_class="high"), two, attempt(one, two))
    meta, spec = pod["metadata"], pod["spec"]
    assert meta["name"] == "train-worker-1-2"
    assert (spec["hostname"], spec["subdomain"]) == ("train-worker-1", "train")
    assert meta["labels"] == {
        "app": "x",
        "fairlead.dev/gang": "train",
        "fairlead.dev/gang-uid": "u1",
        "fairlead.dev/role": "worker",
        "fairlead.dev/index": "1",
        "fairlead.dev/rank": "1",
        "fairlead.dev/attempt": "2",
        "fairlead.dev/queue": "research",
    }
    assert meta["annotations"]["note"] == "mine"
    assert meta["annotations"]["fairlead.dev/devices"] == "n2=gpu-[0-1]"
    assert meta["annotations"]["fairlead.dev/tier"] == "borrowed"
    assert meta["finalizers"] == ["fairlead.dev/booked"]
    owner = meta["ownerReferences"][0]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u1", True, False)
    assert spec["schedulerName"] == "fairlead"
    assert "nodeName" not in spec
    assert spec["priorityClassName"] == "high"
    assert {"key": "fairlead.dev/pool", "operator": "Exists"} in spec["tolerations"]
    assert {"key": "other", "operator": "Exists"} in spec["tolerations"]


def test_every_container_knows_its_rank_and_a_users_own_variable_wins():
    one, two = member(0), member(1, "n2")
    pod = pods.pod_manifest(sheet(), two, attempt(one, two))
    main, sidecar = env(pod, 0), env(pod, 1)
    assert main["MASTER_PORT"] == "1"
    assert sidecar["MASTER_PORT"] == "29500"
    for variables in (main, sidecar):
        assert (variables["RANK"], variables["NODE_RANK"], variables["WORLD_SIZE"]) == ("1", "1", "2")
        assert variables["FAIRLEAD_GPUS"] == "2"
        assert variables["MASTER_ADDR"] == "train-worker-0.train.team.svc"
    names = [e["name"] for e in pod["spec"]["containers"][0]["env"]]
    assert len(names) == len(set(names))


def test_sizes_follow_the_members_that_were_placed_and_cores_and_nics_are_told():
    one = member(0)
    two = dataclasses.replace(member(1, "n2"), cpus="48-95", nics=("mlx5_0", "mlx5_1"))
    for chosen in ((one,), (one, two)):
        variables = env(pods.pod_manifest(sheet(), chosen[-1], attempt(*chosen)), 1)
        assert (variables["WORLD_SIZE"], variables["FAIRLEAD_SIZE"]) == (str(len(chosen)),) * 2
    assert (variables["FAIRLEAD_CPUS"], variables["FAIRLEAD_NICS"]) == ("48-95", "mlx5_0,mlx5_1")
    assert not {"FAIRLEAD_CPUS", "FAIRLEAD_NICS"} & env(pods.pod_manifest(sheet(), one, attempt(one)), 1).keys()


def test_containers_that_ask_for_the_claim_are_the_only_ones_to_get_it():
    own = sheet()
    pod = pods.pod_manifest(own, member(0), attempt(member(0)))
    assert pod["spec"]["resourceClaims"] == [{"name": "gpus", "resourceClaimName": "train-worker-0-2-gpus"}]
    assert [c["resources"]["claims"] for c in pod["spec"]["containers"]] == [[{"name": "gpus"}]] * 2
    own.templates["worker"]["spec"]["containers"][1]["resources"] = {"claims": [{"name": "gpus"}]}
    pod = pods.pod_manifest(own, member(0), attempt(member(0)))
    assert "resources" not in pod["spec"]["containers"][0]
    assert pod["spec"]["containers"][1]["resources"]["claims"] == [{"name": "gpus"}]


def test_a_member_without_devices_has_no_claim():
    pod = pods.pod_manifest(sheet(), member(0, devices=()), attempt(member(0, devices=())))
    assert "resourceClaims" not in pod["spec"]


def test_the_template_is_left_as_it_was():
    own = sheet()
    pods.pod_manifest(own, member(0), attempt(member(0)))
    assert own.templates["worker"] == TEMPLATE


def test_a_claim_has_both_finalizers_from_the_start_and_asks_for_an_exact_count():
    claim = pods.claim_manifest(sheet(), member(0), attempt(member(0)), "gpu.example")
    assert claim["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection", "fairlead.dev/booked"]
    request = claim["spec"]["devices"]["requests"][0]
    assert request["exactly"] == {"deviceClassName": "gpu.example", "allocationMode": "ExactCount", "count": 2}


def test_a_claim_holds_at_most_32_devices():
    many = member(0, devices=tuple(f"gpu-{i}" for i in range(33)))
    with pytest.raises(AssertionError):
        pods.claim_manifest(sheet(), many, attempt(many), "gpu.example")


def test_a_claims_status_names_each_device_and_its_one_node():
    config = [{"opaque": {"driver": "d", "parameters": {"a": 1}}}]
    status = pods.claim_status("n7", ("gpu-0", "gpu-1"), "p", "pod-uid", "gpu.nvidia.com", "pool7", config)
    results = status["allocation"]["devices"]["results"]
    assert [(r["request"], r["driver"], r["pool"], r["device"]) for r in results] == [
        ("gpus", "gpu.nvidia.com", "pool7", "gpu-0"),
        ("gpus", "gpu.nvidia.com", "pool7", "gpu-1"),
    ]
    assert status["allocation"]["nodeSelector"] == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n7"]}]}]
    }
    assert status["allocation"]["devices"]["config"][0]["source"] == "FromClass"
    assert status["reservedFor"] == [{"resource": "pods", "name": "p", "uid": "pod-uid"}]


def test_the_service_is_headless_early_and_of_one_attempt():
    service = pods.service_manifest(sheet(), 3)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"fairlead.dev/gang-uid": "u1", "fairlead.dev/attempt": "3"}


@given(st.text("abc-", min_size=1, max_size=60), st.integers(0, 4095), st.integers(1, 9999))
def test_pod_names_fit_and_stay_apart(gang, index, number):
    name = pods.pod_name(gang, "worker", index, number)
    assert len(name) <= 63
    assert name != pods.pod_name(gang, "worker", index, number + 1)
    assert name != pods.pod_name(gang, "worker", index + 1, number)


@st.composite
def held(draw):
    """What a member may hold: whole GPUs with cores and NICs, or a part of one."""
    node, role = draw(st.sampled_from(["n1", "n2", "n3"])), draw(st.sampled_from(["worker", "ps-a"]))
    whole, size = draw(st.booleans()), draw(st.integers(0, 5))
    return Member(
        role=role,
        index=0,
        rank=0,
        node=node,
        devices=tuple(f"gpu-{i}" for i in draw(st.permutations(range(12)))[:size]) if whole else ("gpu-3",),
        share_milli=0 if whole else draw(st.integers(1, 999)),
        mig_start=-1 if whole else draw(st.integers(-1, 11)),
        cpus=draw(st.sampled_from(["", "0-47", "0,2,4,6", "1"])),
        nics=draw(st.sampled_from([(), ("mlx5_0",), ("mlx5_1", "eth9", "mlx5_0"), ("bond", "mlx5_00", "mlx5_7")])),
    )


@given(
    st.lists(held(), min_size=1),
    st.dictionaries(st.sampled_from(["island", "node", "rack"]), st.integers(1, 9)),
    st.lists(st.text(max_size=40), max_size=8),
)
def test_what_status_and_annotations_record_is_read_back_in_rank_and_ring_order(rows, span, penalties):
    members = tuple(dataclasses.replace(row, index=rank, rank=rank) for rank, row in enumerate(rows))
    made = attempt(*members)
    where = dataclasses.replace(made.placement, span=tuple(sorted(span.items())), penalties=tuple(penalties))
    made = dataclasses.replace(made, placement=where)
    written = msgspec.json.decode(msgspec.json.encode(pods.allocation_status(made)), type=Allocation)
    assert pods.read_allocation(written, Tier.BORROWED) == made
    for one in members:
        note = pods.claim_manifest(sheet(), one, made, "c")["metadata"]["annotations"] if one.devices else None
        if note:
            node, _, text = note["fairlead.dev/devices"].partition("=")
            assert read_member(text, one.role, one.index, one.rank, node) == one


@pytest.mark.parametrize(
    "text", ["worker", "worker-x=gpu-0", "worker-0=gpu-0;fast", "worker-0=gpu-0;milli=x", "worker-0=gpu-0;cpus=@1"]
)
def test_an_allocation_that_somebody_edited_is_named(text):
    broken = msgspec.convert({"cpuSets": ["0-3"], "members": [{"node": "n1", "pods": [text]}]}, Allocation)
    with pytest.raises(UnreadableInput, match=r"status\.allocation\.members"):
        pods.read_allocation(broken)


def test_penalties_never_make_a_status_that_the_schema_refuses():
    where = Placement(members=(member(0),), penalties=tuple(f"{i} " + "x" * 600 for i in range(20)))
    written = pods.allocation_status(dataclasses.replace(attempt(), placement=where))["penalties"]
    schema = yaml.safe_load((Path(__file__).parents[1] / "crds/gangjobs.yaml").read_text())
    status = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    bounds = [status[part]["properties"]["penalties"] for part in ("allocation", "nomination")]
    assert [(b["maxItems"], b["items"]["maxLength"]) for b in bounds] == [(len(written), len(written[0]))] * 2
    assert written[3].startswith("3 xxx")
    assert written[3].endswith("x…")


def test_4096_members_stay_far_below_the_size_of_an_object():
    turns = [",".join(str(cpu) for cpu in range(first, 256, 2)) for first in (0, 1)]  # cores numbered over the sockets
    members = tuple(
        dataclasses.replace(
            member(i, f"rack-12-node-{i // 2:04d}", tuple(f"gpu-{d}" for d in range(8))),
            cpus=turns[i % 2],
            nics=tuple(f"mlx5_{n}" for n in range(8)),
        )
        for i in range(4096)
    )
    assert len(msgspec.json.encode(pods.allocation_status(attempt(*members)))) < 512 * 1024
