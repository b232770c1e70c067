"""Every change of pods, claims and GangJobs in the order in which the API server made it, and what must hold at each.

    with History(api) as history:
        ...
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []

All three kinds lie in one etcd, so their resourceVersions are one count of all writes; the checkers go through them one
by one. Checkers return sentences; an empty list is a promise kept.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.api import Api, ApiError, path
from cluster.world import allocated, claimed

KINDS = ("pods", "resourceclaims", "gangjobs")
WINDOW_SECONDS = 2  # of one watch request; stopping waits for the end of one
GANG_UID, ATTEMPT, RANK = (f"fairlead.dev/{name}" for name in ("gang-uid", "attempt", "rank"))
ENDED = ("Succeeded", "Failed")

Try = tuple[str, int]
"""(uid of the GangJob, attempt)."""


@dataclass(frozen=True)
class Event:
    """One write: `at_s` is monotonic and when we heard of it; `object` is None where it was deleted."""

    version: int
    at_s: float
    kind: str
    key: tuple[str, str]
    object: Mapping[str, Any] | None


@dataclass
class Member:
    """One pod of a try, as of some resourceVersion."""

    node: str = ""
    ended: bool = False
    succeeded: bool = False

    @property
    def live(self) -> bool:
        """Whether it is bound and neither over nor told to go."""
        return bool(self.node) and not self.ended


@dataclass
class Gang:
    """One try of a gang, as of some resourceVersion. `size` and `gpus` are what its pods' environment says."""

    name: str
    size: int
    members: dict[int, Member] = field(default_factory=dict)
    gpus: dict[int, int] = field(default_factory=dict)

    @property
    def partly(self) -> bool:
        """Whether some members are bound while others are not, or have ended badly."""
        live = sum(member.live for member in self.members.values())
        well = sum(member.ended and member.succeeded for member in self.members.values())
        return live > 0 and live + well < self.size


@dataclass
class State:
    """What the server held at one resourceVersion."""

    claims: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    gangs: dict[Try, Gang] = field(default_factory=dict)
    claim_of: dict[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)
    pod_of: dict[tuple[str, str], tuple[Try, int]] = field(default_factory=dict)

    def apply(self, event: Event) -> Try | None:
        """Take in one write; return the try whose pod it was about, if any."""
        if event.kind == "gangjobs":
            if event.object is not None:
                self.jobs[event.object["metadata"]["uid"]] = event.object
        elif event.kind == "resourceclaims":
            if event.object is None:
                self.claims.pop(event.key, None)
            else:
                self.claims[event.key] = event.object
                labels = event.object["metadata"].get("labels") or {}
                if RANK in labels:
                    self.claim_of[labels[GANG_UID], int(labels[ATTEMPT]), int(labels[RANK])] = event.key
        else:
            return self._pod(event)
        return None

    def _pod(self, event: Event) -> Try | None:
        if event.object is None:
            if event.key not in self.pod_of:
                return None
            key, rank = self.pod_of[event.key]
            self.gangs[key].members[rank].ended = True
            return key
        meta = event.object["metadata"]
        labels = meta.get("labels") or {}
        if RANK not in labels:
            return None
        key, rank = (labels[GANG_UID], int(labels[ATTEMPT])), int(labels[RANK])
        env = {e["name"]: e.get("value", "") for e in event.object["spec"]["containers"][0].get("env", [])}
        name = f"{meta['namespace']}/{labels['fairlead.dev/gang']}#{labels[ATTEMPT]}"
        gang = self.gangs.setdefault(key, Gang(name, int(env["FAIRLEAD_SIZE"])))
        gang.gpus[rank] = int(env["FAIRLEAD_GPUS"])
        member = gang.members.setdefault(rank, Member())
        self.pod_of[event.key] = (key, rank)
        member.node = event.object["spec"].get("nodeName", "")
        phase = event.object.get("status", {}).get("phase")
        member.ended = phase in ENDED or bool(meta.get("deletionTimestamp"))
        member.succeeded = member.succeeded or phase == "Succeeded"
        return key


