"""The range of clocks that a site locks its GPUs to of its own will, as warden and agent are told it. Pure."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

__all__ = ["ClockRange", "site_clocks"]


@dataclass(frozen=True, slots=True)
class ClockRange:
    """In MHz: NVML can't tell what a site has locked, so it is declared."""

    low_mhz: int
    high_mhz: int

    @classmethod
    def parse(cls, text: str) -> ClockRange:
        """Reads `LOW,HIGH`.

        Raises:
            ValueError: It is no such range.
        """
        low, _, high = text.partition(",")
        try:
            made = cls(int(low), int(high))
        except ValueError:
            raise ValueError(f"site clocks must be LOW,HIGH in MHz, for example 210,1410; they are {text!r}") from None
        if not 0 < made.low_mhz <= made.high_mhz:
            raise ValueError(f"site clocks must be 0 < LOW <= HIGH, they are {text!r}")
        return made


def site_clocks(text: str) -> ClockRange | None:
    """The value of --site-clocks; None where it is empty."""
    try:
        return ClockRange.parse(text) if text else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
