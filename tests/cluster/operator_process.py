"""The operator as a process of its own, with the chart's rights and the token of a pod, as a Deployment would run it.

    with OperatorProcess(control_plane, tmp_path) as operator:
        operator.wait_ready()
        operator.kill()
        operator.start()

Only processes that were started here are ended, by their ids; `keeper` ends them too when the test run is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.api import path
from cluster.chart import NAMESPACE, OPERATOR, ROOT
from cluster.processes import Keeper, free_ports

READY_SECONDS_MAX = 40
END_SECONDS_MAX = 60


class OperatorProcess:
    """One operator. `folder` gets its books, its kubeconfig and its log; `name` is its pod's name.

    `settings` are FAIRLEAD_ variables without the prefix, in lower case. Books and log are kept over restarts, and so
    is the identity: a killed operator that is started again is the same pod with its container restarted. `profile`
    names a file for cProfile's figures of a run that ends in order.
    """

    def __init__(
        self, plane: Any, folder: Path, name: str = "operator-0", *, profile: str = "", **settings: object
    ) -> None:
        self.plane, self.folder, self.name = plane, folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self.books = folder / f"{name}.sqlite"
        self.log = folder / f"{name}.log"
        self.port = free_ports(1)[0]
        self._settings = settings
        self._profile = ["-m", "cProfile", "-o", profile] if profile else []
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: Keeper | None = None

    def __enter__(self) -> OperatorProcess:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            print(self.tail(120))  # pytest shows it beside the failure
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, f"{self.name} is not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is there and has not ended."""
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """Return what the process sees: nothing of ours but the path to programs."""
        token = self.plane.pod_bound_token(NAMESPACE, OPERATOR, self.name)
        config = self.plane.kubeconfig(self.folder / f"{self.name}.kubeconfig", token, NAMESPACE)
        given = {f"FAIRLEAD_{name.upper()}": str(value) for name, value in self._settings.items()}
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "POD_NAME": self.name,
            "POD_NAMESPACE": NAMESPACE,
            "FAIRLEAD_KUBECONFIG": str(config),
            "FAIRLEAD_DATABASE_URL": f"sqlite:///{self.books}",
            "FAIRLEAD_HTTP_LISTEN": f"127.0.0.1:{self.port}",
            **given,
        }

    def start(self) -> None:
        """Start the process; see `wait_ready`."""
        assert not self.running, f"{self.name} is started already"
        if self._keeper is None:
            scratch = self.folder / f"{self.name}.keeper"
            scratch.mkdir(exist_ok=True)
            self._keeper = Keeper(scratch)  # it removes the folder that it is given
        environment = self.environment()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._profile, "-m", "fairlead_operator", "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        self._keeper.watch(self._process.pid)

    def wait_ready(self, seconds: float = READY_SECONDS_MAX) -> None:
        """Wait until it leads and has rebuilt its state."""
        deadline = time.monotonic() + seconds
        while self._probe("/readyz") != 200:
            assert self.running, f"{self.name} ended\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready after {seconds} s\n{self.tail()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a power cut would: kill -9."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(END_SECONDS_MAX)

    def terminate(self, seconds: float = END_SECONDS_MAX) -> int:
        """Tell it to end in order, wait for that and return its exit status."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(seconds)

    def freeze(self) -> None:
        """Stop its time: SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on: SIGCONT."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.running, f"{self.name} is not running\n{self.tail()}"
        os.kill(self.pid, number)

    def stop(self) -> None:
        """End it however it is, in order where it can be. Twice is the same as once."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS_MAX)
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()

    def tail(self, lines: int = 60) -> str:
        """Return the last lines of its log under a heading."""
        kept = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"--- {self.name}: last lines of its log", *kept])

    def said(self, pattern: str) -> list[str]:
        """Return the log's lines that match."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if re.search(pattern, line)]

    def metrics(self) -> dict[str, float]:
        """Read /metrics: series with labels as printed -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def lease_holder(self) -> str:
        """Return who holds the leader's Lease now."""
        return self.plane.api.get(path("leases", NAMESPACE, OPERATOR))["spec"].get("holderIdentity") or ""

    def copy_books(self, target: Path) -> Path:
        """Copy the books as they are now, whole, also while the operator writes."""
        source, copy = sqlite3.connect(self.books), sqlite3.connect(target)
        try:
            source.backup(copy)
        finally:
            source.close()
            copy.close()
        return target

    def verify_books(self, books: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `fairlead ledger verify` on the books, or on a copy of them."""
        return subprocess.run(
            [sys.executable, "-m", "fairlead.cli.main", "ledger", "verify"],
            env={**_bare(), "FAIRLEAD_DATABASE_URL": f"sqlite:///{books or self.books}"},
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
        )

    def _probe(self, what: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{what}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0


def _bare() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "PYTHONSAFEPATH": "1"}
