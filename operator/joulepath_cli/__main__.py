"""The entry point `joulepath`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status, 2 after a sentence on standard error that says what was wrong."""
    try:
        from joulepath_cli import command_line

        status = command_line.run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        print(f"joulepath: the package {error.name} is missing; pip install 'joulepath[cli]'.", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
