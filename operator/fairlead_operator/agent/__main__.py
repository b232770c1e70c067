"""`fairlead-agent`: look at this node's GPUs, judge them, and publish its NodeTopology."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fairlead.clock import now_ms
from fairlead.discovery import nvml
from fairlead.discovery.findings import HealthRules, Sample
from fairlead.errors import FairleadError
from fairlead_operator.agent.kernel_log import KernelLog
from fairlead_operator.agent.manifest import spec_of
from fairlead_operator.agent.observe import Observer, tree_below
from fairlead_operator.agent.run_agent import Agent, Times, boot_id_below
from fairlead_operator.agent.ward import Ward
from fairlead_operator.agent.working_pods import WorkingPods
from fairlead_operator.stderr_log import log_to_stderr

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
log = logging.getLogger("fairlead_agent")

NodeName = Annotated[str, typer.Option("--node-name", envvar="NODE_NAME", help="The node's name; default: the host's.")]
Interval = Annotated[float, typer.Option("--interval", min=1, max=300, help="Seconds between two looks.")]
Deadline = Annotated[float, typer.Option("--deadline", min=0.5, max=120, help="Seconds one look may take.")]
Pause = Annotated[float, typer.Option("--pause", min=5, max=3600, help="Seconds off the driver after SIGUSR1.")]
Heartbeat = Annotated[float, typer.Option("--heartbeat", min=30, max=140, help="Seconds between signs of life.")]
Root = Annotated[Path, typer.Option("--root", help="Where the node's sys and proc are.")]
Kmsg = Annotated[str, typer.Option("--kmsg", help="The kernel log; empty: do not read it.")]
Listen = Annotated[str, typer.Option("--listen", envvar="FAIRLEAD_AGENT_LISTEN", help="host:port of /metrics.")]
Driver = Annotated[str, typer.Option("--driver", help="DRA driver whose ResourceSlices are compared.")]
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", help="Default: $KUBECONFIG, the pod's own account, ~/.kube/config.")
]
Once = Annotated[bool, typer.Option("--once", help="Look once, print, and end; needs no API server.")]
Json = Annotated[bool, typer.Option("--json", help="With --once: print the NodeTopology as JSON.")]


@app.command()
def agent(
    node_name: NodeName = "",
    interval: Interval = 10.0,
    deadline: Deadline = 5.0,
    pause: Pause = 120.0,
    heartbeat: Heartbeat = 120.0,
    root: Root = Path("/"),
    kmsg: Kmsg = "/dev/kmsg",
    listen: Listen = "127.0.0.1:9478",
    driver: Driver = "gpu.nvidia.com",
    kubeconfig: Kubeconfig = "",
    once: Once = False,
    as_json: Json = False,
) -> None:
    """Publish this node's topology and health. Exit 0: done; with --once also 1: a GPU is not healthy, 3: no driver."""
    log_to_stderr(os.environ.get("FAIRLEAD_LOG_LEVEL", "info"))
    name = node_name or socket.gethostname()
    times = Times(interval_s=interval, deadline_s=deadline, pause_s=pause)
    library = nvml.load()
    pods = WorkingPods(root)
    observer = Observer(library, tree_below(root), pods)
    ward = Ward(HealthRules(), boot_id=boot_id_below(root))
    if once:
        raise typer.Exit(_once(Agent(library, observer, ward, now_ms, times=times), name, root, as_json))
    kernel = KernelLog(Path(kmsg), now_ms) if kmsg else None
    made = partial(Agent, library, observer, ward, now_ms, times=times, kernel=kernel, pods=pods)
    asyncio.run(_run(made, ward, name, root, listen, driver, kubeconfig, int(1000 * heartbeat)))


def _once(made: Agent, name: str, root: Path, as_json: bool) -> int:
    """Look once and print; 1 where a GPU is not healthy, 3 where the driver could not be asked."""
    made.look()
    ward = made.ward
    if as_json:
        spec = {k: v for k, v in spec_of(ward, boot_id=boot_id_below(root)).items() if v is not None}
        print(
            json.dumps(
                {
                    "apiVersion": "fairlead.dev/v1alpha1",
                    "kind": "NodeTopology",
                    "metadata": {"name": name},
                    "spec": {"observedAtMs": now_ms(), **spec},
                    "samples": {gpu.id: _known(ward.health[gpu.uuid].last) for gpu in ward.current().gpus},
                    "warnings": list(ward.warnings),
                },
                indent=2,
            )
        )
    else:
        machine = ward.current()
        for gpu in machine.gpus:
            verdict = ward.health[gpu.uuid].verdict
            print(f"{gpu.id}\t{gpu.pci}\t{gpu.uuid}\t{gpu.model}\tNUMA {gpu.numa}\t{verdict}\t{gpu.health_reason}")
        for link in machine.links:
            print(f"{link.a}\t{link.b}\t{link.path}\t{link.bytes_per_s // 1_000_000_000} GB/s")
        for warning in ward.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    if not made.tally.looks["ok"]:
        return 3
    return int(any(not gpu.healthy for gpu in ward.current().gpus))


def _known(sample: Sample | None) -> dict[str, int | bool]:
    """Return what a look could read of one GPU."""
    return {} if sample is None else {k: v for k, v in dataclasses.asdict(sample).items() if v is not None}


async def _run(
    make: partial[Agent],
    ward: Ward,
    name: str,
    root: Path,
    listen: str,
    driver: str,
    kubeconfig: str,
    heartbeat_ms: int,
) -> None:
    """Work until SIGTERM."""
    from fairlead_operator.agent.exposition import MetricsServer
    from fairlead_operator.agent.publish import Publisher
    from fairlead_operator.kube_client import KubeClient
    from fairlead_operator.kube_config import load_config

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with KubeClient(load_config(kubeconfig), user_agent="fairlead-agent", in_flight=4) as client:
        publisher = Publisher(client, name, boot_id=boot_id_below(root), driver=driver, heartbeat_ms=heartbeat_ms)
        made = make(publisher=publisher)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, made.pause)
        with MetricsServer(listen, made.metrics, made.alive):
            log.info("event=started node=%s", name)
            await publisher.restore_into(ward, now_ms())
            await made.run(stop)


def run() -> None:
    """Entry point: errors of the outside become one sentence and their exit code."""
    try:
        app()
    except FairleadError as error:
        print(f"fairlead-agent: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    run()
