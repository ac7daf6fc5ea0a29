"""Files of every unkind sort: each ends in a right answer, or in one sentence with the remedy, and nothing is lost."""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from joulepath_cli.commands import document, goal, scenario
from tests.cli.command import Run
from tests.examples import examples
from tests.planner.refusals import check_refusal

SHAPE = ("--microbatches", 6, "--blocking-power", 80)
POINT = ("stages", 0, "kinds", 0, "points", 0)
ODD: Any = (
    None,
    "",
    "x",
    -1,
    0,
    5,
    0.5,
    1e300,
    10**400,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [[]],
    "1" * 100,
    {"a": 1},
)


def _is_refused(run: Run, says: str, *arguments: object) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.startswith("joulepath")
    assert ran.err.count("\n") == 1
    assert len(ran.err) < 1200


@pytest.fixture(scope="session")
def saved(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan as `plan --json` writes it."""
    parser = argparse.ArgumentParser()
    scenario.add_arguments(parser)
    goal.add_arguments(parser)
    options = parser.parse_args(list(map(str, SHAPE)))
    made = scenario.load(str(csv), options)
    path = tmp_path_factory.mktemp("saved") / "plan.json"
    path.write_text(document.dumps(document.plan_document(made, goal.make(made, options))))
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("null", "it is no object"),
        ("[1]", "it is no object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a":' * 100_000, "it is nested too deeply"),
        (b"\xff\xfe{\x00", "is no text in UTF-8"),
        ({"ranks": None}, "ranks is None"),
        ({"ranks": "abc"}, "ranks is 'abc'"),
        ({"ranks": [1]}, "ranks is [1]"),
        ({"ranks": [{"stage": 0, "instructions": [{"kind": [], "microbatch": 0, "clock_mhz": 1}]}]}, "others"),
        ({"ranks": [{"stage": 0, "instructions": [{"kind": "F", "microbatch": 0, "clock_mhz": "x"}]}]}, "clock"),
        ({"ranks": [{"stage": 0, "instructions": [{"kind": "F", "microbatch": 0}]}]}, "'clock_mhz' is missing"),
        ({"switches": "many"}, "switches"),
        ({"energy_j": float("nan")}, "energy_j is nan, it must be above 0"),
        ({"energy_j": 10**400}, "it must be above 0, in seconds or joules"),
        ({"energy_j": [1]}, "energy_j is [1]"),
        ({"t_min_s": 1e-320}, "t_min_s is 1e-320"),
        ({"baseline_energy_j": "x"}, "baseline_energy_j is 'x'"),
    ],
)
def test_what_is_no_saved_plan_is_told_with_what_is_wrong(
    run: Run, saved: Path, tmp_path: Path, text: str | bytes | dict[str, Any], says: str
) -> None:
    bad = tmp_path / "bad.json"
    given = json.dumps(json.loads(saved.read_text()) | text) if isinstance(text, dict) else text
    bad.write_bytes(given if isinstance(given, bytes) else given.encode())
    _is_refused(run, says, "compare", saved, bad)


def _spec(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        at = manifest["spec"]
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def _twice(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        at = manifest["spec"]
        for step in path:
            at = at[step]
        at.append(at[0])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _spec("blockingPower", value=[]),
            "spec.blockingPower is empty, and waits would be counted at 0 W; give the watts",
        ),
        (_spec("blockingPower", 0, "powerWatts", value=1e9), "a GPU that waits draws less than one that computes"),
        (_twice("blockingPower"), "spec.blockingPower has 1400 twice; keep the one to plan with"),
        (_twice("stages"), "spec.stages has 0 twice"),
        (_twice("stages", 0, "kinds"), "spec.stages.kinds has 0, F twice"),
        (_twice("transfers"), "spec.transfers has 0, 1, F twice"),
        (_twice("stages", 0, "kinds", 0, "points"), "stage 0 F at 1400 MHz is given twice"),
        (_spec(*POINT, "timeSeconds", value=-1), "spec.stages.0.kinds.0.points.0.timeSeconds is -1"),
        (_spec(*POINT, "timeSeconds", value=float("nan")), "timeSeconds is 'NaN'"),
        (_spec(*POINT, "timeSeconds", value=[1]), "timeSeconds is [1]"),
        (_spec(*POINT, "timeSeconds", value=50.0), "draws 0.4 W, which no GPU does"),
        (_spec(*POINT, "energyJoules", value=2e4), "draws 4e+05 W, which no GPU does"),
        (_spec(*POINT, "clockMHz", value=5), "stage 0 F at 5 MHz: no GPU has such a clock"),
        (_spec("stages", 0, "tailSeconds", value=1e300), "tail_s[0] is 1e+300; it must be a number of seconds"),
        (_spec("topology", "microbatches", value=65536), "4 stages with 65536 microbatches are too many"),
        (_spec("topology", "schedule", value="2f2b"), "there is no file 2f2b"),
        (_spec("transfers", 0, "toStage", value=3), "transfer_s[0, 3, 'F'] is no edge"),
        (lambda manifest: manifest.pop("spec"), "spec is None"),
        (lambda manifest: manifest.update(spec=[[[["deep"] * 99] * 9] * 9]), "spec is [[[["),
    ],
)
def test_what_is_wrong_in_an_energyprofile_is_told_with_its_field(
    run: Run, manifest: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    bad = copy.deepcopy(manifest)
    change(bad)
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps(bad))  # which is YAML, too, and has no aliases
    _is_refused(run, says, "plan", path)


def test_the_command_line_may_give_the_blocking_power_that_a_profile_lacks(
    run: Run, manifest: dict[str, Any], tmp_path: Path
) -> None:
    bare = copy.deepcopy(manifest)
    bare["spec"]["blockingPower"] = []
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(bare))
    assert run("plan", path, "--blocking-power", 80).status == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nesting in line 1 that no EnergyProfile has"),
        ("\n".join(" " * depth + "a:" for depth in range(100)), "nesting in line 51 that no EnergyProfile has"),
        ("a: &a {b: 1}\nc: {<<: [*a, *a]}\n", "merge keys in line 2 that no EnergyProfile has"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("a: " + "9" * 5000, "is no YAML (Exceeds the limit"),
        ("? [a]\n: b\n", "unhashable key"),
        ("!!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (b"a: \x00", "it has zero bytes in it"),
        (b"\xff\xfea\x00", "is no text in UTF-8"),
        ("a: " + "x" * 3_000_000, "has over 3 MB"),
        ("- 1\n", "holds no object of kind EnergyProfile"),
        ("", "holds no object of kind EnergyProfile"),
    ],
)
def test_what_is_no_yaml_of_ours_is_refused_before_it_is_made_to_objects(
    run: Run, tmp_path: Path, text: str | bytes, says: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    _is_refused(run, says, "plan", path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a schedule needs at least one rank"),
        ("F0 B0\n", "orders 1 stages, and the profile or the command line has 4"),
        ("F0 F0 B0\n" * 4, "is there twice; an iteration runs it once"),
        ("F0\n" * 4, "stage 0 has no backward of microbatch 0; add its B0"),
        ("F" + "9" * 5000, "is not understood; write it as B3"),
        ("F٣ B٣\n" * 4, "instruction 'F٣' is not understood"),
        ("F0,B0\n" * 4, "instruction 'F0,B0' is not understood"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"F0 B0" + b" " * 2_000_000, "has over 2 MB"),
    ],
)
def test_an_order_that_is_none_is_refused(run: Run, csv: Path, tmp_path: Path, text: str | bytes, says: str) -> None:
    path = tmp_path / "order.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    _is_refused(run, says, "plan", csv, "--schedule", path, "--blocking-power", 80)


@pytest.mark.parametrize(
    "text", ["", "time,energy\n", "time,energy\nnan,1\n", "time,energy\n1\n", "time,time,energy\n1,2,3\n"]
)
def test_a_frontier_beside_that_is_none_is_refused(run: Run, csv: Path, tmp_path: Path, text: str) -> None:
    theirs = tmp_path / "theirs.csv"
    theirs.write_text(text)
    ran = ("frontier", csv, *SHAPE, "--points", 2, "--beside", theirs, "--plot", tmp_path / "out.svg")
    _is_refused(run, "theirs.csv is no frontier", *ran)


def test_no_picture_is_written_over_something_else(run: Run, csv: Path, tmp_path: Path) -> None:
    profile, other = tmp_path / "profile.csv", tmp_path / "link.svg"
    profile.write_bytes(csv.read_bytes())
    other.symlink_to(profile)
    told = "holds something else than what would be written; name another file, or remove it first"
    for path in (profile, other):
        _is_refused(run, told, "plan", profile, *SHAPE, "--plot", path)
        _is_refused(run, told, "plan", profile, *SHAPE, "--plot", tmp_path / "first.svg", path)
        _is_refused(run, told, "frontier", profile, *SHAPE, "--plot", path)
    assert profile.read_bytes() == csv.read_bytes()
    assert not (tmp_path / "first.svg").exists()
    _is_refused(run, "it is a folder; name a file", "plan", csv, *SHAPE, "--plot", tmp_path)
    _is_refused(run, "is named twice", "plan", csv, *SHAPE, "--plot", tmp_path / "a.svg", tmp_path / "a.svg")
    _is_refused(run, "/dev/full: No space left", "frontier", csv, *SHAPE, "--points", 2, "--plot", "/dev/full")


def test_a_picture_may_be_drawn_anew(run: Run, csv: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    for _ in range(2):
        assert run("frontier", csv, *SHAPE, "--points", 2, "--plot", picture).status == 0
    assert picture.read_text().startswith("<svg")


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(run: Run, saved: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"plan\xff.json")
    odd.write_bytes(saved.read_bytes())
    ran = run("compare", odd)
    assert ran.status == 0
    assert "plan?.json" in ran.out


def test_a_profile_may_come_through_a_pipe(run: Run, csv: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, csv.read_bytes())
    os.close(writer)
    try:
        assert run("frontier", f"/dev/fd/{reader}", *SHAPE, "--points", 2).status == 0
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--blocking-power", "1e9"), "'1e9' is no power of 0 W or more that a GPU draws while it waits"),
        (("--blocking-power", "450"), "the blocking power is 450 W at 1400 MHz, and no instruction draws over 400 W"),
        (("--blocking-power", "1400=90,1400=80"), "has 1400 MHz twice; give each clock once"),
        (("--stages", "9" * 5000), "is no whole number above 0; write one of up to nine digits"),
        (("--stages", "²"), "'²' is no whole number above 0"),
        (("--stages", 2000), "stages is 2000; up to 1024 can be planned"),
        (("--gpus-per-stage", "9" * 400), "is no whole number above 0"),
        (("--tail-ms", "1e300"), "is no time of 0 ms or more and up to a day"),
        (("--energy-budget", "1e308MJ"), "'1e308MJ' is no budget above 0"),
        (("--straggler", "1e300"), "is no straggler"),
        (("--deadline", "1000s"), "is it in seconds?"),
        (("--schedule", ""), "there is no file , and no schedule of that name"),
        (("--schedule", "/dev/zero"), "/dev/zero has over 2 MB"),
    ],
)
def test_an_option_beyond_all_bounds_is_refused(run: Run, csv: Path, options: tuple[object, ...], says: str) -> None:
    _is_refused(run, says, "plan", csv, *SHAPE, *options)


def test_a_profile_that_is_refused_is_told_in_one_sentence_though_rows_were_left_out(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "loads.csv"
    path.write_text("stage,instruction,frequency,time,energy\n0,load,1400,0.1,20\n")
    _is_refused(run, "the profile is empty", "plan", path, *SHAPE)


def test_what_is_left_out_is_noted_and_planned_without(run: Run, csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "loads.csv"
    path.write_text(csv.read_text() + "\n0,load,1400,0.0021,0.2\n")
    ran = run("plan", path, *SHAPE, "--json")
    assert ran.status == 0
    assert ran.err.startswith(f"joulepath: note: {path}: 1 rows of the instruction 'load' are left out")
    assert ran.err.count("\n") == 1
    assert json.loads(ran.out) == json.loads(run("plan", csv, *SHAPE, "--json").out)


OPTIONS = argparse.ArgumentParser()
scenario.add_arguments(OPTIONS)


@examples(50)
@given(st.data())
def test_any_energyprofile_is_read_or_refused_in_a_sentence(
    manifest: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = copy.deepcopy(manifest)
    _change(changed, data)
    path = tmp_path_factory.getbasetemp() / "drawn.yaml"
    path.write_text(json.dumps(changed))
    check_refusal(lambda: scenario.load(str(path), OPTIONS.parse_args([])))


@given(st.data())
def test_any_saved_plan_is_read_or_refused_in_a_sentence(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = json.loads(saved.read_text())
    _change(changed, data)
    path = tmp_path_factory.getbasetemp() / "drawn.json"
    path.write_text(json.dumps(changed))
    check_refusal(lambda: document.read(path))


def _change(root: Any, data: st.DataObject) -> None:
    """Another value, nothing, or the same twice, somewhere in it."""
    at = root
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 4)) == 0:
            break
        at = inner
    kind = data.draw(st.integers(0, 3))
    if kind == 0:
        del at[key]
    elif kind == 1 and isinstance(at, list):
        at.append(at[key])
    else:
        at[key] = data.draw(st.sampled_from(ODD))
