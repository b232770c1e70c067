"""A pod template as the fleet in memory understands it; it stands in for the API server's dry run.

Only what decides where a pod may run is read. What a real cluster honours and this fleet does not is refused by name.
"""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import PodShape, Requirement, SelectorTerms, Toleration
from fairlead.model.hardware import Resources
from fairlead.simulation.fields import Fields
from fairlead.units import quantity, quantity_milli

_PLACES = (
    "podAffinity",
    "podAntiAffinity",
)
_REFUSED = {
    "topologySpreadConstraints": "remove it; spread with several GangJobs that each have a nodeSelector",
    "nodeName": "remove it; Fairlead chooses the node",
    "schedulingGates": "remove it; use spec.suspend of the GangJob",
    "resourceClaims": "remove it; ask for GPUs in spec.roles[].devices",
    "initContainers": "the embedded fleet runs no init containers; submit this job to a cluster",
    "volumes": "the embedded fleet has no volumes; submit this job to a cluster",
}
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def read_template(template: Fields) -> PodShape:
    """Return what of a PodTemplateSpec decides placement. An empty template is a pod that asks for nothing.

    Raises
    ------
    UnreadableInput
        A field has the wrong type, or the embedded fleet cannot honour it; the text names the field.
    """
    spec = template.inner("spec")
    for name, mend in _REFUSED.items():
        spec.unsupported(name, mend)
    affinity = spec.inner("affinity")
    for name in _PLACES:
        affinity.unsupported(name, "remove it, or use spec.topology of the GangJob")
    required = affinity.inner("nodeAffinity").inner("requiredDuringSchedulingIgnoredDuringExecution")
    total = Resources(pods=1)
    ports: list[tuple[str, str, int]] = []
    for container in spec.items("containers"):
        total = total.plus(_requests(container))
        for port in container.items("ports"):
            number = port.integer("hostPort", 0, low=0, high=65_535)
            if number:
                ports.append((port.text("protocol", "TCP"), port.text("hostIP", "0.0.0.0"), number))
    return PodShape(
        requests=total,
        node_selector=spec.labels("nodeSelector"),
        affinity=_terms(required) if required.names() else None,
        tolerations=tuple(_toleration(item) for item in spec.items("tolerations")),
        host_ports=tuple(sorted(ports)),
    )


def _requests(container: Fields) -> Resources:
    """Requests of one container; a limit without a request is its request, as in Kubernetes."""
    resources = container.inner("resources")
    amounts: dict[str, str] = {}
    for name in ("limits", "requests"):
        inner = resources.inner(name)
        for key in inner.names():
            amounts[key] = str(inner.raw(key))
    cpu = memory = ephemeral = 0
    extended: list[tuple[str, int]] = []
    for name, amount in sorted(amounts.items()):
        where = f"{resources.path}.requests[{name}]"
        if name == "cpu":
            cpu = quantity_milli(amount, field=where)
        elif name == "memory":
            memory = quantity(amount, field=where)
        elif name == "ephemeral-storage":
            ephemeral = quantity(amount, field=where)
        elif name.startswith("nvidia.com/"):
            raise UnreadableInput(f"{where}: GPUs are asked for in spec.roles[].devices; remove it here")
        else:
            extended.append((name, quantity(amount, field=where)))
    return Resources(cpu_milli=cpu, memory_bytes=memory, ephemeral_bytes=ephemeral, extended=tuple(extended))


def _terms(required: Fields) -> SelectorTerms:
    terms: list[tuple[Requirement, ...]] = []
    for term in required.items("nodeSelectorTerms"):
        requirements: list[Requirement] = []
        for expression in term.items("matchExpressions"):
            requirements.append(_requirement(expression, expression.text("key")))
        for expression in term.items("matchFields"):
            requirements.append(_requirement(expression, expression.choice("key", ("metadata.name",), "metadata.name")))
        terms.append(tuple(requirements))
    return tuple(terms)


def _requirement(expression: Fields, key: str) -> Requirement:
    operator = expression.choice("operator", _OPERATORS, "")
    return Requirement(key=key, operator=operator, values=expression.texts("values") or ())


def _toleration(item: Fields) -> Toleration:
    item.unsupported("tolerationSeconds", "remove it; a gang on a lost node restarts elsewhere by itself")
    return Toleration(
        key=item.text("key", ""),
        operator=item.choice("operator", ("Equal", "Exists"), "Equal"),
        value=item.text("value", ""),
        effect=item.text("effect", ""),
    )
