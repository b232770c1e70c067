"""Who may share a device with whom, which ways of sharing are refused and why, and that the page says the same."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from fairlead.discovery.mig_tables import assumed
from fairlead.model.gang import (
    Gang,
    GangId,
    Role,
    ServiceClass,
    Share,
    ShareMode,
    Slices,
    TopologyRequest,
)
from fairlead.model.hardware import Gpu
from fairlead.model.partitions import MigInstance
from fairlead.model.reasons import Kind, Reason
from fairlead.model.tenancy import Pool
from fairlead.placement.sharing import (
    STATEMENTS,
    may_share,
    mig_refusal,
    mode_of,
    pool_allows,
    pool_problem,
    share_refusal,
    sharing_refusal,
)

GIB = 1 << 30
PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "sharing.md"
ALL = ("mig", "mps", "time-slice")


def gang(*roles, service_class=ServiceClass.BATCH, **more):
    return Gang(id=GangId("g"), namespace="team", name="g", queue="q", roles=roles, service_class=service_class, **more)


def role(**more):
    return Role(name="w", replicas=2, **more)


def pool(*sharing, **more):
    return Pool(name="p", node_selector=(), sharing=sharing, **more)


def slice_of(milli=250, memory_gib=0, mode=ShareMode.TIME_SLICE):
    return Share(milli=milli, memory_bytes=memory_gib * GIB, mode=mode)


WHOLE, CUT = role(gpus=2), role(mig="1g.10gb")
SLICED, SERVED = role(share=slice_of()), role(share=slice_of(memory_gib=8, mode=ShareMode.MPS))


def why(spec, *pools):
    found = sharing_refusal(spec, pools)
    return None if found is None else (found.reason, found.message)


def test_whole_devices_need_nobodys_leave_and_everything_else_a_pools() -> None:
    assert [mode_of(one) for one in (WHOLE, CUT, SLICED, SERVED, role())] == ["whole", "mig", "time-slice", "mps", ""]
    assert why(gang(WHOLE), pool()) is None
    assert why(gang(role()), pool()) is None
    for one in (CUT, SLICED, SERVED):
        found = why(gang(one), pool())
        assert found is not None
        assert found[0] is Reason.SHARING_NOT_ALLOWED
        assert f"no pool that serves batch allows {mode_of(one)}; allowed there: whole" in found[1]
        assert why(gang(one), pool(), pool(mode_of(one))) is None, "one pool that allows it is enough"
        others = [mode for mode in ALL if mode != mode_of(one)]
        assert why(gang(one), pool(*others)) is not None


def test_a_pool_that_serves_another_class_allows_nothing() -> None:
    other = pool(*ALL, service_classes=(ServiceClass.TRAINING,))
    found = why(gang(CUT), other, pool())
    assert found is not None
    assert found[0] is Reason.SHARING_NOT_ALLOWED
    assert why(gang(CUT), other) is None, "that no pool serves the class is said elsewhere"


def test_a_memory_share_of_time_slices_is_refused_because_nothing_enforces_it() -> None:
    found = why(gang(role(share=slice_of(memory_gib=20))), pool(*ALL))
    assert found is not None
    assert found[0] is Reason.SHARE_MEMORY_UNENFORCED
    assert "20480 MiB" in found[1]
    assert "mps" in found[1]
    assert found[0].kind is Kind.INVALID


def test_serving_gets_no_time_slices_unless_a_pool_says_so() -> None:
    spec = gang(SLICED, service_class=ServiceClass.SERVING)
    found = why(spec, pool(*ALL))
    assert found is not None
    assert found[0] is Reason.SHARE_BREAKS_LATENCY
    assert why(spec, pool(*ALL, serving_on_time_slices=True)) is None
    for one in (CUT, SERVED, WHOLE):
        assert why(gang(one, service_class=ServiceClass.SERVING), pool(*ALL)) is None


def test_a_pod_has_one_instance_and_instances_have_no_nvlink() -> None:
    for more, beside in (({"gpus": 1}, "1 GPUs"), ({"share": slice_of()}, "a share")):
        found = why(gang(role(mig="1g.10gb", **more)), pool(*ALL))
        assert found is not None
        assert found[0] is Reason.MIG_ONE_INSTANCE
        assert beside in found[1]
    island = TopologyRequest(within="island")
    rack = TopologyRequest(within="rack")
    assert why(gang(CUT, topology=island), pool(*ALL))[0] is Reason.MIG_HAS_NO_ISLAND
    assert why(gang(replace(CUT, topology=island)), pool(*ALL))[0] is Reason.MIG_HAS_NO_ISLAND
    slices = replace(rack, slices=(Slices(within="island", size=2),))
    assert why(gang(CUT, topology=slices), pool(*ALL))[0] is Reason.MIG_HAS_NO_ISLAND
    assert why(gang(CUT, topology=rack), pool(*ALL)) is None
    assert why(gang(CUT, topology=replace(island, required=False)), pool(*ALL)) is None, "a wish stays a wish"


def test_what_must_change_in_the_spec_is_said_before_what_a_pool_forbids() -> None:
    spec = gang(SLICED, role(share=slice_of(memory_gib=1)))
    found = why(spec, pool())
    assert found is not None
    assert found[0].kind is Kind.INVALID


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (pool("mig", "vgpu"), "spec.sharing: vgpu is no way of sharing; use mig, mps, time-slice"),
        (pool("mig", mig_mode="auto"), "spec.mig: 'auto' is none; use static or dynamic"),
        (pool("mig", "mps", mig_mode="dynamic"), "spec.mig: the driver has either dynamic MIG or MPS"),
        (pool("mig", serving_on_time_slices=True), "spec.servingOnTimeSlices"),
    ],
)
def test_a_pool_that_contradicts_itself_names_the_field_and_the_mend(bad, says) -> None:
    assert pool_problem(bad).startswith(says)


def test_a_pool_that_does_not_is_fine() -> None:
    good = (
        pool(),
        pool(*ALL),
        pool("mig", "time-slice", mig_mode="dynamic"),
        pool("time-slice", serving_on_time_slices=True),
    )
    assert [pool_problem(one) for one in good] == [""] * 4


# --- devices


def card(model="NVIDIA A100-SXM4-80GB", *layout, dynamic=False, memory_gib=80):
    gpu = Gpu(id="GPU0", index=0, device="gpu-0", model=model, memory_bytes=memory_gib * GIB)
    if not layout and not dynamic:
        return gpu
    geometry = assumed(gpu, enabled=not dynamic)
    number = {p.name: p for p in geometry.profiles}
    instances = tuple(
        MigInstance(id=at, profile=number[name].id, start=start, size=number[name].size)
        for at, (name, start) in enumerate(layout)
    )
    return replace(
        gpu, mig=replace(geometry, instances=instances, dynamic=dynamic), mig_enabled=not dynamic, whole=dynamic
    )


def test_devices_without_partitions_never_get_mig_requests() -> None:
    found = mig_refusal(CUT, [card(), card("NVIDIA L40S")])
    assert found is not None
    assert (found.reason, found.reason.kind) == (Reason.NO_SUCH_PARTITION, Kind.NEVER)
    assert mig_refusal(WHOLE, []) is None


def test_a_profile_that_could_be_cut_and_is_not_waits() -> None:
    halves = card("NVIDIA A100-SXM4-80GB", ("3g.40gb", 0), ("3g.40gb", 4))
    found = mig_refusal(CUT, [card(), halves])
    assert found is not None
    assert (found.reason, found.reason.kind) == (Reason.PARTITION_NOT_CUT, Kind.NOT_NOW)
    assert "no GPU is cut into 1g.10gb now; 1 could be, cut are: 3g.40gb" in found.message
    assert mig_refusal(role(mig="3g.40gb"), [halves]) is None
    assert mig_refusal(CUT, [halves, card(dynamic=True)]) is None
    wrong = mig_refusal(role(mig="1g.5gb"), [card(dynamic=True)])
    assert wrong is not None
    assert wrong.reason is Reason.NO_SUCH_PARTITION
    assert "1g.10gb" in wrong.message, "it says what there is"


def test_gpus_in_mig_mode_are_given_in_no_shares() -> None:
    cut = card("NVIDIA A100-SXM4-80GB", ("7g.80gb", 0))
    assert [may_share(gpu) for gpu in (card(), cut, card(dynamic=True))] == [True, False, True]
    found = share_refusal(SLICED, [cut])
    assert found is not None
    assert found.reason is Reason.SHARE_ON_PARTITIONED
    assert share_refusal(SLICED, [cut, card()]) is None
    big = share_refusal(role(share=slice_of(memory_gib=90, mode=ShareMode.MPS)), [card(), card(memory_gib=40)])
    assert big is not None
    assert (big.reason, dict(big.details)["best_mib"]) == (Reason.SHARE_TOO_BIG, 80 * 1024)
    assert share_refusal(role(share=slice_of(memory_gib=90)), [card(memory_gib=0)]) is None, "nobody knows"
    assert share_refusal(WHOLE, [cut]) is None


# --- what is said about it


def test_every_mode_states_what_it_keeps_apart_and_the_page_says_the_same() -> None:
    assert set(STATEMENTS) == {"whole", *ALL}
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    for mode, statement in STATEMENTS.items():
        assert statement.dedicated == (mode in ("whole", "mig"))
        for field in fields(statement):
            said = getattr(statement, field.name)
            if isinstance(said, str):
                assert said, f"{mode}.{field.name}"
                assert said in page, f"{mode}.{field.name} is not on the page: {said}"


def test_the_page_names_every_refusal_of_sharing() -> None:
    page = PAGE.read_text(encoding="utf-8")
    source = Path(sharing_refusal.__code__.co_filename).read_text(encoding="utf-8")
    named = [reason for reason in Reason if f"Reason.{reason.name}" in source]
    assert len(named) == 9
    assert [reason.token for reason in named if f"`{reason.token}`" not in page] == []


def test_a_pool_of_an_older_journal_shares_nothing() -> None:
    old = Pool(name="p", node_selector=())
    assert (old.sharing, old.mig_mode, old.serving_on_time_slices) == ((), "static", False)
    assert not pool_allows(old, gang(CUT).service_class, CUT)
    assert pool_allows(old, gang(WHOLE).service_class, WHOLE)
