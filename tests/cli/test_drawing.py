"""The pictures: well-formed SVG that shows what it was given and nothing else."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_cli.pictures import frontier_svg, svg, timeline_svg
from joulepath_cli.pictures.timeline_svg import Box, Strip

SVG = "{http://www.w3.org/2000/svg}"


def test_the_frontier_shows_ours_theirs_the_choice_and_the_measurement() -> None:
    ours = [(1.4 + 0.01 * i, 3000.0 - 10 * i) for i in range(33)]
    measured = frontier_svg.Measured("plan, measured", 1.42, (1.41, 1.43), 3050, (3040, 3060))
    picture = frontier_svg.draw(ours, (1.4, 3020), (1.4, 3500), [measured], [(0.1, 9999.0), *ours], "a note")
    tree = ElementTree.fromstring(picture)
    lines = {element.get("class"): element.get("points", "").split() for element in tree.iter(f"{SVG}polyline")}
    assert {"ours", "theirs"} <= lines.keys()
    assert "plan, measured" in picture
    for circle in tree.findall(f"{SVG}circle"):
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


def test_a_rank_of_several_stages_has_one_row() -> None:
    boxes = [Box(stage, f"{stage}:F0", stage, stage + 1.0, 100.0, rank=stage % 2) for stage in range(4)]
    tree = ElementTree.fromstring(timeline_svg.draw([Strip("plan", boxes)], ""))
    words = [element.text or "" for element in tree.iter(f"{SVG}text")]
    assert [word for word in words if word.startswith(("rank", "stage"))] == ["rank 0", "rank 1"]


def test_the_legend_names_the_kinds_that_are_drawn() -> None:
    boxes = [Box(0, name, 0.0, 1.0, 100.0, rank=0) for name in ("0:F1", "0:I1", "0:W1")]
    picture = timeline_svg.draw([Strip("plan", boxes)], "")
    assert "F: forward; I: input gradient; W: weight gradient; the number is the microbatch" in picture
    assert "backward" not in picture


def test_a_box_has_the_longest_name_that_fits_and_at_least_its_kind() -> None:
    boxes = [
        Box(3, f"3:F{m}", begin, end, 100.0, rank=0) for m, (begin, end) in enumerate(((0, 1), (1, 1.02), (1.02, 1.03)))
    ]
    tree = ElementTree.fromstring(timeline_svg.draw([Strip("plan", boxes)], ""))
    words = [element.text for element in tree.iter(f"{SVG}text") if element.get("class", "").startswith("small on-")]
    assert words == ["3:F0", "F1", "F"]


def test_only_what_is_drawn_is_in_the_legend() -> None:
    boxes = [Box(0, "F0", 0.0, 1.0, 100.0)]
    plain = timeline_svg.draw([Strip("plan", boxes)], "")
    assert "critical path" not in plain
    assert "waits for another stage" in plain
    paced = timeline_svg.draw([Strip("plan", boxes, until_s=2.0)], "", waits="waits for the straggler")
    assert "waits for another stage" not in paced
    track = next(one for one in ElementTree.fromstring(paced).iter(f"{SVG}rect") if one.get("class") == "track")
    box = next(one for one in ElementTree.fromstring(paced).iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None)
    assert float(track.get("width", 0)) == pytest.approx(2 * float(box.get("width", 0)), rel=0.01)


def test_the_legend_of_a_frontier_tells_every_dot_within_the_picture() -> None:
    ours = [(1.0, 9.0), (2.0, 8.0)]
    measured = frontier_svg.Measured("measured", 1.4, (1.3, 1.5), 8.5, (8.4, 8.6))
    tree = ElementTree.fromstring(frontier_svg.draw(ours, (1.5, 8.6), (1, 10), [measured], ours, "", plans=ours))
    dots = {one.get("class") for one in tree.iter(f"{SVG}circle")}
    legend = {one.get("class") for group in tree.iter(f"{SVG}g") for one in group.iter(f"{SVG}circle")}
    assert dots == legend == {"dot-ours", "dot-default", "dot-measured"}
    words = [one for one in tree.iter(f"{SVG}text") if one.get("class") == "small"]
    assert {"a plan for each time", "the plan", "default clocks"} <= {one.text for one in words}
    assert all(float(one.get("x", 0)) + 5.6 * len(one.text or "") < 900 for one in words)


def test_a_long_iteration_gets_a_wider_picture() -> None:
    def width(instructions: int) -> float:
        boxes = [Box(0, f"F{m}", float(m), m + 1.0, 100.0) for m in range(instructions)]
        return float(ElementTree.fromstring(timeline_svg.draw([Strip("plan", boxes)], "")).get("width", ""))

    assert width(24) == 1320
    assert 1320 < width(192) < width(384)


def test_other_plans_are_dots_and_the_published_frontier_has_its_name() -> None:
    ours = [(1.0, 9.0), (2.0, 8.0)]
    picture = frontier_svg.draw(ours, None, (1, 10), [], ours, "", published_label="theirs.csv", plans=ours)
    assert len(ElementTree.fromstring(picture).findall(f"{SVG}circle[@class='dot-ours']")) == 2
    assert "theirs.csv" in picture
    assert "plan, predicted" not in picture
