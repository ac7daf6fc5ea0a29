"""The timeline: one iteration before and after, ranks as rows, instructions as boxes coloured by power."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from joulepath_cli.pictures import svg
from joulepath_planner import Instruction

__all__ = ["Box", "Strip", "draw"]

_WIDTH: Final = 1320.0
_WIDEST: Final = 9600.0
_BOX_WIDTH: Final = 14.0
_LEFT: Final = 70.0
_RIGHT: Final = 20.0
_ROW: Final = 26.0
_BOX: Final = 22.0
_HEAD: Final = 40.0
_FOOT: Final = 34.0
_TOP: Final = 12.0
_BOTTOM: Final = 62.0
_CHARACTER: Final = 7.0
_KINDS: Final = {"F": "forward", "B": "backward", "I": "input gradient", "W": "weight gradient"}


@dataclass(frozen=True, slots=True)
class Box:
    """An instruction on the common axis; its row is its rank's where that is told, else its stage's."""

    stage: int
    instruction: str
    begin_s: float
    end_s: float
    power_w: float | None
    critical: bool = False
    rank: int | None = None

    @property
    def kind(self) -> str:
        return Instruction.parse(self.instruction, self.stage).kind

    @property
    def row(self) -> int:
        return self.stage if self.rank is None else self.rank

    @property
    def row_name(self) -> str:
        return f"stage {self.stage}" if self.rank is None else f"rank {self.rank}"


@dataclass(frozen=True, slots=True)
class Strip:
    """One iteration of the picture. until_s: when the next one begins at the earliest, such as a straggler's end."""

    title: str
    boxes: Sequence[Box]
    until_s: float = 0.0


def draw(strips: Sequence[Strip], note: str, *, waits: str = "waits for another stage") -> str:
    """The picture; all strips share the time axis and the power scale. waits: what the time between boxes is."""
    everything = [box for strip in strips for box in strip.boxes]
    end_s = max([*(box.end_s for box in everything), *(strip.until_s for strip in strips)], default=1.0)
    powers = [box.power_w for box in everything if box.power_w is not None]
    low, high = (min(powers), max(powers)) if powers else (0.0, 1.0)
    longest_row = max(Counter((place, box.row) for place, strip in enumerate(strips) for box in strip.boxes).values())
    width = min(max(_WIDTH, _LEFT + _RIGHT + _BOX_WIDTH * longest_row), _WIDEST)
    per_s = (width - _LEFT - _RIGHT) / end_s
    elements, top = [], _TOP
    for strip in strips:
        elements += _strip(strip, top, per_s, end_s, low, high)
        top += _HEAD + _ROW * len({box.row for box in strip.boxes}) + _FOOT
    entries = [(svg.rect(0, -10, 22, 12, css="critical"), 22.0, "critical path")] * any(
        box.critical for box in everything
    )
    entries += [
        (svg.rect(0, -10, 22, 12, css="track"), 22.0, waits),
        ("", 0.0, _letters({box.kind for box in everything})),
    ]
    if powers:
        entries.insert(0, (_scale(), 124.0, f"{low:.0f} to {high:.0f} W while it runs"))
    elements += svg.flow(_LEFT, top + 16, entries, width - _RIGHT)
    elements.append(svg.text(_LEFT, top + 16 + 32, note, css="small muted"))
    label = "One training iteration at default clocks and with the plan: " + "; ".join(strip.title for strip in strips)
    return svg.document(width, top + _BOTTOM, label, elements)


def _strip(strip: Strip, top: float, per_s: float, end_s: float, low: float, high: float) -> list[str]:
    rows = dict(sorted({box.row: box.row_name for box in strip.boxes}.items()))
    elements = [svg.text(_LEFT, top + 22, strip.title, css="title")]
    bottom = top + _HEAD + _ROW * len(rows)
    last_s = max([strip.until_s, *(box.end_s for box in strip.boxes)])
    for at in svg.ticks(0, end_s, round(8 * end_s * per_s / _WIDTH) + 1):
        x = _LEFT + at * per_s
        elements += [
            svg.line(x, top + _HEAD - 4, x, bottom, "grid"),
            svg.text(x, bottom + 14, f"{at:g} s", css="small muted", anchor="middle"),
        ]
    for place, name in enumerate(rows.values()):
        y = top + _HEAD + place * _ROW
        elements.append(svg.text(_LEFT - 8, y + 15, name, anchor="end"))
        elements.append(svg.rect(_LEFT, y, last_s * per_s, _BOX, css="track"))
    marks, place_of = [], {row: place for place, row in enumerate(rows)}
    for box in strip.boxes:
        x, y = _LEFT + box.begin_s * per_s, top + _HEAD + place_of[box.row] * _ROW
        width = max((box.end_s - box.begin_s) * per_s, 0.5)
        elements += _box(box, x, y, width, low, high)
        if box.critical:
            marks.append(svg.rect(x + 1, y + 1, max(width - 2, 0.3), _BOX - 2, css="critical"))
    return elements + marks


def _box(box: Box, x: float, y: float, width: float, low: float, high: float) -> list[str]:
    share = 0.5 if box.power_w is None or high <= low else (box.power_w - low) / (high - low)
    color, dark = svg.power_color(share) if box.power_w is not None else ("#8b949e", False)
    power = "power not known" if box.power_w is None else f"{box.power_w:.0f} W"
    title = f"{box.instruction} on stage {box.stage}: {1e3 * (box.end_s - box.begin_s):.1f} ms, {power}"
    elements = [svg.rect(x + 0.4, y, max(width - 0.8, 0.3), _BOX, fill=color, title=title)]
    whole = box.instruction
    short = re.sub(r"\d+:", "", whole)
    for words in (whole, short, short[0]):
        if width >= _CHARACTER * len(words):
            css = f"small {'on-dark' if dark else 'on-light'}"
            return [*elements, svg.text(x + width / 2, y + 15, words, css=css, anchor="middle")]
    return elements


def _scale() -> str:
    """The colours from cold to hot."""
    return "".join(svg.rect(2 * index, -10, 2.2, 12, fill=svg.power_color(index / 59)[0]) for index in range(60))


def _letters(kinds: Collection[str]) -> str:
    told = [f"{letter}: {name}" for letter, name in _KINDS.items() if any(letter in kind for kind in kinds)]
    told += ["F&B: both interleaved"] * any("&" in kind for kind in kinds)
    return "; ".join([*told, "the number is the microbatch"])
