"""Every Prometheus series, its labels and its help, on one page. `docs/reference/metrics.md` says the same for people.

Labels have few values by construction: reasons, phases, verbs, kinds. No series is per gang, per user or per device.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from fairlead.errors import MissingExtra
from fairlead.ledger.anomalies import Finding
from fairlead.model.quota_exception import QuotaException
from fairlead.reports.budgets import BudgetStanding
from fairlead.world.promises import PromiseBook
from fairlead.world.views import Fragmentation, GangView, PoolView

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
except ImportError as missing:  # pragma: no cover - the extra is installed wherever tests run
    raise MissingExtra("metrics need prometheus-client: pip install 'fairlead[operator]'") from missing

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter, which nobody asks for

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_CYCLE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PLACE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)  # 30 s is the bound of promise P1


class RoomGauges:
    """The series that say how broken up the free GPUs are."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.stranded_gpus = Gauge(
            "fairlead_stranded_gpus", "Free GPUs, and parts of GPUs, that no request of late could use.", registry=r
        )
        self.shared_free_gpus = Gauge(
            "fairlead_shared_free_gpus", "What is left of GPUs that somebody has a part of, in GPUs.", registry=r
        )
        self.largest_gang_gpus = Gauge(
            "fairlead_largest_gang_gpus",
            "Whole free GPUs of one model in one domain of a level, where there are most.",
            ["level"],
            registry=r,
        )
        self.largest_gang_nodes = Gauge(
            "fairlead_largest_gang_nodes",
            "Wholly free nodes of one GPU model in one domain of a level, where there are most.",
            ["level"],
            registry=r,
        )
        self.pending_although_free = Gauge(
            "fairlead_pending_although_free_gangs",
            "Gangs that wait although as many GPUs as they ask for are free somewhere.",
            registry=r,
        )

    def observe(self, found: Fragmentation) -> None:
        """Set them; levels that are there no more are not told."""
        self.stranded_gpus.set(found.stranded_milli / 1000)
        self.shared_free_gpus.set(found.shared_free_milli / 1000)
        self.pending_although_free.set(found.pending_although_free)
        self.largest_gang_gpus.clear()
        self.largest_gang_nodes.clear()
        for room in found.largest:
            self.largest_gang_gpus.labels(level=room.level).set(room.gpus)
            self.largest_gang_nodes.labels(level=room.level).set(room.nodes)


class PolicyGauges:
    """The series that say what is excepted from the rules."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.exceptions = Gauge(
            "fairlead_quota_exceptions", "Quota exceptions by state: Pending, Active, Expired.", ["state"], registry=r
        )
        self.budgets = Gauge(
            "fairlead_budget_spent_ratio", "What a queue has used of its budget in this period.", ["queue"], registry=r
        )
        self.costs = Gauge(
            "fairlead_cost_anomalies",
            "Alarms on what a queue cost today or yesterday, by kind; absent where there are none.",
            ["queue", "kind"],
            registry=r,
        )

    def observe_costs(self, alarms: Iterable[Finding]) -> None:
        """Count what alarms, by queue and kind."""
        self.costs.clear()
        for (queue, kind), count in Tally((one.queue, one.kind.value) for one in alarms).items():
            self.costs.labels(queue=queue, kind=kind).set(count)

    def observe_budgets(self, standings: Iterable[BudgetStanding]) -> None:
        """Set the share of each budget that is used."""
        self.budgets.clear()
        for standing in standings:
            self.budgets.labels(queue=standing.queue).set(standing.used / standing.amount)

    def observe(self, exceptions: Iterable[QuotaException], now_ms: int) -> None:
        """Set them from all exceptions there are."""
        states = Tally(one.state_at(now_ms) for one in exceptions)
        for state in ("Pending", "Active", "Expired"):
            self.exceptions.labels(state=state).set(states[state])


class PromiseGauges:
    """The series about promised starts."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.standing = Gauge("fairlead_promises", "Gangs that wait and are promised a latest start.", registry=r)
        self.kept = Gauge("fairlead_promises_kept", "Promised starts that were kept, since the start.", registry=r)
        self.broken = Gauge(
            "fairlead_promises_broken",
            "Promised starts that were broken, by token of the cause, since the start.",
            ["cause"],
            registry=r,
        )

    def observe(self, book: PromiseBook) -> None:
        """Set them."""
        self.standing.set(len(book.standing))
        self.kept.set(book.kept)
        for cause, count in book.breaches().items():
            self.broken.labels(cause=cause).set(count)


class SavingGauges:
    """The series about checkpoints."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.asked = Gauge("fairlead_gangs_asked_to_save", "Gangs whose stop waits for a checkpoint.", registry=r)
        self.false_claims = Gauge(
            "fairlead_false_checkpoint_claims", "Markers of gangs that are there which could not be true.", registry=r
        )

    def observe(self, views: Iterable[GangView]) -> None:
        """Set them from all gangs."""
        found = [view.checkpoint for view in views if view.checkpoint is not None]
        self.asked.set(sum(view.until_ms is not None for view in found))
        self.false_claims.set(sum(view.false_claims for view in found))


class IdleGauges:
    """The series about jobs that hold devices and do not use them, in queues that have a rule about it."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.gangs = Gauge(
            "fairlead_idle_gangs", "Running gangs, all of whose devices are idle for too long.", registry=r
        )
        self.gpus = Gauge("fairlead_idle_gpus", "GPUs that such gangs hold, in parts or whole.", registry=r)

    def observe(self, views: Iterable[GangView]) -> None:
        """Set them from all gangs."""
        held = [view.placement.gpu_milli for view in views if view.idle_ms is not None and view.placement is not None]
        self.gangs.set(len(held))
        self.gpus.set(sum(held) / 1000)


