"""A few SVG elements, and one style that reads in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["circle", "document", "flow", "line", "polyline", "power_color", "rect", "text", "ticks"]

_STYLE: Final = """\
text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}
.title{font-size:15px;font-weight:600}.small{font-size:10px}.muted{fill:#59636e}
.paper{fill:#ffffff}.track{fill:#e6eaef}.axis{stroke:#8b949e;stroke-width:1;fill:none}.grid{stroke:#d1d9e0;stroke-width:1}
.critical{stroke:#1f2328;stroke-width:2;fill:none}.ours{stroke:#0969da;stroke-width:2.5;fill:none}
.theirs{stroke:#bc4c00;stroke-width:2;fill:none;stroke-dasharray:6 4}
.dot-ours{fill:#0969da}.dot-default{fill:#59636e}.dot-measured{fill:#1a7f37}.bar{stroke:#1a7f37;stroke-width:2}
.text-ours{fill:#0969da}.text-theirs{fill:#bc4c00}.text-measured{fill:#1a7f37}.on-dark{fill:#ffffff}.on-light{fill:#1f2328}
@media (prefers-color-scheme: dark){
text{fill:#e6edf3}.muted{fill:#9198a1}.paper{fill:#0d1117}.track{fill:#262c36}.grid{stroke:#2b323b}
.critical{stroke:#ffffff}.ours{stroke:#4493f8}.theirs{stroke:#f0883e}.dot-ours{fill:#4493f8}.dot-default{fill:#9198a1}
.dot-measured{fill:#3fb950}.bar{stroke:#3fb950}.text-ours{fill:#4493f8}.text-theirs{fill:#f0883e}.text-measured{fill:#3fb950}
.on-dark{fill:#ffffff}.on-light{fill:#1f2328}}
"""

_CHARACTER: Final = 5.6
"""About what a character of a small text is wide."""
_COLD_TO_HOT: Final = ((68, 90, 178), (63, 150, 190), (128, 190, 130), (242, 192, 75), (222, 106, 50), (170, 30, 45))


def document(width: float, height: float, label: str, elements: Iterable[str]) -> str:
    """A whole SVG file; `label` is what a screen reader says."""
    body = "\n".join(elements)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(label)}">\n<style>{_STYLE}</style>\n'
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>\n{body}\n</svg>\n'
    )


def rect(x: float, y: float, width: float, height: float, *, css: str = "", fill: str = "", title: str = "") -> str:
    """A box, with a text that shows when pointed at."""
    look = (f' class="{css}"' if css else "") + (f' fill="{fill}"' if fill else "")
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"{look}>{inner}</rect>'


def text(x: float, y: float, words: str, *, css: str = "", anchor: str = "start") -> str:
    """A line of text; `y` is its base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line through points."""
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def circle(x: float, y: float, radius: float, css: str) -> str:
    """A dot."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{css}"/>'


def flow(x: float, y: float, entries: Iterable[tuple[str, float, str]], most_x: float) -> list[str]:
    """A legend: (a mark drawn at the origin, its width, what it means) one after the other, on lines that end before
    `most_x`; `y` is the first base line."""
    elements, at = [], x
    for mark, width, words in entries:
        taken = width + 6 + _CHARACTER * len(words) + 18
        if at > x and at + taken > most_x:
            at, y = x, y + 16
        elements.append(f'<g transform="translate({at:.1f} {y:.1f})">{mark}</g>')
        elements.append(text(at + width + 6, y, words, css="small"))
        at += taken
    return elements


def power_color(share: float) -> tuple[str, bool]:
    """A colour from cold (0) to hot (1), and whether it is dark."""
    at = min(max(share, 0.0), 1.0) * (len(_COLD_TO_HOT) - 1)
    index = min(int(at), len(_COLD_TO_HOT) - 2)
    low, high = _COLD_TO_HOT[index], _COLD_TO_HOT[index + 1]
    red, green, blue = (round(a + (b - a) * (at - index)) for a, b in zip(low, high, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}", 0.299 * red + 0.587 * green + 0.114 * blue < 150


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from `low` to `high`, roughly `about` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** (len(f"{int(1 / raw)}") * -1 if raw < 1 else len(f"{int(raw)}") - 1)
    step = min((power * factor for factor in (1, 2, 5, 10, 20, 50)), key=lambda value: abs(value - raw))
    first = -int(-low // step)
    return [index * step for index in range(first, int(high // step) + 1)]
