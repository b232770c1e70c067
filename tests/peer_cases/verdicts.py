"""What comes of one case, and the parts that all converters share: amounts, pods' requests, the run itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.simulation.scenario_file import read_document
from fairlead.simulation.scenario_run import Outcome, run
from fairlead.units import quantity, quantity_milli

Case = dict[str, Any]
GPU = "nvidia.com/gpu"
OTHER_VICTIMS = "other victims, and no more is lost with them"
MOST_GPUS = 63  # a node has no more of ours; larger amounts are plain resources


@dataclass(frozen=True)
class Verdict:
    """`state` is law, taste or not_modelled; `rule` the one that made it so; `why` what a law case broke.

    `waived` are taste rules that left a difference uncompared in a case that passed otherwise. `evicts`: it
    is about who is stopped.
    """

    name: str
    state: str
    rule: str = ""
    why: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    stable: bool = True
    evicts: bool = False


def unwritable(name: str, problem: UnreadableInput) -> Verdict:
    """A world that our own reader refuses is a fault of the converter, and counts as a broken law."""
    return Verdict(name, "law", why=(f"the world could not be written: {problem}",))


def failed(name: str, problem: Exception) -> Verdict:
    """A line that stopped the tool counts as a broken law too; the other lines go on."""
    return Verdict(name, "law", why=(f"the tool failed: {type(problem).__name__}: {problem}",))


@dataclass
class Comparison:
    """Collects what differs: broken laws, and differences that a rule of taste covers."""

    broken: list[str] = field(default_factory=list)
    waived: list[str] = field(default_factory=list)

    def law(self, holds: bool, text: str) -> None:
        """A law that must hold."""
        if not holds:
            self.broken.append(text)

    def taste(self, equal: bool, rule: str) -> None:
        """A difference that is no law."""
        if not equal:
            self.waived.append(rule)

    def verdict(self, name: str, outcome: Outcome) -> Verdict:
        """Close the case; a world that does not stay still has broken a law of its own."""
        self.law(outcome.stable, f"not stable: {'; '.join(outcome.violations) or 'it moved after it had settled'}")
        return Verdict(name=name, state="law", why=tuple(self.broken), waived=tuple(self.waived), stable=outcome.stable)


def stopped_for_others(outcome: Outcome) -> set[str]:
    """Return who is stopped for a gang that waited at first.

    A peer's case ends with the first decision. What is stopped for a job that was itself stopped comes after it.
    """
    victims = {victim.gang for victim in outcome.victims}
    return {victim.gang for victim in outcome.victims if victim.by and victim.by not in victims}


def compare_victims(ours: Mapping[str, int], theirs: Mapping[str, int], comparison: Comparison) -> None:
    """Compare who is stopped, name -> GPUs held: as good as the peer's choice is who loses the work of no more GPUs.

    Where the peer stops somebody and we stop nobody, who does not start says so.
    """
    if ours.keys() == theirs.keys() or not ours:
        return
    if theirs and sum(ours.values()) <= sum(theirs.values()):
        comparison.taste(False, OTHER_VICTIMS)
    else:
        comparison.law(False, f"stopped {sorted(ours)}, {sorted(theirs) or 'nobody'} would do")


def exact_shares(
    amount: Fraction, queues: Mapping[str, tuple[Fraction, Fraction]], asked: Mapping[str, Fraction]
) -> dict[str, Fraction]:
    """Divide between siblings, name -> (quota, weight): quota first, then what is left by weight, as far as asked."""
    share = {name: min(quota, asked.get(name, Fraction(0))) for name, (quota, _) in queues.items()}
    left = amount - sum(share.values())
    while left > 0:
        open_ = {name: weight for name, (_, weight) in queues.items() if weight and share[name] < asked.get(name, 0)}
        if not open_:
            break
        step = min((asked[name] - share[name]) / weight for name, weight in open_.items())
        step = min(step, left / sum(open_.values()))
        for name, weight in open_.items():
            share[name] += step * weight
            left -= step * weight
    return share


def payable(queues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut guarantees that together are above their parent's, or above its limit, in proportion to what there is.

    A peer hands out what a parent has; ours would refuse to write such a tree.
    """
    found = {queue["name"]: dict(queue) for queue in queues}
    below: dict[str, list[str]] = {}
    for name, queue in found.items():
        if "limit" in queue:
            queue["guaranteed"] = min(queue["guaranteed"], queue["limit"])
        if queue.get("parent"):
            below.setdefault(queue["parent"], []).append(name)
    ready = [name for name, queue in found.items() if not queue.get("parent")]
    while ready:
        name = ready.pop()
        most = [found[name]["guaranteed"] or None, found[name].get("limit")]
        have = min((bound for bound in most if bound is not None), default=None)
        asked = sum(_promise(child, found, below) for child in below.get(name, ()))
        for child in below.get(name, ()):
            if have is not None and asked > have:
                found[child]["guaranteed"] = have * found[child]["guaranteed"] // asked
            ready.append(child)
    return list(found.values())


