"""`kubectl fairlead` against a stand-in API server: what a platform user and a tenant see, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from fairlead.errors import Forbidden, UnreadableInput
from fairlead_operator.kubectl import documents
from fairlead_operator.kubectl.access import find

PLUGIN = str(Path(sys.executable).parent / "kubectl-fairlead")
API = "/apis/fairlead.dev/v1alpha1"
DRA = "/apis/resource.k8s.io/v1"


def gang(namespace: str, name: str, *, gpus: int = 8, priority: str | None = None, **status: Any) -> dict[str, Any]:
    spec = {"queue": "research", "roles": [{"name": "worker", "replicas": 1, "devices": {"count": gpus}}]}
    if priority:
        spec["priorityClassName"] = priority
    meta = {"namespace": namespace, "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": spec, "status": status}


def claim(name: str, devices: list[str], *, pool: str = "p-n1", gang: str | None = None) -> dict[str, Any]:
    results = [{"driver": "gpu.nvidia.com", "pool": pool, "device": device} for device in devices]
    labels = {"fairlead.dev/gang": gang} if gang else {}
    return {
        "metadata": {"namespace": "team", "name": name, "labels": labels},
        "status": {"allocation": {"devices": {"results": results}}},
    }


def node(name: str, *, ready: str = "True", **spec: Any) -> dict[str, Any]:
    labels = {"fairlead.dev/rack": "r1", "gpu": "yes"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


RUNS = gang(
    "team", "runs", phase="Running", gpus=8, attempt=2, restarts=1, startedAtMs=1_767_225_600_000,
    usage={"gpuMs": 7_200_000}, lostGpuMs=3_600_000,
    allocation={
        "attempt": 2, "placedAtMs": 5, "level": "rack", "domain": "r1", "pace": 450 * 10**9,
        "span": {"rack": 1, "node": 1, "island": 1}, "cpuSets": ["0-47"],
        "penalties": ["4 CPUs are not on the NUMA nodes of the GPUs"],
        "members": [{"node": "n1", "pods": ["worker-0=gpu-[0-7];cpus=@0;nics=mlx5_[0-7]"]}],
    },
)  # fmt: skip
WAITS = gang(
    "team", "waits", priority="high", phase="Pending", reason="NoDomainFits",
    message="no rack has room; wait", position=9, startEstimate={"basis": "unknown"},
)  # fmt: skip
OTHER = gang("other", "secret", phase="Running", usage={"gpuMs": 3_600_000})
QUEUES = [
    {
        "metadata": {"name": "research"},
        "spec": {"parent": "org", "resources": [{"name": "gpu", "guaranteed": 16, "limit": 32}]},
        "status": {"used": 8, "borrowed": 0, "pending": 1, "running": 2, "usageGpuMs": 14_400_000},
    },
    {"metadata": {"name": "org"}, "spec": {"resources": [{"name": "gpu"}]}},
]
VIEWS = [
    {
        "metadata": {"namespace": "team", "name": "research"},
        "spec": {"queue": "research"},
        "status": {
            "guaranteed": 16, "limit": 32, "used": 8, "borrowed": 0, "pending": 1,
            "resources": [{"name": "cpu", "guaranteed": 64, "used": 96, "borrowed": 32}],
            "positions": [{"gangJob": "waits", "position": 1, "reason": "NoDomainFits"}],
            "usage": {"gpuMs": 7_200_000},
        },
    }
]  # fmt: skip
GPUS = [{"id": f"GPU{i}", "index": i, "device": f"gpu-{i}", "model": "H100", "healthy": i != 7} for i in range(8)]
LISTS: dict[str, list[dict[str, Any]]] = {
    f"{API}/namespaces/team/gangjobs": [WAITS, RUNS],
    f"{API}/namespaces/empty/gangjobs": [],
    f"{API}/gangjobs": [WAITS, RUNS, OTHER],
    f"{API}/queues": QUEUES,
    f"{API}/queueviews": VIEWS,
    f"{API}/namespaces/team/queueviews": VIEWS,
    f"{API}/namespaces/empty/queueviews": [],
    f"{API}/pools": [
        {"metadata": {"name": "main"}, "spec": {"nodeSelector": {"gpu": "yes"}},
         "status": {"nodes": 2, "gpus": 16, "free": 4, "unmanaged": 1, "down": 9}}
    ],
    f"{API}/nodetopologies": [{"metadata": {"name": name}, "spec": {"gpus": GPUS}} for name in ("n1", "n2")],
    "/api/v1/nodes": [node("n2", ready="Unknown"), node("n1", unschedulable=True), node("cpu-only")],
    f"{DRA}/resourceslices": [
        {"spec": {"driver": "gpu.nvidia.com", "nodeName": name, "pool": {"name": f"p-{name}"},
                  "devices": [{"name": f"gpu-{i}"} for i in range(8)]}}
        for name in ("n1", "n2")
    ],
    f"{DRA}/resourceclaims": [claim("a", ["gpu-0", "gpu-1"], gang="runs"), claim("b", ["gpu-2"])],
    "/apis/scheduling.k8s.io/v1/priorityclasses": [{"metadata": {"name": "high"}, "value": 1_000}],
}  # fmt: skip
TENANT_MAY = (f"{API}/namespaces/team/", f"{API}/namespaces/empty/")


class Handler(BaseHTTPRequestHandler):
    """Answers lists page by page; the token says who asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        user = {"Bearer root": "platform", "Bearer alice": "tenant"}.get(self.headers.get("Authorization", ""))
        if user is None:
            self.answer(401, {"message": "Unauthorized"})
        elif user == "tenant" and not parts.path.startswith(TENANT_MAY):
            self.answer(403, {"message": f'{parts.path} is forbidden: User "alice" cannot list'})
        elif parts.path in LISTS:
            query = parse_qs(parts.query)
            assert query["limit"] == ["2000"], query
            at = int(query.get("continue", ["0"])[0])
            items = LISTS[parts.path]
            more = {"continue": str(at + 1)} if at + 1 < len(items) else {}
            self.answer(200, {"items": items[at : at + 1], "metadata": more})
        else:
            folder, _, name = parts.path.rpartition("/")
            found = [item for item in LISTS.get(folder, []) if item["metadata"]["name"] == name]
            self.answer(200, found[0]) if found else self.answer(404, {"message": f"{name} not found"})

    def answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def config(address: str, tmp_path: Path) -> Path:
    """A kubeconfig with a context each for the platform and for alice, whose token comes from a plugin."""
    plugin = tmp_path / "login"
    plugin.write_text('#!/bin/sh\necho "{\\"status\\": {\\"token\\": \\"$WHO\\"}}"\n')
    plugin.chmod(0o755)
    path = tmp_path / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "platform",
                "contexts": [
                    {"name": "platform", "context": {"cluster": "c", "user": "root", "namespace": "team"}},
                    {"name": "alice", "context": {"cluster": "c", "user": "alice", "namespace": "team"}},
                    {"name": "nobody", "context": {"cluster": "c", "user": "nobody"}},
                    {"name": "away", "context": {"cluster": "away", "user": "root"}},
                ],
                "clusters": [
                    {"name": "c", "cluster": {"server": address}},
                    {"name": "away", "cluster": {"server": "http://127.0.0.1:1"}},
                ],
                "users": [
                    {"name": "root", "user": {"token": "root"}},
                    {"name": "nobody", "user": {"token": "who"}},
                    {
                        "name": "alice",
                        "user": {
                            "exec": {
                                "apiVersion": "client.authentication.k8s.io/v1",
                                "command": "./login",
                                "env": [{"name": "WHO", "value": "alice"}],
                            }
                        },
                    },
                ],
            }
        )
    )
    return path


