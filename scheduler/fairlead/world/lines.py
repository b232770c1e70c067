"""Gangs of one queue that ask for the same stand in one line: what is said to the first is said to all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fairlead.model.gang import Gang, GangId
from fairlead.model.quota import Amounts
from fairlead.model.reasons import Kind, Refusal
from fairlead.world.pictures import Waiting


def latest_start_ms(gang: Gang) -> int | None:
    """Return when a gang must have started to be done by its deadline, UTC ms; None without a deadline."""
    return None if gang.deadline_ms is None else gang.deadline_ms - (gang.duration_ms or 0)


def retry_ms(gang: Gang, refusal: Refusal) -> int | None:
    """Return when time alone may change what a gang was told, UTC ms: what was said of it, or its latest start passes.

    None where only a fact can change it.
    """
    latest_ms = None if refusal.reason.kind in (Kind.INVALID, Kind.NEVER) else latest_start_ms(gang)
    moments = (refusal.retry_at_ms, None if latest_ms is None else latest_ms + 1)
    return min((moment for moment in moments if moment is not None), default=None)


Request = tuple[object, ...]
NEWS_FOR_ALL = 256
"""Members of a line up to which other numbers in a refusal are news for each; beyond, only another reason is."""


def request_of(gang: Gang, *, displaced: bool = False) -> Request:
    """Return what makes two gangs equal requests, whoever sent them; `displaced` ones may use hot spares."""
    duration_ms = gang.duration_ms if gang.deadline_ms is not None else _about(gang.duration_ms)
    return (*likeness_of(gang, displaced=displaced), duration_ms)


def likeness_of(gang: Gang, *, displaced: bool = False) -> Request:
    """Return what makes two gangs equal requests but for how long they run."""
    return (
        gang.queue,
        gang.namespace,
        gang.priority,
        gang.priority_class,
        gang.service_class,
        gang.roles,
        gang.topology,
        gang.mixed_models,
        gang.isolation,
        gang.user,
        gang.groups,
        gang.deadline_ms,
        gang.preemptible,
        gang.wants_promise,
        gang.checkpoint is not None and gang.checkpoint.unreadable,
        displaced,
    )


def _about(duration_ms: int | None) -> int | None:
    """Return a duration to two binary digits: who may enter a hole goes by it, and lines must not become too many."""
    if duration_ms is None:
        return None
    dropped = max(0, duration_ms.bit_length() - 2)
    return duration_ms >> dropped << dropped


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LinePicture:
    """A line as a World shows it. `ready` is never empty: by age, then uid."""

    ready: tuple[Waiting, ...]


Entry = tuple[int, int, str, LinePicture]
"""(−priority, age, uid) of a line's first gang, and the line: entries of a queue sort into its order."""


class Listener(Protocol):
    """Who stands in a line, and has heard what was said there after `joined` refusals."""

    joined: int


@dataclass(slots=True, eq=False, kw_only=True)
class Line:
    """The line itself. Its members are pending, neither nominated nor waiting out a backoff.

    ready    by age, then uid
    refusals how often the line was told why not
    untold   members that came after that
    counted  how many of them are counted as demand
    entry    its place in its queue
    answered whether it was told why not and has not changed its place yet
    old_ms   when its first gang is old, of the one that was noted last
    also     what each of its gangs wants of what is counted beside GPUs
    """

    example: Gang
    request: Request
    ask_key: tuple[str, str, str, str]
    ready: list[Waiting] = field(default_factory=list[Waiting])
    refusal: Refusal | None = None
    refusals: int = 0
    untold: dict[GangId, Listener] = field(default_factory=dict[GangId, Listener])
    counted: int = 0
    entry: Entry | None = None
    answered: bool = False
    also: Amounts = ()
    old_ms: int = 0

    @property
    def queue(self) -> str:
        """The queue it stands in."""
        return self.example.queue

    def refuse(self, refusal: Refusal) -> list[GangId]:
        """Tell everybody in line; returns those for whom it is news, in order."""
        before = self.refusal
        other = before is None or refusal.reason is not before.reason
        if other or (refusal != before and len(self.ready) <= NEWS_FOR_ALL):
            news = [waiting.gang.id for waiting in self.ready]
        else:
            news = list(self.untold)
        self.refusal = refusal
        self.refusals += 1
        self.untold = {}
        return news

    def hear(self) -> None:
        """Let those who came last hear what the others were told: one walk over the queues asks for all of them."""
        for listener in self.untold.values():
            listener.joined = -1
        self.untold = {}

    @property
    def hopeless(self) -> bool:
        """Whether no waiting helps: what is asked for can't be given before a spec or the cluster changes."""
        return self.refusal is not None and self.refusal.reason.kind in (Kind.INVALID, Kind.NEVER)

    def picture(self) -> LinePicture:
        """Return the line as it is."""
        return LinePicture(ready=tuple(self.ready))


def by_age(waiting: Waiting) -> tuple[int, str]:
    """Age, then uid: the order inside a line."""
    return waiting.gang.submitted_ms, waiting.gang.id
