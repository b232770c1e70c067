"""Quotas, caps, exceptions and charges by numbers: every bound with the last value that is right and the first not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pytest
from builders import T0

from fairlead.errors import UnreadableInput
from fairlead.model import events as ev
from fairlead.model.fairness import BUILT_IN, ROOT_POLICY
from fairlead.model.gang import Member
from fairlead.model.hardware import NodeName
from fairlead.model.queue_caps import Budget, NamedCap, QueueCaps, checked_budget
from fairlead.model.quota import FIXED, Quota, added, amount_text, is_resource, quota_of, times, unit_of, words_of
from fairlead.model.quota_exception import MoreOf, QuotaException, granted, more_of
from fairlead.model.switches import ALL_ON
from fairlead.model.tenancy import Queue
from fairlead.units import NANO
from fairlead.world.charges import charged, least, resources_of, sure, wanted
from fairlead.world.in_force import ForceKeeper
from fairlead.world.tenants import Tenants

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("resource", "amount", "said"),
    [
        ("gpu", 2_500, "2.5"), ("gpu", 2_000, 2), ("gpu/H100", 333, "0.333"), ("cpu", 1, "0.001"), ("cpu", 120, "0.12"),
        ("memory", 3 << 30, 3), ("memory", 3 << 29, "1.5"), ("example.com/x", 7, 7), (FIXED, 500, "0.5"),
    ],
)  # fmt: skip
def test_amounts_are_said_in_what_people_write(resource, amount, said) -> None:
    assert amount_text(resource, amount) == said


def test_resources_have_units_words_and_names() -> None:
    kinds = ("gpu", "gpu/H100", "cpu", "memory", "ephemeral-storage", "a.b/c", FIXED)
    assert [unit_of(kind) for kind in kinds] == [1000, 1000, 1000, 2**30, 2**30, 1, 1000]
    assert [words_of(kind) for kind in kinds[:6]] == [
        "GPUs", "H100 GPUs", "cores", "GiB of memory", "GiB of storage", "a.b/c"
    ]  # fmt: skip
    good = ("gpu", "gpu/" + "a" * 63, "a" * 253 + "/" + "b" * 63, "gpu/H100 80", "x/y")
    bad = ("gpus", "gpu/" + "a" * 64, "a" * 254 + "/b", "a/" + "b" * 64, "gpu/", "gpu/-", "gpu/a-", "X/y", FIXED, "")
    assert [is_resource(name) for name in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


def test_amounts_are_added_and_multiplied() -> None:
    assert added((("a", 1), ("b", 2)), (("b", -2), ("c", 3))) == (("a", 1), ("c", 3))
    assert added((("c", 1),), (("b", 2), ("c", 2))) == (("b", 2), ("c", 3))
    assert (added((), (("a", 1),)), added((("a", 1),), ())) == ((("a", 1),), (("a", 1),))
    assert (times(-2, (("a", 3),)), times(0, (("a", 3),)), times(1, ())) == ((("a", -6),), (), ())


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"guaranteed": 2, "limit": 2}, Quota(resource="cpu", guaranteed=2_000, limit=2_000)),
        ({"guaranteed": 3, "limit": 2}, "f.limit: 2 is below guaranteed 3"),
        ({"guaranteed": 2, "lendLimit": 2}, Quota(resource="cpu", guaranteed=2_000, lend_limit=2_000)),
        ({"guaranteed": 2, "lendLimit": 3}, "f.lendLimit: 3 is above guaranteed 2"),
        ({"limit": 2, "need": 2}, Quota(resource="cpu", limit=2_000, need=2_000)),
        ({"limit": 2, "need": 3}, "f.need: 3 is above limit 2"),
        ({"limit": 0, "borrowLimit": 0, "weight": 0}, Quota(resource="cpu", limit=0, borrow_limit=0, weight=0)),
        ({"lendLimit": 0}, Quota(resource="cpu", lend_limit=0)),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_field(said: dict[str, int], found: Any) -> None:
    if isinstance(found, Quota):
        assert quota_of("cpu", said, field="f") == found
        return
    with pytest.raises(UnreadableInput, match=found):
        quota_of("cpu", said, field="f")


@pytest.mark.parametrize(
    ("words", "most", "kept"),
    [
        ({"guaranteed": 3, "limit": 5, "borrow_limit": 1}, 4, 0), ({"guaranteed": 3, "limit": 5}, 5, 0),
        ({"guaranteed": 3, "borrow_limit": 4, "limit": 5}, 5, 0), ({"guaranteed": 3, "lend_limit": 1}, None, 2),
        ({"guaranteed": 3, "lend_limit": 4}, None, 0), ({"limit": 0, "lend_limit": 0}, 0, 0),
    ],
)  # fmt: skip
def test_what_a_quota_bounds_and_keeps(words, most, kept) -> None:
    quota = Quota(resource="cpu", **words)
    assert (quota.most, quota.kept) == (most, kept)


# --- budgets and caps ------------------------------------------------------------------------------------------------

EUR = {"nanos": 1, "currency": "EUR"}


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"gpu_ms": 1}, ""), (EUR, ""), ({}, "f: must say either"), ({"gpu_ms": 1, **EUR}, "f: must say either"),
        ({"gpu_ms": 1, "nanos": -1}, "f: must say either"), ({"gpu_ms": -1, **EUR}, "f: must say either"),
        ({"nanos": 1}, "f.currency"), ({"gpu_ms": 1, "currency": "EUR"}, "f.currency"),
        ({"gpu_ms": 1, "soft_percent": 0}, ""), ({"gpu_ms": 1, "soft_percent": 100}, ""),
        ({"gpu_ms": 1, "soft_percent": -1}, "f.softPercent"), ({"gpu_ms": 1, "soft_percent": 101}, "f.softPercent"),
        ({"gpu_ms": 1, "month_starts_on": 1}, ""), ({"gpu_ms": 1, "month_starts_on": 31}, ""),
        ({"gpu_ms": 1, "month_starts_on": 0}, "f.monthStartsOn"),
        ({"gpu_ms": 1, "month_starts_on": 32}, "f.monthStartsOn"),
        ({"gpu_ms": 1, "year_starts_in": 12}, ""), ({"gpu_ms": 1, "year_starts_in": 0}, "yearStartsIn"),
        ({"gpu_ms": 1, "year_starts_in": 13}, "yearStartsIn"),
        ({"gpu_ms": 1, "alerts": (1, 1_000)}, ""), ({"gpu_ms": 1, "alerts": (0,)}, "f.alertPercents"),
        ({"gpu_ms": 1, "alerts": (50, 1_001)}, "f.alertPercents"), ({"gpu_ms": 1, "alerts": ()}, ""),
    ],
)  # fmt: skip
def test_a_budget_makes_sense_or_is_refused_by_its_field(words, wrong) -> None:
    budget = Budget(**words)
    if not wrong:
        assert checked_budget(budget, field="f") is budget
        return
    with pytest.raises(UnreadableInput, match=wrong):
        checked_budget(budget, field="f")


def test_what_a_budget_says_unless_told_otherwise() -> None:
    budget = Budget(gpu_ms=HOUR)
    assert (budget.soft_percent, budget.alerts, budget.hard) == (80, (50, 80, 100), True)
    assert (budget.month_starts_on, budget.year_starts_in, budget.on_exhausted) == (1, 1, "finish")
    assert budget.raised(2).gpu_ms == 3 * HOUR
    assert replace(budget, gpu_ms=0, **EUR).raised(2).nanos == 1 + 2 * NANO


def test_a_cap_is_ones_own_else_that_of_everybody() -> None:
    ann, rest, x = NamedCap(name="ann", max_jobs=1), NamedCap(name="*", max_gpus=2), NamedCap(name="x", max_jobs=3)
    caps = QueueCaps(users=(ann, rest), groups=(x,))
    assert [caps.of_user(name) for name in ("ann", "bob", "")] == [ann, rest, rest]
    assert QueueCaps(users=(ann,)).of_user("bob") is None
    assert (caps.of_groups(("x", "y")), caps.of_groups(("y",))) == ((x,), ())
    bounding = [
        QueueCaps(max_jobs=0), QueueCaps(budget=Budget(gpu_ms=1)), QueueCaps(users=(ann,)), QueueCaps(groups=(x,))
    ]  # fmt: skip
    assert [one.bounds_running for one in (*bounding, QueueCaps(max_pending=0))] == [True] * 4 + [False]


# --- exceptions ------------------------------------------------------------------------------------------------------


def exception(**words: Any) -> QuotaException:
    return QuotaException(
        **{"name": "e", "queue": "team", "owner": "ops", "reason": "why", "starts_ms": 10, "expires_ms": 20} | words
    )


def test_an_exception_acts_from_its_start_to_before_its_end() -> None:
    states = [exception().state_at(now) for now in (9, 10, 19, 20)]
    assert states == ["Pending", "Active", "Active", "Expired"]
    assert [exception().acts_at(now) for now in (9, 10, 19, 20)] == [False, True, True, False]


def test_an_exception_says_what_it_gives() -> None:
    given = exception(
        more_limit_gpus=1, more_guaranteed_gpus=2, more_jobs=3, more_budget=4,
        more_of=(MoreOf(resource="cpu", limit=1_500), MoreOf(resource="memory", guaranteed=2 << 30)),
    )  # fmt: skip
    assert given.text == (
        "exception e: 1 GPUs above its limit, 2 more guaranteed GPUs, 3 more jobs, 4 more in its budget, "
        "1.5 cores above its limit, 2 more guaranteed GiB of memory until 1970-01-01T00:00:00Z, by ops: why"
    )
    assert (given.more_limit("gpu"), given.more_limit("cpu"), given.more_limit("memory")) == (1_000, 1_500, 0)
    words = ("more_limit_gpus", "more_guaranteed_gpus", "more_jobs", "more_budget")
    assert [exception(**{word: 1}).gives for word in words] == [True] * 4
    assert (exception().gives, exception(more_of=given.more_of).gives) == (False, True)


def test_what_is_granted_is_added_to_what_bounds_and_to_nothing_else() -> None:
    queue = builders.queue("team", "guaranteed=4 limit=6 jobs=2 budget=10 cpu.guaranteed=8 cpu.limit=9")
    more = exception(
        more_limit_gpus=1, more_guaranteed_gpus=9, more_jobs=3, more_budget=4,
        more_of=(
            MoreOf(resource="cpu", limit=1_000, guaranteed=5_000), MoreOf(resource="a.b/c", limit=1, guaranteed=2)
        ),
    )  # fmt: skip
    found = granted(queue, more)
    assert (found.limit_gpus, found.guaranteed_gpus) == (7, 7), "a guarantee is never above the limit"
    assert (found.caps.max_jobs, found.caps.budget.gpu_ms) == (5, 14 * HOUR)
    assert found.quotas == (
        Quota(resource="a.b/c", guaranteed=2), Quota(resource="cpu", guaranteed=10_000, limit=10_000)
    )  # fmt: skip
    free = granted(builders.queue("team", "guaranteed=4"), more)
    assert (free.limit_gpus, free.guaranteed_gpus, free.caps.max_jobs, free.caps.budget) == (None, 13, None, None)
    assert granted(queue, exception()) == queue


@pytest.mark.parametrize(
    ("name", "said", "wrong"),
    [
        ("cpu", {"limit": 1}, ""), ("cpu", {"guaranteed": 1}, ""), ("cpu", {}, "f: takes or gives nothing"),
        ("cpu", {"limit": -1, "guaranteed": 1}, "f: takes"), ("gpu", {"limit": 1}, "f.name: gpu has fields"),
        ("cpus", {"limit": 1}, "f.name: 'cpus' is no resource"),
    ],
)  # fmt: skip
def test_more_of_a_resource_is_read_or_refused(name, said, wrong) -> None:
    if not wrong:
        limit, guaranteed = (1_000 * said.get(word, 0) for word in ("limit", "guaranteed"))
        assert more_of(name, said, field="f") == MoreOf(resource=name, limit=limit, guaranteed=guaranteed)
        return
    with pytest.raises(UnreadableInput, match=wrong):
        more_of(name, said, field="f")


# --- what was seen, and what is in force of it -----------------------------------------------------------------------


def test_a_fact_that_says_what_is_known_changes_nothing() -> None:
    tenants = Tenants()
    queue = builders.queue("team", "policy=mine cpu.limit=4 fixed=in-quota")
    spent = ev.QueueSpent(queue="team", gpu_ms=5, period_start_ms=0, period_end_ms=9, at_ms=T0)
    policy = replace(BUILT_IN, name="mine", resources=(("gpu", 1), ("a.b/c", 2)))
    changing = [
        ev.QueueSeen(queue=queue, at_ms=T0), ev.PoolSeen(pool=builders.pool(), at_ms=T0),
        ev.ExceptionSeen(exception=exception(), at_ms=T0), ev.PolicySeen(policy=policy, at_ms=T0),
        ev.SwitchesSet(switches=replace(ALL_ON, placement_on=False), at_ms=T0),
    ]  # fmt: skip
    for number, fact in enumerate(changing, 1):
        assert (tenants.apply(fact), tenants.version) == (True, number)
        assert (tenants.apply(fact), tenants.version) == (False, number)
    assert tenants.counted == ("a.b/c", "cpu", FIXED)
    assert tenants.rates.since_ms == T0
    told = [
        (spent, True), (spent, False), (replace(spent, gpu_ms=6), False), (replace(spent, gpu_ms=5), True),
        (replace(spent, gpu_ms=5, period_start_ms=1), True),
    ]  # fmt: skip
    assert [tenants.apply(fact) for fact, _ in told] == [again for _, again in told]
    assert tenants.version == len(changing), "what was spent is no change of the tree"
    gone = [
        ev.QueueGone(name="team", at_ms=T0), ev.PoolGone(name="fleet", at_ms=T0), ev.ExceptionGone(name="e", at_ms=T0),
        ev.PolicyGone(name="mine", at_ms=T0),
    ]  # fmt: skip
    for number, fact in enumerate(gone, len(changing) + 1):
        assert (tenants.apply(fact), tenants.version) == (True, number)
        assert (tenants.apply(fact), tenants.version) == (False, number)
    assert tenants.counted == ()


def test_a_queue_shares_by_the_policy_named_nearest_above_it() -> None:
    tenants = Tenants()
    for text in ("root policy=far", "mid parent=root policy=near", "leaf parent=mid policy=own", "lone policy=gone"):
        name, _, words = text.partition(" ")
        tenants.apply(ev.QueueSeen(queue=builders.queue(name, words), at_ms=T0))
    assert tenants.policy_of("leaf") is BUILT_IN
    for at, name in enumerate(("far", "near", "own", ROOT_POLICY), 1):
        policy = replace(BUILT_IN, name=name, half_life_ms=at, aging_ms=10 * at)
        tenants.apply(ev.PolicySeen(policy=policy, at_ms=T0))
    names = ("root", "mid", "leaf", "lone", "nobody")
    assert [tenants.half_life_of(name) for name in names] == [4, 1, 2, 4, 4]
    assert [tenants.aging_of(name) for name in names] == [40, 10, 20, 40, 40]


def test_what_is_in_force_changes_where_an_exception_begins_and_ends() -> None:
    tenants, keeper = Tenants(), ForceKeeper()
    tenants.apply(ev.QueueSeen(queue=builders.queue("team", "limit=4"), at_ms=0))
    assert keeper.at(tenants, 0) is keeper.at(tenants, 99)
    assert (keeper.at(tenants, 0).since_ms, keeper.at(tenants, 0).until_ms) == (0, None)
    tenants.apply(ev.ExceptionSeen(exception=exception(more_limit_gpus=2), at_ms=0))
    tenants.apply(ev.ExceptionSeen(exception=exception(name="f", queue="gone", starts_ms=0, expires_ms=15), at_ms=0))
    found = [keeper.at(tenants, now) for now in (9, 10, 14, 15, 19, 20)]
    assert [one.queues["team"].limit_gpus for one in found] == [4, 6, 6, 6, 6, 4]
    assert [(one.since_ms, one.until_ms) for one in found] == [
        (0, 10), (10, 15), (10, 15), (15, 20), (15, 20), (20, None)
    ]  # fmt: skip
    assert [len(one.exceptions) for one in found] == [0, 1, 1, 1, 1, 0]
    assert found[1] is found[2]
    assert found[5].plain["team"].limit_gpus == 4
    assert (found[0].capped, found[0].peaked) == (False, False)
    tenants.apply(ev.QueueSeen(queue=builders.queue("b", "jobs=1 peak=batch:8/09:00/17:00"), at_ms=0))
    assert (keeper.at(tenants, 20).capped, keeper.at(tenants, 20).peaked) == (True, True)


# --- charges ---------------------------------------------------------------------------------------------------------

ALL = ("a.b/c", "cpu", "ephemeral-storage", "gpu/A100", "gpu/H100", FIXED, "memory")


def test_a_gang_is_charged_for_what_is_counted_and_for_nothing_else() -> None:
    gang = builders.gang(
        "g", "ps:1x0 worker:3x2 worker.min=2 worker.cpu=4 worker.ext=a.b/c:5,x.y/z:9 worker.model=H100 fixed"
    )
    assert wanted(gang, ()) == least(gang, ()) == sure(gang, ()) == charged(gang, (), {}.get, ()) == ()
    assert wanted(gang, ALL) == (("a.b/c", 15), ("cpu", 13_000), ("gpu/H100", 6_000), (FIXED, 6_000))
    assert least(gang, ALL) == (("a.b/c", 10), ("cpu", 9_000), ("gpu/H100", 4_000), (FIXED, 4_000))
    assert sure(gang, ALL) == wanted(gang, ALL)
    free = replace(gang, preemptible=True)
    assert dict(wanted(free, ALL)).keys() == {"a.b/c", "cpu", "gpu/H100"}
    either = replace(gang, roles=(replace(gang.roles[1], gpu_model="=NVIDIA H100 80GB|=NVIDIA A100"),))
    assert dict(wanted(either, ("gpu/A100", "gpu/H100"))) == {"gpu/A100": 6_000, "gpu/H100": 6_000}
    assert least(either, ("gpu/A100", "gpu/H100")) == ()
    anything = replace(gang, roles=(replace(gang.roles[1], gpu_model=""),))
    assert dict(wanted(anything, ("gpu/A100",))) == {"gpu/A100": 6_000}
    assert sure(anything, ("gpu/A100",)) == ()


def test_members_are_charged_by_the_models_of_their_devices() -> None:
    gang = builders.gang("g", "2x2 cpu=4 fixed")
    nodes = {NodeName("n1"): builders.node("n1", "8 model=H100"), NodeName("n2"): builders.node("n2", "8 model=A100")}
    made = {"role": "worker", "index": 0}
    whole = [
        Member(rank=0, node="n1", devices=("gpu-0", "gpu-3"), **made),
        Member(rank=1, node="n2", devices=("gpu-1",), **made),
    ]
    assert charged(gang, whole, nodes.get, ALL) == (
        ("cpu", 8_000), ("gpu/A100", 1_000), ("gpu/H100", 2_000), (FIXED, 3_000)
    )  # fmt: skip
    part = Member(rank=0, node="n1", devices=("gpu-0",), share_milli=250, **made)
    assert charged(None, [part, replace(part, node="gone")], nodes.get, ALL) == (("gpu/H100", 250),)
    assert charged(gang, whole, nodes.get, ("cpu",)) == (("cpu", 8_000),)
    assert charged(replace(gang, preemptible=True), whole, nodes.get, (FIXED,)) == ()
    assert resources_of("NVIDIA h100 PCIe", ("cpu", "gpu/H100", "gpu/A100")) == ("gpu/H100",)


def test_a_role_that_is_none_of_the_gangs_is_charged_for_its_devices_only() -> None:
    stray = Member(rank=0, node="n1", devices=("gpu-0",), role="other", index=0)
    assert charged(builders.gang("g", "1x1 cpu=4"), [stray], lambda name: None, ALL) == ()
    assert Queue(name="q").quota("cpu") is None