def plugin(config: Path, *words: str, context: str = "platform") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PLUGIN, *words, "--context", context],
        env={**os.environ, "KUBECONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_ls_shows_a_namespace_or_all_with_places_from_the_queue_view(config: Path):
    lines = plugin(config, "ls").stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["runs", "waits"]
    assert lines[2].split()[3:9] == ["1000", "8", "Pending", "1", "NoDomainFits", "unknown"]
    everyone = json.loads(plugin(config, "ls", "-A", "-o", "json").stdout)
    assert [doc["name"] for doc in everyone] == ["secret", "runs", "waits"]
    assert plugin(config, "ls", "-o", "name").stdout.splitlines()[0] == "gangjob.fairlead.dev/runs"
    assert plugin(config, "ls", "-n", "empty").stdout.split() == lines[0].split()


def test_explain_shows_devices_pace_attempts_and_cost(config: Path):
    shown = plugin(config, "explain", "runs").stdout
    for part in (
        "team/runs is Running", "attempt    2, restarts after failures 1", "slowest link 450.0 GB/s",
        "n1: worker-0=gpu-[0-7] (CPUs 0-47; NICs mlx5_[0-7])", "spans      1 island, 1 node, 1 rack",
        "pace       450.0 GB/s predicted between any two GPUs of the gang",
        "worse      4 CPUs are not on the NUMA nodes of the GPUs",
        "2.000 GPU-hours so far, 1.000 of them in attempts that did not finish",
    ):  # fmt: skip
        assert part in shown
    waits = plugin(config, "explain", "team/waits", context="alice").stdout
    assert "number 1 in queue research" in waits
    assert "NoDomainFits: no rack has room; wait" in waits
    assert "start      unknown" in waits


def test_who_is_idle_is_said_to_be_while_it_runs():
    since_ms = 1_767_225_600_000
    idle = documents.gang(gang("team", "runs", phase="Running", idleSinceMs=since_ms), {})
    assert idle["idle_since_ms"] == since_ms
    over = documents.gang(gang("team", "runs", phase="Failed", idleSinceMs=since_ms), {})
    assert over["idle_since_ms"] is None


def test_a_tenant_sees_its_own_namespace_and_the_queue_view_only(config: Path):
    own = json.loads(plugin(config, "ls", "--json", context="alice").stdout)
    assert [(doc["name"], doc["priority"]) for doc in own] == [("runs", None), ("waits", None)]
    queues = json.loads(plugin(config, "queues", "--json", context="alice").stdout)
    assert [(doc["name"], doc["used"], doc["parent"], doc["running"]) for doc in queues] == [
        ("research", 8, None, None)
    ]
    wide = plugin(config, "queues", "-o", "wide", context="alice").stdout.splitlines()
    assert [line.split() for line in wide[1:]] == [["research", "-", "cpu", "64", "-", "96", "32"]]
    usage = plugin(config, "usage", context="alice").stdout
    assert "2.000" in usage
    assert "4.000" not in usage
    everything = plugin(config, "ls", "-A", context="alice")
    assert everything.returncode == 5
    assert "secret" not in everything.stdout + everything.stderr


def test_nodes_are_for_the_platform(config: Path):
    refused = plugin(config, "nodes", context="alice")
    assert refused.returncode == 5
    assert "right to list nodetopologies in the whole cluster (ClusterRole fairlead-platform)" in refused.stderr
    docs = {doc["name"]: doc for doc in json.loads(plugin(config, "nodes", "--json").stdout)}
    assert set(docs) == {"n1", "n2"}
    counts = [docs["n1"][state] for state in ("gpus", "free", "held", "foreign", "down")]
    assert counts == [8, 4, 2, 1, 1]
    assert (docs["n1"]["pool"], docs["n1"]["levels"], docs["n1"]["schedulable"]) == ("main", {"rack": "r1"}, False)
    assert docs["n1"]["gangs"] == ["team/runs"]
    assert (docs["n2"]["ready"], docs["n2"]["down"], docs["n2"]["free"]) == (False, 8, 0)
    pools = plugin(config, "nodes", "--pools").stdout.splitlines()[1].split()
    assert pools == ["main", "2", "16", "4", "2", "1", "9"]


def test_queues_and_usage_of_the_platform(config: Path):
    lines = plugin(config, "queues").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["org", "org"], ["research", "org"]]
    usage = {doc["queue"]: doc for doc in json.loads(plugin(config, "usage", "--json").stdout)}
    assert usage["research"]["gpu_ms"] == 14_400_000
    assert usage["research"]["tenant"] == "org"


