"""Python imports this at its start, as this folder is on its PYTHONPATH."""

import joulepath_bootstrap  # type: ignore[import-not-found]

__all__ = []  # type: list[str]

joulepath_bootstrap.begin(__name__)
