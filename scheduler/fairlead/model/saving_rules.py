"""What a gang says of checkpoints, retries, heartbeat and its end: bounds and contradictions.

The bounds keep what a tenant declares from mattering more than it should: a grace is time for which others wait, a
declared restart makes its victim dearer, an age of ten years is a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.gang import Checkpoint, Gang
from fairlead.units import duration_text

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
GRACE_MAX_MS = HOUR_MS
RESTART_MAX_MS = HOUR_MS
PAUSE_MAX_MS = 6 * HOUR_MS
INTERVAL_MAX_MS = 30 * DAY_MS
HEARTBEAT_LEAST_MS, HEARTBEAT_MAX_MS = 30 * SECOND_MS, DAY_MS
BACKOFF_MAX_MS = DAY_MS
TTL_MAX_MS = 365 * DAY_MS
SIZE_MAX_BYTES = 1 << 50
RETRIES_MAX = 1_000
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""What a program may be told by; anything else the kubelet cannot send or nothing can catch."""
FILE_DELAY_MS = 2 * MINUTE_MS
"""What the kubelet may take until a changed annotation is in the file that shows it."""

_Problem = tuple[str, str, str]


def default_grace_ms(checkpoint: Checkpoint) -> int:
    """Return how long a stop waits where nothing is said: twice the pause, and what the notice itself takes."""
    if not checkpoint.on_notice:
        return 0
    return min(GRACE_MAX_MS, max(MINUTE_MS, 2 * checkpoint.pause_ms) + (FILE_DELAY_MS if checkpoint.watches else 0))


def saving_problems(gang: Gang) -> Iterator[_Problem]:
    """Yield (field, problem, mend) of what contradicts itself or is out of bounds."""
    found = gang.checkpoint
    if found is not None:
        yield from _checkpoint(found, gang.grace_ms)
    elif gang.grace_ms:
        yield "spec.checkpoint.grace", "stands without a checkpoint", "say how the program saves, or remove it"
    if gang.heartbeat_ms is not None:
        yield from _within("spec.heartbeat.timeout", gang.heartbeat_ms, HEARTBEAT_LEAST_MS, HEARTBEAT_MAX_MS)
    if gang.ttl_ms is not None:
        yield from _within("spec.ttl", gang.ttl_ms, 0, TTL_MAX_MS)
    retries = gang.retries
    for name, most in (
        ("memberFailed", retries.member_failed),
        ("startDeadline", retries.start_deadline),
        ("hung", retries.hung),
        ("nodeLost", retries.node_lost),
    ):
        if most is not None and not 0 <= most <= RETRIES_MAX:
            yield f"spec.retryPolicy.{name}", f"{most} is not between 0 and {RETRIES_MAX}", "set it to 0 or more"
    if retries.hung is not None and gang.heartbeat_ms is None:
        yield "spec.retryPolicy.hung", "bounds hangs, which nothing detects", "set spec.heartbeat.timeout or remove it"
    for name, wait_ms in (("backoff", retries.backoff_ms), ("backoffMax", retries.backoff_max_ms)):
        if wait_ms:
            yield from _within(f"spec.retryPolicy.{name}", wait_ms, SECOND_MS, BACKOFF_MAX_MS)
    if retries.backoff_max_ms and retries.backoff_ms > retries.backoff_max_ms:
        first, most_text = duration_text(retries.backoff_ms), duration_text(retries.backoff_max_ms)
        yield "spec.retryPolicy.backoffMax", f"{most_text} is below backoff, {first}", "raise it or lower backoff"


def _checkpoint(found: Checkpoint, grace_ms: int) -> Iterator[_Problem]:
    at = "spec.checkpoint"
    ways = [name for name, said in (("command", found.command), ("signal", found.signal)) if said]
    if len(ways) + found.watches > 1:
        yield f"{at}.notify", "names more than one way to be told", "keep one of file, command and signal"
    if found.signal and found.signal not in SIGNALS:
        yield f"{at}.signal", f"{found.signal!r} is not one of: {', '.join(SIGNALS)}", "use SIGTERM"
    for name, value_ms, least, most in (
        ("interval", found.interval_ms, SECOND_MS, INTERVAL_MAX_MS),
        ("pause", found.pause_ms, 1, PAUSE_MAX_MS),
        ("restart", found.restart_ms, 0, RESTART_MAX_MS),
        ("grace", grace_ms, SECOND_MS, GRACE_MAX_MS),
    ):
        if value_ms:
            yield from _within(f"{at}.{name}", value_ms, least, most)
    if not 0 <= found.size_bytes <= SIZE_MAX_BYTES:
        yield f"{at}.size", f"{found.size_bytes} bytes is outside 0 to {SIZE_MAX_BYTES}", "write for example 200Gi"
    if found.interval_ms and found.interval_ms <= found.pause_ms:
        interval, pause = duration_text(found.interval_ms), duration_text(found.pause_ms)
        yield f"{at}.interval", f"{interval} is not longer than pause, {pause}", "save less often"
    if grace_ms and not found.on_notice:
        yield f"{at}.grace", "waits for a program that nobody tells", "set notify to file, command or signal"
    if grace_ms and grace_ms < found.pause_ms:
        grace, pause = duration_text(grace_ms), duration_text(found.pause_ms)
        yield f"{at}.grace", f"{grace} is shorter than pause, {pause}", "raise it: no save would be ready in time"


def _within(field: str, value_ms: int, least_ms: int, most_ms: int) -> Iterator[_Problem]:
    if not least_ms <= value_ms <= most_ms:
        least, most = duration_text(least_ms), duration_text(most_ms)
        yield field, f"{duration_text(value_ms)} is not between {least} and {most}", f"write for example {most}"
