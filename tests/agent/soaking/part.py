"""A part of the node as the product starts it, with quicker timers.

    python -m tests.agent.soaking.part agent|clocks|warden [OPTIONS]

It imports nothing but the part, so that its memory is the part's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Final

__all__ = ["RECHECK_S", "TIMERS"]

TIMERS: Final[dict[str, dict[str, dict[str, object]]]] = {
    "agent": {
        "joulepath_agent.cluster.api": {"_TICK_S": 0.1},
        "joulepath_agent.cluster.heartbeat": {"_RENEW_S": 0.1},
        "joulepath_agent.cluster.reporting": {
            "_SOON_S": 0.02,
            "_MEASURED_S": (0.02, 0.02),
            "REPORT_INTERVAL_S": 0.1,
        },
        "joulepath_agent.channel": {"_AGAIN_S": 0.02},
        "joulepath_agent.gpus.energy": {"_FINE": 100, "_COARSE": 20},
        "joulepath_agent.measuring.history": {"_MOST_RUNS": 8, "MOST_BLOCKS": 8, "_TIMELINES": 8},
    },
    "clocks": {
        "joulepath_clocks.channel.server": {"_TURN_S": 0.1},
        "joulepath_clocks.endpoint": {"_TICK_S": 0.1},
        "joulepath_clocks.gpus.leasing": {"BEAT_S": 0.02},
    },
    "warden": {},
}
"""Constants of the parts that are other ones here: seconds between two times, and what is kept for a time."""
RECHECK_S: Final = 0.5


def run(part: str, arguments: Sequence[str]) -> None:
    """What the product starts, with quicker timers."""
    sys.argv = [part, *arguments]
    for module, constants in TIMERS[part].items():
        for name, value in constants.items():
            setattr(import_module(module), name, value)
    if part == "agent":
        defaults = import_module("joulepath_agent.agent").Agent.__init__.__kwdefaults__
        defaults["budget"] = replace(defaults["budget"], recheck_s=RECHECK_S)
    program = {"agent": "joulepath_agent.__main__", "clocks": "local_clocks", "warden": "joulepath_warden.__main__"}
    sys.exit(import_module(program[part]).main())


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
