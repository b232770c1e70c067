"""A PostgreSQL server of the tests' own on a free loopback port: one cluster, a schema for each test that asks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest


class PostgresServer:
    """It refuses to run as root, so then it runs as `nobody`. For tests fsync is off: they do not try the disk."""

    def __init__(self, *, fsync: bool = False) -> None:
        self.fsync = "on" if fsync else "off"
        # Debian keeps the server's programs off PATH, a folder a version.
        debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
        places = os.pathsep.join([os.environ.get("PATH", ""), *debian])
        initdb, self.program = shutil.which("initdb", path=places), shutil.which("postgres", path=places)
        if not initdb or not self.program:
            if os.environ.get("CI") == "true":
                pytest.fail("PostgreSQL's server is needed with CI=true; make test installs it")
            pytest.skip("there is no PostgreSQL server to start (initdb, postgres)")
        self.user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="fairlead-pg-", dir="/tmp"))  # a socket's path must be short
        shutil.chown(self.folder, self.user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        subprocess.run(
            [initdb, "-D", str(self.folder / "data"), "-U", "fairlead", "-A", "trust", "--no-sync", "-E", "UTF8",
             "--locale=C"],
            check=True, user=self.user, capture_output=True, timeout=120,
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.schemas = 0
        self.start()

    @property
    def address(self) -> str:
        return f"postgresql://fairlead@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self.program, "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"fsync={self.fsync}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, user=self.user, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.address, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT does not wait for connections, SIGQUIT is a crash."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)

    def schema(self) -> str:
        """Return the URL of a schema that is new."""
        self.schemas += 1
        name = f"test_{self.schemas}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.address}?options={quote(f'-c search_path={name}')}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
