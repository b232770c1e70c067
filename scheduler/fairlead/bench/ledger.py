"""How fast the books take facts, and how long a month's report takes from large ones.

Two parts in one empty database. First a fleet's facts go through the bookkeeper as in production: meter, journal,
entries, postings and sums, one transaction a batch, both chains. Then the books are filled up to the wanted size with
entries of one month that are chained and summed like any others but have no facts below them, because a report does not
read facts; so these books follow their chain and do not verify against a journal. The report's month is that of a zone
half an hour off the full hours, so that not only sums are read.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.chain import seal
from fairlead.ledger.entry import Entry, EntryKind, Origin, Posting, State, make_entry
from fairlead.ledger.versions import METER
from fairlead.model import codec
from fairlead.model.calendars import Span
from fairlead.model.codec import Cut
from fairlead.model.events import Event, GangSeen, Intended, MemberReleased, NodeSeen, QueueSeen, Started
from fairlead.model.gang import Gang, GangId, Member, Placement, PodShape, Role, Tier
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Queue
from fairlead.reports.booked import By, booked
from fairlead.reports.charges import showback
from fairlead.reports.usage import from_database
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.memory import calm_collector
from fairlead.store import engine as database
from fairlead.store import entries, journal, rollups, snapshots

MONTH_MS = 1_767_225_600_000  # 2026-01-01
MONTH_END_MS = MONTH_MS + 31 * 86_400_000
START_MS = MONTH_MS - 31 * 86_400_000
OFFSET_MS = 19_800_000
"""How much earlier a month begins in India."""
HOUR_MS = 3_600_000
NODES = 300
GPUS = 8
FACTS = 500
"""How many facts the books are given at once."""
LOAD = 20_000
"""How many entries of the month are written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReport:
    """What was measured. `entries_per_second` is of `ingested` entries from `facts`; `report_s` is the longer of the
    two reports on a month, of `rows` queues. `start_s` is how long the books take to begin after these facts, with a
    snapshot of `snapshot_bytes`, `replay_s` how long the meter takes without one."""

    database: str
    entries_per_second: float
    report_s: float
    usage_s: float
    showback_s: float
    ingested: int
    facts: int
    ingest_s: float
    ingest_cpu_s: float
    start_s: float
    replay_s: float
    snapshot_bytes: int
    entries: int
    load_s: float
    queues: int
    rows: int


def run(url: str, *, ingest: int, size: int, queues: int, seed: int = 1) -> LedgerReport:
    """Measure on an empty database, which is full afterwards.

    Raises
    ------
    UnreadableInput
        There are books in it already.
    """
    ingested, count, ingest_s, cpu_s = _ingest(url, ingest, fleet_facts(queues, random.Random(seed)))
    engine = database.connect(url)
    try:
        start_s, replay_s, snapshot_bytes = _begin(url, engine)
        began = time.perf_counter()
        fill(engine, size, queues)
        load_s = time.perf_counter() - began
        month = Span(MONTH_MS - OFFSET_MS, MONTH_END_MS - OFFSET_MS, "")
        began = time.perf_counter()
        from_database(engine, since_ms=month.from_ms, until_ms=month.to_ms, by=By.QUEUE)
        usage_s = time.perf_counter() - began
        began = time.perf_counter()
        report = showback(booked(engine, month, jobs=False), By.QUEUE)
        showback_s = time.perf_counter() - began
        with database.reading(engine) as connection:
            total = entries.head(connection).number
    finally:
        engine.dispose()
    return LedgerReport(
        database=engine.dialect.name,
        entries_per_second=round(ingested / ingest_s, 1),
        report_s=round(max(usage_s, showback_s), 3),
        usage_s=round(usage_s, 3),
        showback_s=round(showback_s, 3),
        ingested=ingested,
        facts=count,
        ingest_s=round(ingest_s, 2),
        ingest_cpu_s=round(cpu_s, 2),
        start_s=round(start_s, 2),
        replay_s=round(replay_s, 2),
        snapshot_bytes=snapshot_bytes,
        entries=total,
        load_s=round(load_s, 1),
        queues=queues,
        rows=len(report.rows),
    )


def _ingest(url: str, least: int, stream: Iterator[tuple[list[Event], int]]) -> tuple[int, int, float, float]:
    """Give new books facts until they have made so many entries; return how many these are, of how many facts, and
    the seconds and the CPU seconds that it took. Raises UnreadableInput."""
    calm_collector()  # as every process that keeps books does
    books = Bookkeeper(url, cluster="bench")
    books.open()
    try:
        if books.newest_ms is not None:
            raise UnreadableInput("--database: there are books in it already; name an empty database")
        count = 0
        began, cpu = time.perf_counter(), time.process_time()
        while books.head.number < least:
            batch, now_ms = next(stream)
            books.record(batch, now_ms)
            count += len(batch)
            if books.trouble:
                raise UnreadableInput(f"--database: {books.trouble}")
        return books.head.number, count, time.perf_counter() - began, time.process_time() - cpu
    finally:
        books.close()


def _begin(url: str, engine: database.Engine) -> tuple[float, float, int]:
    """Return how long books take to begin, how long a replay of all of their journal takes, and the snapshot's size."""
    began = time.perf_counter()
    books = Bookkeeper(url, cluster="bench")
    books.open()
    start_s = time.perf_counter() - began
    books.close()
    with database.reading(engine) as connection:
        began = time.perf_counter()
        snapshots.current(connection, anew=True)
        return start_s, time.perf_counter() - began, snapshots.size(connection)


