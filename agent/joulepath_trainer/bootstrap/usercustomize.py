"""Python imports this at its start where another tool's `sitecustomize` hides ours, and doesn't run it.

Not each Python does: one in a virtual environment, or with -s, imports no `usercustomize`.
"""

import joulepath_bootstrap  # type: ignore[import-not-found]

__all__ = []  # type: list[str]

joulepath_bootstrap.begin(__name__)
