"""`kubectl fairlead` through the real kubectl, as a platform user, as a tenant and as a stranger, and with --server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from cluster.api import path
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld
from fairlead.service import view_json

RBAC = "rbac.authorization.k8s.io"
TEAM, OTHER = "plug-team", "plug-other"


@pytest.fixture(scope="module")
def world(control_plane):
    """Alice's team runs one gang, waits with two and has one refused; another tenant runs a gang of its own."""
    with ClusterWorld(control_plane, "plug", nodes=4) as world:
        world.add_namespace(OTHER)
        world.queue("plug-q", 8, 24)
        world.queue("plug-secret", 0, namespaces=[OTHER])
        subject = {"apiGroup": RBAC, "kind": "User"}
        tenant = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "fairlead-tenant"}
        binding = {"metadata": {"name": "alice"}, "roleRef": tenant, "subjects": [{**subject, "name": "alice"}]}
        world.api.create(path("rolebindings", TEAM), binding)
        platform = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "fairlead-platform"}
        body = {"metadata": {"name": "plug-carol"}, "roleRef": platform, "subjects": [{**subject, "name": "carol"}]}
        world.create("clusterrolebindings", body)
        yield world


@pytest.fixture(scope="module", autouse=True)
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("plug"), policy_lag_ms=200) as operator:
        operator.wait_ready()
        world.submit("runs", replicas=2, gpus=8, within="rack", queue="plug-q")
        world.submit("secret-job", gpus=8, queue="plug-secret", namespace=OTHER)
        world.wait_phase("runs", "Running")
        world.wait_phase("secret-job", "Running", namespace=OTHER)
        world.submit("waits", replicas=2, gpus=8, queue="plug-q")
        world.wait_phase("waits", "Pending")
        time.sleep(1.1)  # age counts in whole seconds, and of two gangs of one second either may be first
        world.submit("waits-too", replicas=2, gpus=8, queue="plug-q")
        world.submit("wrong", queue="plug-q", pod={"containers": [{"name": "m", "image": "x"}], "nodeName": "n"})
        world.wait_phase("wrong", "Refused")
        view = path("queueviews", TEAM, "plug-q")
        world.api.wait(view, lambda view: view and len(view.get("status", {}).get("positions", [])) == 2, what="places")
        world.api.wait(path("queues", name="plug-q"), lambda queue: queue["status"].get("used") == 16, what="used")
        yield operator


