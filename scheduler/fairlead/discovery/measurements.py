"""Read measurements: a JSON or YAML mapping with a list ``measurements`` of pairs and what they gave."""

from __future__ import annotations

from fairlead.discovery.documents import integer, listing, mapping, read_documents, text
from fairlead.errors import UnreadableInput
from fairlead.topology.measured import Measurement


def parse(data: bytes, *, name: str) -> tuple[Measurement, ...]:
    """Return the measurements of a file; each needs ``a`` and ``b``, and ``bytes_per_s`` or ``latency_ns``.

    Raises
    ------
    UnreadableInput
        The file or one of its fields is unreadable; the message names it.
    """
    found: list[Measurement] = []
    for document in read_documents(data, name=name):
        where = f"{name}: measurements"
        if "measurements" not in document:
            raise UnreadableInput(f"{where}: is required; give a list of a, b, bytes_per_s")
        for at, value in enumerate(listing(document["measurements"], where)):
            here = f"{where}[{at}]"
            entry = mapping(value, here)
            measurement = Measurement(
                a=text(entry.get("a"), f"{here}.a"),
                b=text(entry.get("b"), f"{here}.b"),
                machine=text(entry.get("machine"), f"{here}.machine"),
                bytes_per_s=integer(entry.get("bytes_per_s"), f"{here}.bytes_per_s"),
                latency_ns=integer(entry.get("latency_ns"), f"{here}.latency_ns"),
                at_ms=integer(entry.get("at_ms"), f"{here}.at_ms"),
            )
            if not measurement.a or not measurement.b:
                raise UnreadableInput(f"{here}: a and b are required")
            if measurement.bytes_per_s < 0 or measurement.latency_ns < 0:
                raise UnreadableInput(f"{here}: bytes_per_s and latency_ns cannot be negative")
            found.append(measurement)
    return tuple(found)
