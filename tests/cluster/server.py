"""A real control plane on 127.0.0.1 in seconds: etcd, kube-apiserver, kube-controller-manager, and KWOK as kubelets.

    with ControlPlane() as plane:
        plane.api.create(path("nodes"), {...})
        token = plane.pod_bound_token("fairlead", "fairlead-operator", "operator-0")
        operator = plane.client(token)

RBAC is on. The ServiceAccount admission plugin is off, so pods need no account; TokenRequest works all the same.
Every start has fresh data in a temporary folder, which is gone at the end together with all processes, also when the
test run itself is killed.
"""

from __future__ import annotations

import atexit
import csv
import functools
import http.client
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .api import Api, ApiError, path
from .controlplane.build import locate
from .processes import Keeper, Server, StartFailed, free_ports

START_SECONDS_MAX = 60
START_ATTEMPTS = 3
ISSUER = "https://kubernetes.default.svc"
# What answers for objects in a real cluster and has a part in what the tests check.
CONTROLLERS = (
    "device-taint-eviction-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "resourceclaim-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "taint-eviction-controller",
)
PEOPLE: Mapping[str, Sequence[str]] = {"alice": (), "bob": (), "carol": ()}
STAGES = Path(__file__).with_name("kwok.yaml")
BACKSTAGE = ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")


