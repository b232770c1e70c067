"""The kernel log as it is written: what the driver says there and NVML does not. A thread that never blocks.

Only lines of the kernel itself count: root may write lines of its own into the log, which the kernel marks as such.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fairlead.discovery.xids import XidEvent, from_kernel

log = logging.getLogger(__name__)
_LINES_MOST = 1_024
_AT_ONCE = 512  # records after which the thread rests, so that a flood costs little; what is overwritten is said
_REST_S = 0.05
_WAIT_MS = 500
_READ_BYTES = 8_192  # the kernel hands out one whole record a read, and refuses smaller ones
_GONE = frozenset({errno.EPIPE, errno.EINVAL})  # the next record was overwritten, or does not fit; the one after it may


class KernelLog:
    """Hears XIDs in the log at `path` from `start` on; keeps the last 1,024. `wake` is called at each."""

    def __init__(self, path: Path, now_ms: Callable[[], int]) -> None:
        """Prepare; `start` opens the log."""
        self.wake: Callable[[], None] = lambda: None
        self.heard: deque[tuple[str, XidEvent]] = deque(maxlen=_LINES_MOST)
        self._path = path
        self._now_ms = now_ms
        self._stop = threading.Event()
        self._rest = b""

    def start(self) -> bool:
        """Begin at the log's end; False, said once, where it cannot be read. All else goes on without it."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            log.warning(
                "event=no_kernel_log path=%s error=%r detail=%r",
                self._path,
                error.strerror,
                "the severity of NVLink 5 errors stays unknown; mount the log, or say --kmsg=''",
            )
            return False
        try:
            os.lseek(fd, 0, os.SEEK_END)
        except OSError as error:
            log.debug("event=kernel_log_not_skipped error=%r", error.strerror)
        threading.Thread(target=self._run, args=(fd,), name="kernel-log", daemon=True).start()
        return True

    def stop(self) -> None:
        """End the thread within half a second."""
        self._stop.set()

    def take(self) -> list[tuple[str, XidEvent]]:
        """Return (PCI address as written, event) of what was heard since the last time."""
        found: list[tuple[str, XidEvent]] = []
        while self.heard:
            found.append(self.heard.popleft())
        return found

    def _run(self, fd: int) -> None:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        try:
            while not self._stop.is_set():
                if not waiting.poll(_WAIT_MS):
                    continue
                for _ in range(_AT_ONCE):
                    if not self._read(fd):
                        break
                self._stop.wait(_REST_S)
        except OSError as error:
            log.warning("event=kernel_log_ended path=%s error=%r", self._path, error.strerror)
        finally:
            os.close(fd)

    def _read(self, fd: int) -> bool:
        """Take in what one read gives; False where there is nothing more now."""
        try:
            found = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _GONE:
                raise
            log.info("event=kernel_log_lost_lines error=%r", error.strerror)
            return True
        *lines, rest = (self._rest + found).split(b"\n")
        self._rest = rest[-_READ_BYTES:]
        for line in lines:
            self._line(line.decode(errors="replace"))
        return bool(found)

    def _line(self, line: str) -> None:
        """Take in ``priority,sequence,time,flags;text``; other lines belong to a record's dictionary."""
        head, mark, text = line.partition(";")
        priority = head.partition(",")[0]
        if not mark or not priority.isdecimal() or int(priority) >> 3:
            return
        found = from_kernel(text, self._now_ms())
        if found is not None:
            self.heard.append(found)
            self.wake()
