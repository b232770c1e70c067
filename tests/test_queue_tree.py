"""A queue tree that is not sound: what is said of it, what is in force, and what it costs to find out."""

from __future__ import annotations

import pytest
from builders import queue
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairlead.model.queue_tree import LEVELS_MAX, sound_tree, tree_problems
from fairlead.model.quota import unit_of, words_of
from fairlead.ordering.fair_share import entitlements
from fairlead.ordering.queue_tree import QueueTree


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
    assert closed(queues) == set(), "a promise that cannot be kept closes nobody"


def test_a_cut_goes_down_through_a_queue_that_promises_nothing_of_its_own() -> None:
    queues = tree(top="limit=4", org="parent=top", a="parent=org guaranteed=6", b="parent=org guaranteed=2")
    assert guarantees(queues) == {"top": 0, "org": 0, "a": 3, "b": 1}


def test_a_limit_below_the_guarantee_cuts_it_and_is_named() -> None:
    queues = {"a": queue("a", "guaranteed=8 limit=4")}
    assert guarantees(queues) == {"a": 4}
    assert tree_problems(queues)["a"].text.startswith("spec.resources[gpu].limit: 4 is below guaranteed, 8")
    assert closed(queues) == set(), "who has a place in the tree takes jobs in"


@pytest.mark.parametrize("resource", ["gpu/H100", "cpu", "memory", "example.com/licence"])
def test_guarantees_of_every_resource_are_taken_from_what_is_above_and_named(resource) -> None:
    word = f"{resource}.guaranteed"
    queues = tree(org=f"{word}=8", a=f"parent=org {word}=12", b=f"parent=org {word}=4", c="parent=org")
    sound = sound_tree(queues, tree_problems(queues))
    unit = unit_of(resource)
    assert [sound[name].quota(resource).guaranteed for name in ("org", "a", "b")] == [8 * unit, 6 * unit, 2 * unit]
    assert sound["c"] == queues["c"]
    (problem,) = tree_problems(queues).values()
    asked = f"the queues below it are guaranteed 16 {words_of(resource)} together, above its own, 8"
    assert (problem.field, problem.problem) == (
        f"spec.resources[{'gpu' if resource == 'gpu/H100' else resource}].guaranteed",
        asked.replace("H100 ", ""),
    )


def test_what_is_guaranteed_of_models_is_taken_from_the_gpus_above() -> None:
    queues = tree(
        org="guaranteed=9",
        a="parent=org gpu/H100.guaranteed=6 gpu/A100.guaranteed=6",
        b="parent=org gpu/H100.guaranteed=6 guaranteed=2",
    )
    assert tree_problems(queues)["org"].problem == (
        "the queues below it are guaranteed 18 GPUs together, above its own, 9"
    )
    sound = sound_tree(queues, tree_problems(queues))
    of_model = {name: [(q.resource, q.guaranteed // 1000) for q in sound[name].quotas] for name in ("a", "b")}
    assert of_model == {"a": [("gpu/A100", 3), ("gpu/H100", 3)], "b": [("gpu/H100", 3)]}
    assert sound["b"].guaranteed_gpus == 2
    assert tree_problems(sound) == {}


def test_a_limit_of_memory_bounds_what_is_guaranteed_below() -> None:
    queues = tree(org="memory.limit=10", a="parent=org memory.guaranteed=20", b="parent=a memory.guaranteed=30")
    problems = tree_problems(queues)
    assert {name: problem.field for name, problem in problems.items()} == {
        "org": "spec.resources[memory].guaranteed",
        "a": "spec.resources[memory].guaranteed",
    }
    sound = sound_tree(queues, problems)
    assert [sound[name].quota("memory").guaranteed >> 30 for name in ("a", "b")] == [10, 10]


@example([(0, 2, 1, 0, 0, None), (9, 0, 0, 0, 0, None), (0, 0, 2, 0, 0, None), (2, 2, 0, 0, 0, None)])
@given(
    st.lists(
        st.tuples(st.integers(0, 5), *[st.integers(0, 20) for _ in range(4)], st.none() | st.integers(0, 30)),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=300)
def test_a_tree_that_was_made_sound_is_sound(rows) -> None:
    """Nothing is promised twice after a cut, whatever the tree, and nobody gets more than it said."""
    queues = {}
    for at, (above, gpus, h100, cpu, licences, limit) in enumerate(rows):
        words = [
            f"guaranteed={gpus}",
            f"gpu/H100.guaranteed={h100}",
            f"cpu.guaranteed={cpu}",
            f"x.io/y.guaranteed={licences}",
        ]
        words += [] if limit is None else [f"limit={limit}", f"cpu.limit={limit}"]
        queues[f"q{at}"] = queue(f"q{at}", " ".join([*words, f"parent=q{above}"] if above < at else words))
    sound = sound_tree(queues, tree_problems(queues))
    for resource in ("gpu", "gpu/H100", "cpu", "x.io/y"):
        promised = QueueTree(sound).book(resource).promised
        for name, one in sound.items():
            said, before = one.quota(resource), queues[name].quota(resource)
            assert said.guaranteed <= before.guaranteed
            assert said.limit is None or promised.get(name, 0) <= said.limit
            if said.guaranteed and resource != "gpu":
                assert promised[name] == said.guaranteed
    assert tree_problems(sound) == {}
