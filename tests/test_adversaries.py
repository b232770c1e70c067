"""Who cheats gains less than a hundredth of the fleet: a seed of each attack; the bench has a hundred."""

from functools import cache

import pytest

from fairlead.bench import adversaries

HOURS = 4
SEED = 1
SLOW = {"durations", "crash-loop", "split"}


@cache
def honest() -> float:
    return adversaries.share(SEED, adversaries._honest, hours=HOURS)


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in adversaries.ATTACKS]
)
def test_no_attack_gains_a_hundredth_of_the_fleet(attack):
    gain = adversaries.share(SEED, adversaries.ATTACKS[attack], hours=HOURS) - honest()
    assert gain < adversaries.BOUND_PERCENT


def test_an_honest_tenant_has_its_share_and_the_same_one_every_time() -> None:
    assert 24 < honest() < 34  # a quarter while all four contend, a third while the third one is away
    assert adversaries.share(SEED, adversaries._honest, hours=HOURS) == honest()


def test_a_row_says_what_was_gained_and_where() -> None:
    (row,) = adversaries.run(["priority"], 2, hours=1)
    assert (row.attack, row.runs, row.bound) == ("priority", 2, 1.0)
    assert row.holds == (row.gain_worst < 1.0)
    assert row.worst_seed in (1, 2)
