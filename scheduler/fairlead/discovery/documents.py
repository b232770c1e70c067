"""YAML and JSON documents as plain values, within bounds; and getters that name the field they could not read.

YAML is read with every scalar as text, so that a node called 0010 stays 0010. Aliases are refused and nesting is
bounded before anything is built, so a small file cannot become a large one.
"""

from __future__ import annotations

import json
import re
from typing import cast

import yaml

from fairlead.errors import UnreadableInput

LARGEST = 64 << 20
_DEEPEST = 64
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")

Mapping = dict[str, object]


def read_documents(data: bytes, *, name: str) -> list[Mapping]:
    """Return the documents of a file; of Kubernetes ``List`` documents their items.

    Raises
    ------
    UnreadableInput
        It is neither JSON nor YAML, too large or too deep, or a document is no mapping.
    """
    if len(data) > LARGEST:
        raise UnreadableInput(f"{name}: {len(data)} bytes; a file may have {LARGEST}, split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        raise UnreadableInput(f"{name}: byte {broken.start} is not UTF-8") from None
    values = _json(text, name) if text.lstrip()[:1] in ("{", "[") else None
    if values is None:
        values = _yaml(text, name)
    documents: list[Mapping] = []
    for at, value in enumerate(values):
        documents += _items(value, f"{name}: document {at + 1}")
    return documents


def _json(text: str, name: str) -> list[object] | None:
    """Return JSON values, one or one a line; None where it is no JSON (flow style YAML starts alike)."""
    try:
        return [json.loads(text)]
    except RecursionError:
        raise UnreadableInput(f"{name}: nested too deep") from None
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except RecursionError:
        raise UnreadableInput(f"{name}: nested too deep") from None
    except ValueError:
        return None


def _yaml(text: str, name: str) -> list[object]:
    parser = getattr(yaml, "CParser", None)
    loader = yaml.CBaseLoader if parser is not None else yaml.BaseLoader
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise UnreadableInput(f"{name}:{_line(event)}: an alias (*{event.anchor}) is not read; write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise UnreadableInput(f"{name}:{_line(event)}: nested deeper than {_DEEPEST}")
        return [value for value in yaml.load_all(text, Loader=loader) if value not in (None, "")]
    except (yaml.YAMLError, ValueError, RecursionError) as broken:
        raise UnreadableInput(f"{name}: neither JSON nor YAML: {_one_line(broken)}") from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def _items(value: object, where: str) -> list[Mapping]:
    if isinstance(value, list):
        return [mapping(item, f"{where}[{at}]") for at, item in enumerate(cast("list[object]", value))]
    document = mapping(value, where)
    if text(document.get("kind"), f"{where}.kind").endswith("List") and "items" in document:
        return [
            mapping(item, f"{where}.items[{at}]")
            for at, item in enumerate(listing(document["items"], f"{where}.items"))
        ]
    return [document]


def mapping(value: object, where: str) -> Mapping:
    """Return a mapping with text keys, an empty one for nothing."""
    if value is None or (isinstance(value, str) and value in _NULLS):
        return {}
    if not isinstance(value, dict):
        raise UnreadableInput(f"{where}: expected a mapping of names to values, found {_kind(value)}")
    return {str(key): inner for key, inner in cast("dict[object, object]", value).items()}


def listing(value: object, where: str) -> list[object]:
    """Return a list, an empty one for nothing."""
    if value is None or (isinstance(value, str) and value in _NULLS):
        return []
    if not isinstance(value, list):
        raise UnreadableInput(f"{where}: expected a list, found {_kind(value)}")
    return cast("list[object]", value)


def text(value: object, where: str) -> str:
    """Return a text, "" for nothing; numbers and truth values become theirs."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "" if value in _NULLS else value
    if isinstance(value, int | float):
        return str(value)
    raise UnreadableInput(f"{where}: expected text, found {_kind(value)}")


def integer(value: object, where: str, default: int = 0) -> int:
    """Return a whole number, `default` for nothing."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    if value is None or (isinstance(value, str) and value in _NULLS):
        return default
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    raise UnreadableInput(f"{where}: expected a whole number, found {str(value)[:40]!r}")


def texts(value: object, where: str) -> dict[str, str]:
    """Return a mapping of texts to texts."""
    return {key: text(inner, f"{where}.{key}") for key, inner in mapping(value, where).items()}


def _kind(value: object) -> str:
    names = {"dict": "a mapping", "list": "a list", "str": "text", "bool": "true or false"}
    return names.get(type(value).__name__, "a number")
