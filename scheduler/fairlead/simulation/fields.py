"""Read a mapping from YAML field by field; whatever is missing, wrong or left over is named with its full path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from fairlead.errors import UnreadableInput
from fairlead.units import duration_ms, quantity

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Fields:
    """One mapping and where it stands. Every getter marks its field as read; `done` refuses what nobody read."""

    def __init__(self, value: object, path: str) -> None:
        """Wrap a value that must be a mapping; None is an empty one."""
        self.path = path
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise UnreadableInput(f"{path}: must be a mapping of names to values, not {_kind(value)}")
        self._values: dict[str, object] = {str(name): field for name, field in value.items()}
        self._read: set[str] = set()

    def fail(self, name: str, problem: str) -> NoReturn:
        """Refuse a field."""
        raise UnreadableInput(f"{self.path}.{name}: {problem}" if self.path else f"{name}: {problem}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def raw(self, name: str) -> object:
        """Return the field as it is, None where absent."""
        self._read.add(name)
        return self._values.get(name)

    def unsupported(self, name: str, mend: str) -> None:
        """Refuse a field that Fairlead knows and cannot honour yet."""
        if self.raw(name) is not None:
            self.fail(name, f"is not supported yet; {mend}")

    def text(self, name: str, default: str | None = None, *, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text; without `default` it must be there and not empty."""
        value = self.raw(name)
        if value is None:
            if default is None:
                self.fail(name, "is required")
            return default
        if not isinstance(value, str):
            self.fail(name, f"must be text, not {_kind(value)}; put it in quotes")
        if pattern is not None and not pattern.fullmatch(value):
            self.fail(name, f"{value!r} is not a name; use lower-case letters, digits and '-', at most 63")
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        """Return one of `allowed`."""
        value = self.text(name, default)
        if value not in allowed:
            self.fail(name, f"{value!r} is not one of: {', '.join(allowed)}")
        return value

    def integer(self, name: str, default: int | None = None, *, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        value = self.raw(name)
        if value is None:
            if default is None:
                self.fail(name, "is required")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"must be a whole number, not {_kind(value)}")
        if not low <= value <= high:
            self.fail(name, f"{value} is outside {low}..{high}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(name, f"must be true or false, not {_kind(value)}")
        return value

    def duration_ms(self, name: str, default: int | None = None) -> int | None:
        """Return a duration such as ``90m`` in ms."""
        if not self.has(name):
            self.raw(name)
            return default
        ms = duration_ms(self.text(name), field=f"{self.path}.{name}")
        if ms == 0:
            self.fail(name, "is zero; write for example 90s, 10m or 1h30m, or remove it")
        return ms

    def quantity(self, name: str, default: int = 0) -> int:
        """Return a Kubernetes quantity, written as text or number, in whole units."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.fail(name, f"must be a quantity such as 80Gi, not {_kind(value)}")
        return quantity(str(value), field=f"{self.path}.{name}")

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, None where absent."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(name, "must be a list of texts")
        return tuple(str(item) for item in value)

    def labels(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return a mapping of texts to texts, sorted."""
        inner = self.inner(name)
        return tuple(sorted((key, inner.text(key)) for key in inner.names()))

    def inner(self, name: str) -> Fields:
        """Return the mapping in a field; an absent one is empty."""
        return Fields(self.raw(name), f"{self.path}.{name}" if self.path else name)

    def items(self, name: str) -> Iterator[Fields]:
        """Walk a list of mappings; an absent one is empty."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.fail(name, f"must be a list, not {_kind(value)}")
        for index, item in enumerate(value):
            yield Fields(item, f"{self.path}.{name}[{index}]" if self.path else f"{name}[{index}]")

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields that are there."""
        return tuple(self._values)

    def ignore(self, *names: str) -> None:
        """Mark fields as read that decide nothing here."""
        self._read.update(names)

    def done(self) -> None:
        """Refuse a field that nobody read."""
        for name in self._values:
            if name not in self._read:
                near = difflib.get_close_matches(name, sorted(self._read), n=1)
                self.fail(name, f"unknown field; did you mean {near[0]}?" if near else "unknown field; remove it")


def _kind(value: object) -> str:
    """Name a value's type in YAML's words."""
    words = {"bool": "true or false", "int": "a number", "float": "a number", "str": "text", "list": "a list"}
    name = type(value).__name__
    return words.get(name, "a mapping" if name == "dict" else name)
