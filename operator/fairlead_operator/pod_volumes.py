"""Where a pod's volumes let it run: the node affinity of bound volumes, and what unbound ones still need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.model.gang import Requirement, SelectorTerms
from fairlead_operator.custom_objects import PersistentVolume, StorageClass, VolumeClaim
from fairlead_operator.objects import Pod
from fairlead_operator.pod_shape import Problem, selector_terms

_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_ZONE_LABELS = {
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeNeeds:
    """What a pod's volumes ask for. All of `affinity` must match; `unbound` are claims to bind once a node is chosen.

    `problems` are (field inside the template, mend), such as a claim that does not exist.
    """

    affinity: tuple[SelectorTerms, ...] = ()
    unbound: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def claims_of(pod: Pod) -> tuple[str, ...]:
    """Return the names of the PersistentVolumeClaims that a pod mounts, sorted."""
    return tuple(sorted({v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim}))


def volume_needs(
    pod: Pod,
    claims: Mapping[str, VolumeClaim],
    volumes: Mapping[str, PersistentVolume],
    classes: Mapping[str, StorageClass],
) -> VolumeNeeds:
    """Return what the pod's volumes ask for; `claims` are those of its namespace, all three by name."""
    affinity: list[SelectorTerms] = []
    unbound: list[str] = []
    problems: list[Problem] = []
    for name in claims_of(pod):
        field = f"spec.volumes[].persistentVolumeClaim {name}"
        claim = claims.get(name)
        if claim is None:
            problems.append((field, "create that PersistentVolumeClaim in the job's namespace first"))
        elif "ReadWriteOncePod" in claim.spec.access_modes:
            problems.append((field, "use a claim with another access mode than ReadWriteOncePod"))
        elif claim.status.phase == "Lost":
            problems.append((field, "its volume is lost; restore it or use another claim"))
        elif claim.spec.volume_name:
            volume = volumes.get(claim.spec.volume_name)
            if volume is None:
                problems.append((field, f"its PersistentVolume {claim.spec.volume_name} does not exist"))
            else:
                affinity += _reach(volume)
        else:
            storage = classes.get(claim.spec.storage_class_name or "")
            problem = _unbound_problem(storage)
            if problem:
                problems.append((field, problem))
            elif storage is not None:
                unbound.append(name)
                affinity += _allowed(storage)
    return VolumeNeeds(affinity=tuple(affinity), unbound=tuple(unbound), problems=tuple(problems))


def _unbound_problem(storage: StorageClass | None) -> str:
    """Return why an unbound claim cannot wait for its pod; "" where it can."""
    if storage is None or storage.volume_binding_mode != "WaitForFirstConsumer":
        return "wait until it is bound, then submit again"
    if storage.provisioner == _NO_PROVISIONER:
        return "bind it to a volume by hand (spec.volumeName); its StorageClass has no provisioner"
    return ""


def _reach(volume: PersistentVolume) -> Iterable[SelectorTerms]:
    """Return from which nodes a bound volume can be reached, by its node affinity or by the older zone labels."""
    affinity = volume.spec.node_affinity
    if affinity is not None and affinity.required is not None:
        yield selector_terms(affinity.required)
    for label, key in _ZONE_LABELS.items():
        if value := volume.metadata.labels.get(label):
            yield ((Requirement(key=key, operator="In", values=tuple(value.split("__"))),),)


def _allowed(storage: StorageClass) -> Iterable[SelectorTerms]:
    """Return where a StorageClass may provision."""
    if storage.allowed_topologies:
        yield tuple(
            tuple(
                Requirement(key=e.key, operator="In", values=tuple(e.values)) for e in allowed.match_label_expressions
            )
            for allowed in storage.allowed_topologies
        )
