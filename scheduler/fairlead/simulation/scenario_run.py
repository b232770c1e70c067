"""Run a scenario through the production engine on a cluster that does at once and without fault what it is told.

A round is one slice of a cycle and a second of the clock, or what `rules.round` says. A world is stable when a round
has nothing to do and no slice is left; then `AFTER` more rounds must have nothing to do either, or the engine is
undoing what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.model.effects import EndNomination, Grow, Nominate, Notice, Phase, Place, Shrink, Stop, Withdraw
from fairlead.model.events import Bound, CheckpointCommitted, Event, MemberReleased, MemberRunning
from fairlead.model.gang import GangId, Placement, Tier
from fairlead.model.reasons import Refusal
from fairlead.service.engine import Engine
from fairlead.service.ports import Performable
from fairlead.simulation.scenario_file import START_MS, Scenario

MOST_ROUNDS = 1_000
AFTER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a gang is at the end. `round` is 0 for what ran before the first decision."""

    gang: GangId
    attempt: int
    round: int
    placement: Placement
    tier: Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A stop that the engine asked for, whatever became of the gang afterwards. `by` gains, "" where nobody does.

    Members of `ranks` alone left a gang that went on, () where all of it was stopped.
    """

    gang: GangId
    attempt: int
    round: int
    cause: Refusal
    by: str
    ranks: tuple[int, ...] = ()
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StillWaiting:
    """A gang that holds nothing at the end, and why."""

    gang: GangId
    phase: Phase
    refusal: Refusal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario. `violations` are effects that the engine's own check refused: bugs of ours."""

    stable: bool
    rounds: int
    placed: tuple[Placed, ...]
    victims: tuple[Victim, ...]
    waiting: tuple[StillWaiting, ...]
    violations: tuple[str, ...]


def run(scenario: Scenario, rounds: int = MOST_ROUNDS) -> Outcome:
    """Run until nothing is left to do, at most `rounds` rounds, and `AFTER` more to see that it stays so."""
    engine = Engine(scenario.rules)
    engine.take(scenario.facts())
    stage = Stage(engine, START_MS, scenario.round_ms)
    quiet = False
    while not quiet and stage.round < rounds:
        quiet = stage.step()
    used = stage.round
    stable = quiet
    for _ in range(AFTER):
        stable = stage.step() and stable
    return stage.outcome(stable, used)


