"""`joulepath_load` for a virtual GPU: kernels of the virtual stream instead of torch's, all-reduces by gloo.

python -m virtual_gpus.load --page FD           with CUDA_VISIBLE_DEVICES=UUID
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Final

from joulepath_load.collectives import reduce_for_ever
from joulepath_load.serving import serve
from virtual_gpus import stream

__all__ = ["VirtualWork", "main"]

_WAIT_S: Final = 0.01
_BATCH: Final = 8


class VirtualWork:
    """Work for the first GPU that is visible: a stage's forwards."""

    name = "virtual kernels"

    def __init__(self) -> None:
        stream.set_device(0)

    def compute(self) -> None:
        """See `joulepath_load.work`."""
        for _ in range(_BATCH):
            stream.launch(0, "F")
        stream.synchronize()

    def wait(self) -> None:
        """A virtual GPU with a context that computes nothing draws blocking power."""
        stream.synchronize()
        time.sleep(_WAIT_S)

    def kernel(self) -> None:
        """A kernel `0/K` that the model has to have: short ones are no stage's."""
        stream.launch(0, "K")

    def finish(self) -> None:
        """See `joulepath_load.work`."""
        stream.synchronize()

    def stream(self) -> int:
        """The default stream."""
        return 0


def main() -> None:
    """Until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--store")
    options = parser.parse_args()
    os.environ["NVIDIA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if options.rank is not None:
        reduce_for_ever(options.rank, options.store, "gloo")
    else:
        serve(VirtualWork, options.page)


if __name__ == "__main__":
    main()
