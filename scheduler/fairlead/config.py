"""Settings from the environment and one optional YAML file; the environment wins. Read once, then frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fairlead.errors import UnreadableInput

PREFIX = "FAIRLEAD_"

_POD_FIELDS = {"pod_name": "POD_NAME", "namespace": "POD_NAMESPACE"}  # as charts pass the downward API on

_LEVEL_LABELS: dict[str, tuple[str, ...]] = {
    "rack": ("fairlead.dev/rack", "topology.kubernetes.io/rack"),
    "block": ("fairlead.dev/block", "topology.kubernetes.io/block"),
}

Positive = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """All knobs of the operator. Durations are ms. Each is also an environment variable: ``FAIRLEAD_`` + upper case.

    `database_url` is SQLAlchemy's; `outbox_path` is the file of what the database does not take (empty: beside a SQLite
    file, else none); `cluster_name` is part of every ledger entry and must not change. `kubeconfig` empty
    means the pod's own service account; `pod_name` and `namespace` are also read from ``POD_NAME`` and
    ``POD_NAMESPACE``. `http_listen` is host:port. `policy_lag_ms` is the longest that a new leader waits for the
    admission policy that fences its predecessor (design P10); `renew_margin_ms` is how long before the lease runs out
    the leader stops writing. `level_labels` maps a topology level to the node labels that name its domain, the first
    that is there winning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str = "sqlite:///fairlead.sqlite"
    outbox_path: str = ""
    cluster_name: Annotated[str, Field(min_length=1, max_length=63)] = "kubernetes"
    kubeconfig: str = ""
    namespace: str = "fairlead-system"
    lease_name: str = "fairlead-operator"
    pod_name: str = ""
    lease_duration_ms: Positive = 15_000
    renew_period_ms: Positive = 2_000
    renew_margin_ms: Positive = 3_000
    policy_lag_ms: Annotated[int, Field(ge=0)] = 2_000
    http_listen: Annotated[str, Field(pattern=r"^.+:[0-9]{1,5}$")] = "127.0.0.1:8080"
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    debounce_ms: Annotated[int, Field(ge=0)] = 20
    effects_in_flight: Positive = 64
    requests_in_flight: Positive = 64
    status_writes_per_s: Positive = 50
    shutdown_grace_ms: Positive = 45_000
    place_deadline_ms: Positive = 30_000
    node_lost_after_ms: Positive = 40_000
    nomination_ms: Positive = 300_000
    stops_per_cycle: Positive = 256
    grow_after_ms: Positive = 600_000
    placement_on: bool = True
    preemption_on: bool = True
    reclaim_on: bool = True
    level_labels: dict[str, tuple[str, ...]] = _LEVEL_LABELS

    @field_validator("level_labels", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        """Read ``rack=key1|key2,block=key3``, the form that fits an environment variable."""
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        return {level.strip(): tuple(k.strip() for k in keys.split("|") if k.strip()) for level, _, keys in pairs}


def load(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read the settings; `file` may also come from ``FAIRLEAD_CONFIG``.

    Raises
    ------
    UnreadableInput
        The file cannot be read, or a setting is unknown or wrong; the text names it.
    """
    env = os.environ if environ is None else environ
    path = file or (Path(env[PREFIX + "CONFIG"]) if env.get(PREFIX + "CONFIG") else None)
    values = _read_file(path) if path else {}
    for name in Settings.model_fields:
        text = env.get(PREFIX + name.upper(), env.get(_POD_FIELDS.get(name, "")))
        if text is not None:
            values[name] = text
    try:
        return Settings.model_validate(values)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        where = f"{PREFIX}{name.upper()}" if PREFIX + name.upper() in env else f"{path}: {name}"
        raise UnreadableInput(f"{where}: {first['msg']} (got {first.get('input')!r})") from wrong


def _read_file(path: Path) -> dict[str, Any]:
    """Read a YAML mapping."""
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise UnreadableInput(f"cannot read settings from {path}: {problem}") from problem
    if not isinstance(content, dict):
        raise UnreadableInput(f"{path}: settings must be a mapping of names to values")
    return {str(name): value for name, value in content.items()}
