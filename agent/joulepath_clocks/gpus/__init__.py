"""The GPUs of the node: their clocks.

- `nvml`: one GPU through NVML
- `absence`: no GPUs to be found: harmless, or a fault?
- `discovery`: which GPUs there are, however late they come
- `wish`: what a rank wants of a clock
- `settled`: the clock that a GPU settles at under load
- `foreign`: somebody else sets the clock
- `lags`: how long switches took, as measured
- `leasing`: the warden's lease of a GPU, without which its clock isn't touched
- `setter`: the thread that orders a GPU's clock, and looks how long that takes
- `lease`: what keeps a clock locked, and all that ends it
- `looks`: the thread that looks at the clocks of GPUs that compute
"""

from __future__ import annotations

__all__: list[str] = []
