"""The pages in tests/scenarios: worlds and what must come of them, in words. A new case needs no Python.

A case has a `name` (a sentence), `nodes` (``n1..4`` are four), `queues`, `policies`, `pool` (see `builders`), `steps`.
Steps are facts or expectations:

    submit / change / suspend / resume / delete / refuse-spec     a GangJob
    node / gone / cordon / uncordon / lose / back / sick / well    a node
    foreign: n1 0 gpu-1-mig-…    used: n1 cpu=100 port=80                    what others take on a node
    queue / queue-gone / pool / policy / policy-gone               a queue, a pool, a fairness policy
    reserve / reservation-gone: name nodes=n1 in=1h for=2h          nodes that are somebody's for a time
    bind / run / conflict / ends / fails / releases                what the cluster answers
    commits: a 2m      a claims a checkpoint that began 2m ago (-2m: will begin); answers: a   one that it was asked for
    beats: a           its heartbeat moves
    grow-fails: a 4 5          who was to join a does not, and these of them hold nothing
    counted: n1 0=0 1=0.8      how busy devices of n1 were (in the last minute; over=1h for longer)
    cost-alarm: team 2027-01-14 for=16h                            what a queue cost that day is far from usual
    stop-refused: a            a disruption budget keeps it from being stopped or shrunk
    wait: 30s                                                      time passes
    then: [...]        exactly these effects follow (cycles run until nothing is left to decide)
    places: [a, b]     exactly these gangs are placed, and nothing else happens
    lies-in: {a: {rack: {r1: 4, r2: 4}}, a.leader: {rack: {r1: 1}}}     how many members lie where
    cpus / nics / penalties: {a: [...]}                                 of each member; of the placement
    turns: {a: 0s, b: 30s}       how long after the notice each may begin to save
    says: {gang: token or part of the sentence}, phase: {gang: phase}, used-gpus: {queue: n}
    promised: {gang: n1 n2 in 1h 1m}                                    exactly: the nodes, and when at the latest
    start-range: {gang: 10m to 20m, other: unknown}                      p50 to p90, from now
    broken: {token: n}, kept: n                                         promises that were not kept, and that were
    tier: {gang: reserved}, not-reserved: {name: part of the sentence}   what devices are; reservations refused
    keeps: {reservation/exam: {n1: 8}}   exactly: by which rule how many devices are kept
    used-milli: {queue: thousandths}, capacity-milli: what queues hold or could hold
    held: {cpu: {queue: amount}}                                   of what is counted beside GPUs, in what people write
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
import queue_words
import quota_words
import yaml
from builders import Stage, tell
from reservation_words import reservation

from fairlead.model import events as ev
from fairlead.model.gang import GangId
from fairlead.model.hardware import NodeName, Resources
from fairlead.model.quota import amount_text
from fairlead.model.reasons import Reason, refuse
from fairlead.model.reservation import ReservationGone, ReservationSeen
from fairlead.model.rules import Rules
from fairlead.units import duration_ms, duration_text

PAGES = Path(__file__).parent / "scenarios"
CASES = [
    pytest.param(case, id=f"{page.stem}: {case['name']}")
    for page in sorted(PAGES.glob("*.yaml"))
    for case in yaml.safe_load(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("case", CASES)
def test_scenario(case: dict[str, Any]) -> None:
    unknown = set(case) - {"name", "nodes", "queues", "policies", "rules", "pool", "steps"}
    assert not unknown, f"a case has no {unknown}"
    nodes = [builders.node(name, text) for name, text in builders.spelled_out(case.get("nodes", {})).items()]
    queues = [builders.queue(name, text or "") for name, text in case.get("queues", {"team": ""}).items()]
    stage = Stage(nodes, queues, Rules(**case.get("rules", {})), builders.pool(case.get("pool", "")))
    for name, text in case.get("policies", {}).items():
        stage.take(ev.PolicySeen(policy=quota_words.policy(name, text or ""), at_ms=stage.now_ms))
    expected = 0
    for step in case["steps"]:
        ((verb, rest),) = step.items()
        if verb == "then":
            effects = stage.settle()
            assert_told(effects, rest)
            expected += 1
        elif verb == "places":
            effects = stage.settle()
            assert [tell(effect).split()[:2] for effect in effects] == [["place", name] for name in rest]
            expected += 1
        elif verb in EXPECT:
            stray = stage.settle()
            assert not stray, f"before {verb}: {[tell(e, devices=True) for e in stray]}"
            EXPECT[verb](stage, rest)
            expected += 1
        else:
            for text in rest if isinstance(rest, list) else [rest]:
                name, _, more = str(text).partition(" ")
                DO[verb](stage, name, more)
    assert expected, "a case without an expectation can't fail"
    stray = stage.settle()
    assert not stray, f"after the last step: {[tell(e, devices=True) for e in stray]}"


def assert_told(effects: list[Any], wanted: list[str]) -> None:
    """Compare as sets of sentences; ``place a on n1[0,1]`` asks for devices, ``place a on n1`` does not."""
    told = [tell(effect, devices=any(f"place {effect.gang} " in w and "[" in w for w in wanted)) for effect in effects]
    assert sorted(told) == sorted(wanted), "\n".join(tell(effect, devices=True) for effect in effects)


def says(stage: Stage, wanted: dict[str, str]) -> None:
    for name, text in wanted.items():
        refusal = stage.view(name).refusal
        token, sentence = (refusal.reason.token, refusal.message) if refusal is not None else ("nothing", "nothing")
        assert text == token or (" " in text and text in sentence), f"{name} says {token}: {sentence}"


def phase(stage: Stage, wanted: dict[str, str]) -> None:
    found = {
        name: str(stage.state.gangs[GangId(name)].phase) if name in stage.state.gangs else "gone" for name in wanted
    }
    assert found == wanted


def used_gpus(stage: Stage, wanted: dict[str, int]) -> None:
    assert {view.name: view.used_gpus for view in stage.engine.queue_views() if view.name in wanted} == wanted


def used_milli(stage: Stage, wanted: dict[str, int]) -> None:
    held = stage.engine.world(stage.now_ms).queue_gpu_milli
    assert {name: held.get(name, 0) for name in wanted} == wanted


def held(stage: Stage, wanted: dict[str, dict[str, int]]) -> None:
    used = stage.engine.world(stage.now_ms).running.used
    found = {kind: {q: amount_text(kind, used[kind].get(q, 0)) for q in of} for kind, of in wanted.items()}
    assert found == wanted


def capacity_milli(stage: Stage, wanted: int) -> None:
    assert stage.engine.world(stage.now_ms).capacity_milli == wanted


def placed_within(stage: Stage, wanted: dict[str, str]) -> None:
    found = {}
    for name in wanted:
        placement = stage.attempt(name).placement
        found[name] = f"{placement.level} {placement.domain}".strip()
    assert found == wanted


def one_switch(stage: Stage, wanted: dict[str, str]) -> None:
    """Check that the devices of every member of a gang agree in an attribute: numa, pcie_switch or pcie_root."""
    for name, attribute in wanted.items():
        for member in stage.attempt(name).placement.members:
            gpus = {gpu.device: gpu for gpu in stage.state.nodes[member.node].machine.gpus}
            values = {getattr(gpus[device], attribute) for device in member.devices}
            assert len(values) == 1, (name, member.devices, values)


def lies_in(stage: Stage, wanted: dict[str, dict[str, dict[str, int]]]) -> None:
    levels = stage.engine.world(stage.now_ms).inventory.levels
    found: dict[str, dict[str, dict[str, int]]] = {}
    for key, counts in wanted.items():
        name, _, role = key.partition(".")
        for level in counts:
            held = found.setdefault(key, {}).setdefault(level, {})
            for member in stage.attempt(name).placement.members:
                row = stage.engine.world(stage.now_ms).inventory.row[member.node]
                at = int(levels[level].domain_of[row])
                domain = levels[level].names[at] if at >= 0 else "none"
                if role in ("", member.role):
                    held[domain] = held.get(domain, 0) + 1
    assert found == wanted


def beside(field: str):
    """Compare what each member gets beside its GPUs, in rank order."""

    def check(stage: Stage, wanted: dict[str, list[Any]]) -> None:
        found = {name: [getattr(member, field) for member in stage.attempt(name).placement.members] for name in wanted}
        told = {name: [text if isinstance(text, str) else " ".join(text) for text in of] for name, of in found.items()}
        assert told == wanted

    return check


def penalties(stage: Stage, wanted: dict[str, list[str]]) -> None:
    assert {name: list(stage.attempt(name).placement.penalties) for name in wanted} == wanted


def promised(stage: Stage, wanted: dict[str, str]) -> None:
    found = {
        one.gang: f"{' '.join(sorted({m.node for m in one.placement.members}))} in "
        f"{duration_text((one.latest_start_ms - stage.now_ms + 500) // 1000 * 1000)}"
        for one in stage.state.promises.standing.values()
    }
    assert found == wanted


def broken(stage: Stage, wanted: dict[str, int]) -> None:
    assert stage.state.promises.breaches() == wanted


def kept(stage: Stage, wanted: int) -> None:
    assert stage.state.promises.kept == wanted


def turns(stage: Stage, wanted: dict[str, str]) -> None:
    """Compare when those who were asked to save may begin, from when they were asked."""
    notices = {name: stage.attempt(name).notice for name in wanted}
    found = {name: notice and notice.begins_ms - notice.at_ms for name, notice in notices.items()}
    assert found == {name: duration_ms(text) for name, text in wanted.items()}


def tier(stage: Stage, wanted: dict[str, str]) -> None:
    assert {name: stage.attempt(name).tier.value for name in wanted} == wanted


def not_reserved(stage: Stage, wanted: dict[str, str]) -> None:
    stage.engine.world(stage.now_ms)
    refused = stage.state.reservations.refused
    assert refused.keys() == wanted.keys()
    for name, text in wanted.items():
        assert text in refused[name].message, refused[name].message


def start_range(stage: Stage, wanted: dict[str, str]) -> None:
    told = {}
    for name in wanted:
        start = stage.view(name).start
        ends = [at_ms for at_ms in (start.p50_ms, start.p90_ms) if at_ms is not None]
        rounded = [max(0, at_ms - stage.now_ms + 500) // 1000 * 1000 for at_ms in ends]
        told[name] = " to ".join(duration_text(ms) for ms in rounded) or "unknown"
    assert told == wanted


EXPECT = {
    "start-range": start_range,
    "tier": tier,
    "keeps": queue_words.keeps,
    "not-reserved": not_reserved,
    "promised": promised,
    "broken": broken,
    "kept": kept,
    "lies-in": lies_in,
    "cpus": beside("cpus"),
    "nics": beside("nics"),
    "penalties": penalties,
    "says": says,
    "turns": turns,
    "phase": phase,
    "used-gpus": used_gpus,
    "used-milli": used_milli,
    "capacity-milli": capacity_milli,
    "held": held,
    "placed-within": placed_within,
    "shares": one_switch,
}


def change(stage: Stage, name: str, more: str) -> None:
    stage.seen(builders.gang(name, more, stage.specs[name].submitted_ms))


def refuse_spec(stage: Stage, name: str, more: str) -> None:
    spec = stage.specs[name]
    cause = refuse(Reason.UNSUPPORTED_FIELD, field=more, mend="remove it")
    stage.take(
        ev.GangRefused(
            gang=spec.id, namespace=spec.namespace, name=name, queue=spec.queue, refusal=cause, at_ms=stage.now_ms
        )
    )


def set_health(healthy: bool):
    def do(stage: Stage, name: str, more: str) -> None:
        machine = stage.state.nodes[NodeName(name)].machine
        which = {int(i) for i in more.split()}
        gpus = tuple(replace(gpu, healthy=healthy) if gpu.index in which else gpu for gpu in machine.gpus)
        stage.change_node(name, machine=replace(machine, gpus=gpus))

    return do


def foreign(stage: Stage, name: str, more: str) -> None:
    devices = tuple(f"gpu-{i}" if i.isdecimal() else i for i in more.split())
    stage.take(ev.ForeignDevices(name=NodeName(name), devices=devices, at_ms=stage.now_ms))


def used(stage: Stage, name: str, more: str) -> None:
    _, named = builders.words(more)
    taken = Resources(cpu_milli=int(named.get("cpu", "0")) * 1000, pods=int(named.get("pods", "0")))
    ports = (("TCP", "0.0.0.0", int(named["port"])),) if "port" in named else ()
    stage.take(ev.NodeUsed(name=NodeName(name), taken=taken, host_ports=ports, at_ms=stage.now_ms))


def commits(stage: Stage, name: str, more: str) -> None:
    ago, _, written = more.partition(" in ")
    ago_ms = -duration_ms(ago[1:]) if ago.startswith("-") else duration_ms(ago) if ago else 0
    claim = {"gang": GangId(name), "attempt": stage.attempt(name).number, "at_ms": stage.now_ms}
    stage.take(ev.CheckpointCommitted(**claim, began_ms=stage.now_ms - ago_ms, format=written))


def answers(stage: Stage, name: str, more: str) -> None:
    attempt = stage.attempt(name)
    assert attempt.notice is not None, f"{name} was not asked to save"
    fact = ev.CheckpointCommitted(
        gang=GangId(name),
        attempt=attempt.number,
        at_ms=stage.now_ms,
        began_ms=stage.now_ms,
        notice_ms=attempt.notice.begins_ms,
    )
    stage.take(fact)


def wait(stage: Stage, name: str, more: str) -> None:
    stage.now_ms += duration_ms(name)


def reserve(stage: Stage, name: str, more: str) -> None:
    stage.now_ms += 1
    stage.take(ReservationSeen(reservation=reservation(name, more, stage.now_ms), at_ms=stage.now_ms))


DO = {
    "reserve": reserve,
    "grow-fails": lambda stage, name, more: stage.fail_grow(name, *map(int, more.split())),
    "reservation-gone": lambda stage, name, more: stage.take(ReservationGone(name=name, at_ms=stage.now_ms)),
    "submit": lambda stage, name, more: stage.submit(name, more),
    "change": change,
    "suspend": lambda stage, name, more: stage.change(name, suspended=True),
    "resume": lambda stage, name, more: stage.change(name, suspended=False),
    "delete": lambda stage, name, more: stage.delete(name),
    "refuse-spec": refuse_spec,
    "node": lambda stage, name, more: stage.take(ev.NodeSeen(node=builders.node(name, more), at_ms=stage.now_ms)),
    "gone": lambda stage, name, more: stage.take(ev.NodeGone(name=NodeName(name), at_ms=stage.now_ms)),
    "cordon": lambda stage, name, more: stage.change_node(name, unschedulable=True),
    "uncordon": lambda stage, name, more: stage.change_node(name, unschedulable=False),
    "lose": lambda stage, name, more: stage.change_node(name, not_ready_since_ms=stage.now_ms),
    "back": lambda stage, name, more: stage.change_node(name, not_ready_since_ms=None),
    "sick": set_health(False),
    "well": set_health(True),
    "foreign": foreign,
    "used": used,
    "queue": lambda stage, name, more: stage.take(ev.QueueSeen(queue=builders.queue(name, more), at_ms=stage.now_ms)),
    "policy": lambda stage, name, more: stage.take(
        ev.PolicySeen(policy=quota_words.policy(name, more), at_ms=stage.now_ms)
    ),
    "policy-gone": lambda stage, name, more: stage.take(ev.PolicyGone(name=name, at_ms=stage.now_ms)),
    "queue-gone": lambda stage, name, more: stage.take(ev.QueueGone(name=name, at_ms=stage.now_ms)),
    "exception": lambda stage, name, more: stage.take(
        ev.ExceptionSeen(exception=queue_words.exception(name, more, stage.now_ms), at_ms=stage.now_ms)
    ),
    "exception-gone": lambda stage, name, more: stage.take(ev.ExceptionGone(name=name, at_ms=stage.now_ms)),
    "counted": lambda stage, name, more: stage.take(queue_words.counted(name, more, stage.now_ms)),
    "cost-alarm": lambda stage, name, more: stage.take(queue_words.cost_alarm(name, more, stage.now_ms)),
    "spent": lambda stage, name, more: stage.take(queue_words.spent(name, more, stage.now_ms)),
    "switch": lambda stage, name, more: stage.take(
        ev.SwitchesSet(switches=queue_words.switches(f"{name} {more}"), at_ms=stage.now_ms)
    ),
    "pool": lambda stage, name, more: stage.take(ev.PoolSeen(pool=builders.pool(more, name), at_ms=stage.now_ms)),
    "bind": lambda stage, name, more: stage.bind(name),
    "run": lambda stage, name, more: stage.run(name, *more.split()),
    "conflict": lambda stage, name, more: stage.fail_place(name),
    "half-bound": lambda stage, name, more: stage.fail_place(name, released=tuple(int(r) for r in more.split())),
    "starts": lambda stage, name, more: [
        stage.take(stage.member(ev.MemberRunning, name, int(rank))) for rank in more.split()
    ],
    "ends": lambda stage, name, more: [stage.end(name, int(rank)) for rank in more.split()],
    "fails": lambda stage, name, more: [stage.end(name, int(rank), succeeded=False) for rank in more.split()],
    "releases": lambda stage, name, more: stage.release(name, *(int(rank) for rank in more.split())),
    "released-late": lambda stage, name, more: stage.take(
        *(
            ev.MemberReleased(gang=GangId(name), attempt=int(n), rank=int(r), at_ms=stage.now_ms)
            for n, r in (word.split("/") for word in more.split())
        )
    ),
    "commits": commits,
    "beats": lambda stage, name, more: stage.take(
        ev.LifeSign(gang=GangId(name), attempt=stage.attempt(name).number, at_ms=stage.now_ms)
    ),
    "answers": answers,
    "stop-refused": lambda stage, name, more: stage.take(
        ev.StopRefused(
            gang=GangId(name),
            attempt=stage.attempt(name).number,
            cause=refuse(Reason.BUDGET_REFUSES, detail="1 of its pods may not be evicted now"),
            at_ms=stage.now_ms,
        )
    ),
    "books": lambda stage, name, more: stage.take(ev.BooksFull(is_full=name == "full", at_ms=stage.now_ms)),
    "wait": wait,
}


def test_every_word_of_the_language_is_used() -> None:
    said = {next(iter(step)) for param in CASES for step in param.values[0]["steps"]}
    assert (set(DO) | set(EXPECT) | {"then", "places"}) - said == set(), "a word that no page uses is not tested"


def test_names_of_cases_are_sentences_and_unique() -> None:
    names = [param.values[0]["name"] for param in CASES]
    assert len(names) == len(set(names))
    assert all(len(name.split()) >= 4 for name in names)
