"""The auditor's own reading of the journal: a plain sweep over the sorted edges of every node.

Written without a look at `meter.py` and `timeline.py`, and importing nothing from them: two ways to the same answer.
All records are read first; then each node's edges are walked once, from the oldest to the newest, with a handful of
variables, and every device gets the list of what it was in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from fairlead.ledger.sweep_use import FOREVER, Became, Span, What
from fairlead.model import events as ev
from fairlead.model.codec import Cut, Record
from fairlead.model.hardware import Gpu, Node, Resources
from fairlead.model.partitions import parse_device

MUST_BOOK_WITHIN_MS = 172_800_000  # two days: an older fact counts as if it were just that old

ALL_TICKS = 840


def _not_before(oldest: int | None, moment: int) -> int:
    return moment if oldest is None else max(moment, oldest)


@dataclass(slots=True)
class _Hold:
    rank: int
    node: str
    devices: tuple[str, ...]
    asks: Resources
    what: What
    begin: int
    milli: int
    tiers: list[tuple[int, int, str]]
    nics: int = 0
    start: int = -1

    def has(self) -> str:
        """Say what its pod has beside devices a ms, in words; "" where that is nothing."""
        mebibytes = (self.asks.memory_bytes + 1_048_575) // 1_048_576
        amounts = (("core-us", self.asks.cpu_milli), ("mib-ms", mebibytes), ("nic-ms", self.nics))
        return " ".join(f"{amount} {unit}" for unit, amount in amounts if amount > 0)

    def tier_at(self, now: int) -> What:
        """Say what it is at a moment: the tier told last of those that were true by then."""
        by_now = [told for told in self.tiers if told[0] <= now]
        if not by_now:
            return self.what
        return (":".join((*self.what[0].split(":")[:3], max(by_now)[2])), *self.what[1:])


@dataclass(slots=True)
class _Lane:
    """One node: its dated facts, and the spans in which it is known to have been lost."""

    facts: list[tuple[int, int, object]] = field(default_factory=list[tuple[int, int, object]])
    lost: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class Sweep:
    """Reads records in journal order with `read`, then says with `spans` what every device was in."""

    def __init__(self) -> None:
        """Begin with an empty fleet."""
        self.newest: int | None = None
        self.last_cut: int | None = None
        self._count = 0
        self._lanes: dict[str, _Lane] = {}
        self._holds: dict[tuple[str, int, int], _Hold] = {}
        self._rules: dict[str, list[tuple[int, int, str, dict[str, tuple[str, ...]]]]] = {}
        self._starts: list[tuple[int, int]] = []
        self.meter_from = FOREVER
        self.pods: dict[tuple[str, str, int, int], list[Span]] = {}
        self._tiers: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
        self._over: dict[tuple[str, int, int], int] = {}
        self._joined: set[tuple[str, int, int]] = set()
        self._parents: dict[str, str] = {}
        self._jobs: dict[str, tuple[str, str, str, dict[str, Resources]]] = {}
        self._became = Became(lambda gang: self._jobs[gang][2] if gang in self._jobs else "")

    def read(self, record: Record) -> None:
        """Take the next record of the journal."""
        if isinstance(record, ev.MoneyFact):
            return
        self._count += 1
        oldest = None if self.newest is None else self.newest - MUST_BOOK_WITHIN_MS
        at = _not_before(oldest, record.at_ms)
        self.newest = _not_before(self.newest, record.at_ms)
        self._became.read(record, at, self._count, oldest)
        if isinstance(record, Cut):
            self.last_cut = _not_before(self.last_cut, record.at_ms)
        elif isinstance(record, ev.NodeSeen):
            self._lane(record.node.name).facts.append((at, self._count, record.node))
            since = record.node.not_ready_since_ms
            if since is not None:
                self._lane(record.node.name).lost.append((min(_not_before(oldest, since), at), at))
        elif isinstance(record, ev.NodeGone | ev.NodeUsed | ev.ForeignDevices):
            self._lane(record.name).facts.append((at, self._count, record))
        elif isinstance(record, ev.Intended | ev.GrowIntended):
            self._begin(record, at, None)
        elif isinstance(record, ev.Recovered):
            self._begin(record, min(_not_before(oldest, record.since_ms), at), at)
        elif isinstance(record, ev.KeptFree):
            mine = {str(node): devices for node, devices in record.devices}
            self._rules.setdefault(record.keeper, []).append((at, self._count, record.queue, mine))
        elif isinstance(record, ev.Started):
            self._starts.append((at, self._count))
            self.meter_from = min(self.meter_from, at if record.meter >= 1 else FOREVER)
        elif isinstance(record, ev.TierChanged):
            told = (at, self._count, record.tier.value)
            self._tiers.setdefault((record.gang, record.attempt), []).append(told)
        elif isinstance(record, ev.MemberReleased):
            self._finish((record.gang, record.attempt, record.rank), at)
        elif isinstance(record, ev.PlaceFailed | ev.GrowFailed):
            for rank in record.released:
                self._finish((record.gang, record.attempt, rank), at)
        else:
            self._remember(record)

    def _remember(self, record: Record) -> None:
        if isinstance(record, ev.QueueSeen):
            self._parents[record.queue.name] = record.queue.parent
        elif isinstance(record, ev.QueueGone):
            self._parents.pop(record.name, None)
        elif isinstance(record, ev.GangSeen):
            gang = record.gang
            asks = {role.name: role.pod.requests for role in gang.roles}
            self._jobs[gang.id] = (gang.namespace, gang.name, gang.queue, asks)
        elif isinstance(record, ev.GangRefused):
            self._jobs.setdefault(record.gang, (record.namespace, record.name, record.queue, {}))

    def _lane(self, node: str) -> _Lane:
        return self._lanes.setdefault(node, _Lane())

    def _root(self, queue: str) -> str:
        """Climb to the root of a queue's tree; stop at a queue nobody described, or on a second visit."""
        visited: list[str] = []
        while queue in self._parents and queue not in visited:
            visited.append(queue)
            queue = self._parents[queue]
        return visited[-1] if visited else queue

    def _begin(self, record: ev.Intended | ev.Recovered | ev.GrowIntended, begin: int, seen: int | None) -> None:
        namespace, job, queue, asks = self._jobs.get(record.gang, ("", "", "", {}))
        account = f"held:{word(self._root(queue) or 'unknown')}:{word(queue or 'unknown')}:{record.tier.value}"
        joining = record.joining if isinstance(record, ev.GrowIntended) else len(record.placement.members)
        for member in record.placement.members[len(record.placement.members) - joining :]:
            key = (record.gang, record.attempt, member.rank)
            if isinstance(record, ev.Recovered) and seen is not None and member.rank not in record.holding:
                self._finish(key, seen)
            elif key in self._holds:
                if key not in self._joined:  # those did not hold since the attempt began
                    self._holds[key].begin = min(begin, self._holds[key].begin)
            else:
                what: What = (account, "", record.gang, record.attempt, member.rank, namespace, job, 0, "", "")
                need = asks.get(member.role, Resources(pods=1))
                part = member.share_milli or 1000
                tiers = self._tiers.setdefault((record.gang, record.attempt), [])
                if isinstance(record, ev.GrowIntended):
                    self._joined.add(key)
                self._holds[key] = _Hold(
                    member.rank, member.node, member.devices, need, what, begin, part, tiers, len(member.nics),
                    member.mig_start,
                )  # fmt: skip

    def _finish(self, key: tuple[str, int, int], at: int) -> None:
        self._over[key] = min(at, self._over.get(key, at))

    def spans(self) -> Iterator[tuple[str, str, list[Span], list[Span]]]:
        """Yield (node, device, spans, what became of what was held) for every device that was ever seen, sorted.

        What pods had beside devices is in `pods` after that: (node, gang, attempt, rank) -> spans.
        """
        on_node: dict[str, list[tuple[str, int, int]]] = {}
        for key, hold in self._holds.items():
            on_node.setdefault(hold.node, []).append(key)
        for node in sorted(self._lanes):
            walked = self._walk(node, on_node.get(node, []))
            holds = {key: (self._holds[key].begin, self._end(node, key)) for key in on_node.get(node, [])}
            for device in sorted(walked):
                yield node, device, walked[device], self._became.spans(node, device, walked[device], holds)

    def _end(self, node: str, key: tuple[str, int, int]) -> int:
        """Say when a hold was over: when that was told, or when its node was gone, whichever came first."""
        begin = self._holds[key].begin
        gone = [at for at, _, fact in self._lanes[node].facts if isinstance(fact, ev.NodeGone) and at > begin]
        return max(begin, min([*gone, self._over.get(key, FOREVER)]))

    def _kept(self, node: str, rules: list[str], now: int) -> dict[str, tuple[str, str]]:
        """Say which devices are kept free at a moment, for whom and by which rule; an engine begins with none."""
        begun = max((start for start in self._starts if start[0] <= now), default=None)
        kept: dict[str, tuple[str, str]] = {}
        for rule in sorted(rules, reverse=True):
            said = max((told for told in self._rules[rule] if told[0] <= now), default=None, key=lambda told: told[:2])
            if said is not None and (begun is None or said[:2] > begun):
                kept |= {device: (said[2], rule) for device in said[3].get(node, ())}
        return kept

    def _walk(self, node: str, keys: list[tuple[str, int, int]]) -> dict[str, list[Span]]:
        """Walk one node's edges in time; at each, let the world change, then look at every device."""
        lane = self._lanes[node]
        rules = [rule for rule, told in self._rules.items() if any(node in devices for _, _, _, devices in told)]
        said = {told[0] for rule in rules for told in self._rules[rule]}
        said |= {start for start, _ in self._starts} if rules else set()
        begins: dict[int, list[tuple[str, int, int]]] = {}
        ends: dict[int, list[tuple[str, int, int]]] = {}
        retold = {told[0] for key in keys for told in self._holds[key].tiers}
        for key in keys:
            begin, end = self._holds[key].begin, self._over.get(key)
            if end is None or end > begin:
                begins.setdefault(begin, []).append(key)
                if end is not None:
                    ends.setdefault(end, []).append(key)
        facts: dict[int, list[tuple[int, object]]] = {}
        for at, order, fact in lane.facts:
            facts.setdefault(at, []).append((order, fact))
        delta: dict[int, int] = {}
        for a, b in lane.lost:
            delta[a] = delta.get(a, 0) + 1
            delta[b] = delta.get(b, 0) - 1
        here = _Here()
        names = sorted({gpu.device for _, _, f in lane.facts if isinstance(f, Node) for gpu in f.machine.gpus})
        out: dict[str, list[Span]] = {name: [] for name in names}
        for now in sorted({*begins, *ends, *facts, *delta, *retold, *said, self.meter_from} - {FOREVER}):
            had = list(here.holding)
            here.lost += delta.get(now, 0)
            today = sorted(facts.get(now, ()), key=lambda pair: pair[0])
            if any(isinstance(fact, ev.NodeGone) for _, fact in today):
                here.holding.clear()
            for _, fact in today:
                here.learn(fact)
            for key in ends.get(now, ()):
                here.holding.pop(key, None)
            for key in begins.get(now, ()):
                here.holding[key] = self._holds[key]
            here.kept = self._kept(node, rules, now) if rules else {}
            for name in names:
                what = here.look(name, now, now >= self.meter_from)
                if what != (out[name][-1][1] if out[name] else ()):
                    out[name].append((now, what))
            for key in {*had, *here.holding} if now >= self.meter_from else ():
                pod = here.pod(key, now)
                spans = self.pods.setdefault((node, *key), [])
                if pod != (spans[-1][1] if spans else ()):
                    spans.append((now, pod))
        return out