class History:
    """Records from entering to leaving it; `events` may be read at any time and is whole after leaving."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._problems: list[str] = []

    def __enter__(self) -> History:
        for kind in KINDS:
            whole = self._api.list_whole(path(kind))
            version = whole["metadata"]["resourceVersion"]
            for found in whole["items"]:
                self._keep(kind, {"type": "ADDED", "object": found})
            thread = threading.Thread(target=self._follow, args=(kind, version), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WINDOW_SECONDS + 60)
            assert not thread.is_alive(), "a recorder does not end"
        assert not self._problems, self._problems

    @property
    def events(self) -> list[Event]:
        """All writes so far by resourceVersion."""
        with self._lock:
            return sorted(self._events, key=lambda event: event.version)

    def _follow(self, kind: str, version: str) -> None:
        """Watch in windows; one that begins before the stop shows all that happened before it."""
        last = False
        while not last:
            last = self._stop.is_set()
            try:
                for event in self._api.watch(path(kind), version, seconds=WINDOW_SECONDS, bookmarks=True):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._keep(kind, event)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.1)  # an API server that is away; nothing is lost, the version is known
            except ApiError as error:
                if error.status == 410:
                    self._problems.append(f"{kind}: versions are missing after {version}: {error}")
                    return
                time.sleep(0.1)

    def _keep(self, kind: str, event: Mapping[str, Any]) -> None:
        found = event["object"]
        meta = found["metadata"]
        gone = event["type"] == "DELETED"
        kept = Event(
            int(meta["resourceVersion"]),
            time.monotonic(),
            kind,
            (meta.get("namespace", ""), meta["name"]),
            None if gone else found,
        )
        with self._lock:
            self._events.append(kept)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def devices_in_two_claims(self) -> list[str]:
        """P2: at no resourceVersion is a device in two claims, whoever wrote them."""
        return devices_in_two_claims(self.events)

    def bound_too_early(self) -> list[str]:
        """P1: no member is bound while a sibling's claim is unallocated, or before the allocation was published."""
        return bound_too_early(self.events)

    def partly_bound(self, most_s: float, away: Iterable[tuple[float, float]] = ()) -> list[str]:
        """P1: no gang is partly bound for longer than `most_s`; spans of monotonic time in `away` do not count."""
        return partly_bound(self.events, most_s, away, time.monotonic())


def states(events: Iterable[Event]) -> Iterator[tuple[Event, State, Try | None]]:
    """Go through the versions: (the write, the state after it, the try whose pod it was about)."""
    state = State()
    for event in events:
        yield event, state, state.apply(event)


def devices_in_two_claims(events: Iterable[Event]) -> list[str]:
    """See `History.devices_in_two_claims`."""
    found: list[str] = []
    holder: dict[tuple[str, str], tuple[str, str]] = {}
    held: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for event in events:
        if event.kind != "resourceclaims":
            continue
        devices = set() if event.object is None else set(claimed(event.object))
        for device in held.get(event.key, set()) - devices:
            if holder.get(device) == event.key:
                del holder[device]
        for device in sorted(devices):
            other = holder.setdefault(device, event.key)
            if other != event.key:
                found.append(f"at {event.version} {'/'.join(device)} is in {other[1]} and in {event.key[1]}")
        held[event.key] = devices
    return found


def bound_too_early(events: Iterable[Event]) -> list[str]:
    """See `History.bound_too_early`."""
    found: list[str] = []
    for event, state, about in states(events):
        tries = [about] if about is not None else _tries_of(event)
        for key in tries:
            gang = state.gangs.get(key)
            if gang is not None and any(member.live for member in gang.members.values()):
                found += [f"at {event.version} {gang.name} {text}" for text in _missing(state, key, gang)]
    return found


def _tries_of(event: Event) -> list[Try]:
    labels = ((event.object or {}).get("metadata") or {}).get("labels") or {}
    return [(labels[GANG_UID], int(labels[ATTEMPT]))] if event.kind == "resourceclaims" and RANK in labels else []


def _missing(state: State, key: Try, gang: Gang) -> list[str]:
    """Name what a try with a bound member still lacks. A member that has ended may have given its devices back."""
    job = state.jobs.get(key[0])
    said = (job or {}).get("status", {}).get("allocation") or {}
    if said.get("attempt") != key[1] and job is not None and not job["metadata"].get("deletionTimestamp"):
        return ["has a bound member, and status.allocation does not say where"]
    published = list(allocated(job).values()) if said and job is not None else []
    missing: list[str] = []
    for rank in range(gang.size):
        member = gang.members.get(rank)
        if member is None:
            missing.append(f"has a bound member, and rank {rank} has no pod")
        elif not member.ended and gang.gpus[rank]:
            where = state.claim_of.get((*key, rank))
            devices = claimed(state.claims.get(where, {})) if where else ()
            if not devices:
                missing.append(f"has a bound member, and the claim of rank {rank} is not allocated")
            elif published and {d for _, d in devices} != set(published[rank][1]):
                missing.append(f"rank {rank} holds {devices}, and status.allocation says {published[rank]}")
    return missing


def partly_bound(
    events: Iterable[Event], most_s: float, away: Iterable[tuple[float, float]], end_s: float
) -> list[str]:
    """See `History.partly_bound`."""
    spans = list(away)

    def lasted(since: float, until: float) -> float:
        return until - since - sum(max(0.0, min(until, b) - max(since, a)) for a, b in spans)

    found: list[str] = []
    since: dict[Try, float] = {}
    state = State()
    for event, state, about in states(events):
        if about is None:
            continue
        gang = state.gangs[about]
        if gang.partly:
            since.setdefault(about, event.at_s)
        elif about in since and (took := lasted(since.pop(about), event.at_s)) > most_s:
            found.append(f"{gang.name} was partly bound for {took:.1f} s until {event.version}")
    for key, began in since.items():
        if (took := lasted(began, end_s)) > most_s:
            found.append(f"{state.gangs[key].name} has been partly bound for {took:.1f} s")
    return found
