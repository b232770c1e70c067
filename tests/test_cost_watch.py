"""What queues cost is judged after each line drawn through the books, and what alarms is told, once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from cost_books import HOUR, Days
from ledger_books import hold
from ledger_facts import gang

from fairlead.errors import Unreachable
from fairlead.model.events import GangSeen
from fairlead.model.gang import Tier
from fairlead.service.cost_watch import CostWatch
from fairlead.service.metrics import Metrics
from fairlead_operator import upkeep

from .fake_kube import FakeKube

SERIES = ("fairlead_cost_anomalies", {"queue": "vision", "kind": "spend"})
SAID = "2026-11-09, spend: 40.00 EUR, where a day as usual is 20.00; volume 20.00"


@pytest.fixture
def days(tmp_path: Any) -> Any:
    found = Days(tmp_path)
    yield found.usual(8)
    found.books.close()


def test_it_is_judged_once_a_line_and_said_once_a_day(days: Days) -> None:
    watch = CostWatch(days.books)
    assert watch.said is None
    assert (watch.look(), watch.look(), watch.said, list(watch.news())) == (True, False, {}, [])
    days.holds((20, Tier.IN_QUOTA))
    assert watch.look()
    assert watch.said == {"vision": SAID}
    assert [one.kind for one in watch.news()] == ["spend"]
    days.usual(1)  # a day later it is the day before
    assert watch.look()
    assert (watch.said, list(watch.news())) == ({"vision": SAID}, [])
    days.usual(1)
    assert watch.look()
    assert watch.said == {}


def test_a_day_that_is_not_over_is_judged_as_far_as_it_is_booked(days: Days) -> None:
    watch = CostWatch(days.books)
    days.tell(GangSeen(gang=gang("u"), at_ms=days.now), hold(days.now, ("n1", (0, 1, 2)), uid="u"))
    days.books.cut(days.now + 4 * HOUR)
    assert watch.look()
    assert watch.said == {}
    days.books.cut(days.now + 6 * HOUR)
    assert watch.look()
    assert watch.said == {"vision": "2026-11-09, spend: 36.00 EUR, where a day as usual is 20.00; volume 16.00"}


def test_books_that_are_empty_or_away_alarm_nobody(days: Days, tmp_path: Any) -> None:
    (tmp_path / "new").mkdir()
    new = Days(tmp_path / "new")
    watch = CostWatch(new.books)
    assert not watch.look()
    assert watch.said is None
    new.books.close()
    away = CostWatch(days.books)
    (days.path).rename(days.path.with_name("away.sqlite"))
    days.books._engine.dispose()
    days.path.mkdir()
    with pytest.raises(Unreachable):
        away.look()
    assert away.said is None


def test_an_alarm_is_a_metric_and_an_event_of_the_queue(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    api, metrics = FakeKube(), Metrics()
    seen = SimpleNamespace(metadata=SimpleNamespace(name="vision", uid="q-1"))
    watches: Any = SimpleNamespace(queues=SimpleNamespace(store=[seen]))
    none: Any = object()
    facts: list[Any] = []
    engine: Any = SimpleNamespace(state=SimpleNamespace(tenants=SimpleNamespace(alarms={})))
    loop: Any = SimpleNamespace(put=lambda *more: facts.extend(more))
    tended = upkeep.Upkeep(
        api, engine, loop, days.books, none, watches, {}, none,
        now_ms=lambda: days.now, namespace="system", metrics=metrics, writes_per_s=10,
    )  # fmt: skip

    def events() -> list[Any]:
        return [one for (plural, _, _), one in api.objects.items() if plural == "events"]

    asyncio.run(tended._watch_costs())
    assert (metrics.registry.get_sample_value(*SERIES), events()) == (None, [])
    days.holds((20, Tier.IN_QUOTA))
    asyncio.run(tended._watch_costs())
    asyncio.run(tended._watch_costs())
    assert metrics.registry.get_sample_value(*SERIES) == 1
    assert [(fact.queue, fact.day) for fact in facts] == [("vision", "2026-11-09")]
    (event,) = events()
    assert (event["metadata"]["namespace"], event["type"], event["reason"]) == ("default", "Warning", "CostAnomaly")
    assert event["regarding"] == {
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Queue", "name": "vision", "uid": "q-1",
    }  # fmt: skip
    assert event["note"] == SAID
    assert f"event=cost_alarm queue=vision kind=spend said='{SAID}'" in caplog.text
    days.usual(2)
    asyncio.run(tended._watch_costs())
    assert (metrics.registry.get_sample_value(*SERIES), len(events())) == (None, 1)
