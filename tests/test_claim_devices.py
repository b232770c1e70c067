"""The names under which claims hold what was placed, there and back."""

from __future__ import annotations

import builders
import pytest
from builders import Stage

from fairlead.errors import UnreadableInput
from fairlead.model import events as ev
from fairlead.model.hardware import NodeName
from fairlead_operator.claim_devices import claim_devices


def placed(node_text: str, *asks: str):
    stage = Stage([builders.node("n1", node_text)], [builders.queue("team")])
    for at, ask in enumerate(asks):
        stage.submit(f"g{at}", ask)
    stage.settle()
    members = [m for at in range(len(asks)) for m in stage.attempt(f"g{at}").placement.members]
    return stage.state.nodes[NodeName("n1")], members


def test_whole_gpus_keep_their_names() -> None:
    node, (member,) = placed("8", "1x2")
    assert claim_devices(node, member, "") == ("gpu-0", "gpu-1")


@pytest.mark.parametrize(
    ("text", "profile", "name"),
    [
        ("1 mig=3g.40gb@0,3g.40gb@4", "3g.40gb", "gpu-0-mig-3g40gb-9-0"),
        ("1 mig=dynamic", "3g.40gb", "gpu-0-mig-3g40gb-9-4"),
        ("2 mig=-/1g.10gb+me@6", "1g.10gb+me", "gpu-1-mig-1g10gb-me-20-6"),
    ],
)
def test_an_instance_has_the_name_that_the_driver_publishes(text, profile, name) -> None:
    node, (member,) = placed(text, f"1x0 mig={profile}")
    assert claim_devices(node, member, profile) == (name,)


def test_an_instance_that_is_gone_is_told_with_its_place() -> None:
    _, (member,) = placed("1 mig=3g.40gb@0", "1x0 mig=3g.40gb")
    for other in ("1 mig=3g.40gb@4", "1 mig=-", "0"):
        with pytest.raises(
            UnreadableInput, match=r"node n1: its ResourceSlices name no 3g\.40gb device at unit 0 of gpu-0"
        ):
            claim_devices(builders.node("n1", other), member, "3g.40gb")


@pytest.mark.parametrize("text", ["2 mig=3g.40gb@0,2g.20gb@4,1g.10gb@6", "2 mig=dynamic"])
def test_what_claims_name_is_read_back_as_the_same_states(text) -> None:
    asks = ["1x0 mig=3g.40gb", "1x0 mig=2g.20gb", "1x0 mig=1g.10gb"]
    stage = Stage([builders.node("n1", text)], [builders.queue("team")])
    for at, ask in enumerate(asks):
        stage.submit(f"g{at}", ask)
    stage.settle()
    ours = stage.engine.world(stage.now_ms).free
    node = stage.state.nodes[NodeName("n1")]
    names = tuple(
        name
        for at, ask in enumerate(asks)
        for member in stage.attempt(f"g{at}").placement.members
        for name in claim_devices(node, member, ask.partition("=")[2])
    )
    other = Stage([node], [builders.queue("team")])
    other.take(ev.ForeignDevices(name=NodeName("n1"), devices=names, at_ms=other.now_ms))
    theirs = other.engine.world(other.now_ms).free
    assert (ours.mig_state == theirs.mig_state).all()
    assert (ours.free_mask == theirs.free_mask).all()
