"""What programs say of themselves by annotations, and by their last words: checkpoints and heartbeats, as facts.

A marker is JSON on the pod of rank 0, on the GangJob, or the termination message of rank 0's container. It counts with
``state`` committed and a whole manifest; while it says anything else the last one stands. Whether it can be true is the
scheduler's to judge. What changes too often is told at a pace of ours, the newest last: nobody floods the journal.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.model.events import CheckpointCommitted, Event, LifeSign
from fairlead.model.gang import GangId
from fairlead.service.ports import Hold
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.objects import Pod, time_ms
from fairlead_operator.saving_words import HEARTBEAT, MARKER

MARKER_MAX = 4_096
WORD_MAX = 128
GAP_S = 1.0
"""Between two facts about one gang's checkpoints."""
BEATS_PER_TIMEOUT = 10
"""A heartbeat is told at most so often within its timeout."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
STATES = ("writing", "local", "committed")
"""What a checkpoint is: being written; whole, but only on a node's own disk; where a later attempt can read it."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a checkpoint whole: so many shards of so many bytes together, listed in a file of that digest."""

    shards: int = 0
    bytes: int = 0
    digest: str = ""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A marker as it is written. `began` is UTC ms or RFC 3339; `answers` the number in the notice's file."""

    state: str
    step: str | int = ""
    began: int | str = 0
    attempt: int | None = None
    answers: int | str = 0
    path: str = ""
    format: str = ""
    code: str = ""
    manifest: Manifest = Manifest()


def read_marker(text: str) -> Marker | str:
    """Return the marker, or what is wrong with it."""
    if len(text) > MARKER_MAX:
        return f"the marker is longer than {MARKER_MAX} characters"
    try:
        marker = msgspec.json.decode(text, type=Marker)
    except msgspec.DecodeError as error:
        return f"the marker cannot be read: {error}"[:500]
    if marker.state not in STATES:
        return f"state {marker.state[:40]!r} is not one of: {', '.join(STATES)}"
    if marker.state != "committed":
        return marker
    manifest = marker.manifest
    if not 0 < len(str(marker.step)) <= 64:
        return "step is missing or longer than 64 characters"
    if manifest.shards < 1 or manifest.bytes < 1 or not _DIGEST.fullmatch(manifest.digest):
        return "the manifest is not whole: it needs shards, bytes and digest, sha256: and 64 hex digits"
    for name, text in (("format", marker.format), ("code", marker.code)):
        if len(text) > WORD_MAX:
            return f"{name} is longer than {WORD_MAX} characters"
    if len(marker.path) > 1_024:
        return "path is longer than 1024 characters"
    if _ms(marker.began) <= 0:
        return "began is missing; write UTC milliseconds or for example 2026-01-31T12:00:00Z"
    return marker


@dataclass(slots=True)
class _Told:
    """What one gang said last, and what was told of it when."""

    text: str = ""
    beat: str = ""
    marker_ms: int = 0
    beat_ms: int = 0
    seen_ms: int = 0
    timer: asyncio.TimerHandle | None = None
    beat_timer: asyncio.TimerHandle | None = None


