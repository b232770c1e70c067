"""One attempt on its way into the cluster and out of it: what was written for each member, and what is still there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fairlead.errors import FairleadError
from fairlead.model.gang import GangId, Member
from fairlead.model.hardware import Node, NodeName
from fairlead.model.tenancy import Pool
from fairlead_operator.pods import Attempt, JobSheet, claim_name, pod_name

Key = tuple[GangId, int]
"""(gang, attempt)."""

Result = TypeVar("Result")


class Lookup(Protocol):
    """What is known of the cluster right now; answers come from memory."""

    def sheet(self, gang: GangId) -> JobSheet | None:
        """Return the GangJob, None where it is gone."""
        ...

    def node(self, name: NodeName) -> Node | None:
        """Return a node, None where it is gone."""
        ...

    def pool(self, name: str) -> Pool | None:
        """Return a pool, None where it is gone."""
        ...


@dataclass(slots=True, kw_only=True)
class Step:
    """One member's objects. `claim` is "" for a member without devices.

    `pod_uid` is "" until the server has answered. `binding_tried` stays True even if no answer came.
    """

    member: Member
    pod: str
    claim: str = ""
    pod_uid: str = ""
    binding_tried: bool = False
    released: bool = False


@dataclass(slots=True, kw_only=True)
class Trip:
    """An attempt with all its members in rank order. `aborted` says why it is to be undone, "" while it is not.

    Members of the ranks in `left` are no part of it: they have left for good, are leaving, or are not bound yet. Those
    that are just being bound are in `joining`, as a trip of their own. `asking` is under way once it is to be asked to
    save; who gives it a notice, or takes one back, holds `notices`, so that each is whole before the next.
    """

    gang: GangId
    sheet: JobSheet
    attempt: Attempt
    steps: list[Step]
    aborted: str = ""
    left: set[int] = field(default_factory=set[int])
    joining: Trip | None = None
    asking: asyncio.Task[None] | None = None
    notices: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> Key:
        """Gang and attempt."""
        return (self.gang, self.attempt.number)

    @property
    def tag(self) -> str:
        """Name the attempt in a log line."""
        return f"gang={self.sheet.namespace}/{self.sheet.name} attempt={self.attempt.number}"


def trip_of(sheet: JobSheet, attempt: Attempt) -> Trip:
    """Name the objects of every member of an attempt."""
    steps: list[Step] = []
    for member in attempt.placement.members:
        pod = pod_name(sheet.name, member.role, member.index, attempt.number)
        steps.append(Step(member=member, pod=pod, claim=claim_name(pod) if member.devices else ""))
    return Trip(gang=GangId(sheet.uid), sheet=sheet, attempt=attempt, steps=steps)


class Gate:
    """Lets gangs pass in order while their members together are at most `width`; one wider gang passes alone.

    Without it every gang of a backlog would take an equal share of the API server, and all would be late together.
    """

    def __init__(self, width: int) -> None:
        """Start open."""
        self._width = width
        self._inside = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def passing(self, members: int) -> AsyncGenerator[None]:
        """Wait for our turn, and make room at the end."""
        weight = min(members, self._width)
        if self._queue or self._inside + weight > self._width:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append((weight, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(weight)
                raise
        else:
            self._inside += weight
        try:
            yield
        finally:
            self._leave(weight)

    def _leave(self, weight: int) -> None:
        """Let in whoever fits now, first come first served."""
        self._inside -= weight
        while self._queue:
            next_weight, turn = self._queue[0]
            if turn.cancelled():
                self._queue.popleft()
            elif self._inside + next_weight <= self._width:
                self._queue.popleft()
                self._inside += next_weight
                turn.set_result(None)
            else:
                break


class UntilDone(Protocol):
    """Tries something until the server has let us; None where we no longer lead."""

    async def __call__(
        self, work: Callable[[], Coroutine[Any, Any, tuple[int, ...]]], tag: str, /
    ) -> tuple[int, ...] | None:
        """Do it."""
        ...


async def all_of(jobs: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run all to their end, then raise the first failure of the outside if there was one.

    Nothing is cancelled because a sibling failed: a write that is cut off may still happen, and then nobody knows.
    """
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, FairleadError):
            raise result
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
