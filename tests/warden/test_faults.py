"""A few random sequences of faults; `benchmarks/faults.py` runs hundreds."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.agent.room import Launcher
from tests.warden.faulty_node import NodeMachine


@pytest.mark.slow
def test_no_sequence_of_faults_leaves_a_clock_locked(launcher: Launcher) -> None:
    NodeMachine.launcher = launcher
    chosen = settings(max_examples=4, stateful_step_count=10, derandomize=True, phases=[Phase.generate], deadline=None)
    run_state_machine_as_test(NodeMachine, settings=chosen)
