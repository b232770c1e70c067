"""Placing within quotas: what a queue may still hold decides how many replicas a gang gets, and of which models.

A model whose limit is reached is not offered to the gang; it tries the others that it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fairlead.model.gang import Gang, Placement, Role
from fairlead.model.quota import FIXED, GPU, OF_MODEL, Amounts, amount_text, words_of
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.ordering.history import History
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Counted, LimitHit, Standing
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.placement.search import Answer
from fairlead.placement.wishes import takes_devices
from fairlead.planning.admission import admission
from fairlead.planning.caps import Caps
from fairlead.world.attempt_parts import part_of
from fairlead.world.charges import charged, least, resources_of
from fairlead.world.snapshot import Running, World

_REASONS = {
    "limit": Reason.QUEUE_AT_LIMIT,
    "nonPreemptible": Reason.QUEUE_AT_LIMIT,
    "borrowLimit": Reason.BORROW_LIMIT,
    "lendLimit": Reason.NOT_LENT,
}
MODELS_TRIED = 8
"""Models left out one after the other, at most, because what was found would have broken a limit of theirs."""


def standing_of(
    world: World, tree: QueueTree, caps: Caps, ended: Iterable[Running] = (), idle_milli: int = 0
) -> Standing:
    """Return how every queue stands before anything is decided; `ended` are attempts that this cycle ends.

    `idle_milli` is what pools keep free for nobody who asks: no queue is entitled to any of it.
    """
    asked = [
        ask
        for ask in world.waiting.asked.values()
        if admission(ask.example, world) is None and not caps.starts_nothing(ask.example.queue)
    ]
    counted = None
    if world.counted:
        wanted: dict[str, dict[str, int]] = {}
        for ask in asked:
            queue = ask.example.queue
            for resource, amount in ask.also:
                of = wanted.setdefault(resource, {})
                of[queue] = of.get(queue, 0) + amount
        capacity = {name: world.capacity_of(name) if name != FIXED else 0 for name in world.counted}
        counted = Counted(capacity=capacity, used=world.running.used, asked=wanted)
    leaves = [*world.running.stopping, *ended]
    ending = {attempt.gang for attempt in leaves}
    shrinking = (attempt for attempt in world.running.shrinking if attempt.gang not in ending)
    leaves += [part_of(attempt, attempt.leaving, world.inventory, world.counted) for attempt in shrinking]
    leaving = [(attempt.queue, attempt.gpu_milli, attempt.also) for attempt in leaves]
    pending = [(ask.example.queue, ask.gpu_milli) for ask in asked]
    free = world.capacity_milli - idle_milli
    return Standing(
        free, tree, world.queue_gpu_milli, pending, leaving, counted, History(tree, world.past, world.now_ms)
    )


def charge_of(gang: Gang, placement: Placement, world: World) -> Amounts:
    """Return what a placement is charged for beside GPUs."""
    if not world.counted:
        return ()
    row, nodes = world.inventory.row, world.inventory.nodes
    return charged(gang, placement.members, lambda name: nodes[row[name]] if name in row else None, world.counted)


def place_within(gang: Gang, world: World, placer: Placer, standing: Standing, cap_milli: int | None) -> Answer:
    """Find devices for as many replicas as the limits of the gang's queues, and `cap_milli`, leave room for."""
    feasibility, queue = placer.feasibility, gang.queue
    rooms = (standing.room_within_limits(queue), cap_milli)
    allowed = _within(gang, GPU, min((room for room in rooms if room is not None), default=None), feasibility)
    if not world.counted:
        return placer.place(allowed)
    for resource in world.counted:
        if not resource.startswith(OF_MODEL):
            allowed = _within(allowed, resource, standing.room_within_limits(queue, resource), feasibility)
    return _Models(allowed, world, placer, standing).place()


