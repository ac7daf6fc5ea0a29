"""What each command reads, asks and shows.

- `scenario`: what is planned: a profile and the options that describe a pipeline
- `goal`: what is wanted of a plan, and the plan that gives it
- `document`: a plan as JSON
- `files`: what may be written where
- `drawing`: plans and frontiers as the pictures' data
- `plan`, `frontier`, `compare`, `explain`, `replay`, `stragglers`, `resume`, the wings `preflight`, `profile` and
  `pause`: the commands
"""

from __future__ import annotations

__all__: list[str] = []
