"""What every queue is entitled to, down a whole tree, against the steps as the page on fairness has them.

One node at a time: `divide` and `divide_vectors` have tests of their own.
"""

from __future__ import annotations

from typing import Any

import builders
import quota_words
from hypothesis import given, settings
from hypothesis import strategies as st
from quotas_by_hand import NAMES, ByHand, trees

from fairlead.model.fairness import ROOT_POLICY
from fairlead.ordering.dominant import VectorClaim, divide_vectors, entitlements_of_all, scale_of
from fairlead.ordering.fair_share import Claim, divide, gpu_entitlements
from fairlead.ordering.queue_tree import QueueTree

LOOKS = settings(max_examples=250, deadline=None, derandomize=True)
KINDS = st.sampled_from(["weighted", "equal", "slo", "work-conserving"])
each = st.fixed_dictionaries({name: st.integers(0, 3) for name in NAMES})
halves = st.fixed_dictionaries({name: st.tuples(st.integers(0, 9), st.integers(0, 9)) for name in NAMES})
Tree = tuple[dict[str, str], dict[str, int], dict[str, int], str]
drawn = st.tuples(trees(), each, each, KINDS)


class Steps(ByHand):
    """The steps of one resource, in `grain` thousandths. `wanting` are the queues that want something of any."""

    def __init__(self, queues: Any, tree: Tree, demand: dict[str, int], held: dict[str, int], grain: int = 1) -> None:
        super().__init__(queues, 0, {})
        _, self.weights, self.needs, self.kind = tree
        self.demand, self.held_now, self.grain = demand, held, grain
        self.wanting = {name for name in NAMES if demand.get(name)}

    def wants(self, name: str) -> int:
        asked = self.demand.get(name, 0) // self.grain + sum(self.wants(child) for child in self.children(name))
        bound = self.bound(name)
        return asked if bound is None else min(bound[0] // self.grain, asked)

    def holds(self, name: str) -> int:
        inside = self.held_now.get(name, 0) // self.grain + sum(self.holds(child) for child in self.children(name))
        return min(inside, self.wants(name))

    def active(self, name: str) -> list[str]:
        """The children that want something, or in which somebody does, by name."""
        wanting = {above for one in self.wanting for above in self.chains[one]}
        return sorted(child for child in self.children(name) if child in wanting)

    def claims(self, parent: str) -> list[tuple[str, int, int, int, int]]:
        """Name, guarantee, demand, weight, what comes first: of children by name, then of a queue's own jobs."""
        found = []
        for child in self.active(parent):
            first = 1000 * self.needs.get(child, 0) // self.grain if self.kind == "slo" else 0
            first = self.holds(child) if self.kind == "work-conserving" else first
            found.append((child, self.promised(child) // self.grain, self.wants(child), self.weight(child), first))
        if parent in self.wanting:
            own = max(0, self.guaranteed(parent) - sum(self.promised(child) for child in self.children(parent)))
            asked, held = (of.get(parent, 0) // self.grain for of in (self.demand, self.held_now))
            first = held if self.kind == "work-conserving" else 0
            found.append((parent, own // self.grain, asked, self.weight(parent), first))
        return found

    def weight(self, name: str) -> int:
        return 1 if self.kind == "equal" else self.weights.get(name, 1)

    def lent(self, parent: str, amount: int) -> int:
        """What of an amount is there for all: the rest is kept by guarantees and not asked for by their queues."""
        kept = sum(self.kept(child) for child in self.children(parent)) // self.grain
        kept -= sum(min(self.kept(child) // self.grain, self.wants(child)) for child in self.active(parent))
        return max(0, amount - kept)


def words_of(tree: Tree, of: str = "") -> dict[str, str]:
    """The words of `builders.queue` of every queue; `of` stands before what is of one resource."""
    texts, weights, needs, _ = tree
    found = {}
    for name, text in texts.items():
        parts = [part for part in text.split() if not of or not part.startswith(("parent", "scope"))]
        parts += [f"weight={weights[name]}"] if name in weights else []
        parts += [f"need={needs[name]}"] if name in needs else []
        found[name] = " ".join(f"{of}{part}" for part in parts)
    return found


def amounts(pairs: dict[str, tuple[int, int]], unit: int) -> tuple[dict[str, int], dict[str, int]]:
    """What is held and waited for, and what of that is held."""
    demand = {name: unit * (held + more) for name, (held, more) in pairs.items()}
    return demand, {name: unit * held for name, (held, _) in pairs.items()}


@given(drawn, halves, st.integers(0, 20), st.sampled_from([500, 1_000]))
@LOOKS
def test_gpus_go_down_the_tree_step_by_step(tree: Tree, pairs: Any, capacity: int, unit: int) -> None:
    queues = {name: builders.queue(name, text) for name, text in words_of(tree).items()}
    demand, held = amounts(pairs, unit)
    grain = 1 if any(amount % 1000 for amount in demand.values()) else 1000
    steps, due = Steps(queues, tree, demand, held, grain), {}

    def go_down(parent: str, amount: int) -> None:
        claims = steps.claims(parent)
        parts = divide(steps.lent(parent, amount), [Claim(*claim[1:]) for claim in claims])
        for (name, *_), part in zip(claims, parts, strict=True):
            due[name] = grain * part
            if name != parent and steps.active(name):
                due[name] = 0
                go_down(name, part)

    go_down("", 1000 * capacity // grain)
    made = QueueTree(queues, {ROOT_POLICY: quota_words.policy("p", tree[3])})
    found = gpu_entitlements(made, 1000 * capacity, demand, held)
    assert found == due


@given(drawn, trees(), each, halves, halves, st.integers(0, 20), st.integers(0, 20))
@settings(LOOKS, max_examples=200)
def test_two_resources_go_down_the_tree_step_by_step(tree, others, cores_weigh, gpus, cores, room, cores_room) -> None:
    cores_tree = (others, cores_weigh, tree[2], tree[3])
    texts = {name: f"{text} {words_of(cores_tree, 'cpu.')[name]}" for name, text in words_of(tree).items()}
    queues = {name: builders.queue(name, text) for name, text in texts.items()}
    alone = {name: builders.queue(name, f"{others[name]} {text}") for name, text in words_of(cores_tree).items()}
    demand, held = amounts(gpus, 1_000)
    also, also_held = amounts(cores, 1_000)
    weights = {name: cores_weigh.get(name, tree[1].get(name, 1)) for name in NAMES}
    both = Steps(alone, (others, weights, *tree[2:]), also, also_held), Steps(queues, tree, demand, held)
    for steps in both:
        steps.wanting = both[0].wanting | both[1].wanting
    policy = quota_words.policy("p", tree[3])
    scale = scale_of(policy, ("cpu", "gpu"), (1000 * cores_room, 1000 * room))
    due: dict[str, list[int]] = {}

    def go_down(parent: str, parts: list[int]) -> None:
        of_each = [{name: words for name, *words in steps.claims(parent)} for steps in both]
        claims = [VectorClaim(*([of[name][at] for of in of_each] for at in (0, 1, 3, 2))) for name in of_each[0]]
        lent = [steps.lent(parent, part) for steps, part in zip(both, parts, strict=True)]
        for name, share in zip(of_each[0], divide_vectors(lent, claims, scale), strict=True):
            due[name] = share
            if name != parent and both[0].active(name):
                due[name] = [0, 0]
                go_down(name, share)

    go_down("", [1000 * cores_room, 1000 * room])
    found = entitlements_of_all(
        QueueTree(queues, {ROOT_POLICY: policy}), {"gpu": 1000 * room, "cpu": 1000 * cores_room},
        {"gpu": demand, "cpu": also}, {"gpu": held, "cpu": also_held},
    )  # fmt: skip
    assert found == {kind: {name: share[at] for name, share in due.items()} for at, kind in enumerate(("cpu", "gpu"))}
