"""The ranks on the node's GPUs: which clock each of them wants, and when.

guard      whether a plan keeps its promise
conductor  from markers and a plan to wishes
rank       a rank's process, page, conductor, history and lease
"""

from __future__ import annotations

__all__: list[str] = []
