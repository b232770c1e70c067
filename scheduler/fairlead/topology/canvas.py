"""The few shapes that pictures of machines and fabrics are made of, as SVG. Sizes are pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

INK, MUTED, PAPER, RULE = "#1f2933", "#61707f", "#ffffff", "#c5ced8"
CLASS_COLOURS = {
    "NV": "#2f9e44",
    "C2C": "#7048e8",
    "PIX": "#1c7ed6",
    "PXB": "#15aabf",
    "PHB": "#f2b705",
    "NODE": "#f76707",
    "SYS": "#d6336c",
    "NET": "#495057",
    "": "#ced4da",
}
"""Colour of each path class; all NVLink classes share one."""

CLASS_WORDS = {
    "NV": "NVLink (NV#: how many)",
    "C2C": "chip to chip",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "one host bridge",
    "NODE": "host bridges of one NUMA node",
    "SYS": "another NUMA node or socket",
    "": "unknown",
}
"""What the legend says of each class."""


def class_key(path: str) -> str:
    """Return the key of `CLASS_COLOURS` for a path class."""
    return "NV" if path.startswith("NV") else path if path in CLASS_COLOURS else ""


def text_width(text: str, size: int = 11) -> int:
    """Return about how wide a text is; a sans-serif letter takes a bit more than half its height."""
    return round(len(text) * size * 0.58) + 2


@dataclass(slots=True)
class Canvas:
    """Shapes in the order in which they are drawn."""

    shapes: list[str] = field(default_factory=list[str])

    def box(self, x: float, y: float, w: float, h: float, *, fill: str, stroke: str = RULE, r: int = 8,
            hint: str = "", dash: str = "") -> None:  # fmt: skip
        """Draw a rounded rectangle; `hint` is shown by browsers when pointed at."""
        title = f"<title>{escape(hint)}</title>" if hint else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{r}" fill="{fill}" '
            f'stroke="{stroke}"{dashed}>{title}</rect>'
        )

    def text(self, x: float, y: float, text: str, *, size: int = 11, colour: str = INK, bold: bool = False,
             anchor: str = "middle", turn: int = 0) -> None:  # fmt: skip
        """Write a text with its baseline at `y`."""
        weight = ' font-weight="600"' if bold else ""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor={quoteattr(anchor)}'
            f"{weight}{turned}>{escape(_printable(text))}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, colour: str = MUTED, width: float = 1.5) -> None:
        """Draw a straight line."""
        self.shapes.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:.1f}" stroke-linecap="round"/>'
        )

    def elbow(self, x1: float, y1: float, x2: float, y2: float, *, colour: str = MUTED, width: float = 1.5) -> None:
        """Draw a line down, across right below its start, and down again."""
        middle = y1 + min((y2 - y1) / 2, 11)
        self.shapes.append(
            f'<path d="M{x1:.1f} {y1:.1f} V{middle:.1f} H{x2:.1f} V{y2:.1f}" fill="none" stroke="{colour}" '
            f'stroke-width="{width:.1f}" stroke-linejoin="round"/>'
        )

    def arc(self, x1: float, x2: float, y: float, depth: float, *, colour: str, width: float, hint: str) -> None:
        """Draw a curve that hangs below two points of one height."""
        self.shapes.append(
            f'<path d="M{x1:.1f} {y:.1f} C{x1:.1f} {y + depth:.1f} {x2:.1f} {y + depth:.1f} {x2:.1f} {y:.1f}" '
            f'fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-opacity="0.85">'
            f"<title>{escape(hint)}</title></path>"
        )

    def legend(self, x: float, y: float, keys: list[str]) -> None:
        """Draw a swatch and words for each class."""
        for key in keys:
            words = f"{key}  {CLASS_WORDS[key]}" if key not in ("", "NV") else CLASS_WORDS[key]
            self.box(x, y - 9, 14, 11, fill=CLASS_COLOURS[key], stroke="none", r=3)
            self.text(x + 20, y, words, anchor="start", colour=MUTED)
            x += 34 + text_width(words)

    def svg(self, width: float, height: float, title: str) -> str:
        """Return the document."""
        body = "\n".join(self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="Inter, Helvetica, Arial, sans-serif" role="img">\n'
            f"<title>{escape(_printable(title))}</title>\n"
            f'<rect width="100%" height="100%" fill="{PAPER}"/>\n{body}\n</svg>\n'
        )


def _printable(text: str) -> str:
    """Replace what XML does not allow, and what nobody can see."""
    return "".join(c if c.isprintable() else "?" for c in text)