@pytest.mark.parametrize(
    ("words", "context", "code", "says"),
    [
        (("explain", "nope"), "platform", 4, "there is no GangJob team/nope"),
        (("explain", "a/b/c"), "platform", 2, "names no gang"),
        (("ls",), "nobody", 5, "log in again"),
        (("ls",), "away", 3, "no answer from the API server"),
        (("ls",), "no-such", 2, "contexts has no entry 'no-such'"),
        (("ls", "-o", "xml"), "platform", 2, "table, json, name"),
        (("ls", "--request-timeout", "soon"), "platform", 2, "--request-timeout"),
        (("ls", "--request-timeout", "0"), "platform", 2, "is zero"),
    ],
)
def test_failures_are_one_sentence_and_a_code(config: Path, words: tuple[str, ...], context: str, code: int, says: str):
    done = plugin(config, *words, context=context)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_kubeconfigs_are_merged_and_the_first_wins(config: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump({"current-context": "alice"}))
    found = find(env={"KUBECONFIG": f"{other}{os.pathsep}{config}"})
    assert (found.token, found.namespace) == ("alice", "team")
    with pytest.raises(UnreadableInput, match="--kubeconfig"):
        find(env={"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("script", "says"),
    [("exit 3", "failed"), ("echo nonsense", "gave no credentials"), ("echo '{\"status\": {}}'", "neither a token")],
)
def test_a_credential_plugin_that_fails_is_named(config: Path, tmp_path: Path, script: str, says: str):
    (tmp_path / "login").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(Forbidden, match=says):
        find(str(config), "alice", env={})


def test_the_client_of_kubernetes_is_not_imported():
    code = "import sys; import fairlead_operator.kubectl.main, fairlead_operator.kubectl.access\n"
    code += "import fairlead_operator.kubectl.api_server\n"
    code += "print([name for name in ('kubernetes', 'aiohttp', 'rich', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