class LedgerSeries:
    """The series about the books."""

    def __init__(self, r: CollectorRegistry) -> None:
        """Create them in a registry."""
        self.behind_seconds = Gauge(
            "fairlead_ledger_behind_seconds", "Age of the oldest fact that is not in the books yet.", registry=r
        )
        self.entries = Counter("fairlead_ledger_entries_total", "Entries added to the ledger.", registry=r)
        self.head_number = Gauge(
            "fairlead_ledger_head_number", "Number of the last entry of the ledger's chain.", registry=r
        )
        self.period_number = Gauge(
            "fairlead_ledger_period_number", "Number of the last step of the chain of periods.", registry=r
        )


class Metrics:
    """The series of one process. A registry of its own, so that two may live in one test."""

    def __init__(self) -> None:
        """Create every series at once: one that is absent until something happens cannot be alerted on."""
        self.registry = CollectorRegistry()
        r = self.registry
        self.cycle_seconds = Histogram(
            "fairlead_cycle_seconds", "Time of one scheduling cycle.", buckets=_CYCLE_BUCKETS, registry=r
        )
        self.pending_gangs = Gauge(
            "fairlead_pending_gangs", "Gangs that wait, by reason token.", ["reason"], registry=r
        )
        self.gangs = Gauge("fairlead_gangs", "Gangs by phase.", ["phase"], registry=r)
        self.gpus = Gauge("fairlead_gpus", "GPUs of all pools: free, held, foreign, down.", ["state"], registry=r)
        self.room = RoomGauges(r)
        self.policy, self.promises, self.saving = PolicyGauges(r), PromiseGauges(r), SavingGauges(r)
        self.idle = IdleGauges(r)
        self.ledger = LedgerSeries(r)
        self.place_seconds = Histogram(
            "fairlead_place_seconds",
            "Time from the start of writing a placement to its last binding, or to its failure.",
            ["outcome"],
            buckets=_PLACE_BUCKETS,
            registry=r,
        )
        self.effects_in_flight = Gauge("fairlead_effects_in_flight", "Effects that are being carried out.", registry=r)
        self.undo_backlog = Gauge(
            "fairlead_undo_backlog", "Failed attempts that still have objects to take away.", registry=r
        )
        self.write_errors = Counter(
            "fairlead_write_errors_total",
            "Writes that the API server refused or did not answer, by verb and code (0: no answer).",
            ["verb", "code"],
            registry=r,
        )
        self.write_conflicts = Counter(
            "fairlead_write_conflicts_total", "Writes that met a newer version of their object.", registry=r
        )
        self.watch_lag_seconds = Gauge(
            "fairlead_watch_lag_seconds", "Time since a watch last spoke, by resource.", ["resource"], registry=r
        )
        self.drift = Counter(
            "fairlead_drift_total", "Objects that nobody asked for, or that vanished.", ["kind"], registry=r
        )
        self.leader = Gauge("fairlead_leader", "1 while this process holds the lease.", registry=r)
        self.ready = Gauge("fairlead_ready", "1 once state has been rebuilt from the cluster.", registry=r)
        self.status_backlog = Gauge(
            "fairlead_status_backlog", "Statuses that have changed and are not written yet.", registry=r
        )
        self.drift_holds = Gauge(
            "fairlead_drift_holds",
            "Holds on which the scheduler, the books and the claims have disagreed for a minute.",
            registry=r,
        )
        self.violations = Counter(
            "fairlead_violations_total", "Plans that the second check refused; each is a bug.", registry=r
        )

    def observe_gangs(self, views: Iterable[GangView]) -> None:
        """Set the gauges that count gangs, from all of them."""
        phases: Tally[str] = Tally()
        reasons: Tally[str] = Tally()
        views = list(views)
        self.saving.observe(views)
        self.idle.observe(views)
        for view in views:
            phases[view.phase.value] += 1
            if view.phase.value == "Pending" and view.refusal is not None:
                reasons[view.refusal.reason.token] += 1
        for gauge, label, tally in ((self.gangs, "phase", phases), (self.pending_gangs, "reason", reasons)):
            gauge.clear()
            for name, count in sorted(tally.items()):
                gauge.labels(**{label: name}).set(count)

    def observe_exceptions(self, exceptions: Iterable[QuotaException], now_ms: int) -> None:
        """Count the quota exceptions by state."""
        self.policy.observe(exceptions, now_ms)

    def observe_pools(self, views: Iterable[PoolView]) -> None:
        """Set the gauges that count GPUs, from all pools."""
        pools = list(views)
        for state in ("free", "held", "foreign", "down"):
            self.gpus.labels(state=state).set(sum(getattr(pool, state) for pool in pools))

    def observe_fragmentation(self, found: Fragmentation) -> None:
        """Set the gauges that say how broken up the free GPUs are."""
        self.room.observe(found)

    def write_failed(self, verb: str, code: int) -> None:
        """Count a write that was refused (`code` the HTTP status) or not answered (0)."""
        self.write_errors.labels(verb=verb, code=str(code)).inc()
        if code == 409:
            self.write_conflicts.inc()

    def exposition(self) -> bytes:
        """Return the page that Prometheus reads."""
        return bytes(generate_latest(self.registry))
