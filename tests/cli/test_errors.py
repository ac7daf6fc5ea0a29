"""Whatever is wrong: one sentence on standard error that names it and the remedy, exit 2, and no traceback."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_cli import quantities
from joulepath_cli.__main__ import main
from tests.cli.command import Run

SHAPE = ("--microbatches", 6, "--blocking-power", 80)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--microbatches", 6), "--blocking-power is missing: a CSV doesn't hold the watts"),
        (("--blocking-power", 80), "--microbatches is missing: say how many an iteration has"),
        (
            (*SHAPE, "--stages", 5),
            "the schedule runs 4:F0, but the profile has only stages 0, 1, 2, 3; they are counted from 0",
        ),
        (
            (*SHAPE, "--schedule", "2f2b"),
            "there is no file 2f2b, and no schedule of that name; it is one of gpipe, 1f1b",
        ),
        ((*SHAPE, "--schedule", "zb-h1"), "such as --input-share 50%"),
        ((*SHAPE, "--deadline", "0.1s"), "the deadline of 0.1 s is under T_min"),
        ((*SHAPE, "--slowdown", "5"), "argument --slowdown: '5' is no share; write 5% or 0.05"),
        ((*SHAPE, "--slowdown", "-1%"), "argument --slowdown"),
        ((*SHAPE, "--deadline", "soon"), "'soon' is no time above 0 and up to a day; write 2.9s or 2900ms"),
        ((*SHAPE, "--straggler", "-2"), "argument --straggler"),
        ((*SHAPE, "--straggler", "0.9"), "there is nothing to wait for"),
        ((*SHAPE, "--straggler", "slow"), "'slow' is no straggler; write 1.2 (times T_min) or 3.4s"),
        ((*SHAPE, "--energy-budget", "1J"), "no plan costs as little as 1 J; the least is"),
        ((*SHAPE, "--power-budget", "1W"), "draws as little as 1 W; the least is"),
        ((*SHAPE, "--power-budget", "none"), "'none' is no budget above 0; write 2500W or 2.5kW"),
        ((*SHAPE, "--deadline", "3s", "--slowdown", "0%"), "not allowed with argument"),
        ((*SHAPE, "--granularity", "fine"), "invalid choice: 'fine'"),
        ((*SHAPE, "--reserve", "100%"), "reserve is 1.0; it is a fraction"),
        ((*SHAPE, "--quantile", "95%"), "no jitter is given; give one, such as `--jitter 1%`"),
        ((*SHAPE, "--jitter", "1%", "--quantile", "95%", "--straggler", "1.2"), "leave out straggler and budgets"),
        ((*SHAPE, "--jitter", "1%", "--quantile", "95%", "--reserve", "1%"), "looks for the reserve itself"),
        ((*SHAPE, "--alternatives", "--power-budget", "1kW"), "--alternatives goes with a slowdown or a deadline"),
        ((*SHAPE, "--host-power", "300W", "--energy-budget", "2kJ"), "--host-power goes with a slowdown or a deadline"),
        ((*SHAPE, "--host-power", "300W", "--alternatives"), "leave out budgets and --alternatives"),
        ((*SHAPE, "--jitter", "1%", "--seed", "-1"), "argument --seed"),
        ((*SHAPE, "--jitter", "1%", "--samples", 1), "samples is 1; a spread needs at least 2"),
        ((*SHAPE, "--plot", "a.svg", "b.svg", "c.svg"), "--plot takes a timeline and a frontier, two files, not 3"),
        ((*SHAPE, "--plot", "/nowhere/a.svg"), "/nowhere/a.svg can't be written, there is no folder /nowhere"),
        (("--microbatches", 10**6, "--blocking-power", 80), "4 stages with 1000000 microbatches are too many"),
        ((*SHAPE, "--input-share", "0%"), "--input-share is 0; both I and W take a part of B"),
        ((*SHAPE, "--stages", "many"), "'many' is no whole number above 0"),
        ((*SHAPE, "--lag-ms", "-5"), "argument --lag-ms"),
        (
            ("--microbatches", 6, "--blocking-power", "hot"),
            "'hot' is no power of 0 W or more that a GPU draws while it waits; write 83.64",
        ),
        (("--microbatches", 6, "--blocking-power", "1410=90,x=2"), "'x=2' is no clock with its watts"),
    ],
)
def test_a_bad_option_is_told_in_a_sentence(run: Run, csv: Path, options: tuple[object, ...], says: str) -> None:
    ran = run("plan", csv, *options)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.startswith("joulepath")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stage,forward\n0,1\n", "column 'instruction' is missing; the header must be stage,instruction"),
        ("stage,instruction,frequency,time,energy\n", "the profile is empty"),
        ("stage,instruction,frequency,time,energy\n0,sideways,1400,1,1\n", "line 2: instruction 'sideways' is unknown"),
        (
            "stage,instruction,frequency,time,energy\n0,forward,1400,nan,1\n0,forward,1300,1,1\n",
            "line 2: time is 'nan'; it must be a number of seconds above 0",
        ),
        ("stage,instruction,frequency,time,energy\n0,forward,fast,1,1\n", "line 2:"),
        ("\x00\x01", "is no text, it has zero bytes in it"),
        ("", "is empty; its header must be stage,instruction,frequency,time,energy"),
        ("stage;instruction;frequency;time;energy\n", "separated by commas"),
        ("stage,instruction,frequency,time,energy\n0,forward,1.41,1,1\n", "must be a whole number of MHz"),
        ("stage,instruction,frequency,time,energy\n0,forward,1400\n", "line 2: time is missing"),
        ("stage,instruction,frequency,time,energy\n0,forward,1410000000,1,1\n", "give clocks as whole numbers of MHz"),
    ],
)
def test_a_bad_profile_is_told_with_its_place(run: Run, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    ran = run("frontier", path, *SHAPE)
    assert ran.status == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_profile_that_is_not_there_or_no_text_is_named(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    assert f"joulepath: {missing}: No such file or directory." in run("plan", missing, *SHAPE).err
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    ran = run("plan", binary, *SHAPE)
    assert ran.status == 2
    assert "is no text in UTF-8" in ran.err
    assert ran.err.count("\n") == 1


def test_no_command_and_an_unknown_one_are_refused(run: Run) -> None:
    assert run().status == 2
    ran = run("dance")
    assert ran.status == 2
    assert "invalid choice: 'dance'" in ran.err


def test_help_of_every_command_is_there(run: Run) -> None:
    for command in ((), ("plan",), ("frontier",), ("compare",), ("explain",), ("replay",), ("stragglers",)):
        ran = run(*command, "--help")
        assert ran.status == 0
        assert "usage: joulepath" in ran.out


def test_a_reader_that_has_seen_enough_ends_it_quietly(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["plan", str(csv), *map(str, SHAPE), "--json"]) == 0
    assert capsys.readouterr().err == ""


@given(st.text(alphabet="0123456789.-+e%smWJk=,nai ", max_size=12))
def test_quantities_are_read_or_refused_whatever_is_written(text: str) -> None:
    for read in (
        quantities.seconds,
        quantities.milliseconds,
        quantities.fraction,
        quantities.straggler,
        quantities.budget("W"),
        quantities.blocking_power,
        quantities.count,
        quantities.listed(quantities.fraction),
    ):
        told = _refusal(read, text)
        assert told is None or told.endswith(".")


def _refusal(read: Callable[[str], object], text: str) -> str | None:
    try:
        read(text)
    except ArgumentTypeError as error:
        return str(error)
    return None


def test_the_version_is_told(run: Run) -> None:
    ran = run("--version")
    assert (ran.status, ran.out) == (0, f"joulepath {version('joulepath')}\n")
