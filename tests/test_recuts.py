"""The plan to cut idle GPUs anew, from the engine to the command line."""

from __future__ import annotations

import io

import builders
import pytest
from builders import Stage

from fairlead.cli import render
from fairlead.service.view_json import recut_doc


def a_plan(nodes: dict[str, str], *asks: str):
    stage = Stage([builders.node(name, text) for name, text in nodes.items()], [builders.queue("team")])
    for at, ask in enumerate(asks):
        stage.submit(f"g{at}", ask)
        stage.settle()
    return recut_doc(stage.engine.recut_plan())


def test_an_idle_gpu_is_proposed_for_what_waits_with_its_cost() -> None:
    doc = a_plan({"n1": "1 mig=7g.80gb@0"}, "2x0 mig=3g.40gb duration=1h")
    (found,) = doc["proposals"]
    assert (found["node"], found["device"], found["before"]) == ("n1", "gpu-0", ["7g.80gb@0"])
    assert sorted(found["after"]) == ["3g.40gb@0", "3g.40gb@4"]
    assert found["serves"] == {"3g.40gb": 2}
    assert found["cost_gpu_ms"] == 3_000  # one instance goes, two come, a second each
    assert found["gain_gpu_ms"] == 2 * 1_800_000 - 3_000
    assert (found["stranded_before"], found["stranded_after"]) == (1000, 0)
    assert (doc["unserved"], doc["ended_early"]) == ({}, None)


@pytest.mark.parametrize(
    ("nodes", "asks"),
    [
        ({"n1": "1 mig=7g.80gb@0"}, ("1x0 mig=7g.80gb", "2x0 mig=3g.40gb")),  # it is busy
        ({"n1": "1 mig=7g.80gb@0"}, ()),  # nothing waits
        ({"n1": "1 mig=7g.80gb@0 cordoned"}, ("1x0 mig=3g.40gb",)),
        ({"n1": "1 mig=7g.80gb@0 unhealthy=0"}, ("1x0 mig=3g.40gb",)),
        ({"n1": "1 mig=7g.80gb@0"}, ("1x0 mig=3g.40gb suspended",)),
        ({"n1": "1 mig=dynamic"}, ("1x0 mig=7g.80gb", "1x0 mig=3g.40gb")),  # the driver cuts that one
        ({"n1": "1 mig=7g.80gb@0", "n2": "1 mig=dynamic"}, ("1x0 mig=3g.40gb cpu=999",)),  # there is room, CPU is short
    ],
)
def test_nothing_is_proposed_where_nothing_is_to_be_gained(nodes, asks) -> None:
    assert a_plan(nodes, *asks)["proposals"] == []


def test_a_plan_is_told_in_words() -> None:
    out = io.StringIO()
    render.recuts(a_plan({"n1": "1 mig=7g.80gb@0"}, "3x0 mig=3g.40gb duration=1h"), out=out)
    text = out.getvalue()
    assert "+2 3g.40gb" in text
    assert "100 % -> 0 %" in text
    assert "1 x 3g.40gb would still wait" in text
    out = io.StringIO()
    render.recuts(a_plan({"n1": "8"}), out=out)
    assert "no GPU is worth cutting anew" in out.getvalue()
