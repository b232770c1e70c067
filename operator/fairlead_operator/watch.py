"""A reflector: one kind's objects, listed once and then watched, with every change told to a callback.

It pages the list, asks for bookmarks, resumes where the stream broke, lists again when the server has forgotten so far
back (410) and then tells the difference, and never lets an old event undo what our own write has answered.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NoReturn, TypeVar

import msgspec

from fairlead.clock import monotonic_ms, now_ms
from fairlead.errors import Unreachable, UnreadableInput
from fairlead_operator.kube_client import ApiError, KubeClient
from fairlead_operator.objects import HasMeta, Meta, Plain, Record, Resource, time_ms

PAGE = 500
IDLE_S = 150.0  # bookmarks come about once a minute; a stream silent for longer is taken up anew, which costs nothing
_BACKOFF_MAX_S = 30.0
_SHORT_S = 1.0  # a stream that ends this soon is counted as a failure, so that it cannot spin
_GRAVES_MAX = 20_000
_CATCH_UP_MS = 1_000  # what comes this soon after a stream was taken up anew may have happened while there was none

log = logging.getLogger(__name__)
Item = TypeVar("Item", bound=HasMeta)


class Change(StrEnum):
    """What happened to an object, in the API server's words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far behind a watch may be. `silent_ms` since the last line; `age_ms` of the last new object at receipt."""

    silent_ms: int
    age_ms: int


class _Expired(Exception):
    """The server no longer knows the version that we would resume from."""


class _Event(Record, frozen=True, kw_only=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class _Told(Record, frozen=True, kw_only=True):
    """The Status object inside an ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Store(Generic[Item]):
    """What a reflector holds: objects by uid, and by namespace and name."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_uid: dict[str, Item] = {}
        self._uids: dict[tuple[str, str], str] = {}

    def get(self, name: str, namespace: str = "") -> Item | None:
        """Return the object of that name, or None."""
        uid = self._uids.get((namespace, name))
        return None if uid is None else self._by_uid.get(uid)

    def by_uid(self, uid: str) -> Item | None:
        """Return the object with that uid, or None."""
        return self._by_uid.get(uid)

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._by_uid)

    def __iter__(self) -> Iterator[Item]:
        """All objects as they are now, oldest first; safe against changes meanwhile."""
        return iter(tuple(self._by_uid.values()))

    def put(self, item: Item) -> Item | None:
        """Keep an object and return what it replaces."""
        meta = item.metadata
        old = self._by_uid.get(meta.uid)
        self._by_uid[meta.uid] = item
        self._uids[(meta.namespace, meta.name)] = meta.uid
        return old

    def drop(self, uid: str) -> Item | None:
        """Forget an object and return it; a newer one of the same name stays."""
        old = self._by_uid.pop(uid, None)
        if old is not None and self._uids.get(key := (old.metadata.namespace, old.metadata.name)) == uid:
            del self._uids[key]
        return old


