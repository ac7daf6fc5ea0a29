"""Writes the CustomResourceDefinitions from the models, or checks that they are what the models say.

They stand in `crds/`, for `kubectl apply`, and as copies in the chart: Helm reads no file outside of a chart, and
a link out of it does not survive every way that a chart travels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from joulepath_crds.definitions import KINDS, ApiKind, definition

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = (ROOT / "crds", ROOT / "charts/joulepath/files/crds")
HEADER: Final = (
    "# Made from the models in crds/joulepath_crds by `python -m joulepath_crds`: change those, then run it again.\n"
)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: a reader finds every field where it belongs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def documents() -> Mapping[str, str]:
    """The text of each file, by its name."""

    def text(kind: ApiKind) -> str:
        return HEADER + yaml.dump(definition(kind), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=118)

    return {f"{kind.plural}.yaml": text(kind) for kind in KINDS}


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m joulepath_crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs from the models")
    check = parser.parse_args(arguments).check
    wanted = {folder / name: text for folder in FOLDERS for name, text in documents().items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} differs from the models: run python -m joulepath_crds", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
