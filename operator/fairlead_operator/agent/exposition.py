"""The agent's metrics as Prometheus reads them, and the small server for them. `docs/reference/agent.md` lists them.

Series per GPU are at most `GPUS_SHOWN`; no label names a pod or a tenant. Written by hand, because an agent on every
node should carry no more than it needs.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fairlead.discovery.findings import Verdict
from fairlead.discovery.health import GpuHealth
from fairlead.discovery.xids import GROUPS
from fairlead.errors import UnreadableInput
from fairlead_operator.agent.manifest import counts
from fairlead_operator.agent.ward import Ward

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GPUS_SHOWN = 64

SERIES: dict[str, tuple[str, str]] = {
    "fairlead_agent_gpus": ("gauge", "GPUs of the node by verdict."),
    "fairlead_agent_gpu_verdict": ("gauge", "Verdict of one GPU: 0 healthy, 1 suspect, 2 bad."),
    "fairlead_agent_gpu_temperature_celsius": ("gauge", "Temperature of one GPU."),
    "fairlead_agent_gpu_power_watts": ("gauge", "Power one GPU takes."),
    "fairlead_agent_gpu_ecc_uncorrected": ("gauge", "Uncorrected memory errors since the GPU's reset."),
    "fairlead_agent_gpu_ecc_corrected": ("gauge", "Corrected memory errors since the GPU's reset."),
    "fairlead_agent_gpu_nvlinks_up": ("gauge", "NVLinks of one GPU that are up."),
    "fairlead_agent_gpu_nvlink_errors": ("gauge", "Errors of all NVLinks of one GPU, as the driver counts."),
    "fairlead_agent_gpu_pcie_replays": ("gauge", "PCIe replays of one GPU, as the driver counts."),
    "fairlead_agent_xids_total": ("counter", "Error numbers the driver told, by group; unknown ones want a person."),
    "fairlead_agent_looks_total": ("counter", "Looks at the node by outcome: ok, failed, hung."),
    "fairlead_agent_look_seconds": ("gauge", "Time the last look took."),
    "fairlead_agent_writes_total": ("counter", "Writes to the API server that succeeded."),
    "fairlead_agent_write_errors_total": ("counter", "Rounds in which the API server could not be told."),
    "fairlead_agent_behind_seconds": (
        "gauge",
        "Since when the API server does not have the newest state; 0 if it has.",
    ),
    "fairlead_agent_warnings": ("gauge", "Things that could not be known at the last look."),
    "fairlead_agent_mismatch": ("gauge", "1 while NodeTopology and ResourceSlices disagree."),
}
"""Name -> (type, help) of every series."""

_OF_SAMPLE = (
    ("fairlead_agent_gpu_temperature_celsius", "temperature_c", 1),
    ("fairlead_agent_gpu_power_watts", "power_mw", 1_000),
    ("fairlead_agent_gpu_ecc_uncorrected", "ecc_uncorrected", 1),
    ("fairlead_agent_gpu_ecc_corrected", "ecc_corrected", 1),
    ("fairlead_agent_gpu_nvlinks_up", "nvlinks_up", 1),
    ("fairlead_agent_gpu_nvlink_errors", "nvlink_errors", 1),
    ("fairlead_agent_gpu_pcie_replays", "pcie_replays", 1),
)


class Tally:
    """What the agent counts itself."""

    def __init__(self) -> None:
        """Start at 0."""
        self.looks: Counter[str] = Counter({"ok": 0, "failed": 0, "hung": 0})
        self.xids: Counter[str] = Counter(dict.fromkeys(GROUPS, 0))
        self.look_ms = 0
        self.writes = 0
        self.write_errors = 0
        self.behind_ms = 0
        self.mismatch = False


def exposition(ward: Ward, tally: Tally) -> str:
    """Return every series as text; what is not known of a GPU has no line."""
    lines: dict[str, list[tuple[str, float]]] = {name: [] for name in SERIES}
    lines["fairlead_agent_gpus"] = [(f'{{verdict="{name}"}}', n) for name, n in counts(ward).items()]
    for uuid, gpu in list(ward.gpus.items())[:GPUS_SHOWN]:
        health = ward.health.get(uuid, GpuHealth())
        label = f'{{gpu="{gpu.id}",uuid="{_escaped(uuid)}"}}'
        lines["fairlead_agent_gpu_verdict"].append((label, list(Verdict).index(health.verdict)))
        for name, field, part in _OF_SAMPLE:
            value = getattr(health.last, field, None)
            if value is not None and not health.away:
                lines[name].append((label, value / part))
    lines["fairlead_agent_xids_total"] = _labelled("group", tally.xids.items())
    lines["fairlead_agent_looks_total"] = _labelled("outcome", tally.looks.items())
    for name, single in (
        ("fairlead_agent_look_seconds", tally.look_ms / 1000),
        ("fairlead_agent_writes_total", tally.writes),
        ("fairlead_agent_write_errors_total", tally.write_errors),
        ("fairlead_agent_behind_seconds", tally.behind_ms / 1000),
        ("fairlead_agent_warnings", len(ward.warnings)),
        ("fairlead_agent_mismatch", int(tally.mismatch)),
    ):
        lines[name] = [("", single)]
    text: list[str] = []
    for name, (kind, words) in SERIES.items():
        text += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        text += [
            f"{name}{label} {value:g}" if value < 1e6 else f"{name}{label} {value:.0f}" for label, value in lines[name]
        ]
    return "\n".join(text) + "\n"


def _labelled(label: str, items: Iterable[tuple[str, int]]) -> list[tuple[str, float]]:
    return [(f'{{{label}="{value}"}}', number) for value, number in items]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


class _ServerV6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class MetricsServer:
    """Serves /metrics and /healthz on ``host:port``; use it as a context manager. Port 0 takes any free one."""

    def __init__(self, listen: str, text: Callable[[], str], alive: Callable[[], bool]) -> None:
        """Prepare; nothing listens yet."""
        host, _, port = listen.rpartition(":")
        if not port.isdecimal() or int(port) > 65_535:
            raise UnreadableInput(f"--listen: {listen!r} is not host:port; write for example 127.0.0.1:9478")
        self.port = int(port)
        self._host = host.strip("[]") or "127.0.0.1"
        self._text = text
        self._alive = alive
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> MetricsServer:
        """Open the port."""
        text, alive = self._text, self._alive

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # a client that says nothing is not waited for

            def do_GET(self) -> None:
                if self.path.split("?")[0] == "/metrics":
                    self._send(200, text(), CONTENT_TYPE)
                elif self.path == "/healthz":
                    self._send(200 if alive() else 503, "ok\n" if alive() else "the loop does not turn\n", "text/plain")
                else:
                    self._send(404, "only /metrics and /healthz\n", "text/plain")

            def _send(self, status: int, body: str, kind: str) -> None:
                raw = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: scrapes are no news."""

        try:
            self._server = (_ServerV6 if ":" in self._host else ThreadingHTTPServer)((self._host, self.port), Handler)
        except OSError as error:
            raise UnreadableInput(f"--listen: {self._host}:{self.port} cannot be taken ({error})") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
