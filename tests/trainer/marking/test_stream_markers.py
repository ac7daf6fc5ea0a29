"""Markers and times by the GPU's stream, on virtual GPUs: the host runs ahead, the GPU tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_double import AgentDouble
from joulepath_trainer.wire.page import MarkerEvent
from tests.trainer.frameworks.test_pipelining import check_markers, check_records, one_f_one_b
from virtual_gpus import state
from virtual_gpus.build import library_dir
from virtual_gpus.model import parametric

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery

WORLD, STEPS = 4, 6
SECONDS = {"F": 0.010, "B": 0.020}
SCALES = (1.0, 0.8, 0.9, 1.2)


def test_spans_are_the_times_that_the_kernels_took_on_each_gpu(nursery: Nursery, tmp_path: Path) -> None:
    model = parametric({"seconds": SECONDS, "stage_scale": SCALES})
    gpus = tmp_path / "state"
    state.create(gpus, model, state.Options(gpus=WORLD, time_noise=0.0, root_only=False))
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_on_virtual_gpus", WORLD, steps=STEPS, state=str(gpus))
        ranks = agent.ranks(WORLD)
    for number, rank in enumerate(ranks):
        assert (rank.hello.markers, rank.hello.gpu_uuid) == ("stream", state.uuids(gpus)[number])
        check_markers(rank, one_f_one_b(number))
        check_records(rank, one_f_one_b(number), STEPS)
        for kind, seconds in SECONDS.items():
            took = [s.end_s - s.begin_s for record in rank.records for s in record.spans if s.kind == kind]
            expected = seconds * SCALES[number]
            # A kernel that the host launches late begins after its marker; the least of all shows the kernel alone.
            assert min(took) == pytest.approx(expected, rel=0.1)
            assert min(took) >= expected * (1 - 1e-4)
        assert all(record.end_s >= 4 * sum(SECONDS.values()) * SCALES[number] for record in rank.records)
        assert rank.entries()[-1].event == MarkerEvent.STEP_END


def test_an_agent_that_dies_while_the_gpu_has_markers_to_write_costs_nothing(nursery: Nursery, tmp_path: Path) -> None:
    gpus = tmp_path / "state"
    state.create(gpus, parametric({"seconds": SECONDS}), state.Options(gpus=2, root_only=False))
    with AgentDouble(nursery.socket, hang_up_after=2) as agent:
        nursery.run("train_on_virtual_gpus", 2, steps=STEPS, state=str(gpus))
        ranks = agent.ranks(2)
    assert [len(rank.records) for rank in ranks] == [2, 2]


def test_a_gpu_that_is_not_the_current_one_is_named_and_marked(nursery: Nursery, tmp_path: Path) -> None:
    gpus = tmp_path / "state"
    state.create(gpus, parametric({"seconds": SECONDS}), state.Options(gpus=3, time_noise=0.0, root_only=False))
    (found,) = nursery.run("mark_another_device", 1, state=str(gpus))
    assert found["uuid"] == state.uuids(gpus)[1]
    assert all(seconds >= SECONDS["F"] * (1 - 1e-4) for seconds in found["seconds"])
    assert found["as they were"] == [True, True]
    assert found["own"] == 0, "the second thread has none, before and after"
    assert found["absent"] == 0, "none is made where there was none"
    assert found["kept"] == [0, 0], "whoever made one takes it away by one release"


def test_a_process_with_the_driver_but_no_context_does_not_use_it(nursery: Nursery) -> None:
    assert nursery.run("uses_driver", 1) == [False]


def test_looking_for_the_driver_does_not_load_it() -> None:
    code = (
        "from joulepath_trainer.marking.cuda import Driver; "
        "print(Driver.in_use(), 'libcuda' in open('/proc/self/maps').read())"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_dir())}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "None False\n"