@pytest.fixture(scope="module")
def kubectl(control_plane, tmp_path_factory):
    """Run kubectl with the plugin on its PATH: (exit code, stdout, stderr)."""
    folder = tmp_path_factory.mktemp("bin")
    shim = folder / "kubectl-fairlead"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m fairlead_operator.kubectl.main "$@"\n')
    shim.chmod(0o755)
    configs = {
        person: control_plane.kubeconfig(folder / f"{person}.kubeconfig", control_plane.token(person), TEAM)
        for person in ("alice", "bob", "carol")
    }

    def run(person, *words, **more_env):
        env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": str(configs[person])}
        command = [str(control_plane.programs["kubectl"]), "fairlead", *words]
        done = subprocess.run(command, env={**env, **more_env}, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    return run


def rows(text):
    """Read a table: name in its column -> the line's cells by column."""
    head, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    names = head.split()
    if any(name in ("PRI", "GPUS", "POS") for name in names):  # numbers are set to the right: take whole words
        return {line.split()[1]: dict(zip(names, line.split(), strict=False)) for line in lines}
    return {line.split()[0]: dict(zip(names, line.split(), strict=False)) for line in lines if starts}


@pytest.mark.parametrize("person", ["alice", "carol"])
def test_ls_says_state_place_reason_and_start(kubectl, person):
    code, out, err = kubectl(person, "ls")
    assert (code, err) == (0, "")
    found = rows(out)
    assert set(found) == {"runs", "waits", "waits-too", "wrong"}
    assert (found["runs"]["STATE"], found["runs"]["POS"], found["runs"]["REASON"]) == ("Running", "-", "-")
    assert (found["waits"]["STATE"], found["waits"]["POS"]) == ("Pending", "1")
    assert found["waits"]["REASON"] == "QueueAtLimit"
    assert found["waits"]["START"] == "unknown"
    assert found["waits-too"]["POS"] == "2"
    assert (found["wrong"]["STATE"], found["wrong"]["REASON"]) == ("Refused", "UnsupportedField")
    assert "secret" not in out


def test_ls_of_everything_is_for_the_platform(kubectl):
    code, out, _ = kubectl("carol", "ls", "-A")
    assert code == 0
    assert "secret-job" in rows(out)
    code, out, err = kubectl("alice", "ls", "-A")
    assert (code, out) == (5, "")
    assert "forbidden" in err.lower()


def test_explain_says_why_it_waits_and_what_it_costs(kubectl):
    code, out, _ = kubectl("alice", "explain", "waits")
    assert code == 0
    assert f"{TEAM}/waits is Pending, number 1 in queue plug-q" in out
    assert "QueueAtLimit: queue plug-q holds 16 of its limit of 24 GPUs; the gang needs 16" in out
    assert "start      unknown" in out
    assert re.search(r"cost\s+0\S* GPU-hours so far", out)
    code, out, _ = kubectl("alice", "explain", "runs")
    assert code == 0
    assert f"{TEAM}/runs is Running" in out
    assert re.search(r"placed\s+within rack plug-r0.*slowest link .*B/s", out)
    assert "worker-0=gpu-[0-7]" in out
    assert re.search(r"cost\s+[\d.]+ GPU-hours so far", out)
    code, out, _ = kubectl("alice", "explain", f"{TEAM}/wrong")
    assert code == 0
    assert "spec.roles[worker].template.spec.nodeName is not supported" in out


def test_queues_usage_and_nodes_by_role(kubectl):
    code, out, _ = kubectl("carol", "queues")
    assert code == 0
    assert "plug-q" in out
    assert "plug-secret" in out
    code, out, _ = kubectl("alice", "queues")  # from the QueueViews of her namespace
    assert code == 0
    assert "plug-q" in out
    assert "secret" not in out
    line = next(line for line in out.splitlines() if line.startswith("plug-q")).split()
    assert line[2:6] == ["8", "24", "16", "8"]  # guaranteed, limit, used, borrowed
    code, out, _ = kubectl("carol", "nodes")
    assert code == 0
    assert {f"plug-r0-n{n}" for n in range(4)} <= set(out.split())
    code, out, _ = kubectl("carol", "nodes", "--pools")
    assert code == 0
    assert "plug" in out
    code, out, err = kubectl("alice", "nodes")
    assert (code, out) == (5, "")
    assert "fairlead-platform" in err  # what to ask for
    for person in ("alice", "carol"):
        code, out, _ = kubectl(person, "usage")
        assert code == 0
        assert "plug-q" in out
        assert ("plug-secret" in out) == (person == "carol")


DOCS = {
    "ls": view_json.GangDoc,
    "queues": view_json.QueueDoc,
    "nodes": view_json.NodeDoc,
    "usage": view_json.UsageDoc,
}


@pytest.mark.parametrize("verb", DOCS)
def test_json_is_the_document_of_the_http_api(kubectl, verb):
    code, out, _ = kubectl("carol", verb, "--json")
    assert code == 0
    found = json.loads(out)
    items = found["items"] if isinstance(found, dict) else found
    assert items
    for item in items:
        assert set(item) == set(DOCS[verb].__annotations__)
    if verb == "ls":
        waits = next(item for item in items if item["name"] == "waits")
        assert (waits["phase"], waits["position"], waits["reason"]) == ("Pending", 1, "QueueAtLimit")
        assert waits["start"] == {"p50_ms": None, "p90_ms": None, "basis": "unknown"}
        assert next(item for item in items if item["name"] == "runs")["gpu_ms"] > 0
    code, out, _ = kubectl("carol", verb, "-o", "name")
    assert code == 0
    assert all("/" in line for line in out.splitlines())


def test_exit_codes(kubectl, tmp_path):
    assert kubectl("alice", "explain", "nobody")[0] == 4
    code, out, err = kubectl("bob", "ls")  # no role at all
    assert (code, out) == (5, "")
    assert "gangjobs" in err
    for wrong in (["ls", "--no-such-flag"], ["frobnicate"], ["explain"], ["explain", "a/b/c"], ["ls", "-o", "xml"]):
        assert kubectl("alice", *wrong)[0] == 2, wrong
    assert kubectl("alice", "ls", KUBECONFIG=str(tmp_path / "absent"))[0] == 2
    code, _, err = kubectl("alice", "ls", "--server", "http://127.0.0.1:1", "--request-timeout", "2s")
    assert code == 3
    assert len(err.strip().splitlines()) == 1
    away = tmp_path / "away.kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c"}}
    away.write_text(json.dumps({"current-context": "c", "clusters": [cluster], "contexts": [context]}))
    assert kubectl("alice", "ls", KUBECONFIG=str(away))[0] == 3


def test_with_server_it_reads_the_http_api(kubectl, tmp_path):
    command = [
        sys.executable,
        "-P",
        "-m",
        "fairlead.cli.main",
        "up",
        "--fleet",
        "hgx-h100",
        "--nodes",
        "2",
        "--port",
        "0",
    ]
    with subprocess.Popen(
        [*command, "--database", str(tmp_path / "up.sqlite")], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as served:
        try:
            line = served.stderr.readline()
            server = re.search(r"http://127\.0\.0\.1:\d+", line).group()
            for verb in ("ls", "queues", "nodes", "usage"):
                code, out, err = kubectl("alice", verb, "--server", server, "--json")
                assert code == 0, err
                items = json.loads(out)
                assert all(set(item) == set(DOCS[verb].__annotations__) for item in items)
                assert len(items) == 2 or verb != "nodes"
            assert kubectl("alice", "explain", "nobody", "--server", server)[0] == 4
        finally:
            served.send_signal(signal.SIGTERM)
            served.communicate(timeout=20)
