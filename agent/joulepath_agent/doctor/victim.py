"""The process that the doctor kills: it leases a GPU of the warden, locks its clock, and holds it until its input ends.

python -m joulepath_agent.doctor.victim STATE_DIR UUID MHZ [SITE_CLOCKS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from joulepath_agent.doctor import board
from joulepath_agent.doctor.hold import Hold, NotMeasuredError
from joulepath_clocks.gpus.leasing import Leasing
from joulepath_clocks.gpus.nvml import GpuError
from joulepath_warden.clocks import site_clocks
from joulepath_warden.wire import DOCTOR_FOLDER

__all__ = ["main"]


def main() -> None:
    """Prints "locked", or why not; ends by SIGKILL, or when the doctor is gone."""
    state_dir, uuid, clock = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    leasing = Leasing(state_dir / DOCTOR_FOLDER, lambda _: True, lambda _, why: print(why, flush=True))
    leasing.start()
    try:
        gpus, _ = board.gpus(site_clocks(sys.argv[4] if len(sys.argv) > 4 else ""))
        (gpu,) = [one for one in gpus if one.uuid == uuid]
        Hold(gpu, leasing).lock(clock)
    except (GpuError, NotMeasuredError, ValueError) as error:
        print(error, flush=True)
        return
    print("locked", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