@dataclass(slots=True)
class _Here:
    """What is true of a node at the moment the sweep has reached."""

    node: Node | None = None
    lost: int = 0
    taken: Resources = field(default_factory=Resources)
    others: tuple[str, ...] = ()
    holding: dict[tuple[str, int, int], _Hold] = field(default_factory=dict[tuple[str, int, int], _Hold])
    kept: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def learn(self, fact: object) -> None:
        """Let one dated fact be true from now on."""
        if isinstance(fact, Node):
            self.node = fact
        elif isinstance(fact, ev.NodeGone):
            self.node = None
        elif isinstance(fact, ev.NodeUsed):
            self.taken = fact.taken
        elif isinstance(fact, ev.ForeignDevices):
            self.others = fact.devices

    def pod(self, key: tuple[str, int, int], now: int) -> tuple[What, ...]:
        """Say what a pod has beside devices; nothing where it is over, or its node is lost or away."""
        hold = self.holding.get(key)
        if hold is None or self.node is None or self._is_lost(self.node) or not hold.has():
            return ()
        what = hold.tier_at(now)
        return ((what[0], self.node.pool or "-", *what[2:7], 0, "", hold.has()),)

    def _is_lost(self, node: Node) -> bool:
        return self.lost > 0 or node.not_ready_since_ms is not None

    def look(self, device: str, now: int, by_cut: bool) -> tuple[What, ...]:
        """Say what a device is in; the first rule that applies decides about all that is not held.

        `by_cut`: who has an instance that is not there any more has nothing.
        """
        node = self.node
        gpu = next((g for g in reversed(node.machine.gpus) if g.device == device), None) if node else None
        if node is None or gpu is None:
            return ()
        pool = node.pool or "-"
        named = word(pool)
        if self._is_lost(node):
            return ((f"down:{named}:node-lost", pool, "", 0, -1, "", "", ALL_TICKS, "", ""),)
        if not gpu.healthy:
            return ((f"down:{named}:unhealthy", pool, "", 0, -1, "", "", ALL_TICKS, "", ""),)
        for_whom = ("", "")
        if device in self.others or not node.pool:
            account = f"unmanaged:{named}"
        elif node.unschedulable:
            account = f"down:{named}:cordoned"
        elif device in self.kept:
            account, for_whom = f"reserved-idle:{named}", self.kept[device]
        else:
            account = f"stranded:{named}" if self._nothing_left(node) else f"free:{named}"
        there = _instances_of(gpu) if by_cut else None
        mine = sorted(
            (hold.begin, key)
            for key, hold in self.holding.items()
            if device in hold.devices and (there is None or hold.start < 0 or (hold.start, hold.milli) in there)
        )
        asked = [(self.holding[key].milli, self.holding[key].tier_at(now)) for _, key in mine]
        theirs: What = (f"unmanaged:{named}", pool, "", 0, -1, "", "", 0, "", "")
        asked += [(part, theirs) for name in sorted(self.others) for part in _part_named(gpu, name)]
        return _dealt(asked, pool, account, for_whom)

    def _nothing_left(self, node: Node) -> bool:
        asks = [self.taken, *(hold.asks for hold in self.holding.values())]
        return (
            node.allocatable.cpu_milli - sum(a.cpu_milli for a in asks) <= 0
            or node.allocatable.memory_bytes - sum(a.memory_bytes for a in asks) <= 0
            or node.allocatable.pods - sum(a.pods for a in asks) <= 0
        )


