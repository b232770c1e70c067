"""`make bench-ledger`: `fairlead bench ledger` on a SQLite file and on a PostgreSQL server of its own, fsync on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from postgres_server import PostgresServer

COMMAND = [str(Path(sys.executable).with_name("fairlead")), "bench", "ledger", *sys.argv[1:]]


def main() -> None:
    """Run both, one after the other."""
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
        subprocess.run([*COMMAND, "--database", f"sqlite:///{folder}/books.sqlite"], check=True)
    server = PostgresServer(fsync=True)
    try:
        subprocess.run([*COMMAND, "--database", server.address], check=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
