"""The embedded shell: engine, loop and books of production around the fleet in memory, with the HTTP API in front.

It takes no users and no network: it serves the loopback address, and whoever reaches it may do everything.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from fairlead.errors import NotFound, Unreachable, UnreadableInput
from fairlead.model.events import (
    Event,
    GangGone,
    GangSeen,
    MemberReleased,
    NodeGone,
    NodeSeen,
    PoolSeen,
    PriceBookSeen,
)
from fairlead.model.gang import Gang, GangId
from fairlead.model.prices import PriceBook, check_book
from fairlead.model.rules import Rules
from fairlead.model.tenancy import SHARING_MODES, Pool
from fairlead.service.engine import Cycle, Engine
from fairlead.service.loop import Loop
from fairlead.service.ports import Books
from fairlead.simulation import gangjob_yaml
from fairlead.simulation.dry_run import changes_of, dry_run
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.fleet_cluster import FleetCluster
from fairlead.topology.fleets import FLEETS, build
from fairlead.world.retell import facts_of
from fairlead.world.snapshot import World
from fairlead.world.views import GangView

HOST = "127.0.0.1"
POOL = Pool(name="fleet", node_selector=(("fairlead.dev/pool", "fleet"),), sharing=SHARING_MODES)


Spending = Callable[[World], Sequence[Event]]
"""What the books say that queues have used of their budgets, and whose costs alarm."""
SPENDING_S = 2.0


class Embedded:
    """One fleet and everything around it. `submit` and `delete` are called from the event loop that runs it."""

    def __init__(
        self,
        fleet: str,
        *,
        books: Books,
        start_ms: int,
        speed: int = 1,
        nodes: int | None = None,
        spending: Spending | None = None,
    ) -> None:
        """Build the fleet at virtual time `start_ms`. Raises UnreadableInput for one that is unknown."""
        if fleet not in FLEETS:
            raise UnreadableInput(f"--fleet: there is no fleet {fleet!r}; use one of: {', '.join(FLEETS)}")
        self.engine = Engine(Rules())
        self.fleet = Fleet(build(fleet, nodes, pool=POOL.name), seed=start_ms)
        self.cluster = FleetCluster(self.fleet, start_ms=start_ms, speed=speed, on_views=self._on_views)
        self.books, self._spending = books, spending
        self.loop = Loop(self.engine, self.cluster, books, self.cluster.now_ms, on_cycle=self._on_cycle)
        self._gangs: dict[tuple[str, str], Gang] = {}
        self._priorities: dict[str, int] = {}
        self._books: dict[str, PriceBook] = {}
        self._submitted = 0
        self._expiring: set[GangId] = set()
        self.loop.put(PoolSeen(pool=POOL, at_ms=start_ms), *self.fleet.initial(start_ms))

    @property
    def ready(self) -> bool:
        """Whether the first cycle has been decided."""
        return self.loop.stats.cycles > 0

    def submit(self, text: str, namespace: str) -> Sequence[str]:
        """Take in documents, all or none; a GangJob that is there already is changed as far as it may be.

        Raises
        ------
        UnreadableInput
            A document cannot be read, or changes what may not be changed; the text names the field.
        """
        now_ms = self.cluster.now_ms()
        found = gangjob_yaml.read(
            text, now_ms=now_ms, new_id=self._new_id, priorities=self._priorities, namespace=namespace
        )
        gangs = [self._as_change(gang) for gang in found.gangs]
        books = {**self._books, **{book.name: book for book in found.books}}
        for book in found.books:
            check_book(
                book, [other for name, other in books.items() if name != book.name], field=f"PriceBook {book.name}"
            )
        self._priorities, self._books = dict(found.priorities), books
        facts: list[Event] = [*found.queue_facts(now_ms)]
        facts += [PriceBookSeen(book=book, at_ms=now_ms) for book in found.books]
        for pool in found.pools:
            facts += self._pool_facts(pool, now_ms)
        for gang in gangs:
            run = next((run for gang_id, run in found.runs.items() if gang_id == gang.id), None)
            if run is not None:
                self.fleet.declare(gang.id, run)
            self._gangs[gang.namespace, gang.name] = gang
            facts.append(GangSeen(gang=gang, at_ms=now_ms))
        self.loop.put(*facts)
        names = [*(f"Queue/{queue.name}" for queue in found.queues), *(f"Pool/{pool.name}" for pool in found.pools)]
        names += [f"QuotaException/{one.name}" for one in found.exceptions]
        names += [f"PriceBook/{book.name}" for book in found.books]
        names += ["Switchboard/cluster"] if found.switches is not None else []
        return [*names, *(f"GangJob/{gang.full_name}" for gang in gangs)]

    def dry_run(self, text: str, deleted: Sequence[str]) -> Callable[[], dict[str, object]]:
        """Return the work that finds out what a change of policy would do; it may be done in a thread.

        Raises
        ------
        UnreadableInput
            The change cannot be read, or is none of policy.
        """
        now_ms, state = self.cluster.now_ms(), self.engine.state
        found = gangjob_yaml.read(text, now_ms=now_ms, new_id=lambda _, name: GangId(name), priorities=self._priorities)
        changes, world = changes_of(found, deleted, state, now_ms), list(facts_of(state, now_ms))
        return lambda: dry_run(world, changes, state.plain_rules, now_ms)

    def delete(self, namespace: str, name: str) -> None:
        """Ask for a gang's end. Raises NotFound."""
        gang = self._gangs.pop((namespace, name), None)
        if gang is None:
            raise NotFound(f"there is no GangJob {namespace}/{name}")
        self.loop.put(GangGone(gang=gang.id, at_ms=self.cluster.now_ms()))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then the fleet is gone, and the books are told so."""
        pump = asyncio.create_task(self.cluster.pump(self.loop.put, stop))
        telling = asyncio.create_task(self._tell_spending(stop))
        try:
            await self.loop.run(stop)
        finally:
            stop.set()
            await asyncio.gather(pump, telling)
            self.books.record(self._end(self.cluster.now_ms()), self.cluster.now_ms())

    async def _tell_spending(self, stop: asyncio.Event) -> None:
        """Tell the scheduler now and then what the books say of budgets, and of costs that alarm."""
        while self._spending is not None and not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SPENDING_S)
            world = self.engine.world(self.cluster.now_ms())
            if not stop.is_set() and world.force.capped:
                with suppress(Unreachable):
                    self.loop.put(*await asyncio.to_thread(self._spending, world))

    def _end(self, now_ms: int) -> list[Event]:
        """Facts that close what is open: a fleet in memory does not outlive its process."""
        facts: list[Event] = []
        for (gang, attempt), pods in sorted(self.fleet.pods.items()):
            ranks = [rank for rank in sorted(pods.by_rank) if rank not in pods.released]
            facts += [MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=now_ms) for rank in ranks]
        return [*facts, *(NodeGone(name=name, at_ms=now_ms) for name in sorted(self.fleet.nodes))]

    def _on_cycle(self, cycle: Cycle, took_ms: int) -> None:
        self.cluster.wake_at(cycle.wake_at_ms)

    def _on_views(self, views: Sequence[GangView]) -> None:
        for view in views:
            if view.finished_ms is not None:
                self._expire_later(view, view.finished_ms)

    def _expire_later(self, view: GangView, finished_ms: int) -> None:
        """Let a finished gang go when its ttl is over, unless it is gone by then."""
        gang = self._gangs.get((view.namespace, view.name))
        if gang is None or gang.id != view.id or gang.ttl_ms is None or view.id in self._expiring:
            return
        self._expiring.add(gang.id)

        def expire(now_ms: int) -> None:
            self._expiring.discard(gang.id)
            if self._gangs.get((gang.namespace, gang.name)) is not None:
                self.delete(gang.namespace, gang.name)

        self.fleet.call(finished_ms + gang.ttl_ms, expire)

    def _new_id(self, namespace: str, name: str) -> GangId:
        self._submitted += 1
        return GangId(f"{namespace}.{name}.{self.cluster.now_ms()}-{self._submitted}")

    def _as_change(self, gang: Gang) -> Gang:
        """Return `gang` with the identity of the one of its name, where there is one."""
        old = self._gangs.get((gang.namespace, gang.name))
        if old is None:
            return gang
        if gang.queue != old.queue:
            raise UnreadableInput("spec.queue is immutable; create a new GangJob to use another queue")
        shapes = [[(r.name, r.replicas, r.gpus, r.share, r.mig) for r in one.roles] for one in (gang, old)]
        if shapes[0] != shapes[1]:
            fixed = "names, replicas and devices.count, share and mig"
            raise UnreadableInput(f"spec.roles: {fixed} are immutable; create a new GangJob")
        return replace(gang, id=old.id, submitted_ms=old.submitted_ms)

    def _pool_facts(self, pool: Pool, now_ms: int) -> list[Event]:
        """A pool takes the nodes whose labels it selects."""
        facts: list[Event] = [PoolSeen(pool=pool, at_ms=now_ms)]
        wanted = set(pool.node_selector)
        for name, node in sorted(self.fleet.nodes.items()):
            if wanted <= set(node.labels) and node.pool != pool.name:
                self.fleet.nodes[name] = replace(node, pool=pool.name)
                facts.append(NodeSeen(node=self.fleet.nodes[name], at_ms=now_ms))
        return facts


def listen(port: int) -> socket.socket:
    """Return a socket on the loopback address; port 0 takes a free one. Raises Unreachable where it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # whoever calls before the server runs waits, and is not turned away
    except (OSError, OverflowError) as problem:
        listener.close()
        raise Unreachable(f"--port: {HOST}:{port} cannot be listened on ({problem}); use another port") from problem
    return listener
