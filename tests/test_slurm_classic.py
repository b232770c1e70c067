"""Slurm's classic fair-share: the published tree to six decimals, and queues that are really ordered by it."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import builders
import pytest
import quota_words
from builders import Stage

from fairlead.model import events as ev
from fairlead.ordering.slurm_classic import Association, ClassicTree, two_to_minus

DATA = Path(os.environ.get("FAIRLEAD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TREE = DATA / "slurm" / "fairshare_classic_dev.json"


@pytest.mark.skipif(not TREE.exists(), reason="the table of Slurm's own test is not there; set FAIRLEAD_DATA")
def test_every_published_factor_is_met_to_six_decimals() -> None:
    table = json.loads(TREE.read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in table["associations"]}
    root = next(row["id"] for row in rows.values() if row["parent_id"] == 0)
    tree = ClassicTree(
        {
            str(row["id"]): Association(
                "" if row["parent_id"] == root else str(row["parent_id"]),
                None if row["shares"] == "parent" else row["shares"],
            )
            for row in rows.values()
            if row["id"] != root
        }
    )
    inside = tree.inside({str(row["id"]): row["usage_raw"] for row in rows.values() if row["user"]})
    by_user = {row["user"]: str(row["id"]) for row in rows.values() if row["user"]}
    assert table["expected"]
    for wanted in table["expected"]:
        name = by_user[wanted["user"]]
        share = tree.share(name, inside, {})
        usage = Fraction(inside.get(name, 0), inside[""])
        found = (
            millionths(share.shares),
            millionths(usage),
            millionths(share.effective),
            share.factor_millionths(table["damping_factor"]),
        )
        fields = ("norm_shares", "norm_usage", "effective_usage", "fair_share")
        assert found == tuple(round(1_000_000 * wanted[field]) for field in fields), wanted


def millionths(value: Fraction) -> int:
    return int(value * 1_000_000 + Fraction(1, 2))


@pytest.mark.parametrize(
    ("exponent", "millionths_of"),
    [
        (Fraction(0), 1_000_000),
        (Fraction(1), 500_000),
        (Fraction(1, 2), 707_107),
        (Fraction(7, 3), 198_425),
        (Fraction(99), 0),
    ],
)
def test_powers_of_two_are_rounded_right(exponent, millionths_of) -> None:
    assert two_to_minus(exponent) == millionths_of


def classic(queues: dict[str, str], nodes: int = 1) -> Stage:
    stage = Stage([builders.node(f"n{i}", "8") for i in range(nodes)], [])
    stage.take(ev.PolicySeen(policy=quota_words.policy("default", "slurm-classic halflife=1d"), at_ms=stage.now_ms))
    for name, text in queues.items():
        stage.take(ev.QueueSeen(queue=builders.queue(name, text), at_ms=stage.now_ms))
    return stage


def run_for(stage: Stage, name: str, text: str, hours: int) -> None:
    """Let one gang run so long and end."""
    gang = stage.submit(name, text)
    stage.settle()
    stage.run(name)
    stage.now_ms += hours * 3_600_000
    for rank in range(gang.members):
        stage.end(name, rank)
    stage.settle()
    stage.release(name)
    stage.settle()


def order(stage: Stage, *names: str) -> list[str]:
    """Submit a gang of one GPU to each queue, and say in which order they are placed."""
    for name in names:
        stage.submit(f"next-{name}", f"1x1 queue={name}")
    return [effect.gang.removeprefix("next-") for effect in stage.settle()]


def test_who_has_used_more_of_what_his_shares_are_is_behind() -> None:
    stage = classic({"org": "", "a": "parent=org", "b": "parent=org weight=3"})
    run_for(stage, "a1", "1x8 queue=a", 1)
    run_for(stage, "b1", "1x8 queue=b", 2)
    assert order(stage, "a", "b") == ["b", "a"], "b used twice as much with three times the shares"


def test_siblings_pay_for_each_other_as_the_tree_says() -> None:
    stage = classic({"x": "", "y": "", "x1": "parent=x", "x2": "parent=x", "y1": "parent=y"})
    run_for(stage, "g", "1x8 queue=x1", 2)
    run_for(stage, "h", "1x4 queue=y1", 2)
    assert order(stage, "x1", "x2", "y1") == ["y1", "x2", "x1"], "x2 has used nothing, but half of what x1 did counts"


def test_children_whose_shares_are_their_parents_stand_as_it_does() -> None:
    queues = {"x": "weight=2", "u": "parent=x shares=parent", "v": "parent=x", "y": ""}
    stage = classic(queues)
    run_for(stage, "g", "1x8 queue=v", 3)
    run_for(stage, "h", "1x8 queue=y", 1)
    # x: S 2/3, usage 3/4, so u 9/8; v the same by its only share; y: S 1/3, usage 1/4, so 3/4
    assert order(stage, "u", "v", "y") == ["y", "u", "v"]


def test_past_usage_fades_with_the_half_life_of_the_policy() -> None:
    stage = classic({"a": "", "b": ""})
    run_for(stage, "a1", "1x8 queue=a", 4)
    stage.now_ms += 10 * 86_400_000
    run_for(stage, "b1", "1x1 queue=b", 1)
    assert order(stage, "a", "b") == ["a", "b"]


def test_where_another_policy_holds_the_factor_orders_nobody() -> None:
    stage = classic({"a": "", "b": ""})
    stage.take(ev.PolicyGone(name="default", at_ms=stage.now_ms))
    stage.submit("a1", "1x1 queue=a")
    stage.settle()
    assert order(stage, "a", "b") == ["b", "a"], "who holds less now is first, whatever was used before"
