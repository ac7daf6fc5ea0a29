"""Published profiles become EnergyProfiles, and these become Zeus's CSV again, point for point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from joulepath_cli.commands.profile import forms
from joulepath_crds import EnergyProfileSpec
from joulepath_planner import Profile
from tests.cli.command import Run
from tests.examples import examples

GPU = ("--gpu-model", "NVIDIA A100-SXM4-80GB")
TOLD = ("--blocking-power", "1400=80,1000=60", "--microbatches", 6, *GPU)
HEADER = "stage,instruction,frequency,time,energy"
TOPOLOGY = {"schedule": "1F1B", "microbatches": 6, "gpu_model": "A100", "default_clock_mhz": 1400}


def points(spec: EnergyProfileSpec) -> dict[tuple[int, str], list[tuple[int, float, float]]]:
    """Clock, seconds and joules of each."""
    return {
        (stage.stage, kind.kind): sorted((one.clock_mhz, one.time_s, one.energy_j) for one in kind.points)
        for stage in spec.stages
        for kind in stage.kinds
    }


def imported(run: Run, *arguments: object) -> dict[str, Any]:
    """The manifest that an import prints."""
    ran = run("profile", "import", *arguments)
    assert ran.status == 0, ran.err
    found: dict[str, Any] = yaml.safe_load(ran.out)
    return found


def test_a_csv_becomes_an_energyprofile_that_plans_the_same(run: Run, csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    assert run("profile", "import", csv, *TOLD, "--name", "gpt3", "--namespace", "ml", "-o", path).status == 0
    found = yaml.safe_load(path.read_text())
    assert found["metadata"] == {"name": "gpt3", "namespace": "ml"}
    spec = EnergyProfileSpec.from_api(found["spec"])
    assert spec.topology.to_api() == {
        "schedule": "1F1B",
        "stages": 4,
        "microbatches": 6,
        "dataParallel": 1,
        "tensorParallel": 1,
        "gpuModel": "NVIDIA A100-SXM4-80GB",
        "defaultClockMHz": 1400,
    }
    planned = run("plan", csv, "--blocking-power", "1400=80,1000=60", "--microbatches", 6, "--json").out
    assert run("plan", path, "--json").out == planned


@pytest.mark.parametrize(("given_name", "reported"), [("gpipe", "GPipe"), ("Recorded", "Recorded")])
def test_shape_and_default_clock_are_as_told(run: Run, csv: Path, given_name: str, reported: str) -> None:
    found = imported(run, csv, *TOLD, "--schedule", given_name, "--gpus-per-stage", 8, "--default-clock", 1455)
    topology = found["spec"]["topology"]
    assert (topology["schedule"], topology["tensorParallel"], topology["defaultClockMHz"]) == (reported, 8, 1455)
    assert found["metadata"] == {"name": "profile"}


def test_merak_s_loads_are_left_out_and_of_kareus_s_ways_the_cheapest_is_kept(run: Run, tmp_path: Path) -> None:
    """As their profilers write them: a third instruction, and further columns that tell rows of a clock apart."""
    merak, kareus = tmp_path / "merak.csv", tmp_path / "kareus.csv"
    rows = [
        f"0,{kind},{clock},{0.04 * 1410 / clock:.5f},{12 * clock / 1410:.3f}"
        for kind in ("forward", "backward")
        for clock in (1410, 1200, 1005)
    ]
    merak.write_text("\n".join([HEADER, "0,load,1410,0.0021,0.2", *rows]))
    ways = [(f"{row},a0,m0", f"{row}9,a1,m0") for row in rows]
    kareus.write_text("\n".join([f"{HEADER},attention_configs,mlp_configs", *(one for both in ways for one in both)]))
    for path, told in ((merak, "1 rows of the instruction 'load' are left out"), (kareus, "6 are left out")):
        ran = run("profile", "import", path, *TOLD)
        assert ran.status == 0
        assert told in ran.err
        found = points(EnergyProfileSpec.from_api(yaml.safe_load(ran.out)["spec"]))
        assert {key: len(ones) for key, ones in found.items()} == {(0, "B"): 3, (0, "F"): 3}
        assert found[0, "F"][-1] == (1410, 0.04, 12.0)


def test_an_energyprofile_is_imported_as_it_is_without_what_a_cluster_added(
    run: Run, yaml_file: Path, spec: EnergyProfileSpec
) -> None:
    found = imported(run, yaml_file, "--name", "other")
    assert EnergyProfileSpec.from_api(found["spec"]) == spec
    assert found["metadata"] == {"name": "other"}


def test_an_export_comes_back_as_it_was(run: Run, yaml_file: Path, spec: EnergyProfileSpec, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    ran = run("profile", "export", yaml_file, "--output", path)
    assert (ran.status, ran.out) == (0, "")
    assert "--blocking-power 1400=80,1000=60" in ran.err
    again = EnergyProfileSpec.from_api(imported(run, path, *TOLD)["spec"])
    assert points(again) == points(spec)
    assert again.blocking_power[0] == spec.blocking_power[0]
    whole = yaml.safe_load(run("profile", "export", yaml_file, "--format", "yaml").out)
    assert EnergyProfileSpec.from_api(whole["spec"]) == spec


@given(
    st.lists(
        st.tuples(
            st.floats(1e-6, 90, allow_subnormal=False),
            st.floats(3, 900),
            st.floats(1e-6, 90, allow_subnormal=False),
            st.floats(3, 900),
        ),
        min_size=2,
        max_size=12,
    )
)
@examples(60)
def test_any_points_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    series: dict[str, list[tuple[int, float, float]]] = {
        kind: [
            (1400 - 15 * place, row[2 * which], row[2 * which] * row[2 * which + 1]) for place, row in enumerate(drawn)
        ]
        for which, kind in enumerate(("forward", "backward"))
    }
    rows = [f"0,{name},{clock},{time!r},{energy!r}" for name, ones in series.items() for clock, time, energy in ones]
    path = tmp_path_factory.mktemp("drawn") / "drawn.csv"
    path.write_text("\n".join([HEADER, *rows]))
    first = forms.of_csv(Profile.from_csv(path, blocking_power_w=2.0), TOPOLOGY)
    path.write_text(forms.as_csv(first))
    second = forms.of_csv(Profile.from_csv(path, blocking_power_w=2.0), TOPOLOGY)
    assert second == first
    assert points(first) == {(0, name[0].upper()): sorted(ones) for name, ones in series.items()}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0,forward,1400,-1,12", "line 3: time is '-1'; it must be a number of seconds above 0"),
        ("0,forward,1400,0.04,inf", "line 3: energy is 'inf'; it must be a number of joules above 0"),
        ("0,forward,1.4,0.04,12", "line 3: frequency is '1.4'; it must be a whole number of MHz"),
        ("0,foward,1400,0.04,12", "line 3: instruction 'foward' is unknown; use one of forward"),
        ("0,forward,1300,0.04,12", "line 3: stage 0 F at 1300 MHz is given twice, first in line 2; keep one row"),
        ("0,recomputation,1400,0.04,12", "it has rows of recomputation, and an EnergyProfile holds forward"),
        (
            "2,forward,1400,0.04,12\n2,forward,1300,0.04,12\n2,backward,1400,0.04,12\n2,backward,1300,0.04,12",
            "are 0, 2",
        ),
    ],
)
def test_what_is_wrong_in_a_csv_is_told_with_line_column_and_remedy(
    run: Run, tmp_path: Path, row: str, says: str
) -> None:
    path = tmp_path / "bad.csv"
    good = ["0,forward,1400,0.05,12", "0,backward,1400,0.05,12", "0,backward,1300,0.05,12"]
    rows = good[1:] if row.startswith("0,forward,1400") else good
    more = ["0,recomputation,1300,0.04,12"] if "recomputation" in row else []
    path.write_text("\n".join([HEADER, "0,forward,1300,0.05,12", row, *rows, *more]))
    ran = run("profile", "import", path, *TOLD)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert str(path) in ran.err


def test_what_is_missing_and_what_is_too_much_is_told(run: Run, csv: Path, yaml_file: Path, tmp_path: Path) -> None:
    assert "--blocking-power is missing: a CSV doesn't tell it" in run("profile", "import", csv).err
    assert "--gpu-model is missing" in run("profile", "import", csv, *TOLD[:4]).err
    assert "--microbatches is for a CSV" in run("profile", "import", yaml_file, "--microbatches", 6).err
    assert "'Big' is no name in Kubernetes" in run("profile", "import", csv, *TOLD, "--name", "Big").err
    assert "'zbv' is no schedule that jobs report" in run("profile", "import", csv, *TOLD, "--schedule", "zbv").err
    assert "holds no object of kind EnergyProfile" in run("profile", "export", csv).err
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    assert "holds something else" in run("profile", "import", csv, *TOLD, "-o", other).err
    assert other.read_text() == "mine"


def test_stages_without_whole_backwards_are_imported_too(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    rows = [
        f"{stage},{kind},{clock},{0.04 * 1400 / clock},{12 * clock / 1400}"
        for stage in range(2)
        for kind in ("forward", "input", "weight")
        for clock in (1400, 1000)
    ]
    path.write_text("\n".join([HEADER, *rows]))
    found = EnergyProfileSpec.from_api(imported(run, path, *TOLD, "--schedule", "Recorded")["spec"])
    assert set(points(found)) == {(stage, kind) for stage in range(2) for kind in "FIW"}


def test_pairs_that_run_interleaved_come_back_as_they_were(
    run: Run, spec: EnergyProfileSpec, manifest: dict[str, Any], tmp_path: Path
) -> None:
    first, *others = spec.stages
    paired = first.kinds[0].model_copy(update={"kind": "F&3:B"})
    stages = (first.model_copy(update={"kinds": (*first.kinds, paired)}), *others)
    before, path = tmp_path / "pairs.yaml", tmp_path / "pairs.csv"
    whole = spec.model_copy(update={"stages": stages})
    before.write_text(yaml.safe_dump({**manifest, "spec": whole.to_api()}))
    ran = run("profile", "export", before, "-o", path)
    assert ran.status == 0, ran.err
    assert "0,F&3:B,1400," in path.read_text()
    assert points(EnergyProfileSpec.from_api(imported(run, path, *TOLD)["spec"])) == points(whole)
