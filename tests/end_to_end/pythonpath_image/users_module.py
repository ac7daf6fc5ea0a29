"""The user's code, found by the PYTHONPATH of its image only."""

from __future__ import annotations

GREETING = "hello from the image's own PYTHONPATH"
