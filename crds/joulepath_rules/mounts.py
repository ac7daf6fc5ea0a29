"""Where in a container a mount comes to, and whether it meets ours, as webhook and injector both have to know."""

from __future__ import annotations

from typing import Final

__all__ = ["lexical", "meets"]

_ABOVE: Final = ("/", "/run")
"""Where ours would be made in what somebody else has mounted."""


def lexical(destination: str) -> str:
    """The path that the runtime comes to from a container's root, without looking into its image.

    `/var/run` leads to `/run` in most images, before a `..` behind it counts.
    """
    parts: list[str] = []
    for part in destination.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
        if parts == ["var", "run"]:
            parts = ["run"]
    return "/" + "/".join(parts)


def meets(destination: str, *ours: str) -> bool:
    """Whether what is mounted there hides what we mount in one of these folders, or the other way round."""
    path = lexical(destination)
    return path in _ABOVE or any(f"{path}/".startswith(f"{folder}/") for folder in ours)
