"""`python -m demo`: status 0 if the demo is a success, 1 if it isn't, 2 if the machine lacks something."""

from __future__ import annotations

import sys

from demo.options import parse
from demo.place import PlaceError
from demo.run import DemoError, run
from real_cluster import CommandError

__all__ = ["main"]


def main() -> int:
    """Runs the demo."""
    options = parse()
    try:
        return run(options)
    except PlaceError as error:
        print(error, file=sys.stderr)
        return 2
    except (DemoError, CommandError, TimeoutError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what the demo had set up is removed", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
