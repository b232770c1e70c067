"""Who is next, who may lose what, who is over a limit, and what is in quota: small cases, each with its bound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import builders
import pytest
from builders import Stage
from cap_worlds import running, world_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.model import events as ev
from fairlead.model.effects import Phase
from fairlead.model.gang import Member, Placement, Tier
from fairlead.model.quota import FIXED, GPU
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Counted, Standing
from fairlead.planning.over_limit import over_limit
from fairlead.planning.tiers import TierMemo, Tiers
from fairlead.planning.verify_quotas import Quotas

LOOKS = settings(max_examples=150, deadline=None, derandomize=True)


def queues_of(**texts: str) -> dict[str, Any]:
    return {name: builders.queue(name, text) for name, text in texts.items()}


# --- who is next -----------------------------------------------------------------------------------------------------

few = st.integers(0, 9)


@given(st.lists(st.tuples(few, few, few, few), min_size=2, max_size=2), st.integers(1, 12), st.integers(1, 40))
@LOOKS
def test_where_cores_count_the_order_is_by_dominant_share_of_what_one_is_entitled_to(rows, gpus, cores) -> None:
    """A queue that is entitled to nothing is measured against the whole cluster."""
    names = dict(zip("ab", rows, strict=True))
    used = {name: 1000 * row[0] for name, row in names.items()}
    cores_used = {name: 1000 * row[1] for name, row in names.items()}
    more = Counted(
        capacity={"cpu": 1000 * cores},
        used={"cpu": cores_used},
        asked={"cpu": {name: 1000 * row[3] for name, row in names.items()}},
    )
    pending = [(name, 1000 * row[2]) for name, row in names.items()]
    queues = queues_of(a="weight=0", b="cpu.limit=64")
    place = Standing(1000 * gpus, queues, used, pending, counted=more)
    for name in names:
        mine = max(Fraction(used[name], 1000 * gpus), Fraction(cores_used[name], 1000 * cores))
        books = (place._accounts[0], gpus), (place._accounts[1], cores)
        due = max(Fraction(book.entitled.get(name, 0), 1000 * size) for book, size in books)
        share = place.order_key(name)[2]
        assert share == pytest.approx(float(mine / (due or 1) * 10**6), abs=2, rel=1e-6)
        assert (share == 0) == (mine == 0)


def test_what_a_policy_does_not_count_is_no_share_of_anything() -> None:
    queues = queues_of(a="cpu.limit=64", b="")
    only_gpus = builders.quota_words.policy("default", "weighted weights=gpu:1000")
    more = Counted(capacity={"cpu": 8_000}, used={"cpu": {"a": 8_000}}, asked={"cpu": {"b": 8_000}})
    place = Standing(8_000, QueueTree(queues, {"default": only_gpus}), {"b": 1_000}, [("a", 8_000)], counted=more)
    assert place.order_key("a")[2] == 0, "it holds all cores and no GPU"
    assert place.order_key("b")[2] > 0


PAST = {"a": 4_000_000, "b": 1_000_000, "other": 9_000_000}


def history(**past: int) -> Any:
    return SimpleNamespace(used=lambda name: past.get(name, 0), classic_rank=lambda name: past.get(name, 0))


def test_past_usage_counts_by_entitlement_and_in_a_scope_that_of_all_in_it() -> None:
    queues = queues_of(org="scope=subtree", a="parent=org", b="parent=org", other="", idle="")
    wanting = [("a", 6_000), ("b", 2_000), ("other", 8_000)]
    place = Standing(16_000, queues, {}, wanting, history=history(**PAST, org=0, idle=3))
    assert dict(place.entitled) == {"a": 6_000, "b": 2_000, "org": 0, "other": 8_000}
    in_scope = (4_000_000 + 1_000_000) * 1_000 // 8_000
    assert place.order_key("a", 7) == (1, 0, 0, in_scope, -7, 0, "a")
    assert place.order_key("b", 0) == (1, 0, 0, in_scope, 0, 0, "b")
    assert place.order_key("other") == (1, 0, 0, 9_000_000 * 1_000 // 8_000, 0, 0, "other")
    assert place.order_key("idle") == (1, 0, 0, 3, 0, 0, "idle"), "who is entitled to nothing, as to one GPU"
    assert place.order_key("a")[3] == in_scope, "and the second time as well"


def test_under_slurm_classic_the_factor_orders_and_the_whole_tree_has_no_share_of_itself() -> None:
    queues = queues_of(org="policy=slurm", a="parent=org", b="parent=org", other="")
    slurm = builders.quota_words.policy("slurm", "slurm-classic")
    past = history(a=3, b=1, other=0)
    inner = Standing(8_000, QueueTree(queues, {"slurm": slurm}), {"a": 1_000}, [("b", 7_000)], history=past)
    assert inner.order_key("a") == (1, 0, 125_000, 3, 0, 0, "a"), (
        "the tree holds one GPU of the eight it is entitled to"
    )
    assert inner.order_key("b") == (1, 0, 125_000, 1, 0, 0, "b")
    whole = Standing(8_000, QueueTree(queues, {"default": slurm, "slurm": slurm}), {"a": 1_000}, [], history=past)
    assert [whole.order_key(name) for name in "ab"] == [(1, 0, 0, 3, 0, 0, "a"), (1, 0, 0, 1, 0, 0, "b")]


# --- who may lose what -----------------------------------------------------------------------------------------------


def lending(**more: str) -> Standing:
    """`b` holds 24 of 32 cores, 16 of them by its guarantee, and all that there is of the rest."""
    texts = {"a": "cpu.guaranteed=16", "b": "cpu.guaranteed=16 gpu/H100.guaranteed=2 memory.guaranteed=1 guaranteed=2"}
    counted = Counted(
        capacity={"cpu": 32_000, "gpu/H100": 4_000, "memory": 1 << 30, FIXED: 0},
        used={"cpu": {"b": 24_000}, "gpu/H100": {"b": 3_000}, "memory": {"b": 1 << 30}, FIXED: {"b": 3_000}},
        asked={"cpu": {"a": 16_000}},
    )
    return Standing(4_000, queues_of(**(texts | more)), {"b": 3_000}, [], counted=counted)


@pytest.mark.parametrize(
    ("milli", "also", "may"),
    [
        (0, {"cpu": 8_000}, True), (0, {"cpu": 8_001}, False), (1, {"cpu": 8_001}, False),
        (1_000, {"cpu": 1}, True), (1_001, {"cpu": 1}, False),
        (1_000, {"gpu/H100": 1_000}, True), (0, {"gpu/H100": 1_001}, False),
        (1_000, {"memory": 1 << 30}, True), (1_000, {FIXED: 3_000}, True),
    ],
)  # fmt: skip
def test_who_has_borrowed_cores_loses_them_down_to_its_guarantees_and_no_further(milli, also, may) -> None:
    """Memory is given back with what was borrowed, whatever is guaranteed of it; GPUs of a model are not."""
    place, charge = lending(), tuple(sorted(also.items()))
    assert place.may_lose("b", milli, "a", charge) is may
    assert not place.may_lose("b", milli, "a", charge, wants=frozenset({GPU})), "it has borrowed no GPU"
    assert place.never_within_limit("b", milli, charge) is None


# --- over a limit ----------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1_000, 0, 1, 999, 1_001, 2_000, 2_001]), st.integers(0, 2),
            st.sampled_from(["", "", "", "fixed"]), st.sampled_from(["team", "lab"]),
        ),
        min_size=1, max_size=5,
    ),
    st.integers(0, 6), st.integers(0, 2), st.booleans(),
)  # fmt: skip
@LOOKS
def test_over_a_limit_as_many_are_stopped_as_need_be_and_none_in_vain(rows, limit, spare, cores) -> None:
    """Of a queue and all below it: lowest priority first, none of whom the others make up for."""
    queues = queues_of(team=f"{'cpu.' if cores else ''}limit={limit} over=requeue", lab="parent=team", other="")
    found = []
    for at, (milli, priority, fixed, queue) in enumerate(rows):
        gang = builders.gang(f"g{at}", f"1x1 queue={queue} priority={priority} {fixed}")
        also = {"also": (("cpu", milli),)} if cores else {}
        member = Member(role="worker", index=0, rank=0, node="n1", devices=("gpu-0",))
        fields = {"placement": Placement(members=(member,)), "phase": Phase.STOPPING if at == 4 else Phase.RUNNING}
        found.append(running(gang, milli, **fields, **also))
    found.append(running(builders.gang("other", "1x1 queue=other"), 9_000))
    used = {name: sum(a.gpu_milli for a in found if a.queue == name) for name in queues}
    counted = Counted(capacity={"cpu": 99_000}, used={"cpu": used}) if cores else None
    place = Standing(99_000, queues, used, [], counted=counted)
    spared = {a.gang for a in found[:spare]}
    stops = over_limit(world_of(found), place, set(spared), 99)
    gone = [stop.gang for stop in stops]
    over = used["team"] + used["lab"] - 1000 * limit
    amount = {a.gang: a.gpu_milli for a in found}
    may = [
        a for a in found
        if a.gang not in spared and a.spec.preemptible and a.gpu_milli and a.phase is Phase.RUNNING
        and a.queue in ("team", "lab")
    ]  # fmt: skip
    may.sort(key=lambda a: (a.spec.priority, a.gang))
    freed = sum(amount[gang] for gang in gone)
    assert set(gone) <= {a.gang for a in may}
    assert bool(gone) == (over > 0 and bool(may))
    assert freed >= over or set(gone) == {a.gang for a in may}, "enough, or all who may be stopped"
    assert not gone or all(freed - amount[gang] < over for gang in gone), "nobody in vain"
    before = [a.gpu_milli for a in may[: max((at for at, a in enumerate(may) if a.gang in gone), default=0)]]
    assert not gone or sum(before) < over, "a higher priority only where all the lower ones are not enough"
    assert (not place.over("team")) == (freed >= over)
    for stop in stops:
        said = dict(stop.cause.details)
        assert (said["queue"], said["limit"], stop.requeue) == ("team", limit, True)
    again = Standing(99_000, queues, used, [], counted=counted)
    assert [stop.gang for stop in over_limit(world_of(found), again, set(spared), 1)] == gone[:1]


def test_who_shrinks_and_is_ended_is_counted_as_gone_once() -> None:
    members = tuple(Member(role="w", index=at, rank=at, node="n1", devices=(f"gpu-{at}",)) for at in range(3))
    both = running(builders.gang("g", "3x1"), 3_000, placement=Placement(members=members), holding=frozenset({0, 1, 2}))
    shrinks = replace_leaving(both, {2})
    other = replace_leaving(running(builders.gang("h", "3x1"), 3_000, placement=both.placement,
                                    holding=both.holding), {1, 2})  # fmt: skip
    for ended, left in (((), 3_000 - 1_000 + 3_000 - 2_000), ((shrinks,), 3_000 - 2_000)):
        log = SimpleNamespace(used={}, stopping=(), shrinking=(shrinks, other))
        world = SimpleNamespace(
            queue_gpu_milli={"team": 6_000}, counted=(), running=log, waiting=SimpleNamespace(nominated=()),
            inventory=SimpleNamespace(row={}, nodes=[]), queues={},
        )  # fmt: skip
        quotas = Quotas.of(world, ended)
        assert (quotas.held[GPU], quotas.remaining[GPU]) == ({"team": 6_000}, {"team": left})


def replace_leaving(attempt: Any, ranks: set[int]) -> Any:
    fields = {"placement": attempt.placement, "holding": attempt.holding, "leaving": frozenset(ranks)}
    return running(attempt.spec, attempt.gpu_milli, **fields)


# --- what is in quota ------------------------------------------------------------------------------------------------


def test_what_grows_in_quota_uses_up_the_guarantee_and_what_grows_borrowed_does_not() -> None:
    stage = Stage([builders.node("n1", "8"), builders.node("n2", "8")], [builders.queue("team", "guaranteed=8")])
    for name, text in {"sure": "1x4", "lent": "1x6"}.items():
        stage.submit(name, text)
        stage.settle()
        stage.run(name)
    world = stage.engine.world(stage.now_ms)
    sure, lent = (world.running.everyone.get(name) for name in ("sure", "lent"))
    assert (sure.tier, lent.tier) == (Tier.IN_QUOTA, Tier.BORROWED)
    tree = QueueTree(world.queues)

    def fresh() -> Tiers:
        return Tiers(world, tree, TierMemo())

    tiers = fresh()
    assert tiers.covers(sure, 4_000, ())
    assert not tiers.covers(sure, 4_001, ())
    assert not tiers.covers(lent, 1, ()), "it is not in quota now"
    tiers.grow(lent, 4_000, ())
    assert tiers.covers(sure, 4_000, ())
    tiers.grow(sure, 3_000, ())
    assert tiers.covers(sure, 1_000, ())
    assert not tiers.covers(sure, 1_001, ())
    tiers.grow(sure, 500, (("cpu", 9_000),))
    new = builders.gang("new", "1x1")
    for milli, tier in ((501, Tier.BORROWED), (500, Tier.IN_QUOTA), (1, Tier.BORROWED)):
        member = Member(role="worker", index=0, rank=0, node="n1", devices=(), share_milli=milli)
        assert tiers.place(new, Placement(members=(member,)), ()) is tier
    spare = replace(new, service_class=builders.ServiceClass.OPPORTUNISTIC)
    assert fresh().place(spare, Placement(members=()), ()) is Tier.OPPORTUNISTIC
    stage.take(ev.QueueSeen(queue=builders.queue("team", "guaranteed=9"), at_ms=stage.now_ms))
    later = stage.engine.world(stage.now_ms)
    memo = TierMemo()
    memo.follow(world, tree)
    assert memo.review() == ([], False)
    memo.follow(later, QueueTree(later.queues))
    assert memo.fits("team", 5_000, ())
    assert not memo.fits("team", 5_001, ())
    assert memo.fits("nobody", 0, ())


class Log:
    """Attempts of which nothing earlier is known."""

    log, revision = None, 0

    def __init__(self, found: dict[str, Any]) -> None:
        self.everyone = dict(found)

    def __iter__(self) -> Any:
        return iter(self.everyone.values())

    def changed_since(self, log: object, revision: int) -> None:
        return None


def test_a_guarantee_that_changes_for_hundreds_is_told_of_256_at_a_time_and_of_each_once() -> None:
    texts = {"lab": 10, "team": 300, "zoo": 5}
    tree = QueueTree(queues_of(**dict.fromkeys(texts, "guaranteed=1")))
    found = {
        f"{queue}{at}": running(builders.gang(f"{queue}{at}", f"1x1 queue={queue}"), 1)
        for queue, count in texts.items()
        for at in range(count)
    }
    memo, told = TierMemo(), list[str]()
    for count, more in ((256, True), (54 + 5, False), (0, False)):
        memo.follow(SimpleNamespace(running=Log(found), reserved=(), now_ms=0), tree)
        retiers, left = memo.review()
        assert (len(retiers), left) == (count, more)
        assert {one.tier for one in retiers} <= {Tier.IN_QUOTA}
        told += [one.gang for one in retiers]
        found |= {one.gang: running(found[one.gang].spec, 1, tier=one.tier) for one in retiers}
    assert sorted(told) == sorted(found)
