"""`joulepath profile`: EnergyProfiles of published profiles, and the other way round.

- `command`: what is asked, and where it is written
- `energyprofile`: reads an EnergyProfile from a file or the cluster
- `forms`: an EnergyProfile as Zeus's CSV or as a manifest, and of a CSV
"""

from __future__ import annotations

from joulepath_cli.commands.profile.command import add_arguments, run

__all__ = ["add_arguments", "run"]