class Reflector(Generic[Item]):
    """Keeps `store` like the server's; `on_change(change, old, new)` is told of every difference, in order.

    `run` works until it is cancelled. `synced` is set after the first whole list has been told. Callbacks run in the
    event loop and must not block. An object that cannot be decoded is counted in `undecodable` and left as it was.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[Item],
        on_change: Callable[[Change, Item | None, Item | None], None],
        *,
        rng: random.Random,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        """Prepare; nothing is asked before `run`."""
        self.resource = resource
        self.store: Store[Item] = Store()
        self.synced = asyncio.Event()
        self.failing = ""
        self.relists = 0
        self.undecodable = 0
        self._client = client
        self._on_change = on_change
        self._rng = rng
        self._namespace = namespace
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._selectors = {key: value for key, value in self._selectors.items() if value}
        self._wall_ms = wall_ms
        self._version = ""
        self._failures = 0
        self._heard_ms = monotonic_ms()
        self._opened_ms = 0
        self._blind_ms = 0
        self._age_ms = 0
        self._graves: dict[str, None] = {}
        self._events = msgspec.json.Decoder(_Event)
        self._items = msgspec.json.Decoder(resource.struct)

    def lag(self) -> Lag:
        """Say how far behind this watch may be."""
        return Lag(silent_ms=monotonic_ms() - self._heard_ms, age_ms=self._age_ms)

    def gap_ms(self) -> int:
        """Return how old the change that is being told may be: 0 on a live stream, else how long we were blind."""
        return self._blind_ms if monotonic_ms() - self._opened_ms < _CATCH_UP_MS else 0

    def note_write(self, item: Item) -> None:
        """Take in what one of our own writes answered, at once; an event that is older will not undo it."""
        if item.metadata.uid not in self._graves:
            self._take(item)

    async def run(self) -> None:
        """List, watch, and recover from whatever the server does, until cancelled."""
        while True:
            began_ms = monotonic_ms()
            try:
                if not self._version:
                    await self._relist()
                await self._watch()
                if monotonic_ms() - began_ms < _SHORT_S * 1000:
                    self._failures += 1
                wait_s = self._pause()
            except _Expired as error:
                self._version = ""
                self._failures += 1
                wait_s = self._pause() if self._failures > 1 else 0.0
                log.info("watch %s: %s, listing again", self.resource.plural, error)
            except (ApiError, Unreachable, UnreadableInput) as error:
                if monotonic_ms() - began_ms >= _SHORT_S * 1000:
                    self._failures = 0  # it held for a while: something on the way ends quiet connections
                self._failures += 1
                asked_s = error.retry_after_s if isinstance(error, ApiError) else None
                wait_s = (asked_s or 0.0) + self._pause()
                if str(error) != self.failing:
                    log.warning("watch %s: %s; again in %.1f s", self.resource.plural, error, wait_s)
                self.failing = str(error)
            await asyncio.sleep(wait_s)

    def _pause(self) -> float:
        """Seconds to wait: none after a good stream, else doubling up to half a minute, with jitter."""
        if not self._failures:
            return 0.0
        return min(_BACKOFF_MAX_S, 0.1 * 2.0 ** min(self._failures, 12)) * self._rng.uniform(0.5, 1.0)

    async def _relist(self) -> None:
        """Read the whole list, then tell how it differs from what we hold."""
        self.relists += 1
        params = {"limit": str(PAGE), **self._selectors}
        listed: dict[str, Item] = {}
        kept: set[str] = set()
        while True:
            try:
                raws, meta = await self._client.page(self.resource, self._namespace, params=params)
            except ApiError as error:
                if error.status == 410:
                    raise _Expired("the list took too long") from error
                raise
            for raw in raws:
                item = self._decode(raw)
                if item is not None:
                    listed[item.metadata.uid] = item
                elif uid := _plain(raw).uid:
                    kept.add(uid)
            if not meta.continue_:
                break
            params["continue"] = meta.continue_
        self._reopened()
        for item in self.store:
            uid = item.metadata.uid
            if (
                uid not in listed
                and uid not in kept
                and not _newer(item.metadata.resource_version, meta.resource_version)
            ):
                self._forget(uid)
        for item in listed.values():
            self._take(item)
        self._version = meta.resource_version
        self.synced.set()

    async def _watch(self) -> None:
        """Follow one stream to its end."""
        seconds = self._rng.randint(300, 600)
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
            **self._selectors,
        }
        path = self.resource.path(self._namespace)
        try:
            async with self._client.stream(path, params, idle_s=IDLE_S) as lines:
                self._reopened()
                async for line in lines:
                    self._line(line)
            self._heard()  # the server closed it in good order: we saw everything until now
        except ApiError as error:
            if error.status == 410:
                raise _Expired("version too old to watch from") from error
            raise

    def _line(self, line: bytes) -> None:
        """Take in one line of the stream."""
        try:
            event = self._events.decode(line)
        except msgspec.DecodeError as error:
            raise UnreadableInput(f"a watch line is no event: {error}") from error
        if event.type == "ERROR":
            self._refused(event.object)
        self._heard()
        self._failures = 0
        if event.type == "BOOKMARK":
            self._version = _plain(event.object).resource_version or self._version
            return
        item = self._decode(event.object)
        if item is None:
            self._version = _plain(event.object).resource_version or self._version
            return
        if event.type == Change.DELETED:
            self._forget(item.metadata.uid, item)
        else:
            if event.type == Change.ADDED:
                self._note_age(item)
            self._take(item)
        self._version = item.metadata.resource_version

    def _refused(self, raw: msgspec.Raw) -> NoReturn:
        """Turn an ERROR event into what `run` expects."""
        told = msgspec.json.decode(raw, type=_Told)
        if told.code == 410:
            raise _Expired(told.message or "version too old")
        raise ApiError(told.code or 500, told.reason or "Unknown", told.message)

    def _take(self, item: Item) -> None:
        """Keep an object unless what we hold is as new, and tell."""
        held = self.store.by_uid(item.metadata.uid)
        if held is not None and not _newer(item.metadata.resource_version, held.metadata.resource_version):
            return
        self.store.put(item)
        self._on_change(Change.ADDED if held is None else Change.MODIFIED, held, item)

    def _forget(self, uid: str, last: Item | None = None) -> None:
        """Drop an object for good and tell; `last` is its last state where the server sent one."""
        self._graves[uid] = None
        if len(self._graves) > _GRAVES_MAX:
            del self._graves[next(iter(self._graves))]
        held = self.store.drop(uid)
        if held is not None:
            self._on_change(Change.DELETED, held, last)

    def _decode(self, raw: msgspec.Raw) -> Item | None:
        """Decode one object; None, counted and logged, where it is not of our kind."""
        try:
            return self._items.decode(raw)
        except msgspec.DecodeError as error:
            self.undecodable += 1
            log.warning("%s %s cannot be decoded: %s", self.resource.kind, _plain(raw).name, error)
            return None

    def _reopened(self) -> None:
        """A list or stream begins; what it tells may be as old as our last sign of life before it."""
        now = monotonic_ms()
        blind_ms = now - self._heard_ms if self.synced.is_set() else 0
        self._blind_ms = max(blind_ms, self.gap_ms())
        self._opened_ms = now
        self._heard()

    def _heard(self) -> None:
        """The server is there."""
        self._heard_ms = monotonic_ms()
        self.failing = ""

    def _note_age(self, item: Item) -> None:
        """Measure how old a new object was when we saw it; its own time has whole seconds only."""
        made_ms = time_ms(item.metadata.creation_timestamp, field="metadata.creationTimestamp")
        self._age_ms = max(0, self._wall_ms() - made_ms) if made_ms else 0


def _plain(raw: msgspec.Raw) -> Meta:
    """Return the metadata alone; empty where even that cannot be read."""
    try:
        return msgspec.json.decode(raw, type=Plain).metadata
    except msgspec.DecodeError:
        return Plain().metadata


def _newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is newer; they are numbers that only grow. What is no number counts as newer."""
    return not (version.isdecimal() and than.isdecimal()) or int(version) > int(than)
