"""What is written on the pods and claims of a gang's members, and whose an object is by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.model.gang import GangId

GANG_UID, ATTEMPT, RANK = "fairlead.dev/gang-uid", "fairlead.dev/attempt", "fairlead.dev/rank"


def member_in(labels: Mapping[str, str], owners: Iterable[tuple[str, str]]) -> tuple[GangId, int, int] | None:
    """Return (gang, attempt, rank) of an object with these labels and owners (kind, uid), None where it is not ours.

    Labels alone prove nothing, anybody may write them: the object must also be owned by the GangJob that they name.
    """
    gang, attempt, rank = (labels.get(name, "") for name in (GANG_UID, ATTEMPT, RANK))
    if not gang or not attempt.isdecimal() or not rank.isdecimal() or ("GangJob", gang) not in owners:
        return None
    return GangId(gang), int(attempt), int(rank)
