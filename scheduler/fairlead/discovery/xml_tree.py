"""XML from strangers as plain elements that know their line. Entities are refused, sizes and depths are bounded.

A DOCTYPE may stand there (hwloc writes one), but nothing it points to is fetched, and one that declares anything is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers import expat

from fairlead.errors import UnreadableInput

_LARGEST = 32 << 20
_MOST_ELEMENTS = 400_000
_DEEPEST = 256


@dataclass(slots=True)
class Element:
    """One element: tag, attributes, children, all text directly in it, and the line its tag begins on."""

    tag: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list["Element"])
    text: str = ""

    def get(self, key: str) -> str:
        """Return an attribute, "" where it is absent."""
        return self.attributes.get(key, "")

    def all(self, tag: str) -> Iterator[Element]:
        """Yield the children with a tag."""
        return (child for child in self.children if child.tag == tag)


def read_xml(data: bytes, *, name: str, root: str) -> Element:
    """Return the root element of a document.

    Raises
    ------
    UnreadableInput
        Not well-formed, cut off, too large or too deep, with declarations of its own, or with another root than
        `root`; the text is ``name:line: what``.
    """
    if len(data) > _LARGEST:
        raise UnreadableInput(f"{name}: {len(data)} bytes; no topology needs more than {_LARGEST}")
    reader = _Reader(name)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as broken:
        what = expat.ErrorString(broken.code)
        raise UnreadableInput(f"{name}:{broken.lineno}: not well-formed XML ({what}); is the file cut off?") from None
    except (LookupError, ValueError) as broken:
        raise UnreadableInput(f"{name}:1: {broken}") from None
    found = reader.root
    if found is None or found.tag != root:
        raise UnreadableInput(f"{name}:1: the document is <{found.tag if found else ''}>, expected <{root}>")
    return found


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._declared
        self.parser.AttlistDeclHandler = self._declared
        self.parser.ElementDeclHandler = self._declared

    def _refuse(self, what: str) -> NoReturn:
        raise UnreadableInput(f"{self.name}:{self.parser.CurrentLineNumber}: {what}")

    def _declared(self, *_: Any) -> None:
        self._refuse("the document declares entities or elements of its own; remove the declarations")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _MOST_ELEMENTS:
            self._refuse(f"more than {_MOST_ELEMENTS} elements; no machine has as many")
        if len(self._open) >= _DEEPEST:
            self._refuse(f"elements nest deeper than {_DEEPEST}")
        element = Element(tag, self.parser.CurrentLineNumber, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if self._open and not text.isspace():
            self._open[-1].text += text
