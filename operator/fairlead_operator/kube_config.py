"""Where the API server is and who we are to it: the service account of our pod, or a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fairlead.errors import UnreadableInput

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeConfig:
    """One server and one identity. `ca_pem` empty means the system's authorities.

    A token in `token_file` is read again as it changes, because a pod-bound token lives for an hour. `cert_pem` and
    `key_pem` are a client certificate. `namespace` is our own.
    """

    server: str
    namespace: str = "default"
    ca_pem: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    cert_pem: str = ""
    key_pem: str = field(default="", repr=False)
    verify_tls: bool = True
    server_name: str = ""

    def tls(self) -> ssl.SSLContext | None:
        """Build the TLS context, None for a plain ``http://`` server.

        Raises
        ------
        UnreadableInput
            A certificate or key cannot be read.
        """
        if not self.server.startswith("https://"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca_pem or None)
            # Clusters sign with authorities that lack an extension which newer Pythons insist on.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not self.verify_tls:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.cert_pem:
                _load_pair(context, self.cert_pem, self.key_pem)
        except (ssl.SSLError, ValueError) as error:
            raise UnreadableInput(
                f"kubeconfig: certificate or key cannot be read ({error}); fetch a new one"
            ) from error
        return context


def _load_pair(context: ssl.SSLContext, cert_pem: str, key_pem: str) -> None:
    """Give the context a client certificate; the ssl module takes it from a file only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # made with mode 0600
        file.write(f"{cert_pem}\n{key_pem}\n")
        file.flush()
        context.load_cert_chain(file.name)


def load_config(path: str = "", *, context: str = "", env: Mapping[str, str] | None = None) -> KubeConfig:
    """Return the kubeconfig at `path`, else that of ``$KUBECONFIG``, else our pod's account, else ``~/.kube/config``.

    Raises
    ------
    UnreadableInput
        None of these is there, or the file cannot be read; the text says what to do.
    """
    env = os.environ if env is None else env
    chosen = path or env.get("KUBECONFIG", "").split(os.pathsep)[0]
    if chosen:
        return read_kubeconfig(Path(chosen), context)
    if env.get("KUBERNETES_SERVICE_HOST") and (_ACCOUNT / "token").exists():
        return in_cluster(env)
    home = Path(env.get("HOME", "")) / ".kube" / "config"
    if home.exists():
        return read_kubeconfig(home, context)
    raise UnreadableInput("no API server: run inside a pod with a service account, or set KUBECONFIG")


def in_cluster(env: Mapping[str, str], account: Path = _ACCOUNT) -> KubeConfig:
    """Return the configuration that Kubernetes mounts into every pod with a service account."""
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    return KubeConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=_text(account / "namespace").strip() or "default",
        ca_pem=_text(account / "ca.crt"),
        token_file=str(account / "token"),
    )


def read_kubeconfig(path: Path, context: str = "") -> KubeConfig:
    """Return one context of a kubeconfig file, the current one by default.

    Raises
    ------
    UnreadableInput
        The file or the context cannot be read, or it needs a credential plugin.
    """
    try:
        root = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise UnreadableInput(f"{path}: not YAML ({error})") from error
    if not isinstance(root, dict):
        raise UnreadableInput(f"{path}: not a kubeconfig")
    name = context or str(root.get("current-context") or "")
    chosen = _entry(root, "contexts", "context", name, path)
    cluster = _entry(root, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _entry(root, "users", "user", str(chosen["user"]), path) if chosen.get("user") else {}
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise UnreadableInput(
                f"{path}: users[].user.{plugin} is not supported; use a token, a tokenFile or a client certificate"
            )
    if not cluster.get("server"):
        raise UnreadableInput(f"{path}: clusters[].cluster.server is missing")
    return KubeConfig(
        server=str(cluster["server"]).rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        ca_pem=_pem(cluster, "certificate-authority", path),
        token=str(user.get("token") or ""),
        token_file=str(path.parent / str(user["tokenFile"])) if user.get("tokenFile") else "",
        cert_pem=_pem(user, "client-certificate", path),
        key_pem=_pem(user, "client-key", path),
        verify_tls=not cluster.get("insecure-skip-tls-verify", False),
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _entry(root: dict[str, Any], group: str, key: str, name: str, path: Path) -> dict[str, Any]:
    """Return the named entry of one of the kubeconfig's three lists."""
    for entry in root.get(group) or []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(key), dict):
            return dict(entry[key])
    raise UnreadableInput(f"{path}: {group} has no entry {name!r}")


def _pem(source: dict[str, Any], key: str, path: Path) -> str:
    """Return a certificate or key that stands in the file itself or in one beside it."""
    if source.get(f"{key}-data"):
        try:
            return base64.b64decode(str(source[f"{key}-data"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UnreadableInput(f"{path}: {key}-data is not base64 of a PEM file") from error
    return _text(path.parent / str(source[key])) if source.get(key) else ""


def _text(path: Path) -> str:
    """Return a file's text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInput(f"{path}: cannot be read ({error})") from error
