"""The timeline of a run: well-formed SVG that shows all that was measured and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from demo.iteration import boxes
from joulepath_cli.pictures import timeline_svg
from joulepath_cli.pictures.timeline_svg import Strip
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
