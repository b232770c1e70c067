"""Child processes of a test run: each in its own group, with a log file, ended by its own id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .keeper import start_ticks

END_SECONDS_MAX = 10


class StartFailed(Exception):
    """A server did not come up; the message holds the tails of the logs."""


class Keeper:
    """A companion process that ends what we started even when we are killed; see `keeper.py`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-S", str(Path(__file__).with_name("keeper.py")), str(folder)]
        # Its own session: an interrupt from the terminal must not reach it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def watch(self, pid: int) -> None:
        """Have this process ended when we are gone."""
        ticks = start_ticks(pid)
        assert self._process.stdin is not None
        if ticks is not None:
            self._process.stdin.write(f"{pid} {ticks}\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Let it clean up what is left, and wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_SECONDS_MAX)


class Server:
    """One program, restartable, whose output goes to `<folder>/<name>.log`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, keeper: Keeper, env: Mapping[str, str]) -> None:
        self.name, self._command, self._folder, self._keeper, self._env = name, list(command), folder, keeper, dict(env)
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process; also of its group."""
        assert self._process is not None, f"{self.name} is not started"
        return self._process.pid

    def start(self) -> None:
        """Start it in a group of its own; the log is appended to."""
        assert self._process is None, f"{self.name} is started already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._env,
                start_new_session=True,
            )
        self._keeper.watch(self._process.pid)

    def check(self) -> None:
        """Raise StartFailed where the process has ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise StartFailed(f"{self.name} ended with {status}\n{self.tail()}")

    def stop(self) -> None:
        """Kill the whole group and reap it. Nothing it holds is needed again, so it gets no time to say goodbye."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:  # not reaped yet, so the id is still ours
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_SECONDS_MAX)

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP and SIGCONT, to the process."""
        os.kill(self.pid, number)

    def tail(self, lines: int = 25) -> str:
        """Return the last lines of its log under a heading."""
        try:
            kept = self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            kept = []
        return "\n".join([f"--- {self.name}: last lines of its log", *kept])

    def memory_bytes(self) -> int:
        """Resident memory of the process now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def free_ports(count: int) -> list[int]:
    """Find that many free ports on 127.0.0.1. Another process may take one before we do: callers try again."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