class ControlPlane:
    """One control plane. Start it as a context manager, or with `start` and `stop`.

    Parameters
    ----------
    controllers : names of the controllers that kube-controller-manager runs.
    people : users with a token and their groups; they may do what RBAC objects of the test let them do. The admin is
        in `system:masters`.
    apiserver_flags, controller_manager_flags : further flags; a flag given here wins over ours.
    kwok : whether nodes and pods come to life by themselves.
    programs : name to path; found by `controlplane/build.py` where not given.

    Attributes
    ----------
    url, ca_file : where the API server is and the certificate that it is known by.
    api : the admin's client; for anyone else see `client`.
    started_in_s : seconds that the last start took.
    """

    def __init__(
        self,
        *,
        controllers: Sequence[str] = CONTROLLERS,
        people: Mapping[str, Sequence[str]] = PEOPLE,
        apiserver_flags: Sequence[str] = (),
        controller_manager_flags: Sequence[str] = (),
        kwok: bool = True,
        programs: Mapping[str, Path] | None = None,
    ) -> None:
        self.programs = dict(locate() if programs is None else programs)
        absent = [name for name in BACKSTAGE if name not in self.programs]
        if absent:
            raise StartFailed(f"{', '.join(absent)} not found; run `python tests/cluster/controlplane/build.py`")
        self._controllers, self._kwok = tuple(controllers), kwok
        self._more_flags = {
            "kube-apiserver": tuple(apiserver_flags),
            "kube-controller-manager": tuple(controller_manager_flags),
        }
        self._people = {"admin": ("system:masters",), **people}
        self._tokens = {name: secrets.token_hex(16) for name in self._people}
        self._servers: dict[str, Server] = {}
        self._clients: list[Api] = []
        self._keeper: Keeper | None = None
        self.started_in_s = 0.0

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all servers and wait until the API server is ready.

        Raises
        ------
        StartFailed
            A server ended, or was not ready in time; with the tails of the logs.
        """
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once()
                return
            except StartFailed as error:
                self.stop()
                # Between finding a free port and using it, someone else may have taken it.
                if attempt == START_ATTEMPTS or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End every process that was started, by its id, and remove the folder. Twice is the same as once."""
        atexit.unregister(self.stop)
        for client in self._clients:
            client.close()
        self._clients.clear()
        for server in reversed(self._servers.values()):
            server.stop()
        self._servers.clear()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()  # removes the folder too

    def client(self, token: str | None) -> Api:
        """Make a client for a token; None for an anonymous one. It is closed with the control plane."""
        client = Api(self.url, str(self.ca_file), token)
        self._clients.append(client)
        return client

    def person(self, name: str) -> Api:
        """Make a client for one of `people`, or for `admin`."""
        return self.client(self._tokens[name])

    def token(self, name: str) -> str:
        """Return the token of one of `people`, or of `admin`."""
        return self._tokens[name]

    def service_account_token(
        self, namespace: str, name: str, bound_pod: str | None = None, *, seconds: int = 86_400
    ) -> str:
        """Ask the TokenRequest API for a token of a service account.

        With `bound_pod`, the name of a pod of that account, the token ends with the pod, and whoever uses it has the
        pod's name in the user's `extra` under `authentication.kubernetes.io/pod-name`.
        """
        spec: dict[str, Any] = {"audiences": [ISSUER], "expirationSeconds": seconds}
        if bound_pod is not None:
            uid = self.api.get(path("pods", namespace, bound_pod))["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": bound_pod, "uid": uid}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self.api.create(path("serviceaccounts", namespace, name, "token"), request)["status"]["token"]

    def pod_bound_token(self, namespace: str, account: str, pod: str) -> str:
        """Make what a Deployment would have made, where it is absent: namespace, account and pod; return its token.

        The pod only lends its name and is never scheduled: the process that uses the token runs in the test.
        """
        spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "example"}]}
        for where, body in (
            (path("namespaces"), {"metadata": {"name": namespace}}),
            (path("serviceaccounts", namespace), {"metadata": {"name": account}}),
            (path("pods", namespace), {"metadata": {"name": pod}, "spec": spec}),
        ):
            try:
                self.api.create(where, body)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        return self.service_account_token(namespace, account, pod)

    def kubeconfig(self, target: Path, token: str, namespace: str = "default") -> Path:
        """Write a kubeconfig for a token, readable by its owner only, and return its path."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        }
        target.touch(mode=0o600)
        target.write_text(json.dumps(whole, indent=1))  # YAML reads JSON
        return target

    def restart(self, name: str) -> None:
        """Kill one server and start it again on its port with its data; wait until the API server is ready."""
        self._servers[name].stop()
        self._servers[name].start()
        self._wait_until_ready(time.monotonic() + START_SECONDS_MAX)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one server, such as SIGSTOP to freeze the API server."""
        self._servers[name].signal(number)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each server."""
        return {name: server.pid for name, server in self._servers.items()}

    def tails(self, lines: int = 25) -> str:
        """Return the last lines of every log."""
        return "\n".join(server.tail(lines) for server in self._servers.values())

    def memory_bytes(self) -> dict[str, int]:
        """Resident memory of each server now."""
        return {name: server.memory_bytes() for name, server in self._servers.items()}

    def _start_once(self) -> None:
        began = time.monotonic()
        deadline = began + START_SECONDS_MAX
        self.folder = Path(tempfile.mkdtemp(prefix="fairlead-controlplane-"))
        self._keeper = Keeper(self.folder)
        atexit.register(self.stop)
        self._client_port, self._peer_port, self._api_port = free_ports(3)
        self.url = f"https://127.0.0.1:{self._api_port}"
        self.ca_file = self.folder / "certs" / "apiserver.crt"
        self._write_tokens()
        admin = self.kubeconfig(self.folder / "admin.kubeconfig", self._tokens["admin"])
        self._add("etcd", self._etcd_flags())
        self._await(deadline, "etcd is not healthy", functools.partial(_answers, self._client_port))
        self._add("kube-apiserver", self._apiserver_flags())
        self._await(deadline, "kube-apiserver wrote no certificate", self._has_certificate)
        self.api = self.client(self._tokens["admin"])
        self._wait_until_ready(deadline)
        self._add("kube-controller-manager", self._controller_manager_flags(admin))
        if self._kwok:
            # KWOK reads its configuration's folder from HOME too: ours, so that nobody's own is mixed in.
            shutil.copy(STAGES, self.folder / "kwok.yaml")
            self._add("kwok", [f"--kubeconfig={admin}", f"--config={self.folder / 'kwok.yaml'}"])
        self.started_in_s = time.monotonic() - began

    def _add(self, name: str, flags: Sequence[str]) -> None:
        env = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        command = [str(self.programs[name]), *flags, *self._more_flags.get(name, ())]
        assert self._keeper is not None
        server = self._servers[name] = Server(name, command, self.folder, self._keeper, env)
        server.start()

    def _write_tokens(self) -> None:
        target = self.folder / "tokens.csv"
        target.touch(mode=0o600)
        with target.open("w", newline="") as file:
            rows = csv.writer(file)
            for name, groups in self._people.items():
                rows.writerow([self._tokens[name], name, name, ",".join(groups)])

    def _etcd_flags(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._client_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            "--name=tests",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",  # the data is thrown away at the end
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=tests={peer}",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        key = self.folder / "certs" / "apiserver.key"
        disabled = ["ServiceAccount"]
        if "node-lifecycle-controller" not in self._controllers:
            disabled.append("TaintNodesByCondition")  # nobody would take the taint off again
        return [
            f"--etcd-servers=http://127.0.0.1:{self._client_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api_port}",
            "--endpoint-reconciler-type=none",  # it refuses a loopback address
            f"--cert-dir={self.folder / 'certs'}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--disable-admission-plugins={','.join(disabled)}",
            f"--service-account-issuer={ISSUER}",
            # The key of the certificate that the server makes for itself also signs tokens: no openssl needed.
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--profiling=false",
        ]

    def _controller_manager_flags(self, kubeconfig: Path) -> list[str]:
        return [
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(self._controllers)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            # Nodes send no heartbeats here: a node is as ready as the test says.
            "--node-monitor-grace-period=24h",
            "--node-monitor-period=1s",
            # The default taints one lost node in ten seconds, and none in a small cluster that loses most nodes.
            "--node-eviction-rate=1000",
            "--secondary-node-eviction-rate=1000",
            "--large-cluster-size-threshold=0",
        ]

    def _has_certificate(self) -> bool:
        # The key is written after the certificate, and both before the port is opened.
        return self.ca_file.is_file() and self.ca_file.with_suffix(".key").is_file() and _listens(self._api_port)

    def _wait_until_ready(self, deadline: float) -> None:
        def ready() -> bool:
            return (
                self.api.request("GET", "/readyz")[0] == 200
                and self.api.request("GET", path("namespaces", name="default"))[0] == 200
            )

        self._await(deadline, "kube-apiserver is not ready", ready)

    def _await(self, deadline: float, complaint: str, done: Callable[[], bool]) -> None:
        while True:
            try:
                if done():
                    return
            except (OSError, http.client.HTTPException):
                pass  # not listening yet
            for server in self._servers.values():
                server.check()
            if time.monotonic() > deadline:
                raise StartFailed(f"{complaint} after {START_SECONDS_MAX} s\n{self.tails()}")
            time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read().find(b'"true"') > 0
    finally:
        connection.close()


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.connect()
        return True
    finally:
        connection.close()
