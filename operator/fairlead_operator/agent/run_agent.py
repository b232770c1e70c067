"""The agent's loop: look, judge, publish, wait; woken early by the driver's events. A hung driver never stops it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.clock import monotonic_ms
from fairlead.discovery.nvml import Library
from fairlead.discovery.xids import meaning
from fairlead.errors import FairleadError
from fairlead_operator.agent.driver_thread import DriverThread, Hung
from fairlead_operator.agent.exposition import Tally, exposition
from fairlead_operator.agent.heard import Ears, Heard
from fairlead_operator.agent.kernel_log import KernelLog
from fairlead_operator.agent.observe import Listener, Observer
from fairlead_operator.agent.ward import Ward
from fairlead_operator.agent.working_pods import WorkingPods

log = logging.getLogger(__name__)
_GATHER_S = 0.2  # events come in bursts; one look answers them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds: between looks, for one look, for the first look, and how long a pause lasts."""

    interval_s: float = 10.0
    deadline_s: float = 5.0
    first_s: float = 30.0
    pause_s: float = 120.0


class Agent:
    """One node's agent. `publisher` tells the server, `kernel` hears the kernel log, `pods` knows who computes."""

    def __init__(
        self,
        library: Library,
        observer: Observer,
        ward: Ward,
        now_ms: Callable[[], int],
        *,
        times: Times | None = None,
        publisher: Any = None,
        kernel: KernelLog | None = None,
        pods: WorkingPods | None = None,
    ) -> None:
        """Wire the parts; nothing is asked yet."""
        self.ward = ward
        self.tally = Tally()
        self.times = times or Times()
        self._observer = observer
        self._now_ms = now_ms
        self._publisher = publisher
        self._thread = DriverThread()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener = Listener(library, self._woken)
        self._kernel = kernel
        self._ears = Ears(pods)
        if kernel is not None:
            kernel.wake = self._woken
        self._looked = False
        self._turned_ms = monotonic_ms()
        self._paused_until_ms = 0

    def alive(self) -> bool:
        """Whether the loop turns; a hung driver does not keep it from turning."""
        return monotonic_ms() - self._turned_ms < 6_000 * self.times.interval_s + 60_000

    def metrics(self) -> str:
        """Return the metrics as text."""
        return exposition(self.ward, self.tally)

    def pause(self) -> None:
        """Let go of the driver for a while, so that somebody can reset a GPU or change its MIG mode."""
        self._paused_until_ms = self._now_ms() + int(1000 * self.times.pause_s)
        log.info("event=paused seconds=%g", self.times.pause_s)
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look and publish until `stop`."""
        self._loop = asyncio.get_running_loop()
        if self._kernel is not None:
            self._kernel.start()
        while not stop.is_set():
            self._turned_ms = monotonic_ms()
            await self.round()
            await self._wait(stop)
        if self._kernel is not None:
            self._kernel.stop()
        with suppress(FairleadError):
            await asyncio.to_thread(self._thread.call, self._let_go, self.times.deadline_s)

    async def round(self) -> None:
        """Look once and tell the server, if there is one."""
        if self._now_ms() < self._paused_until_ms:
            with suppress(FairleadError):
                await asyncio.to_thread(self._thread.call, self._let_go, self.times.deadline_s)
        else:
            await asyncio.to_thread(self.look)
        if self._publisher is not None:
            now_ms = self._now_ms()
            await self._publisher.publish(self.ward, now_ms)
            behind = self._publisher.behind_since_ms
            self.tally.behind_ms = 0 if behind is None else now_ms - behind
            self.tally.writes, self.tally.write_errors = self._publisher.writes, self._publisher.failures
            self.tally.mismatch = self._publisher.mismatch

    def look(self) -> None:
        """Look at the node once, within the deadline, and judge."""
        began_ms, at_ms = monotonic_ms(), self._now_ms()
        deadline_s = self.times.deadline_s if self._looked else self.times.first_s
        try:
            seen = self._thread.call(lambda: self._observer.look(at_ms), deadline_s)
        except Hung as error:
            log.warning("event=driver_hung error=%r", str(error))
            self.ward.driver_hung(self._heard(at_ms), at_ms)
            self.tally.looks["hung"] += 1
            return
        finally:
            self.tally.look_ms = monotonic_ms() - began_ms
        self._looked = self._looked or not seen.failure
        self.tally.looks["failed" if seen.failure else "ok"] += 1
        if seen.failure:
            log.warning("event=look_failed error=%r", seen.failure)
        self.ward.update(seen, self._heard(at_ms), at_ms)
        with suppress(Hung):
            self._thread.call(self._let_go if self.ward.wants_reset else self._listen, self.times.deadline_s)

    def _heard(self, at_ms: int) -> list[Heard]:
        lines = self._kernel.take() if self._kernel is not None else []
        heard = self._ears.bring(self._listener.take(), lines, self.ward.gpus, at_ms)
        for event in heard:
            if not event.repeat:
                self.tally.xids[meaning(event.xid, event.text).group] += 1
            who = event.who or "unknown"
            log.warning("event=xid xid=%d uuid=%s pod=%s text=%r", event.xid, event.uuid, who, event.text)
        return heard

    def _listen(self) -> None:
        """Hear events; in the driver's thread."""
        with suppress(FairleadError):
            self._listener.start()

    def _let_go(self) -> None:
        """Close the session; in the driver's thread."""
        self._listener.stop()
        self._observer.release()

    def _woken(self) -> None:
        """An event came; called from the listener's thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _wait(self, stop: asyncio.Event) -> None:
        """Wait for the interval, an event, or the end."""
        waiters = [asyncio.create_task(self._wake.wait()), asyncio.create_task(stop.wait())]
        done, _ = await asyncio.wait(waiters, timeout=self.times.interval_s, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        if waiters[0] in done and not stop.is_set():
            await asyncio.sleep(_GATHER_S)
        self._wake.clear()


def boot_id_below(root: Path) -> str:
    """Return what tells one boot of the node from the next, "" where it cannot be read."""
    for base in (root, Path("/")):  # a container's own proc tells it too
        try:
            return (base / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:64]
        except (OSError, UnicodeDecodeError):
            continue
    return ""
