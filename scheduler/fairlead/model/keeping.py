"""What a rule keeps free for somebody: the effect that says so, and the fact that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.model.hardware import NodeName

KeptDevices = tuple[tuple[NodeName, tuple[str, ...]], ...]
"""(node, devices), by name of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """See `KeptFree`. Changes no cluster object."""

    keeper: str
    queue: str
    devices: KeptDevices


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFree:
    """From now on a rule keeps these devices free as long as nobody holds them, and no others; () is none.

    `keeper` names the rule: ``nomination/<gang>`` and ``promise/<gang>`` by uid, ``reservation/<name>``,
    ``pool/<pool>/<purpose>/<service class>``. `queue` is for whom, "" for the platform or whoever comes.
    """

    keeper: str
    queue: str
    devices: KeptDevices
    at_ms: int


def kept_after(kept: Mapping[str, KeptFree], fact: KeptFree) -> Mapping[str, KeptFree]:
    """Return what each rule keeps, by name of the rule, after another word of one of them."""
    others = {name: one for name, one in kept.items() if name != fact.keeper}
    return {**others, fact.keeper: fact} if fact.devices else others
