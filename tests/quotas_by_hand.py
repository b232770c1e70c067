"""Quotas of a small tree, and every sum over it as the pages on quotas say it: slow, plain, and made anew each time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fairlead.model.quota import GPU
from fairlead.model.tenancy import ancestors
from fairlead.ordering.accounts import LimitHit

NAMES = ("org", "team", "lab", "kid", "alone")
ABOVE = {"org": "", "team": "org", "lab": "org", "kid": "team", "alone": ""}
maybe = st.none() | st.integers(0, 9)


@st.composite
def trees(draw: Any) -> dict[str, str]:
    """Five queues in three levels, in the words of `builders.queue`."""
    found = {}
    for name in NAMES:
        words = [f"parent={ABOVE[name]}"] if ABOVE[name] else []
        guaranteed = draw(st.integers(0, 6))
        words += [f"guaranteed={guaranteed}"]
        words += [f"lend={draw(st.integers(0, guaranteed))}"] if draw(st.booleans()) else []
        for word in ("limit", "borrow"):
            said = draw(maybe)
            words += [] if said is None else [f"{word}={said}"]
        words += ["scope=subtree"] if draw(st.integers(0, 5)) == 0 else []
        found[name] = " ".join(words)
    return found


class ByHand:
    """What queues hold, in thousandths, and every sum over it as the pages on quotas say it."""

    def __init__(self, queues: dict[str, Any], capacity: int, entitled: dict[str, int]) -> None:
        self.queues, self.capacity, self.entitled = queues, capacity, entitled
        self.chains = {name: ancestors(name, queues) for name in queues}
        self.held: dict[str, list[tuple[str, int]]] = {"used": [], "leaving": [], "hoped": []}

    def sum(self, what: str, *names: str) -> int:
        return sum(amount for queue, amount in self.held[what] if queue in names)

    def inside(self, what: str, name: str) -> int:
        return self.sum(what, *(one for one in self.queues if name in self.chains[one]))

    def children(self, name: str) -> list[str]:
        return [one for one in self.queues if (self.chains[one][1:2] or ("",))[0] == name]

    def guaranteed(self, name: str) -> int:
        return 1000 * self.queues[name].guaranteed_gpus

    def promised(self, name: str) -> int:
        return max(self.guaranteed(name), sum(self.promised(child) for child in self.children(name)))

    def kept(self, name: str) -> int:
        quota = self.queues[name].quota(GPU)
        own = 0 if quota is None or quota.lend_limit is None else quota.guaranteed - quota.lend_limit
        return max(own, sum(self.kept(child) for child in self.children(name)))

    def idle_kept(self, name: str) -> int:
        below = sum(self.idle_kept(child) for child in self.children(name))
        return max(below, self.kept(name) - self.inside("used", name), 0)

    def bound(self, name: str) -> tuple[int, str] | None:
        quota = self.queues[name].quota(GPU)
        bounds = []
        if quota is not None and quota.borrow_limit is not None:
            bounds.append((self.promised(name) + quota.borrow_limit, "borrowLimit"))
        if quota is not None and quota.limit is not None:
            bounds.append((quota.limit, "limit"))
        return min(bounds, key=lambda one: (one[0], one[1] == "borrowLimit"), default=None)

    def hit(self, queue: str, amount: int, *, after_stops: bool) -> LimitHit | None:
        for name in self.chains[queue]:
            held = self.inside("used", name) + (0 if after_stops else self.inside("leaving", name))
            bound = self.bound(name)
            if bound is not None and held + amount > bound[0]:
                return LimitHit(name, held, bound[0], GPU, bound[1])
        if amount and any(self.kept(name) for name in self.queues) and amount > self.lent_room(queue):
            root, free = self.chains[queue][-1], self.capacity - self.everything()
            return LimitHit(root, self.beside(self.chains[queue]), free, GPU, "lendLimit")
        return None

    def everything(self) -> int:
        return sum(amount for what in ("used", "leaving") for _, amount in self.held[what])

    def beside(self, chain: tuple[str, ...]) -> int:
        """What guarantees beside these queues keep."""
        siblings = [(name, other) for name in chain for other in self.children(ABOVE[name]) if other != name]
        return sum(self.idle_kept(other) for _, other in siblings)

    def lent_room(self, queue: str) -> int:
        chain = self.chains[queue]
        rooms = [
            self.promised(name) - self.inside("used", name) - self.beside(chain[:at]) for at, name in enumerate(chain)
        ]
        return max(0, self.capacity - self.everything() - self.beside(chain), *rooms)

    def head(self, queue: str) -> str:
        saying = [one for one in self.chains[queue] if self.queues[one].priority_scope == "subtree"]
        return saying[-1] if saying else ""

    def excess(self, queue: str, *, hoped: bool) -> int:
        head = self.head(queue)
        names = [one for one in self.queues if one == queue or (head and self.head(one) == head)]
        return (
            self.sum("used", *names) - (0 if hoped else self.sum("hoped", *names))
            - sum(self.entitled.get(name, 0) for name in names)
        )  # fmt: skip
