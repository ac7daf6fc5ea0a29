"""Pictures as SVG, of data that anybody may have.

- `svg`: the elements, and one style that reads in light and in dark
- `timeline_svg`: one iteration: ranks as rows, instructions as boxes
- `frontier_svg`: the least energy by iteration time, a plan and what was measured
"""

from __future__ import annotations

__all__: list[str] = []
