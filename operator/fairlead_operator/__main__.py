"""`fairlead-operator`: run the operator, or take its finalizers and taints off everything before an uninstall."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from fairlead.config import Settings, load
from fairlead.errors import FairleadError
from fairlead.service.memory import calm_collector
from fairlead_operator.stderr_log import log_to_stderr

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)
log = logging.getLogger("fairlead_operator")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings; FAIRLEAD_* win over it.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Operate a cluster: place GangJobs on exact devices and keep the books."""
    if context.invoked_subcommand is None:
        run_command(None)


@app.command("run")
def run_command(config: ConfigFile = None) -> None:
    """Run until SIGTERM. Exit 0: ended in order; 1: the lease was lost; 3: a server or database failed."""
    settings = load(file=config)
    log_to_stderr(settings.log_level)
    raise typer.Exit(asyncio.run(_run(settings)))


@app.command("release-finalizers")
def release_finalizers(config: ConfigFile = None) -> None:
    """Stop whoever leads, then take the booked finalizer off all pods and claims, and our taint off all nodes.

    For an uninstall. No operator leads for ten minutes after this, unless its Lease is deleted.
    """
    settings = load(file=config)
    log_to_stderr(settings.log_level)
    raise typer.Exit(asyncio.run(_release(settings)))


async def _run(settings: Settings) -> int:
    """Open the books and operate until told to stop."""
    from fairlead.service.bookkeeper import Bookkeeper
    from fairlead_operator.kube_config import load_config
    from fairlead_operator.run_operator import operate

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    kube = load_config(settings.kubeconfig)
    outbox = Path(settings.outbox_path) if settings.outbox_path else None
    books = Bookkeeper(settings.database_url, cluster=settings.cluster_name, outbox=outbox)
    await asyncio.to_thread(books.open)
    try:
        return await operate(kube, books, settings, stop)
    finally:
        books.close()


async def _release(settings: Settings) -> int:
    """Let go of everything that is ours."""
    from fairlead_operator.kube_client import KubeClient
    from fairlead_operator.kube_config import load_config
    from fairlead_operator.release import depose, release_all

    async with KubeClient(load_config(settings.kubeconfig)) as client:
        if await depose(client, settings.namespace, settings.lease_name):
            await asyncio.sleep((settings.renew_period_ms + settings.policy_lag_ms) / 1000)
        count = await release_all(client)
    print(f"released {count.objects} pods and claims and {count.nodes} nodes", file=sys.stderr)
    return 0 if not count.failed else 3


def run() -> None:
    """Entry point: errors of the outside become one sentence and their exit code."""
    calm_collector()
    try:
        app()
    except FairleadError as error:
        print(f"fairlead-operator: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    run()
