"""What holds: the tests mirror the packages, room by room; what they start and drive lives in `lab`."""

from __future__ import annotations
