"""A queue tree that is not sound: what is said of it, what is in force, and what it costs to find out."""

from __future__ import annotations

import pytest
from builders import queue

from fairlead.model.queue_tree import LEVELS_MAX, sound_tree, tree_problems
from fairlead.ordering.fair_share import entitlements


def tree(**texts: str):
    return {name: queue(name, text) for name, text in texts.items()}


def closed(queues) -> set[str]:
    return {name for name, problem in tree_problems(queues).items() if problem.closed}


def guarantees(queues) -> dict[str, int]:
    return {name: q.guaranteed_gpus for name, q in sound_tree(queues, tree_problems(queues)).items()}


def test_a_sound_tree_has_no_problems_and_stays_as_it_is() -> None:
    queues = tree(org="guaranteed=8 limit=16", a="parent=org guaranteed=4", b="parent=org guaranteed=4 limit=8")
    assert tree_problems(queues) == {}
    assert sound_tree(queues, {}) == queues


def test_a_parent_without_a_guarantee_promises_what_those_below_it_are_promised() -> None:
    queues = tree(top="guaranteed=8", org="parent=top", a="parent=org guaranteed=4", b="parent=org guaranteed=4")
    assert tree_problems(queues) == {}


def test_a_missing_parent_closes_its_queue_and_those_below_it() -> None:
    queues = tree(a="parent=gone", b="parent=a", c="parent=b", d="")
    assert closed(queues) == {"a", "b", "c"}
    problems = tree_problems(queues)
    assert problems["a"].text == "spec.parent: there is no queue 'gone'; create it, or name another parent, or none"
    assert problems["c"].text == "spec.parent: 'b' leads to no root; mend spec.parent of 'b' first"


def test_a_circle_closes_all_that_are_in_it_or_below_it() -> None:
    queues = tree(a="parent=c", b="parent=a", c="parent=b", below="parent=b", self="parent=self", well="")
    assert closed(queues) == {"a", "b", "c", "below", "self"}
    assert tree_problems(queues)["b"].problem == "'b' is above itself"
    assert {q.parent for q in sound_tree(queues, tree_problems(queues)).values()} == {""}


def test_the_order_in_which_queues_come_changes_nothing() -> None:
    queues = tree(a="parent=c", b="parent=a", c="parent=b", d="parent=b", e="parent=gone", f="parent=e", g="")
    other = dict(reversed(queues.items()))
    assert tree_problems(other) == tree_problems(queues)


def chain(length: int):
    return {f"q{at:05}": queue(f"q{at:05}", f"parent=q{at - 1:05}" if at else "") for at in range(length)}


def test_a_chain_may_be_as_deep_as_there_are_levels_and_no_deeper() -> None:
    assert closed(chain(LEVELS_MAX)) == set()
    queues = chain(LEVELS_MAX + 2)
    assert closed(queues) == {f"q{LEVELS_MAX:05}", f"q{LEVELS_MAX + 1:05}"}
    assert "the last that there is" in tree_problems(queues)[f"q{LEVELS_MAX:05}"].problem


def test_ten_thousand_queues_in_one_chain_are_bounded_in_depth() -> None:
    queues = chain(10_000)
    sound = sound_tree(queues, tree_problems(queues))
    assert entitlements(8_000, sound, {"q00000": 8_000, "q09999": 8_000})["q00000"] == 4_000


class Counted(dict):
    """Counts how often a queue is looked up."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)


def wide(roots: int, deep: int = 12):
    names = [(f"r{root}l{level}", f"r{root}l{level - 1}") for root in range(roots) for level in range(deep)]
    return Counted(
        (name, queue(name, "guaranteed=1 limit=5" + (f" parent={above}" if not name.endswith("l0") else "")))
        for name, above in names
    )


def test_the_cost_grows_with_the_queues_and_not_with_what_they_hang_on() -> None:
    looks = {}
    for roots in (84, 840):  # 1,008 and 10,080 queues, 12 deep
        queues = wide(roots)
        assert tree_problems(queues) == {}
        looks[roots] = queues.looks
    assert looks[840] <= 10 * looks[84] + 100
    assert looks[840] <= 8 * 840 * 12


@pytest.mark.parametrize(
    ("texts", "cut", "blamed"),
    [
        ({"org": "guaranteed=8", "a": "parent=org guaranteed=12", "b": "parent=org guaranteed=4"}, [6, 2], "org"),
        ({"org": "limit=8", "a": "parent=org guaranteed=12", "b": "parent=org guaranteed=4"}, [6, 2], "org"),
        ({"org": "guaranteed=8", "a": "parent=org guaranteed=4", "b": "parent=org guaranteed=4"}, [4, 4], ""),
        ({"org": "", "a": "parent=org guaranteed=12", "b": "parent=org guaranteed=4"}, [12, 4], ""),
    ],
)
def test_guarantees_above_what_they_are_taken_from_are_cut_in_proportion(texts, cut, blamed) -> None:
    queues = tree(**texts)
    found = guarantees(queues)
    assert [found["a"], found["b"]] == cut
    assert set(tree_problems(queues)) == ({blamed} if blamed else set())


def test_a_cut_goes_down_through_a_queue_that_promises_nothing_of_its_own() -> None:
    queues = tree(top="limit=4", org="parent=top", a="parent=org guaranteed=6", b="parent=org guaranteed=2")
    assert guarantees(queues) == {"top": 0, "org": 0, "a": 3, "b": 1}


def test_a_limit_below_the_guarantee_cuts_it_and_is_named() -> None:
    queues = {"a": queue("a", "guaranteed=8 limit=4")}
    assert guarantees(queues) == {"a": 4}
    assert tree_problems(queues)["a"].text.startswith("spec.resources[gpu].limit: 4 is below guaranteed, 8")