class MarkerFacts:
    """Turns what programs say into facts through `put`. `timeout_ms` is a gang's heartbeat timeout, None for none."""

    def __init__(
        self,
        put: Callable[[Event], None],
        now_ms: Callable[[], int],
        timeout_ms: Callable[[GangId], int | None],
    ) -> None:
        """Start with nothing heard."""
        self._put = put
        self._now_ms = now_ms
        self._timeout_ms = timeout_ms
        self._told: dict[tuple[GangId, int], _Told] = {}

    def pod(self, member: Hold, pod: Pod, *, gone: bool) -> None:
        """Our pod is like this now, or gone."""
        gang, attempt, rank = member
        notes = pod.metadata.annotations
        if HEARTBEAT in notes and not gone:
            self._beat(gang, attempt, notes[HEARTBEAT])
        if rank:
            return
        if MARKER in notes:
            self._marker(gang, attempt, notes[MARKER])
        if (words := last_words(pod)) is not None:
            self._marker(gang, attempt, words)
        if gone:
            self._forget(gang, attempt)

    def job(self, job: GangJob) -> None:
        """A GangJob is like this now; its markers are about the attempt that its status names."""
        notes, attempt = job.metadata.annotations, job.status.attempt
        gang = GangId(job.metadata.uid)
        if HEARTBEAT in notes and attempt:
            self._beat(gang, attempt, notes[HEARTBEAT])
        if MARKER in notes and attempt:
            marker = read_marker(notes[MARKER])
            if isinstance(marker, Marker) and marker.attempt not in (None, attempt):
                return  # what an earlier attempt left there
            self._marker(gang, attempt, notes[MARKER])

    def close(self) -> None:
        """Let go of what was to be told later."""
        for told in self._told.values():
            for timer in (told.timer, told.beat_timer):
                if timer is not None:
                    timer.cancel()

    # --- markers ----------------------------------------------------------------------------------------------------

    def _marker(self, gang: GangId, attempt: int, text: str) -> None:
        told = self._told.setdefault((gang, attempt), _Told())
        if told.text == text:
            return
        told.text = text
        wait_s = told.marker_ms / 1000 + GAP_S - self._now_ms() / 1000
        if told.timer is not None:
            return  # the newest is told when it fires
        if wait_s > 0:
            told.timer = asyncio.get_running_loop().call_later(min(wait_s, GAP_S), self._tell_marker, gang, attempt)
        else:
            self._tell_marker(gang, attempt)

    def _tell_marker(self, gang: GangId, attempt: int) -> None:
        told, now_ms = self._told.get((gang, attempt)), self._now_ms()
        if told is None:
            return
        told.timer, told.marker_ms = None, now_ms
        marker = read_marker(told.text)
        if isinstance(marker, Marker) and marker.attempt not in (None, attempt):
            marker = f"the marker is of attempt {marker.attempt}, and this is attempt {attempt}"
        if isinstance(marker, str):
            self._put(LifeSign(gang=gang, attempt=attempt, at_ms=now_ms, problem=marker))
        elif marker.state == "committed":
            self._put(
                CheckpointCommitted(
                    gang=gang,
                    attempt=attempt,
                    at_ms=now_ms,
                    began_ms=_ms(marker.began),
                    step=str(marker.step),
                    notice_ms=_ms(marker.answers),
                    path=marker.path,
                    digest=marker.manifest.digest,
                    format=marker.format,
                    code=marker.code,
                )
            )

    # --- heartbeats -------------------------------------------------------------------------------------------------

    def _beat(self, gang: GangId, attempt: int, text: str) -> None:
        timeout_ms = self._timeout_ms(gang)
        told = self._told.setdefault((gang, attempt), _Told())
        if timeout_ms is None or told.beat == text:
            return
        told.beat, told.seen_ms = text, self._now_ms()
        gap_ms = timeout_ms // BEATS_PER_TIMEOUT
        wait_ms = told.beat_ms + gap_ms - told.seen_ms
        if told.beat_timer is not None:
            return
        if wait_ms > 0:
            later_s = min(wait_ms, gap_ms) / 1000
            told.beat_timer = asyncio.get_running_loop().call_later(later_s, self._tell_beat, gang, attempt)
        else:
            self._tell_beat(gang, attempt)

    def _tell_beat(self, gang: GangId, attempt: int) -> None:
        """Tell when the heartbeat moved last."""
        told = self._told.get((gang, attempt))
        if told is not None:
            told.beat_timer, told.beat_ms = None, self._now_ms()
            self._put(LifeSign(gang=gang, attempt=attempt, at_ms=told.seen_ms))

    def _forget(self, gang: GangId, attempt: int) -> None:
        told = self._told.pop((gang, attempt), None)
        for timer in () if told is None else (told.timer, told.beat_timer):
            if timer is not None:
                timer.cancel()


def last_words(pod: Pod) -> str | None:
    """Return the marker in what a pod's container wrote before it ended, None where there is none."""
    for status in pod.status.container_statuses:
        ended = status.state.terminated
        if ended is not None and ended.message:
            line = ended.message.strip().rpartition("\n")[2]
            if line.startswith("{") and '"state"' in line:
                return line
    return None


def _ms(value: Any) -> int:
    """Read UTC ms, or a time as the API server writes it; 0 where it is neither."""
    if isinstance(value, int):
        return value if 0 < value < 1 << 53 else 0
    text = str(value)
    if text.isdecimal() and len(text) < 16:
        return int(text)
    try:
        return time_ms(text)
    except UnreadableInput:
        return 0
