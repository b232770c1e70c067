"""The control plane that the other tests of this folder stand on is a real one, and ends as cleanly as it starts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .api import ApiError, path
from .controlplane import build
from .keeper import start_ticks
from .server import ControlPlane

ROOT = Path(__file__).parents[2]
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
NAMESPACE = "control-plane"


@pytest.fixture(scope="module")
def api(control_plane):
    control_plane.api.create(path("namespaces"), {"metadata": {"name": NAMESPACE}})
    for name in ("cp-n1", "cp-n2"):
        control_plane.api.create(path("nodes"), {"metadata": {"name": name}})
    yield control_plane.api
    control_plane.api.delete(path("namespaces", name=NAMESPACE))


def pod(name, *, node=None, **annotations):
    spec = {"containers": [{"name": "main", "image": "example"}]}
    if node:
        spec["nodeName"] = node
    marks = {f"fairlead.dev/test-{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"name": name, "annotations": marks}, "spec": spec}


def phase(wanted):
    return lambda seen: seen is not None and seen["status"].get("phase") == wanted


def test_it_is_a_real_server_of_the_pinned_version_with_devices_on(control_plane, api):
    assert api.get("/version")["gitVersion"] == build.version("kubernetes")
    served = {resource["name"] for resource in api.get("/apis/resource.k8s.io/v1")["resources"]}
    assert {"resourceclaims", "resourceclaims/status", "resourceslices", "deviceclasses"} <= served
    assert control_plane.started_in_s < 30


def test_rbac_refuses_who_was_given_nothing(control_plane, api):
    with pytest.raises(ApiError, match='User "alice" cannot list resource "pods"') as refusal:
        control_plane.person("alice").list(path("pods", NAMESPACE))
    assert (refusal.value.status, refusal.value.reason) == (403, "Forbidden")


def test_a_node_becomes_ready_and_stays_as_a_test_sets_it(api):
    where = path("nodes", name="cp-n2")
    untainted = api.wait(where, lambda node: node["status"].get("conditions") and not node["spec"].get("taints"))
    assert [(c["type"], c["status"]) for c in untainted["status"]["conditions"]] == [("Ready", "True")]
    lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "a test lost it"}
    api.patch(f"{where}/status", {"status": {"conditions": [lost]}}, "strategic")

    def is_unreachable(node):
        return ("node.kubernetes.io/unreachable", "NoExecute") in {
            (taint["key"], taint["effect"]) for taint in node["spec"].get("taints", [])
        }

    assert api.wait(where, is_unreachable, seconds=15)["status"]["conditions"][0]["status"] == "Unknown"


def test_a_bound_pod_runs_and_ends_as_its_annotations_say(api):
    pods = path("pods", NAMESPACE)
    api.create(pods, pod("stays"))
    api.create(pods, pod("good", run_seconds="0.2"))
    api.create(pods, pod("bad", run_seconds="0.2", exit_code="3"))
    for name in ("stays", "good", "bad"):
        assert api.get(path("pods", NAMESPACE, name))["status"]["phase"] == "Pending"
        target = {"apiVersion": "v1", "kind": "Node", "name": "cp-n1"}
        api.create(path("pods", NAMESPACE, name, "binding"), {"metadata": {"name": name}, "target": target})
    api.wait(path("pods", NAMESPACE, "good"), phase("Succeeded"))
    failed = api.wait(path("pods", NAMESPACE, "bad"), phase("Failed"))
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    running = api.wait(path("pods", NAMESPACE, "stays"), phase("Running"))
    assert running["status"]["podIP"]
    assert {c["type"]: c["status"] for c in running["status"]["conditions"]}["Ready"] == "True"


def test_a_deleted_pod_ends_first_and_waits_for_finalizers(api):
    held = pod("held", node="cp-n1")
    held["metadata"]["finalizers"] = ["fairlead.dev/booked"]
    where = path("pods", NAMESPACE, "held")
    api.create(path("pods", NAMESPACE), held)
    api.wait(where, phase("Running"))
    api.delete(where)
    ended = api.wait(where, phase("Failed"))
    assert ended["metadata"]["finalizers"] == ["fairlead.dev/booked"]
    api.wait(where, lambda seen: seen["metadata"]["deletionGracePeriodSeconds"] == 0)
    assert api.exists(where)
    api.patch(where, {"metadata": {"finalizers": None}})
    api.wait(where, lambda seen: seen is None)


def test_a_pod_without_its_kubelet_stays_as_it_is(api):
    where = path("pods", NAMESPACE, "lost")
    api.create(path("pods", NAMESPACE), pod("lost", node="cp-n1"))
    api.wait(where, phase("Running"))
    api.patch(where, {"metadata": {"annotations": {"fairlead.dev/test-kubelet-lost": "true"}}})
    api.delete(where)
    time.sleep(0.5)
    seen = api.get(where)
    assert seen["status"]["phase"] == "Running"
    assert seen["metadata"]["deletionTimestamp"]
    api.delete(where, grace_seconds=0)
    assert not api.exists(where)


def test_an_allocation_that_we_write_is_taken_and_the_claim_can_be_reserved(api):
    wanted = {"name": "gpu", "exactly": {"deviceClassName": "cp-gpu", "allocationMode": "ExactCount", "count": 1}}
    api.create(path("deviceclasses"), {"metadata": {"name": "cp-gpu"}, "spec": {}})
    claim = api.create(
        path("resourceclaims", NAMESPACE), {"metadata": {"name": "c1"}, "spec": {"devices": {"requests": [wanted]}}}
    )
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "cp-n1", "device": "gpu-0"}
    fields = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["cp-n1"]}]}]}
    claim["status"] = {"allocation": {"devices": {"results": [result]}, "nodeSelector": fields}}
    written = api.replace(path("resourceclaims", NAMESPACE, "c1", "status"), claim)
    assert written["status"]["allocation"]["devices"]["results"] == [result]
    with pytest.raises(ApiError) as stale:
        api.replace(path("resourceclaims", NAMESPACE, "c1", "status"), claim)
    assert (stale.value.status, stale.value.reason) == (409, "Conflict")


def test_a_watch_gives_every_change_in_order(api):
    maps = path("configmaps", NAMESPACE)
    version = api.list_whole(maps)["metadata"]["resourceVersion"]
    where = path("configmaps", NAMESPACE, "watched")
    api.create(maps, {"metadata": {"name": "watched"}})
    api.patch(where, {"data": {"seen": "yes"}})
    api.delete(where)
    seen = []
    for event in api.watch(maps, version, seconds=5, fields="metadata.name=watched"):
        seen.append((event["type"], event["object"].get("data")))
        if event["type"] == "DELETED":
            break
    assert seen == [("ADDED", None), ("MODIFIED", {"seen": "yes"}), ("DELETED", {"seen": "yes"})]


def test_a_pod_bound_token_carries_the_name_of_the_pod_and_ends_with_it(control_plane, api):
    token = control_plane.pod_bound_token(NAMESPACE, "operator", "operator-0")
    operator = control_plane.client(token)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    user = operator.create(REVIEW, body)["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{NAMESPACE}:operator"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["operator-0"]
    assert control_plane.pod_bound_token(NAMESPACE, "operator", "operator-0")  # what is there already is used
    plain = control_plane.client(control_plane.service_account_token(NAMESPACE, "operator"))
    extra = plain.create(REVIEW, body)["status"]["userInfo"]["extra"]
    assert "authentication.kubernetes.io/pod-name" not in extra
    api.delete(path("pods", NAMESPACE, "operator-0"), grace_seconds=0)
    deadline = time.monotonic() + 30  # the server remembers a good token for some seconds
    while (status := operator.request("POST", REVIEW, body)[0]) == 201 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == 401


def test_kubectl_understands_the_kubeconfig(control_plane, tmp_path):
    config = control_plane.kubeconfig(tmp_path / "alice.kubeconfig", control_plane.token("alice"), NAMESPACE)
    assert config.stat().st_mode & 0o077 == 0
    kubectl = str(control_plane.programs["kubectl"])
    command = [kubectl, "--kubeconfig", str(config), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "alice"


def test_the_api_server_comes_back_with_its_data(new_control_plane):
    plane = new_control_plane(controllers=["namespace-controller"], kwok=False)
    plane.api.create(path("nodes"), {"metadata": {"name": "kept"}})
    plane.restart("kube-apiserver")
    # Nobody runs the node lifecycle here, so nobody may have tainted the node either.
    assert "taints" not in plane.api.get(path("nodes", name="kept"))["spec"]


def test_a_killed_test_run_leaves_neither_processes_nor_files(control_plane):
    script = (
        "from tests.cluster.server import ControlPlane\n"
        "plane = ControlPlane(kwok=False); plane.start()\n"
        "print(plane.folder, *(server.pid for server in plane._servers.values()), flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    try:
        folder, *pids = child.stdout.readline().split()
        assert len(pids) == 3
        assert all(start_ticks(int(pid)) for pid in pids)
    finally:
        child.kill()
        child.communicate(timeout=10)
    deadline = time.monotonic() + 10
    while (left := Path(folder).exists() or any(_is_alive(int(pid)) for pid in pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_the_folder_for_programs_follows_the_environment_and_the_versions(tmp_path):
    assert build.cache_folder({"FAIRLEAD_CONTROLPLANE_CACHE": str(tmp_path)}).parent == tmp_path
    kept = build.cache_folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert kept == tmp_path / "fairlead" / "controlplane" / build.cache_key()
    assert build.version("kubernetes") in kept.name
    empty = {"FAIRLEAD_CONTROLPLANE_CACHE": str(tmp_path), "KUBEBUILDER_ASSETS": str(tmp_path / "assets")}
    (tmp_path / "assets").mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (tmp_path / "assets" / name).touch(mode=0o755)
    assert build.missing(empty) == ["kube-controller-manager", "kwok", "helm"]
    assert build.locate(empty)["etcd"] == tmp_path / "assets" / "etcd"


def test_without_go_the_build_says_what_to_install(tmp_path):
    bare = {"FAIRLEAD_CONTROLPLANE_CACHE": str(tmp_path), "PATH": str(tmp_path)}
    with pytest.raises(build.BuildFailed, match=r"no `go` on PATH: install Go 1\.26\.0 or newer"):
        build.build(bare)


def test_a_server_that_cannot_start_shows_its_log(control_plane):
    plane = ControlPlane(apiserver_flags=["--no-such-flag"], kwok=False)
    with pytest.raises(Exception, match="unknown flag: --no-such-flag"):
        plane.start()


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
