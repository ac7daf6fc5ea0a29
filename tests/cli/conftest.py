"""A profile on disk, as CSV and as an EnergyProfile, and the command run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from joulepath_cli.__main__ import main
from joulepath_crds import (
    BlockingPower,
    EnergyProfileSpec,
    KindProfile,
    ProfilePoint,
    StageProfile,
    SwitchingLag,
    Topology,
    Transfer,
)
from tests.cli.command import PROFILE, Ran, Run


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `joulepath` with these arguments."""

    def ran(*arguments: object) -> Ran:
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        seen = capsys.readouterr()
        return Ran(status, seen.out, seen.err)

    return ran


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four uneven stages in Zeus's format."""
    path = tmp_path_factory.mktemp("profile") / "profile.csv"
    words = {"F": "forward", "B": "backward"}
    rows = [
        f"{stage},{words[kind]},{point.clock_mhz},{point.time_s!r},{point.energy_j!r}"
        for (stage, kind), points in PROFILE.points.items()
        for point in points
    ]
    path.write_text("\n".join(["stage,instruction,frequency,time,energy", *rows]))
    return path


@pytest.fixture(scope="session")
def spec() -> EnergyProfileSpec:
    """The same as an EnergyProfile, with lags, a tail and a standard error."""
    return EnergyProfileSpec(
        topology=Topology(schedule="1F1B", stages=4, microbatches=6, gpu_model="A100", default_clock_mhz=1400),
        stages=tuple(
            StageProfile(
                stage=stage,
                tail_s=0.01,
                kinds=tuple(
                    KindProfile(
                        kind=kind,
                        points=tuple(
                            ProfilePoint(
                                clock_mhz=point.clock_mhz,
                                time_s=point.time_s,
                                energy_j=point.energy_j,
                                time_standard_error_s=point.time_s * 0.004,
                            )
                            for point in PROFILE.points[stage, kind]
                        ),
                    )
                    for kind in "FB"
                ),
            )
            for stage in range(4)
        ),
        transfers=(Transfer(from_stage=0, to_stage=1, kind="F", delay_s=0.001),),
        blocking_power=(BlockingPower(clock_mhz=1400, power_w=80.0), BlockingPower(clock_mhz=1000, power_w=60.0)),
        iteration_time_s=1.5,
        energy_per_iteration_j=1000.0,
        lag=SwitchingLag(up_median_s=0.002, up_p95_s=0.004, down_median_s=0.002, down_p95_s=0.004, samples=9),
    )


@pytest.fixture(scope="session")
def manifest(spec: EnergyProfileSpec) -> dict[str, object]:
    """The EnergyProfile as the API server gives it."""
    return {
        "apiVersion": "joulepath.dev/v1alpha1",
        "kind": "EnergyProfile",
        "metadata": {"name": "gpt3", "namespace": "ml"},
        "spec": spec.to_api(),
    }


@pytest.fixture(scope="session")
def yaml_file(manifest: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The EnergyProfile in a file, after an object of another kind."""
    path = tmp_path_factory.mktemp("manifest") / "profile.yaml"
    path.write_text(yaml.safe_dump_all([{"kind": "ConfigMap"}, manifest]))
    return path
