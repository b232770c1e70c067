"""Pool documents as people write them, read into the model for the embedded shell."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.needs import amount_of, resource_name
from fairlead.model.tenancy import MIG_MODES, SHARING_BY_DEFAULT, SHARING_MODES, LevelBudget, Pool
from fairlead.simulation.fields import DNS_LABEL, Fields


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
    classes, sharing = spec.texts("serviceClasses"), spec.texts("sharing")
    for mode in sharing or ():
        if mode not in SHARING_MODES:
            spec.fail("sharing", f"{mode!r} is not one of: {', '.join(SHARING_MODES)}")
    allowed = SHARING_BY_DEFAULT if sharing is None else sharing
    if spec.boolean("servingOnTimeSlices", False) and "time-slice" not in allowed:
        spec.fail("servingOnTimeSlices", "means nothing unless spec.sharing lists time-slice; remove it")
    pool = Pool(
        name=document.inner("metadata").text("name", pattern=DNS_LABEL),
        node_selector=selector,
        service_classes=None if classes is None else service_classes(spec, classes),
        taint=spec.boolean("taint", True),
        driver=spec.text("driver", "gpu.nvidia.com"),
        device_class=spec.text("deviceClassName", "gpu.nvidia.com"),
        mig_device_class=spec.text("migDeviceClassName", "mig.nvidia.com"),
        sharing=tuple(mode for mode in SHARING_MODES if mode in allowed),
        mig_mode=spec.choice("mig", MIG_MODES, "static"),
        serving_on_time_slices=spec.boolean("servingOnTimeSlices", False),
        budgets=_budgets(spec),
    )
    spec.done()
    document.done()
    return pool


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


def _budgets(spec: Fields) -> tuple[LevelBudget, ...]:
    budgets: list[LevelBudget] = []
    for item in spec.items("budgets"):
        level = item.text("level", pattern=DNS_LABEL)
        name = resource_name(item.text("resource"), field=f"{item.path}.resource")
        if any((level, name) == (known.level, known.resource) for known in budgets):
            raise UnreadableInput(f"{item.path}: {level} has a budget of {name} already; remove one of them")
        amount = item.raw("amount")
        if isinstance(amount, bool) or not isinstance(amount, str | int):
            item.fail("amount", "must be a quantity such as 40000 or 400G")
        budgets.append(LevelBudget(level=level, resource=name, amount=amount_of(amount, field=f"{item.path}.amount")))
        item.done()
    return tuple(budgets)
