"""The pictures: well-formed SVG that shows all that was measured and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import frontier_svg, svg, timeline_svg
from demo.iteration import boxes
from demo.timeline_svg import Strip
from joulepath_crds import InstructionTime

SVG = "{http://www.w3.org/2000/svg}"


def test_the_timeline_has_a_box_for_each_instruction_and_marks_the_critical_path(
    pipeline: Callable[..., Mapping[int, tuple[InstructionTime, ...]]],
) -> None:
    placed = boxes(pipeline([1, 2], [2, 4], 3, 0.0, [0, 0]), lambda stage, _: 200.0 + 100 * stage)
    tree = ElementTree.fromstring(timeline_svg.draw([Strip("before <1>", placed), Strip("after", placed)], "a note"))
    titles = [element.text or "" for element in tree.iter(f"{SVG}title")]
    assert len(titles) == 2 * 2 * 6
    assert "F0 on stage 1: 2000.0 ms, 300 W" in titles
    marked = [rect for rect in tree.iter(f"{SVG}rect") if rect.get("class") == "critical"]
    assert len(marked) == 2 * sum(box.critical for box in placed) + 1  # one in the legend


def test_power_that_is_not_known_is_not_made_up(
    pipeline: Callable[..., Mapping[int, tuple[InstructionTime, ...]]],
) -> None:
    placed = boxes(pipeline([1, 2], [2, 4], 3, 0.0, [0, 0]), lambda *_: None)
    picture = timeline_svg.draw([Strip("before", placed)], "")
    assert "power not known" in picture
    assert " W" not in picture


def test_the_frontier_shows_ours_theirs_the_choice_and_the_measurement() -> None:
    ours = [(1.4 + 0.01 * i, 3000.0 - 10 * i) for i in range(33)]
    measured = frontier_svg.Measured("plan, measured", 1.42, (1.41, 1.43), 3050, (3040, 3060))
    picture = frontier_svg.draw(ours, (1.4, 3020), (1.4, 3500), [measured], [(0.1, 9999.0), *ours], "a note")
    tree = ElementTree.fromstring(picture)
    lines = {element.get("class"): element.get("points", "").split() for element in tree.iter(f"{SVG}polyline")}
    assert {"ours", "theirs"} <= lines.keys()
    assert "plan, measured" in picture
    for circle in tree.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx", "")) < 900
        assert 0 < float(circle.get("cy", "")) < 540


def test_a_frontier_with_no_published_data_in_range_doesnt_mention_it() -> None:
    picture = frontier_svg.draw([(1, 9), (2, 8)], (1, 9), (1, 10), [], [(100, 1)], "")
    assert "published" not in picture


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e5), about=st.integers(3, 10))
def test_ticks_are_few_and_inside(low: float, span: float, about: int) -> None:
    found = svg.ticks(low, low + span, about)
    slack = 1e-9 * max(abs(low), span)
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert 1 <= len(found) <= 3 * about


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_power_colours_are_colours(share: float) -> None:
    color, _ = svg.power_color(share)
    assert len(color) == 7
    assert int(color[1:], 16) >= 0
