"""Who leads: a Lease, held by compare-and-swap, and the moment after which its holder may write nothing more.

The holder trusts its own monotonic clock only: it counts from before the renewing request left, so whatever the server
believes, a rival can take over no sooner than we have stopped. Rivals judge by how long the Lease has not changed under
their own eyes, never by the times written in it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from fairlead.clock import monotonic_ms, now_ms
from fairlead.errors import Unreachable, UnreadableInput
from fairlead_operator.custom_objects import LEASES, Lease
from fairlead_operator.kube_client import ApiError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The times of the election, in seconds.

    A lease lasts `lease_s` from its last renewal and is renewed every `renew_every_s`. Its holder stops writing
    `margin_s` before the end. `settle_s` is how long a new leader waits before it reads the cluster: longer than the
    admission policy takes to notice the new holder, so that nothing of the old one is still accepted.
    """

    lease_s: float = 15.0
    renew_every_s: float = 5.0
    retry_every_s: float = 2.0
    margin_s: float = 3.0
    settle_s: float = 2.0


class Requests(Protocol):
    """What an election needs of the API client."""

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        deadline_s: float = 15.0,
        retry: bool | None = None,
        fenced: bool = True,
    ) -> bytes:
        """Send one request, as `KubeHttp.request`."""
        ...


