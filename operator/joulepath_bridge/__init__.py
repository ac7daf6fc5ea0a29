"""The step from the contract's words to the planner's, and back. Operator and command line both take it here.

- `pipeline`: a measured EnergyProfile as a pipeline
- `lags`: measured switching lags as a lag table
- `switching`: what a switch costs by itself, of what switching at each instruction cost a job
- `stages`: a plan as what each stage is told
"""

from __future__ import annotations

__all__: list[str] = []
