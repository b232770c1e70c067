"""What a pod gets so that its program can be told to save, and can find what an earlier attempt saved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from fairlead.model.checkpoints import Saved
from fairlead.model.gang import Checkpoint
from fairlead_operator.saving_words import NOTICE

NOTICE_DIR = "/etc/fairlead"
NOTICE_FILE = "checkpoint-request"
_VOLUME = "fairlead-notice"


def saving_environment(checkpoint: Checkpoint | None, resume: Saved | None, uid: str) -> dict[str, str]:
    """Return the variables about checkpoints: where they are, which to resume from, when, and how a notice comes.

    The offset spreads gangs with the same interval over it: who waits for it before the first save does not save with
    all those that began together. It follows from the gang's uid, so every attempt has the same.
    """
    if checkpoint is None:
        return {}
    found = {"FAIRLEAD_CHECKPOINT_PATH": (resume.path if resume is not None else "") or checkpoint.path}
    if checkpoint.interval_ms:
        number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8])
        found["FAIRLEAD_CHECKPOINT_INTERVAL_MS"] = str(checkpoint.interval_ms)
        found["FAIRLEAD_CHECKPOINT_OFFSET_MS"] = str(number % checkpoint.interval_ms)
    if checkpoint.watches:
        found["FAIRLEAD_NOTICE_FILE"] = f"{NOTICE_DIR}/{NOTICE_FILE}"
    if resume is not None:
        found |= {
            "FAIRLEAD_RESUME_STEP": resume.step,
            "FAIRLEAD_RESUME_DIGEST": resume.digest,
            "FAIRLEAD_RESUME_FORMAT": resume.format,
            "FAIRLEAD_RESUME_CODE": resume.code,
            "FAIRLEAD_RESUME_SIZE": str(sum(count for _, count in resume.members)),
        }
    return {name: value for name, value in found.items() if value}


def give_saving(spec: dict[str, Any], checkpoint: Checkpoint | None, grace_ms: int) -> None:
    """Put into a pod's spec how its program hears of a notice; whatever the template says itself stays.

    A file shows the annotation. A command is run by the kubelet before it ends the container, a signal other than
    SIGTERM is sent by a command of ours; both need the pod's grace to be as long as the gang's.
    """
    if checkpoint is None or not checkpoint.on_notice:
        return
    if checkpoint.watches:
        _show_annotation(spec)
        return
    grace_s = -(-grace_ms // 1000)
    spec["terminationGracePeriodSeconds"] = max(int(spec.get("terminationGracePeriodSeconds") or 0), grace_s)
    command = _before_the_end(checkpoint, grace_s)
    for container in spec.get("containers") or []:
        hooks: dict[str, Any] = container.setdefault("lifecycle", {}) if command else {}
        if command and "preStop" not in hooks:
            hooks["preStop"] = {"exec": {"command": command}}


def _before_the_end(checkpoint: Checkpoint, grace_s: int) -> list[str]:
    """Return what the kubelet is to run before it sends SIGTERM; nothing where that is the signal."""
    if checkpoint.command:
        return list(checkpoint.command)
    if checkpoint.signal == "SIGTERM":
        return []
    name = checkpoint.signal.removeprefix("SIG")
    return ["/bin/sh", "-c", f"kill -s {name} 1 && sleep {grace_s}"]  # until the program ends, or SIGKILL comes


def _show_annotation(spec: dict[str, Any]) -> None:
    field = {"fieldPath": f"metadata.annotations['{NOTICE}']"}
    volume = {"name": _VOLUME, "downwardAPI": {"items": [{"path": NOTICE_FILE, "fieldRef": field}]}}
    spec["volumes"] = [*(spec.get("volumes") or []), volume]
    mount: Mapping[str, Any] = {"name": _VOLUME, "mountPath": NOTICE_DIR, "readOnly": True}
    for container in spec.get("containers") or []:
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