def _promise(name: str, queues: Mapping[str, Mapping[str, Any]], below: Mapping[str, Sequence[str]]) -> int:
    """What a queue is guaranteed: its own word, or where it gives none what those below it are."""
    return queues[name]["guaranteed"] or sum(_promise(child, queues, below) for child in below.get(name, ()))


def decide(document: Mapping[str, object], queues: Mapping[str, Mapping[str, Any]] | None = None) -> Outcome:
    """Run a scenario document through the engine; `queues` says of some what a scenario file has no words for."""
    scenario = read_document(document)
    more = queues or {}
    changed = tuple(replace(queue, **more.get(queue.name, {})) for queue in scenario.queues)
    return run(replace(scenario, queues=changed), 200)


def amounts(listed: Mapping[str, Any]) -> Counter[str]:
    """Turn a Kubernetes resource list into whole numbers: cpu in thousandths of a core, all else in units."""
    return Counter(
        {name: quantity_milli(str(value)) if name == "cpu" else quantity(str(value)) for name, value in listed.items()}
    )


def offer(amount: Mapping[str, int], whole_gpus: bool) -> dict[str, object]:
    """Write what a node offers; what the case does not name, the node does not have."""
    return _split(amount, whole_gpus) | {"pods": min(amount.get("pods", 0), 1_000_000)}


def request(amount: Mapping[str, int], whole_gpus: bool) -> dict[str, object]:
    """Write what a pod asks for."""
    return _split({name: value for name, value in amount.items() if value and name != "pods"}, whole_gpus)


def gpus_are_whole(listed: Iterable[Mapping[str, int]]) -> bool:
    """Whether `nvidia.com/gpu` of these nodes and pods can be devices of ours."""
    return all(amount.get(GPU, 0) <= MOST_GPUS for amount in listed)


def _split(amount: Mapping[str, int], whole_gpus: bool) -> dict[str, object]:
    known = {"cpu", "memory", "ephemeral-storage", "pods"} | ({GPU} if whole_gpus else set())
    words: dict[str, object] = {
        "cpu": f"{amount.get('cpu', 0)}m",
        "memory": amount.get("memory", 0),
        "ephemeralStorage": amount.get("ephemeral-storage", 0),
        "extended": {name: value for name, value in sorted(amount.items()) if name not in known},
    }
    if whole_gpus:
        words["gpus"] = amount.get(GPU, 0)
    return words


def fits(amount: Mapping[str, int], free: Mapping[str, int]) -> int:
    """Return how many pods that ask for `amount` (and one pod each) a node with `free` could take."""
    asked = {**amount, "pods": 1}
    return min(max(0, free.get(name, 0)) // value for name, value in asked.items() if value > 0)


def tolerations(listed: Iterable[Mapping[str, Any]] | None) -> list[dict[str, object]]:
    """Write a pod's tolerations."""
    return [
        {name: toleration[name] for name in ("key", "operator", "value", "effect") if toleration.get(name)}
        for toleration in listed or ()
    ]


def taints(listed: Iterable[Mapping[str, Any]] | None) -> list[dict[str, object]]:
    """Write a node's taints."""
    return [{name: taint[name] for name in ("key", "value", "effect") if taint.get(name)} for taint in listed or ()]


def required_affinity(affinity: Mapping[str, Any] | None) -> list[dict[str, object]] | None:
    """Write the required node affinity, given a pod's ``nodeAffinity``; None where there is none."""
    required = (affinity or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return None
    return [
        {
            "all": [
                {"key": one["key"], "operator": one["operator"], "values": one.get("values") or []}
                for one in [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
            ]
        }
        for term in required["nodeSelectorTerms"]
    ]


def only_on(affinity: object, nodes: Sequence[str]) -> list[dict[str, object]]:
    """Narrow a required affinity, None for none, to some nodes."""
    terms: list[Any] = list(affinity) if isinstance(affinity, list) else [{"all": []}]
    named = {"key": "metadata.name", "operator": "In", "values": list(nodes)}
    return [{"all": [*term["all"], named]} for term in terms]