def word(name: str) -> str:
    """Write a name as a part of an account: whatever a colon or a spreadsheet could be misled by is percent-encoded."""
    return quote(name, safe="/ ", errors="surrogatepass")


def _part_named(gpu: Gpu, name: str) -> list[int]:
    """Read a MIG device's name; return its thousandths of `gpu`, nothing where it is no part of that one."""
    if gpu.mig is None:
        return []
    length = max((first + p.size for p in gpu.mig.profiles for first in p.starts), default=0)
    for profile in gpu.mig.profiles:
        if gpu.mig.dynamic:
            said = parse_device(name)
            mine = said is not None and gpu.device == f"gpu-{said.minor}" and said.profile == profile.id
        else:
            mine = any(i.device == name and i.profile == profile.id for i in gpu.mig.instances)
        if mine and length and profile.starts:
            return [1000 * profile.size // length]
    return []


def _instances_of(gpu: Gpu) -> list[tuple[int, int]] | None:
    """List (first unit, thousandths) of a GPU's instances; None where it has none or the driver makes them."""
    if gpu.mig is None or gpu.mig.dynamic:
        return None
    sizes = {profile.id: profile.size for profile in gpu.mig.profiles if profile.starts}
    length = max((first + p.size for p in gpu.mig.profiles for first in p.starts), default=0)
    if not length:
        return None
    return [(one.start, 1000 * sizes[one.profile] // length) for one in gpu.mig.instances if one.profile in sizes]


def _dealt(asked: list[tuple[int, What]], pool: str, rest: str, for_whom: tuple[str, str]) -> tuple[What, ...]:
    """Deal out a device's ticks to those who ask for thousandths, in turn; who asks for more than is left gets none."""
    granted: list[tuple[int, What]] = []
    for milli, what in asked:
        if milli + sum(before for before, _ in granted) <= 1000:
            granted.append((milli, what))
    full = [milli * ALL_TICKS // 1000 for milli, _ in granted]
    broken = sorted(
        (-(milli * ALL_TICKS % 1000), at) for at, (milli, _) in enumerate(granted) if milli * ALL_TICKS % 1000
    )
    for _, at in broken[: ALL_TICKS - sum(full)]:
        full[at] += 1
    sums: dict[What, int] = {}
    for ticks, (_, what) in zip(full, granted, strict=True):
        who = (what[0], pool, *what[2:])
        sums[who] = sums.get(who, 0) + ticks
    nobody: What = (rest, pool, "", 0, -1, "", "", 0, *for_whom)
    sums[nobody] = sums.get(nobody, 0) + ALL_TICKS - sum(full)
    return tuple(sorted((*who[:7], ticks, *who[8:]) for who, ticks in sums.items() if ticks))