class _Models:
    """The search over models for one gang, where limits of models bind."""

    def __init__(self, gang: Gang, world: World, placer: Placer, standing: Standing) -> None:
        self._gang, self._world, self._placer, self._standing = gang, world, placer, standing
        self._roles = [role for role in gang.roles if takes_devices(role)]
        accepted = {role.name: placer.feasibility.models(role, gang.service_class) for role in self._roles}
        self._accepted = accepted
        self._room: dict[str, int] = {}
        for model in sorted({model for models in accepted.values() for model in models}):
            rooms = [
                room
                for resource in resources_of(model, world.counted)
                if (room := standing.room_within_limits(gang.queue, resource)) is not None
            ]
            if rooms:
                self._room[model] = min(rooms)

    def place(self) -> Answer:
        """Try models with room for all members, leaving out those that turn out to have too little; then fewer."""
        if not self._room:
            return self._try(self._gang, frozenset())
        charge = self._placer.feasibility.charge(self._gang)
        alone = not self._gang.mixed_models and len(self._roles) == 1
        each = charge if alone else min((self._one(role) for role in self._roles), default=0)
        without = frozenset(model for model, room in self._room.items() if room < each)
        answer = self._try(self._gang, without)
        if answer.placement is not None:
            return answer
        for model, room in sorted(self._room.items(), key=lambda item: (-item[1], item[0])):
            fewer = _within(self._gang, GPU, room, self._placer.feasibility)
            if alone and model in without and fewer is not self._gang and self._fits(fewer, room):
                smaller = self._try(fewer, frozenset(self._accepted[self._roles[0].name]) - {model})
                if smaller.placement is not None:
                    return smaller
        return answer

    def _one(self, role: Role) -> int:
        return self._placer.feasibility.milli(role, self._gang.service_class)

    def _fits(self, gang: Gang, room: int) -> bool:
        return 0 < self._placer.feasibility.charge(gang) <= room

    def _try(self, gang: Gang, without: frozenset[str]) -> Answer:
        answer = Answer()
        for _ in range(MODELS_TRIED):
            narrowed = self._narrowed(gang, without)
            if narrowed is None:
                return answer
            mark = self._placer.overlay.checkpoint()
            answer = self._placer.place(narrowed)
            if answer.placement is None:
                return answer
            also = charge_of(gang, answer.placement, self._world)
            hit = self._standing.limit_hit(gang.queue, answer.placement.gpu_milli, also)
            if hit is None:
                return answer
            self._placer.overlay.roll_back(mark)
            answer = Answer()
            over = {model for model in self._room if hit.resource in resources_of(model, self._world.counted)}
            if not over - without:
                return answer
            without |= over
        return answer

    def _narrowed(self, gang: Gang, without: frozenset[str]) -> Gang | None:
        """Return the gang without some models; None where a role accepts no other."""
        if not without:
            return gang
        roles: list[Role] = []
        for role in gang.roles:
            accepted = self._accepted.get(role.name, ())
            left = [model for model in accepted if model not in without]
            if accepted and not left and role.replicas:
                return None
            narrow = len(left) < len(accepted)
            roles.append(replace(role, gpu_model="|".join(f"={model}" for model in left)) if narrow else role)
        return replace(gang, roles=tuple(roles))


def _within(gang: Gang, resource: str, room: int | None, feasibility: Feasibility) -> Gang:
    """Return the gang with no more replicas than `room` of a resource is enough for; the last roles shrink first."""

    def each_of(role: Role) -> int:
        if resource == GPU:
            return feasibility.milli(role, gang.service_class)
        return dict(least(replace(gang, roles=(replace(role, replicas=1, min_replicas=1),)), (resource,))).get(
            resource, 0
        )

    if room is None:
        return gang
    over = sum(role.replicas * each_of(role) for role in gang.roles) - room
    if over <= 0:
        return gang
    roles: list[Role] = []
    for role in reversed(gang.roles):
        each = each_of(role)
        fewer = min(role.replicas - role.fewest, -(-over // each)) if each else 0
        over = max(0, over - fewer * each)
        roles.append(replace(role, replicas=role.replicas - fewer))
    return replace(gang, roles=tuple(reversed(roles)))


def limit_refusal(hit: LimitHit, milli: int, also: Amounts) -> Refusal:
    """Say which limit of which queue and resource keeps a charge out for now."""
    need = milli if hit.resource == GPU else dict(also)[hit.resource]
    used, limit, needs = (amount_text(hit.resource, amount) for amount in (hit.used_milli, hit.limit_milli, need))
    return refuse(_REASONS[hit.word], queue=hit.queue, what=words_of(hit.resource), used=used, limit=limit, need=needs)


def never_refusal(hit: LimitHit, milli: int, also: Amounts) -> Refusal:
    """Say which limit a charge alone is above of."""
    need = milli if hit.resource == GPU else dict(also)[hit.resource]
    needs, limit = amount_text(hit.resource, need), amount_text(hit.resource, hit.limit_milli)
    return refuse(Reason.ABOVE_LIMIT, queue=hit.queue, what=words_of(hit.resource), need=needs, limit=limit)


def model_refusal(gang: Gang, world: World, placer: Placer, standing: Standing) -> Refusal | None:
    """Say which limit of a model keeps out a gang that there is room for, None where none does."""
    if not any(resource.startswith(OF_MODEL) for resource in world.counted):
        return None
    mark = placer.overlay.checkpoint()
    placement = placer.place(gang).placement
    placer.overlay.roll_back(mark)
    if placement is None:
        return None
    charge = placement.gpu_milli, charge_of(gang, placement, world)
    hit = standing.limit_hit(gang.queue, *charge)
    return None if hit is None else limit_refusal(hit, *charge)
