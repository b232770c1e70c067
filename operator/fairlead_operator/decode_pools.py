"""From Pool objects to the scheduler's pools. Pure; what cannot be honoured is refused with the field and the mend."""

from __future__ import annotations

from fairlead.errors import UnreadableInput
from fairlead.model.gang import ServiceClass
from fairlead.model.needs import amount_of, resource_name
from fairlead.model.protection import Protection, Spares, protection_problem, spares_problem
from fairlead.model.service_classes import Borrows, OwnTerms
from fairlead.model.tenancy import MIG_MODES, SHARING_BY_DEFAULT, SHARING_MODES, LevelBudget, Pool
from fairlead.placement.sharing import pool_problem
from fairlead.units import duration_ms
from fairlead_operator.custom_objects import PoolObject
from fairlead_operator.decode import service_classes
from fairlead_operator.decode_saving import checkpoint_bandwidth
from fairlead_operator.pool_objects import PoolSpec, ProtectionSpec, windows_of


def decode_pool(found: PoolObject) -> Pool:
    """Return a pool.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    name, spec = found.metadata.name, found.spec
    if spec.mode != "dra":
        raise UnreadableInput(f"Pool {name}: spec.mode {spec.mode} is not supported yet; use dra")
    if not spec.node_selector:
        raise UnreadableInput(f"Pool {name}: spec.nodeSelector is empty; name at least one label")
    sharing = SHARING_BY_DEFAULT if spec.sharing is None else spec.sharing
    if unknown := sorted(set(sharing) - set(SHARING_MODES)):
        raise UnreadableInput(f"Pool {name}: spec.sharing: {unknown[0]!r}; use {', '.join(SHARING_MODES)}")
    if shared := [mode for mode in sharing if mode != "mig"]:
        raise UnreadableInput(f"Pool {name}: spec.sharing: mode dra cannot carry {shared[0]} yet; use mig or nothing")
    if spec.serving_on_time_slices:
        raise UnreadableInput(f"Pool {name}: spec.servingOnTimeSlices: mode dra cannot carry time slices; remove it")
    if spec.mig not in MIG_MODES:
        raise UnreadableInput(f"Pool {name}: spec.mig {spec.mig!r} is not known; use {' or '.join(MIG_MODES)}")
    if spec.mig == "dynamic":
        raise UnreadableInput(f"Pool {name}: spec.mig dynamic: mode dra cannot cut GPUs anew yet; use static")
    pool = Pool(
        name=name,
        node_selector=tuple(sorted(spec.node_selector.items())),
        service_classes=service_classes(f"Pool {name}", spec.service_classes),
        taint=spec.taint,
        driver=spec.driver,
        device_class=spec.device_class_name,
        mig_device_class=spec.mig_device_class_name,
        sharing=tuple(mode for mode in SHARING_MODES if mode in sharing),
        mig_mode=spec.mig,
        budgets=_budgets(name, spec),
        checkpoint_bytes_per_s=checkpoint_bandwidth(name, spec),
        protected=tuple(_protection(name, at, said) for at, said in enumerate(spec.protected)),
        ceiling_percent=_ceiling(name, spec),
        spares=_spares(name, spec),
        class_terms=_terms(name, spec),
    )
    if problem := pool_problem(pool):
        raise UnreadableInput(f"Pool {name}: {problem}")
    return pool


def _protection(pool: str, number: int, said: ProtectionSpec) -> Protection:
    """Convert one protected amount with its windows."""
    at = f"Pool {pool}: spec.protected[{number}]"
    found = Protection(
        service_class=_service_class(f"{at}.serviceClass", said.service_class),
        gpus=said.gpus,
        redundancy=said.redundancy,
        windows=windows_of(said.windows, field=f"{at}.windows"),
        lead_ms=duration_ms(said.lead, field=f"{at}.lead"),
        lend_gpus=said.lend_gpus,
        return_within_ms=duration_ms(said.return_within, field=f"{at}.returnWithin"),
        unit_gpus=said.unit_gpus,
    )
    if problem := protection_problem(found):
        raise UnreadableInput(f"{at}.{problem}")
    return found


def _ceiling(pool: str, spec: PoolSpec) -> int | None:
    if spec.ceiling_percent is not None and not 1 <= spec.ceiling_percent <= 99:
        raise UnreadableInput(f"Pool {pool}: spec.ceilingPercent: {spec.ceiling_percent} is outside 1..99")
    return spec.ceiling_percent


def _spares(pool: str, spec: PoolSpec) -> Spares | None:
    if spec.spares is None:
        return None
    at, said = f"Pool {pool}: spec.spares", spec.spares
    found = Spares(
        warm_gpus=said.warm_gpus,
        service_class=_service_class(f"{at}.serviceClass", said.service_class),
        hot_nodes=said.hot_nodes,
    )
    if problem := spares_problem(found):
        raise UnreadableInput(f"{at}.{problem}")
    return found


def _terms(pool: str, spec: PoolSpec) -> tuple[OwnTerms, ...]:
    found: dict[ServiceClass, OwnTerms] = {}
    for number, said in enumerate(spec.class_terms):
        at = f"Pool {pool}: spec.classTerms[{number}]"
        name = _service_class(f"{at}.serviceClass", said.service_class)
        if name in found:
            raise UnreadableInput(f"{at}.serviceClass: {name} stands there twice; remove one")
        if said.borrows not in tuple(Borrows):
            raise UnreadableInput(f"{at}.borrows: {said.borrows!r} is not one of: {', '.join(Borrows)}")
        found[name] = OwnTerms(service_class=name, borrows=Borrows(said.borrows))
    return tuple(found.values())


def _service_class(where: str, name: str) -> ServiceClass:
    if name not in tuple(ServiceClass):
        raise UnreadableInput(f"{where}: {name!r} is not one of: {', '.join(ServiceClass)}")
    return ServiceClass(name)


def _budgets(pool: str, spec: PoolSpec) -> tuple[LevelBudget, ...]:
    """Convert what domains have of resources that live above the node."""
    budgets: list[LevelBudget] = []
    for number, found in enumerate(spec.budgets):
        at = f"Pool {pool}: spec.budgets[{number}]"
        if not found.level:
            raise UnreadableInput(f"{at}.level: is empty; name a level such as rack")
        name = resource_name(found.resource, field=f"{at}.resource")
        if any((found.level, name) == (known.level, known.resource) for known in budgets):
            raise UnreadableInput(f"{at}: {found.level} has a budget of {name} already; remove one of them")
        amount = amount_of(found.amount, field=f"{at}.amount")
        budgets.append(LevelBudget(level=found.level, resource=name, amount=amount))
    return tuple(budgets)
