"""The pods of one attempt in the fleet in memory, as they really are."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.model.gang import GangId, Member, Placement

Key = tuple[GangId, int]
"""(gang, attempt)."""


@dataclass(slots=True)
class Pods:
    """The pods of one attempt as they really are. The sets hold ranks; who has `left` was let go by a shrink.

    At `done_ms` the program is through, None where nobody knows.
    """

    key: Key
    placement: Placement
    since_ms: int
    state: str = "binding"
    first_bound_ms: int | None = None
    bound: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    began: bool = False
    done_ms: int | None = None
    by_rank: dict[int, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the members once; the largest gangs have thousands."""
        self.by_rank = {member.rank: member for member in self.placement.members}

    def join(self, placement: Placement) -> list[Member]:
        """Take in those who join; returns them."""
        new = [member for member in placement.members if member.rank not in self.by_rank]
        self.placement = placement
        self.by_rank |= {member.rank: member for member in new}
        return new
