"""What has been asked for lately, counted per kind of pod: the mix that a placement score learns from.

Only arrivals count, never who waits or runs, so that the mix can be built again from the facts alone. The mix is
renewed after 8, 16, 32, ... arrivals, because every renewal makes cached scores of the whole fleet worthless. Memory is
bounded: at 16,384 counted pods all counts are halved, so old arrivals fade, and rare kinds fall out first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from fairlead.model.gang import Gang, Role

FIRST_RENEWAL = 8
WINDOW = 16_384  # pods; about one day of a busy cluster, and enough that a kind of 1 % is known to a tenth
RENEWALS_IN_WINDOW = 4_096
KINDS_MAX = 512  # kinds kept; each costs a column of the score's tables only while it is among the most asked for
PROFILES_MAX = 64  # MIG profiles kept; all GPUs that are sold have fewer together
REPLICAS_MAX = 64  # one gang counts as at most so many pods, so that a single giant is not the whole mix


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What a pod asks for, and with how many others.

    `gpu_milli` is per GPU: 1000 for whole ones. `models` are alternatives, folded and sorted; () takes any model.
    `replicas` pods start together, inside one domain of level `within` ("" asks for none).
    """

    cpu_milli: int
    gpu_milli: int
    gpus: int
    models: tuple[str, ...] = ()
    replicas: int = 1
    within: str = ""

    @property
    def pod_milli(self) -> int:
        """Thousandths of a GPU that one pod takes."""
        return self.gpus * self.gpu_milli


@dataclass(frozen=True, slots=True)
class Mix:
    """The arrivals as they were counted at one moment. `pods` are per kind, most asked for first, ties larger kind.

    `profiles` are (MIG profile, pods), most asked for first.
    """

    version: int = 0
    kinds: tuple[Kind, ...] = ()
    pods: tuple[int, ...] = ()
    profiles: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class Arrivals:
    """Counts of pods per kind; owned by whoever owns the facts. `mix` is a value and may be kept.

    Two Arrivals that counted the same kinds in the same order have equal mixes.
    """

    mix: Mix = Mix()
    _pods: dict[Kind, int] = field(default_factory=dict[Kind, int])
    _instances: dict[str, int] = field(default_factory=dict[str, int])
    _since_halving: int = 0
    _next_renewal: int = FIRST_RENEWAL

    def count(self, kind: Kind) -> bool:
        """Count one arrival of `kind`, with all its replicas; returns whether the mix is a new one."""
        pods = min(kind.replicas, REPLICAS_MAX)
        self._pods[kind] = self._pods.get(kind, 0) + pods
        if len(self._pods) > 2 * KINDS_MAX:
            self._pods = dict(self._ranked()[:KINDS_MAX])
        return self._counted(pods)

    def count_instances(self, profile: str, replicas: int) -> bool:
        """Count one arrival of so many pods with a MIG instance each; returns whether the mix is a new one."""
        pods = min(replicas, REPLICAS_MAX)
        self._instances[profile] = self._instances.get(profile, 0) + pods
        if len(self._instances) > 2 * PROFILES_MAX:
            self._instances = dict(self._ranked_profiles())
        return self._counted(pods)

    def _counted(self, pods: int) -> bool:
        self._since_halving += pods
        if self._since_halving >= WINDOW:
            self._halve()
        if self._since_halving < self._next_renewal:
            return False
        self._renew()
        return True

    def _halve(self) -> None:
        self._pods = {kind: pods // 2 for kind, pods in self._pods.items() if pods > 1}
        self._instances = {name: pods // 2 for name, pods in self._instances.items() if pods > 1}
        self._since_halving //= 2
        self._next_renewal = self._since_halving

    def _renew(self) -> None:
        ranked = self._ranked()[:KINDS_MAX]
        self.mix = Mix(
            self.mix.version + 1,
            tuple(kind for kind, _ in ranked),
            tuple(pods for _, pods in ranked),
            tuple(self._ranked_profiles()),
        )
        while self._next_renewal <= self._since_halving:
            self._next_renewal += min(self._next_renewal, RENEWALS_IN_WINDOW)

    def _ranked_profiles(self) -> list[tuple[str, int]]:
        return sorted(self._instances.items(), key=lambda item: (-item[1], item[0]))[:PROFILES_MAX]

    def _ranked(self) -> list[tuple[Kind, int]]:
        return sorted(sorted(self._pods.items(), reverse=True), key=lambda item: -item[1])


def kinds_of(gang: Gang) -> tuple[Kind, ...]:
    """Return what a gang counts as, a kind a role. Roles of MIG instances are counted by profile (`instances_of`)."""
    return tuple(_kind(gang, role) for role in gang.roles if not role.mig and role.replicas > 0)


def instances_of(gang: Gang) -> tuple[tuple[str, int], ...]:
    """Return (profile, pods) of the roles whose pods get a MIG instance."""
    return tuple((role.mig, role.replicas) for role in gang.roles if role.mig and role.replicas > 0)


@functools.lru_cache(maxsize=4_096)
def models_of(text: str) -> tuple[str, ...]:
    """Return the alternatives of a list such as ``A100|H100``, folded and sorted, each once; () for an empty text."""
    return tuple(sorted({part for raw in text.split("|") if (part := raw.strip().casefold())}))


def is_of(models: tuple[str, ...], name: str) -> bool:
    """Whether a GPU's model is one of those in what `models_of` returns: its name holds one, whatever the case.

    One with an equals sign in front, ``=H100``, is that name exactly.
    """
    folded = name.casefold()
    return not models or any(part[1:] == folded if part.startswith("=") else part in folded for part in models)


def _kind(gang: Gang, role: Role) -> Kind:
    wish = role.topology or gang.topology
    return Kind(
        cpu_milli=role.pod.requests.cpu_milli,
        gpu_milli=role.share.milli if role.share is not None else 1000 if role.gpus else 0,
        gpus=1 if role.share is not None else role.gpus,
        models=models_of(role.gpu_model),
        replicas=role.replicas,
        within=wish.within if wish is not None and wish.required and wish.within != "cluster" else "",
    )
