"""Pool documents as people write them, read into the model for the embedded shell."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.needs import amount_of, resource_name
from fairlead.model.saving_rules import SIZE_MAX_BYTES
from fairlead.model.tenancy import MIG_MODES, SHARING_BY_DEFAULT, SHARING_MODES, LevelBudget, Pool
from fairlead.placement.sharing import pool_problem
from fairlead.simulation.fields import DNS_LABEL, Fields
from fairlead.simulation.pool_words import kept_words


def pool_of(document: Fields) -> Pool:
    """Read one Pool. The fleet in memory carries every mode of sharing, which a cluster does not.

    Raises
    ------
    UnreadableInput
        A field is unknown or wrong; the text names it.
    """
    document.ignore("status")
    spec = document.inner("spec")
    spec.choice("mode", ("dra",), "dra")
    selector = spec.labels("nodeSelector")
    if not selector:
        spec.fail("nodeSelector", "is required and may not be empty")
    classes = spec.texts("serviceClasses")
    sharing, mig_mode, serving = sharing_words(spec, SHARING_BY_DEFAULT)
    kept = kept_words(spec)
    pool = Pool(
        name=document.inner("metadata").text("name", pattern=DNS_LABEL),
        node_selector=selector,
        service_classes=None if classes is None else service_classes(spec, classes),
        taint=spec.boolean("taint", True),
        driver=spec.text("driver", "gpu.nvidia.com"),
        device_class=spec.text("deviceClassName", "gpu.nvidia.com"),
        mig_device_class=spec.text("migDeviceClassName", "mig.nvidia.com"),
        sharing=sharing,
        mig_mode=mig_mode,
        serving_on_time_slices=serving,
        budgets=budgets(spec),
        protected=kept.protected,
        ceiling_percent=kept.ceiling_percent,
        spares=kept.spares,
        class_terms=kept.class_terms,
        checkpoint_bytes_per_s=checkpoint_bandwidth(spec),
    )
    if problem := pool_problem(pool):
        raise UnreadableInput(problem)
    spec.done()
    document.done()
    return pool


def sharing_words(spec: Fields, default: tuple[str, ...]) -> tuple[tuple[str, ...], str, bool]:
    """Read how a pool shares GPUs: `sharing` (`default` where it is absent), `mig` and `servingOnTimeSlices`.

    Raises
    ------
    UnreadableInput
        A word is not known, or has no meaning beside the others.
    """
    sharing = spec.texts("sharing")
    for mode in sharing or ():
        if mode not in SHARING_MODES:
            spec.fail("sharing", f"{mode!r} is not one of: {', '.join(SHARING_MODES)}")
    allowed = default if sharing is None else sharing
    serving = spec.boolean("servingOnTimeSlices", False)
    if serving and "time-slice" not in allowed:
        spec.fail("servingOnTimeSlices", "means nothing unless spec.sharing lists time-slice; remove it")
    return tuple(mode for mode in SHARING_MODES if mode in allowed), spec.choice("mig", MIG_MODES, "static"), serving


def service_classes(spec: Fields, names: tuple[str, ...]) -> tuple[ServiceClass, ...]:
    """Return the service classes of these names.

    Raises
    ------
    UnreadableInput
        One is not known.
    """
    known = tuple(member.value for member in ServiceClass)
    for name in names:
        if name not in known:
            spec.fail("serviceClasses", f"{name!r} is not one of: {', '.join(known)}")
    return tuple(ServiceClass(name) for name in names)


def checkpoint_bandwidth(spec: Fields) -> int | None:
    """Read what a pool's storage takes of checkpoints in bytes/s, None for no bound."""
    if not spec.has("checkpointBandwidth"):
        spec.ignore("checkpointBandwidth")
        return None
    found = spec.quantity("checkpointBandwidth")
    if not 1_000_000 <= found <= SIZE_MAX_BYTES:
        spec.fail("checkpointBandwidth", f"{found} bytes/s is not between 1M and 1Pi; write for example 20Gi")
    return found


def budgets(spec: Fields) -> tuple[LevelBudget, ...]:
    """Read a pool's amounts that live above nodes.

    Raises
    ------
    UnreadableInput
        An entry is wrong, or stands there twice.
    """
    found: list[LevelBudget] = []
    for item in spec.items("budgets"):
        level = item.text("level", pattern=DNS_LABEL)
        name = resource_name(item.text("resource"), field=f"{item.path}.resource")
        if any((level, name) == (known.level, known.resource) for known in found):
            raise UnreadableInput(f"{item.path}: {level} has a budget of {name} already; remove one of them")
        amount = item.raw("amount")
        if isinstance(amount, bool) or not isinstance(amount, str | int):
            item.fail("amount", "must be a quantity such as 40000 or 400G")
        found.append(LevelBudget(level=level, resource=name, amount=amount_of(amount, field=f"{item.path}.amount")))
        item.done()
    return tuple(found)