class Elector:
    """Stands for election as `identity` (the pod's name, which the admission policy compares) until cancelled.

    `on_change(True)` is called once the lease is ours and has settled, `on_change(False)` when it was lost. `sleep` and
    the clocks are arguments so that tests own the time.
    """

    def __init__(
        self,
        client: Requests,
        *,
        namespace: str,
        name: str,
        identity: str,
        rng: random.Random,
        terms: Terms | None = None,
        on_change: Callable[[bool], None] = lambda leading: None,
        mono_ms: Callable[[], int] = monotonic_ms,
        wall_ms: Callable[[], int] = now_ms,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare; nothing is asked before `run`."""
        self.terms = terms or Terms()
        assert self.terms.renew_every_s < self.terms.lease_s - self.terms.margin_s, self.terms
        self.identity = identity
        self.leading = asyncio.Event()
        self._client = client
        self._namespace = namespace
        self._name = name
        self._rng = rng
        self._on_change = on_change
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._sleep = sleep
        self._until_ms: int | None = None
        self._seen = ""
        self._seen_ms = 0

    def write_until(self) -> float:
        """Return the monotonic second after which no write of ours may be outstanding; the past where we do not lead.

        Give it to the client as its fence.
        """
        return 0.0 if self._until_ms is None else self._until_ms / 1000

    def is_leader(self) -> bool:
        """Whether we may write now."""
        return self._until_ms is not None and self._mono_ms() < self._until_ms

    async def run(self) -> None:
        """Win the lease, keep it, tell when it is lost, and stand again, until cancelled."""
        while True:
            await self._win()
            log.info(
                "lease %s/%s is ours; waiting %.1f s for it to settle", self._namespace, self._name, self.terms.settle_s
            )
            if await self._hold(self.terms.settle_s):
                self.leading.set()
                self._on_change(True)
                await self._hold(None)
            self._lose()

    async def release(self) -> None:
        """Give the lease back so that another need not wait; call it after the last write. Does nothing if not ours."""
        if not self.is_leader():
            return
        self._lose()
        try:
            lease = await self._read()
            if lease is not None and lease.spec.holder_identity == self.identity:
                await self._write(lease, holder="", lease_s=1)
        except (ApiError, Unreachable, UnreadableInput) as error:
            log.info("lease %s not given back: %s", self._name, error)

    def _lose(self) -> None:
        """Stop writing at once and tell, if we led."""
        self._until_ms = None
        if self.leading.is_set():
            self.leading.clear()
            self._on_change(False)

    async def _win(self) -> None:
        """Try until the lease is ours."""
        while not await self._try():
            await self._sleep(self.terms.retry_every_s * self._rng.uniform(0.75, 1.25))

    async def _hold(self, for_s: float | None) -> bool:
        """Renew until `for_s` have passed (True), or for ever; False as soon as the lease is lost or has run out."""
        end_ms = None if for_s is None else self._mono_ms() + int(for_s * 1000)
        while True:
            now = self._mono_ms()
            if self._until_ms is None or now >= self._until_ms:
                return False
            if end_ms is not None and now >= end_ms:
                return True
            renewed_ms = self._until_ms - int((self.terms.lease_s - self.terms.margin_s) * 1000)
            due_ms = renewed_ms + int(self.terms.renew_every_s * 1000)
            if now >= due_ms:
                if await self._try():
                    continue
                if not self.is_leader():
                    return False
                due_ms = self._mono_ms() + int(min(self.terms.retry_every_s, 1.0) * 1000)
            wake_ms = min(due_ms, self._until_ms) if end_ms is None else min(due_ms, self._until_ms, end_ms)
            await self._sleep(max(0.0, (wake_ms - self._mono_ms()) / 1000))

    async def _try(self) -> bool:
        """Take or renew the lease once. A rival's lease is taken when it has not changed for its whole duration."""
        try:
            lease = await self._read()
            if lease is None:
                return await self._write(None, holder=self.identity)
            mine = lease.spec.holder_identity == self.identity
            if self._until_ms is not None and not mine:
                self._until_ms = None  # somebody has it: whatever our clock says, we no longer lead
                return False
            if not mine and not self._abandoned(lease):
                return False
            return await self._write(lease, holder=self.identity)
        except ApiError as error:
            if error.status == 409:
                return False
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
        except (Unreachable, UnreadableInput) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
        return False

    def _abandoned(self, lease: Lease) -> bool:
        """Whether nobody holds the lease, or its holder has not renewed it for its duration by our own clock."""
        if not lease.spec.holder_identity:
            return True
        now = self._mono_ms()
        if lease.metadata.resource_version != self._seen:
            self._seen, self._seen_ms = lease.metadata.resource_version, now
            return False
        return now - self._seen_ms > (lease.spec.lease_duration_seconds or self.terms.lease_s) * 1000

    def _deadline_s(self) -> float:
        """How long one request may take: short, and never past the end of what we hold."""
        if self._until_ms is None:
            return self.terms.renew_every_s
        return max(0.1, min(self.terms.renew_every_s, (self._until_ms - self._mono_ms()) / 1000))

    async def _read(self) -> Lease | None:
        """Read the lease; None where there is none."""
        try:
            raw = await self._client.request(
                "GET", LEASES.path(self._namespace, self._name), deadline_s=self._deadline_s(), retry=False
            )
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        try:
            return msgspec.json.decode(raw, type=Lease)
        except msgspec.DecodeError as error:
            raise UnreadableInput(f"Lease {self._name}: {error}") from error

    async def _write(self, lease: Lease | None, *, holder: str, lease_s: int = 0) -> bool:
        """Create or replace the lease by compare-and-swap; the time counts from before the request left."""
        began_ms = self._mono_ms()
        body = self._body(lease, holder, lease_s or int(self.terms.lease_s))
        path = LEASES.path(self._namespace, "" if lease is None else self._name)
        method = "POST" if lease is None else "PUT"
        await self._client.request(method, path, body, deadline_s=self._deadline_s(), retry=False, fenced=False)
        if holder == self.identity:
            self._until_ms = began_ms + int((self.terms.lease_s - self.terms.margin_s) * 1000)
        return True

    def _body(self, lease: Lease | None, holder: str, lease_s: int) -> dict[str, Any]:
        """Build the Lease to write; a change of holder counts as a transition."""
        now = datetime.fromtimestamp(self._wall_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = None if lease is None else lease.spec
        same = old is not None and old.holder_identity == holder
        transitions = (old.lease_transitions or 0) if old else 0
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease.metadata.resource_version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": lease_s,
                "acquireTime": old.acquire_time if old and same and old.acquire_time else now,
                "renewTime": now,
                "leaseTransitions": transitions + (0 if same or not holder else 1),
            },
        }