class Stage:
    """An engine, its clock, and the cluster that obeys."""

    def __init__(self, engine: Engine, now_ms: int, round_ms: int = 1_000) -> None:
        """Begin at a moment, UTC ms; the engine has taken the world's facts."""
        self.engine = engine
        self.round = 0
        self.now_ms, self.round_ms = now_ms, round_ms
        self.victims: list[Victim] = []
        self.violations: list[str] = []
        self.since: dict[tuple[GangId, int], int] = {}

    def step(self) -> bool:
        """Decide once and do it all; return whether there was nothing to do."""
        self.round += 1
        self.now_ms += self.round_ms
        cycle = self.engine.cycle(self.now_ms)
        self.violations += cycle.violations
        for effect in cycle.effects:
            self.engine.take(self._perform(effect))
        return not cycle.effects and not cycle.more

    def _perform(self, effect: Performable) -> Sequence[Event]:
        match effect:
            case Place(gang=gang, attempt=attempt, placement=placement):
                self.since[gang, attempt] = self.round
                return (
                    Bound(gang=gang, attempt=attempt, at_ms=self.now_ms),
                    *(
                        MemberRunning(gang=gang, attempt=attempt, rank=member.rank, at_ms=self.now_ms)
                        for member in placement.members
                    ),
                )
            case Stop(gang=gang, attempt=attempt):
                self._take(effect, ())
                current = self.engine.state.gangs[gang].current
                return tuple(
                    MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=self.now_ms)
                    for rank in sorted(current.holding if current is not None else ())
                )
            case Notice(gang=gang, attempt=attempt, begins_ms=begins_ms):  # who is asked has saved by the next round
                now_ms = self.now_ms
                return (
                    CheckpointCommitted(gang=gang, attempt=attempt, at_ms=now_ms, began_ms=now_ms, notice_ms=begins_ms),
                )
            case Shrink(gang=gang, attempt=attempt, ranks=ranks):
                self._take(effect, ranks)
                return tuple(MemberReleased(gang=gang, attempt=attempt, rank=rank, at_ms=self.now_ms) for rank in ranks)
            case Grow(gang=gang, attempt=attempt):
                return tuple(
                    MemberRunning(gang=gang, attempt=attempt, rank=rank, at_ms=self.now_ms) for rank in effect.ranks
                )
            case Nominate() | EndNomination() | Withdraw():
                return ()

    def _take(self, effect: Stop | Shrink, ranks: tuple[int, ...]) -> None:
        self.victims.append(
            Victim(
                gang=effect.gang,
                attempt=effect.attempt,
                round=self.round,
                cause=effect.cause,
                by=effect.by,
                ranks=ranks,
                lost_gpu_ms=effect.lost_gpu_ms,
            )
        )

    def outcome(self, stable: bool, rounds: int) -> Outcome:
        """Return what came of it so far."""
        placed: list[Placed] = []
        waiting: list[StillWaiting] = []
        for name, record in sorted(self.engine.state.gangs.items()):
            attempt = record.current
            if attempt is not None and attempt.holding:
                began = self.since.get((name, attempt.number), 0)
                placed.append(
                    Placed(
                        gang=name,
                        attempt=attempt.number,
                        round=began,
                        placement=attempt.shown_placement,
                        tier=attempt.tier,
                    )
                )
            elif record.phase not in (Phase.SUCCEEDED, Phase.FAILED):
                waiting.append(StillWaiting(gang=name, phase=record.phase, refusal=record.refusal))
        return Outcome(
            stable=stable and not self.violations,
            rounds=rounds,
            placed=tuple(placed),
            victims=tuple(self.victims),
            waiting=tuple(waiting),
            violations=tuple(self.violations),
        )


def as_document(outcome: Outcome) -> dict[str, object]:
    """Return the outcome as plain values; `docs/reference/scenario-file.md` names every key."""
    return {
        "stable": outcome.stable,
        "rounds": outcome.rounds,
        "placements": [_placement(placed) for placed in outcome.placed],
        "victims": [
            {
                "job": victim.gang,
                "attempt": victim.attempt,
                "round": victim.round,
                "reason": victim.cause.reason.token,
                "message": victim.cause.message,
                "by": victim.by,
            }
            for victim in outcome.victims
        ],
        "waiting": [
            {
                "job": left.gang,
                "phase": left.phase.value,
                "reason": "" if left.refusal is None else left.refusal.reason.token,
                "kind": "" if left.refusal is None else left.refusal.reason.kind.value,
                "message": "" if left.refusal is None else left.refusal.message,
                "details": {} if left.refusal is None else dict(left.refusal.details),
            }
            for left in outcome.waiting
        ],
        "violations": list(outcome.violations),
    }


def _placement(placed: Placed) -> dict[str, object]:
    where = placed.placement
    return {
        "job": placed.gang,
        "attempt": placed.attempt,
        "round": placed.round,
        "tier": placed.tier.value,
        "level": where.level,
        "domain": where.domain,
        "pace_bytes_per_s": where.pace_bytes_per_s,
        "span": dict(where.span),
        "penalties": list(where.penalties),
        "members": [
            {
                "role": member.role,
                "index": member.index,
                "rank": member.rank,
                "node": member.node,
                "devices": list(member.devices),
                "share_milli": member.share_milli,
                "mig_start": member.mig_start,
                "cpus": member.cpus,
                "nics": list(member.nics),
            }
            for member in where.members
        ],
    }
