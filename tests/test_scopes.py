"""Scopes of priority: what holds of every taking in a subtree that says so, and in which order its queues are asked."""

from __future__ import annotations

import builders
from builders import Stage
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import QUEUES, Life, examples, gang_texts, node_lists, takings_between_facts_from_outside

from fairlead.model.effects import Nominate, Notice, Stop
from fairlead.model.reasons import Reason
from fairlead.model.tenancy import ancestors
from fairlead.ordering.backlog import Walk, inside_queue
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Standing
from fairlead.world.lines import request_of

SCOPED = QUEUES | {"org": "guaranteed=8 scope=subtree", "sis": "parent=org limit=6 guaranteed=2 ns=ns"}
IN_SCOPE = {"org", "kid", "sis"}


def inside(used: dict[str, int], name: str, queues) -> int:
    return sum(milli for below, milli in used.items() if name in ancestors(below, queues))


@given(node_lists(), st.lists(gang_texts(), min_size=4, max_size=14))
@examples(150)
def test_no_taking_breaks_a_guarantee_and_none_flaps(nodes, texts) -> None:
    life = Life(nodes, SCOPED)
    stage, queues = life.stage, life.stage.state.queues
    for at, text in enumerate(texts):
        spec = stage.submit(f"g{at}", text)
        used = dict(stage.state.queue_gpu_milli)
        running = {record.id: record for record in stage.state.gangs.values()}
        effects = stage.settle()
        stops = {e.gang: e for e in effects if isinstance(e, Stop | Notice) and e.by == spec.id}
        for nomination in (e for e in effects if isinstance(e, Nominate) and e.gang == spec.id):
            after = dict(used)
            for victim, _ in nomination.victims:
                queue, cause = running[victim].queue, stops[victim].cause.reason
                after[queue] -= running[victim].gang.gpu_milli
                if {queue, spec.queue} <= IN_SCOPE and cause is Reason.PREEMPTED:
                    assert running[victim].gang.priority < spec.priority
                elif {queue, spec.queue} <= IN_SCOPE:
                    own = 1000 * queues[spec.queue].guaranteed_gpus
                    assert inside(used, spec.queue, queues) + spec.gpu_milli <= own
                else:
                    assert (cause is Reason.PREEMPTED) == (queue == spec.queue)
            for name in {above for v, _ in nomination.victims for above in ancestors(running[v].queue, queues)}:
                if name not in ancestors(spec.queue, queues):
                    assert inside(after, name, queues) >= 1000 * queues[name].guaranteed_gpus, name
        life.quiet()  # raises where it never comes to rest
    for bout in takings_between_facts_from_outside(stage):
        assert len(bout) == len(set(bout)), "nobody is given room twice"


@given(st.lists(gang_texts(), min_size=1, max_size=25), st.lists(st.booleans(), min_size=25, max_size=25))
@examples(60)
def test_a_walk_asks_the_queues_of_a_scope_by_priority(texts, places) -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue(n, t) for n, t in SCOPED.items()])
    for i, text in enumerate(texts):
        stage.submit(f"g{i}", text)
    world = stage.engine.world(stage.now_ms)
    standing = Standing(8000, world.queues, {}, [(w.gang.queue, w.gang.gpu_milli) for w in world.waiting])
    walk, left = Walk(world.waiting, standing, again=0), list(world.waiting)

    def place_of(waiting):
        first = max(w.gang.priority for w in left if w.gang.queue == waiting.gang.queue)
        return standing.order_key(waiting.gang.queue, first), inside_queue(waiting)

    for place in places:
        expected = min(left, key=place_of, default=None)
        found = walk.step()
        assert found is expected
        if found is None:
            return
        if place:
            standing.charge(found.gang.queue, found.gang.gpu_milli)
            left.remove(found)
            walk.go_on()
        else:
            left = [w for w in left if request_of(w.gang) != request_of(found.gang)]
            walk.line_refused()


def tree(texts: dict[str, str]) -> QueueTree:
    return QueueTree({name: builders.queue(name, text) for name, text in texts.items()})


def test_a_scope_begins_at_the_topmost_queue_that_says_so() -> None:
    nested = tree({"top": "", "lab": "parent=top scope=subtree", "in": "parent=lab scope=subtree", "a": "parent=in"})
    assert nested.scopes == {"lab": "lab", "in": "lab", "a": "lab"}
    assert nested.same_scope("lab", "a")
    assert not nested.same_scope("top", "top")


def test_a_circle_of_queues_is_no_scope() -> None:
    assert tree({"a": "parent=b scope=subtree", "b": "parent=a", "c": "parent=a"}).scopes == {}


def test_a_scope_holds_what_its_queues_hold_together() -> None:
    queues = tree({"lab": "scope=subtree", "a": "parent=lab", "b": "parent=lab", "c": ""})
    standing = Standing(8000, queues, {"a": 4000, "c": 4000}, [("b", 4000), ("c", 4000)])
    assert standing.lenders() == ()
    assert not standing.within_entitlement("b", 1000)
    assert standing.within_entitlement("b", 2000, alone=True)
    standing.charge("b", 1000)
    assert standing.lenders() == ("a", "b")
    assert standing.most_to_lose("a", "c") == 4000
    assert standing.most_to_lose("a", "b") == -1
