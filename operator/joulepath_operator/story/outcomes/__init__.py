"""What may become of a plan, but to be played as it is.

- `withdrawal`: how a plan that is slower than allowed is taken back
- `idle`: a job without a pipeline that saves nothing at the slowdown that is allowed
- `stragglers`: a pipeline that is held up, for which the others needn't hurry
"""

from __future__ import annotations

__all__: list[str] = []
