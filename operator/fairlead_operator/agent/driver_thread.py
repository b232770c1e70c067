"""One thread that alone asks the driver. Nobody waits for it longer than a deadline, whatever the driver does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fairlead.errors import FairleadError

Answer = TypeVar("Answer")


class Hung(FairleadError):
    """The driver did not answer in time; what was asked may still be under way."""


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    done: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    failure: BaseException | None = None


class DriverThread:
    """Carries out one piece of work after the other. While one hangs, others are refused at once, not queued."""

    def __init__(self) -> None:
        """Start the thread; it ends with the process, even where a call never returns."""
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._busy = threading.Lock()
        threading.Thread(target=self._run, name="driver", daemon=True).start()

    def call(self, work: Callable[[], Answer], deadline_s: float) -> Answer:
        """Return what `work` returns, or raise what it raises.

        Raises
        ------
        Hung
            Not done within `deadline_s`, or an earlier piece of work still is not.
        """
        if not self._busy.acquire(blocking=False):
            raise Hung("the driver still has not answered an earlier question")
        job = _Job(work)
        self._jobs.put(job)
        if not job.done.wait(deadline_s):
            raise Hung(f"the driver has not answered within {deadline_s:g} s")
        if job.failure is not None:
            raise job.failure
        answer: Answer = job.answer
        return answer

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job.answer = job.work()
            except BaseException as failure:
                job.failure = failure
            self._busy.release()
            job.done.set()
