"""The frontier: least energy for each iteration time, the plan that was chosen and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from joulepath_cli.pictures import svg

__all__ = ["Measured", "Point", "draw"]

Point: TypeAlias = tuple[float, float]
"""Seconds and joules of an iteration."""

_WIDTH: Final = 900.0
_HEIGHT: Final = 556.0
_LEFT: Final = 78.0
_RIGHT: Final = 24.0
_TOP: Final = 48.0
_BOTTOM: Final = 90.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured point with its 95% intervals."""

    label: str
    time_s: float
    time_ci_s: Point
    energy_j: float
    energy_ci_j: Point


def draw(
    frontier: Sequence[Point],
    chosen: Point | None,
    default: Point,
    measured: Sequence[Measured],
    published: Sequence[Point],
    note: str,
    *,
    published_label: str = "published frontier",
    plans: Sequence[Point] = (),
) -> str:
    """The picture; the axes hold our frontier and all points (`plans`: others than the chosen one), the published
    frontier is cut to them."""
    points = [*frontier, *plans, *([chosen] if chosen else []), default, *((m.time_s, m.energy_j) for m in measured)]
    (x_low, x_high), (y_low, y_high) = _range([x for x, _ in points]), _range([y for _, y in points])

    def place(point: Point) -> Point:
        return (
            _LEFT + (point[0] - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (point[1] - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    elements = [svg.text(_LEFT, 26, "Least energy of an iteration for each iteration time", css="title")]
    for value in svg.ticks(x_low, x_high, 8):
        x, _ = place((value, y_low))
        elements += [
            svg.line(x, _TOP, x, _HEIGHT - _BOTTOM, "grid"),
            svg.text(x, _HEIGHT - _BOTTOM + 16, f"{value:g}", css="small muted", anchor="middle"),
        ]
    for value in svg.ticks(y_low, y_high, 7):
        _, y = place((x_low, value))
        elements += [
            svg.line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"),
            svg.text(_LEFT - 6, y + 4, f"{value:g}", css="small muted", anchor="end"),
        ]
    elements.append(svg.text(_LEFT, _TOP - 8, "joules an iteration, all GPUs", css="small muted"))
    elements.append(
        svg.text(_WIDTH - _RIGHT, _HEIGHT - _BOTTOM + 32, "seconds an iteration", css="small muted", anchor="end")
    )
    inside = [p for p in published if x_low <= p[0] <= x_high and y_low <= p[1] <= y_high]
    if inside:
        elements.append(svg.polyline([place(p) for p in inside], "theirs"))
    elements.append(svg.polyline([place(p) for p in sorted(frontier)], "ours"))
    elements += _dot(place(default), "dot-default", "default clocks, predicted", "muted", 18)
    elements += [svg.circle(*place(point), 3, "dot-ours") for point in plans]
    if chosen:
        elements += _dot(place(chosen), "dot-ours", "plan, predicted", "text-ours", 18)
    for item in measured:
        elements += _measured(item, place)
    entries = [(svg.polyline([(0, -4), (30, -4)], "ours"), 30.0, "lower bound for any plan of supported clocks")]
    entries += [(svg.polyline([(0, -4), (30, -4)], "theirs"), 30.0, published_label)] * bool(inside)
    entries += [(svg.circle(5, -4, 5, "dot-default"), 10.0, "default clocks")]
    entries += [(svg.circle(5, -4, 5, "dot-ours"), 10.0, "the plan")] * bool(chosen)
    entries += [(svg.circle(5, -4, 3, "dot-ours"), 10.0, "a plan for each time")] * bool(plans)
    entries += [(svg.circle(5, -4, 4, "dot-measured"), 10.0, "measured, with 95% intervals")] * bool(measured)
    elements += svg.flow(_LEFT, _HEIGHT - 38, entries, _WIDTH - _RIGHT)
    elements.append(svg.text(_LEFT, _HEIGHT - 6, note, css="small muted"))
    return svg.document(_WIDTH, _HEIGHT, "Energy and time of an iteration: frontier, plan and measurement", elements)


def _range(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _dot(at: Point, css: str, label: str, text_css: str, dy: float) -> list[str]:
    return [svg.circle(*at, 5, css), svg.text(at[0] + 9, at[1] + dy, label, css=f"small {text_css}")]


def _measured(item: Measured, place: object) -> list[str]:
    assert callable(place)
    x, y = place((item.time_s, item.energy_j))
    left, right = place((item.time_ci_s[0], item.energy_j))[0], place((item.time_ci_s[1], item.energy_j))[0]
    low, high = place((item.time_s, item.energy_ci_j[0]))[1], place((item.time_s, item.energy_ci_j[1]))[1]
    return [
        svg.line(left, y, right, y, "bar"),
        svg.line(x, low, x, high, "bar"),
        svg.circle(x, y, 4, "dot-measured"),
        svg.text(x + 9, y + 4, item.label, css="small text-measured"),
    ]
