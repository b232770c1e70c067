"""Who we are to which API server, found as kubectl finds it: ``$KUBECONFIG`` merged, contexts, exec credential plugins.

The operator's own loader (`fairlead_operator.kube_config`) reads one file and runs no plugins, which is right for a
server; a person's kubeconfig often needs both.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fairlead.errors import Forbidden, UnreadableInput
from fairlead_operator.kube_config import KubeConfig

EXEC_TIMEOUT_S = 30.0


def find(kubeconfig: str = "", context: str = "", env: Mapping[str, str] | None = None) -> KubeConfig:
    """Return the server and identity of a context, the current one by default.

    Raises
    ------
    UnreadableInput
        No kubeconfig is there, or it lacks what is asked for; the text names the file or the entry.
    Forbidden
        A credential plugin failed.
    """
    env = os.environ if env is None else env
    if kubeconfig:
        paths = [Path(kubeconfig)]
    elif env.get("KUBECONFIG"):
        paths = [Path(part) for part in env["KUBECONFIG"].split(os.pathsep) if part]
    else:
        paths = [Path(env.get("HOME", "")) / ".kube" / "config"]
    files = [(path, _read(path)) for path in paths if path.exists()]
    if not files:
        raise UnreadableInput(f"no kubeconfig at {paths[0]}: use --kubeconfig, or --server for the HTTP API")
    current = next((str(root["current-context"]) for _, root in files if root.get("current-context")), "")
    name = context or current
    if not name:
        raise UnreadableInput("the kubeconfig has no current context: use --context")
    _, chosen = _entry(files, "contexts", "context", name)
    cluster_path, cluster = _entry(files, "clusters", "cluster", str(chosen.get("cluster", "")))
    user_path, user = _entry(files, "users", "user", str(chosen["user"])) if chosen.get("user") else (Path(), {})
    if "auth-provider" in user:
        raise UnreadableInput(f"{user_path}: users[].user.auth-provider is gone from Kubernetes; use an exec plugin")
    if "exec" in user:
        user = {**user, **_run_plugin(user["exec"], user_path)}
    if not cluster.get("server"):
        raise UnreadableInput(f"{cluster_path}: clusters[].cluster.server is missing")
    token_file = user.get("tokenFile")
    return KubeConfig(
        server=str(cluster["server"]).rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        ca_pem=_pem(cluster, "certificate-authority", cluster_path),
        token=str(user.get("token") or (_text(user_path.parent / str(token_file)).strip() if token_file else "")),
        cert_pem=_pem(user, "client-certificate", user_path),
        key_pem=_pem(user, "client-key", user_path),
        verify_tls=not cluster.get("insecure-skip-tls-verify", False),
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _read(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = yaml.load(_text(path), Loader=loader)
    except yaml.YAMLError as problem:
        raise UnreadableInput(f"{path}: not YAML ({problem})") from problem
    if not isinstance(root, dict):
        raise UnreadableInput(f"{path}: not a kubeconfig")
    return root


def _entry(files: list[tuple[Path, dict[str, Any]]], group: str, key: str, name: str) -> tuple[Path, dict[str, Any]]:
    """Return the first entry of that name and the file it stands in, as kubectl merges files."""
    for path, root in files:
        for entry in root.get(group) or []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(key), dict):
                return path, entry[key]
    raise UnreadableInput(f"{', '.join(str(path) for path, _ in files)}: {group} has no entry {name!r}")


def _run_plugin(spec: Any, path: Path) -> dict[str, str]:
    """Run a credential plugin (client.authentication.k8s.io) and return its credentials as fields of a user."""
    if not isinstance(spec, dict) or not spec.get("command"):
        raise UnreadableInput(f"{path}: users[].user.exec.command is missing")
    version = str(spec.get("apiVersion") or "client.authentication.k8s.io/v1")
    env = dict(os.environ)
    env.update({str(pair["name"]): str(pair["value"]) for pair in spec.get("env") or []})
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
    command = [str(spec["command"]), *(str(word) for word in spec.get("args") or [])]
    if "/" in command[0]:
        command[0] = str(path.parent / command[0])
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=EXEC_TIMEOUT_S, check=True, text=True)
        status = json.loads(done.stdout)["status"]
    except subprocess.CalledProcessError as problem:
        last = (problem.stderr or "").strip().splitlines()[-1:] or ["it said nothing"]
        raise Forbidden(f"the credential plugin {command[0]} failed: {last[0]}") from problem
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as problem:
        hint = spec.get("installHint") or problem
        raise Forbidden(f"the credential plugin {command[0]} gave no credentials: {hint}") from problem
    fields = {"token": "token", "clientCertificateData": "client-certificate", "clientKeyData": "client-key"}
    found = {field: str(status[name]) for name, field in fields.items() if status.get(name)}
    if not found:
        raise Forbidden(f"the credential plugin {command[0]} gave neither a token nor a certificate")
    return {field if field == "token" else f"{field}-pem": text for field, text in found.items()}


def _pem(source: Mapping[str, Any], key: str, path: Path) -> str:
    """Return a certificate or key: as a plugin gave it, inline as base64, or from a file beside the kubeconfig."""
    if source.get(f"{key}-pem"):
        return str(source[f"{key}-pem"])
    if source.get(f"{key}-data"):
        try:
            return base64.b64decode(str(source[f"{key}-data"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as problem:
            raise UnreadableInput(f"{path}: {key}-data is not base64 of a PEM file") from problem
    return _text(path.parent / str(source[key])) if source.get(key) else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"{path}: cannot be read ({problem})") from problem
