"""A training loop of nobody's framework, on a virtual GPU, that tells of itself by `joulepath_trainer`.

python loop.py MICROBATCHES [MICROBATCHES LATER]     from its 60th iteration on it has the second number of microbatches

It prints a line for each iteration. Where there is no trainer, it trains as well.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import Any

from virtual_gpus import stream

try:
    import joulepath_trainer as joulepath
except ImportError:
    joulepath = None  # type: ignore[assignment]

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def iteration() -> Any:
    """Tells of one."""
    return joulepath.iteration() if joulepath else nullcontext()


def instruction(kind: str, microbatch: int) -> Any:
    """Tells of one."""
    return joulepath.instruction(kind, stage=RANK, microbatch=microbatch) if joulepath else nullcontext()


def main() -> None:
    """Trains."""
    stream.set_device(RANK)
    now = 0
    for number in range(100_000):
        microbatches = int(sys.argv[1 if number < 60 else -1])
        if joulepath and now != microbatches:
            joulepath.describe(stages=[RANK], stage_count=WORLD, microbatches=microbatches, ranks=range(WORLD))
        now = microbatches
        with iteration():
            for kind in "FB":
                for microbatch in range(microbatches):
                    with instruction(kind, microbatch):
                        stream.launch(0, kind)
            stream.synchronize()
        print(number, flush=True)


if __name__ == "__main__":
    main()
