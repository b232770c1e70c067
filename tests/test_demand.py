"""What has been asked for lately: when the mix is renewed, what fades, what stays bounded."""

from __future__ import annotations

from dataclasses import replace

import builders as b
from hypothesis import given
from hypothesis import strategies as st

from fairlead.model.gang import Share
from fairlead.world.demand import FIRST_RENEWAL, KINDS_MAX, WINDOW, Arrivals, Kind, kinds_of, models_of


def test_the_mix_is_renewed_after_8_16_32_arrivals():
    arrivals = Arrivals()
    renewed = [n for n in range(1, 200) if arrivals.count(Kind(n % 3, 1000, 1))]
    assert renewed == [FIRST_RENEWAL, 16, 32, 64, 128]
    assert arrivals.mix.version == 5
    assert arrivals.mix.pods == (43, 43, 42)


def test_old_arrivals_fade():
    arrivals = Arrivals()
    old, new = Kind(0, 500, 1), Kind(0, 1000, 1)
    for _ in range(WINDOW):
        arrivals.count(old)
    kept = arrivals.mix
    for _ in range(3 * WINDOW):
        arrivals.count(new)
    share = dict(zip(arrivals.mix.kinds, arrivals.mix.pods, strict=True)).get(old, 0) / sum(arrivals.mix.pods)
    assert 0 < share < 0.02
    assert kept.kinds == (old,), "a mix that was handed out does not change"


def test_a_flood_of_kinds_keeps_the_frequent_ones_and_bounded_memory():
    arrivals = Arrivals()
    for n in range(10_000):
        arrivals.count(Kind(n, 1000, 1))
        arrivals.count(Kind(1, 500, 1))
    assert arrivals.mix.kinds[0] == Kind(1, 500, 1)
    assert len(arrivals.mix.kinds) <= KINDS_MAX
    assert len(arrivals._pods) <= 2 * KINDS_MAX


@given(
    st.lists(
        st.builds(Kind, st.integers(0, 3), st.just(1000), st.integers(1, 3), replicas=st.integers(1, 300)), max_size=60
    )
)
def test_the_same_arrivals_make_the_same_mix(sequence):
    first, second = Arrivals(), Arrivals()
    for kind in sequence:
        first.count(kind)
        second.count(kind)
    assert first.mix == second.mix


def test_a_gang_counts_as_its_roles():
    gang = b.gang("job", "4x8 within=rack model=H100|a100")
    (kind,) = kinds_of(gang)
    assert (kind.gpu_milli, kind.gpus, kind.models, kind.replicas, kind.within) == (
        1000,
        8,
        ("a100", "h100"),
        4,
        "rack",
    )


def test_shares_count_by_their_part_and_mig_roles_not_at_all():
    gang = b.gang("job", "1x1")
    role = gang.roles[0]
    share = replace(gang, roles=(replace(role, gpus=0, share=Share(milli=250)), replace(role, gpus=0, mig="1g.10gb")))
    (kind,) = kinds_of(share)
    assert (kind.gpu_milli, kind.gpus, kind.pod_milli) == (250, 1, 250)


def test_models_are_alternatives_in_no_order():
    assert models_of(" H100 |A100|h100") == ("a100", "h100")
    assert models_of("") == ()
