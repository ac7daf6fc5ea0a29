"""Zeus's CSV and its dialects: what is planned on, what is left out, and that both are told."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import PlannerError, Profile, ProfileError
from tests.planner.pipelines import scaled

HEADER = "stage,instruction,frequency,time,energy"
ROWS = [
    f"{stage},{'forward' if kind == 'F' else 'backward'},{point.clock_mhz},{point.time_s!r},{point.energy_j!r}"
    for (stage, kind), points in scaled([1.0, 1.2], 1).profile.points.items()
    for point in points[:3]
]
NASTY = (
    "", " ", "nan", "inf", "-1", "0", "1e400", "1e-300", "1e308", "x", "١", "½", "1_0", "\x1b", "\ufeff", '"',
    "forward", "load", "X", "9" * 5000, "0.05", "1400", ",", "\r", "\n", ",,,,,,", "1400.0", "-0.0", "💥",
)  # fmt: skip


def _read(path: Path, lines: list[str], **options: object) -> tuple[Profile, list[str]]:
    path.write_text("\n".join(lines), encoding="utf-8")
    told: list[str] = []
    return Profile.from_csv(path, blocking_power_w=80.0, tell=told.append, **options), told  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile.csv"


def test_rows_of_loading_are_left_out_and_told_once(path: Path) -> None:
    plain, nothing = _read(path, [HEADER, *ROWS])
    found, told = _read(path, [HEADER, "0,load,1400,0.0021,0.2", *ROWS, "1,Load,1400,0.0021,0.2"])
    assert found == plain
    assert nothing == []
    assert len(told) == 1
    assert "2 rows of the instruction 'load' are left out" in told[0]


def test_python_hears_of_what_is_left_out_as_a_warning(path: Path) -> None:
    path.write_text("\n".join([HEADER, "0,load,1400,0.0021,0.2", *ROWS]))
    with pytest.warns(UserWarning, match="'load' are left out"):
        Profile.from_csv(path, blocking_power_w=80.0)


def test_of_several_ways_to_run_at_a_clock_the_one_of_least_effective_energy_is_kept(path: Path) -> None:
    ways = [("a", 1.0, 1.0), ("b", 0.97, 1.02), ("c", 1.3, 1.01)]  # as fast, faster and dearer, slow
    rows = []
    for row in ROWS:
        place, name, clock, seconds, joules = row.split(",")
        rows += [
            f"{place},{name},{clock},{float(seconds) * longer},{float(joules) * dearer},{way},same"
            for way, longer, dearer in ways
        ]
    found, told = _read(path, [f"{HEADER},way,note", *rows])
    for (stage, kind), points in found.points.items():
        for point in points:
            cells = [row for row in csv.reader(StringIO("\n".join(rows))) if row[0] == str(stage)]
            same = [row for row in cells if row[1][0].upper() == kind and row[2] == str(point.clock_mhz)]
            assert len(same) == 3
            costs = [float(row[4]) - 80 * float(row[3]) for row in same]
            assert point.energy_j - 80 * point.time_s == pytest.approx(min(costs))
    assert len(told) == 1
    assert "told apart by way: 24 are left out" in told[0]


def test_the_same_row_twice_is_refused_whatever_columns_follow(path: Path) -> None:
    with pytest.raises(ProfileError, match=r"stage 0 [FB] at 1400 MHz is given twice"):
        _read(path, [f"{HEADER},way", *(f"{row},a" for row in (*ROWS, ROWS[0]) if row[0] == "0")])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([f"{HEADER},time", *(f"{row},1" for row in ROWS)], "column 'time' is there twice; keep the one to plan with"),
        (
            [HEADER, *(row.replace(".", ",") for row in ROWS)],
            "line 2 has 7 fields, and the header 5; write decimals with",
        ),
        ([HEADER, ROWS[0].replace("0.", "0_", 1), *ROWS[1:]], "line 2: time is '0_1'; it must be a number"),
        ([HEADER, *ROWS, '2,"forward' + "x" * 200_000], "is no CSV .field larger than field limit"),
        ([HEADER, *ROWS, f"0,{'y' * 5000},1400,1,1"], r"instruction 'y{20,40}\.\.\.y{20,40}' is unknown"),
        ([HEADER, f"1e300{ROWS[0][1:]}", *ROWS[1:]], "stages are counted from 0, and up to 1024 can be planned"),
        ([HEADER, "0,forward,5,0.05,20", *ROWS], "stage 0 F at 5 MHz: no GPU has such a clock"),
    ],
)
def test_what_is_written_otherwise_is_refused_with_its_place(path: Path, lines: list[str], sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        _read(path, lines)


@pytest.mark.parametrize(
    ("seconds", "joules", "swap", "says"),
    [
        (1e3, 1.0, False, "draws 0.4 W, which no GPU does"),
        (1.0, 1e3, False, r"draws 4e\+05 W, which no GPU does"),
        (1.0, 1e-3, False, "draws 0.4 W"),
        (1.0, 1.0, True, "columns swapped"),
        (1e6, 1e6, False, "lasts 100000 s, which no instruction does; give seconds, joules and watts of one GPU"),
    ],
)
def test_other_units_than_seconds_and_joules_are_refused(
    path: Path, seconds: float, joules: float, swap: bool, says: str
) -> None:
    lines = [HEADER]
    for row in ROWS:
        *start, time, energy = row.split(",")
        figures = [str(float(time) * seconds), str(float(energy) * joules)]
        lines.append(",".join([*start, *(figures[::-1] if swap else figures)]))
    with pytest.raises(ProfileError, match=says):
        _read(path, lines)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("\n".join([HEADER, *ROWS]).encode("utf-16"), "is no text in UTF-8"),
        ("\n".join([HEADER, *ROWS]).encode("utf-16-le"), "it has zero bytes in it"),
        (b"\x1f\x8b\x08\x00" + bytes(range(200, 256)), "is no text in UTF-8"),
        (b" " * 16_000_001, "has over 16 MB; give a file with only what is needed"),
    ],
)
def test_what_is_no_text_or_too_much_of_it_is_refused(path: Path, data: bytes, says: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ProfileError, match=says):
        Profile.from_csv(path, blocking_power_w=80.0)


def test_a_byte_order_mark_and_other_line_ends_change_nothing(path: Path) -> None:
    plain, _ = _read(path, [HEADER, *ROWS])
    for end in ("\r\n", "\r"):
        path.write_bytes(b"\xef\xbb\xbf" + end.join([HEADER, *ROWS]).encode())
        assert Profile.from_csv(path, blocking_power_w=80.0) == plain


@given(st.data())
def test_any_file_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    lines = [HEADER, *ROWS]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        cells = lines[place].split(",")
        cell = data.draw(st.integers(0, len(cells) - 1))
        cells[cell] = data.draw(st.sampled_from(NASTY) | st.text(max_size=8))
        change = [[], [lines[place]] * 2, [",".join(cells)], [",".join(cells[::-1])], [lines[place][: 3 * cell]]]
        lines[place : place + 1] = data.draw(st.sampled_from(change))
        lines = lines or [""]
    path.write_bytes("\n".join(lines).encode(data.draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16"))), "replace"))
    told = _refusal(path)
    assert told is None or told.endswith(".")
    assert len(told or "") < 1000 + len(str(path))


def _refusal(path: Path) -> str | None:
    try:
        Profile.from_csv(path, blocking_power_w=80.0, tell=lambda sentence: None)
    except PlannerError as refused:
        return str(refused)
    return None
