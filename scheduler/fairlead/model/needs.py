"""Resources that live above the node, such as a rack's power: their names and amounts, as people write them.

No kubelet knows them, so a container cannot ask for them; a role of a GangJob says what each of its pods needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairlead.errors import UnreadableInput
from fairlead.units import quantity

_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")
_LONGEST = 253
_KUBERNETES = re.compile(r"([-.a-z0-9]*\.)?kubernetes\.io/.*|nvidia\.com/.*")


def needs_of(needs: Mapping[str, str | int], *, field: str) -> tuple[tuple[str, int], ...]:
    """Return (name, amount in whole units) of what a pod needs, sorted by name.

    Raises
    ------
    UnreadableInput
        A name or amount is none; the message names `field` and the mend.
    """
    return tuple(
        (name, amount_of(needs[name], field=f"{field}[{resource_name(name, field=field)}]")) for name in sorted(needs)
    )


def resource_name(name: str, *, field: str) -> str:
    """Return the name of a resource that lives above the node.

    Raises
    ------
    UnreadableInput
        It is not a name with a domain, or one that Kubernetes or a GPU driver gives a meaning.
    """
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise UnreadableInput(f"{field}: {name!r} is no resource name; write for example example.com/rack-watts")
    if _KUBERNETES.fullmatch(name):
        raise UnreadableInput(f"{field}: {name!r} has a meaning of its own; use a name of your own domain")
    return name


def amount_of(text: str | int, *, field: str) -> int:
    """Return a positive quantity in whole units, rounded up.

    Raises
    ------
    UnreadableInput
        It is no quantity, or not positive.
    """
    amount = quantity(str(text), field=field)
    if amount <= 0:
        raise UnreadableInput(f"{field}: {str(text)!r} is not positive; write for example 1200 or 25G")
    return amount
