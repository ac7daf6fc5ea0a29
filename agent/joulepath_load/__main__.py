"""`python -m joulepath_load --page FD`: loads the first GPU that CUDA shows; `collectives`: one of two ranks."""

from __future__ import annotations

import argparse

from joulepath_load.collectives import reduce_for_ever
from joulepath_load.serving import serve
from joulepath_load.torch_work import TorchWork

__all__ = ["main"]


def main() -> None:
    """Until its input ends."""
    parser = argparse.ArgumentParser(prog="joulepath_load", description="Loads a GPU as it is told on standard input.")
    parser.add_argument("--page", type=int, help="descriptor of the page that the GPU is to write")
    parser.add_argument("--rank", type=int, help="reduces in a loop instead, as this of two ranks")
    parser.add_argument("--store", help="file through which the two ranks meet")
    options = parser.parse_args()
    if options.rank is not None:
        reduce_for_ever(options.rank, options.store, "nccl")
    else:
        serve(TorchWork, options.page)


if __name__ == "__main__":
    main()