def fleet_facts(queues: int, rng: random.Random) -> Iterator[tuple[list[Event], int]]:
    """Yield (facts, now_ms) without end: gangs of 1 to 4 nodes of 8 GPUs come, run for 10 to 100 minutes and go."""
    now = START_MS
    yield [Started(rules=Rules(), at_ms=now, meter=METER)], now
    yield [QueueSeen(queue=Queue(name=f"q{n}"), at_ms=now) for n in range(queues)], now
    yield [NodeSeen(node=_node(n), at_ms=now) for n in range(NODES)], now
    free = list(range(NODES))
    ends: list[tuple[int, GangId, list[int]]] = []
    batch: list[Event] = []
    number = 0
    while True:
        now += rng.randint(100, 2_000)
        nodes = rng.choice((1, 1, 2, 4))
        while ends and (ends[0][0] <= now or len(free) < nodes):
            end, gang, held = heapq.heappop(ends)
            now = max(now, end)
            batch += [MemberReleased(gang=gang, attempt=1, rank=rank, at_ms=end) for rank in range(len(held))]
            free += held
        number += 1
        gang = GangId(f"{number:08x}-0000-4000-8000-000000000000")
        held = [free.pop(rng.randrange(len(free))) for _ in range(nodes)]
        batch += _placed(gang, f"job-{number}", f"q{rng.randrange(queues)}", held, now)
        heapq.heappush(ends, (now + rng.randint(600_000, 6_000_000), gang, held))
        if len(batch) >= FACTS:
            yield batch, now
            batch = []


def _placed(gang: GangId, name: str, queue: str, nodes: list[int], now_ms: int) -> list[Event]:
    pod = PodShape(requests=Resources(cpu_milli=64_000, memory_bytes=2**38, pods=1))
    roles = (Role(name="worker", replicas=len(nodes), gpus=GPUS, pod=pod),)
    devices = tuple(f"gpu-{gpu}" for gpu in range(GPUS))
    members = tuple(
        Member(role="worker", index=rank, rank=rank, node=_name(node), devices=devices)
        for rank, node in enumerate(nodes)
    )
    return [
        GangSeen(gang=Gang(id=gang, namespace="team", name=name, queue=queue, roles=roles), at_ms=now_ms),
        Intended(
            gang=gang,
            attempt=1,
            placement=Placement(members=members),
            tier=Tier.IN_QUOTA,
            at_ms=now_ms,
            deadline_ms=now_ms + 30_000,
        ),
    ]


def _name(number: int) -> NodeName:
    return NodeName(f"node-{number:04}")


def _node(number: int) -> Node:
    gpus = tuple(Gpu(id=f"GPU-{number}-{i}", index=i, device=f"gpu-{i}", model="H100") for i in range(GPUS))
    room = Resources(cpu_milli=192_000, memory_bytes=2**41, pods=110)
    return Node(name=_name(number), pool="main", machine=Machine(gpus=gpus), allocatable=room)


def fill(engine: database.Engine, size: int, queues: int) -> None:
    """Add chained entries of one month, in order of time, until there are `size`; then draw the month's last cut."""
    with database.reading(engine) as connection:
        head, journal_head = entries.head(connection), journal.head(connection)
    missing = max(0, size - head.number)
    for at in range(0, missing, LOAD):
        batch = [month_entry(number, missing, queues) for number in range(at, min(at + LOAD, missing))]
        sealed, head = seal(head, batch)
        with database.writing(engine) as connection:
            entries.append(connection, sealed)
            rollups.add(connection, sealed)
    cut = Cut(at_ms=MONTH_END_MS)
    row, _ = journal.make_row(journal_head, cut, codec.encode(cut), MONTH_END_MS)
    with database.writing(engine) as connection:
        journal.append(connection, [row])


def month_entry(number: int, count: int, queues: int) -> Entry:
    """Return the entry that is `number`-th of `count` in the month: a device held for up to ten minutes of an hour at
    2.50 EUR an hour; every fourth says instead how much of such a time was used or idle."""
    hour = MONTH_MS + number * 744 // count * HOUR_MS
    begin = hour + number * 7_919 % 3_000_000
    span = (begin, begin + 1 + number * 104_729 % 599_999)
    queue, node = f"q{number // 64 % queues}", _name(number % NODES)
    held = accounts.held(queue, queue, Tier.IN_QUOTA)
    state = State(
        account=accounts.use(queue, queue, ("used", "idle")[number // 4 % 2]) if number % 4 == 3 else held,
        pool="main",
        gang=f"{number // 64:08x}-1111-4000-8000-000000000000",
        namespace="team",
        name=f"job-{number // 64}",
        attempt=1,
        rank=number % 64,
    )
    origin = Origin("bench", f"{number:064x}", span[1])
    found = make_entry(origin, EntryKind.SEGMENT, (node, f"gpu-{number % GPUS}"), state, span)
    if found.kind is not EntryKind.SEGMENT:
        return found
    nanos, unit = (span[1] - span[0]) * 2_500_000 // 3_600, accounts.money("EUR")
    spend = Posting(account=accounts.spend(queue, queue, Tier.IN_QUOTA), amount=nanos, unit=unit)
    revenue = Posting(account=accounts.revenue("H100"), amount=-nanos, unit=unit)
    return replace(found, postings=(*found.postings, spend, revenue))
