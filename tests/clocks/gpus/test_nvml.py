"""What is read of GPUs from NVML (virtual): their names, what devices mean by them, and their meters."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from joulepath_agent.peers.devices import Grant, NodeGpu, granted
from virtual_gpus.fixtures import MakeVirtualGpus, VirtualGpus

READ = """
import json
from joulepath_clocks.gpus.nvml import Nvml
gpus, _ = Nvml().look()
print(json.dumps([(gpu.uuid, gpu.index, gpu.minor, gpu.mig, gpu.refused) for gpu in gpus]))
"""


LET_GO = """
import json
from joulepath_clocks.gpus.nvml import GpuError, Nvml
nvml = Nvml()
(gpu,), _ = nvml.look()
last_j = gpu.energy_now_j()
nvml.let_go()
try:
    now_j = gpu.energy_now_j()
except GpuError as error:
    now_j = str(error)
print(json.dumps([gpu.energy_j() == last_j, now_j]))
"""

LIMITS = """
import json, pynvml
from joulepath_clocks.gpus.nvml import Nvml
(gpu,), _ = Nvml().look()
first = gpu.driver, gpu.power_cap_w
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
pynvml.nvmlDeviceSetPowerManagementLimit(handle, 300_000)
gpu.read_limits()
print(json.dumps([first, pynvml.nvmlSystemGetDriverVersion(), gpu.power_cap_w]))
"""

CAUSES = """
import json, sys
from joulepath_clocks.gpus.nvml import Nvml
from virtual_gpus import state, stream
(gpu,), _ = Nvml().look()
stream.set_device(0)
found = []
for slower in (0.0, 0.2, 0.0):
    state.break_gpu(sys.argv[1], 0, slower=slower)
    found.append([gpu.held_back_by(), gpu.is_held_back()])
print(json.dumps(found))
"""


def run(program: str, gpus: VirtualGpus) -> Any:
    """What a process says that runs this program."""
    command = [sys.executable, "-c", program, str(gpus.path)]
    done = subprocess.run(command, env=gpus.environment, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def read(gpus: VirtualGpus) -> tuple[tuple[NodeGpu, ...], list[str | None]]:
    """The GPUs as a process sees them, and why no plan may touch their clocks."""
    rows = run(READ, gpus)
    return tuple(NodeGpu(*row[:4]) for row in rows), [row[4] for row in rows]


def test_devices_named_by_minor_numbers_are_found_where_nvml_counts_otherwise(
    make_virtual_gpus: MakeVirtualGpus,
) -> None:
    virtual = make_virtual_gpus(gpus=2, minors="1,0")
    gpus, refused = read(virtual)
    first, second = virtual.uuids
    assert [(gpu.uuid, gpu.index, gpu.minor) for gpu in gpus] == [(first, 0, 1), (second, 1, 0)]
    assert refused == [None, None]
    assert granted("nvidia.com/gpu", "nvidia0", gpus) == (Grant(second),)
    assert granted("gpu.nvidia.com", "gpu-1", gpus) == (Grant(first),)
    assert {grant.code for grant in granted("nvidia.com/gpu", "0", gpus)} == {"AmbiguousGpu"}


def test_a_gpu_in_mig_mode_is_refused_and_says_why(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus, refused = read(make_virtual_gpus(gpus=2, mig="1"))
    assert [gpu.mig for gpu in gpus] == [False, True]
    assert refused[0] is None
    assert "a clock is the whole GPU's" in str(refused[1])
    assert [grant.code for grant in granted("nvidia.com/gpu", gpus[1].uuid, gpus)] == ["MigGpu"]


def test_a_counter_of_which_nvml_was_let_go_shows_what_it_showed_and_not_that_it_is_so_now(
    make_virtual_gpus: MakeVirtualGpus,
) -> None:
    shown, now = run(LET_GO, make_virtual_gpus(gpus=1))
    assert shown
    assert "let go of" in now


def test_driver_and_power_cap_are_read_and_one_that_is_changed_later_too(make_virtual_gpus: MakeVirtualGpus) -> None:
    (driver, cap_w), told, lowered_w = run(LIMITS, make_virtual_gpus(gpus=1))
    assert driver == told
    assert (cap_w, lowered_w) == (400.0, 300.0)


def test_the_cause_that_the_driver_names_is_told_in_a_word(make_virtual_gpus: MakeVirtualGpus) -> None:
    assert run(CAUSES, make_virtual_gpus(gpus=1)) == [["", False], ["heat", True], ["", False]]
