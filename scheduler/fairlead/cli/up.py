"""`fairlead up`: the embedded shell in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.clock import now_ms
from fairlead.errors import MissingExtra, UnreadableInput

if TYPE_CHECKING:
    import socket

    from fairlead.simulation.embedded import Embedded


def up(
    fleet: Annotated[str, typer.Option("--fleet", help="A built-in fleet; `fairlead fleets` lists them.")] = "mixed",
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, max=100_000, help="Nodes of the fleet.")] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    database: Annotated[Path, typer.Option("--database", help="SQLite file of the books.")] = Path("fairlead.sqlite"),
    speed: Annotated[int, typer.Option("--speed", min=1, max=10_000, help="Virtual seconds a second.")] = 1,
    setup: Annotated[
        Path | None, typer.Option("--setup", help="YAML to start with; default the queues of the demo.")
    ] = None,
) -> None:
    """Serve a fleet in memory until it is interrupted."""
    from fairlead.service.cost_watch import spending
    from fairlead.simulation.embedded import HOST, Embedded, listen
    from fairlead.simulation.fleet_books import open_books

    text = _queues_of_the_demo() if setup is None else _read(setup)
    with listen(port) as listener, open_books(f"sqlite:///{database}", now_ms()) as opened:
        shell = Embedded(
            fleet,
            books=opened.books,
            start_ms=opened.start_ms,
            speed=speed,
            nodes=nodes,
            spending=spending(opened.books),
        )
        shell.submit(text, "default")
        gpus = sum(len(node.machine.gpus) for node in shell.fleet.nodes.values())
        print(
            f"fairlead: {len(shell.fleet.nodes)} nodes with {gpus} GPUs on http://{HOST}:{listener.getsockname()[1]}, "
            f"books in {database}; end with Ctrl-C",
            file=sys.stderr,
            flush=True,
        )
        asyncio.run(_serve(shell, listener))


async def _serve(shell: Embedded, listener: socket.socket) -> None:
    """Serve the HTTP API on `listener` until SIGINT or SIGTERM, then end in order. Raises MissingExtra."""
    try:
        import uvicorn
    except ImportError as missing:
        raise MissingExtra("`fairlead up` needs uvicorn: pip install 'fairlead[api]'") from missing
    from fairlead.service.http_api import build_app
    from fairlead.service.memory import calm_collector
    from fairlead.service.metrics import Metrics

    calm_collector()

    class Quiet(uvicorn.Server):
        """Leaves the signals to us: the loop has to end before the process does."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    app: Any = build_app(
        shell.engine,
        now_ms=shell.cluster.now_ms,
        metrics=Metrics(),
        ready=lambda: shell.ready,
        submissions=shell,
    )
    server = Quiet(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    working = asyncio.create_task(shell.run(stop))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    server.should_exit = True
    await asyncio.gather(serving, working, waiting)


def _queues_of_the_demo() -> str:
    """Return the documents of the demo that are not jobs."""
    import yaml

    from fairlead.simulation.story import jobs_yaml

    documents = [doc for doc in yaml.safe_load_all(jobs_yaml()) if doc["kind"] != "GangJob"]
    return yaml.safe_dump_all(documents)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"cannot read {path}: {problem}") from problem
