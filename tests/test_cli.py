"""The `fairlead` command against a real embedded server: what it prints, how it ends, how soon it is there."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fairlead.cli import render
from fairlead.cli.main import COMMANDS
from fairlead.reports.usage import from_database
from fairlead.simulation.fleet_books import open_books
from fairlead.simulation.story import jobs_yaml
from fairlead.store import engine as database

BIN = Path(sys.executable).parent
JOB = """
apiVersion: fairlead.dev/v1alpha1
kind: GangJob
metadata: {{name: {name}, namespace: research}}
spec:
  queue: {queue}
  topology: {{within: {within}}}
  roles: [{{name: worker, replicas: {replicas}, devices: {{count: 8}}, template: {{}}}}]
"""


def job(name: str, *, queue: str = "research", within: str = "rack", replicas: int = 2) -> str:
    return JOB.format(name=name, queue=queue, within=within, replicas=replicas)


def fairlead(*words: str, server: str = "http://127.0.0.1:1", text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "fairlead"), *words],
        env={**os.environ, "FAIRLEAD_SERVER": server, "COLUMNS": "60"},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(database_file: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Start `fairlead up` on a free port; return it and its address once it is ready."""
    process = subprocess.Popen(
        [str(BIN / "fairlead"), "up", "--port", "0", "--fleet", "hgx-h100", "--database", str(database_file), *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line
    return process, line.split(" on ")[1].split(",")[0]


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    code = process.wait(timeout=30)
    assert process.stderr is not None
    process.stderr.close()
    return code


def wait_for(server: str, gang: str, phase: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        done = fairlead("explain", gang, "--json", server=server)
        if done.returncode == 0 and json.loads(done.stdout)["phase"] == phase:
            return json.loads(done.stdout)
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, address = start(tmp_path_factory.mktemp("up") / "books.sqlite", "--speed", "20")
    try:
        yield address
    finally:
        assert end(process) == 0


def test_help_lists_every_verb_and_is_there_at_once():
    times: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        done = fairlead("--help")
        times.append(time.monotonic() - began)
        assert done.returncode == 0
        assert all(name in done.stdout for name in COMMANDS)
    assert min(times) < 0.25 or os.getloadavg()[0] > 2, times


def test_help_imports_no_verb():
    code = (
        "import sys; sys.argv = ['fairlead', '--help']\nfrom fairlead.cli.main import app\napp(standalone_mode=False)\n"
    )
    code += "print([name for name in ('numpy', 'fastapi', 'rich', 'sqlalchemy', 'kubernetes') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_has_help(verb: str):
    done = fairlead(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


def test_a_job_goes_from_yaml_to_devices_and_back(server: str):
    done = fairlead("submit", "-", server=server, text=job("train"))
    assert (done.returncode, done.stdout) == (0, "accepted GangJob/research/train\n")
    doc = wait_for(server, "research/train", "Running")
    assert [pods for on in doc["allocation"]["nodes"] for pods in on["pods"].values()] == ["gpu-[0-7]", "gpu-[0-7]"]
    shown = fairlead("explain", "-n", "research", "train", server=server).stdout
    assert "spans      2 islands, 2 nodes, 1 rack, 1 block" in shown
    line = next(line for line in fairlead("ls", server=server).stdout.splitlines() if " train " in line)
    assert re.search(r" \d+\.\d GB/s  2 islands, 2 nodes, 1 rack, 1 block$", line), line
    assert "research/train is Running" in shown
    assert "slowest link 50.0 GB/s" in shown, "between the nodes, a NIC each"
    assert "GPU-hours so far" in shown
    assert fairlead("delete", "research/train", server=server).stdout == "deleting research/train\n"
    deadline = time.monotonic() + 60
    while fairlead("explain", "research/train", server=server).returncode != 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_ls_has_its_columns_and_the_reason_of_what_waits(server: str):
    fairlead("submit", "-", server=server, text=job("a-job-with-a-rather-long-name-that-is-never-cut", replicas=5))
    doc = wait_for(server, "research/a-job-with-a-rather-long-name-that-is-never-cut", "Pending")
    lines = fairlead("ls", server=server).stdout.splitlines()
    head = ["NAMESPACE", "NAME", "QUEUE", "PRI", "GPUS", "STATE", "POS", "REASON", "START", "AGE", "PACE", "SPAN"]
    assert lines[0].split() == head
    row = next(line for line in lines if "never-cut" in line).split()
    assert row[1] == "a-job-with-a-rather-long-name-that-is-never-cut"
    assert row[5:9] == ["Pending", str(doc["position"]), doc["reason"], "unknown"]
    assert row[-2:] == ["-", "-"], "an age may have two words"
    listed = json.loads(fairlead("ls", "--json", "-q", "research", server=server).stdout)
    assert {gang["queue"] for gang in listed} == {"research"}


@pytest.mark.parametrize(
    ("text", "phase", "reason"),
    [
        (job("no-such-queue", queue="nowhere"), "Pending", "UnknownQueue"),
        (job("not-my-queue", queue="vision"), "Pending", "NamespaceNotAllowed"),
        (job("no-such-level", within="galaxy"), "Pending", "UnknownTopologyLevel"),
    ],
)
def test_what_can_never_run_says_so(server: str, text: str, phase: str, reason: str):
    assert fairlead("submit", "-", server=server, text=text).returncode == 0
    name = text.split("name: ")[1].split(",")[0]
    doc = wait_for(server, f"research/{name}", phase)
    assert doc["reason"] == reason
    assert "spec." in doc["message"]


def test_queues_nodes_pools_and_usage_are_shown(server: str):
    assert "GUARANTEED" in fairlead("queues", server=server).stdout
    nodes = fairlead("nodes", server=server).stdout
    assert "NVIDIA H100 80GB HBM3" in nodes
    assert nodes.splitlines()[-1].startswith("largest gang now: 8 GPUs in one node, ")
    assert fairlead("nodes", "--pools", server=server).stdout.splitlines()[1].split()[:3] == ["fleet", "16", "128"]
    assert [line["queue"] for line in json.loads(fairlead("usage", "--json", server=server).stdout)] == [
        "research",
        "vision",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ls",), 3, "no answer from"),
        (("ls", "--server", "ftp://x"), 2, "--server"),
        (("ls", "--server", "http://[::1"), 2, "--server"),
        (("explain", "a/b/c"), 2, "names no gang"),
        (("submit", "/no/such/file"), 2, "cannot read"),
        (("up", "--fleet", "toys"), 2, "there is no fleet 'toys'"),
        (("up", "--speed", "0"), 2, "--speed"),
        (("demo", "--fleet", "gb200-nvl72"), 2, "hgx-h100"),
        (("frobnicate",), 2, "No such command"),
        (("ls", "--frob"), 2, "--frob"),
    ],
)
def test_failures_are_one_sentence_and_a_code(words: tuple[str, ...], code: int, says: str, tmp_path: Path):
    more = ("--database", str(tmp_path / "b.sqlite"), "--port", "0") if words[0] == "up" else ()
    done = fairlead(*words, *more)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_things_and_bad_files_at_a_server(server: str):
    missing = fairlead("explain", "research/nope", server=server)
    assert (missing.returncode, missing.stderr) == (4, "fairlead: there is no GangJob research/nope\n")
    assert fairlead("delete", "nope", server=server).returncode == 4
    bad = fairlead("submit", "-", server=server, text=job("x", replicas=10_000))
    assert bad.returncode == 2
    assert "spec.roles[].replicas: add up to more than 4096; split the work" in bad.stderr
    assert fairlead("submit", "-", server=server, text="kind: [").returncode == 2


def test_what_is_immutable_stays_and_suspend_stops_a_running_gang(server: str):
    name, suspended = "paused", job("paused").replace("spec:", "spec:\n  suspend: true")
    fairlead("submit", "-", server=server, text=job(name))
    wait_for(server, f"research/{name}", "Running")
    fairlead("submit", "-", server=server, text=suspended)
    assert wait_for(server, f"research/{name}", "Suspended")["reason"] == "Suspended"
    fairlead("submit", "-", server=server, text=job(name))
    assert wait_for(server, f"research/{name}", "Running")["attempt"] == 2
    other = fairlead("submit", "-", server=server, text=job(name, replicas=3))
    assert (other.returncode, "immutable" in other.stderr) == (2, True)


def test_a_taken_port_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = fairlead("up", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "use another port" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_books_are_closed_when_the_fleet_ends_or_at_the_next_start(number: int, tmp_path: Path):
    file = tmp_path / "books.sqlite"
    process, address = start(file, "--speed", "50")
    try:
        handed_in = fairlead("submit", "-", server=address, text=jobs_yaml())
        assert handed_in.returncode == 0, handed_in.stderr
        wait_for(address, "research/pretrain", "Running")
    finally:
        end(process, number)
    with open_books(f"sqlite:///{file}", 0) as opened:
        assert opened.books.open_holds() == ()
        report = opened.books.usage(opened.start_ms + 10**9)
    assert report.balanced
    assert sum(row.gpu_ms for row in report.rows) > 0
    engine = database.connect(f"sqlite:///{file}")
    later = from_database(engine)
    engine.dispose()
    assert [row.capacity_gpu_ms for row in later.fleet] == [row.capacity_gpu_ms for row in report.fleet]


def test_a_server_that_talks_nonsense_is_unreachable():
    class Nonsense(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html>hello</html>" if self.path == "/v1/queues" else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{httpd.server_address[1]}"
        answers = [fairlead(verb, server=address) for verb in ("queues", "nodes", "ls")]
        explained = fairlead("explain", "x", server=address)
        httpd.shutdown()
        thread.join()
    assert [done.returncode for done in answers] == [3, 3, 3]
    assert "is it a Fairlead server?" in answers[0].stderr
    assert explained.returncode == 3
    assert "Traceback" not in "".join(done.stderr for done in [*answers, explained])


def test_tables_are_plain_in_a_pipe_and_whole_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    long = "x" * 200
    for out in (io.StringIO(), Terminal()):
        render.table(("A", "B"), [(long, 1), (None, "a\x1b[31mb")], right=frozenset({"B"}), out=out)
        assert long in out.getvalue()
        assert "\x1b[31m" not in out.getvalue()
        assert "-" in out.getvalue()


def test_queues_are_a_tree_even_when_parents_go_in_a_circle():
    base = {"tenant": None, "guaranteed": 0, "limit": None, "used": 0, "borrowed": 0, "pending": 0, "running": 0}
    docs: list[Any] = [
        {**base, "name": name, "parent": parent, "over_limit": False, "pending_gpus": 0}
        for name, parent in (("b", "a"), ("a", None), ("x", "y"), ("y", "x"))
    ]
    out = io.StringIO()
    render.queues(docs, out=out)
    lines = out.getvalue().splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["a", "b", "x", "y"]
    assert lines[1].startswith("  b")
