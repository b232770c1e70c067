"""How the fleet in memory behaves: how long things take, and how often they go wrong."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[int, int]
"""(least, most): a time in ms, drawn evenly between both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Times in ms and fault rates in thousandths of the occasions.

    `bind_ms` is from the first write of a placement to its last binding, `start_ms` from binding to Running, `end_ms`
    how much later than the gang's time a member's program ends, `grace_ms` from the request to stop until the pod is
    gone, `release_ms` from a pod's own end until its claim is emptied, `watch_ms` how late a fact reaches us that our
    own writes did not cause, `detection_ms` how long a dead node goes unnoticed, `cleanup_ms` how long the pods of a
    removed node linger.
    """

    bind_ms: Span = (20, 400)
    start_ms: Span = (2_000, 20_000)
    end_ms: Span = (0, 500)
    grace_ms: Span = (500, 5_000)
    release_ms: Span = (200, 2_000)
    watch_ms: Span = (1, 80)
    detection_ms: Span = (5_000, 10_000)
    cleanup_ms: Span = (1_000, 20_000)
    conflict_permille: int = 0
    lost_reply_permille: int = 0
    never_starts_permille: int = 0
    member_fails_permille: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saves:
    """How a program saves: every `every_ms` of work (0: only when asked), without work for `pause_ms` each time.

    An attempt that resumes begins to work after `restart_ms`. One that `lies` says that it has saved and has not; one
    that is `silent` never says anything. `ends` when it has saved because its pods are being deleted.
    """

    every_ms: int = 0
    pause_ms: int = 10_000
    restart_ms: int = 0
    lies: bool = False
    silent: bool = False
    ends: bool = False

    @property
    def honest(self) -> bool:
        """Whether what it says is so."""
        return not self.lies and not self.silent


AT_ONCE = Behaviour(bind_ms=(0, 0), start_ms=(0, 0), end_ms=(0, 0), grace_ms=(0, 0), release_ms=(0, 0), watch_ms=(0, 0))
"""Nothing takes any time: for benchmarks in which a policy is looked at and not a container's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the program inside a gang will do: run `run_ms` once all members run (None: for ever) and succeed.

    The first `fails` attempts end with a failed member after `fails_after_ms` instead. With `saves` it saves, and an
    attempt begins where the last complete save began; without, every attempt begins anew.
    """

    run_ms: int | None = None
    fails: int = 0
    fails_after_ms: int = 60_000
    saves: Saves | None = None
